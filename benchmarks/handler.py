"""The handlers' own work (no HTTP) over a published artifact: recommend, explain, apply, settle, refresh."""

from __future__ import annotations

import os

os.environ.update(dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"))

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from model_store.store import ModelStore
from service.explanation.account import explain
from service.index import index_builder
from service.live.model import LiveModel, warm_up
from service.recommendation.recommender import recommend
from service.state.port import LogEntry


def timed(calls: list[Callable[[], object]]) -> dict[str, float]:
    """Milliseconds of each call: median, 95th and 99th percentile."""
    times = []
    for call in calls:
        began = time.perf_counter()
        call()
        times.append((time.perf_counter() - began) * 1e3)
    p50, p95, p99 = np.percentile(times, [50, 95, 99])
    return {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3), "p99_ms": round(p99, 3)}


def main() -> None:
    """Measure and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--version")
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--interactions", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)

    artifact = ModelStore(options.store).open(options.version)
    warm_up()
    began = time.perf_counter()
    model = LiveModel(artifact, index_builder("faiss"), start=0, refresh_every=10**9)
    report: dict[str, object] = {
        "version": artifact.version,
        "users": artifact.manifest.n_users,
        "items": artifact.manifest.n_items,
        "index": model.readout.index.name,
        "load_s": round(time.perf_counter() - began, 3),
    }
    users = [str(u) for u in rng.choice(artifact.array("user_ids"), options.requests)]
    items = [str(i) for i in rng.choice(artifact.array("item_ids"), options.requests)]
    recommend(model, users[0], 20)
    report["recommend"] = timed([lambda u=user: recommend(model, u, 20) for user in users])
    report["explain"] = timed([lambda u=u, i=i: explain(model, u, i) for u, i in zip(users, items, strict=True)])

    pairs = [explain(model, u, i) for u, i in zip(users[:1000], items[:1000], strict=True)]
    report["explanations"] = {
        "pairs": len(pairs),
        "largest_additivity_error": max(e["additivity_error"] for e in pairs),
        "mean_abs_self_share": float(np.mean([abs(e["self_share"]) for e in pairs])),
    }
    top = []
    for user in users[:1000]:
        listed = recommend(model, user, 1)["items"]
        if listed and listed[0]["strategy"] != "popular":
            top.append(explain(model, user, listed[0]["item_id"]))
    report["explanations_of_the_first_recommendation"] = {
        "pairs": len(top),
        "largest_additivity_error": max(e["additivity_error"] for e in top),
        "mean_abs_self_share": float(np.mean([abs(e["self_share"]) for e in top])),
    }

    at_once, read, settle = [], [], []
    for n in range(options.interactions):
        event = LogEntry(n + 1, users[n], items[n], None, None, f"bench-{n}")
        began = time.perf_counter()
        model.apply([event])
        applied = time.perf_counter()
        recommend(model, users[n], 20)
        seen = time.perf_counter()
        while model.settle():
            pass
        settled = time.perf_counter()
        at_once.append((applied - began) * 1e3)
        read.append((seen - applied) * 1e3)
        settle.append((settled - seen) * 1e3)
    for name, times in (("apply", at_once), ("read_after_apply", read), ("settle", settle)):
        p50, p95 = np.percentile(times, [50, 95])
        report[name] = {"p50_ms": round(p50, 3), "p95_ms": round(p95, 3)}
    report["refresh"] = timed([model.refresh for _ in range(10)])
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
