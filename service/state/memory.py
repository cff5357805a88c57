"""The state in memory, for tests: the twin of the SQLite store. Nothing outlives the process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from uuid import uuid4

from service.state.export import write_lines
from service.state.port import UNFINISHED, Appended, Interaction, Job, LoggedInteraction


class MemoryState:
    """A log in a list, jobs in a dictionary."""

    def __init__(self) -> None:
        self.state_id = uuid4().hex
        self._lock = threading.Lock()
        self._log: list[LoggedInteraction] = []
        self._event_ids: set[str] = set()
        self._jobs: dict[str, Job] = {}

    def submit(self, interactions: Sequence[Interaction]) -> Future[Appended]:
        """Append a batch."""
        future: Future[Appended] = Future()
        future.set_result(self.append(interactions))
        return future

    def append(self, interactions: Sequence[Interaction]) -> Appended:
        """Append a batch."""
        with self._lock:
            accepted = 0
            for it in interactions:
                if it.event_id is not None:
                    if it.event_id in self._event_ids:
                        continue
                    self._event_ids.add(it.event_id)
                sequence = len(self._log) + 1
                self._log.append(
                    LoggedInteraction(sequence, it.user_id, it.item_id, it.timestamp, it.type, it.event_id)
                )
                accepted += 1
            return Appended(accepted, len(interactions) - accepted, len(self._log))

    def read(self, after: int, limit: int) -> list[LoggedInteraction]:
        """A part of the log."""
        with self._lock:
            return self._log[max(after, 0) : max(after, 0) + max(limit, 0)]

    def last_sequence(self) -> int:
        """The log's length."""
        with self._lock:
            return len(self._log)

    def export(self, path: Path, upto: int) -> int:
        """Write the log as JSON lines."""
        return write_lines(self.read, path, upto)

    def add_job(self, job: Job) -> Job:
        """Add a job unless one is unfinished."""
        with self._lock:
            for other in self._jobs.values():
                if other.state in UNFINISHED:
                    return other
            self._jobs[job.job_id] = job
            return job

    def update_job(self, job: Job) -> None:
        """Replace a job."""
        with self._lock:
            self._jobs[job.job_id] = job

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._lock:
            return self._jobs.get(job_id)

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        with self._lock:
            return list(reversed(self._jobs.values()))[:limit]

    def close(self) -> None:
        """Nothing to let go of."""
