from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from service.jobs.runner import INTERRUPTED
from service.state.port import UNFINISHED, Job
from service.state.sqlite import SqliteState
from tests.service.processes import until
from tests.support.artifacts import publish_world
from tests.test_whole_path import SMALL


class Trainer:
    """`kdiffe trainer` as a process of its own."""

    def __init__(self, store, *options: str) -> None:
        self.log = store / "trainer.log"
        command = [sys.executable, "-m", "model_store", "trainer", "--store", str(store), *options]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        until(lambda: "waiting for jobs" in self.log.read_text() or self.process.poll() is not None, 60)
        assert self.process.poll() is None, self.log.read_text()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


def test_a_trainer_takes_the_jobs_of_the_state_and_leaves_them_when_it_ends(tmp_path, monkeypatch):
    publish_world(tmp_path)
    monkeypatch.setenv("KDIFFE_JOB_SECOND", "5")
    state = SqliteState(tmp_path / "state.sqlite3")
    try:
        state.add_job(Job("j1", "queued", time.time(), "v0001", 0, phase="queued"))
        trainer = Trainer(tmp_path)
        # The world can't be retrained in truth (it was never trained), which is told as the job's own failure.
        until(lambda: state.job("j1").state not in UNFINISHED or state.job("j1").attempts == 1, 60)
        assert trainer.end() == 0
        job = state.job("j1")
        assert (job.state, job.phase) == ("queued", INTERRUPTED) or job.state == "failed"
        assert "is KDIFFE_JOB_SECONDS meant?" in trainer.log.read_text()
        assert "Traceback" not in trainer.log.read_text().split("attempt")[0]
    finally:
        state.close()


def test_without_training_it_ends_with_a_sentence(tmp_path):
    code = (
        "import importlib.util, sys; find = importlib.util.find_spec; "
        "importlib.util.find_spec = lambda name, *rest: None if name == 'torch' else find(name, *rest); "
        f"from model_store.command import main; sys.exit(main(['trainer', '--store', {str(tmp_path)!r}]))"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert "pip install 'kdiffe[service,training]'" in ended.stderr.replace("\n", " ")
    assert os.listdir(tmp_path) == []  # noqa: PTH208


@pytest.mark.slow
def test_a_version_that_a_trainer_makes_reaches_a_service_without_training(tmp_path):
    """The whole path: `kdiffe synthesize`, `train`, `serve`, `trainer`, and a retrain that is asked for over HTTP."""
    from tests.service.processes import Server

    run = lambda *words: subprocess.run(  # noqa: E731
        [sys.executable, "-m", "model_store", *words], check=True, capture_output=True, timeout=110
    )
    run("synthesize", str(tmp_path / "data"), "--users", "60", "--items", "40")
    store = tmp_path / "models"
    short = [word for value in SMALL for word in ("--set", value)]
    run("train", "--data", str(tmp_path / "data"), "--store", str(store), *short)
    server = Server(store, "--index", "exact", environment={"KDIFFE_TRAINER": "elsewhere"})
    trainer = Trainer(store)
    try:
        job_id = server.client.post("/admin/retrain").json()["job_id"]
        until(lambda: server.client.get(f"/admin/jobs/{job_id}").json()["state"] not in UNFINISHED, 100)
        job = server.client.get(f"/admin/jobs/{job_id}").json()
        assert (job["state"], job["version"]) == ("succeeded", "v0002"), job
        assert server.client.get(f"/admin/jobs/{job_id}/log").json()["log"]
        told = re.compile(r'kdiffe_job_ended_timestamp_seconds{state="succeeded"} (\S+)')
        until(lambda: float(told.search(server.client.get("/metrics").text)[1]) == job["finished_at"])
        if job["phase"] == "done":
            until(lambda: server.client.get("/health/ready").json()["model_version"] == "v0002", 30)
    finally:
        trainer.end()
        server.end(signal.SIGTERM)
