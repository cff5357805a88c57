from __future__ import annotations

import importlib.util
from dataclasses import replace

import pytest

from service.errors import JobEndedError, JobRunningError, NotReadyError, TrainingUnavailableError, UnknownJobError
from service.jobs.jobs import Jobs, training_installed
from service.jobs.runner import SWAP
from service.state.memory import MemoryState
from service.state.port import Interaction, Job


@pytest.fixture
def state():
    return MemoryState()


@pytest.fixture
def woken():
    return []


@pytest.fixture
def jobs(state, woken, tmp_path):
    return Jobs(state, tmp_path, wake=lambda: woken.append(True), served=lambda: "v0007")


def test_who_asks_gets_a_job_that_waits_and_whoever_runs_jobs_is_told(state, jobs, woken):
    state.append([Interaction("u", "i", 0.0)])
    job = jobs.retrain()
    assert (job.state, job.base, job.sequence, job.trigger) == ("queued", "v0007", 1, "asked")
    assert jobs.job(job.job_id) == job == jobs.jobs()[0]
    assert woken == [True]


def test_one_runs_and_one_waits_and_a_third_is_refused(state, jobs):
    first = jobs.retrain()
    with pytest.raises(JobRunningError, match=f"{first.job_id} is queued"):
        jobs.retrain()
    state.take_job("me/1/2", 1e12)
    second = jobs.retrain()
    assert second.job_id != first.job_id
    with pytest.raises(JobRunningError, match=second.job_id):
        jobs.retrain()


def test_what_waits_or_runs_can_be_cancelled_once(state, jobs):
    waiting = jobs.retrain()
    assert jobs.cancel(waiting.job_id).state == "cancelled"
    with pytest.raises(JobEndedError, match="it is cancelled"):
        jobs.cancel(waiting.job_id)
    running = jobs.retrain()
    taken = state.take_job("me/1/2", 1e12)
    assert jobs.cancel(running.job_id).finished_at is not None
    assert not state.update_job(replace(taken, progress=0.5), owned_by="me/1/2")
    assert jobs.retrain().state == "queued"


def test_a_version_that_is_being_put_in_force_can_not_be_cancelled(state, jobs):
    job = jobs.retrain()
    taken = state.take_job("me/1/2", 1e12)
    state.update_job(replace(taken, phase=SWAP, version="v0008"))
    with pytest.raises(JobEndedError, match="v0008 in force: roll back"):
        jobs.cancel(job.job_id)


def test_a_job_whose_version_is_put_in_force_while_it_is_being_cancelled_is_not_said_to_be_cancelled(tmp_path):
    class Racing(MemoryState):
        """The runner begins the swap between the look at the job and its end."""

        def job(self, job_id):
            found = super().job(job_id)
            if found is not None and found.phase == "gate":
                self.update_job(replace(found, phase=SWAP))
            return found

    state = Racing()
    jobs = Jobs(state, tmp_path, wake=lambda: None, served=lambda: "v0007")
    job = jobs.retrain()
    state.update_job(replace(state.take_job("me/1/2", 1e12), phase="gate", version="v0008"))
    with pytest.raises(JobEndedError, match="v0008 in force: roll back"):
        jobs.cancel(job.job_id)
    assert (state.job(job.job_id).state, state.job(job.job_id).phase) == ("running", SWAP)


def test_the_log_is_the_file_s_where_there_is_one_and_the_state_s_elsewhere(state, jobs, tmp_path):
    state.add_job(Job("far", "failed", 1.0, "v1", 0, log="from afar"))
    assert jobs.log("far") == "from afar"
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "log.txt").write_text("x" * 5000 + " of this moment")
    assert jobs.log("far").endswith("xx of this moment")
    assert len(jobs.log("far")) == 4000


def test_an_unknown_job_is_an_error(jobs):
    for ask in (jobs.job, jobs.log, jobs.cancel):
        with pytest.raises(UnknownJobError, match="nope"):
            ask("nope")


def test_without_training_anywhere_retraining_is_refused(state, tmp_path):
    jobs = Jobs(state, tmp_path, wake=lambda: None, served=lambda: "v1", training=False)
    with pytest.raises(TrainingUnavailableError, match=r"pip install 'kdiffe\[training\]'.*KDIFFE_TRAINER=elsewhere"):
        jobs.retrain()


def test_without_a_served_version_there_is_nothing_to_retrain(state, tmp_path):
    def served() -> str:
        raise NotReadyError("no model")

    with pytest.raises(NotReadyError, match="no model"):
        Jobs(state, tmp_path, wake=lambda: None, served=served).retrain()
    assert state.jobs() == []


def test_torch_is_looked_for(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert not training_installed()
