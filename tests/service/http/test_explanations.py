from __future__ import annotations

import pytest

from service.explanation.account import PARTS
from service.http import schemas
from service.http.app import create_app
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import publish_world


@pytest.mark.parametrize("parts", ["", *PARTS, ",".join(PARTS), " paths , reasons,"])
def test_the_bytes_of_every_choice_of_parts_fit_the_schema(client, parts):
    listed = client.get("/recommend/u1?k=30").json()["items"]
    for item in (listed[0], listed[-1]):
        answer = client.get(f"/explain/u1/{item['item_id']}", params={"parts": parts, "k": 5})
        assert answer.status_code == 200, answer.text
        found = schemas.Explanation.model_validate_json(answer.content)
        assert found.model_dump(mode="json") == answer.json()
        wanted = {name.strip() for name in parts.split(",")}
        for part in ("paths", "counterfactual", "why_not"):
            assert (answer.json()[part] is not None) == (part in wanted)
        assert answer.json()["reasons"] is None  # this version has no knowledge graph


@pytest.mark.parametrize(
    ("query", "says"),
    [("parts=path", "'path'"), ("parts=paths,x", "'x'"), ("k=0", "k=0"), ("most=0", "most=0"), ("most=51", "most=51")],
)
def test_what_does_not_exist_is_refused_by_name(client, query, says):
    answer = client.get(f"/explain/u1/i3?{query}")
    assert answer.status_code == 422
    assert answer.json()["error"]["code"] == "invalid_request"
    assert says in answer.json()["error"]["message"]


def test_what_belongs_into_the_body_is_told_so_where_it_stands_in_the_query(client):
    answer = client.post("/explain/u1/i3?parts=why_not", json={})
    assert answer.status_code == 422
    assert answer.json()["error"]["message"] == (
        "parts: there is no such query parameter; there are at_least, variant. It goes into the body."
    )
    assert "body" not in client.post("/explain/u1/i3?part=why_not", json={}).json()["error"]["message"]


def test_the_parts_are_about_a_list_of_k_items(client):
    item = client.get("/recommend/u1?k=30").json()["items"][4]["item_id"]
    for k, inside in ((4, False), (5, True)):
        found = client.get(f"/explain/u1/{item}?parts=why_not,counterfactual&k={k}").json()
        assert found["why_not"]["in_list"] == inside
        assert (found["counterfactual"]["why"] == "not_in_list") == (not inside)


def test_a_reply_is_explained_by_its_id_after_the_log_has_moved_on(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, index="exact", refresh_every=5))) as client:
        listed = client.get("/recommend/u1").json()
        name, item = listed["recommendation_id"], listed["items"][0]
        for n in range(12):
            client.post("/interactions", json={"user_id": f"u{n}", "item_id": f"i{3 * n}"})
        client.wait_idle()
        path = f"/explain/u1/{item['item_id']}"
        assert client.get(path).json()["score"] != item["score"]
        found = client.get(path, params={"recommendation_id": name}).json()
        assert (found["score"], found["recommendation_id"], found["sequence"]) == (item["score"], name, 0)
        answer = client.get(path, params={"recommendation_id": name.replace("v0001", "v0009")})
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "gone")
        answer = client.get(path, params={"recommendation_id": "mine"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")


def test_why_not_names_the_conditions_of_the_request_and_a_withdrawal(client):
    record = {"categories": ["lamps"], "attributes": {"price": 9}}
    assert client.request("PUT", "/items/i7", json=record).is_success
    listed = client.get("/recommend/u1?k=30").json()["items"]
    other = next(item["item_id"] for item in listed if item["item_id"] != "i7")
    asked = {
        "parts": ["why_not"],
        "categories": {"any": ["lamps"]},
        "attributes": {"price": {"gte": 5}},
        "exclude": ["i2"],
    }
    found = client.post(f"/explain/u1/{other}", json=asked).json()["why_not"]
    assert set(found["rules"]) - {"outranked"} == {"filtered"}
    assert found["filters"] == ["categories.any", "attributes.price"]
    if any(item["item_id"] == "i7" for item in listed):
        answer = client.post("/explain/u1/i7", json=asked)
        schemas.Explanation.model_validate_json(answer.content)
        assert (answer.json()["why_not"]["in_list"], answer.json()["why_not"]["rank"]) == (True, 1)
    assert client.request("DELETE", f"/items/{other}").is_success
    found = client.get(f"/explain/u1/{other}?parts=why_not").json()
    assert found["rank"] is None
    assert "withdrawn" in found["why_not"]["rules"]
    assert client.post(f"/explain/u1/{other}", json={"parts": ["all"]}).json()["error"]["code"] == "invalid_request"
