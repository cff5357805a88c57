"""Retrain jobs: one at a time, each a process of its own that trains and publishes; the service then swaps it in."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import structlog

from model_store.errors import KDiffEError
from model_store.store import ModelStore
from service.errors import JobFailedError, JobRunningError, ServiceError, TrainingUnavailableError, UnknownJobError
from service.registry import Registry
from service.state.port import UNFINISHED, Job, StateStore
from service.telemetry import Telemetry

# What the serving process limits for itself; training uses all cores.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
STOPPED = "The service stopped while the job was running. Ask for a new one."
# Characters of the training's log that a failed job keeps.
TAIL = 4000
SWAP_TIMEOUT = 600.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Order:
    """What a training process is told.

    Attributes:
        base: the version to retrain.
        store: the model store's directory.
        interactions: the log as JSON lines.
        sequence: the log's last sequence number in that file.
        state_id: the log's name.
        progress: the file that the process keeps its progress in.
    """

    base: str
    store: Path
    interactions: Path
    sequence: int
    state_id: str
    progress: Path


def train_command(order: Order) -> list[str]:
    """The command of a training process."""
    return [
        *(sys.executable, "-m", "model_store", "train"),
        *("--base", order.base),
        *("--store", str(order.store)),
        *("--interactions", str(order.interactions)),
        *("--sequence", str(order.sequence)),
        *("--state-id", order.state_id),
        *("--progress-file", str(order.progress)),
        *("--run-dir", str(order.progress.parent / "run")),
        *("--no-activate", "--refit", "--json"),
    ]


class Jobs:
    """Starts, watches and ends retrain jobs."""

    def __init__(
        self,
        store: ModelStore,
        state: StateStore,
        registry: Registry,
        telemetry: Telemetry,
        directory: Path,
        *,
        command: Callable[[Order], Sequence[str]] | None = None,
        poll_interval: float = 0.5,
    ) -> None:
        """Run jobs; call `start`.

        Args:
            store: where versions are published and activated.
            state: where the log and the jobs are kept.
            registry: swaps the new version in.
            telemetry: counts jobs.
            directory: each job gets a directory of its own in it.
            command: the training process's command; kdiffe's own where None.
            poll_interval: seconds between looks at a job's progress.
        """
        self._store = store
        self._state = state
        self._registry = registry
        self._telemetry = telemetry
        self._directory = directory
        self._command = command
        self._poll = poll_interval
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Close the books on jobs that were running when the service last stopped."""
        for job in self._state.jobs():
            if job.state in UNFINISHED:
                self._state.update_job(replace(job, state="failed", error=STOPPED, finished_at=time.time()))

    def stop(self) -> None:
        """End the running job's process."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            UnknownJobError: there is no such job.
        """
        job = self._state.job(job_id)
        if job is None:
            raise UnknownJobError(f"No job {job_id!r}. GET /admin/jobs lists them.")
        return job

    def jobs(self) -> list[Job]:
        """Jobs, the newest first."""
        return self._state.jobs()

    def retrain(self) -> Job:
        """Start a job that retrains the served version with all of the log.

        Raises:
            TrainingUnavailableError: the training extra is not installed.
            NotReadyError: no version is served.
            JobRunningError: a job is running already.
        """
        if self._command is None and importlib.util.find_spec("torch") is None:
            raise TrainingUnavailableError(
                "Training is not installed beside this service: pip install 'kdiffe[training]', or train elsewhere "
                "(kdiffe train --store) and activate the version."
            )
        base = self._registry.model.version
        wanted = Job(uuid4().hex[:12], "queued", time.time(), base, self._state.last_sequence(), phase="queued")
        job = self._state.add_job(wanted)
        if job.job_id != wanted.job_id:
            raise JobRunningError(f"Job {job.job_id} is {job.state}: GET /admin/jobs/{job.job_id} tells how far it is.")
        self._thread = threading.Thread(target=self._run, args=(job,), name=f"kdiffe-job-{job.job_id}", daemon=True)
        self._thread.start()
        return job

    # ---- inside --------------------------------------------------------------------------------------------------

    def _run(self, job: Job) -> None:
        directory = self._directory / job.job_id
        self._telemetry.job_running.set(1)
        logger = log.bind(job_id=job.job_id)
        try:
            job = self._update(job, state="running", phase="export")
            directory.mkdir(parents=True)
            job = self._train(job, directory)
            job = self._update(job, progress=1.0, phase="swap")
            self._put_in_force(str(job.version))
            shutil.rmtree(directory, ignore_errors=True)
            job = self._update(job, state="succeeded", phase="done", finished_at=time.time())
            logger.info("job succeeded", version=job.version)
        except Exception as error:  # a job's failure is the job's, not the service's
            message = STOPPED if self._stop.is_set() else str(error)
            if not isinstance(error, KDiffEError):
                logger.exception("job failed")
                message = f"{type(error).__name__}: {error}"
            logger.error("job failed", error=message)
            try:
                job = self._update(job, state="failed", error=message, finished_at=time.time())
            except KDiffEError as lost:
                logger.error("job's end can't be written", error=str(lost))
        finally:
            self._telemetry.job_ended(job.state)
            self._telemetry.job_running.set(0)

    def _update(self, job: Job, **changes: object) -> Job:
        job = replace(job, **changes)  # type: ignore[arg-type]
        self._state.update_job(job)
        return job

    def _train(self, job: Job, directory: Path) -> Job:
        """Export the log, run the training process, follow its progress. The job with the version it published."""
        order = Order(
            base=job.base,
            store=self._store.root.absolute(),
            interactions=directory / "interactions.jsonl",
            sequence=job.sequence,
            state_id=self._state.state_id,
            progress=directory / "progress.json",
        )
        self._state.export(order.interactions, job.sequence)
        # Training needs neither the server's thread limits nor its secrets.
        hidden = {*THREAD_VARIABLES, "KDIFFE_ADMIN_KEY"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        # OpenMP's idle threads sleep instead of spinning: beside a busy core, spinning made a small set's epochs 2 to 4
        # times slower (alone on two cores it makes them 1.5 to 2 times faster).
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        out, errors = directory / "stdout.txt", directory / "log.txt"
        command = list((self._command or train_command)(order))
        with out.open("wb") as stdout, errors.open("wb") as stderr:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
            try:
                while process.poll() is None:
                    if self._stop.wait(self._poll):
                        raise JobFailedError(STOPPED)
                    job = self._follow(job, order.progress)
            finally:
                _end(process)
        if process.returncode != 0:
            raise JobFailedError(f"Training ended with status {process.returncode}: {_tail(errors)}")
        lines = out.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        try:
            version = json.loads(lines[-1])["version"]
        except (IndexError, ValueError, KeyError, TypeError):
            raise JobFailedError(f"Training did not tell its version: {_tail(out) or 'no output'}") from None
        return self._update(job, version=str(version))

    def _follow(self, job: Job, path: Path) -> Job:
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            progress = min(max(float(found["progress"]), 0.0), 1.0)
            phase = str(found.get("phase", "train"))
        except (OSError, ValueError, KeyError, TypeError):
            return job  # not there yet
        if (progress, phase) == (job.progress, job.phase):
            return job
        return self._update(job, progress=progress, phase=phase)

    def _put_in_force(self, version: str) -> None:
        """Activate a version and wait until it is served; a version that can't be served is taken back."""
        previous = self._store.active()
        self._store.activate(version)
        try:
            self._registry.wait_version(version, SWAP_TIMEOUT)
        except ServiceError:
            if previous is not None and self._store.active() == version and not self._stop.is_set():
                self._store.rollback()  # and not `activate`: a later rollback must not bring the bad version back
            raise


def _end(process: subprocess.Popen[bytes]) -> None:
    """Terminate a process and all that it started."""
    for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
        if process.poll() is not None:
            return
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(patience)
        except subprocess.TimeoutExpired:
            continue


def _tail(path: Path) -> str:
    return path.read_bytes()[-TAIL:].decode(errors="replace").strip()
