from __future__ import annotations

import pytest

from service.http.app import create_app
from service.http.schemas_lists import Lists
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import World, publish_world


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    root = tmp_path_factory.mktemp("store")
    publish_world(root, World(with_encoders=True))
    settings = Settings(store=root, index="exact", refresh_every=1000, max_users=3, max_k=50, max_id_length=30)
    with Client(create_app(settings)) as client:
        for n in range(40):
            record = {"categories": ["even" if n % 2 == 0 else "odd"], "attributes": {"price": n}}
            assert client.request("PUT", f"/items/i{n}", json=record).status_code == 200
        yield client


def post(client, **body):
    return client.post("/recommend", json=body)


def ids(page):
    return [item["item_id"] for item in page["items"]]


def test_a_batch_of_users_gets_the_lists_that_each_would_get(client):
    answer = post(client, user_ids=["u2", "nobody", "u1"], k=5)
    assert answer.status_code == 200, answer.text
    Lists.model_validate_json(answer.content)
    found = answer.json()
    assert found["unknown_items"] == []
    for page, user in zip(found["results"], ["u2", "nobody", "u1"], strict=True):
        alone = client.get(f"/recommend/{user}?k=5").json()
        assert page["user_id"] == user
        assert page["items"] == alone["items"]
        assert page["index"] == alone["index"] == ("" if user == "nobody" else "exact")


def test_filters_hold_exactly_and_a_short_list_is_all_that_there_is(client):
    [page] = post(
        client, user_ids=["u1"], k=50, categories={"any": ["even"]}, attributes={"price": {"gt": 3, "lte": 9}}
    ).json()["results"]
    seen = {item["item_id"] for item in client.get("/history/u1").json()["items"]}
    assert set(ids(page)) == {"i4", "i6", "i8"} - seen
    assert page["cursor"] is None
    [page] = post(client, user_ids=["u1"], k=50, include=["i1", "i2", "i3"], exclude=["i2"]).json()["results"]
    assert set(ids(page)) == {"i1", "i3"} - seen
    [page] = post(client, user_ids=["u1"], k=50, categories={"all": ["even", "odd"]}).json()["results"]
    assert ids(page) == []


def test_boosts_add_to_scores(client):
    plain = {i["item_id"]: i["score"] for i in post(client, user_ids=["u1"], k=50).json()["results"][0]["items"]}
    boosts = [
        {"add": 100, "categories": {"any": ["odd"]}},
        {"add": -0.5, "attributes": {"price": {"lt": 10}}},
        {"add": 7, "items": ["i12", "unheard of"]},
    ]
    answer = post(client, user_ids=["u1"], k=50, boosts=boosts).json()
    assert answer["unknown_items"] == ["unheard of"]
    for item in answer["results"][0]["items"]:
        n = int(item["item_id"][1:])
        added = 100 * (n % 2) - 0.5 * (n < 10) + 7 * (n == 12)
        assert item["score"] == pytest.approx(plain[item["item_id"]] + added)
    scores = [item["score"] for item in answer["results"][0]["items"]]
    assert scores == sorted(scores, reverse=True)


def test_pages_go_on_until_the_list_ends_and_a_cursor_of_another_list_is_told(client):
    body = {"session": ["i1", "i2"], "k": 15, "diversity": 0.3, "categories": {"none": ["odd"]}}
    pages, cursor = [], None
    while True:
        [page] = post(client, **body, **({"cursor": cursor} if cursor else {})).json()["results"]
        pages.append(page)
        cursor = page["cursor"]
        if cursor is None:
            break
    assert [len(page["items"]) for page in pages] == [15, 4]
    together = [item for page in pages for item in ids(page)]
    assert sorted(together) == sorted(f"i{n}" for n in range(0, 40, 2) if n != 2)
    other = post(client, **{**body, "session": ["i1"]}, cursor=pages[0]["cursor"])
    assert (other.status_code, other.json()["error"]["code"]) == (422, "invalid_request")
    last = ids(pages[1])[-1]
    assert client.request("DELETE", f"/items/{last}").status_code == 200
    gone = post(client, **body, cursor=pages[0]["cursor"])
    assert (gone.status_code, gone.json()["error"]["code"]) == (410, "gone")
    assert "Begin again without a cursor" in gone.json()["error"]["message"]
    assert client.request("PUT", f"/items/{last}", json={"categories": ["even"]}).status_code == 200


def test_an_empty_session_and_one_of_unknown_items_get_the_popular_list(client):
    popular = [item["item_id"] for item in client.get("/popular?k=5").json()["items"]]
    for session in ([], ["unheard of"]):
        answer = post(client, session=session, k=5).json()
        assert ids(answer["results"][0]) == popular
        assert answer["unknown_items"] == session


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({}, "either user_ids or session"),
        ({"user_ids": ["u1"], "session": ["i1"]}, "either user_ids or session"),
        ({"user_ids": []}, "user_ids"),
        ({"user_ids": ["u1", "u1"]}, "twice"),
        ({"user_ids": ["u1"], "k": 51}, "must lie in 1..50"),
        ({"user_ids": ["u1"], "k": 0}, "k"),
        ({"user_ids": ["u1"], "filter": {}}, "filter"),
        ({"user_ids": ["u1"], "diversity": 1.1}, "diversity"),
        ({"user_ids": ["u1"], "attributes": {"price": {}}}, "at least one of"),
        ({"user_ids": ["u1"], "attributes": {"price": {"gte": "3"}}}, "price"),
        ({"user_ids": ["u1"], "boosts": [{"items": ["i1"]}]}, "add"),
        ({"user_ids": ["u1"], "boosts": [{"items": ["i1"], "add": 1e308}]}, "add"),
        ({"user_ids": ["u1", "u2"], "cursor": "x"}, "one user at a time"),
        ({"user_ids": ["u1"], "cursor": "x"}, "none that this service gave out"),
        ({"user_ids": ["u" * 31]}, "31 characters"),
        ({"user_ids": ["u1"], "exclude": ["a\x00b"]}, "control character"),
        ({"user_ids": ["u1"], "include": ["i"] * 10_001}, "include"),
    ],
)
def test_what_can_not_be_is_refused_with_a_sentence_that_names_it(client, body, said):
    answer = post(client, **body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_request")
    assert said in answer.json()["error"]["message"]


def test_too_many_users_are_told_so(client):
    answer = post(client, user_ids=["a", "b", "c", "d"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
    assert "at most 3" in answer.json()["error"]["message"]


def test_a_batch_waits_for_a_sequence_number(client):
    sequence = client.post("/interactions", json={"user_id": "late", "item_id": "i3"}).json()["sequence"]
    answer = client.post(f"/recommend?at_least={sequence}", json={"user_ids": ["late"], "k": 50}).json()
    assert answer["results"][0]["sequence"] >= sequence
    assert "i3" not in ids(answer["results"][0])
