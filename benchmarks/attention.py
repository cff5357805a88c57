"""The attention engine against its targets: build, scale, increments, load, memory and a replay. docs/attention.md.

Every section prints one JSON object. Times of one-thread sections are CPU time of the process (other work on the
machine disturbs it less than the clock); what somebody waits for is clock time. Ratios compare figures of one run.
"""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import gc
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# training.py stands beside this file and would be taken for the package of that name.
sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.graphs import LAYERS, WALKS, WIDTH, new_edges, power_law_graph, publish, read_graph
from benchmarks.processes import memory_mb
from model_store import similarity, walks
from model_store.artifact import Artifact
from model_store.attention import AttentionState
from model_store.attention_files import FILE_NAME as STATE_NAME
from model_store.attention_files import load_state, save_state
from model_store.graph import InteractionGraph
from model_store.keys import node_keys
from model_store.patched import Patched
from model_store.similarity import build_similarity, similarity_of_sets
from model_store.walks import visited_sets

# ---- measuring -------------------------------------------------------------------------------------------------------


def best(call: Callable[[], object], repeats: int = 3) -> float:
    """Least CPU seconds of some calls."""
    times = []
    for _ in range(repeats):
        began = time.process_time()
        call()
        times.append(time.process_time() - began)
    return min(times)


def spread(seconds: list[float]) -> dict[str, float]:
    """Milliseconds: median, 95th and 99th percentile, largest."""
    p50, p95, p99, most = np.percentile(seconds, [50, 95, 99, 100]) * 1e3
    return {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "p99_ms": round(p99, 3), "max_ms": round(most, 3)}


def warm() -> None:
    """Compile every kernel."""
    keys = np.arange(40, dtype=np.uint64)
    state = AttentionState.build(InteractionGraph.from_pairs(np.arange(20), np.arange(20), keys[:20], keys[20:]), WALKS)
    state.apply((np.array([0], np.int32), np.array([25], np.int32)))
    state.similarity(0)
    state.snapshot()


# ---- sections --------------------------------------------------------------------------------------------------------


def build(options: argparse.Namespace) -> dict[str, object]:
    """Walks, Jaccard and whole S from scratch; one thread and two."""
    report: dict[str, object] = {}
    for name in options.sets:
        graph, _, _ = read_graph(options.data / name)
        nodes = np.arange(graph.n_nodes, dtype=np.int32)
        _, indptr, visited = build_similarity(graph, WALKS)
        walked = best(lambda n=nodes, g=graph: visited_sets(n, g.lists, g.keys, WALKS))
        whole = best(lambda g=graph: build_similarity(g, WALKS))
        sets = Patched.of_csr(indptr, visited)
        jaccard = best(lambda g=graph, sets=sets: similarity_of_sets(g, sets))
        clock: dict[int, list[float]] = {1: [], 2: []}
        for _ in range(7):  # in turn, so that both see the same machine
            for threads, times in clock.items():
                began = time.perf_counter()
                build_similarity(graph, WALKS, threads=threads)
                times.append(time.perf_counter() - began)
        steps = np.count_nonzero(graph.degrees) * WALKS.n_walks * WALKS.walk_length
        report[name] = {
            "nodes": graph.n_nodes,
            "edges": graph.n_edges,
            "walks_million_steps_per_s": round(steps / walked / 1e6, 1),
            "jaccard_million_edges_per_s": round(graph.n_edges / jaccard / 1e6, 2),
            "whole_edges_per_s": round(graph.n_edges / whole),
            "whole_s": round(whole, 3),
            "two_threads_ratio_of_clock": round(min(clock[1]) / min(clock[2]), 2),
            "two_threads_ratio_of_cpu_path": round(whole / path_of_two(graph), 2),
        }
    return report


def path_of_two(graph: InteractionGraph) -> float:
    """CPU seconds of the whole S on the longer of two threads: what one thread does alone, and the longer share.

    The clock says the same where two cores are free. The parts are computed one after the other here.
    """
    parts: list[float] = []

    def one_after_the_other(call: Callable[[object], object], some: Sequence[object], _threads: int) -> list[object]:
        results, busy = [], [0.0, 0.0]
        for part in some:
            began = time.thread_time()
            results.append(call(part))
            spent = time.thread_time() - began
            busy[busy.index(min(busy))] += spent
        parts.append(max(busy) - sum(busy))
        return results

    kept = walks.each, similarity.each
    walks.each = similarity.each = one_after_the_other  # type: ignore[assignment]
    try:
        paths = []
        for _ in range(3):
            parts.clear()
            began = time.thread_time()
            build_similarity(graph, WALKS, threads=2)
            paths.append(time.thread_time() - began + sum(parts))
        return min(paths)
    finally:
        walks.each, similarity.each = kept


def scale(options: argparse.Namespace) -> dict[str, object]:
    """S of power-law graphs with 20 edges a node, each size in a process of its own."""
    if options.nodes:
        began = time.perf_counter()
        graph = power_law_graph(options.nodes, options.nodes * 20, 0)
        made, cpu = time.perf_counter(), time.process_time()
        similarity, indptr, _ = build_similarity(graph, WALKS, threads=options.threads)
        done, cpu_done = time.perf_counter(), time.process_time()
        return {
            "nodes": graph.n_nodes,
            "edges": graph.n_edges,
            "largest_degree": int(graph.degrees.max()),
            "graph_s": round(made - began, 1),
            "similarity_s": round(done - made, 1),
            "similarity_cpu_s": round(cpu_done - cpu, 1),
            "mean_similarity": round(float(similarity.mean()), 4),
            "mean_visited_set": round(float(indptr[-1]) / graph.n_nodes, 1),
            "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2, 2),
        }
    rows = []
    for nodes in options.sizes:
        command = [sys.executable, __file__, "scale", "--nodes", str(nodes), "--threads", str(options.threads)]
        found = subprocess.run(command, check=True, capture_output=True, text=True)
        rows.append(json.loads(found.stdout)["scale"])
        print(json.dumps(rows[-1]), file=sys.stderr)
    size = np.log([row["edges"] for row in rows])
    slopes = {
        name: round(float(np.polyfit(size, np.log([row[name] for row in rows]), 1)[0]), 2)
        for name in ("similarity_cpu_s", "peak_rss_gb")
    }
    report: dict[str, object] = {"rows": rows, "slope_in_log_log": slopes}
    if options.plot:
        _plot(rows, slopes, options.plot)
    return report


def _plot(rows: list[dict[str, float]], slopes: dict[str, float], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    edges = [row["edges"] for row in rows]
    for axis, name, text in (
        (axes[0], "similarity_cpu_s", "S, CPU seconds"),
        (axes[1], "peak_rss_gb", "peak memory, GiB"),
    ):
        axis.loglog(edges, [row[name] for row in rows], "o-", color="#1f5fa8")
        axis.set_xlabel("edges (20 a node)")
        axis.set_title(f"{text}; slope {slopes[name]}", fontsize=10)
        axis.grid(which="both", alpha=0.25)
    figure.savefig(path)


def incremental(options: argparse.Namespace) -> dict[str, object]:
    """What one interaction costs at once and until it is settled; a refresh; against a rebuild in the same run."""
    graph, _, _ = read_graph(options.data / options.sets[0])
    rebuild = best(lambda: AttentionState.build(graph, WALKS))
    state = AttentionState.build(graph, WALKS)
    state.prepare()
    rng = np.random.default_rng(options.seed)
    users, items = new_edges(rng, graph, options.interactions)
    at_once, settle, settle_cpu, stale = [], [], [], []
    for user, item in zip(users, items, strict=True):
        began = time.perf_counter()
        state.apply((np.array([user], np.int32), np.array([graph.n_users + item], np.int32)))
        state.similarity(int(user))
        applied, cpu = time.perf_counter(), time.process_time()
        stale.append(state.n_stale)
        state.settle()
        settle.append(time.perf_counter() - applied)
        settle_cpu.append(time.process_time() - cpu)
        at_once.append(applied - began)
    settled = state.digest()
    rebuilt = AttentionState.build(
        InteractionGraph.from_pairs(
            np.concatenate([graph.pairs()[0], users]),
            np.concatenate([graph.pairs()[1], items]),
            graph.keys[: graph.n_users],
            graph.keys[graph.n_users :],
        ),
        WALKS,
    )
    return {
        "set": options.sets[0],
        "nodes": graph.n_nodes,
        "edges": graph.n_edges,
        "interactions": options.interactions,
        "at_once": spread(at_once),
        "settle": spread(settle),
        "settle_cpu": spread(settle_cpu),
        "stale_nodes": dict(zip(("p50", "p95", "max"), np.percentile(stale, [50, 95, 100]).tolist(), strict=True)),
        "rebuild_cpu_s": round(rebuild, 3),
        "rebuild_over_at_once": round(rebuild / float(np.median(at_once))),
        "same_bits_as_a_rebuild": settled == rebuilt.digest(),
    }


def refresh(options: argparse.Namespace) -> dict[str, object]:
    """A refresh of T, the item vectors and the index, from a settled state."""
    from service.index import index_builder
    from service.live.model import LiveModel, warm_up

    warm_up()
    with tempfile.TemporaryDirectory() as directory:
        artifact = publish(Path(directory), *read_graph(options.data / options.sets[0]))
        model = LiveModel(artifact, index_builder(options.index), start=0, refresh_every=10**9)
        clock, cpu = [], []
        for _ in range(10):
            began, began_cpu = time.perf_counter(), time.process_time()
            model.refresh()
            clock.append(time.perf_counter() - began)
            cpu.append(time.process_time() - began_cpu)
        return {"set": options.sets[0], "width": WIDTH, "layers": LAYERS, "clock": spread(clock), "cpu": spread(cpu)}


def timed_lock() -> Any:
    """The model's lock, which notes how long readers wait for it, and CPU seconds of the background's holds."""
    from service.live.turn_lock import TurnLock

    class Timed(TurnLock):
        def __init__(self) -> None:
            super().__init__()
            self.waits: list[float] = []
            self.holds: list[float] = []

        @contextmanager
        def reading(self) -> Iterator[None]:
            began = time.perf_counter()
            with super().reading():
                self.waits.append(time.perf_counter() - began)
                yield

        @contextmanager
        def changing(self) -> Iterator[None]:
            with super().changing():
                began = time.thread_time()
                yield
                self.holds.append(time.thread_time() - began)

    return Timed()


def load(options: argparse.Namespace) -> dict[str, object]:
    """Readers while interactions arrive at a rate, and how long everything takes to settle after the last one."""
    from service.commands.serve import SWITCH_INTERVAL, keep_what_is_there
    from service.index import index_builder
    from service.live.follower import Follower
    from service.live.model import LiveModel, warm_up
    from service.recommendation.recommender import recommend
    from service.state.memory import MemoryState
    from service.state.port import Interaction

    sys.setswitchinterval(SWITCH_INTERVAL)  # as the service does
    warm_up()
    with tempfile.TemporaryDirectory() as directory:
        graph, user_ids, item_ids = read_graph(options.data / options.sets[0])
        artifact = publish(Path(directory), graph, user_ids, item_ids)
        model = LiveModel(artifact, index_builder(options.index), start=0, refresh_every=options.refresh_every)
        state = MemoryState()
        model.lock = lock = timed_lock()
        follower = Follower(model, state)
        keep_what_is_there(gc.get_freeze_count())  # as the service does
        follower.start()
        rng = np.random.default_rng(options.seed)
        readers = user_ids[new_edges(rng, graph, 4096)[0]]

        cpu: list[float] = []

        def read(seconds: float) -> list[float]:
            times, end, n = [], time.perf_counter() + seconds, 0
            cpu.clear()
            lock.waits.clear()
            while time.perf_counter() < end:
                began, began_cpu = time.perf_counter(), time.thread_time()
                recommend(model, str(readers[n % len(readers)]), 20)
                times.append(time.perf_counter() - began)
                cpu.append(time.thread_time() - began_cpu)
                n += 1
                time.sleep(max(0.0, 1 / options.reads - times[-1]))
            return times

        read(2.0)
        quiet, quiet_cpu = read(min(10.0, options.seconds)), cpu.copy()
        count = int(options.rate * options.seconds)
        users, items = new_edges(rng, graph, count)
        applied: list[float] = []
        lags: list[float] = []
        last = [0.0]

        def write() -> None:
            begin, tick = time.perf_counter(), 0.01
            sent = 0
            while sent < count:
                due = min(count, int((time.perf_counter() - begin) * options.rate) + 1)
                batch = [Interaction(str(user_ids[users[n]]), str(item_ids[items[n]]), 0.0) for n in range(sent, due)]
                if batch:
                    told = time.perf_counter()
                    sequence = state.append(batch).sequence
                    follower.wake()
                    while follower.applied < sequence:
                        time.sleep(0.0002)
                    applied.append(time.perf_counter() - told)
                    lags.append(model.settle_lag)
                sent = due
                time.sleep(tick)
            last[0] = time.perf_counter()

        before = model.refreshes
        writer = threading.Thread(target=write)
        writer.start()
        lock.holds.clear()
        busy, busy_cpu, waits = read(options.seconds), cpu.copy(), lock.waits.copy()
        writer.join()
        idle = follower.wait_idle(60.0)
        settled = time.perf_counter() - last[0]
        refreshes = model.refreshes - before
        memory = memory_mb()
        shared, own = model.state_nbytes
        follower.stop()
    return {
        "set": options.sets[0],
        "rate_per_s": options.rate,
        "seconds": options.seconds,
        "refresh_every": options.refresh_every,
        "reads_per_s": options.reads,
        "read_quiet": spread(quiet),
        "read_under_load": spread(busy),
        "read_quiet_cpu": spread(quiet_cpu),
        "read_under_load_cpu": spread(busy_cpu),
        "readers_wait_for_the_lock": spread(waits),
        "background_holds_the_lock_cpu": spread(lock.holds),
        "p99_ratio": round(float(np.percentile(busy, 99) / np.percentile(quiet, 99)), 2),
        "write_until_applied": spread(applied),
        "lag_of_settling_s": round(float(np.percentile(lags, 95)), 3),
        "refreshes": refreshes,
        "settled": idle,
        "settled_after_the_last_s": round(settled, 3),
        "state_shared_mb": round(shared / 1e6, 1),
        "state_own_mb": round(own / 1e6, 1),
        "rss_mb": memory["rss"],
        "uss_mb": memory["uss"],
    }


def memory(options: argparse.Namespace) -> dict[str, object]:
    """What the attention state takes: processes that map an artifact, one whose state is folded, and that one saved."""
    if options.artifact:
        return _map(options.artifact, options.fold, options.interactions)
    with tempfile.TemporaryDirectory() as directory:
        artifact = str(publish(Path(directory), *read_graph(options.data / options.sets[0])).directory)
        saved = str(Path(directory) / "saved")
        mapped = _side_by_side([["--artifact", artifact]] * 3)
        folded = _side_by_side([["--artifact", artifact, "--fold", saved, "--interactions", "5000"]])
        reloaded = _side_by_side([["--artifact", saved]] * 2)
    return {"set": options.sets[0], "processes": mapped, "folded": folded[0], "folded_saved_and_loaded": reloaded}


def _side_by_side(arguments: list[list[str]]) -> list[dict[str, float]]:
    """Processes of this section that are all there when the first one is measured, and until the last one is."""
    processes = []
    for some in arguments:
        command = [sys.executable, __file__, "memory", *some]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        process.stdout.readline()  # it has mapped its arrays
        processes.append(process)
    found = []
    for process in processes:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write("\n")
        process.stdin.flush()
        found.append(json.loads(process.stdout.readline()))
    for process in processes:
        process.communicate()
    return found


def _map(directory: Path, fold: Path | None, interactions: int) -> dict[str, object]:
    warm()
    before = memory_mb()
    if (directory / STATE_NAME).exists():
        state, _ = load_state(directory)
    else:
        artifact = Artifact(directory)
        state = AttentionState.of_arrays(artifact.array, artifact.walks, index=True)
    state.prepare()
    for node in range(state.n_nodes):
        state.similarity(node)
    # A page counts once it is touched.
    state.apply((np.array([0], np.int32), np.array([state.n_nodes - 1], np.int32)))
    if fold:
        rng, n_users = np.random.default_rng(0), artifact.manifest.n_users
        degrees = state.degrees.astype(float)
        ends = [
            (first + rng.choice(end - first, interactions, p=degrees[first:end] / degrees[first:end].sum())).astype(
                np.int32
            )
            for first, end in ((0, n_users), (n_users, state.n_nodes))
        ]
        for begin in range(0, interactions, 100):
            state.apply((ends[0][begin : begin + 100], ends[1][begin : begin + 100]))
            state.settle()
    print("mapped", flush=True)
    sys.stdin.readline()
    after = memory_mb()
    shared, own = state.nbytes
    report = {
        "shared_arrays_mb": round(shared / 1e6, 1),
        "own_arrays_mb": round(own / 1e6, 1),
        "rss_mb_added": round(after["rss"] - before["rss"], 1),
        "uss_mb_added": round(after["uss"] - before["uss"], 1),
    }
    print(json.dumps(report), flush=True)
    sys.stdin.readline()
    if fold:
        save_state(state, fold, interactions)
    return report


def replay(options: argparse.Namespace) -> dict[str, object]:
    """A set with timestamps in time order, in batches of mixed size, compared with rebuilds on the way."""
    from training.data.formats import read_data_set

    data = read_data_set(options.data / "ml-100k")
    assert data.train.timestamps is not None  # one file: everything is in it
    order = np.argsort(data.train.timestamps, kind="stable")
    users, items = data.train.user_rows[order], data.train.item_rows[order]
    keys = node_keys("user", data.user_ids.tolist()), node_keys("item", data.item_ids.tolist())
    rng = np.random.default_rng(options.seed)
    start = len(users) // 10
    empty = InteractionGraph.from_pairs(users[:start], items[:start], *keys)
    state = AttentionState.build(empty, WALKS)
    checks = set(np.linspace(start, len(users), 21, dtype=int)[1:].tolist())
    done, batches, equal, at_once = start, 0, 0, []
    while done < len(users):
        until = min(done + int(rng.choice([1, 1, 1, 3, 10, 40, 200])), *(check for check in checks if check > done))
        ends = users[done:until].astype(np.int32), (items[done:until] + data.n_users).astype(np.int32)
        began = time.perf_counter()
        state.apply(ends)
        at_once.append(time.perf_counter() - began)
        if rng.random() < 0.5:
            state.settle(most=int(rng.integers(1, 2000)))
        batches += 1
        done = until
        if done in checks:
            graph = InteractionGraph.from_pairs(users[:done], items[:done], *keys)
            equal += state.digest() == AttentionState.build(graph, WALKS).digest()
    return {"set": "ml-100k", "interactions": len(users), "batches": batches, "apply": spread(at_once),
            "checks": len(checks), "equal_to_a_rebuild": equal}  # fmt: skip


SECTIONS: dict[str, Callable[[argparse.Namespace], dict[str, object]]] = {
    "build": build,
    "incremental": incremental,
    "refresh": refresh,
    "load": load,
    "memory": memory,
    "replay": replay,
    "scale": scale,
}


def main() -> None:
    """Measure the sections that are named and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="+", choices=sorted(SECTIONS))
    parser.add_argument("--data", type=Path, help="directory of the data sets")
    parser.add_argument("--sets", nargs="+", default=["sports"])
    parser.add_argument("--interactions", type=int, default=500)
    parser.add_argument("--rate", type=float, default=500.0, help="interactions a second")
    parser.add_argument("--reads", type=float, default=50.0, help="reads a second")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--refresh-every", type=int, default=100)
    parser.add_argument("--index", choices=("faiss", "exact"), default="faiss")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sizes", type=int, nargs="+", default=[62_500, 125_000, 250_000, 500_000, 1_000_000])
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--nodes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--artifact", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--fold", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warm()
    print(json.dumps({name: SECTIONS[name](options) for name in options.sections}, indent=None if options.nodes else 2))


if __name__ == "__main__":
    main()
