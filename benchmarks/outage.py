"""Redis gone for a while under load: are reads answered, are writes refused cleanly, is all well afterwards?

    outage.py [--how killed|frozen] [--seconds 10] [--workers 2] [--store MODELS]

`kdiffe serve --workers N` on a Redis server (appendfsync always), under readers and writers. The server is killed and
started again, or stopped as by SIGSTOP: then connections stay open and nobody answers. One JSON object for each; the
status is 1 where a read failed, a write was answered otherwise than 202 or 503 with Retry-After, something acknowledged
is lost or counts twice, or the workers don't hold the same bits in the end.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.processes import Connection, Server  # noqa: E402
from benchmarks.workers import copied, each_worker, ids_of  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from service.state import open_state  # noqa: E402
from tests.support.artifacts import World, publish_world  # noqa: E402
from tests.support.redis_server import ALWAYS, RedisServer  # noqa: E402

# Seconds of load before the outage and after it; pauses of readers and writers between two requests.
STEADY = 5.0
READ_PAUSE, WRITE_PAUSE = 0.005, 0.01
# Seconds until writes must be taken again.
PATIENCE = 60.0


class Answer(NamedTuple):
    """What became of a request.

    Attributes:
        sent, came: moments of time.monotonic().
        status: of HTTP; 0 where the connection broke.
        mark: X-KDiffE-Degraded of a read, Retry-After of a write; empty where there is none.
    """

    sent: float
    came: float
    status: int
    mark: str


@dataclass
class Load:
    """Readers and writers of one server."""

    port: int
    users: list[str]
    items: list[str]
    reads: list[Answer] = field(default_factory=list)
    writes: list[Answer] = field(default_factory=list)
    acknowledged: set[str] = field(default_factory=set)
    over: bool = False

    async def read(self, number: int) -> None:
        """Ask for lists, one after the other."""
        rng = np.random.default_rng(number)
        connection = await Connection.open(self.port)
        while not self.over:
            path = f"/recommend/{self.users[rng.integers(len(self.users))]}"
            self.reads.append(await _asked(connection, "GET", path, b"", "x-kdiffe-degraded"))
            await asyncio.sleep(READ_PAUSE)
        connection.close()

    async def write(self, number: int) -> None:
        """Send interactions, each until it is acknowledged."""
        rng = np.random.default_rng([1, number])
        connection = await Connection.open(self.port)
        count = 0
        while not self.over:
            key = f"{number}-{count}"
            body = {"user_id": f"w{number}", "item_id": self.items[rng.integers(len(self.items))], "id": key}
            answer = await _asked(connection, "POST", "/interactions", json.dumps(body).encode(), "retry-after")
            self.writes.append(answer)
            if answer.status == 202:
                self.acknowledged.add(key)
                count += 1
            await asyncio.sleep(WRITE_PAUSE)
        connection.close()

    def acknowledged_since(self, moment: float) -> bool:
        """Whether a write that was sent after a moment was acknowledged."""
        return any(answer.status == 202 and answer.sent > moment for answer in reversed(self.writes))

    def unmarked_since(self, moment: float) -> bool:
        """Whether the latest reads, sent after a moment, are no longer marked."""
        last = self.reads[-50:]
        return len(last) == 50 and last[0].sent > moment and not any(answer.mark for answer in last)


async def _asked(connection: Connection, method: str, path: str, body: bytes, header: str) -> Answer:
    sent = time.monotonic()
    try:
        status, head, _ = await connection.answer(method, path, body)
    except (OSError, asyncio.IncompleteReadError):
        return Answer(sent, time.monotonic(), 0, "")
    found = re.search(rf"^{header}: *(.*?)\r$", head.decode(), re.MULTILINE | re.IGNORECASE)
    return Answer(sent, time.monotonic(), status, "" if found is None else found.group(1))


async def _disturb(load: Load, redis: RedisServer, options: argparse.Namespace, how: str) -> tuple[float, float]:
    """Run the load through an outage. When it began, and when it was over."""
    tasks = [asyncio.create_task(load.read(n)) for n in range(1, options.readers + 1)]
    tasks += [asyncio.create_task(load.write(n)) for n in range(1, options.writers + 1)]
    await asyncio.sleep(STEADY)
    began = time.monotonic()
    await asyncio.to_thread(redis.kill if how == "killed" else redis.freeze)
    await asyncio.sleep(options.seconds)
    await asyncio.to_thread(redis.start if how == "killed" else redis.thaw)
    back = time.monotonic()
    while not (load.acknowledged_since(back) and load.unmarked_since(back)):
        if time.monotonic() > back + PATIENCE:
            break
        await asyncio.sleep(0.02)
    await asyncio.sleep(STEADY)
    load.over = True
    await asyncio.gather(*tasks)
    return began, back


def outage(options: argparse.Namespace, how: str) -> dict[str, object]:
    """One outage, in figures."""
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(*ALWAYS))
        directory = stack.enter_context(copied(options.store))
        service = Server.of_store(directory, "--state", redis.url(), workers=options.workers)
        stack.callback(service.kill)
        load = Load(service.port, *ids_of(directory))
        began, back = uvloop.run(_disturb(load, redis, options, how))
        state = open_state(redis.url())
        last = state.last_sequence()
        keys = Counter(entry.event_id for entry in state.read(0, last))
        state.close()
        deadline = time.monotonic() + PATIENCE
        while True:
            told = each_worker(service, "/admin/digest", options.workers).values()
            if {it["sequence"] for it in told} == {last} or time.monotonic() > deadline:
                break
        bits = {(it["sequence"], it["state"]) for it in told}
    during = [answer for answer in load.reads if began <= answer.sent and answer.came <= back]
    refused = [answer for answer in load.writes if answer.status == 503]
    first = min((a.came for a in load.writes if a.status == 202 and a.sent > back), default=np.inf)
    return {
        "how": how,
        "seconds": round(back - began, 2),
        "reads": _statuses(load.reads),
        "reads_during": len(during),
        "reads_during_marked": sum(bool(answer.mark) for answer in during),
        "unmarked_for_s": round(max((a.came for a in during if not a.mark), default=began) - began, 3),
        "read_ms": {
            "before": _quantiles([a for a in load.reads if a.came < began]),
            "during": _quantiles(during),
        },
        "writes": _statuses(load.writes),
        "refused_without_retry_after": sum(not answer.mark for answer in refused),
        "refused_longest_s": round(max((a.came - a.sent for a in refused), default=0.0), 3),
        "acknowledged": len(load.acknowledged),
        "acknowledged_during": sum(a.status == 202 and a.sent > began and a.came < back for a in load.writes),
        "acknowledged_and_lost": len(load.acknowledged - set(keys)),
        "counted_twice": sum(count > 1 for count in keys.values()),
        "first_write_after_s": round(first - back, 3),
        "marked_after_s": round(max((a.came for a in load.reads if a.mark), default=back) - back, 3),
        "different_digests": len(bits),
    }


def _statuses(answers: list[Answer]) -> dict[str, int]:
    return {str(status): count for status, count in sorted(Counter(answer.status for answer in answers).items())}


def _quantiles(answers: list[Answer]) -> dict[str, float]:
    times = np.array([1000 * (answer.came - answer.sent) for answer in answers])
    return {name: round(float(np.quantile(times, q)), 2) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1.0))}


def falls_short(found: dict[str, object]) -> bool:
    """Whether an outage has cost more than it may."""
    zero = ("refused_without_retry_after", "acknowledged_during", "acknowledged_and_lost", "counted_twice")
    return (
        set(found["reads"]) != {"200"}  # type: ignore[call-overload]
        or not set(found["writes"]) <= {"202", "503"}  # type: ignore[call-overload]
        or any(found[name] for name in zero)
        or found["first_write_after_s"] == np.inf
        or found["different_digests"] != 1
    )


def main() -> None:
    """Run the outages and print one JSON object for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--how", choices=("killed", "frozen"), help="both, one after the other, where it is not given")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long Redis is away")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--readers", type=int, default=6)
    parser.add_argument("--writers", type=int, default=4)
    parser.add_argument("--store", type=Path, help="its active version is served; a small random one if none")
    options = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory(prefix="kdiffe-outage-") as folder:
        if options.store is None:
            options.store = ModelStore(Path(folder)).root
            publish_world(options.store, World())
        for how in [options.how] if options.how else ["killed", "frozen"]:
            found = outage(options, how)
            failed |= falls_short(found)
            print(json.dumps(found), flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
