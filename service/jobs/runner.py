"""Runs retrain jobs: takes the one that is queued, trains, lets the new version through the gate, puts it in force.

Every worker and every trainer has a runner, and one job runs at a time for all of a state: who takes it is its owner,
gives signs of life, and loses it when there are none. An interrupted job is queued again and goes on from its
checkpoint, so nothing is lost with the process that ran it.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import structlog

from model_store.artifact import Artifact
from model_store.errors import ArtifactError, KDiffEError, StoreError
from model_store.store import ModelStore
from service.compaction import compact
from service.errors import JobFailedError, JobInterruptedError, NotReadyError, ServiceError, StateError
from service.jobs.gate import objection
from service.jobs.owner import runs, this_process
from service.jobs.schedule import Schedule
from service.jobs.training_process import (
    Command,
    Limits,
    Order,
    TrainingProcess,
    clear,
    interactions_of,
    log_of,
    run_of,
    tail,
    train_command,
)
from service.settings import Settings
from service.state.lines import entries_between
from service.state.port import UNFINISHED, Job, StateStore
from service.telemetry import Telemetry

INTERRUPTED = "interrupted; goes on where a service or a trainer runs"
TAKEN = "The job was taken from the process that ran it."
EXHAUSTED = "The process that ran the job has ended {attempts} times. Look at its log, then ask for a new one."
ERASED = (
    "Users were erased during each of {trainings} trainings, so none of their versions could be kept. Ask for a new "
    "job when no more erasures come."
)
# Seconds between a job's signs of life, and without one until it is given up where nobody can look at its process.
BEAT, LEASE = 5.0, 60.0
# Seconds between looks at whether a running job was cancelled, and between looks at the schedule and at all jobs.
LOOK = 1.0
# How many jobs are looked at: at the start, so that it is known how earlier ones have ended, and then.
FIRST_LOOKED_AT, LOOKED_AT = 100, 10
# How often a job is taken whose process ends (of an out-of-memory kill, say) before it has failed.
ATTEMPTS = 3
# How often an attempt trains where users are erased meanwhile, each time with the data of then.
TRAININGS = 3
# Seconds for which the state is asked who was erased, and told of a job's swap and its end, while it does not answer.
END_PATIENCE = 120.0
SWAP = "swap"

Answer = TypeVar("Answer")

log = structlog.get_logger(__name__)


def give_up(state: StateStore, job: Job) -> Job:
    """A job as it stands; one that nobody runs any more is queued again, and has failed after so many attempts."""
    if job.state != "running":
        return job
    running = runs(job.owner)
    if running is None:
        running = job.heartbeat_at is not None and time.time() - job.heartbeat_at < LEASE
    if running:
        return job
    if job.attempts >= ATTEMPTS:
        error = EXHAUSTED.format(attempts=job.attempts)
        left = replace(job, state="failed", error=error, finished_at=time.time())
    else:
        left = replace(job, state="queued", owner="", phase=INTERRUPTED)
    if not state.update_job(left, owned_by=job.owner):
        return state.job(job.job_id) or job  # it has ended, or was taken, meanwhile
    log.warning("job given up: its process is gone", job_id=job.job_id, owner=job.owner, now=left.state)
    return left


@dataclass(frozen=True)
class Rules:
    """How jobs are run.

    Attributes:
        command: the training process's command.
        limits: what it may use.
        margin: by which share of the active version's a new version's validation metrics may be lower.
        compacting: whether a job that has succeeded drops from the log what every version holds.
        poll_interval: seconds between looks at the process, and at the queue.
    """

    command: Command = train_command
    limits: Limits = field(default_factory=Limits)
    margin: float = 0.05
    compacting: bool = False
    poll_interval: float = 0.5


def job_rules(settings: Settings, command: Command | None = None) -> Rules:
    """How jobs are run, by the settings."""
    return Rules(
        command=command or train_command,
        limits=Limits(settings.job_seconds, settings.job_memory_mb),
        margin=settings.gate_margin,
        compacting=settings.compact,
    )


def schedule_of(settings: Settings, store: ModelStore, state: StateStore) -> Schedule | None:
    """When a retrain is due by itself, None where none ever is."""
    if not settings.retrain_cron and not settings.retrain_interactions:
        return None
    return Schedule(store, state, settings.retrain_cron, settings.retrain_interactions)


class Runner:
    """A thread that runs jobs, and one that looks after those of the whole state, whoever runs them."""

    def __init__(
        self,
        store: ModelStore,
        state: StateStore,
        telemetry: Telemetry,
        directory: Path,
        *,
        served: Callable[[], str],
        wait_served: Callable[[str], None] | None = None,
        rules: Rules | None = None,
        schedule: Schedule | None = None,
        training: bool = True,
    ) -> None:
        """Run jobs; call `start`.

        Args:
            store: where versions are published and activated.
            state: where the log and the jobs are kept.
            telemetry: told how the state's jobs stand.
            directory: each job gets a directory of its own in it.
            served: names the version to retrain.
            wait_served: waits until an activated version is served here, and raises where it can't be; None where
                nothing is served here.
            rules: how jobs are run.
            schedule: adds jobs when they are due.
            training: whether jobs are taken here, or only looked after.
        """
        self._store = store
        self._state = state
        self._telemetry = telemetry
        self._directory = directory
        self._served = served
        self._wait_served = wait_served
        self._rules = rules or Rules()
        self._schedule = schedule
        self._owner = this_process()
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._waiting = 0
        self._threads = [threading.Thread(target=self._look, name="kdiffe-jobs-look", daemon=True)]
        if training:
            # Jobs, and the processes of jobs, live as long as this thread (see `leash`).
            self._threads.append(threading.Thread(target=self._take, name="kdiffe-jobs", daemon=True))

    def start(self) -> None:
        """Remove what ended jobs have left behind, and begin to take jobs."""
        if self._directory.is_dir():
            for path in self._directory.iterdir():
                left = self._state.job(path.name)
                if left is not None and left.state not in UNFINISHED:
                    clear(path)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Interrupt the running job: it is queued again."""
        self._stop.set()
        self._wake.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    @property
    def waiting(self) -> int:
        """How many jobs were queued when it was last looked."""
        return self._waiting

    def wake(self) -> None:
        """Tell that a job was queued."""
        self._wake.set()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _take(self) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            try:
                self._served()
                job = self._state.take_job(self._owner, time.time())
            except NotReadyError:  # the model is being loaded: the job waits until it is known what is retrained
                job = None
            except StateError as error:
                log.warning("jobs can't be taken", error=str(error))
                job = None
            if job is not None:
                self._run(job)
            else:
                self._wake.wait(self._rules.poll_interval)

    def _look(self) -> None:
        count = FIRST_LOOKED_AT
        while not self._stop.is_set():
            try:
                self._look_after(count)
                count = LOOKED_AT
            except StateError as error:
                log.warning("jobs can't be looked at", error=str(error))
            self._stop.wait(LOOK)

    def _look_after(self, count: int) -> None:
        """Give up what nobody runs, tell how the latest jobs stand, and ask for what is due."""
        jobs = [give_up(self._state, job) for job in self._state.jobs(count)]
        self._waiting = sum(job.state == "queued" for job in jobs)
        self._telemetry.jobs(jobs)
        if self._schedule is not None:
            due = self._schedule.look()
            if due is not None:
                log.info("a retrain is due", job_id=due.job_id, trigger=due.trigger)

    def _run(self, job: Job) -> None:
        logger = log.bind(job_id=job.job_id)
        run = _Run(job, self._state, self._stop)
        directory = self._directory / job.job_id
        try:
            with run.beating(directory):
                version, phase = self._train_and_activate(run, directory)
            clear(directory)  # it holds the log, so it is gone before the job is told to have ended
            run.end(state="succeeded", phase=phase)
            logger.info("job succeeded", version=version, phase=phase)
            if phase == "done" and self._rules.compacting:
                self._compact()
        except JobInterruptedError:
            logger.info("job interrupted")
            self._end(run, state="queued", owner="", phase=INTERRUPTED, attempts=run.job.attempts - 1)
        except Exception as error:  # a job's failure is the job's, not the service's
            message = str(error)
            if not isinstance(error, KDiffEError):
                logger.exception("job failed")
                message = f"{type(error).__name__}: {error}"
            logger.error("job failed", error=message)
            last = tail(log_of(directory))
            if run.has_ended() or not run.taken:  # else whoever has the job now may use them
                clear(directory)
            self._end(run, state="failed", error=message, finished_at=time.time(), log=last)

    def _end(self, run: _Run, **changes: object) -> None:
        """Tell how a job has ended, unless it was taken away."""
        try:
            run.end(**changes)
        except KDiffEError as lost:
            log.warning("job's end is not written", job_id=run.job.job_id, error=str(lost))

    def _train_and_activate(self, run: _Run, directory: Path) -> tuple[str, str]:
        """The version that was published, and how far it came."""
        directory.mkdir(parents=True, exist_ok=True)
        if run.job.phase != INTERRUPTED or not run.job.base:
            run.update(base=self._served(), sequence=self._state.last_sequence())
            active = self._store.active()
            _active_file(directory).write_text(json.dumps({"active": active}), encoding="utf-8")
        else:
            active = self._active_before(run.job, directory)
            if self._erased_since(run.job.sequence):  # the checkpoint has rows of theirs
                self._begin_anew(run, directory)
        for _ in range(TRAININGS):
            version = self._trained(run, directory)
            before = self._loadable(active) or self._loadable(run.job.base)
            reason = objection(self._store.open(version), before, self._rules.margin)
            if not self._holds_erased(version, run.job.sequence):  # asked last, as the gate takes its time
                break
            self._begin_anew(run, directory)
        else:
            raise JobFailedError(ERASED.format(trainings=TRAININGS))
        if reason:
            return version, f"not activated: {reason}"
        run.begin_swap()
        if self._put_in_force(version, active):
            return version, "done"
        running = self._store.experiment()
        if running is not None:
            return version, f"not activated: the experiment {running.name!r} compares {active} with others"
        return version, f"not activated: {self._store.active()} was activated meanwhile"

    def _loadable(self, version: str | None) -> Artifact | None:
        """A version as the gate compares with it, None where there is none or it is damaged."""
        try:
            return self._store.open(version) if version in self._store.versions() else None
        except ArtifactError as error:
            log.warning("the gate can't compare with a damaged version", version=version, error=str(error))
            return None

    def _active_before(self, job: Job, directory: Path) -> str | None:
        """What was active when an interrupted job was first taken: another one since is an operator's choice."""
        active = self._store.active()
        if active is not None and active == job.version:
            return active  # by the job itself, before it was interrupted
        try:
            kept = json.loads(_active_file(directory).read_text(encoding="utf-8"))["active"]
        except (OSError, ValueError, KeyError, TypeError):  # the folder is on another machine
            return job.base
        return None if kept is None else str(kept)

    def _trained(self, run: _Run, directory: Path) -> str:
        """The version that a training process has published."""
        run.update(phase="export")
        order = self._order(run.job, directory)
        with TrainingProcess(order, directory, self._rules.command, self._rules.limits) as process:
            while process.running():
                if self._stop.wait(self._rules.poll_interval):
                    raise JobInterruptedError(INTERRUPTED)
                run.look()
                told = process.progress()
                if told is not None and (told.progress, told.phase) != (run.job.progress, run.job.phase):
                    run.update(progress=told.progress, phase=told.phase)
            version = process.version()
        run.update(progress=1.0, phase="gate", version=version, log=tail(process.log))
        return version

    def _order(self, job: Job, directory: Path) -> Order:
        """What the training process is told, and its files; those of an attempt before are used again."""
        order = Order(
            base=job.base,
            store=self._store.root.absolute(),
            interactions=interactions_of(directory),
            sequence=job.sequence,
            state_id=self._state.state_id,
            progress=directory / "progress.json",
            trial=self._rules.margin < 1,
        )
        order.progress.unlink(missing_ok=True)
        if not order.interactions.exists():
            aside = directory / "interactions.incoming"
            self._state.export(aside, job.sequence)
            aside.rename(order.interactions)
        return order

    def _begin_anew(self, run: _Run, directory: Path) -> None:
        """Train with the data of now: what was made of a user who was erased goes, a version in use excepted."""
        version = run.job.version
        log.info("a user was erased: the training begins anew", job_id=run.job.job_id, version=version)
        if version is not None and not self._store.discard(version) and version in self._store.versions():
            log.warning("a version that holds an erased user is in use: prune it later", version=version)
        clear(run_of(directory))
        interactions_of(directory).unlink(missing_ok=True)
        # Told last: who is interrupted before it finds the erasure again.
        run.update(sequence=self._asked(self._state.last_sequence), version=None, progress=0.0)

    def _holds_erased(self, version: str, sequence: int) -> bool:
        """Whether a version knows a user who was erased after this place of the log."""
        erased = self._erased_since(sequence)
        try:
            return bool(erased) and not erased.isdisjoint(self._store.open(version).array("user_ids").tolist())
        except ArtifactError:
            return True  # one that can't be read may know everybody

    def _erased_since(self, sequence: int) -> set[str]:
        def erased() -> set[str]:
            entries = entries_between(self._state.read, sequence, self._state.last_sequence())
            return {entry.user_id for entry in entries if entry.kind == "erasure"}

        return self._asked(erased)

    def _asked(self, ask: Callable[[], Answer]) -> Answer:
        """What the state answers; a training is not lost because it is away for moments.

        Raises:
            StateError: it has not answered for too long.
            JobInterruptedError: the service stops.
        """
        deadline = time.monotonic() + END_PATIENCE
        while True:
            try:
                return ask()
            except StateError:
                if self._stop.wait(0.2):
                    raise JobInterruptedError(INTERRUPTED) from None
                if time.monotonic() > deadline:
                    raise

    def _put_in_force(self, version: str, previous: str | None) -> bool:
        """Activate a version and wait until it is served; a version that can't be served is taken back.

        Args:
            version: the new version.
            previous: the active version when the training began.

        Returns:
            Whether it is active: where another version was activated meanwhile (an operator has rolled back), or an
            experiment compares the active one with others, that stays.
        """
        change = self._store.activate(version, instead_of=previous)
        if change is None:
            return False
        try:
            if self._wait_served is not None:
                self._wait_served(version)
        except ServiceError:
            if self._store.active() != version:  # an operator was quicker
                return False
            if previous is not None and not self._stop.is_set():
                self._store.undo(change)  # a later rollback must not bring the bad version back
            raise
        return True

    def _compact(self) -> None:
        try:
            log.info("log compacted", upto=compact(self._store, self._state).compacted)
        except KDiffEError as error:  # the next job tries again
            log.error("the log can't be compacted", error=str(error))


def _active_file(directory: Path) -> Path:
    """What a job with this folder keeps of the active version when it was first taken."""
    return directory / "active.json"


def active_version(store: ModelStore) -> str:
    """The active version, for a runner where nothing is served.

    Raises:
        NotReadyError: there is none.
    """
    try:
        return store.open().version
    except (ArtifactError, StoreError) as error:
        raise NotReadyError(f"There is nothing to retrain: {error}") from None


class _Run:
    """A running job: what is known of it, kept in the state, with signs of life."""

    def __init__(self, job: Job, state: StateStore, stop: threading.Event) -> None:
        self.job = job
        self._state = state
        self._stop = stop
        self._lock = threading.Lock()
        self._taken = False
        self._looked = time.monotonic()

    def check(self) -> None:
        """Refuse to go on with a job that was cancelled, or that another process has taken.

        Raises:
            JobFailedError: it was.
        """
        if self._taken:
            raise JobFailedError(TAKEN)

    def look(self) -> None:
        """Look, now and then, whether the job is still this process's.

        Raises:
            JobFailedError: it is not.
        """
        if time.monotonic() - self._looked > LOOK:
            self._looked = time.monotonic()
            with suppress(StateError):
                found = self._state.job(self.job.job_id)
                self._taken = found is None or found.state != "running" or found.owner != self.job.owner
        self.check()

    @property
    def taken(self) -> bool:
        """Whether it is known that the job is no longer this process's."""
        return self._taken

    def has_ended(self) -> bool:
        """Whether it is known that the job has ended."""
        with suppress(StateError):
            found = self._state.job(self.job.job_id)
            return found is not None and found.state not in UNFINISHED
        return False

    def update(self, **changes: object) -> None:
        """Tell how far it is; a state that does not answer at the moment is told with the next sign of life.

        Raises:
            JobFailedError: the job was cancelled, or another process has taken it.
        """
        with self._lock:
            self.job = replace(self.job, heartbeat_at=time.time(), **changes)  # type: ignore[arg-type]
            try:
                self._taken = self._taken or not self._state.update_job(self.job, owned_by=self.job.owner)
            except StateError as error:
                log.warning("job's progress can't be written", job_id=self.job.job_id, error=str(error))
        self.check()

    def begin_swap(self) -> None:
        """Tell that its version is being put in force: from here on it can't be cancelled.

        Raises:
            StateError: the state has not answered for too long; a job may be cancelled until it knows.
            JobFailedError: the job was cancelled, or another process has taken it.
        """
        self._insist(phase=SWAP, heartbeat_at=time.time())

    def end(self, **changes: object) -> None:
        """Tell how it has ended, until the state has it.

        Raises:
            StateError: the state has not answered for too long.
            JobFailedError: the job was cancelled, or another process has taken it.
        """
        ended = changes.get("state") not in UNFINISHED
        self._insist(**{"finished_at": time.time() if ended else None, **changes})

    def _insist(self, **changes: object) -> None:
        deadline = time.monotonic() + END_PATIENCE
        with self._lock:
            owner = self.job.owner
            self.job = replace(self.job, **changes)  # type: ignore[arg-type]
            while True:
                try:
                    self._taken = self._taken or not self._state.update_job(self.job, owned_by=owner)
                    break
                except StateError:
                    if self._stop.is_set() or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        self.check()

    @contextmanager
    def beating(self, directory: Path) -> Iterator[None]:
        """Give signs of life meanwhile, with the training's last words."""
        done = threading.Event()

        def beat() -> None:
            while not done.wait(BEAT):
                with suppress(JobFailedError):  # told to the job's own thread by `check`
                    self.update(log=tail(log_of(directory)))

        thread = threading.Thread(target=beat, name=f"kdiffe-beat-{self.job.job_id}", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()
