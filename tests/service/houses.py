"""A store, a state, a registry, a runner and jobs, whose training process is the tests' own."""

from __future__ import annotations

import sys
from pathlib import Path

from model_store.store import ModelStore
from service.index.exact import ExactIndex
from service.jobs.jobs import Jobs
from service.jobs.runner import Rules, Runner
from service.jobs.training_process import Command, Limits, train_command
from service.live.registry import Registry
from service.state.memory import MemoryState
from service.state.port import UNFINISHED, Job, StateStore
from service.telemetry import Telemetry
from tests.service.processes import until
from tests.support.artifacts import publish_world

TRAINER = Path(__file__).with_name("trainer.py")


def trainer(mode: str, *more: str) -> Command:
    """The command of the tests' own training process."""
    return lambda order: [sys.executable, str(TRAINER), *train_command(order)[4:], "--mode", mode, *more]


class House:
    """All that runs a job, in this process."""

    def __init__(
        self,
        root: Path,
        mode: str = "fit",
        *,
        command: Command | None = None,
        limits: Limits | None = None,
        state: StateStore | None = None,
        publish: bool = True,
        compacting: bool = False,
    ) -> None:
        if publish:
            publish_world(root)
        self.state = state or MemoryState()
        self.store = ModelStore(root)
        self.registry = Registry(
            self.store, self.state, ExactIndex, refresh_every=10, poll_interval=0.01, version_interval=0.02
        )
        self.registry.start()
        assert self.registry.wait_ready(110)
        self.telemetry = Telemetry()
        self.directory = root / ".jobs"
        self.runner = Runner(
            self.store,
            self.state,
            self.telemetry,
            self.directory,
            served=lambda: self.registry.model.version,
            wait_served=lambda version: self.registry.wait_version(version, 30),
            rules=Rules(
                command=command or trainer(mode), limits=limits or Limits(), compacting=compacting, poll_interval=0.02
            ),
        )
        self.jobs = Jobs(self.state, self.directory, wake=self.runner.wake, served=lambda: self.registry.model.version)
        self.runner.start()

    def finished(self, job_id: str) -> Job:
        until(lambda: self.jobs.job(job_id).state not in UNFINISHED, 30)
        return self.jobs.job(job_id)

    def fitting(self, job_id: str) -> Job:
        """The job, once its process trains."""
        until(lambda: self.jobs.job(job_id).phase == "fit", 30)
        return self.jobs.job(job_id)

    def close(self) -> None:
        self.runner.stop()
        self.registry.stop()
