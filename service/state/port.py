"""What the service asks of a state store: the log, records of users and items, weights of types, and the jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

JobState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
JobTrigger = Literal["asked", "schedule", "interactions"]
UNFINISHED: tuple[JobState, ...] = ("queued", "running")

ChangeKind = Literal["removal", "erasure", "user", "item", "withdrawal"]
# `erased`: what is left of an entry of a user who was erased; nobody writes one.
EntryKind = Literal["interaction", "removal", "erasure", "user", "item", "withdrawal", "erased"]
RecordKind = Literal["user", "item"]
# A type that was given no weight.
DEFAULT_WEIGHT = 1.0
# Largest weight of a type.
MOST_WEIGHT = 1e6


@dataclass(frozen=True)
class Interaction:
    """What a user did, as a client told it.

    Attributes:
        user_id: external id.
        item_id: external id.
        timestamp: seconds since 1970.
        type: kind of interaction; its weight weighs the sampling of the loss, the graph is binary.
        event_id: idempotency key; one that the state knows already is not taken again. None: always taken.
    """

    user_id: str
    item_id: str
    timestamp: float
    type: str = "interaction"
    event_id: str | None = None


@dataclass(frozen=True)
class Change:
    """Another change of what is known, logged in one order with the interactions.

    Attributes:
        kind: removal: the user's interactions with the item no longer count, from wherever they are known.
            erasure: everything of the user goes, from the log at once. user, item: a record is put in the place of
            the one before. withdrawal: the item's record goes, and it is not to be recommended any more.
        user_id: external id; of removal, erasure and user.
        item_id: external id; of removal, item and withdrawal.
        content: the record of user and item; JSON.
        timestamp: seconds since 1970.
        event_id: idempotency key, in one space with the interactions' keys.
    """

    kind: ChangeKind
    user_id: str = ""
    item_id: str = ""
    content: Mapping[str, Any] | None = None
    timestamp: float = 0.0
    event_id: str | None = None

    def __post_init__(self) -> None:
        """Refuse a change that names too little or too much.

        Raises:
            ValueError: an id or the content is missing, or has no place in this kind.
        """
        needs = {
            "removal": (True, True, False),
            "erasure": (True, False, False),
            "user": (True, False, True),
            "item": (False, True, True),
            "withdrawal": (False, True, False),
        }[self.kind]
        if (bool(self.user_id), bool(self.item_id), self.content is not None) != needs:
            wanted = [n for n, needed in zip(("user_id", "item_id", "content"), needs, strict=True) if needed]
            raise ValueError(f"a change of kind {self.kind!r} has {' and '.join(wanted)}, and nothing else")


@dataclass(frozen=True)
class LogEntry:
    """An entry of the log.

    Attributes:
        sequence: 1, 2, 3, … without gaps.
        user_id: external id, empty where the kind has none.
        item_id: external id, empty where the kind has none.
        timestamp: seconds since 1970.
        type: kind of interaction, empty for other entries.
        event_id: idempotency key.
        kind: an interaction, a `Change`'s kind, or `erased`, which changes nothing: its item alone is left.
        content: the record that was put.
    """

    sequence: int
    user_id: str
    item_id: str
    timestamp: float
    type: str = "interaction"
    event_id: str | None = None
    kind: EntryKind = "interaction"
    content: Mapping[str, Any] | None = field(default=None, hash=False)


@dataclass(frozen=True)
class Interactions:
    """A part of the log that holds nothing but interactions, column by column: what a graph needs of it.

    Attributes:
        after: sequence number of the entry before its first one.
        user_ids: external ids, one for each entry.
        item_ids: external ids, one for each entry.
    """

    after: int
    user_ids: Sequence[str]
    item_ids: Sequence[str]

    def __len__(self) -> int:
        return len(self.user_ids)


@dataclass(frozen=True)
class Appended:
    """What became of a batch.

    Attributes:
        accepted: how many entries are new in the log.
        duplicates: how many were known already.
        sequence: the log's last sequence number once the batch was in it.
    """

    accepted: int
    duplicates: int
    sequence: int


@dataclass(frozen=True)
class Record:
    """What is known of a user or an item beside the interactions.

    Attributes:
        external_id: external id.
        content: JSON.
        sequence: the entry of the log that put it.
    """

    external_id: str
    content: Mapping[str, Any] = field(hash=False)
    sequence: int


@dataclass(frozen=True)
class Job:
    """A retrain job.

    Attributes:
        job_id: its name.
        state: where it stands.
        created_at: seconds since 1970.
        base: the version that it retrains; decided when it is first taken.
        sequence: the log's sequence number up to which it trains; decided when it is first taken.
        progress: 0 to 1.
        phase: what it is doing.
        version: the version that it published.
        error: why it failed.
        finished_at: seconds since 1970.
        owner: the process that runs it.
        heartbeat_at: when its owner last said that it runs, seconds since 1970.
        trigger: who asked for it.
        attempts: how often it was taken.
        log: the last words of its training process.
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
    owner: str = ""
    heartbeat_at: float | None = None
    trigger: JobTrigger = "asked"
    attempts: int = 0
    log: str = ""


@dataclass(frozen=True)
class Position:
    """Where the log stands.

    Attributes:
        state_id: the log's name.
        last: its last sequence number, 0 where nothing was ever written.
        compacted: up to here entries have been dropped: an artifact holds them.
    """

    state_id: str
    last: int
    compacted: int


@dataclass(frozen=True)
class Backup:
    """A whole state, to be written down or put back. The parts are read in this order, once.

    A record or key may be older than the log's end: what the log says after it goes before it.

    Attributes:
        state_id: the log's name.
        compacted: up to here entries have been dropped.
        types: weight of each type.
        documents: by kind, then by name.
        jobs: the newest first.
        records: kind and record.
        keys: idempotency keys with the sequence number of their entry.
        entries: the log after `compacted`.
    """

    state_id: str
    compacted: int
    types: Mapping[str, float]
    documents: Mapping[str, Mapping[str, Mapping[str, Any]]]
    jobs: Sequence[Job]
    records: Iterator[tuple[RecordKind, Record]]
    keys: Iterator[tuple[str, int]]
    entries: Iterator[LogEntry]


class StateStore(Protocol):
    """The system of record of what arrived after the artifact was trained. Safe for several threads and processes.

    Every method raises `StateError` where the store can't be read or written.
    """

    @property
    def state_id(self) -> str:
        """A name made once for this log: sequence numbers mean something only together with it."""
        ...

    @property
    def seen(self) -> int:
        """The highest sequence number that this process has met, without asking the store."""
        ...

    # ---- the log -------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Interaction | Change]) -> Future[Appended]:
        """Append a batch; the future is done when the batch is durable, and its changes are made."""
        ...

    def append(self, entries: Sequence[Interaction | Change]) -> Appended:
        """Append a batch; returns when it is durable, and its changes are made."""
        ...

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """At most `limit` entries with a sequence number above `after`, in order.

        Raises:
            SetBackError: the log never reached `after`.
            StateError: it has been compacted beyond `after`.
        """
        ...

    def interactions(self, after: int, limit: int) -> Interactions | None:
        """What `read` gives, as columns; None where other entries than interactions are among it, or nothing at all.

        Raises:
            StateError: the log can't be read. Where it never reached `after`, or begins later, `read` tells.
        """
        ...

    def last_sequence(self) -> int:
        """The log's last sequence number, 0 where it is empty."""
        ...

    def position(self) -> Position:
        """Where the log stands."""
        ...

    def export(self, path: Path, upto: int) -> int:
        """Write what is left of the log up to a sequence number as JSON lines. Returns how many lines."""
        ...

    def compact(self, upto: int, forget_keys: int = 0) -> Position:
        """Drop the log's entries up to a sequence number: an artifact holds them. Records and keys stay.

        Args:
            upto: last sequence number that is dropped; the log's end at most.
            forget_keys: idempotency keys of entries up to here are dropped, too; `upto` at most.
        """
        ...

    # ---- records and types ---------------------------------------------------------------------------------------

    def record(self, kind: RecordKind, external_id: str) -> Record | None:
        """The record of a user or an item, None where there is none."""
        ...

    def records(self, kind: RecordKind) -> Iterator[Record]:
        """Every record of a kind, in no particular order."""
        ...

    def set_type(self, name: str, weight: float) -> None:
        """Give a type of interaction a weight ≥ 0."""
        ...

    def types(self) -> dict[str, float]:
        """Weights of the types that were given one; every other has `DEFAULT_WEIGHT`."""
        ...

    # ---- documents -----------------------------------------------------------------------------------------------

    def put_document(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep a small JSON object beside the log (an API key, say), in the place of the one before.

        Args:
            kind: what it is: a word of letters.
            name: which one it is.
            content: JSON.
        """
        ...

    def documents(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """All documents of a kind, by name."""
        ...

    def drop_document(self, kind: str, name: str) -> bool:
        """Remove a document. Whether there was one."""
        ...

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Add a job unless there is one of that name, or the job is queued and another one is, too.

        Returns:
            That one then, the given one otherwise.
        """
        ...

    def take_job(self, owner: str, now: float) -> Job | None:
        """Make the queued job that was added first a running one of this owner's; one more attempt.

        Returns:
            The job as it is now; None where one is running, or none is queued.
        """
        ...

    def update_job(self, job: Job, *, owned_by: str | None = None, unless_phase: str = "") -> bool:
        """Replace what is known of a job that has not ended.

        Args:
            job: as it is to be.
            owned_by: only where this is its owner; whoever it is where None.
            unless_phase: not where this is its phase; whatever it is where empty.

        Returns:
            Whether it was replaced.
        """
        ...

    def job(self, job_id: str) -> Job | None:
        """One job, None where it is unknown."""
        ...

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        ...

    # ---- as a whole ----------------------------------------------------------------------------------------------

    def backup(self) -> Backup:
        """The whole state, to be read at once. Writes may go on."""
        ...

    def restore(self, backup: Backup) -> None:
        """Put a backup in the place of this state, which must be empty. Nobody else may use it meanwhile.

        Raises:
            StateError: this state is not empty.
        """
        ...

    def close(self) -> None:
        """Finish what was submitted and let go."""
        ...
