from __future__ import annotations

from dataclasses import replace

import pytest

from model_store.artifact import write_artifact
from model_store.store import ModelStore
from service.compaction import compact, held_by_every_version
from service.errors import NotReadyError
from service.index.exact import ExactIndex
from service.live.registry import Registry
from service.state.memory import MemoryState
from tests.service.processes import until
from tests.service.worlds import interactions
from tests.support.artifacts import publish_world


def publish_up_to(store: ModelStore, sequence: int, state_id: str) -> str:
    source = store.open()

    def write(directory, version):
        manifest = replace(
            source.manifest, version=version, sequence=sequence, data={**source.manifest.data, "state_id": state_id}
        )
        write_artifact(directory, manifest, {name: source.array(name) for name in source.names()})

    return store.publish(write)


@pytest.fixture
def state():
    state = MemoryState()
    state.append(interactions([(f"u{n}", f"i{n}") for n in range(9)]))
    return state


def test_the_log_is_kept_for_whichever_version_may_be_activated(tmp_path, state):
    publish_world(tmp_path)
    store = ModelStore(tmp_path)
    publish_up_to(store, 5, state.state_id)
    publish_up_to(store, 7, state.state_id)
    assert held_by_every_version(store, state.state_id) == 0  # the first version knows nothing of this log
    assert compact(store, state).compacted == 0
    store.prune(2)
    assert store.versions() == ["v0002", "v0003"]
    assert compact(store, state).compacted == 5
    assert [entry.sequence for entry in state.read(5, 100)] == [6, 7, 8, 9]
    publish_up_to(store, 9, "another state")
    assert held_by_every_version(store, state.state_id) == 0


def test_a_version_that_can_not_be_read_or_none_at_all_keeps_the_log_whole(tmp_path, state):
    store = ModelStore(tmp_path)
    assert held_by_every_version(store, state.state_id) == 0
    publish_world(tmp_path)
    publish_up_to(store, 5, state.state_id)
    (tmp_path / "v0001" / "manifest.json").write_text("{}")
    assert held_by_every_version(store, state.state_id) == 0


def test_a_version_from_before_the_compaction_is_refused_and_a_later_one_served(tmp_path, state):
    publish_world(tmp_path)
    store = ModelStore(tmp_path)
    later = publish_up_to(store, 5, state.state_id)
    state.compact(5)
    publish_world(tmp_path)  # as from files alone: it holds nothing of the log
    registry = Registry(store, state, ExactIndex, refresh_every=10, poll_interval=0.01, version_interval=0.01)
    registry.start()
    try:
        assert registry.wait_ready(30)  # a start is no outage: what was active before is served
        assert registry.serving == later
        assert registry.model.sequence == 9
        assert registry.problem.version == "v0003"
        for words in ("compacted up to 5", "Activate a version that holds more", "kdiffe train --base"):
            assert words in registry.problem.message
        store.activate(later)
        registry.wait_version(later, 30)
        until(lambda: registry.problem is None)
        store.activate("v0001")
        with pytest.raises(NotReadyError, match="compacted up to 5"):
            registry.wait_version("v0001", 30)
        assert registry.serving == later
    finally:
        registry.stop()
