"""Services that share one state, and a state that goes away."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.http.app import create_app
from service.settings import Settings
from service.state.port import Change
from tests.service.client import Client
from tests.service.worlds import interactions, random_pairs
from tests.support.artifacts import publish_world
from tests.support.redis_server import ALWAYS, MISSING, RedisServer, server_path

PATHS = [*(f"/recommend/u{n}?k=30" for n in range(0, 36, 5)), "/explain/u1/i1", "/similar/i3", "/popular"]
needs_redis = [pytest.mark.redis, pytest.mark.skipif(server_path() is None, reason=MISSING)]


@pytest.fixture(params=["sqlite", pytest.param("redis", marks=needs_redis)])
def state_url(request, tmp_path):
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/state.sqlite3"
        return
    with RedisServer(*ALWAYS) as server:
        yield server.url()


def service(store: Path, state_url: str, **options) -> Client:
    publish_world(store)
    settings = {"refresh_every": 10, "poll_interval": 0.05, "index": "exact", **options}
    return Client(create_app(Settings(store=store, state=state_url, **settings)))


def until(condition, seconds=10.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_two_services_on_one_state_hold_the_same_bits(tmp_path, state_url):
    pairs = random_pairs(np.random.default_rng(0), 120)
    with service(tmp_path / "a", state_url) as a, service(tmp_path / "b", state_url) as b:

        async def write(http: httpx.AsyncClient, mine: list[tuple[str, str]]) -> None:
            for n, (user, item) in enumerate(mine):
                body = {"user_id": user, "item_id": item, "id": f"{user}-{item}-{n % 7}"}
                assert (await http.post("/interactions", json=body)).status_code == 202

        # Both at once, half of the pairs sent to both with the same ids.
        running = [
            asyncio.run_coroutine_threadsafe(write(c._client, p), c._loop)
            for c, p in ((a, pairs[:80]), (b, pairs[40:]))
        ]
        for future in running:
            future.result(60)
        a.context.state.append([Change("removal", *pairs[3]), Change("erasure", pairs[5][0])])
        # Beyond a refresh: until then T remembers who was erased.
        a.context.state.append(interactions(random_pairs(np.random.default_rng(1), 10)))
        last = a.context.state.last_sequence()
        until(lambda: a.model.sequence == b.model.sequence == last)
        found = []
        for client in (a, b):
            client.wait_idle()
            found.append((client.model.digest(), [client.get(path).content for path in PATHS]))
        assert found[0] == found[1]
    # Who starts later holds the same bits, though it is no longer told what the erased user did.
    with service(tmp_path / "c", state_url) as c:
        c.wait_idle()
        assert (c.model.digest(), [c.get(path).content for path in PATHS]) == found[0]


@pytest.mark.redis
@pytest.mark.skipif(server_path() is None, reason=MISSING)
@pytest.mark.parametrize(
    ("how", "seconds"),
    [
        ("killed", 1.2),
        ("frozen", 1.2),
        pytest.param("killed", 10.0, marks=pytest.mark.slow),
        pytest.param("frozen", 10.0, marks=pytest.mark.slow),
    ],
)
def test_while_redis_is_away_reads_are_answered_writes_refused_and_then_all_is_well(
    tmp_path, how, seconds, monkeypatch
):
    monkeypatch.setattr("service.state.redis.ANSWER_TIMEOUT", 0.3)
    with RedisServer(*ALWAYS) as server, service(tmp_path, server.url()) as client:
        acknowledged: dict[str, float] = {}
        reads: list[tuple[float, int, str | None]] = []
        health: list[tuple[int, str]] = []
        writes: list[tuple[float, int, str | None]] = []
        ended = asyncio.Event()

        async def read(http: httpx.AsyncClient, n: int) -> None:
            while not ended.is_set():
                answer = await http.get(f"/recommend/u{n}")
                reads.append((time.monotonic(), answer.status_code, answer.headers.get("x-kdiffe-degraded")))
                await asyncio.sleep(0.001)

        async def write(http: httpx.AsyncClient, n: int) -> None:
            count = 0
            while not ended.is_set():
                key = f"{n}-{count}"
                body = {"user_id": f"w{n}", "item_id": f"i{count % 40}", "id": key}
                answer = await http.post("/interactions", json=body)
                writes.append((time.monotonic(), answer.status_code, answer.headers.get("retry-after")))
                if answer.status_code == 202:
                    acknowledged[key] = time.monotonic()
                    count += 1
                else:
                    await asyncio.sleep(0.02)

        async def disturb(http: httpx.AsyncClient) -> tuple[float, float]:
            await asyncio.sleep(0.3)
            began = time.monotonic()
            await asyncio.to_thread(server.kill if how == "killed" else server.freeze)
            await asyncio.sleep(seconds)
            ready = await http.get("/health/ready")
            health.append((ready.status_code, ready.json()["status"]))
            await asyncio.to_thread(server.start if how == "killed" else server.thaw)
            back = time.monotonic()
            while not any(at > back for at in acknowledged.values()):
                assert time.monotonic() < back + 10
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.2)
            ended.set()
            return began, back

        async def run(http: httpx.AsyncClient) -> tuple[float, float]:
            parts = await asyncio.gather(
                disturb(http), *(read(http, n) for n in range(3)), *(write(http, n) for n in range(3))
            )
            return parts[0]

        began, back = client.together(run)
        assert len(reads) > 100
        assert {status for _, status, _ in reads} == {200}
        # Told as what it is while it lasts, and no longer.
        assert "state" in {mark for at, _, mark in reads if began < at < back}
        assert {mark for at, _, mark in reads if at < began} == {None}
        assert health == [(200, "degraded")]
        assert {status for _, status, _ in writes} == {202, 503}
        assert {retry for _, status, retry in writes if status == 503} == {"1"}
        assert not [at for at in acknowledged.values() if began + 0.1 < at < back]
        # Nothing that was acknowledged is lost, nothing counts twice.
        until(lambda: client.get("/health/ready").json()["status"] == "ready")
        assert "x-kdiffe-degraded" not in client.get("/recommend/u1").headers
        assert "kdiffe_degraded 0.0" in client.get("/metrics").text
        client.wait_idle()
        keys = [entry.event_id for entry in client.context.state.read(0, 100_000)]
        assert set(acknowledged) <= set(keys)
        assert len(keys) == len(set(keys))
        assert client.model.sequence == len(keys)


@pytest.fixture
def behind(tmp_path, state_url):
    """A service that writes, and one that looks at the log when it must."""
    with (
        service(tmp_path / "a", state_url) as writer,
        service(tmp_path / "b", state_url, poll_interval=600.0, read_timeout=20.0) as other,
    ):
        other.wait_idle()
        wake = other.registry.follower._wake
        # Asleep: nobody has woken it, and it waits. Before that it would still look once.
        until(lambda: not wake.is_set() and len(wake._cond._waiters) == 1, 30)
        yield writer, other


def test_what_one_service_was_told_can_be_taken_back_at_another_at_once(behind):
    writer, other = behind
    told = writer.post("/interactions", json={"user_id": "guest", "item_id": "new"}).json()["sequence"]
    assert other.model.sequence < told
    assert other.request("DELETE", "/interactions?user_id=guest&item_id=new").json() == {
        "accepted": 1,
        "duplicates": 0,
        "sequence": told + 1,
    }
    put = writer.request("PUT", "/items/brought", json={"categories": ["lamps"]}).json()["sequence"]
    assert other.model.sequence < put
    assert other.request("DELETE", "/items/brought").json()["sequence"] == put + 1
    # Whom nobody knows is refused none the less.
    assert other.request("DELETE", "/interactions?user_id=nobody&item_id=new").json()["error"]["code"] == "unknown_user"
    assert other.request("DELETE", "/items/nothing").json()["error"]["code"] == "unknown_item"


@pytest.mark.parametrize("path", ["/similar/brought?k=3", "/popular?k=50", "/items/brought", "/history/guest"])
def test_every_read_of_the_log_waits_for_a_place(behind, path):
    writer, other = behind
    writer.request("PUT", "/items/brought", json={"categories": ["lamps"]})
    told = writer.post("/interactions", json={"user_id": "guest", "item_id": "brought"}).json()["sequence"]
    assert other.model.sequence < told
    separator = "&" if "?" in path else "?"
    answer = other.get(f"{path}{separator}at_least={told}")
    assert answer.status_code == 200
    assert answer.json()["sequence"] == told
    assert answer.content == writer.get(path).content


def test_a_page_and_an_explanation_go_on_at_another_service(behind):
    writer, other = behind
    told = writer.post("/interactions", json={"user_id": "guest", "item_id": "i3"}).json()["sequence"]
    asked = {"user_ids": ["guest"], "k": 3}
    first = writer.post("/recommend", json=asked).json()["results"][0]
    assert other.model.sequence < told
    more = other.post("/recommend", json={**asked, "cursor": first["cursor"]})
    assert more.status_code == 200
    whole = writer.post("/recommend", json={**asked, "k": 6}).json()["results"][0]
    assert [*first["items"], *more.json()["results"][0]["items"]] == whole["items"]


def test_what_was_served_is_explained_at_a_service_that_lags(behind):
    writer, other = behind
    told = writer.post("/interactions", json={"user_id": "guest", "item_id": "i3"}).json()["sequence"]
    served = writer.get("/recommend/guest?k=1").json()
    assert other.model.sequence < told
    path = f"/explain/guest/{served['items'][0]['item_id']}?recommendation_id={served['recommendation_id']}"
    answer = other.get(path)
    assert answer.status_code == 200
    assert answer.json() == writer.get(path).json()
