"""The state in one SQLite file: WAL, synchronous=FULL, one writer thread with group commit.

Many callers' batches share a transaction, so a caller waits for one flush to disk at most, whatever the others do.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import orjson

from service.errors import StateError, StateVersionError
from service.state.entries import (
    Row,
    check_compaction,
    check_empty,
    check_range,
    entry_of,
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
from service.state.writer import GroupWriter, Task

Result = TypeVar("Result")
Work = Callable[[sqlite3.Connection], Any]

# From a schema to the next, the first from nothing; the file's user_version says how many have run. Never changed.
MIGRATIONS = (
    """
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
INSERT INTO meta VALUES ('state_id', :state_id);
""",
    # Entries of other kinds than interactions, keys that outlive their entries, records, types' weights, jobs' owners.
    """
CREATE TABLE log (
    sequence INTEGER PRIMARY KEY,
    kind TEXT NOT NULL,
    user_id TEXT NOT NULL,
    item_id TEXT NOT NULL,
    timestamp REAL NOT NULL,
    type TEXT NOT NULL,
    event_id TEXT,
    content TEXT
) STRICT;
INSERT INTO log SELECT sequence, 'interaction', user_id, item_id, timestamp, type, event_id, NULL
    FROM interactions ORDER BY sequence;
CREATE TABLE keys (event_id TEXT PRIMARY KEY, sequence INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO keys SELECT event_id, sequence FROM interactions WHERE event_id IS NOT NULL ORDER BY event_id;
CREATE TABLE position (one INTEGER PRIMARY KEY CHECK (one = 1), last INTEGER NOT NULL, compacted INTEGER NOT NULL)
    STRICT;
INSERT INTO position SELECT 1, coalesce(max(sequence), 0), 0 FROM interactions;
DROP TABLE interactions;
CREATE TABLE records (
    kind TEXT NOT NULL,
    external_id TEXT NOT NULL,
    content TEXT NOT NULL,
    sequence INTEGER NOT NULL,
    PRIMARY KEY (kind, external_id)
) STRICT, WITHOUT ROWID;
CREATE TABLE types (name TEXT PRIMARY KEY, weight REAL NOT NULL) STRICT;
ALTER TABLE jobs ADD COLUMN owner TEXT NOT NULL DEFAULT '';
ALTER TABLE jobs ADD COLUMN heartbeat_at REAL;
""",
    # Small JSON objects beside the log.
    """
CREATE TABLE documents (kind TEXT NOT NULL, name TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (kind, name))
    STRICT, WITHOUT ROWID;
""",
    # Jobs: who asked for them, how often they were taken, their training's last words.
    """
ALTER TABLE jobs ADD COLUMN trigger TEXT NOT NULL DEFAULT 'asked';
ALTER TABLE jobs ADD COLUMN attempts INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN log TEXT NOT NULL DEFAULT '';
""",
)
SCHEMA_VERSION = len(MIGRATIONS)

JOB_FIELDS = ", ".join(f.name for f in fields(Job))
JOB_MARKS = ", ".join("?" for _ in fields(Job))
LOG_FIELDS = "sequence, kind, user_id, item_id, timestamp, type, event_id, content"
READ_COLUMNS = """
SELECT total(kind != 'interaction'), json_group_array(sequence), json_group_array(user_id), json_group_array(item_id)
FROM (SELECT sequence, kind, user_id, item_id FROM log WHERE sequence > ? ORDER BY sequence LIMIT ?)
"""
INSERT_KEY = "INSERT INTO keys VALUES (?, ?) ON CONFLICT DO NOTHING"
INSERT_ENTRY = f"INSERT INTO log ({LOG_FIELDS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"  # noqa: S608 (our own names)
PUT_RECORD = """
INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET content = excluded.content,
sequence = excluded.sequence WHERE sequence < excluded.sequence
"""
PUT_DOCUMENT = "INSERT INTO documents VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET content = excluded.content"
ERASE = (
    """
DELETE FROM keys WHERE event_id IN (SELECT event_id FROM log WHERE user_id = ? AND kind != 'erasure')
""",
    """
UPDATE log SET kind = 'erased', item_id = CASE kind WHEN 'interaction' THEN item_id ELSE '' END,
user_id = '', timestamp = 0, type = '', event_id = NULL, content = NULL WHERE user_id = ? AND kind != 'erasure'
""",
    "DELETE FROM records WHERE kind = 'user' AND external_id = ?",
)
# Rows that a backup reads at a time.
PAGE = 1000


@dataclass(frozen=True)
class Reader:
    """A thread's connection for reading.

    Attributes:
        thread: whose it is.
        connection: the connection.
        using: held while it is used. SQLite lets the interpreter go meanwhile, and a connection that is closed under a
            query takes the process with it.
    """

    thread: threading.Thread
    connection: sqlite3.Connection
    using: threading.RLock = field(default_factory=threading.RLock)

    def close(self) -> None:
        """Close the connection once nobody uses it."""
        with self.using:
            self.connection.close()


class SqliteState:
    """The state store in a file of its own."""

    def __init__(self, path: Path) -> None:
        """Open the file, made where there is none; one of an older release is migrated.

        Raises:
            StateVersionError: a newer release has written it.
            StateError: it can't be opened, or is no state.
        """
        self.path = path
        self._local = threading.local()
        self._readers: list[Reader] = []
        self._readers_lock = threading.Lock()
        self._seen = 0
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = self._connect()
            try:
                self._migrate()
                found = self._connection.execute("SELECT value FROM meta WHERE key = 'state_id'").fetchone()
                self.state_id = str(found[0])
                self._file = _identity(path)
            except BaseException:
                self._connection.close()
                raise
        except (sqlite3.Error, OSError, TypeError) as error:
            raise StateError(f"{path}: the state can't be opened ({error}). Is it a state of kdiffe?") from error
        self._writer: GroupWriter[Work] = GroupWriter(str(path), self._commit_group)

    @property
    def seen(self) -> int:
        """The highest sequence number that this process has met."""
        return self._seen

    # ---- the log -------------------------------------------------------------------------------------------------

    def submit(self, entries: Sequence[Interaction | Change]) -> Future[Appended]:
        """Append a batch; the future is done when the batch is on disk."""
        rows = [row_of(entry) for entry in entries]

        def insert(connection: sqlite3.Connection) -> Appended:
            last = first = _last(connection)
            for row in rows:
                last += _add(connection, last + 1, row)
            if last > first:
                connection.execute("UPDATE position SET last = ?", (last,))
            return Appended(last - first, len(rows) - last + first, last)

        return self._writer.submit(insert)

    def append(self, entries: Sequence[Interaction | Change]) -> Appended:
        """Append a batch; returns when it is on disk."""
        return self.submit(entries).result()

    def read(self, after: int, limit: int) -> list[LogEntry]:
        """A part of the log."""
        query = f"SELECT {LOG_FIELDS} FROM log WHERE sequence > ? ORDER BY sequence LIMIT ?"  # noqa: S608
        with self._reading() as connection:
            rows = connection.execute(query, (after, max(limit, 0))).fetchall()
            if not rows or rows[0][0] != after + 1:
                last, compacted = connection.execute("SELECT last, compacted FROM position").fetchone()
                check_range(after, last, compacted)
        if rows:
            self._seen = max(self._seen, rows[-1][0])
        return [entry_of(row[0], Row(*row[1:])) for row in rows]

    def interactions(self, after: int, limit: int) -> Interactions | None:
        """A part of the log as columns. SQLite makes them, so that other threads have the interpreter meanwhile."""
        with self._reading() as connection:
            n_others, *columns = connection.execute(READ_COLUMNS, (after, max(limit, 0))).fetchone()
        sequences, user_ids, item_ids = map(orjson.loads, columns)
        # SQLite keeps the order that it reads in, though it does not promise to. Nothing to read, or no such place:
        # `read` finds out.
        if n_others or sequences != list(range(after + 1, after + 1 + len(sequences))) or not sequences:
            return None
        self._seen = max(self._seen, sequences[-1])
        return Interactions(after, user_ids, item_ids)

    def last_sequence(self) -> int:
        """The log's last sequence number."""
        return self.position().last

    def position(self) -> Position:
        """Where the log stands."""
        with self._reading() as connection:
            last, compacted = connection.execute("SELECT last, compacted FROM position").fetchone()
        self._seen = max(self._seen, last)
        return Position(self.state_id, last, compacted)

    def export(self, path: Path, upto: int) -> int:
        """Write the log as JSON lines."""
        return write_lines(self.read, path, self.position().compacted, upto, self.types())

    def compact(self, upto: int, forget_keys: int = 0) -> Position:
        """Drop the log's begin. The file does not shrink: SQLite writes into the room that becomes free."""

        def drop(connection: sqlite3.Connection) -> None:
            check_compaction(upto, forget_keys, _last(connection))
            connection.execute("DELETE FROM log WHERE sequence <= ?", (upto,))
            connection.execute("DELETE FROM keys WHERE sequence <= ?", (forget_keys,))
            connection.execute("UPDATE position SET compacted = max(compacted, ?)", (upto,))

        self._writer.submit(drop).result()
        return self.position()

    # ---- records and types ---------------------------------------------------------------------------------------

    def record(self, kind: RecordKind, external_id: str) -> Record | None:
        """One record."""
        query = "SELECT external_id, content, sequence FROM records WHERE kind = ? AND external_id = ?"
        with self._reading() as connection:
            row = connection.execute(query, (kind, external_id)).fetchone()
        return None if row is None else Record(row[0], orjson.loads(row[1]), row[2])

    def records(self, kind: RecordKind) -> Iterator[Record]:
        """Every record of a kind, by id."""
        query = (
            "SELECT external_id, content, sequence FROM records WHERE kind = ? AND external_id > ? "
            "ORDER BY external_id LIMIT ?"
        )
        after = ""
        while True:
            with self._reading() as connection:
                rows = connection.execute(query, (kind, after, PAGE)).fetchall()
            yield from (Record(row[0], orjson.loads(row[1]), row[2]) for row in rows)
            if len(rows) < PAGE:
                return
            after = rows[-1][0]

    def set_type(self, name: str, weight: float) -> None:
        """Give a type a weight."""
        put = "INSERT INTO types VALUES (?, ?) ON CONFLICT DO UPDATE SET weight = excluded.weight"
        self._writer.submit(lambda connection: connection.execute(put, (name, weight)) and None).result()

    def types(self) -> dict[str, float]:
        """Weights of the types."""
        with self._reading() as connection:
            return dict(connection.execute("SELECT name, weight FROM types ORDER BY name").fetchall())

    # ---- documents -----------------------------------------------------------------------------------------------

    def put_document(self, kind: str, name: str, content: Mapping[str, Any]) -> None:
        """Keep a document."""
        row = (kind, name, to_text(content))
        self._writer.submit(lambda connection: connection.execute(PUT_DOCUMENT, row) and None).result()

    def documents(self, kind: str) -> dict[str, Mapping[str, Any]]:
        """Documents of a kind."""
        query = "SELECT name, content FROM documents WHERE kind = ? ORDER BY name"
        with self._reading() as connection:
            return {name: orjson.loads(content) for name, content in connection.execute(query, (kind,)).fetchall()}

    def drop_document(self, kind: str, name: str) -> bool:
        """Remove a document."""
        command = "DELETE FROM documents WHERE kind = ? AND name = ?"
        removed = self._writer.submit(lambda connection: connection.execute(command, (kind, name)).rowcount).result()
        return bool(removed)

    # ---- jobs ----------------------------------------------------------------------------------------------------

    def add_job(self, job: Job) -> Job:
        """Add a job unless it is known, or another one is queued, too."""
        query = f"SELECT {JOB_FIELDS} FROM jobs WHERE job_id = ? OR (state = 'queued' AND ?) ORDER BY rowid"  # noqa: S608

        def insert(connection: sqlite3.Connection) -> Job:
            row = connection.execute(query, (job.job_id, job.state == "queued")).fetchone()
            if row is not None:
                return Job(*row)
            _insert_job(connection, job)
            return job

        return self._writer.submit(insert).result()  # type: ignore[no-any-return]

    def take_job(self, owner: str, now: float) -> Job | None:
        """Take the queued job unless one is running."""
        query = f"SELECT {JOB_FIELDS} FROM jobs WHERE state IN (?, ?) ORDER BY state = 'running' DESC, rowid"  # noqa: S608

        def take(connection: sqlite3.Connection) -> Job | None:
            row = connection.execute(query, UNFINISHED).fetchone()
            if row is None or Job(*row).state == "running":
                return None
            taken = taken_by(Job(*row), owner, now)
            _replace_job(connection, taken, None)
            return taken

        with self._reading() as connection:  # most of the time there is none: no transaction for that
            if connection.execute("SELECT 1 FROM jobs WHERE state = 'queued'").fetchone() is None:
                return None
        return self._writer.submit(take).result()  # type: ignore[no-any-return]

    def update_job(self, job: Job, *, owned_by: str | None = None, unless_phase: str = "") -> bool:
        """Replace what is known of a job that has not ended."""
        replaced = self._writer.submit(lambda connection: _replace_job(connection, job, owned_by, unless_phase))
        return bool(replaced.result())

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._reading() as connection:
            row = connection.execute(f"SELECT {JOB_FIELDS} FROM jobs WHERE job_id = ?", (job_id,)).fetchone()  # noqa: S608
        return None if row is None else Job(*row)

    def jobs(self, limit: int = 100) -> list[Job]:
        """Jobs, the newest first."""
        query = f"SELECT {JOB_FIELDS} FROM jobs ORDER BY rowid DESC LIMIT ?"  # noqa: S608
        with self._reading() as connection:
            return [Job(*row) for row in connection.execute(query, (limit,)).fetchall()]

    # ---- as a whole ----------------------------------------------------------------------------------------------

    def backup(self) -> Backup:
        """The state at one moment: a read transaction of its own, ended with the last entry."""
        try:
            connection = self._connect()
            connection.execute("BEGIN")
            compacted = connection.execute("SELECT compacted FROM position").fetchone()[0]
            types = dict(connection.execute("SELECT name, weight FROM types").fetchall())
            jobs = [Job(*row) for row in connection.execute(f"SELECT {JOB_FIELDS} FROM jobs ORDER BY rowid DESC")]  # noqa: S608
            documents: dict[str, dict[str, Any]] = {}
            for kind, name, content in connection.execute("SELECT kind, name, content FROM documents"):
                documents.setdefault(kind, {})[name] = orjson.loads(content)
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

        def rows(query: str) -> Iterator[Any]:
            try:
                yield from connection.execute(query)
            except sqlite3.Error as error:
                raise self._unreadable(error) from error

        def records() -> Iterator[tuple[RecordKind, Record]]:
            for kind, external_id, content, sequence in rows("SELECT * FROM records"):
                yield kind, Record(external_id, orjson.loads(content), sequence)

        def entries() -> Iterator[LogEntry]:
            for row in rows(f"SELECT {LOG_FIELDS} FROM log ORDER BY sequence"):  # noqa: S608
                yield entry_of(row[0], Row(*row[1:]))
            connection.close()

        keys = rows("SELECT event_id, sequence FROM keys")
        return Backup(self.state_id, compacted, types, documents, jobs, records(), keys, entries())

    def restore(self, backup: Backup) -> None:
        """Take a backup's place, in one transaction."""

        def put(connection: sqlite3.Connection) -> None:
            known = connection.execute("SELECT 1 FROM records UNION ALL SELECT 1 FROM keys LIMIT 1").fetchall()
            check_empty(_last(connection), known)
            connection.execute("UPDATE meta SET value = ? WHERE key = 'state_id'", (backup.state_id,))
            connection.executemany("INSERT OR REPLACE INTO types VALUES (?, ?)", backup.types.items())
            for kind, found in backup.documents.items():
                connection.executemany(PUT_DOCUMENT, ((kind, name, to_text(found[name])) for name in found))
            for job in reversed(backup.jobs):
                _insert_job(connection, job)
            for kind, record in backup.records:
                content = orjson.dumps(record.content, option=orjson.OPT_SORT_KEYS).decode()
                connection.execute(PUT_RECORD, (kind, record.external_id, content, record.sequence))
            # Keys of entries that are put back come with them.
            connection.executemany(INSERT_KEY, ((key, n) for key, n in backup.keys if n <= backup.compacted))
            last = backup.compacted
            for entry in backup.entries:
                last += _add(connection, last + 1, row_of_logged(entry))
            connection.execute("UPDATE position SET last = ?, compacted = ?", (last, backup.compacted))

        self._writer.submit(put).result()
        self.state_id = backup.state_id

    def close(self) -> None:
        """Finish what was submitted and close the file."""
        if not self._writer.close():
            return
        with self._readers_lock:
            for reader in self._readers:
                reader.close()
            self._readers.clear()
        self._connection.close()

    # ---- inside --------------------------------------------------------------------------------------------------

    def _connect(self) -> sqlite3.Connection:
        # Transactions are begun and ended here, not by the driver; connections are closed by the closing thread.
        connection = sqlite3.connect(self.path, timeout=10.0, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            # What was erased is overwritten in the file.
            connection.execute("PRAGMA secure_delete = ON")
        except BaseException:
            connection.close()
            raise
        return connection

    def _migrate(self) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        found = int(connection.execute("PRAGMA user_version").fetchone()[0])
        if found > SCHEMA_VERSION:
            raise StateVersionError(
                f"{self.path}: its tables are of version {found}, this release knows {SCHEMA_VERSION}: update kdiffe."
            )
        values = {"state_id": uuid4().hex}
        for script in MIGRATIONS[found:]:
            for statement in script.split(";\n"):
                if statement.strip():
                    connection.execute(statement, values if ":" in statement else ())
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        connection.execute("COMMIT")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """This thread's connection for reading."""
        self._check_in_place()
        try:
            reader: Reader | None = getattr(self._local, "reader", None)
            if reader is None:
                reader = Reader(threading.current_thread(), self._connect())
                self._local.reader = reader
                self._keep(reader)
            with reader.using:
                yield reader.connection
        except sqlite3.Error as error:
            raise self._unreadable(error) from error

    def _keep(self, reader: Reader) -> None:
        """Keep this thread's connection; those of threads that have ended are closed: each swap ends some."""
        with self._readers_lock:
            ended = [other for other in self._readers if not other.thread.is_alive()]
            self._readers = [*(other for other in self._readers if other.thread.is_alive()), reader]
        for other in ended:
            other.close()

    def _check_in_place(self) -> None:
        """Refuse to go on with a file that no longer lies at its path: what is written into it would be lost.

        Raises:
            StateError: it was moved, removed or replaced.
        """
        try:
            in_place = _identity(self.path) == self._file
        except OSError:
            in_place = False
        if not in_place:
            raise StateError(
                f"{self.path}: the state's file was moved, removed or replaced while it was open: put it back, or "
                "restart what uses it."
            )

    def _unreadable(self, error: Exception) -> StateError:
        return StateError(f"{self.path}: the state can't be read ({error}).")

    def _commit_group(self, group: list[Task[Work]]) -> None:
        error = self._commit(group)
        if error is None:
            return
        # One of them spoils the rest: each alone. A file that is locked or full is every one's trouble, and each
        # would wait for the lock anew.
        shared = len(group) == 1 or isinstance(error, (sqlite3.OperationalError, StateError))
        for single in group:
            alone = error if shared else self._commit([single])
            if isinstance(alone, StateError):
                single.future.set_exception(alone)
            elif alone is not None:
                single.future.set_exception(StateError(f"{self.path}: the state can't be written ({alone})."))

    def _commit(self, group: Sequence[Task[Work]]) -> Exception | None:
        """Run a group in one transaction and tell its callers. Returns the error that undid it, callers untold."""
        connection = self._connection
        try:
            self._check_in_place()
            connection.execute("BEGIN IMMEDIATE")
            results = [task.work(connection) for task in group]
            connection.execute("COMMIT")
        except Exception as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            return error
        for task, result in zip(group, results, strict=True):
            if isinstance(result, Appended):  # on disk only now: a group that is rolled back was never in the log
                self._seen = max(self._seen, result.sequence)
            task.future.set_result(result)
        return None


def _identity(path: Path) -> tuple[int, int]:
    """Which file lies at a path, whatever it is called."""
    found = os.stat(path)  # noqa: PTH116 (a third of the time; it is asked at every read)
    return found.st_dev, found.st_ino


def _last(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT last FROM position").fetchone()[0])


def _add(connection: sqlite3.Connection, sequence: int, row: Row) -> bool:
    """Log a row and make its change, inside a transaction. Whether it is new."""
    if row.event_id is not None and connection.execute(INSERT_KEY, (row.event_id, sequence)).rowcount == 0:
        return False
    if row.kind == "erasure":
        _erase(connection, row.user_id)
    elif row.kind in {"user", "item"}:
        connection.execute(PUT_RECORD, (row.kind, row.user_id or row.item_id, row.content, sequence))
    elif row.kind == "withdrawal":
        known = ("item", row.item_id, sequence)
        connection.execute("DELETE FROM records WHERE kind = ? AND external_id = ? AND sequence < ?", known)
    connection.execute(INSERT_ENTRY, (sequence, *row))
    return True


def _erase(connection: sqlite3.Connection, user_id: str) -> None:
    for command in ERASE:
        connection.execute(command, (user_id,))


def _insert_job(connection: sqlite3.Connection, job: Job) -> None:
    connection.execute(f"INSERT INTO jobs ({JOB_FIELDS}) VALUES ({JOB_MARKS})", astuple(job))  # noqa: S608


def _replace_job(connection: sqlite3.Connection, job: Job, owned_by: str | None, unless_phase: str = "") -> bool:
    marks = ", ".join(f"{f.name} = ?" for f in fields(Job))
    which = "job_id = ? AND state IN (?, ?) AND coalesce(?, owner) = owner AND (? = '' OR phase <> ?)"
    values = (*astuple(job), job.job_id, *UNFINISHED, owned_by, unless_phase, unless_phase)
    return connection.execute(f"UPDATE jobs SET {marks} WHERE {which}", values).rowcount == 1  # noqa: S608
