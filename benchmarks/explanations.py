"""Explanations of a published version: do they add up, and how long do they take?

    .venv/bin/python benchmarks/explanations.py SECTION ... --store MODELS [--version V] [--pairs 10000] [--out FILE]

`additivity`: random pairs of users and items, the version's X, C, ξ and B with 1, 2 and 3 layers, with and without
self-loops, before and after 1,000 live interactions (two refreshes among them). `served`: the largest distance of
self + Σ contributions from the served score, relative to |self| + Σ|contributions| (at most 1e-4); `double`: the same
where T, Z and the score are recomputed in double precision from X, C and L̄ (at most 1e-6); `apart`: how far the served
score lies from that one. `latency`: the handler's work for random recommendations, CPU time and clock.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from model_store.adjacency import Adjacency
from model_store.artifact import Artifact, write_artifact
from model_store.assembly import model_arrays
from model_store.attention import AttentionState
from model_store.serving_form import ServingForm
from model_store.store import ModelStore
from service.explanation.account import PARTS, Wanted, explain
from service.index.exact import ExactIndex
from service.live.model import LiveModel, warm_up
from service.recommendation.recommender import recommend
from service.state.port import LogEntry

Floats = NDArray[np.float64]
LIVE, EVERY = 1_000, 400


def variant(artifact: Artifact, n_layers: int, self_loops: bool, directory: Path) -> Artifact:
    """The version's model with other layers (α = 1/(L+1)) and self-loops, T and Z by the kernel that publishes them."""
    form = artifact.form()
    alpha = np.full((n_layers + 1, form.width), 1 / (n_layers + 1), np.float32)
    form = ServingForm(form.base, form.constant, alpha, form.similarity_weight, self_loops, form.n_users)
    state = AttentionState.of_arrays(artifact.array, artifact.walks, index="visited_by.indices" in artifact)
    ids = artifact.array("user_ids"), artifact.array("item_ids")
    arrays = model_arrays(*ids, form, state, artifact.item_item())
    manifest = replace(artifact.manifest, self_loops=self_loops, sequence=0)
    write_artifact(directory, manifest, arrays)
    return Artifact(directory)


def double(form: ServingForm, adjacency: Adjacency, item_nodes: NDArray[np.int32]) -> tuple[Floats, Floats]:
    """T and the items' Z in double precision, from X, C and L̄ alone."""
    n, loops = adjacency.n_nodes, int(form.self_loops)
    lengths = adjacency.lengths.astype(np.int64)
    rows = np.repeat(np.arange(n), lengths)
    places = np.repeat(adjacency.starts - np.concatenate([[0], np.cumsum(lengths)[:-1]]), lengths)
    places = places + np.arange(lengths.sum())
    others = adjacency.neighbors[places]
    degrees = (lengths[rows] + loops).astype(np.float64) * (lengths[others] + loops)
    values = (1 + form.similarity_weight * adjacency.similarity[places].astype(np.float64)) / np.sqrt(degrees)
    laplacian = sparse.csr_array((values, (rows, others)), shape=(n, n))
    if loops:
        laplacian = laplacian + sparse.diags_array(1 / (lengths + 1.0))
    base, constant = np.zeros((n, form.width)), np.zeros((n, form.width))
    base[: len(form.base)] = form.base
    if form.constant is not None:
        constant[form.n_users : form.n_users + len(form.constant)] = form.constant
    alpha = form.alpha.astype(np.float64)
    total, power = np.zeros_like(base), base
    for layer in range(1, form.n_layers + 1):
        total += alpha[layer] * power
        power = laplacian @ power
    return total, (constant + alpha[0] * base + laplacian @ total)[item_nodes]


def distances(model: LiveModel, pairs: int, rng: np.random.Generator) -> dict[str, float]:
    """The largest distances over random pairs of known users and items."""
    form, readout = model.form, model.readout
    users = [user for user in model.users.to_array().tolist() if user]
    found = model.explained(users[0], 0)
    assert found is not None
    t, z = double(form, readout.adjacency, found.item_nodes[: readout.n_items])
    worst = {"served": 0.0, "double": 0.0, "apart": 0.0}
    own_share = 0.0
    for _ in range(pairs):
        user, v = users[rng.integers(len(users))], int(rng.integers(readout.n_items))
        found = model.explained(user, v)
        assert found is not None
        view, parts = found.view, found.parts
        direct, _ = model.table.accumulate(view.seen, readout.n_items)
        served = float(view.vector.astype(np.float64) @ readout.item_embeddings[v]) + direct[v]
        magnitude = max(parts.magnitude, 1e-30)
        known = view.neighbors < len(t)
        rows = np.zeros((len(known), form.width))
        rows[known] = parts.weight[known, None] * t[view.neighbors[known]]
        own = np.zeros(form.width)
        if view.node < len(form.base):
            own += form.alpha[0].astype(np.float64) * form.base[view.node]
        if form.self_loops and view.node < len(t):
            own += t[view.node] / (len(known) + 1)
        score = float((own + rows.sum(0)) @ z[v]) + direct[v]
        total = float(own @ z[v]) + float((rows @ z[v]).sum()) + float(parts.direct.sum())
        worst["served"] = max(worst["served"], abs(served - parts.score) / magnitude)
        worst["double"] = max(worst["double"], abs(score - total) / magnitude)
        worst["apart"] = max(worst["apart"], abs(served - score) / magnitude)
        own_share += abs(parts.self_term) / magnitude / pairs
    return {**worst, "self_share": own_share}


def additivity(artifact: Artifact, pairs: int) -> list[dict[str, Any]]:
    """The largest distances of every variant, before and after live interactions."""
    rows = []
    for n_layers in (1, 2, 3):
        for self_loops in (False, True):
            with tempfile.TemporaryDirectory() as name:
                model = LiveModel(
                    variant(artifact, n_layers, self_loops, Path(name)), ExactIndex, start=0, refresh_every=EVERY
                )
                for live in (0, LIVE):
                    follow(model, live)
                    rng = np.random.default_rng([n_layers, self_loops, live])
                    row = {"layers": n_layers, "self_loops": self_loops, "live": live, "pairs": pairs}
                    rows.append({**row, **distances(model, pairs, rng)})
                    print(rows[-1], flush=True)
    return rows


def follow(model: LiveModel, count: int) -> None:
    """Random interactions, some of new users and items, with the refreshes that belong there."""
    rng = np.random.default_rng(7)
    users, items = model.users.to_array(), model.items.to_array()
    for n in range(1, count + 1):
        user = f"new {rng.integers(50)}" if rng.random() < 0.1 else str(users[rng.integers(len(users))])
        item = f"new {rng.integers(20)}" if rng.random() < 0.02 else str(items[rng.integers(len(items))])
        model.apply([LogEntry(n, user, item, 0.0)])
        if model.refresh_due:
            model.refresh()


def latency(artifact: Artifact, requests: int) -> dict[str, Any]:
    """Milliseconds for random users with interactions and one of their 20 best items (rank 21 to 60 for `why_not`)."""
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1 << 40)
    rng = np.random.default_rng(0)
    n_users = artifact.manifest.n_users
    degrees = np.diff(artifact.array("graph.indptr"))[:n_users]
    able = artifact.array("user_ids")[degrees > 0]
    found: dict[str, Any] = {}
    for parts in ((), ("paths",), ("reasons",), ("counterfactual",), ("why_not",), PARTS):
        cpu, clock = [], []
        for user in rng.choice(able, requests).tolist():
            items = recommend(model, str(user), 60)["items"]
            place = rng.integers(20, len(items)) if parts == ("why_not",) else rng.integers(20)
            wanted = Wanted(frozenset(parts))  # type: ignore[arg-type]
            began, work = time.perf_counter(), time.thread_time()
            explain(model, str(user), items[place]["item_id"], wanted)
            cpu.append(time.thread_time() - work)
            clock.append(time.perf_counter() - began)
        name = ",".join(parts) or "plain"
        found[name] = {
            kind: {f"p{q}": round(float(np.percentile(values, q)) * 1e3, 2) for q in (50, 95, 99)}
            for kind, values in (("cpu_ms", cpu), ("clock_ms", clock))
        }
        print(name, found[name], flush=True)
    return found


def main() -> None:
    """Read the arguments, measure, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sections", nargs="+", choices=("additivity", "latency"))
    parser.add_argument("--store", type=Path, required=True)
    parser.add_argument("--version")
    parser.add_argument("--pairs", type=int, default=10_000)
    parser.add_argument("--requests", type=int, default=1_000)
    parser.add_argument("--out", type=Path, help="JSON file; what it holds of other data sets stays")
    options = parser.parse_args()
    warm_up()
    artifact = ModelStore(options.store).open(options.version)
    name = str(artifact.manifest.data.get("name", artifact.version))
    found: dict[str, Any] = {}
    if "additivity" in options.sections:
        found["additivity"] = additivity(artifact, options.pairs)
    if "latency" in options.sections:
        found["latency"] = latency(artifact, options.requests)
    if options.out is not None:
        kept = json.loads(options.out.read_text()) if options.out.exists() else {}
        kept[name] = {**kept.get(name, {}), **found}
        options.out.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
