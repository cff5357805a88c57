"""Workers: what a further one costs, how soon a write is seen, readers beside writers, and version swaps under load.

    workers.py memory   --store MODELS [--workers N]      private memory of each worker, at rest and after a refresh
    workers.py visible  --store MODELS [--workers N]      from an acknowledged write to the last worker's list
    workers.py load     --store MODELS [--seconds S]      reads alone and beside 500 writes a second, and settling
    workers.py swaps    --store MODELS [--swaps N]        activations of two copies of the active version under load
    workers.py rollback --store MODELS [--swaps N]        roll backs under load: the call, and until all workers follow
    workers.py replay   --store MODELS [--writes N]       a start with so many interactions to replay, and with none

Every section prints one JSON object. A copy of the store's active version is served; the store is left alone. With
`--data DIR` in the place of `--store`, a version over the graph of that data set, its embeddings random.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import re
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import httpx
import numpy as np
import uvloop

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.graphs import new_edges, publish, read_graph  # noqa: E402
from benchmarks.processes import Connection, Server, memory_mb  # noqa: E402
from model_store.artifact import Artifact  # noqa: E402
from model_store.manifest import FILE_NAME, Manifest  # noqa: E402
from model_store.store import ModelStore  # noqa: E402
from service.state import open_state  # noqa: E402
from service.state.port import Interaction, StateStore  # noqa: E402

# ---- the service -----------------------------------------------------------------------------------------------------


def each_worker(service: Server, path: str, count: int) -> dict[int, dict[str, object]]:
    """What every worker answers, by its process id; over new connections until all have been met."""
    found: dict[int, dict[str, object]] = {}
    deadline = time.monotonic() + 600
    while len(found) < count:
        if time.monotonic() > deadline:
            raise SystemExit(f"only {len(found)} workers answer")
        told = httpx.get(f"{service.url}{path}", timeout=600).json()
        found[int(told["worker"])] = told
    return found


@contextmanager
def connected(service: Server, count: int) -> Iterator[list[httpx.Client]]:
    """A client for each worker: a connection that is kept stays with its worker."""
    clients: dict[int, httpx.Client] = {}
    try:
        while len(clients) < count:
            client = httpx.Client(base_url=service.url, timeout=120)
            pid = int(client.get("/admin/digest").json()["worker"])
            if pid in clients:
                client.close()
            clients.setdefault(pid, client)
        yield list(clients.values())
    finally:
        for client in clients.values():
            client.close()


@contextmanager
def copied(store: Path, versions: int = 1) -> Iterator[Path]:
    """A store of its own with copies of the active version."""
    source = ModelStore(store).open()
    with tempfile.TemporaryDirectory(prefix="kdiffe-workers-") as folder:
        models = ModelStore(Path(folder))

        def write(directory: Path, version: str) -> None:
            shutil.copytree(source.directory, directory, dirs_exist_ok=True)
            described = json.loads((directory / FILE_NAME).read_text(encoding="utf-8"))
            described["version"] = version
            (directory / FILE_NAME).write_text(json.dumps(described), encoding="utf-8")
            Manifest.from_json((directory / FILE_NAME).read_text(encoding="utf-8"), "copy")

        for number in range(versions):
            models.publish(write, activate=number == 0)
        yield Path(folder)


def ids_of(store: Path) -> tuple[list[str], list[str]]:
    """Users and items of the active version."""
    artifact = ModelStore(store).open()
    return artifact.array("user_ids").tolist(), artifact.array("item_ids").tolist()


# ---- sections --------------------------------------------------------------------------------------------------------


def memory(options: argparse.Namespace) -> dict[str, object]:
    """Private memory of each worker: loaded, after some reads, and after writes with two refreshes."""
    users, items = ids_of(options.store)
    rng = random.Random(0)  # noqa: S311
    with copied(options.store) as directory:
        service = Server.of_store(directory, workers=options.workers)
        try:
            loaded = [memory_mb(pid) for pid in service.pids]
            for user in rng.sample(users, min(300, len(users))):
                httpx.get(f"{service.url}/recommend/{user}")
            read = [memory_mb(pid) for pid in service.pids]
            with httpx.Client(base_url=service.url, timeout=60) as client:
                for _ in range(25):
                    batch = [{"user_id": rng.choice(users), "item_id": rng.choice(items)} for _ in range(10)]
                    client.post("/interactions", json={"interactions": batch}).raise_for_status()
            deadline = time.monotonic() + 600
            while True:
                told = each_worker(service, "/admin/digest", options.workers)
                if {(it["sequence"], it["refreshed_at"]) for it in told.values()} == {(250, 200)}:
                    break
                assert time.monotonic() < deadline, told
            refreshed = [memory_mb(pid) for pid in service.pids]
            same = len({(it["sequence"], it["state"], it["refreshed_at"], it["readout"]) for it in told.values()})
        finally:
            service.end()
    version = ModelStore(options.store).open()
    arrays = sum(entry.bytes for entry in version.manifest.arrays.values())
    return {
        "set": version.manifest.data.get("name"),
        "width": version.manifest.width,
        "artifact_mb": round(arrays / 2**20, 1),
        "workers": options.workers,
        "uss_mb": {
            "loaded": [it["uss"] for it in loaded],
            "after reads": [it["uss"] for it in read],
            "after 250 writes and 2 refreshes": [it["uss"] for it in refreshed],
        },
        "rss_mb": [it["rss"] for it in refreshed],
        "different_digests": same,
    }


def visible(options: argparse.Namespace) -> dict[str, object]:
    """Seconds from an acknowledgement until every worker's answer has the sequence number."""
    users, items = ids_of(options.store)
    rng = random.Random(0)  # noqa: S311
    with copied(options.store) as directory:
        service = Server.of_store(directory, workers=options.workers)
        at_writer, elsewhere, asked = 0, [], []
        try:
            with connected(service, options.workers) as (first, *others):
                for n in range(options.writes):
                    user = rng.choice(users)
                    body = {"user_id": user, "item_id": rng.choice(items)}
                    sequence = first.post("/interactions", json=body).json()["sequence"]
                    told = time.monotonic()
                    at_writer += first.get(f"/recommend/{user}").json()["sequence"] >= sequence
                    if n % 2:
                        for other in others:
                            began = time.monotonic()
                            answer = other.get(f"/recommend/{user}?at_least={sequence}")
                            asked.append(time.monotonic() - began)
                            assert answer.status_code == 200
                        continue
                    for other in others:
                        while other.get(f"/recommend/{user}").json()["sequence"] < sequence:
                            time.sleep(0.002)
                        elsewhere.append(time.monotonic() - told)
        finally:
            service.end()
    return {
        "workers": options.workers,
        "writes": options.writes,
        "seen_at_the_writer_at_once": at_writer,
        "seen_elsewhere_s": quantiles(elsewhere),
        "with_at_least_s": quantiles(asked),
    }


def load(options: argparse.Namespace) -> dict[str, object]:
    """Reads alone and beside writes, in turn, and how long everything takes to settle after the last write.

    Readers and writers keep to their rates whatever the answers take; a read's time begins when it is due. Nothing is
    kept as bytes, so that every list is made.
    """
    gc.disable()  # this process's own collections, over the tasks of all requests, would count as the service's stalls
    with copied(options.store) as directory:
        service = Server.of_store(directory, KDIFFE_CACHED_LISTS="0")
        try:
            found = uvloop.run(_take_turns(service, ModelStore(directory).open(), options))
        finally:
            service.end()
    return {
        "set": ModelStore(options.store).open().manifest.data.get("name"),
        "reads_per_s": options.reads,
        "writes_per_s": options.rate,
        "seconds": options.seconds,
        **found,
    }


async def _take_turns(service: Server, artifact: Artifact, options: argparse.Namespace) -> dict[str, object]:
    rng = np.random.default_rng(options.seed)
    users, items = artifact.array("user_ids").tolist(), artifact.array("item_ids").tolist()
    span = options.seconds / options.turns
    statuses: dict[str, Counter[int]] = {"reads": Counter(), "writes": Counter()}
    settled: list[float] = []
    cpu: dict[str, list[float]] = {"alone": [], "beside writes": []}
    times: dict[str, list[float]] = {"alone": [], "beside writes": [], "writes": []}

    def reading(into: list[float], seconds: float) -> Awaitable[float]:
        asked = [
            ("GET", f"/recommend/{users[row]}", b"")
            for row in rng.integers(0, len(users), int(seconds * options.reads))
        ]
        return _at_a_rate(service.port, options.readers, asked, options.reads, into, statuses["reads"])

    def writing(seconds: float) -> Awaitable[float]:
        ends = zip(
            *(rows.tolist() for rows in new_edges(rng, artifact.graph(), int(seconds * options.rate))), strict=True
        )
        told = [json.dumps({"user_id": users[user], "item_id": items[item]}).encode() for user, item in ends]
        asked = [("POST", "/interactions", body) for body in told]
        return _at_a_rate(service.port, options.writers, asked, options.rate, times["writes"], statuses["writes"])

    await reading([], min(span, 5.0))
    for _ in range(options.turns):
        began = service.cpu_s
        await reading(times["alone"], span)
        cpu["alone"].append((service.cpu_s - began) / span)
        began = service.cpu_s
        _, last = await asyncio.gather(reading(times["beside writes"], span), writing(span))
        cpu["beside writes"].append((service.cpu_s - began) / span)
        while not await _is_settled(service.port):
            await asyncio.sleep(0.01)
        settled.append(time.perf_counter() - last)
    alone, beside = ({name: quantiles([1e3 * s for s in times[name]]) for name in ("alone", "beside writes")}).values()
    return {
        "turns": options.turns,
        "read_alone_ms": alone,
        "read_beside_writes_ms": beside,
        "p99_ratio": round(beside["p99"] / alone["p99"], 2),
        "write_ms": quantiles([1e3 * s for s in times["writes"]]),
        "statuses": {kind: {str(status): count for status, count in found.items()} for kind, found in statuses.items()},
        "failed": sum(count for found in statuses.values() for status, count in found.items() if status >= 400),
        "settled_after_the_last_write_s": {"median": round(median(settled), 3), "max": round(max(settled), 3)},
        "server_cpu_share": {name: round(median(shares), 2) for name, shares in cpu.items()},
    }


async def _at_a_rate(
    port: int,
    connections: int,
    asked: list[tuple[str, str, bytes]],
    rate: float,
    times: list[float],
    statuses: Counter[int],
) -> float:
    """Send requests at a rate over some connections; each one's seconds from when it was due. When the last ended."""
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for _ in range(connections):
        free.put_nowait(await Connection.open(port))

    async def ask(due: float, request: tuple[str, str, bytes]) -> None:
        connection = await free.get()
        status, _ = await connection.ask(*request)
        times.append(time.perf_counter() - due)
        statuses[status] += 1
        free.put_nowait(connection)

    begin, sent = time.perf_counter(), []
    for number, request in enumerate(asked):
        due = begin + number / rate
        if (rest := due - time.perf_counter()) > 0:
            await asyncio.sleep(rest)
        sent.append(asyncio.create_task(ask(due, request)))
    await asyncio.gather(*sent)
    ended = time.perf_counter()
    while not free.empty():
        free.get_nowait().close()
    return ended


async def _is_settled(port: int) -> bool:
    """Whether S is settled up to the last interaction that was applied."""
    connection = await Connection.open(port)
    _, told = await connection.ask("GET", "/metrics")
    found = dict(re.findall(r"^kdiffe_(settled|applied)_sequence(?:{.*})? (\S+)$", told.decode(), re.MULTILINE))
    return float(found["settled"]) >= float(found["applied"])


def swaps(options: argparse.Namespace) -> dict[str, object]:
    """Activations under load: failed requests, memory, and latencies while a version is loaded and swapped in."""
    gc.disable()  # this process's own collections would count as the service's stalls
    users, items = ids_of(options.store)
    with copied(options.store, versions=2) as directory:
        service = Server.of_store(directory, KDIFFE_KEEP_WARM=str(options.keep_warm))
        load = _Load(service.port, users, items, options)
        spans: list[tuple[float, float]] = []
        grown: list[float] = []
        try:
            load.write(options.written)
            load.start()
            time.sleep(3)
            names = ModelStore(directory).versions()
            with httpx.Client(base_url=service.url, timeout=120) as client:
                for number in range(options.swaps):
                    began = time.monotonic()
                    client.post(f"/admin/models/{names[(number + 1) % 2]}/activate").raise_for_status()
                    spans.append((began, time.monotonic()))
                    time.sleep(max(spans[-1][1] - began, 0.05))
                    if number % max(options.swaps // 20, 1) == 0:
                        grown.append(memory_mb(service.pids[0])["uss"])
        except KeyboardInterrupt:
            sys.stderr.write(f"interrupted after {len(spans)} swaps\n")
        finally:
            load.end()
            service.end()
    inside, outside = [], []
    index = 0
    for at, seconds in sorted(load.times):
        while index < len(spans) and spans[index][1] < at:
            index += 1
        swapping = index < len(spans) and spans[index][0] <= at + seconds
        (inside if swapping else outside).append(seconds)
    steady, swapping_p99 = np.quantile(outside, 0.99), np.quantile(inside, 0.99)
    return {
        "swaps": len(spans),
        "keep_warm_s": options.keep_warm,
        "requests": len(load.times),
        "statuses": {str(status): count for status, count in load.statuses.items()},
        "failed": load.failed,
        "swap_s": quantiles([end - began for began, end in spans]),
        "steady_ms": quantiles([1000 * s for s in outside]),
        "while_swapping_ms": quantiles([1000 * s for s in inside]),
        "p99_ratio": round(float(swapping_p99 / steady), 2),
        "uss_mb": grown,
    }


def rollback(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of roll backs under load, each after an activation: of the call, and until every worker serves it."""
    users, items = ids_of(options.store)
    called, followed = [], []
    with copied(options.store, versions=2) as directory:
        service = Server.of_store(directory, workers=options.workers)
        load = _Load(service.port, users, items, options)
        try:
            load.start()
            before, other = ModelStore(directory).versions()
            with connected(service, options.workers) as clients:
                for number in range(options.swaps):
                    asked = clients[number % len(clients)]
                    asked.post(f"/admin/models/{other}/activate").raise_for_status()
                    _until_serving(clients, other)
                    began = time.monotonic()
                    asked.post("/admin/rollback").raise_for_status()
                    called.append(time.monotonic() - began)
                    _until_serving(clients, before)
                    followed.append(time.monotonic() - began)
        finally:
            load.end()
            service.end()
    return {
        "set": ModelStore(options.store).open().manifest.data.get("name"),
        "workers": options.workers,
        "roll_backs": len(called),
        "requests": len(load.times),
        "failed": load.failed,
        "call_s": quantiles(called),
        "all_workers_s": quantiles(followed),
    }


def _until_serving(clients: Iterable[httpx.Client], version: str) -> None:
    for client in clients:
        while client.get("/health/ready").json()["model_version"] != version:
            time.sleep(0.002)


class _Load:
    """Clients that read, and one that writes, in a thread of another process than the server."""

    def __init__(self, port: int, users: list[str], items: list[str], options: argparse.Namespace) -> None:
        self.times: list[tuple[float, float]] = []
        self.statuses: Counter[int] = Counter()
        self.failed = 0
        rng = random.Random(options.seed)  # noqa: S311
        # The same ones again and again: what the graph and its state take is bounded, what grows is something else.
        self._pairs = [(rng.choice(users), rng.choice(items)) for _ in range(options.pairs)]
        self._port, self._users = port, users
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: uvloop.run(self._run(options.clients)))

    def write(self, count: int) -> None:
        """Write interactions before anything is measured, many in one request."""
        rng = random.Random(1)  # noqa: S311
        with httpx.Client(base_url=f"http://127.0.0.1:{self._port}", timeout=60) as client:
            for begin in range(0, count, 500):
                pairs = rng.choices(self._pairs, k=min(500, count - begin))
                body = {"interactions": [{"user_id": user, "item_id": item} for user, item in pairs]}
                while (answer := client.post("/interactions", json=body)).status_code == 503:
                    time.sleep(float(answer.headers["Retry-After"]))  # more than is applied
                answer.raise_for_status()

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """End."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    async def _run(self, clients: int) -> None:
        await asyncio.gather(*(self._client(n) for n in range(clients)))

    async def _client(self, number: int) -> None:
        rng = random.Random(number)  # noqa: S311
        connection = await Connection.open(self._port)
        while not self._over.is_set():
            began = time.monotonic()
            try:
                if number == 0:  # one writer, at its own pace
                    user, item = rng.choice(self._pairs)
                    body = json.dumps({"user_id": user, "item_id": item}).encode()
                    status, _ = await connection.ask("POST", "/interactions", body)
                else:
                    status, _ = await connection.ask("GET", f"/recommend/{rng.choice(self._users)}")
            except (OSError, EOFError) as error:
                self.failed += 1
                sys.stderr.write(f"{error!r}\n")
                connection = await Connection.open(self._port)
                continue
            if number:
                self.times.append((began, time.monotonic() - began))
            self.statuses[status] += 1
            self.failed += status >= 400
            await asyncio.sleep(0.02 if number == 0 else 0.004)
        connection.close()


def replay(options: argparse.Namespace) -> dict[str, object]:
    """Seconds of a start with so many interactions beyond the artifact, and without any."""
    users, items = ids_of(options.store)
    with copied(options.store) as directory:
        empty = Server.of_store(directory)
        empty.end()
        state = open_state(f"sqlite:///{directory}/state.sqlite3")
        replayed = fill(state, users, items, options.writes)
        state.close()
        full = Server.of_store(directory)
        full.end()
    longer = full.started_s - empty.started_s
    return {
        "interactions": replayed,
        "start_s": {"empty log": round(empty.started_s, 2), "whole log": round(full.started_s, 2)},
        # None where the replay is lost in what one start differs from another.
        "replayed_a_second": round(replayed / longer) if longer > 0 else None,
    }


def fill(state: StateStore, users: list[str], items: list[str], count: int) -> int:
    """Append so many interactions, at most 1,000 at once. Where the log ends then."""
    rng = random.Random(0)  # noqa: S311
    for begin in range(0, count, 1000):
        many = range(begin, min(begin + 1000, count))
        state.append([Interaction(rng.choice(users), rng.choice(items), 0.0) for _ in many])
    return state.last_sequence()


def quantiles(values: list[float]) -> dict[str, float]:
    """Median, 95th and 99th percentile, and largest."""
    return {
        "median": round(median(values), 4),
        "p95": round(float(np.quantile(values, 0.95)), 4),
        "p99": round(float(np.quantile(values, 0.99)), 4),
        "max": round(max(values), 4),
    }


def main() -> None:
    """Run one section and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sections = {
        "memory": memory,
        "visible": visible,
        "load": load,
        "swaps": swaps,
        "rollback": rollback,
        "replay": replay,
    }
    parser.add_argument("section", choices=sections)
    subject = parser.add_mutually_exclusive_group(required=True)
    subject.add_argument("--store", type=Path, help="a model store; its active version is measured")
    subject.add_argument("--data", type=Path, help="a data set; a version over its graph is measured")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--writes", type=int, default=200)
    parser.add_argument("--swaps", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--pairs", type=int, default=1000, help="swaps: different interactions that are written")
    parser.add_argument("--written", type=int, default=0, help="swaps: interactions in the log when it begins")
    parser.add_argument("--keep-warm", type=float, default=0.0, help="seconds that the version before stays in memory")
    parser.add_argument("--seconds", type=float, default=60.0, help="load: seconds of reads alone, and beside writes")
    parser.add_argument("--turns", type=int, default=4, help="load: how often the two take turns")
    parser.add_argument("--rate", type=float, default=500.0, help="load: interactions a second, one a request")
    parser.add_argument("--writers", type=int, default=32, help="load: connections that write")
    parser.add_argument("--reads", type=float, default=50.0, help="load: lists a second")
    parser.add_argument("--readers", type=int, default=4, help="load: connections that read")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kdiffe-graph-") as folder:
        if options.data:
            options.store = Path(folder)
            publish(options.store, *read_graph(options.data), name=options.data.name)
        print(json.dumps({"section": options.section, **sections[options.section](options)}))


if __name__ == "__main__":
    main()
