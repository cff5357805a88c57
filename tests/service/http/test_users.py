from __future__ import annotations

import pytest

from service.http import schemas_users
from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import World, publish_world


@pytest.fixture
def client(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, index="exact", refresh_every=5, poll_interval=0.05))) as client:
        yield client


RECORD = {"attributes": {"country": "AT", "age": 33, "rate": 0.5, "adult": True, "topics": ["ski", 1]}}


def test_a_record_is_put_told_and_replaced(client):
    answer = client.request("PUT", "/users/a%2Fb", json=RECORD)
    assert (answer.status_code, answer.json()) == (200, {"user_id": "a/b", "accepted": True, "sequence": 1})
    told = client.get("/users/a%2Fb")
    schemas_users.UserOut.model_validate_json(told.content)
    assert told.json()["record"] == RECORD
    assert (told.json()["recorded_at"], told.json()["n_interactions"], told.json()["in_version"]) == (1, 0, False)
    client.request("PUT", "/users/a%2Fb", json={"attributes": {}})
    assert client.get("/users/a%2Fb").json()["record"] == {"attributes": {}}


def test_sent_again_with_the_same_key_a_record_counts_once(client):
    for accepted in (True, False):
        answer = client.request("PUT", "/users/u1", json=RECORD, headers={"Idempotency-Key": "once"})
        assert (answer.json()["accepted"], answer.json()["sequence"]) == (accepted, 1)
    refused = client.request("PUT", "/users/u1", json=RECORD, headers={"Idempotency-Key": "x" * 257})
    assert refused.json()["error"]["code"] == "invalid_request"


def test_a_user_of_the_artifact_is_known_without_a_record(client):
    told = client.get("/users/u1").json()
    assert told["record"] is None
    assert told["in_version"]
    assert told["n_interactions"] == client.get("/history/u1?limit=1").json()["n_items"]
    answer = client.get("/users/nobody")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_user")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", "attributes"),
        (b"[]", "body"),
        (b"{", "not JSON"),
        (b'{"attributes": {"a": NaN}}', "not JSON"),
        (b'{"attributes": {"a": null}}', "attributes"),
        (b'{"attributes": {"a": {"b": 1}}}', "attributes"),
        (b'{"attributes": {"a": "\\ud800"}}', "not JSON"),
        (b'{"attributes": {"": 1}}', "attributes"),
        (b'{"attributes": {}, "name": "x"}', "name"),
        (b'{"attributes": {"a": "' + b"x" * 1001 + b'"}}', "attributes"),
    ],
)
def test_a_malformed_record_is_refused(client, body, words):
    answer = client.request("PUT", "/users/u1", content=body)
    assert answer.status_code == 422, answer.text
    assert words in answer.json()["error"]["message"]
    assert client.context.state.last_sequence() == 0


def test_an_id_that_can_not_be_kept_is_refused(client):
    for encoded in ("%00", "a%0Ab", "%FF", "x" * 257):
        assert client.request("PUT", f"/users/{encoded}", json=RECORD).status_code == 422
        assert client.request("DELETE", f"/users/{encoded}").status_code == 422


def test_an_erased_user_is_nowhere_any_more(client):
    client.request("PUT", "/users/u1", json=RECORD)
    client.post("/interactions", json={"user_id": "u1", "item_id": "i3", "id": "key"})
    before = client.get("/recommend/u1").json()
    assert before["items"][0]["strategy"] == "model"
    answer = client.request("DELETE", "/users/u1")
    assert answer.json() == {"user_id": "u1", "sequence": 3, "versions": ["v0001"]}
    after = client.get("/recommend/u1").json()
    assert {item["strategy"] for item in after["items"]} == {"popular"}
    assert client.get("/users/u1").json()["error"]["code"] == "unknown_user"
    assert client.get("/explain/u1/i3").json()["error"]["code"] == "unknown_user"
    assert [entry.user_id for entry in client.context.state.read(0, 10)] == ["", "", "u1"]
    # The key is free again, and who comes back is someone new.
    again = client.post("/interactions", json={"user_id": "u1", "item_id": "i3", "id": "key"}).json()
    assert again["accepted"] == 1
    told = client.get("/users/u1").json()
    assert (told["in_version"], told["n_interactions"]) == (False, 1)


def test_the_versions_that_hold_an_erased_user_are_listed_until_they_are_pruned(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(n_users=20), activate=False)
    with Client(create_app(Settings(store=tmp_path, index="exact"))) as client:
        assert client.request("DELETE", "/users/u25").json()["versions"] == ["v0001"]
        assert client.request("DELETE", "/users/u5").json()["versions"] == ["v0001", "v0002"]
        assert client.request("DELETE", "/users/nobody").json()["versions"] == []


def test_a_removed_interaction_is_recommended_again(client):
    seen = client.get("/history/u1?limit=1").json()["items"][0]["item_id"]
    everything = "/recommend/u1?k=60"
    assert seen not in {item["item_id"] for item in client.get(everything).json()["items"]}
    answer = client.request("DELETE", "/interactions", params={"user_id": "u1", "item_id": seen})
    assert answer.json() == {"accepted": 1, "duplicates": 0, "sequence": 1}
    assert seen in {item["item_id"] for item in client.get(everything).json()["items"]}
    assert ("u1", seen) not in client.model.edges()


def test_a_removal_of_what_never_was_is_taken_and_changes_nothing(client):
    never = client.get("/recommend/u1?k=1").json()["items"][0]["item_id"]
    edges, listed = client.model.edges(), client.get("/recommend/u1?k=60").json()["items"]
    answer = client.request("DELETE", "/interactions", params={"user_id": "u1", "item_id": never})
    assert answer.json() == {"accepted": 1, "duplicates": 0, "sequence": 1}
    assert client.model.edges() == edges
    assert client.get("/recommend/u1?k=60").json()["items"] == listed


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"user_id": "nobody", "item_id": "i1"}, "unknown_user"),
        ({"user_id": "u1", "item_id": "nothing"}, "unknown_item"),
        ({"user_id": "u1"}, "invalid_request"),
        ({"user_id": "", "item_id": "i1"}, "invalid_request"),
        ({"user_id": "u1", "item_id": "x" * 257}, "invalid_request"),
        ({"user_id": "u\n1", "item_id": "i1"}, "invalid_request"),
    ],
)
def test_what_is_not_there_can_not_be_removed(client, params, code):
    answer = client.request("DELETE", "/interactions", params=params)
    assert answer.json()["error"]["code"] == code
    assert client.context.state.last_sequence() == 0


def test_types_are_weighed(client):
    assert client.get("/admin/types").json() == {"types": {}, "other": 1.0}
    answer = client.request("PUT", "/admin/types/add%20to%20cart", json={"weight": 2})
    assert answer.json() == {"types": {"add to cart": 2.0}, "other": 1.0}
    assert client.context.state.types() == {"add to cart": 2.0}
    for body in (b'{"weight": -1}', b'{"weight": 1e999}', b'{"weight": "3"}', b"{}", b'{"weight": 1e7}'):
        assert client.request("PUT", "/admin/types/buy", content=body).status_code == 422
