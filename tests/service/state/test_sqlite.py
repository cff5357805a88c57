from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from pathlib import Path

import pytest

from service.errors import StateError, StateVersionError
from service.state import open_state
from service.state.port import UNFINISHED, Job, LogEntry
from service.state.sqlite import MIGRATIONS, SCHEMA_VERSION, SqliteState
from tests.service.state.contract import StateContract, interaction


class TestSqliteState(StateContract):
    def make(self, directory):
        return SqliteState(directory / "state.sqlite3")


def test_everything_is_there_after_opening_again(tmp_path):
    state = open_state(f"sqlite:///{tmp_path}/deep/state.sqlite3")
    state.append([interaction(event_id="a")])
    name = state.state_id
    state.close()
    again = open_state(f"sqlite:///{tmp_path}/deep/state.sqlite3")
    assert again.state_id == name
    assert again.append([interaction(event_id="a")]).duplicates == 1
    again.close()


WRITER = """
import sys
from pathlib import Path
from service.state.port import Interaction
from service.state.sqlite import SqliteState
from concurrent.futures import wait
state = SqliteState(Path(sys.argv[1]))
n = 0
while True:
    futures = [state.submit([Interaction("u", str(n + i), 0.0, "t", f"e{n + i}")]) for i in range(8)]
    n += 8
    wait(futures)
    print(n, flush=True)
"""


def test_a_process_killed_while_writing_loses_nothing_that_was_acknowledged(tmp_path):
    path = tmp_path / "state.sqlite3"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    acknowledged = 0
    while acknowledged < 200:
        acknowledged = int(process.stdout.readline())
    os.kill(process.pid, signal.SIGKILL)
    rest = process.stdout.read().split()
    process.stdout.close()
    process.wait()
    acknowledged = int(rest[-1]) if rest else acknowledged
    state = SqliteState(path)
    found = state.read(0, 1_000_000)
    assert len(found) >= acknowledged
    assert [it.sequence for it in found] == list(range(1, len(found) + 1))
    assert {f"e{n}" for n in range(acknowledged)} <= {it.event_id for it in found}
    state.close()


def test_a_newer_schema_is_refused(tmp_path):
    path = tmp_path / "state.sqlite3"
    SqliteState(path).close()
    connection = sqlite3.connect(path)
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    connection.commit()
    connection.close()
    with pytest.raises(StateVersionError, match="update kdiffe"):
        SqliteState(path)


def test_a_state_of_the_first_release_is_migrated_whole(tmp_path):
    path = tmp_path / "state.sqlite3"
    old = sqlite3.connect(path)
    old.executescript(MIGRATIONS[0].replace(":state_id", f"'{'f' * 32}'"))
    old.execute("INSERT INTO interactions VALUES (1, 'u', 'i', 1.5, 'play', 'k'), (2, 'v', 'j', 2.5, 'play', NULL)")
    old.execute("INSERT INTO jobs VALUES ('j1', 'running', 1.0, 'v0001', 2, 0.5, 'fit', NULL, NULL, NULL)")
    old.execute("PRAGMA user_version = 1")
    old.commit()
    old.close()
    for _ in range(2):  # migrated, then opened as it is
        state = SqliteState(path)
        assert state.state_id == "f" * 32
        assert state.read(0, 10) == [
            LogEntry(1, "u", "i", 1.5, "play", "k"),
            LogEntry(2, "v", "j", 2.5, "play", None),
        ]
        assert state.append([interaction(event_id="k")]).duplicates == 1
        assert state.jobs() == [Job("j1", "running", 1.0, "v0001", 2, 0.5, "fit")]
        assert state.jobs()[0].state in UNFINISHED
        state.close()


def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = tmp_path / "state.sqlite3"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.executescript(MIGRATIONS[0].replace(":state_id", "'x'") + "PRAGMA user_version = 1;")
    before = connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall()
    with monkeypatch.context() as patch:
        patch.setattr("service.state.sqlite.MIGRATIONS", (*MIGRATIONS, "DROP TABLE nowhere"))
        with pytest.raises(StateError, match="nowhere"):
            SqliteState(path)
    assert connection.execute("SELECT sql FROM sqlite_master ORDER BY name").fetchall() == before
    connection.close()
    SqliteState(path).close()


def test_two_processes_write_to_one_file(tmp_path):
    one, two = SqliteState(tmp_path / "state.sqlite3"), SqliteState(tmp_path / "state.sqlite3")
    assert one.append([interaction(event_id="a")]).sequence == 1
    assert two.append([interaction(event_id="a"), interaction(event_id="b")]).sequence == 2
    assert one.append([interaction("c")]).sequence == 3
    assert two.seen == 2
    assert [entry.sequence for entry in two.read(0, 10)] == [1, 2, 3]
    assert two.seen == 3
    one.close()
    two.close()


def test_what_is_no_state_is_refused(tmp_path):
    path = tmp_path / "state.sqlite3"
    path.write_bytes(b"not a database, but long enough to look at" * 100)
    with pytest.raises(StateError, match="can't be opened"):
        SqliteState(path)


def test_a_batch_that_can_not_be_written_does_not_spoil_the_others(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    futures = [state.submit([interaction("ok", str(n))]) for n in range(5)]
    futures.insert(2, state.submit([interaction("ok"), interaction("half a pair: \ud800")]))
    wait(futures)
    with pytest.raises(StateError, match="can't be written"):
        futures[2].result()
    assert all(future.result().accepted == 1 for n, future in enumerate(futures) if n != 2)
    assert state.last_sequence() == 5
    state.close()


def test_what_was_rolled_back_was_never_seen(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    state.append([interaction()])
    pages = state._connection.execute("PRAGMA page_count").fetchone()[0]
    state._connection.execute(f"PRAGMA max_page_count = {pages + 10}")  # the disk is full
    gate = threading.Event()
    state._writer.submit(lambda _: gate.wait())
    futures = [state.submit([interaction("u", "i" * size)] * 100) for size in (1, 1000)]
    gate.set()
    for future in futures:  # the second one takes the first one back with it
        with pytest.raises(StateError, match="full"):
            future.result()
    assert state.seen == state.last_sequence() == 1
    state._connection.execute(f"PRAGMA max_page_count = {pages * 100}")
    assert state.append([interaction()]).sequence == state.seen == 2
    state.close()


def test_a_file_that_another_process_keeps_locked_fails_all_who_wait_at_once(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    state._connection.execute("PRAGMA busy_timeout = 300")
    other = sqlite3.connect(tmp_path / "state.sqlite3", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    futures = [state.submit([interaction("u", str(n))]) for n in range(9)]
    wait(futures)
    # Two groups at most: the first batch, and those that came while it waited. One after the other it would be 3 s.
    assert time.monotonic() - began < 1.5
    for future in futures:
        with pytest.raises(StateError, match="locked"):
            future.result()
    other.execute("ROLLBACK")
    other.close()
    assert state.append([interaction()]).sequence == 1
    state.close()


def test_a_thread_that_has_ended_leaves_no_connection_behind(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    try:
        wait([state.submit([interaction("u", "i")])])
        found: list[int] = []

        def look() -> None:
            thread = threading.Thread(target=lambda: found.append(len(state.read(0, 10))))
            thread.start()
            thread.join()

        look()
        look()
        before = len(list(Path("/proc/self/fd").iterdir()))
        for _ in range(20):
            look()
        assert len(list(Path("/proc/self/fd").iterdir())) <= before
        assert found == [1] * 22
    finally:
        state.close()


def test_a_state_that_is_closed_under_its_readers_tells_them(tmp_path):
    # In a process of its own: what is wrong here ends it by a signal.
    script = """
import sys, threading, time
from pathlib import Path
from service.errors import StateError
from service.state.port import Interaction
from service.state.sqlite import SqliteState

told = []
for n in range(15):
    state = SqliteState(Path(sys.argv[1]) / str(n))
    state.append([Interaction(f"u{k}", f"i{k}", 1.0) for k in range(2000)])

    def read():
        try:
            while True:
                state.interactions(0, 2000)
                state.read(0, 500)
        except StateError as error:
            told.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    time.sleep(0.03)
    state.close()
    for thread in threads:
        thread.join()
print(sum("closed" in text for text in told))
"""
    command = [sys.executable, "-c", script, tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "45"), done.stderr


def test_a_closed_state_refuses_writes(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    state.close()
    state.close()
    with pytest.raises(StateError, match="closed"):
        state.append([interaction()])


def test_it_is_durable_by_its_settings(tmp_path):
    state = SqliteState(tmp_path / "state.sqlite3")
    assert state._connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert state._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
    state.close()


def test_other_urls_are_refused():
    with pytest.raises(StateError, match="sqlite") as caught:
        open_state("postgres://:secret@localhost")
    assert "secret" not in str(caught.value)


def test_a_file_that_was_moved_or_replaced_takes_no_writes_until_it_is_back(tmp_path):
    path = tmp_path / "state.sqlite3"
    state = SqliteState(path)
    state.append([interaction("u1", "i1")])
    path.rename(tmp_path / "moved")
    for replaced in (False, True):
        if replaced:
            path.write_bytes((tmp_path / "moved").read_bytes())
        for ask in (state.last_sequence, lambda: state.append([interaction("u2", "i2")])):
            with pytest.raises(StateError, match="moved, removed or replaced"):
                ask()
    (tmp_path / "moved").rename(path)
    assert state.append([interaction("u2", "i2")]).sequence == 2
    state.close()
