from __future__ import annotations

import asyncio

import pytest

from service.http.app import create_app
from service.http.express import Express, plain_k, read_body
from service.recommendation import recommender
from service.settings import Settings
from tests.service.client import Client
from tests.support.artifacts import publish_world


@pytest.fixture
def client(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, index="exact", refresh_every=5))) as client:
        yield client


@pytest.mark.parametrize(
    ("query", "k"),
    [
        (b"", 20),
        (b"k=1", 1),
        (b"k=200", 200),
        (b"k=99999", 99999),
        (b"k=100000", None),
        (b"k=0", None),
        (b"k=07", None),
        (b"k=-1", None),
        (b"k=", None),
        (b"k=1&k=2", None),
        (b"k=1&at_least=3", None),
        (b"K=1", None),
        (b"k=%31", None),
        (b"k=1\n", None),
        (b"k=\xd9\xa1", None),
    ],
)
def test_only_plain_queries_take_the_express_way(query, k):
    assert plain_k(query) == k


def long_way(client, monkeypatch):
    """From here on every request passes FastAPI's layers."""

    async def hand_on(self, scope, receive, send):
        await self._app(scope, receive, send)

    monkeypatch.setattr(Express, "__call__", hand_on)


def test_both_ways_give_the_same_answers(client, monkeypatch):
    paths = [
        "/recommend/u1",
        "/recommend/u1?k=3",
        "/recommend/a%2Fb",
        "/recommend/a/b",
        "/recommend/%FF",
        "/recommend/",
        "/recommend/%E6%97%A5?k=7",
        "/recommend/u1?k=201",
        "/recommend/u1?k=99999",
        "/recommend/" + "x" * 257,
    ]
    bodies = [b'{"user_id": "u1", "item_id": "i1", "id": "k"}', b"{", b'{"user_id": "u1"}', b'{"interactions": []}']
    headers = {"X-Request-ID": "same"}
    client.post("/interactions", content=bodies[0])

    def answers():
        found = [client.get(path, headers=headers) for path in paths]
        found += [client.post("/interactions", content=body, headers=headers) for body in bodies]
        return [(it.status_code, it.content, sorted(it.headers.items())) for it in found]

    express = answers()
    long_way(client, monkeypatch)
    assert answers() == express
    assert {status for status, _, _ in express} == {200, 202, 422}


def test_the_express_way_passes_none_of_fastapis_layers(client, monkeypatch):
    async def unreached(*_args):
        raise AssertionError("this request should have taken the express way")

    client.get("/health/live")  # the layers are made with the first request
    app = client.app.middleware_stack._app
    assert isinstance(app, Express)
    monkeypatch.setattr(app, "_app", unreached)
    assert client.get("/recommend/u1").status_code == 200
    assert client.post("/interactions", json={"user_id": "u", "item_id": "i"}).status_code == 202
    assert client.get("/popular").status_code == 500


def test_a_list_is_made_once_until_the_log_goes_on(client, monkeypatch):
    made = []
    make = recommender.recommend_many

    def counted(model, wanted):
        made.extend(user_id for user_id, _ in wanted)
        return make(model, wanted)

    monkeypatch.setattr(recommender, "recommend_many", counted)
    first = client.get("/recommend/u1")
    assert client.get("/recommend/u1").content == first.content
    assert made == ["u1"]
    seen = first.json()["items"][0]["item_id"]
    client.post("/interactions", json={"user_id": "u1", "item_id": seen})
    after = client.get("/recommend/u1").json()
    assert made == ["u1", "u1"]
    assert after["sequence"] == 1
    assert seen not in {item["item_id"] for item in after["items"]}


def test_a_body_comes_whole_in_however_many_parts():
    def receiving(*messages):
        left = list(messages)

        async def receive():
            return left.pop(0)

        return receive

    part = {"type": "http.request", "body": b"a", "more_body": True}
    last = {"type": "http.request", "body": b"b"}
    assert asyncio.run(read_body(receiving(last))) == b"b"
    assert asyncio.run(read_body(receiving(part, part, last))) == b"aab"
    assert asyncio.run(read_body(receiving(part, {"type": "http.disconnect"}))) == b"a"
