from __future__ import annotations

import httpx
import pytest

from service.http.app import create_app
from service.recommendation import recommender
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import publish_world
from tests.support.live_server import LiveServer


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish_world(root)
    with Client(create_app(Settings(store=root))) as client:
        yield client


def test_a_sane_request_id_is_kept_and_another_is_replaced(client):
    assert client.get("/popular", headers={"X-Request-ID": "abc-1.2_3"}).headers["x-request-id"] == "abc-1.2_3"
    for odd in ("", "x" * 65, 'a"b', "a b"):
        made = client.get("/popular", headers={"X-Request-ID": odd}).headers["x-request-id"]
        assert made != odd
        assert len(made) == 16


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nope", 404, "not_found"),
        ("POST", "/recommend/u1", 405, "method_not_allowed"),
        ("PUT", "/interactions", 405, "method_not_allowed"),
        ("GET", "/recommend/u1?k=x", 422, "invalid_request"),
        ("GET", "/explain/zz/i1", 404, "unknown_user"),
    ],
)
def test_every_error_has_the_same_shape(client, method, path, status, code):
    answer = client.request(method, path, headers={"X-Request-ID": "mine"})
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert answer.json()["error"].keys() == {"code", "message", "request_id"}
    assert (answer.json()["error"]["code"], answer.json()["error"]["request_id"]) == (code, "mine")


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/items/i1", "DELETE, GET, HEAD, PUT"),
        ("POST", "/users/u1", "DELETE, GET, HEAD, PUT"),
        ("PUT", "/interactions", "DELETE, POST"),
        ("DELETE", "/recommend", "POST"),
        ("PUT", "/explain/u1/i1", "GET, HEAD, POST"),
        ("POST", "/admin/experiment", "DELETE, GET, HEAD, PUT"),
    ],
)
def test_a_method_that_a_path_does_not_answer_is_told_all_that_it_does(client, method, path, allowed):
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


def test_a_broken_inside_shows_nothing_of_itself(client, monkeypatch):
    def broken(*_args):
        raise ZeroDivisionError("the secret of the inside")

    monkeypatch.setattr(recommender, "popular", broken)
    answer = client.get("/popular")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal_error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["error"]["request_id"] in answer.json()["error"]["message"]


def test_requests_are_counted_by_route_not_by_path(client):
    client.get("/recommend/somebody-private")
    client.get("/also-private")
    text = client.get("/metrics").text
    assert 'route="/recommend/{user_id:path}"' in text or 'route="/recommend/{user_id}"' in text
    assert 'route="unmatched",status="404"' in text
    assert "private" not in text
    assert client.get("/metrics").headers["content-type"].startswith("text/plain")


def test_a_request_that_is_refused_for_its_key_counts_for_its_route(tmp_path):
    publish_world(tmp_path)
    settings = Settings(store=tmp_path, index="exact", require_keys="read", admin_key="correct-horse-battery")
    with Client(create_app(settings)) as client:
        assert client.get("/similar/i1").status_code == 401
        assert client.get("/recommend/u1").status_code == 401
        assert client.request("DELETE", "/users/u1").status_code == 401
        assert client.get("/nowhere").status_code == 401
        text = client.get("/metrics", headers={"Authorization": "Bearer correct-horse-battery"}).text
    for method, route in (
        ("GET", "/similar/{item_id:path}"),
        ("GET", "/recommend/{user_id:path}"),
        ("DELETE", "/users/{user_id:path}"),
        ("GET", "unmatched"),
    ):
        assert f'kdiffe_requests_total{{method="{method}",route="{route}",status="401"}} 1.0' in text


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        # A filter of POST /recommend: the list would look as if it held.
        ("GET", "/recommend/u1?k=3&categories=lamps", "categories: there is no such query parameter; there are k,"),
        ("GET", "/similar/i1?K=3", "K: there is no such query parameter"),
        ("POST", "/interactions?at_least=3", "at_least: there is no such query parameter."),
        ("GET", f"/popular?{'x' * 500}=1", f"{'x' * 60}: there is no such"),
    ],
)
def test_a_parameter_that_a_route_does_not_have_is_refused(client, method, path, words):
    body = {"json": {"user_id": "u1", "item_id": "i1"}} if method == "POST" else {}
    answer = client.request(method, path, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert answer.json()["error"]["message"].startswith(words)


def test_probes_and_scrapers_may_add_parameters(client):
    assert client.get("/health/ready?from=balancer").status_code == 200
    assert client.get("/metrics?name=x").status_code == 200


def test_head_is_answered_as_get_without_the_body(tmp_path):
    publish_world(tmp_path)
    with LiveServer(create_app(Settings(store=tmp_path))) as server:
        for path in ("/health/ready", "/recommend/u1?k=2", "/similar/i1", "/docs"):
            asked, head = httpx.get(server.url + path), httpx.head(server.url + path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == str(len(asked.content))
            assert head.headers["content-type"] == asked.headers["content-type"]
        assert httpx.head(f"{server.url}/interactions").status_code == 405


def test_a_short_wrong_value_stands_in_the_error_and_a_long_one_is_cut(client):
    assert "k='abc'" in client.get("/recommend/u1?k=abc").json()["error"]["message"]
    message = client.get(f"/recommend/u1?k={'x' * 500}").json()["error"]["message"]
    assert "x…:" in message
    assert len(message) < 200
