"""The state in memory, for tests: the twin of the stores. Nothing outlives the process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any
from uuid import uuid4

import orjson

from service.state.entries import (
    Row,
    check_compaction,
    check_empty,
    check_range,
    columns_of,
    entry_of,
    erased,
    row_of,
    row_of_logged,
    taken_by,
    to_text,
)
from service.state.lines import write_lines
from service.state.port import (
    UNFINISHED,
    Appended,
    Backup,
    Change,
    Interaction,
    Interactions,
    Job,
    LogEntry,
    Position,
    Record,
    RecordKind,
)


class MemoryState:
    """A log in a list, the rest in dictionaries."""

    def __init__(self) -> None:
        self.state_id = uuid4().hex
        self._lock = threading.Lock()
        self._compacted = 0
        self._log: list[Row] = []
        self._keys: dict[str, int] = {}
        self._records: dict[tuple[str, str], Record] = {}
        self._types: dict[str, float] = {}
        self._documents: dict[str, dict[str, Mapping[str, Any]]] = {}
        self._jobs: dict[str, Job] = {}

    @property
    def seen(self) -> int:
        """The log's length."""
        return self._last

    @property
    def _last(self) -> int:
        return self._compacted + len(self._log)

    # ---- the log -------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Interaction | Change]) -> Future[Appended]:
        """Append a batch."""
        future: Future[Appended] = Future()
        future.set_result(self.append(entries))
        return future

    def append(self, entries: Sequence[Interaction | Change]) -> Appended:
        """Append a batch."""
        rows = [row_of(entry) for entry in entries]
        with self._lock:
            accepted = sum(self._add(row) for row in rows)
            return Appended(accepted, len(rows) - accepted, self._last)

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """A part of the log."""
        return [entry_of(after + n, row) for n, row in enumerate(self._rows(after, limit), 1)]

    def interactions(self, after: int, limit: int) -> Interactions | None:
        """A part of the log as columns."""
        return columns_of(after, self._rows(after, limit))

    def last_sequence(self) -> int:
        """The log's last sequence number."""
        with self._lock:
            return self._last

    def position(self) -> Position:
        """Where the log stands."""
        with self._lock:
            return Position(self.state_id, self._last, self._compacted)

    def export(self, path: Path, upto: int) -> int:
        """Write the log as JSON lines."""
        return write_lines(self.read, path, self._compacted, upto, self.types())

    def compact(self, upto: int, forget_keys: int = 0) -> Position:
        """Drop the log's begin."""
        with self._lock:
            check_compaction(upto, forget_keys, self._last)
            if upto > self._compacted:
                del self._log[: upto - self._compacted]
                self._compacted = upto
            self._keys = {key: at for key, at in self._keys.items() if at > forget_keys}
        return self.position()

    # ---- records and types ---------------------------------------------------------------------------------------

    def record(self, kind: RecordKind, external_id: str) -> Record | None:
        """One record."""
        with self._lock:
            return self._records.get((kind, external_id))

    def records(self, kind: RecordKind) -> Iterator[Record]:
        """Every record of a kind."""
        with self._lock:
            found = [record for (of, _), record in self._records.items() if of == kind]
        return iter(found)

    def set_type(self, name: str, weight: float) -> None:
        """Give a type a weight."""
        with self._lock:
            self._types[name] = weight

    def types(self) -> dict[str, float]:
        """Weights of the types."""
        with self._lock:
            return dict(self._types)

    # ---- documents -----------------------------------------------------------------------------------------------

    def put_document(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep a document."""
        with self._lock:
            self._documents.setdefault(kind, {})[name] = orjson.loads(to_text(content))

    def documents(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Documents of a kind."""
        with self._lock:
            return dict(sorted(self._documents.get(kind, {}).items()))

    def drop_document(self, kind: str, name: str) -> bool:
        """Remove a document."""
        with self._lock:
            return self._documents.get(kind, {}).pop(name, None) is not None

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Add a job unless it is known, or another one is queued, too."""
        with self._lock:
            queued = (other for other in self._jobs.values() if job.state == other.state == "queued")
            other = self._jobs.get(job.job_id) or next(queued, None)
            return other or self._jobs.setdefault(job.job_id, job)

    def take_job(self, owner: str, now: float) -> Job | None:
        """Take the queued job unless one is running."""
        with self._lock:
            open_jobs = [job for job in self._jobs.values() if job.state in UNFINISHED]
            if not open_jobs or any(job.state == "running" for job in open_jobs):
                return None
            taken = taken_by(open_jobs[0], owner, now)
            self._jobs[taken.job_id] = taken
            return taken

    def update_job(self, job: Job, *, owned_by: str | None = None, unless_phase: str = "") -> bool:
        """Replace a job that has not ended."""
        with self._lock:
            found = self._jobs.get(job.job_id)
            if found is None or found.state not in UNFINISHED or owned_by not in {None, found.owner}:
                return False
            if unless_phase and found.phase == unless_phase:
                return False
            self._jobs[job.job_id] = job
            return True

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._lock:
            return self._jobs.get(job_id)

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))[:limit]

    # ---- as a whole ----------------------------------------------------------------------------------------------

    def backup(self) -> Backup:
        """A copy."""
        with self._lock:
            records: list[tuple[RecordKind, Record]] = [
                ("user" if of == "user" else "item", record) for (of, _), record in self._records.items()
            ]
            entries = [entry_of(self._compacted + n, row) for n, row in enumerate(self._log, 1)]
            jobs = list(reversed(self._jobs.values()))
            keys = list(self._keys.items())
            types = dict(self._types)
            documents = {kind: dict(found) for kind, found in self._documents.items()}
            return Backup(
                self.state_id, self._compacted, types, documents, jobs, iter(records), iter(keys), iter(entries)
            )

    def restore(self, backup: Backup) -> None:
        """Take a backup's place."""
        with self._lock:
            check_empty(self._last, list(self._records))
            self.state_id, self._compacted = backup.state_id, backup.compacted
            self._types = dict(backup.types)
            self._documents = {kind: dict(found) for kind, found in backup.documents.items()}
            self._jobs = {job.job_id: job for job in reversed(backup.jobs)}
            self._records = {(kind, record.external_id): record for kind, record in backup.records}
            # Keys of entries that are put back come with them.
            self._keys = {key: sequence for key, sequence in backup.keys if sequence <= backup.compacted}
            for entry in backup.entries:
                self._add(row_of_logged(entry))

    def close(self) -> None:
        """Nothing to let go of."""

    # ---- inside --------------------------------------------------------------------------------------------------

    def _rows(self, after: int, limit: int) -> list[Row]:
        with self._lock:
            check_range(after, self._last, self._compacted)
            begin = after - self._compacted
            return self._log[begin : begin + max(limit, 0)]

    def _add(self, row: Row) -> bool:
        """Log a row and make its change. Whether it is new."""
        sequence = self._last + 1
        if row.event_id is not None:
            if row.event_id in self._keys:
                return False
            self._keys[row.event_id] = sequence
        if row.kind == "erasure":
            self._erase(row.user_id)
        self._log.append(row)
        key = (row.kind, row.user_id or row.item_id)
        known = self._records.get(key if row.kind != "withdrawal" else ("item", row.item_id))
        if known is None or known.sequence < sequence:
            if row.kind in {"user", "item"}:
                self._records[key] = Record(key[1], orjson.loads(row.content or "null"), sequence)
            elif row.kind == "withdrawal":
                self._records.pop(("item", row.item_id), None)
        return True

    def _erase(self, user_id: str) -> None:
        for place, row in enumerate(self._log):
            if row.user_id == user_id and row.kind != "erasure":
                self._keys.pop(row.event_id or "", None)
                self._log[place] = erased(row)
        self._records.pop(("user", user_id), None)
