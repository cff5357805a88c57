"""Durable writes a second: by the state store itself, and by `POST /interactions`, one interaction a request.

The load generator (a process of its own) runs on the same cores; its CPU time and the server's are told apart.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks.processes import Connection, Server  # noqa: E402
from service.state import open_state  # noqa: E402
from service.state.port import Interaction  # noqa: E402
from tests.support.artifacts import World, publish_world  # noqa: E402
from tests.support.redis_server import ALWAYS, RedisServer  # noqa: E402


def percentiles(times: list[float]) -> dict[str, float]:
    """Milliseconds."""
    p50, p99 = np.percentile(times, [50, 99]) * 1e3
    return {"p50_ms": round(p50, 2), "p99_ms": round(p99, 2)}


def by_the_store(url: str, clients: int, seconds: float) -> dict[str, object]:
    """Threads that append one interaction at a time."""
    state = open_state(url)
    times: list[float] = []
    end = time.monotonic() + seconds

    def work(t: int) -> None:
        n = 0
        while (began := time.monotonic()) < end:
            state.append([Interaction(f"u{t}", f"i{n % 500}", 0.0, "play", f"store-{t}-{n}")])
            times.append(time.monotonic() - began)
            n += 1

    threads = [threading.Thread(target=work, args=(t,)) for t in range(clients)]
    before = resource.getrusage(resource.RUSAGE_SELF)
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = resource.getrusage(resource.RUSAGE_SELF)
    state.close()
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {
        "writes_per_s": round(len(times) / seconds),
        **percentiles(times),
        "cpu_us_a_write": round(cpu / len(times) * 1e6),
    }


async def post(port: int, clients: int, seconds: float) -> list[float]:
    """Connections that post one interaction after the other."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def work(c: int) -> None:
        connection = await Connection.open(port)
        n = 0
        while (began := time.monotonic()) < end:
            body = json.dumps({"user_id": f"u{c * 7 + n % 97}", "item_id": f"i{n % 500}", "id": f"{c}-{n}"}).encode()
            status, answer = await connection.ask("POST", "/interactions", body)
            if status != 202:
                raise SystemExit(answer.decode())
            times.append(time.monotonic() - began)
            n += 1
        connection.close()

    await asyncio.gather(*(work(c) for c in range(clients)))
    return times


def by_http(store: Path, url: str, clients: int, seconds: float) -> dict[str, object]:
    """`kdiffe serve` on a store."""
    server = Server.of_store(store, "--state", url, "--index", "exact")
    try:
        asyncio.run(post(server.port, 2, 0.5))
        before = server.cpu_s
        times = asyncio.run(post(server.port, clients, seconds))
        cpu = server.cpu_s - before
    finally:
        server.end()
    return {
        "writes_per_s": round(len(times) / seconds),
        **percentiles(times),
        "server_cpu_us_a_write": round(cpu / len(times) * 1e6),
        "server_cpu_share": round(cpu / seconds, 2),
    }


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--subject", choices=("sqlite", "redis"), default="sqlite")
    parser.add_argument("--store", type=Path, help="a model store; a small world where none is named")
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="kdiffe-writes-"))
    server = RedisServer(*ALWAYS) if options.subject == "redis" else None
    try:
        store = options.store or directory
        if options.store is None:
            publish_world(store, World(n_users=2000, n_items=1000, n_interactions=20000))
        urls = [server.url(name) if server else f"sqlite:///{directory}/{name}.sqlite3" for name in ("a", "b")]
        report = {
            "subject": options.subject,
            "clients": options.clients,
            "store": by_the_store(urls[0], options.clients, options.seconds),
            "http": by_http(store, urls[1], options.clients, options.seconds),
        }
    finally:
        if server:
            server.close()
        shutil.rmtree(directory, ignore_errors=True)
    print(json.dumps(report))


if __name__ == "__main__":
    main()
