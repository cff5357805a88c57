"""What the service asks of a state store: the interaction log, and the jobs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
UNFINISHED: tuple[JobState, ...] = ("queued", "running")


@dataclass(frozen=True)
class Interaction:
    """What a user did, as a client told it.

    Attributes:
        user_id: external id.
        item_id: external id.
        timestamp: seconds since 1970.
        type: kind of interaction; every kind counts alike.
        event_id: idempotency key; one that is in the log already is not taken again. None: always taken.
    """

    user_id: str
    item_id: str
    timestamp: float
    type: str = "interaction"
    event_id: str | None = None


@dataclass(frozen=True)
class LoggedInteraction:
    """An interaction and its place in the log.

    Attributes:
        sequence: 1, 2, 3, … without gaps.
        user_id: external id.
        item_id: external id.
        timestamp: seconds since 1970.
        type: kind of interaction.
        event_id: idempotency key.
    """

    sequence: int
    user_id: str
    item_id: str
    timestamp: float
    type: str = "interaction"
    event_id: str | None = None


@dataclass(frozen=True)
class Appended:
    """What became of a batch.

    Attributes:
        accepted: how many interactions are new in the log.
        duplicates: how many were in it already.
        sequence: the log's last sequence number once the batch was in it.
    """

    accepted: int
    duplicates: int
    sequence: int


@dataclass(frozen=True)
class Job:
    """A retrain job.

    Attributes:
        job_id: its name.
        state: where it stands.
        created_at: seconds since 1970.
        base: the version that it retrains.
        sequence: the log's sequence number up to which it trains.
        progress: 0 to 1.
        phase: what it is doing.
        version: the version that it published.
        error: why it failed.
        finished_at: seconds since 1970.
    """

    job_id: str
    state: JobState
    created_at: float
    base: str
    sequence: int
    progress: float = 0.0
    phase: str = ""
    version: str | None = None
    error: str | None = None
    finished_at: float | None = None


class StateStore(Protocol):
    """The system of record of what arrived after the artifact was trained. Safe for several threads.

    Every method raises `StateError` where the store can't be read or written.
    """

    @property
    def state_id(self) -> str:
        """A name made once for this log: sequence numbers mean something only together with it."""
        ...

    def submit(self, interactions: Sequence[Interaction]) -> Future[Appended]:
        """Append a batch; the future is done when the batch is durable."""
        ...

    def append(self, interactions: Sequence[Interaction]) -> Appended:
        """Append a batch; returns when it is durable."""
        ...

    def read(self, after: int, limit: int) -> list[LoggedInteraction]:
        """At most `limit` interactions with a sequence number above `after`, in order."""
        ...

    def last_sequence(self) -> int:
        """The log's last sequence number, 0 where it is empty."""
        ...

    def export(self, path: Path, upto: int) -> int:
        """Write the log up to a sequence number as JSON lines. Returns how many lines."""
        ...

    def add_job(self, job: Job) -> Job:
        """Add a job unless one is queued or running. Returns that one then, the given one otherwise."""
        ...

    def update_job(self, job: Job) -> None:
        """Replace what is known of a job."""
        ...

    def job(self, job_id: str) -> Job | None:
        """One job, None where it is unknown."""
        ...

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        ...

    def close(self) -> None:
        """Finish what was submitted and let go."""
        ...
