from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import numpy as np
import pytest

from model_store.artifact import Artifact, write_artifact
from model_store.store import ModelStore
from service.errors import NotReadyError
from service.index.exact import ExactIndex
from service.recommender import recommend
from service.registry import Registry
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
    assert registry.wait_ready(30)
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
