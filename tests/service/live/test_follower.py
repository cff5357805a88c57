from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from service.errors import NotReadyError, StateError
from service.explanation.account import explain
from service.live.follower import Follower, replay
from service.recommendation.recommender import recommend
from service.state.memory import MemoryState
from service.state.port import Change
from tests.service.worlds import LosingState, apply_all, interactions, live_model, random_pairs


class BrokenState(MemoryState):
    """A log that can't be read any more after some interactions."""

    def _rows(self, after, limit):
        if after >= 2:
            raise OSError("the disk is gone")
        return super()._rows(after, limit)


def test_the_log_is_applied_settled_and_refreshed(tmp_path):
    model, state = live_model(tmp_path, refresh_every=10), MemoryState()
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    pairs = random_pairs(np.random.default_rng(1), 37)
    for begin in range(0, 37, 5):
        state.append(interactions(pairs[begin : begin + 5]))
        follower.wake()
    assert follower.wait_idle()
    follower.stop()
    assert (follower.applied, model.readout.refreshed_at, model.n_stale) == (37, 30, 0)
    assert not follower.running


@pytest.mark.parametrize("count", [0, 7, 20, 37])
def test_a_restarted_process_holds_the_same_bits_as_one_that_never_stopped(tmp_path, count):
    pairs = random_pairs(np.random.default_rng(2), count)
    state = MemoryState()
    never_stopped = live_model(tmp_path, refresh_every=10)
    follower = Follower(never_stopped, state, poll_interval=0.01)
    follower.start()
    for n, pair in enumerate(pairs):
        state.append(interactions([pair]))
        if n % 3 == 0:
            follower.wake()
            recommend(never_stopped, pair[0], 5)
    assert follower.wait_idle()
    follower.stop()

    restarted = live_model(tmp_path, refresh_every=10)
    replay(restarted, state, count)

    assert restarted.sequence == never_stopped.sequence == count
    assert restarted.readout.refreshed_at == never_stopped.readout.refreshed_at == count // 10 * 10
    assert restarted.digest() == never_stopped.digest()
    for name in ("neighbor_embeddings", "item_embeddings"):
        assert getattr(restarted.readout, name).tobytes() == getattr(never_stopped.readout, name).tobytes()

    def as_told(answer: Mapping[str, Any]) -> dict[str, Any]:
        """An answer of the first version with the second one's name."""
        renamed = answer["recommendation_id"].replace("v0001", "v0002")
        return {**answer, "model_version": "v0002", "recommendation_id": renamed}

    for user in sorted({user for user, _ in pairs} | {"u0", "nobody"}):
        assert recommend(restarted, user, 10) == as_told(recommend(never_stopped, user, 10))
    for user, item in pairs:
        assert explain(restarted, user, item) == as_told(explain(never_stopped, user, item))


def test_a_replay_makes_the_last_due_refresh_alone(tmp_path):
    state = MemoryState()
    pairs = random_pairs(np.random.default_rng(3), 45)
    state.append(interactions(pairs))
    model, step_by_step = live_model(tmp_path, refresh_every=10), live_model(tmp_path, refresh_every=10)
    replay(model, state, 45)
    apply_all(step_by_step, pairs)
    assert (model.refreshes, step_by_step.refreshes) == (1, 4)
    assert model.readout.neighbor_embeddings.tobytes() == step_by_step.readout.neighbor_embeddings.tobytes()
    assert model.digest() == step_by_step.digest()


def test_a_write_can_be_waited_for(tmp_path):
    model, state = live_model(tmp_path), MemoryState()
    follower = Follower(model, state, poll_interval=10.0)
    follower.start()

    async def write() -> None:
        for n in range(30):
            sequence = state.append(interactions([("u1", f"n{n}")])).sequence
            follower.wake()
            await asyncio.wait_for(follower.wait_for(sequence), 10)
            view = model.user("u1")
            assert view is not None
            assert model.item_row(f"n{n}") in view.seen

    asyncio.run(write())
    follower.stop()


def test_writes_of_others_are_found_without_being_told(tmp_path):
    model, state = live_model(tmp_path), MemoryState()
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    state.append(interactions([("u1", "i5")]))
    asyncio.run(asyncio.wait_for(follower.wait_for(1), 5))
    follower.stop()


def test_a_failure_is_told_to_those_who_wait_and_to_those_who_come_later(tmp_path):
    model, state = live_model(tmp_path), BrokenState()
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    state.append(interactions(random_pairs(np.random.default_rng(4), 3)))

    async def wait() -> None:
        await asyncio.wait_for(follower.wait_for(9), 5)

    with pytest.raises(NotReadyError, match="the disk is gone"):
        asyncio.run(wait())
    with pytest.raises(NotReadyError, match="no longer follows"):
        asyncio.run(wait())
    assert isinstance(follower.failure, OSError)
    follower.stop()


def test_who_waits_is_released_when_the_follower_stops(tmp_path):
    follower = Follower(live_model(tmp_path), MemoryState())
    follower.start()

    async def wait() -> None:
        threading.Timer(0.05, follower.stop).start()
        await asyncio.wait_for(follower.wait_for(5), 5)

    asyncio.run(wait())
    assert follower.applied == 0


def test_a_stopped_follower_can_be_started_again(tmp_path):
    model, state = live_model(tmp_path, refresh_every=5), MemoryState()
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    follower.stop()
    state.append(interactions(random_pairs(np.random.default_rng(5), 12)))
    follower.start()
    assert follower.wait_idle()
    assert (follower.applied, model.readout.refreshed_at) == (12, 10)
    follower.stop()


def test_neither_a_settle_nor_a_refresh_holds_up_what_is_acknowledged(tmp_path, monkeypatch):
    model, state = live_model(tmp_path, refresh_every=4), MemoryState()
    follower = Follower(model, state, poll_interval=0.01)
    begun, go_on = threading.Event(), threading.Event()
    settle = model._state.settle

    def slow(*args, **kwargs):
        begun.set()
        assert go_on.wait(10)
        return settle(*args, **kwargs)

    monkeypatch.setattr(model._state, "settle", slow)
    follower.start()
    pairs = random_pairs(np.random.default_rng(6), 14)
    for pair in pairs:
        sequence = state.append(interactions([pair])).sequence
        follower.wake()
        asyncio.run(asyncio.wait_for(follower.wait_for(sequence), 5))
        assert model.user(pair[0]).sequence >= sequence
    assert begun.wait(5)
    assert (follower.applied, model.readout.refreshed_at, follower.idle()) == (14, 0, False)
    assert model.settled_sequence == 0
    go_on.set()
    assert follower.wait_idle()
    follower.stop()
    assert (model.settled_sequence, model.settle_lag, model.readout.refreshed_at) == (14, 0.0, 12)


def test_a_failure_while_settling_is_told(tmp_path, monkeypatch):
    model, state = live_model(tmp_path), MemoryState()

    def broken(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(model._state, "settle", broken)
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    state.append(interactions([("u1", "brand-new")]))
    follower.wake()
    assert not follower.wait_idle(5)
    with pytest.raises(NotReadyError, match="no room"):
        follower.check()
    follower.stop()


# ---- a log that goes, comes, or is another one -----------------------------------------------------------------------


def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.002)


@pytest.fixture
def followed(tmp_path):
    """A log of five interactions and a follower that has applied them."""
    model, state = live_model(tmp_path), LosingState()
    follower = Follower(model, state, poll_interval=0.01)
    state.append(interactions([("u1", f"i{n}") for n in range(5)]))
    follower.start()
    assert follower.wait_idle()
    yield model, state, follower
    follower.stop()


def looks(follower):
    """Let the follower look at the log a few times."""
    for _ in range(3):
        follower.wake()
        time.sleep(0.02)


@pytest.mark.parametrize("left", [0, 3, 4])
def test_a_log_that_was_set_back_is_never_followed_again(followed, left):
    model, state, follower = followed
    digest = model.digest()
    state.lose(upto=left)
    until(lambda: follower.failure is not None)
    with pytest.raises(NotReadyError, match=f"ends at {left}, but .* set back.* restart the service"):
        follower.check()
    # What is written now has the numbers of what was applied: going on would leave entries out.
    state.append(interactions([("u2", f"i{n}") for n in range(9)]))
    looks(follower)
    with pytest.raises(NotReadyError, match="set back"):
        follower.check()
    assert (model.sequence, model.digest()) == (5, digest)


@pytest.mark.parametrize("n_new", [2, 3, 6])
@pytest.mark.parametrize("last", ["interaction", "record"])
def test_a_log_that_was_set_back_and_has_grown_since_is_told_by_its_last_entry(followed, last, n_new):
    model, state, follower = followed
    if last == "record":
        state.append([Change("item", item_id="i4", content={})])
        assert follower.wait_idle()
    applied, digest = model.sequence, model.digest()
    state.lose(upto=applied - 2, grown_by=interactions([("u2", f"i{n}") for n in range(n_new)]))
    until(lambda: follower.failure is not None)
    with pytest.raises(NotReadyError, match=f"Entry {applied} of the log is another one.* restart the service"):
        follower.check()
    assert (model.sequence, model.digest()) == (applied, digest)


def test_a_model_that_was_brought_up_before_is_looked_after_too(tmp_path):
    model, state = live_model(tmp_path), LosingState()
    state.append(interactions([("u1", f"i{n}") for n in range(5)]))
    replay(model, state, 5)
    follower = Follower(model, state, poll_interval=0.01)
    follower.start()
    until(lambda: follower._held is not None)
    state.lose(upto=3, grown_by=interactions([("u2", f"i{n}") for n in range(4)]))
    until(lambda: follower.failure is not None)
    follower.stop()
    assert model.sequence == 5


@pytest.mark.parametrize("upto", [4, 5])
def test_neither_compaction_nor_an_erasure_looks_like_a_log_that_was_set_back(followed, upto):
    model, state, follower = followed
    state.compact(upto)
    looks(follower)
    state.append([Change("erasure", user_id="u1")])
    assert follower.wait_idle()
    state.append([*interactions([("u3", "i1"), ("u4", "i1")]), Change("erasure", user_id="u4")])
    assert follower.wait_idle()
    state.append(interactions([("u3", "i2")]))
    assert follower.wait_idle()
    assert (model.sequence, follower.failure) == (10, None)
    state.append([*interactions([("u3", "i1")])])
    assert follower.wait_idle()
    state.append([Change("erasure", user_id="u3")])  # whose interaction was the last that was applied
    state.append(interactions([("u5", "i1")]))
    assert follower.wait_idle()
    assert (model.sequence, follower.failure) == (13, None)


def test_a_model_that_was_brought_further_between_a_stop_and_a_start_is_followed_on(followed):
    model, state, follower = followed
    follower.stop()
    state.append(interactions([("u2", "i1"), ("u2", "i2")]))
    replay(model, state, 6)
    follower.start()
    assert follower.wait_idle()
    assert (model.sequence, follower.failure) == (7, None)


def test_a_log_that_was_away_is_followed_again(followed):
    model, state, follower = followed
    state.away = True
    until(lambda: isinstance(follower.failure, StateError))
    with pytest.raises(StateError, match="away"):
        follower.check()
    state.away = False
    state.append(interactions([("u2", "i1")]))
    until(lambda: follower.failure is None)
    assert follower.wait_idle()
    assert model.sequence == 6


def test_a_thread_that_has_ended_stays_told_when_the_log_goes_and_comes(followed, monkeypatch):
    model, state, follower = followed

    def broken(*args, **kwargs):
        raise MemoryError("no room")

    monkeypatch.setattr(model._state, "settle", broken)
    state.append(interactions([("u1", "brand-new")]))
    until(lambda: follower.failure is not None)
    for away in (True, False):
        state.away = away
        looks(follower)
        with pytest.raises(NotReadyError, match="no room"):
            follower.check()
