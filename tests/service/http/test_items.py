from __future__ import annotations

import pytest

from service.http.app import create_app
from service.http.schemas_items import ItemOut, ItemTaken
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import World, publish_world

RECORD = {
    "name": "A lamp",
    "categories": ["lamps"],
    "attributes": {"price": 49.5, "year": 2026},
    "entities": [{"relation": "r0", "entity": "e1"}, {"relation": "brand", "entity": "acme"}],
}


@pytest.fixture
def started(tmp_path):
    def start():
        return Client(create_app(Settings(store=tmp_path, index="exact", refresh_every=1000)))

    publish_world(tmp_path, World(with_encoders=True))
    return start


@pytest.fixture
def client(started):
    with started() as client:
        yield client


def listed(client, user="u1"):
    return {item["item_id"]: item for item in client.get(f"/recommend/{user}?k=100").json()["items"]}


def test_an_item_that_is_put_is_in_lists_and_similar_ones_when_the_answer_comes(client):
    answer = client.request("PUT", "/items/new%2Flamp", json=RECORD)
    assert answer.status_code == 200, answer.text
    ItemTaken.model_validate_json(answer.content)
    assert answer.json() == {
        "item_id": "new/lamp",
        "accepted": True,
        "sequence": 1,
        "has_vector": True,
        "unknown": ["relation 'brand'"],
        "model_version": "v0001",
    }
    assert listed(client)["new/lamp"]["strategy"] == "model"
    assert len(client.get("/similar/new%2Flamp").json()["items"]) == 20
    near = client.get("/similar/i3?k=40").json()["items"]
    assert "new/lamp" in {item["item_id"] for item in near}
    told = client.get("/items/new%2Flamp")
    ItemOut.model_validate_json(told.content)
    assert told.json() == {
        "item_id": "new/lamp",
        "name": "A lamp",
        "record": RECORD,
        "recorded_at": 1,
        "withdrawn": False,
        "in_version": False,
        "has_vector": True,
        "n_interactions": 0,
        "model_version": "v0001",
        "sequence": 1,
    }
    [page] = client.post(
        "/recommend", json={"user_ids": ["u1"], "categories": {"any": ["lamps"]}, "attributes": {"price": {"lt": 50}}}
    ).json()["results"]
    assert [item["item_id"] for item in page["items"]] == ["new/lamp"]


def test_an_item_that_is_withdrawn_is_never_recommended_again_though_somebody_takes_it(client):
    client.request("PUT", "/items/new", json=RECORD)
    best = client.get("/recommend/u1?k=1").json()["items"][0]["item_id"]
    for item in ("new", best):
        answer = client.request("DELETE", f"/items/{item}")
        assert (answer.status_code, answer.json()["item_id"]) == (200, item)
        assert item not in listed(client)
        client.post("/interactions", json={"user_id": "u9", "item_id": item})
        assert item not in listed(client)
        told = client.get(f"/items/{item}").json()
        assert (told["withdrawn"], told["record"], told["n_interactions"] > 0) == (True, None, True)
    assert client.request("DELETE", f"/items/{best}").status_code == 200  # said again, it changes nothing
    assert client.request("PUT", f"/items/{best}", json={}).status_code == 200
    assert best in listed(client)


def test_what_was_put_and_withdrawn_is_there_after_a_restart(started):
    with started() as client:
        client.request("PUT", "/items/new", json=RECORD)
        client.request("PUT", "/items/i4", json={"categories": ["lamps"]})
        client.request("DELETE", "/items/i5")
        before = listed(client)
    with started() as client:
        assert listed(client) == before
        assert "new" in before
        assert "i5" not in before
        [page] = client.post("/recommend", json={"session": ["i1"], "k": 50, "categories": {"any": ["lamps"]}}).json()[
            "results"
        ]
        assert {item["item_id"] for item in page["items"]} == {"new", "i4"}


def test_the_same_key_counts_once(client):
    for price in (1, 2):
        answer = client.request(
            "PUT", "/items/new", json={"attributes": {"price": price}}, headers={"Idempotency-Key": "put-7"}
        )
        assert (answer.json()["accepted"], answer.json()["sequence"]) == (price == 1, 1)
    assert client.get("/items/new").json()["record"] == {"attributes": {"price": 1}}
    # A key is one of any write: that another one had it is told.
    other = client.request("DELETE", "/items/i0", headers={"Idempotency-Key": "put-7"})
    assert (other.status_code, other.json()["accepted"]) == (200, False)
    assert not client.get("/items/i0").json()["withdrawn"]


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_unknown_item_is_told_so(client, method):
    answer = client.request(method, "/items/nothing")
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_item")
    assert "'nothing'" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"title": "x"}, "title"),
        ({"categories": "lamps"}, "categories"),
        ({"attributes": {"price": "3"}}, "price"),
        ({"attributes": {"price": True}}, "price"),
        ({"entities": [{"relation": "r0"}]}, "entity"),
        ({"features": {"visual": []}}, "visual"),
        ({"features": {"visual": [1e39]}}, "visual"),
        ({"name": ""}, "name"),
        ([], "body"),
    ],
)
def test_a_record_that_can_not_be_is_refused(client, record, said):
    answer = client.request("PUT", "/items/new", json=record)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert said in answer.json()["error"]["message"]
    assert client.get("/items/new").status_code == 404


@pytest.mark.parametrize("path", ["/items/a%00b", "/items/%C3", f"/items/{'x' * 300}"])
def test_an_id_that_can_not_be_is_refused(client, path):
    answer = client.request("PUT", path, json={})
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_a_feature_vector_of_another_length_is_refused_with_the_right_one(tmp_path):
    import numpy as np

    arrays = {"codebook.visual": np.eye(4, dtype=np.float32)}
    publish_world(tmp_path, World(with_encoders=True), extra=arrays)
    with Client(create_app(Settings(store=tmp_path, index="exact"))) as client:
        answer = client.request("PUT", "/items/new", json={"features": {"visual": [1.0, 2.0]}})
        assert answer.status_code == 422
        assert "features.visual: 2 values" in answer.json()["error"]["message"]
        assert "vectors of 4" in answer.json()["error"]["message"]
        answer = client.request("PUT", "/items/new", json={"features": {"visual": [1, 2, 0, 0], "smell": [1]}})
        assert answer.json()["unknown"] == ["modality 'smell'"]
