"""Retrain jobs as a client sees them: asked for, listed, cancelled, with the last words of their training.

Who runs them is another matter: `service.jobs.runner`.
"""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

from service.errors import JobEndedError, JobRunningError, TrainingUnavailableError, UnknownJobError
from service.jobs.runner import SWAP, give_up
from service.jobs.training_process import log_of, tail
from service.state.port import UNFINISHED, Job, StateStore

# Seconds until an activated version is served.
SWAP_TIMEOUT = 600.0


def training_installed() -> bool:
    """Whether this installation can train. torch is looked for, never loaded."""
    return importlib.util.find_spec("torch") is not None


class Jobs:
    """The jobs of a state."""

    def __init__(
        self,
        state: StateStore,
        directory: Path,
        *,
        wake: Callable[[], None],
        served: Callable[[], str],
        training: bool = True,
    ) -> None:
        """Ask for jobs.

        Args:
            state: where they are kept.
            directory: where those that run on this machine have their files.
            wake: tells whoever runs jobs here that one is queued.
            served: names the served version; raises where there is none.
            training: whether jobs are run here or by a trainer.
        """
        self._state = state
        self._directory = directory
        self._wake = wake
        self._served = served
        self._training = training

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            UnknownJobError: there is no such job.
        """
        job = self._state.job(job_id)
        if job is None:
            raise UnknownJobError(f"No job {job_id!r}. GET /admin/jobs lists them.")
        return give_up(self._state, job)

    def jobs(self) -> list[Job]:
        """Jobs, the newest first."""
        return [give_up(self._state, job) for job in self._state.jobs()]

    def log(self, job_id: str) -> str:
        """The last words of a job's training: of this moment where it runs on this machine, seconds old elsewhere.

        Raises:
            UnknownJobError: there is no such job.
        """
        job = self.job(job_id)
        return tail(log_of(self._directory / job.job_id)) or job.log

    def retrain(self) -> Job:
        """Ask for a job that retrains the served version with all of the log; it waits while another one runs.

        Raises:
            TrainingUnavailableError: nobody would run it.
            NotReadyError: no version is served.
            JobRunningError: another one waits already.
        """
        if not self._training:
            raise TrainingUnavailableError(
                "Training is not installed beside this service: pip install 'kdiffe[training]', or run `kdiffe "
                "trainer` on a machine that has it and set KDIFFE_TRAINER=elsewhere here."
            )
        base = self._served()
        for job in self._state.jobs(10):
            give_up(self._state, job)
        wanted = Job(uuid4().hex[:12], "queued", time.time(), base, self._state.last_sequence(), phase="queued")
        job = self._state.add_job(wanted)
        if job.job_id != wanted.job_id:
            raise JobRunningError(f"Job {job.job_id} is {job.state}: GET /admin/jobs/{job.job_id} tells how far it is.")
        self._wake()
        return job

    def cancel(self, job_id: str) -> Job:
        """Cancel a job that waits or runs: its process ends within seconds, nothing is activated.

        Raises:
            UnknownJobError: there is no such job.
            JobEndedError: it has ended, or its version is being put in force.
        """
        cancelled = replace(self.job(job_id), state="cancelled", phase="cancelled", finished_at=time.time())
        # In one step: either it is cancelled, or whoever runs it has begun to put its version in force.
        if self._state.update_job(cancelled, unless_phase=SWAP):
            return cancelled
        job = self.job(job_id)
        if job.state in UNFINISHED:
            raise JobEndedError(f"Job {job_id} is putting {job.version} in force: roll back instead.")
        raise JobEndedError(f"Job {job_id} has ended: it is {job.state}.")
