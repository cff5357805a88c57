from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from model_store.store import ModelStore
from service.jobs.cron import check_cron, first_after
from service.jobs.schedule import Schedule
from service.state.memory import MemoryState
from tests.service.worlds import interactions
from tests.support.artifacts import World, publish_world


class Clock:
    def __init__(self, text: str) -> None:
        self.to(text)

    def to(self, text: str) -> None:
        self.now = datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path):
    return ModelStore(tmp_path)


def test_a_job_is_added_at_each_time_of_the_expression_once(store):
    clock, state = Clock("2026-11-21 03:29:59"), MemoryState()
    schedule = Schedule(store, state, "30 3 * * *", clock=clock)
    assert schedule.look() is None
    clock.to("2026-11-21 03:30:00.5")
    job = schedule.look()
    assert (job.job_id, job.trigger, job.state) == ("cron-20261121T0330Z", "schedule", "queued")
    assert schedule.look() is None
    state.take_job("me", 1.0)
    clock.to("2026-11-22 03:31:00")
    assert schedule.look().job_id == "cron-20261122T0330Z"


def test_what_was_missed_while_nobody_looked_is_made_up_for_once_or_not_at_all(store):
    clock, state = Clock("2026-11-21 00:00:00"), MemoryState()
    schedule = Schedule(store, state, "0 * * * *", clock=clock)
    clock.to("2026-11-21 05:30:00")
    assert schedule.look() is not None
    assert schedule.look() is None
    assert Schedule(store, state, "0 * * * *", clock=clock).look() is None  # begins to look now


def test_many_lookers_add_one_job(store):
    state = MemoryState()
    schedules = []
    clock = Clock("2026-11-21 03:29:59")
    schedules = [Schedule(store, state, "30 3 * * *", clock=clock) for _ in range(4)]
    clock.to("2026-11-21 03:30:01")
    added = []
    threads = [threading.Thread(target=lambda s=s: added.append(s.look())) for s in schedules]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(job is not None for job in added) == 1
    # Neither does one who looks late, when the job has been taken and has ended.
    late = Schedule(store, state, "30 3 * * *", clock=Clock("2026-11-21 03:29:59"))
    late._clock = clock
    assert state.take_job("me", 1.0) is not None
    assert late.look() is None


def test_so_many_new_interactions_make_a_retrain_due(store, tmp_path):
    state = MemoryState()
    schedule = Schedule(store, state, interactions=3)
    state.append(interactions([("u1", "a"), ("u1", "b"), ("u1", "c")]))
    assert schedule.look() is None  # there is nothing to retrain
    publish_world(tmp_path)
    job = schedule.look()
    assert job.trigger == "interactions"
    assert schedule.look() is None  # it waits
    taken = state.take_job("me", 1.0)
    state.update_job(type(taken)(**{**taken.__dict__, "sequence": 3, "state": "failed"}))
    state.append(interactions([("u1", "d"), ("u1", "e")]))
    assert schedule.look() is None  # counted from where the last job reached, whatever became of it
    state.append(interactions([("u1", "f")]))
    assert schedule.look().job_id != job.job_id


@pytest.mark.parametrize("ended", ["cancelled", "failed"])
def test_after_a_job_that_ended_before_it_was_taken_up_so_many_interactions_make_the_next_one_due(
    store, tmp_path, ended
):
    state = MemoryState()
    schedule = Schedule(store, state, interactions=3)
    publish_world(tmp_path)
    names = set()
    for _ in range(3):
        state.append(interactions([("u1", "a"), ("u1", "b")]))
        assert schedule.look() is None
        state.append(interactions([("u1", "c")]))
        job = schedule.look()
        assert job is not None
        assert state.update_job(replace(job, state=ended))
        assert schedule.look() is None
        names.add(job.job_id)
    assert len(names) == 3


def test_a_job_of_the_clock_that_was_cancelled_does_not_make_one_of_the_log_due(store, tmp_path):
    clock, state = Clock("2026-11-21 03:29:59"), MemoryState()
    schedule = Schedule(store, state, "30 3 * * *", 3, clock=clock)
    publish_world(tmp_path)
    state.append(interactions([("u1", "a"), ("u1", "b"), ("u1", "c")]))
    clock.to("2026-11-21 03:30:01")
    job = schedule.look()
    assert (job.trigger, job.sequence) == ("schedule", 3)
    assert state.update_job(replace(job, state="cancelled"))
    assert schedule.look() is None


@pytest.mark.parametrize("expression", ["", "60 * * * *", "* * * *", "* * * * * *", "nightly"])
def test_what_is_no_cron_expression_is_told(expression):
    with pytest.raises(ValueError, match="is no cron expression"):
        check_cron(expression)


def test_times_are_utc():
    assert check_cron("30 3 * * 1") == "30 3 * * 1"
    monday = first_after("30 3 * * 1", datetime(2026, 11, 21, tzinfo=UTC))
    assert monday == datetime(2026, 11, 23, 3, 30, tzinfo=UTC)


def test_a_damaged_active_version_does_not_end_the_schedule(store, tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1))
    (tmp_path / "v0002" / "item_embeddings.npy").write_bytes(b"")
    state = MemoryState()
    state.append(interactions([("u1", "a"), ("u1", "b"), ("u1", "c")]))
    assert Schedule(store, state, interactions=3).look().trigger == "interactions"
