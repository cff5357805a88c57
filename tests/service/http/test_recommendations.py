from __future__ import annotations

import pytest

from service.http import routes_recommendations, schemas
from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import publish_world


def test_the_bytes_of_the_hot_path_fit_the_schemas(client):
    for path, schema in (
        ("/recommend/u1?k=7", schemas.Recommendations),
        ("/recommend/nobody", schemas.Recommendations),
        ("/explain/u1/i3", schemas.Explanation),
        ("/similar/i3", schemas.SimilarItems),
        ("/popular", schemas.ItemList),
        ("/health/live", schemas.Live),
        ("/health/ready", schemas.Ready),
    ):
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        found = schema.model_validate_json(answer.content)
        assert answer.json().keys() == schema.model_fields.keys()
        assert found.model_dump(mode="json") == answer.json()


def test_a_list_has_k_items_20_where_nothing_is_said(client):
    assert len(client.get("/recommend/u1?k=3").json()["items"]) == 3
    assert len(client.get("/recommend/u2").json()["items"]) == 20
    assert len(client.get("/recommend/nobody").json()["items"]) == 20


@pytest.mark.parametrize("k", ["0", "-1", "201", "many", "1.5"])
def test_a_k_out_of_bounds_is_refused(client, k):
    answer = client.get(f"/recommend/u1?k={k}")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "k" in answer.json()["error"]["message"]


IDS = {
    "a/b": "a%2Fb",
    "ü": "%C3%BC",
    "100%": "100%25",
    "%2F": "%252F",
    "with space": "with%20space",
    "q?a=b&c#d": "q%3Fa%3Db%26c%23d",
    "..": "..%2F..",
    "+": "+",
    "日本": "%E6%97%A5%E6%9C%AC",
}


@pytest.mark.parametrize(("name", "encoded"), [(k, v) for k, v in IDS.items() if k != ".."])
def test_ids_of_any_characters_work_in_paths(client, name, encoded):
    item = f"item {name}"
    answer = client.post("/interactions", json={"user_id": name, "item_id": item})
    assert answer.status_code == 202, answer.text
    found = client.get(f"/recommend/{encoded}?k=30").json()
    assert found["user_id"] == name
    assert item not in {it["item_id"] for it in found["items"]}
    explained = client.get(f"/explain/{encoded}/item%20{encoded}").json()
    assert (explained["user_id"], explained["item_id"], explained["rank"]) == (name, item, None)
    assert [part["item_id"] for part in explained["contributions"]] == [item]
    assert client.get(f"/similar/item%20{encoded}").json()["item_id"] == item


def test_a_plain_slash_works_where_there_is_one_id_and_is_refused_where_there_are_two(client):
    assert client.get("/recommend/a/b").json()["user_id"] == "a/b"
    answer = client.get("/explain/a/b/i1")
    assert answer.status_code == 422
    assert "%2F" in answer.json()["error"]["message"]


@pytest.mark.parametrize("path", ["/recommend/%FF", "/recommend/" + "x" * 257, "/explain/u1/%C3"])
def test_ids_that_can_not_be_are_refused(client, path):
    assert client.get(path).json()["error"]["code"] == "invalid_request"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/explain/nobody/i1", "unknown_user"),
        ("/explain/u1/nothing", "unknown_item"),
        ("/similar/nothing", "unknown_item"),
        ("/nowhere", "not_found"),
        ("/explain/", "invalid_request"),
    ],
)
def test_what_is_unknown_has_its_code(client, path, code):
    answer = client.get(path)
    assert answer.json()["error"]["code"] == code
    assert answer.status_code in {404, 422}


def test_lists_and_explanations_agree(client):
    for item in client.get("/recommend/u4?k=5").json()["items"]:
        explained = client.get(f"/explain/u4/{item['item_id']}").json()
        assert explained["score"] == item["score"]
        total = explained["self"] + sum(part["contribution"] for part in explained["contributions"])
        assert total == pytest.approx(item["score"], rel=1e-4)


def test_openapi_describes_every_route(client):
    described = client.get("/openapi.json").json()
    assert set(described["paths"]) >= {
        "/recommend/{user_id}",
        "/explain/{user_id}/{item_id}",
        "/interactions",
        "/admin/retrain",
        "/admin/jobs/{job_id}",
        "/health/ready",
        "/metrics",
    }
    assert "requestBody" in described["paths"]["/interactions"]["post"]


def test_a_read_waits_for_the_sequence_number_that_it_asks_for(tmp_path):
    publish_world(tmp_path)
    settings = Settings(store=tmp_path, index="exact", refresh_every=5, read_timeout=0.2, poll_interval=0.05)
    with Client(create_app(settings)) as client:
        sequence = client.post("/interactions", json={"user_id": "late", "item_id": "i3"}).json()["sequence"]
        found = client.get(f"/recommend/late?at_least={sequence}").json()
        assert found["sequence"] >= sequence
        assert found["items"][0]["strategy"] == "fold_in"
        assert client.get(f"/explain/late/i4?at_least={sequence}").json()["sequence"] >= sequence
        answer = client.get(f"/recommend/late?at_least={sequence + 1}")  # nobody writes it
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
        assert answer.headers["Retry-After"] == "1"
        assert f"up to {sequence}" in answer.json()["error"]["message"]
        assert client.get("/recommend/late?at_least=-1").status_code == 422


def test_a_read_that_has_to_walk_from_many_nodes_gives_the_same_answer_beside_the_event_loop(tmp_path, monkeypatch):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, index="exact", refresh_every=1000))) as client:
        client.post("/interactions", json={"user_id": "late", "item_id": "i3"})
        monkeypatch.setattr(routes_recommendations, "MOST_WALKS", -1)
        beside = client.get("/recommend/late").json()
        monkeypatch.undo()
        assert beside == client.get("/recommend/late").json()
