"""The state in one SQLite file: WAL, synchronous=FULL, one writer thread with group commit.

Many callers' batches share a transaction, so a caller waits for one flush to disk at most, whatever the others do.
"""

from __future__ import annotations

import queue
import sqlite3
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from service.errors import StateError, StateVersionError
from service.state.export import write_lines
from service.state.port import UNFINISHED, Appended, Interaction, Job, LoggedInteraction

Result = TypeVar("Result")

# Raised with every change of the tables; kept in the file's user_version.
SCHEMA_VERSION = 1
# Most batches in one transaction.
GROUP = 256

SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE interactions (
    sequence INTEGER PRIMARY KEY,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    timestamp REAL NOT NULL,
    type TEXT NOT NULL,
    event_id TEXT UNIQUE
) STRICT;
CREATE TABLE jobs (
    job_id TEXT PRIMARY KEY,
    state TEXT NOT NULL,
    created_at REAL NOT NULL,
    base TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    progress REAL NOT NULL,
    phase TEXT NOT NULL,
    version TEXT,
    error TEXT,
    finished_at REAL
) STRICT;
"""
JOB_FIELDS = ", ".join(f.name for f in fields(Job))
# A rowid is the largest one plus one: without gaps, since nothing is ever deleted and a duplicate takes none.
INSERT = """
INSERT INTO interactions (user_id, item_id, timestamp, type, event_id) VALUES (?, ?, ?, ?, ?)
ON CONFLICT (event_id) DO NOTHING
"""


class SqliteState:
    """The state store in a file of its own."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where there is none.

        Raises:
            StateVersionError: a newer release has written it.
            StateError: it can't be opened, or is no state.
        """
        self.path = path
        self._local = threading.local()
        self._readers: list[sqlite3.Connection] = []
        self._readers_lock = threading.Lock()
        self._closed = False
        self._closing = threading.Lock()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = self._connect()
            self._prepare()
            self.state_id = str(self._writer.execute("SELECT value FROM meta WHERE key = 'state_id'").fetchone()[0])
        except (sqlite3.Error, OSError, TypeError) as error:
            raise StateError(f"{path}: the state can't be opened ({error}). Is it a state of kdiffe?") from error
        self._tasks: queue.SimpleQueue[tuple[Callable[[sqlite3.Connection], Any], Future[Any]] | None] = (
            queue.SimpleQueue()
        )
        self._thread = threading.Thread(target=self._write, name="kdiffe-state", daemon=True)
        self._thread.start()

    # ---- the log -------------------------------------------------------------------------------------------------

    def submit(self, interactions: Sequence[Interaction]) -> Future[Appended]:
        """Append a batch; the future is done when the batch is on disk."""
        rows = [(it.user_id, it.item_id, it.timestamp, it.type, it.event_id) for it in interactions]

        def insert(connection: sqlite3.Connection) -> Appended:
            accepted = sum(connection.execute(INSERT, row).rowcount for row in rows)
            last = connection.execute("SELECT coalesce(max(sequence), 0) FROM interactions").fetchone()[0]
            return Appended(accepted, len(rows) - accepted, int(last))

        return self._submit(insert)

    def append(self, interactions: Sequence[Interaction]) -> Appended:
        """Append a batch; returns when it is on disk."""
        return self.submit(interactions).result()

    def read(self, after: int, limit: int) -> list[LoggedInteraction]:
        """A part of the log."""
        query = (
            "SELECT sequence, user_id, item_id, timestamp, type, event_id FROM interactions "
            "WHERE sequence > ? ORDER BY sequence LIMIT ?"
        )
        return [LoggedInteraction(*row) for row in self._query(query, (after, max(limit, 0)))]

    def last_sequence(self) -> int:
        """The log's last sequence number."""
        return int(self._query("SELECT coalesce(max(sequence), 0) FROM interactions")[0][0])

    def export(self, path: Path, upto: int) -> int:
        """Write the log as JSON lines."""
        return write_lines(self.read, path, upto)

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Add a job unless one is unfinished."""

        def insert(connection: sqlite3.Connection) -> Job:
            query = f"SELECT {JOB_FIELDS} FROM jobs WHERE state IN (?, ?)"  # noqa: S608 (names of our own fields)
            row = connection.execute(query, UNFINISHED).fetchone()
            if row is not None:
                return Job(*row)
            marks = ", ".join("?" for _ in fields(Job))
            connection.execute(f"INSERT INTO jobs ({JOB_FIELDS}) VALUES ({marks})", astuple(job))  # noqa: S608
            return job

        return self._submit(insert).result()

    def update_job(self, job: Job) -> None:
        """Replace what is known of a job."""
        marks = ", ".join(f"{f.name} = ?" for f in fields(Job))

        def update(connection: sqlite3.Connection) -> None:
            connection.execute(f"UPDATE jobs SET {marks} WHERE job_id = ?", (*astuple(job), job.job_id))  # noqa: S608

        self._submit(update).result()

    def job(self, job_id: str) -> Job | None:
        """One job."""
        rows = self._query(f"SELECT {JOB_FIELDS} FROM jobs WHERE job_id = ?", (job_id,))  # noqa: S608
        return Job(*rows[0]) if rows else None

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        rows = self._query(f"SELECT {JOB_FIELDS} FROM jobs ORDER BY rowid DESC LIMIT ?", (limit,))  # noqa: S608
        return [Job(*row) for row in rows]

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            self._tasks.put(None)
        self._thread.join()
        with self._readers_lock:
            for connection in self._readers:
                connection.close()
            self._readers.clear()
        self._writer.close()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        # Transactions are begun and ended here, not by the driver; connections are closed by the closing thread.
        connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        self._writer.execute("BEGIN IMMEDIATE")
        found = int(self._writer.execute("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA_VERSION:
            self._writer.rollback()
            self._writer.close()
            raise StateVersionError(
                f"{self.path}: its tables are of version {found}, this release knows {SCHEMA_VERSION}: update kdiffe."
            )
        if found == 0:
            for statement in SCHEMA.split(";\n"):
                if statement.strip():
                    self._writer.execute(statement)
            self._writer.execute("INSERT INTO meta VALUES ('state_id', ?)", (uuid4().hex,))
            self._writer.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._writer.execute("COMMIT")

    def _query(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        try:
            connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
            if connection is None:
                connection = self._connect()
                self._local.connection = connection
                with self._readers_lock:
                    self._readers.append(connection)
            return connection.execute(query, parameters).fetchall()
        except sqlite3.Error as error:
            raise StateError(f"{self.path}: the state can't be read ({error}).") from error

    def _submit(self, task: Callable[[sqlite3.Connection], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        with self._closing:
            if self._closed:
                future.set_exception(StateError(f"{self.path}: the state is closed."))
            else:
                self._tasks.put((task, future))
        return future

    def _write(self) -> None:
        """The writer thread: takes what waits, up to `GROUP` batches, into one transaction."""
        ending = False
        while not ending:
            group = []
            task = self._tasks.get()
            while True:
                if task is None:
                    ending = True
                    break
                if task[1].set_running_or_notify_cancel():
                    group.append(task)
                if len(group) >= GROUP:
                    break
                try:
                    task = self._tasks.get_nowait()
                except queue.Empty:
                    break
            error = self._commit(group) if group else None
            if error is not None:
                # One of them spoils the rest: each alone. A file that is locked or full is every one's trouble, and
                # each would wait for the lock anew.
                shared = len(group) == 1 or isinstance(error, sqlite3.OperationalError)
                for single in group:
                    alone = error if shared else self._commit([single])
                    if alone is not None:
                        self._refuse(single[1], alone)

    def _commit(self, group: Sequence[tuple[Callable[[sqlite3.Connection], Any], Future[Any]]]) -> Exception | None:
        """Run a group in one transaction and tell its callers. Returns the error that undid it, callers untold."""
        try:
            self._writer.execute("BEGIN IMMEDIATE")
            results = [task(self._writer) for task, _ in group]
            self._writer.execute("COMMIT")
        except Exception as error:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            return error
        for (_, future), result in zip(group, results, strict=True):
            future.set_result(result)
        return None

    def _refuse(self, future: Future[Any], error: Exception) -> None:
        future.set_exception(StateError(f"{self.path}: the state can't be written ({error})."))
