"""Rounds of kill -9 at random moments: is anything lost that was acknowledged, does anything count twice?

    crash.py --subject sqlite|redis|models [--level store|service] [--rounds N]

`--level store`: a process of its own writes to the state store with several threads. `service`: `kdiffe serve` under
HTTP load; but for each 20th, its processes are forks of one that has loaded the libraries, as several workers are:
loading them takes longer than all the rest of a round. Of Redis, the server is killed, too
(appendonly yes, appendfsync always). `models`: a process publishes, activates, rolls back, undoes, tries out and prunes
versions; the store must open on a whole one.

A writer that was killed sends what was not acknowledged again in the next round, with the same idempotency key.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.processes import HOST, ONE_THREAD, SERVING  # noqa: E402
from model_store.experiment import Arm  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from service.errors import StateError  # noqa: E402
from service.state import open_state  # noqa: E402
from service.state.port import Interaction  # noqa: E402
from tests.support.artifacts import World, publish_world  # noqa: E402
from tests.support.redis_server import ALWAYS, RedisServer  # noqa: E402

READ = 10_000
# Each such start of a service is a whole one: a new process of `kdiffe serve`.
WHOLE = 20


# ---- the processes that are killed -----------------------------------------------------------------------------------


def write(url: str, begins: list[int]) -> None:
    """Write to a state store for ever: thread t sends t-n, t-n+1, … and says each number that was acknowledged."""
    state = open_state(url)

    def work(t: int, n: int) -> None:
        while True:
            try:
                state.append([Interaction(f"u{t}", f"i{n % 50}", 0.0, "play", f"{t}-{n}")])
            except StateError:
                time.sleep(0.01)
                continue
            os.write(1, f"{t} {n}\n".encode())
            n += 1

    for t, n in enumerate(begins):
        threading.Thread(target=work, args=(t, n), daemon=True).start()
    threading.Event().wait()


def fork_services(log: str, words: list[str]) -> None:
    """Load all that `kdiffe serve` loads; for each line that is read, a fork serves, or (`kill`) is killed."""
    from service.commands import serve
    from service.leash import bind_to

    serve.limit_memory()
    serve.load_everything()
    gc.freeze()

    def work(parent: int) -> None:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND)
        os.dup2(descriptor, 1)
        os.dup2(descriptor, 2)
        if bind_to(parent):
            from model_store.command import main as kdiffe

            kdiffe(["serve", *words])

    fork = multiprocessing.get_context("fork")
    running = None
    os.write(1, b"loaded\n")
    for line in sys.stdin:
        if line.strip() == "kill":
            if running is not None:
                running.kill()
                running.join()
        else:
            running = fork.Process(target=work, args=(os.getpid(),))
            running.start()
        os.write(1, b"done\n")


def publish(root: str, seed: int) -> None:
    """Publish, activate, roll back, undo, try out and prune for ever; says when each is done."""
    store = ModelStore(Path(root))
    choose = random.Random(seed)  # noqa: S311

    def add() -> None:
        publish_world(store.root, World(seed=choose.randrange(1000)), activate=choose.random() < 0.5)

    def activate() -> None:
        change = store.activate(choose.choice(store.versions()))
        if change is not None and choose.random() < 0.5:
            store.undo(change)

    def try_out() -> None:
        store.set_experiment(str(seed), [Arm("b", choose.choice(store.versions()), choose.random())])

    def roll_back() -> None:
        if store.previous() is not None:
            store.rollback()

    os.write(1, b"0 0\n")
    while True:
        choose.choice([add, activate, try_out, roll_back, lambda: store.prune(3)])()
        os.write(1, b"0 0\n")


class Process:
    """A process that says what was acknowledged, one "thread number" a line."""

    def __init__(self, *words: str) -> None:
        self.process = subprocess.Popen([sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True)
        self.first = threading.Event()
        self.acknowledged: list[tuple[int, int]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):
                    t, n = line.split()
                    self.acknowledged.append((int(t), int(n)))
                    self.first.set()
        self.first.set()

    def kill(self) -> list[tuple[int, int]]:
        """Kill it. What it had acknowledged."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        return self.acknowledged


class Services:
    """Starts and kills `kdiffe serve`: whole processes, or forks of one that has loaded everything."""

    def __init__(self, store: Path, url: str) -> None:
        self.log = store / "serve.log"
        self.log.touch()
        self.starts = 0
        self._words = ["--store", str(store), "--port", "0", "--state", url, "--index", "exact"]
        self._whole: subprocess.Popen[bytes] | None = None
        self._forks = subprocess.Popen(
            [sys.executable, __file__, "--fork", str(self.log), *self._words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **ONE_THREAD},
        )
        self._answer()

    def start(self) -> int:
        """Start one. Its port."""
        self.starts += 1
        self.log.write_bytes(b"")
        if self.starts % WHOLE == 1:
            with self.log.open("ab") as log:
                command = [sys.executable, "-m", "model_store", "serve", *self._words]
                self._whole = subprocess.Popen(command, stdout=log, stderr=log)
        else:
            self._tell(b"start\n")
        deadline = time.monotonic() + 120
        while (found := SERVING.search(self.log.read_text())) is None:
            if (self._whole and self._whole.poll() is not None) or time.monotonic() > deadline:
                raise SystemExit(f"the service did not start:\n{self.log.read_text()[-3000:]}")
            time.sleep(0.005)
        return int(found.group(2))

    def kill(self) -> None:
        """Kill it."""
        if self._whole is not None:
            self._whole.kill()
            self._whole.wait()
            self._whole = None
        else:
            self._tell(b"kill\n")

    def close(self) -> None:
        """Kill it, and who forks."""
        self.kill()
        self._forks.kill()
        self._forks.communicate()

    def _tell(self, line: bytes) -> None:
        assert self._forks.stdin is not None
        self._forks.stdin.write(line)
        self._forks.stdin.flush()
        self._answer()

    def _answer(self) -> None:
        assert self._forks.stdout is not None
        if not self._forks.stdout.readline():
            raise SystemExit(f"who forks services has ended:\n{self.log.read_text()[-3000:]}")


class Service:
    """A service under load by threads of this process."""

    def __init__(self, services: Services, begins: list[int]) -> None:
        self._services = services
        self._port = services.start()
        status, told = asked(HTTPConnection(HOST, self._port), "GET", "/health/ready")
        assert status == 200, told
        self.applied = int(told["sequence"])
        self.first = threading.Event()
        self.acknowledged: list[tuple[int, int]] = []
        self._ended = False
        self._threads = [threading.Thread(target=self._work, args=(t, n)) for t, n in enumerate(begins)]
        for thread in self._threads:
            thread.start()

    def _work(self, t: int, n: int) -> None:
        connection = HTTPConnection(HOST, self._port, timeout=30)
        while not self._ended:
            body = {"user_id": f"u{t}", "item_id": f"i{n % 50}", "id": f"{t}-{n}"}
            try:
                status, _ = asked(connection, "POST", "/interactions", body)
            except (OSError, HTTPException):
                break
            if status == 202:
                self.acknowledged.append((t, n))
                self.first.set()
                n += 1
            elif status == 503:
                time.sleep(0.01)
            else:
                raise SystemExit(f"unexpected status {status}")
        connection.close()

    def kill(self) -> list[tuple[int, int]]:
        """Kill it. What it had acknowledged."""
        self._services.kill()
        self._ended = True
        for thread in self._threads:
            thread.join()
        return self.acknowledged


def asked(connection: HTTPConnection, method: str, path: str, body: object = None) -> tuple[int, Any]:
    """What a request is answered: its status and its JSON. A client library would cost more than the service."""
    connection.request(method, path, None if body is None else json.dumps(body))
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


# ---- the books -------------------------------------------------------------------------------------------------------


@dataclass
class Books:
    """What was acknowledged, and what the log holds.

    Attributes:
        begins: each thread's first number that was not acknowledged.
        counts: how often the log holds each key.
        last: the log's last sequence number that was read.
        set_back: rounds after which the log was shorter than before.
        gaps: rounds after which the log had a gap.
        start_s: seconds of each start of the store.
    """

    begins: list[int]
    counts: Counter[str] = field(default_factory=Counter)
    last: int = 0
    set_back: int = 0
    gaps: int = 0
    start_s: list[float] = field(default_factory=list)

    def acknowledge(self, told: list[tuple[int, int]]) -> None:
        """Note what was acknowledged."""
        for t, n in told:
            self.begins[t] = max(self.begins[t], n + 1)

    def check(self, url: str) -> None:
        """Open the state and read what is new."""
        began = time.perf_counter()
        state = open_state(url)
        self.start_s.append(time.perf_counter() - began)
        try:
            if state.last_sequence() < self.last:
                self.set_back += 1
                self.counts.clear()
                self.last = 0
            while entries := state.read(self.last, READ):
                self.gaps += [e.sequence for e in entries] != list(range(self.last + 1, self.last + 1 + len(entries)))
                self.counts.update(str(entry.event_id) for entry in entries)
                self.last = entries[-1].sequence
        finally:
            state.close()

    def lost(self) -> int:
        """How many keys were acknowledged and are not in the log."""
        return sum(self.counts[f"{t}-{n}"] == 0 for t, begin in enumerate(self.begins) for n in range(begin))

    def twice(self) -> int:
        """How many keys stand in the log more than once."""
        return sum(count > 1 for count in self.counts.values())


def state_rounds(options: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Kill writers, and Redis."""
    choose = random.Random(options.seed)  # noqa: S311
    books = Books([0] * options.threads)
    killed: Counter[str] = Counter()
    behind = 0
    writers: list[Process | Service] = []
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer(*ALWAYS)) if options.subject == "redis" else None
        url = server.url() if server else f"sqlite:///{directory}/state.sqlite3"
        services = None
        if options.level == "service":
            publish_world(directory)
            services = Services(directory, url)
            stack.callback(services.close)
        # Ctrl-C leaves nobody behind.
        stack.callback(lambda: [writer.kill() for writer in writers[-1:]])
        for number in range(options.rounds):
            before = books.last
            writer: Process | Service
            if services is not None:
                writer = Service(services, books.begins)
                behind += writer.applied < before
            else:
                writer = Process("--write", url, *map(str, books.begins))
            writers[:] = [writer]
            if choose.random() < 0.2:
                killed["while it starts"] += 1
                time.sleep(choose.uniform(0, 0.4))
            else:
                writer.first.wait(60)
                time.sleep(choose.uniform(0, options.longest))
            what = choose.choice(["server", "both"]) if server and choose.random() < 2 / 3 else "writer"
            killed[what] += 1
            if server and what != "writer":
                server.kill()
                if what == "both":
                    books.acknowledge(writer.kill())
                server.start()
                time.sleep(choose.uniform(0, options.longest))
            if what != "both":
                books.acknowledge(writer.kill())
            books.check(url)
            if (number + 1) % 10 == 0:
                told = f"{sum(books.begins)} acknowledged, {books.lost()} lost, {books.twice()} twice"
                sys.stderr.write(f"round {number + 1}: {told}\n")
    starts = sorted(books.start_s)
    return {
        "killed": dict(killed),
        "acknowledged": sum(books.begins),
        "in_the_log": books.last,
        "acknowledged_and_lost": books.lost(),
        "counted_twice": books.twice(),
        "logs_set_back": books.set_back,
        "gaps": books.gaps,
        "services_behind": behind,
        "store_opens_s": {"median": round(starts[len(starts) // 2], 4), "max": round(starts[-1], 4)},
    }


def model_rounds(options: argparse.Namespace, directory: Path) -> dict[str, object]:
    """Kill publishers in the middle of what they do; after each, the active version and every other is whole."""
    choose = random.Random(options.seed)  # noqa: S311
    publish_world(directory)
    store = ModelStore(directory)
    broken = changes = 0
    versions: set[str] = set()
    for number in range(options.rounds):
        writer = Process("--publish", str(directory), str(number))
        try:
            writer.first.wait(120)
            began, wanted = time.monotonic(), choose.randrange(1, 10)
            while len(writer.acknowledged) <= wanted and writer.process.poll() is None:
                time.sleep(0.001)
            # Somewhere in what comes next, however long that takes on this machine.
            time.sleep(choose.uniform(0, 2 * (time.monotonic() - began) / wanted))
            if writer.process.poll() is not None:
                broken += 1
                sys.stderr.write(f"round {number + 1}: the publisher has ended by itself\n")
        finally:
            changes += len(writer.kill()) - 1
        try:
            store.open().verify()
            for version in store.versions():
                store.open(version).verify()
                versions.add(version)
            store.check_writable()
        except Exception as error:
            broken += 1
            sys.stderr.write(f"round {number + 1}: {error}\n")
    publish_world(directory)  # its clean-up takes away what the killed ones left
    left = [path.name for path in directory.iterdir() if path.name.startswith(".") and path.name != ".lock"]
    return {
        "changes": changes,
        "versions": len(versions),
        "rounds_with_a_broken_store": broken,
        "left_behind": left,
    }


def main() -> None:
    """Run the rounds and print one JSON object; the status is 1 where anything was lost, doubled or broken."""
    if sys.argv[1:2] == ["--write"]:
        write(sys.argv[2], [int(word) for word in sys.argv[3:]])
    if sys.argv[1:2] == ["--fork"]:
        return fork_services(sys.argv[2], sys.argv[3:])
    if sys.argv[1:2] == ["--publish"]:
        publish(sys.argv[2], int(sys.argv[3]))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--subject", choices=("sqlite", "redis", "models"), required=True)
    parser.add_argument("--level", choices=("store", "service"), default="store")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--threads", type=int, default=8, help="writers at a time")
    parser.add_argument("--longest", type=float, default=0.5, help="most seconds of load before a kill")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--directory", type=Path, help="an empty folder on the disk to be tried; a temporary one if none"
    )
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    directory = options.directory or Path(tempfile.mkdtemp(prefix="kdiffe-crash-"))
    began = time.monotonic()
    try:
        found = (model_rounds if options.subject == "models" else state_rounds)(options, directory)
    finally:
        if options.directory is None:
            shutil.rmtree(directory, ignore_errors=True)
    level = {} if options.subject == "models" else {"level": options.level}
    seconds = round(time.monotonic() - began, 1)
    print(json.dumps({"subject": options.subject, **level, "rounds": options.rounds, **found, "seconds": seconds}))
    bad = ("acknowledged_and_lost", "counted_twice", "logs_set_back", "gaps", "services_behind")
    sys.exit(any(found.get(name) for name in (*bad, "rounds_with_a_broken_store", "left_behind")))


if __name__ == "__main__":
    main()
