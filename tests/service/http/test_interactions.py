from __future__ import annotations

import asyncio
import json

import httpx
import numpy as np
import pytest

from service.errors import InvalidRequestError, RequestTooLargeError
from service.http.app import create_app
from service.http.routes_interactions import read_interactions
from service.settings import Settings
from tests.service.client import Client
from tests.service.worlds import random_pairs
from tests.support.artifacts import World, publish_world


@pytest.fixture
def client(tmp_path):
    publish_world(tmp_path)
    with Client(create_app(Settings(store=tmp_path, refresh_every=10, poll_interval=0.05))) as client:
        yield client


def test_one_interaction_or_many_are_taken(client):
    answer = client.post("/interactions", json={"user_id": "u1", "item_id": "i9"})
    assert (answer.status_code, answer.json()) == (202, {"accepted": 1, "duplicates": 0, "sequence": 1})
    many = [{"user_id": "u1", "item_id": f"i{n}", "timestamp": n, "type": "play"} for n in range(25)]
    answer = client.post("/interactions", json={"interactions": many})
    assert answer.json() == {"accepted": 25, "duplicates": 0, "sequence": 26}
    logged = client.context.state.read(0, 100)
    assert [it.sequence for it in logged] == list(range(1, 27))
    assert (logged[3].item_id, logged[3].timestamp, logged[3].type) == ("i2", 2.0, "play")
    assert logged[0].timestamp > 1.7e9  # the time of arrival
    client.wait_idle()
    assert client.model.readout.refreshed_at == 20


def test_sent_again_with_the_same_id_it_counts_once(client):
    body = {"user_id": "u1", "item_id": "fresh", "id": "k-1"}
    assert client.post("/interactions", json=body).json() == {"accepted": 1, "duplicates": 0, "sequence": 1}
    assert client.post("/interactions", json=body).json() == {"accepted": 0, "duplicates": 1, "sequence": 1}


def test_what_was_acknowledged_is_not_recommended_any_more(client):
    for _ in range(12):
        first = client.get("/recommend/u3?k=1").json()["items"][0]["item_id"]
        client.post("/interactions", json={"user_id": "u3", "item_id": first})
        found = client.get("/recommend/u3?k=60").json()
        assert first not in {item["item_id"] for item in found["items"]}


def test_a_new_user_is_folded_in_at_once(client):
    assert client.get("/recommend/brand-new").json()["items"][0]["strategy"] == "popular"
    client.post("/interactions", json={"user_id": "brand-new", "item_id": "i5"})
    assert client.get("/recommend/brand-new").json()["items"][0]["strategy"] == "fold_in"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "one interaction"),
        (b"{}", "user_id"),
        (b'{"user_id": "u"}', "item_id"),
        (b'{"user_id": 5, "item_id": "i"}', "user_id"),
        (b'{"user_id": "", "item_id": "i"}', "user_id"),
        (b'{"user_id": "u", "item_id": "i", "rating": 5}', "rating"),
        (b'{"user_id": "u", "item_id": "i", "timestamp": "now"}', "timestamp='now'"),
        (b'{"user_id": "u", "item_id": "i", "timestamp": 1767225600000}', "timestamp=1767225600000: "),
        (b'{"user_id": "u", "item_id": "i", "timestamp": NaN}', "not JSON"),
        (b'{"user_id": "u", "item_id": "i", "timestamp": true}', "timestamp"),
        (b'{"user_id": "u\\u0000", "item_id": "i"}', "U+0000"),
        (b'{"interactions": []}', "interactions"),
        (b'{"interactions": {}}', "interactions"),
        (b'{"interactions": [{"user_id": "u"}]}', "interactions.0.item_id"),
        (b'{"interactions": [{"user_id": "u", "item_id": "i"}], "x": 1}', "x"),
        (json.dumps({"user_id": "u" * 257, "item_id": "i"}).encode(), "257 characters"),
    ],
)
def test_what_is_malformed_is_refused_whole(client, body, words):
    answer = client.post("/interactions", content=body)
    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "invalid_request"
    assert words in error["message"]
    assert error["request_id"] == answer.headers["x-request-id"]
    assert client.context.state.last_sequence() == 0


def test_infinite_timestamps_and_halves_of_pairs_are_refused():
    for body in (b'{"user_id": "u", "item_id": "i", "timestamp": 1e999}', b'{"user_id": "\\ud800", "item_id": "i"}'):
        with pytest.raises(InvalidRequestError):
            read_interactions(body, Settings(), 0.0)


def test_too_many_or_too_large_is_refused(client):
    with pytest.raises(RequestTooLargeError, match="1000"):
        read_interactions(
            json.dumps({"interactions": [{"user_id": "u", "item_id": "i"}] * 1001}).encode(), Settings(), 0.0
        )
    answer = client.post("/interactions", content=b" " * (1 << 20) + b"{}")
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")

    async def pieces():
        for _ in range(20):
            yield b" " * (1 << 16)

    answer = client.post("/interactions", content=pieces())  # no Content-Length
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_reads_go_on_and_writes_are_refused_once_the_follower_has_failed(client):
    def broken(events):
        raise RuntimeError("broken on purpose")

    client.model.apply = broken
    answer = client.post("/interactions", json={"user_id": "u1", "item_id": "i1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "not_ready")
    assert answer.headers["retry-after"] == "1"
    assert client.get("/health/ready").status_code == 503
    assert client.get("/health/live").status_code == 200
    assert client.post("/interactions", json={"user_id": "u1", "item_id": "i1"}).status_code == 503
    assert client.context.state.last_sequence() == 1  # the second was not taken
    assert client.get("/recommend/u1").status_code == 200
    assert "kdiffe_ready 0.0" in client.get("/metrics").text


def test_a_lost_state_is_told(client):
    client.context.state.close()
    answer = client.post("/interactions", json={"user_id": "u1", "item_id": "i1"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "state_unavailable")


def test_a_restarted_service_answers_with_the_same_bytes(tmp_path):
    publish_world(tmp_path)
    settings = Settings(store=tmp_path, refresh_every=10, poll_interval=0.05)
    paths = [f"/recommend/u{n}?k=30" for n in range(0, 36, 5)] + ["/explain/u1/i1", "/similar/i3", "/popular"]
    with Client(create_app(settings)) as client:
        for user, item in random_pairs(np.random.default_rng(0), 34):
            client.post("/interactions", json={"user_id": user, "item_id": item})
        client.wait_idle()
        before = [client.get(path).content for path in paths]
        digest = client.model.digest()
    with Client(create_app(settings)) as client:
        assert [client.get(path).content for path in paths] == before
        assert client.model.digest() == digest


def test_no_request_fails_while_versions_are_swapped(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    settings = Settings(store=tmp_path, refresh_every=10, poll_interval=0.05, version_interval=0.01)
    with Client(create_app(settings)) as client:
        store = client.registry.store

        async def make_requests(http: httpx.AsyncClient) -> tuple[list[int], set[str]]:
            ended = asyncio.Event()
            statuses, versions = [], set()

            async def read(n: int) -> None:
                while not ended.is_set():
                    answer = await http.get(f"/recommend/u{n}")
                    statuses.append(answer.status_code)
                    versions.add(answer.json().get("model_version"))
                    await asyncio.sleep(0)  # without a network in between, a request never yields to the others

            async def write(n: int) -> None:
                count = 0
                while not ended.is_set():
                    body = {"user_id": f"w{n}", "item_id": f"i{count % 50}", "id": f"{n}-{count}"}
                    statuses.append((await http.post("/interactions", json=body)).status_code)
                    count += 1

            async def swap() -> None:
                for n in range(6):
                    version = ("v0002", "v0001")[n % 2]
                    store.activate(version)
                    await asyncio.to_thread(client.registry.wait_version, version, 20)
                    await asyncio.sleep(0.05)
                ended.set()

            await asyncio.gather(swap(), *(read(n) for n in range(3)), *(write(n) for n in range(3)))
            return statuses, versions

        statuses, versions = client.together(make_requests)
        assert set(statuses) == {200, 202}
        assert len(statuses) > 30
        assert versions == {"v0001", "v0002"}
