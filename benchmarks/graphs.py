"""Graphs to measure on, of real sets and synthetic, and stores with a version over one, its embeddings random."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Artifact, write_artifact
from model_store.assembly import model_arrays
from model_store.attention import AttentionState
from model_store.graph import InteractionGraph
from model_store.item_item import ItemItemTable
from model_store.keys import node_keys
from model_store.manifest import Manifest, View
from model_store.serving_form import ServingForm
from model_store.store import ModelStore
from model_store.walks import WALK_VERSION, WalkSettings

WALKS = WalkSettings()  # R = 12, M = 50
WIDTH, LAYERS = 64, 3
Pairs = tuple[NDArray[np.integer], NDArray[np.integer]]


def read_graph(directory: Path) -> tuple[InteractionGraph, NDArray[np.str_], NDArray[np.str_]]:
    """The graph of a data set's training interactions, and its ids."""
    from training.data.formats import read_data_set

    data = read_data_set(directory)
    graph = InteractionGraph.from_pairs(
        data.train.user_rows,
        data.train.item_rows,
        node_keys("user", data.user_ids.tolist()),
        node_keys("item", data.item_ids.tolist()),
    )
    return graph, data.user_ids, data.item_ids


def power_law_graph(n_nodes: int, n_edges: int, seed: int) -> InteractionGraph:
    """Users and items (3 : 2) whose degrees fall with a power of the rank: rank^-0.4 and rank^-0.6."""
    rng = np.random.default_rng(seed)
    n_users = n_nodes * 3 // 5
    n_items = n_nodes - n_users
    drawn = n_edges + n_edges // 8  # some are drawn twice
    users = (n_users * rng.random(drawn) ** (1 / 0.6)).astype(np.int64)
    items = (n_items * rng.random(drawn) ** (1 / 0.4)).astype(np.int64)
    pairs = np.unique(users * n_items + items)
    del users, items
    pairs = np.sort(rng.permutation(pairs)[:n_edges])
    keys = np.unique(rng.integers(0, 2**64, n_nodes + n_nodes // 8, np.uint64))
    keys = rng.permutation(keys)[:n_nodes]
    return InteractionGraph.from_pairs(pairs // n_items, pairs % n_items, keys[:n_users], keys[n_users:])


def publish(
    root: Path,
    graph: InteractionGraph,
    user_ids: NDArray[np.str_],
    item_ids: NDArray[np.str_],
    name: str = "benchmark",
) -> Artifact:
    """An artifact with random embeddings over a graph."""
    rng = np.random.default_rng(0)
    base = rng.standard_normal((graph.n_nodes, WIDTH)).astype(np.float32)
    alpha = np.full((LAYERS + 1, WIDTH), 1 / (LAYERS + 1), np.float32)
    form = ServingForm(base, None, alpha, 0.7, False, graph.n_users)
    arrays = model_arrays(user_ids, item_ids, form, AttentionState.build(graph, WALKS), ItemItemTable.empty())
    manifest = Manifest(
        model="kdiffe",
        n_users=graph.n_users,
        n_items=graph.n_items,
        width=WIDTH,
        views=(View("knowledge", 0, WIDTH),),
        similarity_weight=0.7,
        self_loops=False,
        walks={
            "n_walks": WALKS.n_walks,
            "walk_length": WALKS.walk_length,
            "restart_probability": WALKS.restart_probability,
            "seed": WALKS.seed,
        },
        walk_version=WALK_VERSION,
        configuration={},
        metrics={},
        data={"name": name, "fingerprint": "", "n_interactions": graph.n_edges},
        training={},
        sequence=0,
        created_at="2026-01-01T00:00:00Z",
        version="",
    )

    def write(directory: Path, version: str) -> None:
        write_artifact(directory, replace(manifest, version=version), arrays)

    store = ModelStore(root)
    return store.open(store.publish(write, activate=True))


def new_edges(rng: np.random.Generator, graph: InteractionGraph, count: int) -> Pairs:
    """Endpoints drawn in proportion to their degrees: hubs as often as they act."""
    users, items = graph.pairs()
    return users[rng.integers(0, len(users), count)], items[rng.integers(0, len(items), count)]
