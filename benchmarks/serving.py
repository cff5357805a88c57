"""Requests a second of server CPU, beside a bare FastAPI route that returns the same bytes; durable writes a second.

Three servers stand side by side, each a process of its own with uvicorn's fastest loop and parser: the ceiling (a
FastAPI route that looks ready bytes up), `kdiffe serve` without kept lists, and `kdiffe serve` with them. The load
generator is another process on the same cores. Rounds alternate between the servers, so that a noisy machine disturbs
all alike; the figures are medians over the rounds, by the servers' own CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import quote

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))
os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

from benchmarks.processes import LENGTH, Server, cpu_of  # noqa: E402

CEILING, UNCACHED, CACHED = "bare FastAPI", "recommend", "recommend, cached"


# ---- the load generator, a process of its own ------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """One client: sends a request, reads its answer, sends the next one. By hand: a client library would cost more."""

    def __init__(self, load: Load) -> None:
        self._load = load
        self._buffer = b""
        self._began = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the first request."""
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        request = self._load.next()
        if request is None:
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        """Once the answer is whole, send the next request."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        length = LENGTH.search(self._buffer, 0, end)
        assert length is not None
        if len(self._buffer) < end + 4 + int(length.group(1)):
            return
        self._load.answered(int(self._buffer[9:12]), time.perf_counter() - self._began)
        self._buffer = b""
        self._ask()

    def connection_lost(self, error: Exception | None) -> None:  # noqa: ARG002 (asyncio calls it so)
        """Tell that nothing more comes."""
        self._load.left()


class Load:
    """So many connections for so many seconds."""

    def __init__(self, requests: Iterator[bytes], seconds: float) -> None:
        self._requests = requests
        self._end = time.monotonic() + seconds
        self._open = 0
        self._over = asyncio.Event()
        self.times: list[float] = []
        self.statuses: Counter[int] = Counter()

    def next(self) -> bytes | None:
        """The next request, None once the time is over."""
        return next(self._requests) if time.monotonic() < self._end else None

    def answered(self, status: int, seconds: float) -> None:
        """Note an answer."""
        self.statuses[status] += 1
        self.times.append(seconds)

    def left(self) -> None:
        """Note that a connection has ended."""
        self._open -= 1
        if self._open == 0:
            self._over.set()

    async def run(self, port: int, connections: int) -> None:
        """Open the connections and wait until all have ended."""
        loop = asyncio.get_running_loop()
        self._open = connections
        for _ in range(connections):
            await loop.create_connection(lambda: Connection(self), "127.0.0.1", port)
        await self._over.wait()


def reads(paths: list[str], seed: int) -> Iterator[bytes]:
    """Requests for lists of users drawn at random."""
    import random

    ready = [f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode() for path in paths]
    rng = random.Random(seed)  # noqa: S311 (no secret)
    while True:
        yield ready[int(rng.random() * len(ready))]


def writes(users: list[str], items: list[str], seed: int) -> Iterator[bytes]:
    """Requests with one interaction each, every one with a key of its own."""
    import random

    rng = random.Random(seed)  # noqa: S311 (no secret)
    number = 0
    while True:
        number += 1
        body = json.dumps({"user_id": rng.choice(users), "item_id": rng.choice(items), "id": f"{seed}-{number}"})
        head = f"POST /interactions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body.encode())}\r\n\r\n"
        yield (head + body).encode()


def generate(plan: dict[str, object]) -> None:
    """Put a server under load and print what it answered."""
    import numpy as np
    import uvloop

    seed, port = int(str(plan["seed"])), int(str(plan["port"]))
    names = json.loads(Path(str(plan["names"])).read_text(encoding="utf-8"))
    wanted = writes(names["users"], names["items"], seed) if plan["write"] else reads(names["paths"], seed)

    async def run() -> Load:
        load = Load(wanted, float(str(plan["seconds"])))
        await load.run(port, int(str(plan["connections"])))
        return load

    load = uvloop.run(run())
    p50, p99 = np.percentile(load.times, [50, 99]) * 1e3
    statuses = {str(status): count for status, count in load.statuses.items()}
    print(json.dumps({"requests": len(load.times), "p50_ms": p50, "p99_ms": p99, "statuses": statuses}))


# ---- the servers -----------------------------------------------------------------------------------------------------


def serve_ceiling(answers: Path) -> None:
    """A bare FastAPI route over ready bytes."""
    import uvicorn
    from fastapi import FastAPI, Response

    bodies = {user: body.encode() for user, body in json.loads(answers.read_text(encoding="utf-8")).items()}
    app = FastAPI()

    @app.get("/recommend/{user_id}")
    async def recommend(user_id: str, k: int = 20) -> Response:  # noqa: ARG001 (as the service has it)
        return Response(bodies[user_id], media_type="application/json")

    config = uvicorn.Config(app, port=0, loop="uvloop", http="httptools", access_log=False, log_level="info")
    uvicorn.Server(config).run()


@contextmanager
def server(log: Path, *words: str, **settings: str) -> Iterator[tuple[int, int]]:
    """A server as a process: its id and its port."""
    started = Server(log, *words, **settings)
    try:
        yield started.process.pid, started.port
    finally:
        started.end()


def under_load(pid: int, **plan: object) -> dict[str, float]:
    """A round: what a server answered, and what that cost it."""
    before = cpu_of(pid)
    ended = subprocess.run(
        [sys.executable, __file__, "--generate", json.dumps(plan)], capture_output=True, text=True, check=False
    )
    if ended.returncode:
        raise SystemExit(ended.stderr)
    told = json.loads(ended.stdout)
    cpu = cpu_of(pid) - before
    good = sum(count for status, count in told["statuses"].items() if status.startswith("2"))
    return {
        "requests_per_s": told["requests"] / float(str(plan["seconds"])),
        "refused": told["requests"] - good,
        "per_cpu_s": good / cpu,
        "cpu_us": cpu / max(good, 1) * 1e6,
        "p50_ms": told["p50_ms"],
        "p99_ms": told["p99_ms"],
    }


def summary(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {name: round(median(found[name] for found in rounds), 3) for name in rounds[0]}


def measure(options: argparse.Namespace, scratch: Path) -> dict[str, object]:
    """All servers, round after round."""
    import numpy as np

    from model_store.store import ModelStore

    artifact = ModelStore(options.store).open(None)
    rng = np.random.default_rng(options.seed)
    known = artifact.array("user_ids")
    users = [str(u) for u in rng.choice(known, min(options.users, len(known)), replace=False)]
    items = [str(i) for i in artifact.array("item_ids")]
    paths = [f"/recommend/{quote(user, safe='')}" for user in users]
    names = scratch / "names.json"
    names.write_text(json.dumps({"users": users, "items": items, "paths": paths}), encoding="utf-8")
    serve = (
        "-m",
        "model_store",
        "serve",
        "--store",
        str(options.store.resolve()),
        "--port",
        "0",
        "--log-level",
        "warning",
    )
    serve = (*serve, "--index", options.index)
    load = {"connections": options.connections, "seconds": options.seconds, "names": str(names)}

    def state(name: str) -> tuple[str, ...]:
        return (*serve, "--state", f"sqlite:///{scratch / name}.sqlite3")

    with (
        server(scratch / "uncached.log", *state("uncached"), KDIFFE_CACHED_LISTS="0") as uncached,
        server(scratch / "cached.log", *state("cached"), KDIFFE_CACHED_LISTS=str(len(users))) as cached,
    ):
        answers = {}
        for user, path in zip(users, paths, strict=True):  # this fills the cache, too
            with urllib.request.urlopen(f"http://127.0.0.1:{cached[1]}{path}") as answer:
                answers[user] = answer.read().decode()
        ready = scratch / "answers.json"
        ready.write_text(json.dumps(answers), encoding="utf-8")
        with server(scratch / "ceiling.log", __file__, "--ceiling", str(ready)) as ceiling:
            servers = {CEILING: ceiling, UNCACHED: uncached, CACHED: cached}
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
            for number in range(options.rounds + 1):
                for name, (pid, port) in servers.items():
                    found = under_load(pid, port=port, write=False, seed=number, **load)
                    assert not found["refused"], found
                    if number:  # the first round warms up
                        rounds[name].append(found)
    with server(scratch / "writes.log", *state("writes")) as (pid, port):
        under_load(pid, port=port, write=True, seed=-1, **{**load, "seconds": 1.0})
        written = [under_load(pid, port=port, write=True, seed=n, **load) for n in range(options.rounds)]
    figures = {name: summary(found) for name, found in rounds.items()}
    ratios = {}
    for name in (UNCACHED, CACHED):
        pairs = list(zip(rounds[name], rounds[CEILING], strict=True))
        ratios[name] = {
            "requests_per_cpu_s_to_ceiling": round(median(a["per_cpu_s"] / b["per_cpu_s"] for a, b in pairs), 3),
            "p99_to_ceiling": round(median(a["p99_ms"] / b["p99_ms"] for a, b in pairs), 3),
        }
    return {
        "version": artifact.version,
        "users": artifact.manifest.n_users,
        "items": artifact.manifest.n_items,
        "width": artifact.manifest.width,
        "index": options.index,
        "lists": len(users),
        "connections": options.connections,
        "rounds": options.rounds,
        "seconds": options.seconds,
        "bytes": round(sum(map(len, answers.values())) / len(answers)),
        "reads": figures,
        "ratios": ratios,
        "interactions": {**summary(written), "best_per_s": round(max(found["requests_per_s"] for found in written))},
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, help="a model store with an active version")
    parser.add_argument("--users", type=int, default=2000, help="whose lists are asked for; all where there are fewer")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--index", default="faiss", choices=("faiss", "exact"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--generate", help=argparse.SUPPRESS)
    parser.add_argument("--ceiling", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(json.loads(options.generate))
    elif options.ceiling:
        serve_ceiling(options.ceiling)
    elif options.store is None:
        parser.error("--store is missing")
    else:
        scratch = Path(tempfile.mkdtemp(prefix="kdiffe-serving-"))
        try:
            print(json.dumps(measure(options, scratch), indent=2))
        finally:
            shutil.rmtree(scratch, ignore_errors=True)


if __name__ == "__main__":
    main()
