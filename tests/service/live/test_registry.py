from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from dataclasses import replace

import numpy as np
import pytest
from structlog.testing import capture_logs

from model_store.artifact import Artifact, write_artifact
from model_store.experiment import MAIN, Arm
from model_store.store import ModelStore
from service.errors import NotReadyError, StateError
from service.index.exact import ExactIndex
from service.live.priority import NICER
from service.live.registry import Registry, Served
from service.recommendation.recommender import recommend
from service.state.memory import MemoryState
from tests.service.worlds import LosingState, interactions, random_pairs
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


def test_a_new_version_is_settled_before_it_is_served_and_those_who_answer_go_first(tmp_path):
    nices: list[int] = []

    def build_index(vectors):
        nices.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))
        return ExactIndex(vectors)

    publish_world(tmp_path)
    state = MemoryState()
    registry = Registry(ModelStore(tmp_path), state, build_index, refresh_every=10)
    first = registry._load_aside("v0001")
    registry._serve(Served(first))
    state.append(interactions(random_pairs(np.random.default_rng(0), 17)))
    follower = registry._load_aside("v0001")
    assert (follower.applied, follower.model.readout.refreshed_at, follower.model.n_stale) == (17, 10, 0)
    if sys.platform.startswith("linux"):
        own = os.getpriority(os.PRIO_PROCESS, 0)
        assert nices[0] == own  # nobody is answered before
        assert set(nices[1:]) == {min(own + NICER, 19)}
        assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == own


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


@pytest.mark.parametrize("n_new", [0, 1, 6])
def test_after_a_log_was_set_back_another_version_can_be_put_in_force(tmp_path, n_new):
    publish_world(tmp_path)
    state = LosingState()
    registry = make(tmp_path, state)
    registry.start()
    assert registry.wait_ready(110)
    state.append(interactions(random_pairs(np.random.default_rng(0), 9)))
    until(lambda: registry.follower.applied == 9)
    state.lose(upto=5, grown_by=interactions([("u1", f"after-{n}") for n in range(n_new)]))
    until(lambda: registry.follower.failure is not None)
    publish_world(tmp_path, World(seed=1))
    registry.wait_version("v0002", 10)
    assert (registry.follower.failure, registry.model.sequence) == (None, 5 + n_new)
    state.append(interactions([("u1", "later")]))
    until(lambda: registry.model.sequence == 6 + n_new)
    registry.stop()


# ---- a start with an active version that can't be loaded -------------------------------------------------------------


def started(root, state=None) -> Registry:
    """A registry once it serves, or can't: as a service is after a restart."""
    registry = make(root, state)
    registry.start()
    registry.wait_ready(110)
    return registry


def test_where_the_active_version_is_damaged_at_a_start_the_latest_whole_one_of_before_is_served(tmp_path, monkeypatch):
    monkeypatch.setattr("service.live.registry.RETRY", 0.2)
    for seed in range(5):
        publish_world(tmp_path, World(seed=seed), activate=seed != 3)  # v0004 was never active
    whole = (tmp_path / "v0005" / "item_embeddings.npy").read_bytes()
    for version in ("v0003", "v0005"):
        damage(tmp_path, version)
    workers = [started(tmp_path) for _ in range(2)]
    for registry in workers:
        assert registry.serving == "v0002"
        assert (registry.problem.version, "checksum" in registry.problem.message) == ("v0005", True)
        recommend(registry.model, "u1", 5)
    (tmp_path / "v0005" / "item_embeddings.npy").write_bytes(whole)
    for registry in workers:
        until(lambda registry=registry: registry.serving == "v0005")
        assert registry.problem is None
        registry.stop()


def test_it_is_said_that_an_earlier_version_is_served_and_the_problem_stays(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1))
    damage(tmp_path, "v0002")
    with capture_logs() as told:
        registry = started(tmp_path)
        stands_in = [line for line in told if line["event"].endswith("an earlier one is served")]
    (line,) = stands_in
    assert (line["log_level"], line["version"], line["active"]) == ("error", "v0001", "v0002")
    assert "checksum" in line["error"]
    time.sleep(0.2)  # ten looks at the store
    assert (registry.serving, registry.problem.version) == ("v0001", "v0002")
    publish_world(tmp_path, World(seed=2))
    registry.wait_version("v0003", 10)
    assert registry.problem is None
    registry.stop()


def test_without_an_earlier_active_version_that_can_be_loaded_nothing_is_served(tmp_path):
    publish_world(tmp_path, activate=False)
    publish_world(tmp_path, World(seed=1))
    damage(tmp_path, "v0002")
    registry = started(tmp_path)
    with pytest.raises(NotReadyError, match="checksum"):
        registry.model  # noqa: B018
    registry.stop()
    registry.store.activate("v0001")
    damage(tmp_path, "v0001")
    registry = started(tmp_path)
    assert (registry.serving, registry.problem.version) == (None, "v0001")
    registry.stop()


def test_a_log_that_can_not_be_read_at_a_start_is_no_reason_to_serve_an_earlier_version(tmp_path, monkeypatch):
    def away():
        raise StateError("away")

    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1))
    state = MemoryState()
    monkeypatch.setattr(state, "last_sequence", away)
    registry = started(tmp_path, state)
    assert (registry.serving, registry.problem.version, registry.problem.message) == (None, "v0002", "away")
    registry.stop()


def test_a_version_from_beyond_the_log_s_end_stays_refused_when_the_log_has_grown_again(tmp_path, monkeypatch):
    monkeypatch.setattr("service.live.registry.RETRY", 0.05)
    source = publish_world(tmp_path)
    state = MemoryState()
    state.append(interactions(random_pairs(np.random.default_rng(0), 3)))
    known = {**source.manifest.data, "state_id": state.state_id}
    republish(ModelStore(tmp_path), source, sequence=5, data=known)
    registry = started(tmp_path, state)
    assert registry.serving == "v0001"
    assert "ended at 3" in registry.problem.message
    # Entries 4 and 5 are others than v0002 was trained with: it would miss them.
    state.append(interactions([("u1", f"after-{n}") for n in range(4)]))
    registry.wake()
    until(lambda: registry.model.sequence == 7)
    time.sleep(0.2)
    assert (registry.serving, registry.problem.version) == ("v0001", "v0002")
    other = started(tmp_path, state)  # as after a restart
    assert (other.serving, "ended at 3" in other.problem.message) == ("v0001", True)
    for one in (registry, other):
        one.stop()


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


# ---- the version before, and experiments -----------------------------------------------------------------------------


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


def begin(registry: Registry, *arms: Arm, name: str = "x", timeout: float = 30.0) -> None:
    experiment = registry.store.set_experiment(name, arms).after.experiment
    assert experiment is not None
    registry.wait_experiment(experiment, timeout)


def versions_of(registry: Registry, users: list[str]) -> dict[str, str]:
    return {user: registry.chosen_for(user).model.version for user in users}


def followers() -> set[str]:
    """The versions that are followed by a thread of this process."""
    found = {thread.name for thread in threading.enumerate()}
    return {name.removeprefix("kdiffe-follow-") for name in found if name.startswith("kdiffe-follow-")}


def test_an_experiment_s_versions_are_what_their_shares_of_the_users_get_until_it_ends(tmp_path):
    state = MemoryState()
    publish_world(tmp_path)
    for seed in (1, 2):
        publish_world(tmp_path, World(seed=seed), activate=False)
    registry = make(tmp_path, state, keep_warm=60)
    registry.start()
    assert registry.wait_ready(110)
    users = [f"somebody {n}" for n in range(2000)]
    assert {registry.chosen_for(user)[0] for user in users} == {MAIN}
    begin(registry, Arm("b", "v0002", 0.25), Arm("c", "v0003", 0.25))
    first = versions_of(registry, users)
    for version in ("v0002", "v0003"):  # a binomial's standard deviation is 19.4 here
        assert abs(list(first.values()).count(version) - 500) < 5 * 19.4
    assert followers() == {"v0001", "v0002", "v0003"}
    # What is acknowledged is in all.
    reader = next(user for user, version in first.items() if version == "v0003")
    sequence = state.append(interactions([(reader, "i3")])).sequence
    registry.wake()
    asyncio.run(registry.wait_applied(sequence))
    assert registry.applied == sequence
    assert all((reader, "i3") in follower.model.edges() for follower in registry.served.followers)
    # A share that changes moves nobody else, and nothing is loaded anew.
    models = {variant: follower.model for variant, follower in registry.served.variants.items()}
    begin(registry, Arm("b", "v0002", 0.4), Arm("c", "v0003", 0.25))
    changed = versions_of(registry, users)
    assert {(first[user], changed[user]) for user in users if first[user] != changed[user]} == {("v0001", "v0002")}
    assert {variant: follower.model for variant, follower in registry.served.variants.items()} == models
    # One is put in force as it is, which ends the experiment; the other one is let go.
    registry.store.activate("v0002")
    registry.wait_version("v0002", 10)
    assert registry.model is models["b"]
    assert set(versions_of(registry, users).values()) == {"v0002"}
    until(lambda: followers() == {"v0001", "v0002"})  # the version before is warm
    begin(registry, Arm("a", "v0001", 0.25))
    assert set(versions_of(registry, users).values()) == {"v0001", "v0002"}
    registry.store.end_experiment()
    until(lambda: registry.served.experiment is None)
    assert set(versions_of(registry, users).values()) == {"v0002"}
    assert followers() == {"v0001", "v0002"}
    registry.stop()


def test_every_process_and_every_start_splits_the_users_alike(tmp_path, registry):
    publish_world(tmp_path, World(seed=1), activate=False)
    users = [f"u{n}" for n in range(300)]
    begin(registry, Arm("b", "v0002", 0.3))
    begin(registry, Arm("b", "v0002", 0.2))
    other = make(tmp_path, registry._state)  # as after a restart
    other.start()
    assert other.wait_ready(110)
    until(lambda: other.served.experiment == registry.served.experiment and bool(other.served.variants), 30)
    assert versions_of(other, users) == versions_of(registry, users)
    other.stop()


def test_the_active_version_may_be_compared_with_itself_without_a_second_model(registry):
    begin(registry, Arm("control", "v0001", 0.5))
    chosen = {registry.chosen_for(f"u{n}") for n in range(50)}
    assert {(one.variant, one.model is registry.model) for one in chosen} == {(MAIN, True), ("control", True)}
    assert registry.served.followers == (registry.follower,)
    registry.store.end_experiment()
    until(lambda: registry.served.experiment is None)
    assert registry.follower.running


def test_a_version_of_an_experiment_that_can_not_be_loaded_leaves_its_users_and_the_others_alone(tmp_path, registry):
    for seed in (1, 2):
        publish_world(tmp_path, World(seed=seed), activate=False)
    damage(tmp_path, "v0002")
    with pytest.raises(NotReadyError, match=r"experiment 'x' is not served: v0002: .*checksum"):
        begin(registry, Arm("b", "v0002", 0.5), Arm("c", "v0003", 0.3))
    until(lambda: set(registry.served.variants) == {"c"}, 30)
    assert "checksum" in str(registry.problem_of("v0002"))
    assert set(versions_of(registry, [f"u{n}" for n in range(100)]).values()) == {"v0001", "v0003"}
    assert registry.served.named("b") is None
    assert registry.failure is None


def test_a_variant_that_no_longer_follows_is_dropped_so_that_writes_go_on(tmp_path, registry, monkeypatch):
    publish_world(tmp_path, World(seed=1), activate=False)
    begin(registry, Arm("b", "v0002", 0.5))
    monkeypatch.setattr(registry.served.variants["b"].model, "apply", lambda _events: 1 / 0)
    registry._state.append(interactions([("u1", "i3")]))
    until(lambda: not registry.served.variants)
    asyncio.run(registry.wait_applied(1))
    assert registry.model.sequence == 1
    assert "no longer follows" in str(registry.problem_of("v0002"))


def test_an_activation_that_fails_and_is_undone_leaves_the_experiment_s_models_where_they_are(tmp_path, registry):
    for seed in (1, 2):
        publish_world(tmp_path, World(seed=seed), activate=False)
    begin(registry, Arm("b", "v0002", 0.5))
    served = registry.served
    damage(tmp_path, "v0003")
    change = registry.store.activate("v0003")
    with pytest.raises(NotReadyError, match="checksum"):
        registry.wait_version("v0003", 20)
    assert registry.store.undo(change)
    until(lambda: registry.problem is None)
    assert registry.served is served


def test_who_waits_for_what_is_no_longer_wanted_is_told(tmp_path, registry):
    publish_world(tmp_path, World(seed=1), activate=False)
    registry.stop()  # nothing is put in force any more
    registry._stop.clear()
    registry.store.activate("v0002")
    with pytest.raises(NotReadyError, match=r"within 0\.05 s"):
        registry.wait_version("v0002", 0.05)
    registry.store.activate("v0001")
    with pytest.raises(NotReadyError, match="something else was put in force meanwhile"):
        registry.wait_version("v0002", 60)


def test_beside_a_version_that_stands_in_nothing_is_tried_and_the_active_one_can_be_put_right(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    publish_world(tmp_path, World(seed=2))
    damage(tmp_path, "v0003")
    registry = started(tmp_path)
    assert (registry.serving, registry.standing_in.version) == ("v0001", "v0003")
    began = time.monotonic()
    with pytest.raises(NotReadyError, match=r"'x' is not served: v0003: .*checksum"):
        begin(registry, Arm("b", "v0002", 0.5), timeout=60)
    assert time.monotonic() - began < 30

    # Put right, it is tried again at once instead of being refused for what was wrong before.
    damage(tmp_path, "v0003")
    registry.wait_version("v0003", 20)
    assert (registry.serving, registry.standing_in) == ("v0003", None)
    registry.stop()
