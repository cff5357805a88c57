from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from model_store.experiment import Arm
from service.errors import NotReadyError, StateError
from service.jobs.owner import this_process
from service.jobs.runner import (
    ATTEMPTS,
    INTERRUPTED,
    LEASE,
    SWAP,
    TRAININGS,
    Rules,
    Runner,
    active_version,
    give_up,
)
from service.jobs.training_process import Command, Limits
from service.state.memory import MemoryState
from service.state.port import UNFINISHED, Change, Job
from service.telemetry import Telemetry
from tests.service.houses import TRAINER, House, trainer
from tests.service.processes import until
from tests.service.worlds import interactions
from tests.support.artifacts import World, publish_world


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch):
    monkeypatch.setattr("service.jobs.runner.BEAT", 0.1)
    monkeypatch.setattr("service.jobs.runner.LOOK", 0.05)


@pytest.fixture
def house(tmp_path, request):
    house = House(tmp_path, getattr(request, "param", "fit"))
    yield house
    house.close()


def test_a_job_trains_with_the_log_and_its_version_is_served(tmp_path, house, monkeypatch):
    monkeypatch.setenv("KDIFFE_ADMIN_KEY", "not for the trainer's eyes")
    house.state.append(interactions([("u1", "fresh"), ("new", "i3")]))
    job = house.jobs.retrain()
    phases = set()
    while house.jobs.job(job.job_id).state in UNFINISHED:
        phases.add(house.jobs.job(job.job_id).phase)
        time.sleep(0.005)
    house.state.append(interactions([("later", "i4")]))
    done = house.jobs.job(job.job_id)
    assert (done.state, done.version, done.progress, done.error) == ("succeeded", "v0002", 1.0, None)
    assert (done.base, done.sequence, done.attempts, done.log) == ("v0001", 2, 1, "attempt 1")
    assert "fit" in phases
    assert done.finished_at is not None
    assert house.store.active() == house.registry.serving == "v0002"
    model = house.registry.model
    assert model.artifact.manifest.sequence == 2
    assert model.artifact.array("item_ids").tolist()[-1] == "fresh"
    until(lambda: house.registry.model.sequence == 3)
    assert {("u1", "fresh"), ("new", "i3"), ("later", "i4")} <= model.edges()
    assert not (tmp_path / ".jobs" / job.job_id).exists()


@pytest.mark.parametrize("house", ["hold"], indirect=True)
def test_a_job_that_waits_is_taken_when_the_one_before_has_ended_and_trains_with_what_came_since(house):
    first = house.jobs.retrain()
    house.fitting(first.job_id)
    second = house.jobs.retrain()
    house.state.append(interactions([("u1", "fresh")]))
    assert house.jobs.job(second.job_id).state == "queued"
    until(lambda: house.runner.waiting == 1)
    (house.store.root / "go").touch()
    assert house.finished(first.job_id).version == "v0002"
    done = house.finished(second.job_id)
    assert (done.base, done.sequence, done.version) == ("v0002", 1, "v0003")
    assert house.registry.serving == "v0003"


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_a_cancelled_job_s_process_ends_and_the_next_one_is_taken(house):
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    (process,) = trainers_of(house.store.root)
    assert house.jobs.cancel(job.job_id).state == "cancelled"
    until(lambda: process not in trainers_of(house.store.root), 20)
    until(lambda: not (house.directory / job.job_id).exists())
    assert house.jobs.job(job.job_id).state == "cancelled"
    following = house.jobs.retrain()
    house.fitting(following.job_id)
    assert house.store.versions() == ["v0001"]


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_a_job_that_the_service_s_end_interrupts_goes_on_where_it_was(tmp_path, house):
    house.state.append(interactions([("u1", "fresh")]))
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    began = time.monotonic()
    house.close()
    assert time.monotonic() - began < 20
    waiting = house.state.job(job.job_id)
    assert (waiting.state, waiting.phase, waiting.owner, waiting.attempts) == ("queued", INTERRUPTED, "", 0)
    assert trainers_of(tmp_path) == []
    house.state.append(interactions([("u1", "later")]))  # its data reach to where they reached
    again = House(tmp_path, "fit", state=house.state, publish=False)
    try:
        done = again.finished(job.job_id)
        assert (done.state, done.sequence, done.log) == ("succeeded", 1, "attempt 1\nattempt 2")
    finally:
        again.close()


@pytest.mark.slow
def test_who_was_erased_meanwhile_is_in_no_row_of_the_attempt_that_follows(tmp_path):
    house = House(tmp_path, "sleeping")
    house.state.append(interactions([("gone", "i3"), ("u1", "fresh")]))
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    house.close()
    house.state.append([Change("erasure", "gone")])
    again = House(tmp_path, "sleeping", state=house.state, publish=False)
    try:
        until(lambda: again.jobs.log(job.job_id).count("attempt") == 2, 30)
        told = (tmp_path / ".jobs" / job.job_id / "interactions.jsonl").read_text()
        lines = [json.loads(line) for line in told.splitlines()]
        # The erasure itself is told, since the version that is retrained may have rows of the user's.
        assert [(line["kind"], line["user_id"]) for line in lines] == [("interaction", "u1"), ("erasure", "gone")]
        assert again.jobs.job(job.job_id).sequence == 3
        assert again.jobs.log(job.job_id).splitlines() == ["attempt 1", "attempt 1"]  # no checkpoint was left
    finally:
        again.close()


# The tests' own training process for a log with erasures: it has the new users alone that were not erased.
WITHOUT_ERASURES = """
import json, runpy, sys
from pathlib import Path
told = Path(sys.argv[sys.argv.index("--interactions") + 1])
lines = told.read_text().splitlines(True)
told.write_text("".join(line for line in lines if json.loads(line)["kind"] != "erasure"))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def forgetting(mode: str) -> Command:
    command = trainer(mode)
    return lambda order: [sys.executable, "-c", WITHOUT_ERASURES, *command(order)[1:]]


@pytest.fixture
def forgetful(tmp_path, request):
    house = House(tmp_path, command=forgetting(getattr(request, "param", "fit")))
    yield house
    house.close()


def users_of(house: House, version: str) -> set[str]:
    return set(house.store.open(version).array("user_ids").tolist())


@pytest.mark.parametrize("forgetful", ["hold"], indirect=True)
def test_no_version_with_a_user_who_was_erased_while_it_was_trained_is_kept(forgetful):
    house = forgetful
    house.state.append(interactions([("gone", "i3"), ("new", "i4")]))
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    house.state.append([Change("erasure", "gone")])
    (house.store.root / "go").touch()
    done = house.finished(job.job_id)
    assert (done.state, done.phase, done.version, done.sequence) == ("succeeded", "done", "v0003", 3)
    assert done.log == "attempt 1\nattempt 1"  # without the first one's checkpoint
    assert house.store.versions() == ["v0001", "v0003"]
    assert "gone" not in users_of(house, "v0003")
    assert "new" in users_of(house, "v0003")


@pytest.mark.parametrize("reason", ["", "worse"])
def test_nor_is_one_with_a_user_who_was_erased_while_it_was_at_the_gate(forgetful, monkeypatch, reason):
    house, looked = forgetful, []

    def gate(candidate, *_):
        if not looked:
            house.state.append([Change("erasure", "gone")])
        looked.append(candidate.version)
        return reason

    monkeypatch.setattr("service.jobs.runner.objection", gate)
    house.state.append(interactions([("gone", "i3"), ("new", "i4")]))
    done = house.finished(house.jobs.retrain().job_id)
    phase = f"not activated: {reason}" if reason else "done"
    assert (done.state, done.phase, done.version) == ("succeeded", phase, "v0003")
    assert looked == ["v0002", "v0003"]
    assert house.store.versions() == ["v0001", "v0003"]
    assert house.store.previous() == (None if reason else "v0001")  # it was never active


@pytest.mark.parametrize("forgetful", ["hold"], indirect=True)
def test_an_erased_user_whom_a_version_does_not_know_costs_no_training(forgetful):
    house = forgetful
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    house.state.append([*interactions([("stranger", "i3")]), Change("erasure", "stranger")])
    (house.store.root / "go").touch()
    done = house.finished(job.job_id)
    assert (done.phase, done.version, done.sequence, done.log) == ("done", "v0002", 0, "attempt 1")


def test_a_job_that_meets_erasures_again_and_again_fails_and_keeps_no_version(forgetful, monkeypatch):
    house, looked = forgetful, []

    def gate(candidate, *_):
        user_id = f"gone{len(looked)}"
        looked.append(candidate.version)
        house.state.append([Change("erasure", user_id), *interactions([(f"gone{len(looked)}", "i3")])])
        return ""

    monkeypatch.setattr("service.jobs.runner.objection", gate)
    house.state.append(interactions([("gone0", "i3")]))
    done = house.finished(house.jobs.retrain().job_id)
    assert len(looked) == TRAININGS
    assert (done.state, done.error) == (
        "failed",
        "Users were erased during each of 3 trainings, so none of their versions could be kept. Ask for a new job when "
        "no more erasures come.",
    )
    assert house.store.versions() == ["v0001"]
    assert not list(house.directory.iterdir())


def test_an_operator_s_version_stays_though_a_user_was_erased_while_it_was_made(forgetful, monkeypatch):
    house, looked = forgetful, []

    def gate(candidate, *_):
        if not looked:
            house.store.activate(candidate.version)
            house.state.append([Change("erasure", "gone")])
        looked.append(candidate.version)
        return ""

    monkeypatch.setattr("service.jobs.runner.objection", gate)
    house.state.append(interactions([("gone", "i3")]))
    done = house.finished(house.jobs.retrain().job_id)
    assert (done.state, done.phase) == ("succeeded", "not activated: v0002 was activated meanwhile")
    assert house.store.versions() == ["v0001", "v0002", "v0003"]


def test_a_state_that_is_away_for_moments_when_a_training_ends_loses_no_training(house, monkeypatch):
    read, refused = house.state.last_sequence, []

    def away():
        by_runner = threading.current_thread().name == "kdiffe-jobs"
        if by_runner and "v0002" in house.store.versions() and len(refused) < 2:
            refused.append(1)
            raise StateError("away")
        return read()

    monkeypatch.setattr(house.state, "last_sequence", away)
    done = house.finished(house.jobs.retrain().job_id)
    assert (done.state, done.phase, len(refused)) == ("succeeded", "done", 2)


@pytest.mark.parametrize(
    ("house", "words"),
    [("fail", "status 3: attempt 1\nout of luck"), ("silent", "did not tell its version")],
    indirect=["house"],
)
def test_a_failed_process_leaves_its_last_words(house, words):
    job = house.finished(house.jobs.retrain().job_id)
    assert job.state == "failed"
    assert words in str(job.error)
    assert "attempt 1" in job.log
    assert house.registry.serving == house.store.active() == "v0001"
    assert not list(house.directory.iterdir())  # it held the log
    assert house.jobs.retrain().job_id != job.job_id  # the next one may start


@pytest.mark.parametrize(
    ("mode", "limits", "words"),
    [
        ("sleeping", Limits(seconds=0.5), "longer than 0.5 s: raise KDIFFE_JOB_SECONDS"),
        pytest.param(
            "greedy",
            Limits(memory_mb=250),
            "250 are allowed: raise KDIFFE_JOB_MEMORY_MB",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_a_job_that_uses_more_than_it_may_fails_and_its_process_ends(tmp_path, mode, limits, words):
    house = House(tmp_path, mode, limits=limits)
    try:
        job = house.finished(house.jobs.retrain().job_id)
        assert job.state == "failed"
        assert words in str(job.error)
        assert trainers_of(tmp_path) == []
    finally:
        house.close()


@pytest.mark.parametrize("house", ["damage"], indirect=True)
def test_a_damaged_version_does_not_pass_the_gate(house):
    job = house.finished(house.jobs.retrain().job_id)
    assert (job.state, job.version) == ("succeeded", "v0002")
    assert job.phase.startswith("not activated: ")
    assert "checksum" in job.phase
    assert house.store.active() == house.registry.serving == "v0001"
    assert house.store.previous() is None  # a rollback must not bring it back


@pytest.mark.slow
@pytest.mark.parametrize(("ndcg", "served"), [("0.40", "v0003"), ("0.37", "v0002")])
def test_a_version_that_is_worse_than_the_margin_allows_is_published_and_not_activated(tmp_path, ndcg, served):
    house = House(tmp_path, command=trainer("fit", "--ndcg", "0.41"))
    assert house.finished(house.jobs.retrain().job_id).phase == "done"  # nothing to compare with
    house.close()
    house = House(tmp_path, command=trainer("fit", "--ndcg", ndcg), state=house.state, publish=False)
    try:
        job = house.finished(house.jobs.retrain().job_id)
        assert (job.state, job.version) == ("succeeded", "v0003")
        assert house.registry.serving == served
        if served == "v0002":
            assert job.phase == (
                "not activated: its validation ndcg@20 is 0.3700, v0002's is 0.4100: worse by more than 5 %"
            )
        assert "v0003" in house.store.versions()
    finally:
        house.close()


@pytest.mark.slow
def test_a_version_that_can_not_be_served_is_taken_back(tmp_path, monkeypatch):
    monkeypatch.setattr("service.jobs.runner.objection", lambda *_: "")  # what it lets pass may fail none the less
    house = House(tmp_path, "damage")
    try:
        job = house.finished(house.jobs.retrain().job_id)
        assert job.state == "failed"
        assert "checksum" in str(job.error)
        assert house.store.active() == house.registry.serving == "v0001"
        assert house.store.previous() is None
    finally:
        house.close()


@pytest.mark.parametrize("house", ["hold"], indirect=True)
def test_a_version_that_was_activated_while_the_job_ran_stays(house):
    publish_world(house.store.root, activate=False)
    house.store.activate("v0002")
    house.registry.wait_version("v0002", 30)
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    assert house.store.rollback().active == "v0001"
    (house.store.root / "go").touch()
    done = house.finished(job.job_id)
    assert (done.state, done.version, done.error) == ("succeeded", "v0003", None)
    assert done.phase == "not activated: v0001 was activated meanwhile"
    assert house.store.active() == "v0001"


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
@pytest.mark.parametrize("folder", [True, False], ids=["the same host", "another host"])
def test_a_roll_back_that_is_older_than_a_job_s_second_attempt_stays(tmp_path, house, folder):
    publish_world(house.store.root, activate=False)
    house.store.activate("v0002")
    house.registry.wait_version("v0002", 30)
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    house.close()
    assert house.store.rollback().active == "v0001"
    if not folder:
        shutil.rmtree(house.directory / job.job_id)
    again = House(tmp_path, state=house.state, publish=False)
    try:
        done = again.finished(job.job_id)
        assert (done.state, done.base, done.version) == ("succeeded", "v0002", "v0003")
        assert done.phase == "not activated: v0001 was activated meanwhile"
        assert again.store.active() == "v0001"
    finally:
        again.close()


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_a_second_attempt_s_version_takes_the_place_of_the_active_one_though_another_was_served(tmp_path, house):
    publish_world(house.store.root, activate=False)
    path = house.store.root / "v0002" / "item_embeddings.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")  # it can be activated, and not be loaded
    house.store.activate("v0002")
    job = house.jobs.retrain()
    assert house.fitting(job.job_id).base == "v0001"
    house.close()
    assert house.store.active() == "v0002"
    rules = Rules(command=trainer("fit"), poll_interval=0.02)
    runner = Runner(house.store, house.state, house.telemetry, house.directory, served=lambda: "v0001", rules=rules)
    runner.start()
    try:
        done = house.finished(job.job_id)
        assert (done.phase, house.store.active(), house.store.previous()) == ("done", "v0003", "v0002")
    finally:
        runner.stop()


def test_a_job_that_is_cancelled_at_the_last_moment_activates_nothing(house, monkeypatch):
    told = []

    def gate(*_):
        told.append(house.jobs.cancel(house.jobs.jobs()[0].job_id))
        return ""

    monkeypatch.setattr("service.jobs.runner.objection", gate)
    job = house.finished(house.jobs.retrain().job_id)
    until(lambda: not (house.directory / job.job_id).exists(), 20)
    assert [one.state for one in told] == [house.jobs.job(job.job_id).state] == ["cancelled"]
    assert (house.store.versions(), house.store.active()) == (["v0001", "v0002"], "v0001")


def test_nothing_is_put_in_force_before_the_state_knows_that_it_can_not_be_cancelled(house, monkeypatch):
    update, active = house.state.update_job, []

    def away(job, **conditions):
        if job.phase == SWAP and len(active) < 3:
            active.append(house.store.active())
            raise StateError("away")
        return update(job, **conditions)

    monkeypatch.setattr(house.state, "update_job", away)
    job = house.finished(house.jobs.retrain().job_id)
    assert (job.state, job.phase) == ("succeeded", "done")
    assert active == ["v0001"] * 3
    assert house.store.active() == "v0002"


def test_who_activates_another_version_while_a_job_s_is_being_loaded_has_the_last_word(house, monkeypatch):
    def roll_back(version: str) -> None:
        house.store.rollback()
        until(lambda: house.registry.serving == "v0001")
        house.registry.wait_version(version, 30)

    monkeypatch.setattr(house.runner, "_wait_served", roll_back)
    job = house.finished(house.jobs.retrain().job_id)
    assert (job.state, job.phase) == ("succeeded", "not activated: v0001 was activated meanwhile")
    assert (house.store.active(), house.store.previous()) == ("v0001", None)


@pytest.mark.parametrize("house", ["hold"], indirect=True)
def test_a_version_is_not_put_in_force_by_itself_while_an_experiment_compares_the_active_one(house):
    job = house.jobs.retrain()
    house.fitting(job.job_id)
    begun = house.store.set_experiment("x", [Arm("control", "v0001", 0.5)])
    (house.store.root / "go").touch()
    done = house.finished(job.job_id)
    assert (done.state, done.version, done.error) == ("succeeded", "v0002", None)
    assert done.phase == "not activated: the experiment 'x' compares v0001 with others"
    assert (house.store.active(), house.store.experiment()) == ("v0001", begun.after.experiment)


@pytest.mark.slow
def test_what_every_version_holds_is_dropped_from_the_log_where_that_is_wanted(tmp_path):
    house = House(tmp_path, compacting=True)

    def retrain(compacted: int) -> None:
        assert house.finished(house.jobs.retrain().job_id).state == "succeeded"
        until(lambda: house.state.position().compacted == compacted)

    try:
        house.state.append(interactions([("u1", "fresh"), ("new", "i3")]))
        retrain(0)  # the first version is still there to be activated
        house.state.append(interactions([("u1", "i5")]))
        retrain(0)
        assert house.store.prune(2) == ["v0001"]
        retrain(2)
    finally:
        house.close()


# ---- whose job it is -------------------------------------------------------------------------------------------------


def owner_that_has_ended() -> str:
    code = "from service.jobs.owner import this_process; print(this_process())"
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("owner", "silent_for"),
    [("", 1e9), ("other-machine/pid:[1]/7/8", LEASE + 1), ("ended", 0.0)],
    ids=["the first release's", "another machine's, silent for too long", "a process that has ended"],
)
def test_a_job_that_nobody_runs_any_more_is_taken_again_so_often(owner, silent_for):
    owner = owner_that_has_ended() if owner == "ended" else owner
    beat = time.time() - silent_for if owner else None
    state = MemoryState()
    state.add_job(Job("old", "running", 1.0, "v0001", 7, owner=owner, heartbeat_at=beat, attempts=ATTEMPTS - 1))
    left = give_up(state, state.job("old"))
    assert (left.state, left.owner, left.phase, left.sequence) == ("queued", "", INTERRUPTED, 7)
    taken = replace(state.take_job(owner, 1.0), heartbeat_at=beat)
    assert taken.attempts == ATTEMPTS
    state.update_job(taken)
    failed = give_up(state, taken)
    assert (failed.state, failed.error) == (
        "failed",
        "The process that ran the job has ended 3 times. Look at its log, then ask for a new one.",
    )
    assert state.job("old") == failed == give_up(state, failed)


@pytest.mark.parametrize("owner", ["other-machine/pid:[1]/7/8", "mine"])
def test_a_job_that_another_process_runs_is_left_alone(house, owner):
    owner = this_process() if owner == "mine" else owner
    running = Job("theirs", "running", 1.0, "v0001", 0, owner=owner, heartbeat_at=time.time() - LEASE / 2)
    house.state.add_job(running)
    waiting = house.jobs.retrain()
    time.sleep(0.3)  # several looks
    assert house.jobs.job("theirs") == running
    assert house.jobs.job(waiting.job_id).state == "queued"


@pytest.fixture
def beside(house):
    """What a service tells that runs no jobs itself, on the state of one that does."""
    telemetry = Telemetry()
    runner = Runner(house.store, house.state, telemetry, house.directory, served=lambda: "v0001", training=False)
    runner.start()
    yield telemetry
    runner.stop()


def tells_end(telemetry: Telemetry, job: Job) -> bool:
    """Whether the last job that is told to have ended as this one is this one."""
    name = "kdiffe_job_ended_timestamp_seconds"
    return telemetry.registry.get_sample_value(name, {"state": job.state}) == job.finished_at


@pytest.mark.parametrize("house", ["fail"], indirect=True)
def test_how_jobs_end_is_told_where_they_don_t_run(house, beside):
    failed = house.finished(house.jobs.retrain().job_id)
    until(lambda: tells_end(beside, failed))
    assert "kdiffe_job_running 0.0" in beside.exposition().decode()


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_that_a_job_runs_and_is_cancelled_is_told_wherever_it_does(house, beside):
    job = house.fitting(house.jobs.retrain().job_id)
    for telemetry in (house.telemetry, beside):
        until(lambda telemetry=telemetry: "kdiffe_job_running 1.0" in telemetry.exposition().decode())
    cancelled = house.jobs.cancel(job.job_id)
    for telemetry in (house.telemetry, beside):
        until(lambda telemetry=telemetry: tells_end(telemetry, cancelled))


def test_a_job_that_is_given_up_for_good_is_told_as_a_failed_one(house):
    lost = Job("lost", "running", 1.0, "v0001", 0, owner="other/pid:[1]/7/8", heartbeat_at=1.0, attempts=ATTEMPTS)
    house.state.add_job(lost)
    until(lambda: house.state.job("lost").state == "failed")
    until(lambda: tells_end(house.telemetry, house.state.job("lost")))


@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_a_job_that_another_process_has_taken_keeps_its_files(house):
    job = house.jobs.retrain()
    taken = replace(house.fitting(job.job_id), owner="somebody", heartbeat_at=time.time() + 1e6)
    while not house.state.update_job(taken) or house.state.job(job.job_id).owner != "somebody":
        pass
    until(lambda: trainers_of(house.store.root) == [], 20)
    house.close()
    assert house.state.job(job.job_id).owner == "somebody"
    assert (house.directory / job.job_id / "interactions.jsonl").exists()


@pytest.mark.slow
@pytest.mark.parametrize("house", ["sleeping"], indirect=True)
def test_a_running_job_gives_signs_of_life_and_its_last_words(house):
    job = house.fitting(house.jobs.retrain().job_id)
    assert job.owner == this_process()
    until(lambda: house.jobs.job(job.job_id).heartbeat_at > job.heartbeat_at)
    until(lambda: house.jobs.job(job.job_id).log == "attempt 1")


def test_folders_of_jobs_that_have_ended_are_removed_and_others_kept(tmp_path):
    state = MemoryState()
    state.add_job(Job("old", "failed", 1.0, "v0001", 0))
    for name in ("old", "of-another-state"):
        (tmp_path / ".jobs" / name).mkdir(parents=True)
        (tmp_path / ".jobs" / name / "interactions.jsonl").write_text("{}")
    house = House(tmp_path, state=state)
    house.close()
    assert [path.name for path in (tmp_path / ".jobs").iterdir()] == ["of-another-state"]


SERVICE = """
import sys, time
from pathlib import Path
from service.state.sqlite import SqliteState
from tests.service.houses import House
root = Path(sys.argv[1])
house = House(root, "sleeping", state=SqliteState(root / "state.sqlite3"))
house.fitting(house.jobs.retrain().job_id)
print("running", flush=True)
time.sleep(60)
"""


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's signal is Linux's")
def test_a_service_that_is_killed_leaves_no_training_behind_and_the_next_one_goes_on(tmp_path):
    from service.state.sqlite import SqliteState

    process = subprocess.Popen([sys.executable, "-c", SERVICE, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert "running\n" in iter(process.stdout.readline, "")  # after some lines of logs
    assert len(trainers_of(tmp_path)) == 1
    process.kill()
    process.wait()
    process.stdout.close()
    until(lambda: not trainers_of(tmp_path), 20)
    state = SqliteState(tmp_path / "state.sqlite3")
    house = House(tmp_path, "fit", state=state, publish=False)
    try:
        (job,) = state.jobs()
        done = house.finished(job.job_id)
        assert (done.state, done.attempts, done.version) == ("succeeded", 2, "v0002")
        assert done.log == "attempt 1\nattempt 2"
    finally:
        house.close()
        state.close()


def trainers_of(store: Path) -> list[int]:
    """Training processes of a store."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            words = (path / "cmdline").read_bytes().split(b"\0")
            if str(store).encode() in words and str(TRAINER).encode() in words:
                found.append(int(path.name))
        except OSError:
            continue
    return found


def test_a_store_without_a_version_has_nothing_to_retrain(tmp_path):
    from model_store.store import ModelStore

    with pytest.raises(NotReadyError, match="nothing to retrain"):
        active_version(ModelStore(tmp_path))
    publish_world(tmp_path)
    assert active_version(ModelStore(tmp_path)) == "v0001"


def test_a_job_waits_while_no_model_is_loaded(house, monkeypatch):
    loaded = house.runner._served

    def loading():
        raise NotReadyError("The model is being loaded. Try again in a moment.")

    monkeypatch.setattr(house.runner, "_served", loading)
    time.sleep(0.1)  # what the runner's thread had begun before
    job = house.jobs.retrain()
    time.sleep(0.2)  # ten looks
    assert house.jobs.job(job.job_id).state == "queued"
    monkeypatch.setattr(house.runner, "_served", loaded)
    assert (house.finished(job.job_id).state, house.registry.serving) == ("succeeded", "v0002")


def test_a_retrain_takes_the_place_of_a_damaged_active_version(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1))
    path = tmp_path / "v0002" / "item_embeddings.npy"
    path.write_bytes(path.read_bytes()[:-4])
    house = House(tmp_path, publish=False)
    assert house.registry.serving == "v0001"
    job = house.finished(house.jobs.retrain().job_id)
    assert (job.state, job.phase, job.base, job.version) == ("succeeded", "done", "v0001", "v0003")
    assert house.store.active() == house.registry.serving == "v0003"
    house.close()
