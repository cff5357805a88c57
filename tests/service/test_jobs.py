from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.store import ModelStore
from service.errors import JobRunningError, TrainingUnavailableError, UnknownJobError
from service.index.exact import ExactIndex
from service.jobs import STOPPED, Jobs, Order, train_command
from service.registry import Registry
from service.state.memory import MemoryState
from service.state.port import UNFINISHED, Job
from service.telemetry import Telemetry
from tests.service.worlds import interactions
from tests.support.artifacts import publish_world

TRAINER = Path(__file__).with_name("trainer.py")


def trainer(mode: str):
    return lambda order: [sys.executable, str(TRAINER), *train_command(order)[4:], "--mode", mode]


class House:
    """A store, a state, a registry and jobs whose process is the tests' own."""

    def __init__(self, root: Path, mode: str = "fit") -> None:
        publish_world(root)
        self.state = MemoryState()
        self.store = ModelStore(root)
        self.registry = Registry(
            self.store, self.state, ExactIndex, refresh_every=10, poll_interval=0.01, version_interval=0.02
        )
        self.registry.start()
        assert self.registry.wait_ready(30)
        self.telemetry = Telemetry()
        self.jobs = Jobs(
            self.store,
            self.state,
            self.registry,
            self.telemetry,
            root / ".jobs",
            command=trainer(mode),
            poll_interval=0.02,
        )
        self.jobs.start()

    def finished(self, job_id: str) -> Job:
        deadline = time.monotonic() + 30
        while (job := self.jobs.job(job_id)).state in UNFINISHED:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        return job

    def close(self) -> None:
        self.jobs.stop()
        self.registry.stop()


@pytest.fixture
def house(tmp_path, request):
    house = House(tmp_path, getattr(request, "param", "fit"))
    yield house
    house.close()


def test_a_job_trains_with_the_log_and_its_version_is_served(tmp_path, house, monkeypatch):
    monkeypatch.setenv("KDIFFE_ADMIN_KEY", "not for the trainer's eyes")
    house.state.append(interactions([("u1", "fresh"), ("new", "i3")]))
    job = house.jobs.retrain()
    assert job.sequence == 2
    house.state.append(interactions([("later", "i4")]))
    phases = set()
    while house.jobs.job(job.job_id).state in UNFINISHED:
        phases.add(house.jobs.job(job.job_id).phase)
        time.sleep(0.005)
    done = house.jobs.job(job.job_id)
    assert (done.state, done.version, done.progress, done.error) == ("succeeded", "v0002", 1.0, None)
    assert "fit" in phases
    assert done.finished_at is not None
    assert house.store.active() == house.registry.serving == "v0002"
    model = house.registry.model
    assert model.artifact.manifest.sequence == 2
    assert model.artifact.array("item_ids").tolist()[-1] == "fresh"
    assert {("u1", "fresh"), ("new", "i3"), ("later", "i4")} <= model.edges()
    assert not (tmp_path / ".jobs" / job.job_id).exists()
    assert house.jobs.jobs()[0].job_id == job.job_id


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_one_job_runs_at_a_time_and_ends_with_the_service(house):
    job = house.jobs.retrain()
    with pytest.raises(JobRunningError, match=job.job_id):
        house.jobs.retrain()
    began = time.monotonic()
    house.jobs.stop()
    assert time.monotonic() - began < 8
    ended = house.jobs.job(job.job_id)
    assert (ended.state, ended.error) == ("failed", STOPPED)
    assert house.store.active() == "v0001"


@pytest.mark.parametrize(
    ("house", "words"),
    [("fail", "status 3: out of luck"), ("silent", "did not tell its version")],
    indirect=["house"],
)
def test_a_failed_process_leaves_its_last_words(house, words):
    job = house.finished(house.jobs.retrain().job_id)
    assert job.state == "failed"
    assert words in str(job.error)
    assert house.registry.serving == house.store.active() == "v0001"
    assert house.jobs.retrain().job_id != job.job_id  # the next one may start


@pytest.mark.parametrize("house", ["damage"], indirect=True)
def test_a_version_that_can_not_be_served_is_taken_back(house):
    job = house.finished(house.jobs.retrain().job_id)
    assert job.state == "failed"
    assert "checksum" in str(job.error)
    assert house.store.active() == "v0001"
    assert house.registry.serving == "v0001"
    assert house.store.previous() is None  # a rollback must not bring it back


def test_jobs_that_were_running_when_the_service_stopped_have_failed(house):
    house.state.add_job(Job("old", "running", 1.0, "v0001", 0))
    house.jobs.start()
    assert (house.jobs.job("old").state, house.jobs.job("old").error) == ("failed", STOPPED)


def test_an_unknown_job_is_an_error(house):
    with pytest.raises(UnknownJobError, match="nope"):
        house.jobs.job("nope")


def test_without_the_training_extra_retraining_is_refused(tmp_path, house, monkeypatch):
    jobs = Jobs(house.store, house.state, house.registry, house.telemetry, tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(TrainingUnavailableError, match=r"pip install 'kdiffe\[training\]'"):
        jobs.retrain()


def test_the_command_is_kdiffe_train():
    order = Order("v0001", Path("/m"), Path("/j/log"), 7, "abc", Path("/j/p"))
    assert " ".join(train_command(order)[1:]) == (
        "-m model_store train --base v0001 --store /m --interactions /j/log --sequence 7 --state-id abc "
        "--progress-file /j/p --run-dir /j/run --no-activate --refit --json"
    )


def test_a_job_is_replaced_not_changed():
    assert replace(Job("a", "queued", 1.0, "v", 0), state="running").state == "running"
