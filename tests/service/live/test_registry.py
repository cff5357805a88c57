from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from model_store.artifact import Artifact, write_artifact
from model_store.store import Canary, ModelStore
from service.errors import NotReadyError
from service.index.exact import ExactIndex
from service.live.registry import Registry
from service.recommendation.recommender import recommend
from service.state.memory import MemoryState
from tests.service.worlds import interactions, random_pairs
from tests.support.artifacts import World, publish_world


def make(root, state=None, **options) -> Registry:
    settings = {"refresh_every": 10, "poll_interval": 0.01, "version_interval": 0.02, **options}
    return Registry(ModelStore(root), state or MemoryState(), ExactIndex, **settings)


@pytest.fixture
def registry(tmp_path):
    publish_world(tmp_path)
    registry = make(tmp_path)
    registry.start()
    assert registry.wait_ready(110)
    yield registry
    registry.stop()


def republish(store: ModelStore, source: Artifact, *, activate: bool = True, **changes: object) -> str:
    """The same arrays as a new version, with another manifest."""

    def write(directory, version):
        arrays = {name: source.array(name) for name in source.names()}
        write_artifact(directory, replace(source.manifest, version=version, **changes), arrays)

    return store.publish(write, activate=activate)


def damage(root, version: str) -> None:
    path = root / version / "item_embeddings.npy"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))


def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_the_active_version_is_served_and_an_activated_one_takes_its_place(tmp_path, registry):
    assert registry.serving == "v0001"
    publish_world(tmp_path, World(seed=1), activate=False)
    assert registry.serving == "v0001"
    registry.store.activate("v0002")
    registry.wait_version("v0002", 10)
    assert registry.model.version == "v0002"
    registry.store.rollback()
    registry.wait_version("v0001", 10)


def test_without_an_active_version_it_waits_for_one(tmp_path):
    registry = make(tmp_path)
    registry.start()
    assert not registry.wait_ready(10)
    with pytest.raises(NotReadyError, match="kdiffe train"):
        registry.model  # noqa: B018
    publish_world(tmp_path)
    until(lambda: registry.serving == "v0001")
    assert registry.problem is None
    registry.stop()


def test_a_damaged_version_is_reported_and_the_old_one_keeps_serving(tmp_path, registry):
    publish_world(tmp_path, World(seed=1), activate=False)
    damage(tmp_path, "v0002")
    registry.store.activate("v0002")
    with pytest.raises(NotReadyError, match="checksum"):
        registry.wait_version("v0002", 10)
    assert registry.serving == "v0001"
    assert registry.problem is not None
    assert registry.problem.version == "v0002"
    registry.store.rollback()
    until(lambda: registry.problem is None)
    assert registry.serving == "v0001"


def test_a_new_version_holds_the_whole_log_before_it_is_served(tmp_path, registry):
    state = registry._state
    pairs = random_pairs(np.random.default_rng(0), 33)
    state.append(interactions(pairs))
    publish_world(tmp_path, World(seed=1))
    registry.wait_version("v0002", 10)
    assert registry.model.sequence == 33
    assert set(pairs) <= registry.model.edges()


def test_a_version_trained_up_to_a_sequence_number_replays_only_what_came_after(tmp_path, registry):
    state = registry._state
    state.append(interactions([("x", "only-in-the-log"), ("y", "i1")]))
    source = registry.model.artifact
    known = {**source.manifest.data, "state_id": state.state_id}
    republish(registry.store, source, sequence=1, data=known)
    registry.wait_version("v0002", 10)
    assert registry.model.sequence == 2
    assert registry.model.item_row("only-in-the-log") is None
    assert ("y", "i1") in registry.model.edges()


def test_sequence_numbers_of_another_log_do_not_count(tmp_path, registry):
    registry._state.append(interactions([("x", "fresh")]))
    source = registry.model.artifact
    republish(registry.store, source, sequence=1, data={**source.manifest.data, "state_id": "another"})
    registry.wait_version("v0002", 10)
    assert ("x", "fresh") in registry.model.edges()


def test_a_version_from_beyond_the_logs_end_is_refused(tmp_path, registry):
    source = registry.model.artifact
    known = {**source.manifest.data, "state_id": registry._state.state_id}
    republish(registry.store, source, sequence=5, data=known)
    with pytest.raises(NotReadyError, match="set back"):
        registry.wait_version("v0002", 10)
    assert registry.serving == "v0001"


def test_nothing_acknowledged_is_missing_while_versions_change(tmp_path, registry):
    """Writes wait for the swap, so a read after an acknowledgement never shows the item."""
    publish_world(tmp_path, World(seed=1), activate=False)
    state = registry._state
    rng = np.random.default_rng(0)

    async def write() -> int:
        swaps, serving = 0, registry.serving
        for n, pair in enumerate(random_pairs(rng, 120)):
            sequence = state.append(interactions([pair])).sequence
            registry.follower.wake()
            await asyncio.wait_for(registry.wait_applied(sequence), 20)
            found = recommend(registry.model, pair[0], 60)
            assert found["sequence"] >= sequence
            assert pair[1] not in {item["item_id"] for item in found["items"]}
            if n % 20 == 10:
                registry.store.activate("v0002" if registry.serving == "v0001" else "v0001")
            swaps += registry.serving != serving
            serving = registry.serving
        return swaps

    assert asyncio.run(write()) >= 1


# ---- the version before, and the canary ------------------------------------------------------------------------------


def test_a_roll_back_takes_the_version_that_is_still_warm_and_has_followed_the_log(tmp_path):
    state = MemoryState()
    publish_world(tmp_path)
    registry = make(tmp_path, state, keep_warm=60)
    registry.start()
    assert registry.wait_ready(110)
    first = registry.model
    publish_world(tmp_path, World(seed=1))
    registry.wait_version("v0002", 30)
    state.append(interactions([("u1", "fresh"), ("new", "i3")]))
    registry.follower.wake()
    damage(tmp_path, "v0001")  # so that it could not be loaded again
    registry.store.rollback()
    registry.wait_version("v0001", 10)
    assert registry.model is first
    assert first.sequence == 2
    assert {("u1", "fresh"), ("new", "i3")} <= first.edges()
    # There and back again: the one that was rolled back is warm now.
    second = registry._warm.model
    registry.store.activate("v0002")
    registry.wait_version("v0002", 10)
    assert registry.model is second
    registry.stop()
    assert not registry.follower.running
    assert not registry._warm.running


def test_the_version_before_cools_down(tmp_path):
    publish_world(tmp_path)
    registry = make(tmp_path, keep_warm=0.1)
    registry.start()
    assert registry.wait_ready(110)
    first = registry.follower
    publish_world(tmp_path, World(seed=1))
    registry.wait_version("v0002", 30)
    until(lambda: not first.running)
    assert registry._warm is None
    registry.stop()


def test_nothing_that_was_acknowledged_is_missing_after_a_roll_back_under_writes(tmp_path):
    state = MemoryState()
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    registry = make(tmp_path, state, keep_warm=60, refresh_every=1000)
    registry.start()
    assert registry.wait_ready(110)

    async def write_and_read() -> int:
        written = 0
        while written < 300:
            sequence = state.append(interactions([("u1", f"i{written % 40}")])).sequence
            registry.wake()
            await registry.wait_applied(sequence)
            assert registry.model.sequence >= sequence
            written += 1
            if written % 30 == 0:  # back and forth meanwhile
                other = {"v0001": "v0002", "v0002": "v0001"}[registry.serving]
                registry.store.activate(other)
                registry._wake.set()
        return written

    assert asyncio.run(write_and_read()) == 300
    registry.stop()


def test_a_canary_is_what_its_share_of_the_users_gets_until_it_ends(tmp_path):
    state = MemoryState()
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    registry = make(tmp_path, state, keep_warm=60)
    registry.start()
    assert registry.wait_ready(110)
    users = [f"somebody {n}" for n in range(2000)]
    assert {registry.model_of(user).version for user in users} == {"v0001"}
    registry.store.set_canary(Canary("v0002", 0.25))
    registry.wait_canary("v0002", 30)
    assert registry.canary == ("v0002", 0.25)
    got = [user for user in users if registry.model_of(user).version == "v0002"]
    # A binomial's standard deviation is 19.4 here.
    assert abs(len(got) - 500) < 5 * 19.4
    # What is acknowledged is in both.
    sequence = state.append(interactions([(got[0], "i3")])).sequence
    registry.wake()
    asyncio.run(registry.wait_applied(sequence))
    assert registry.applied == sequence
    assert (got[0], "i3") in registry.model_of(got[0]).edges() & registry.model.edges()
    # A larger share keeps those who have it.
    registry.store.set_canary(Canary("v0002", 0.5))
    registry._wake.set()
    until(lambda: registry.canary == ("v0002", 0.5))
    assert all(registry.model_of(user).version == "v0002" for user in got)
    # It is put in force as it is: nothing is loaded anew.
    model = registry.model_of(got[0])
    registry.store.activate("v0002")
    registry.wait_version("v0002", 10)
    assert registry.model is model
    until(lambda: registry.canary is None)
    registry.store.set_canary(Canary("v0001", 0.25))  # the version before, which is warm
    registry.wait_canary("v0001", 10)
    registry.store.set_canary(None)
    until(lambda: registry.canary is None)
    assert {registry.model_of(user).version for user in users} == {"v0002"}
    registry.stop()


def test_a_canary_that_can_not_be_loaded_changes_nothing(tmp_path, registry):
    publish_world(tmp_path, World(seed=1), activate=False)
    damage(tmp_path, "v0002")
    registry.store.set_canary(Canary("v0002", 0.5))
    with pytest.raises(NotReadyError, match=r"canary v0002 is not served: .*checksum"):
        registry.wait_canary("v0002", 20)
    assert {registry.model_of(f"u{n}").version for n in range(100)} == {"v0001"}
    assert registry.failure is None


def test_a_canary_that_no_longer_follows_is_dropped_so_that_writes_go_on(tmp_path, registry, monkeypatch):
    publish_world(tmp_path, World(seed=1), activate=False)
    registry.store.set_canary(Canary("v0002", 0.5))
    registry.wait_canary("v0002", 30)
    canary = registry.served.canary.model
    monkeypatch.setattr(canary, "apply", lambda _events: 1 / 0)
    registry._state.append(interactions([("u1", "i3")]))
    until(lambda: registry.canary is None)
    asyncio.run(registry.wait_applied(1))
    assert registry.model.sequence == 1
