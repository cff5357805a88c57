"""Small graphs for the kernel's tests: as the kernel builds them, as the reference does, and as dense matrices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.graph import InteractionGraph
from model_store.keys import node_keys
from model_store.similarity import build_similarity
from model_store.walks import WalkSettings
from tests.model_store import reference
from tests.model_store.reference import Node, Pair


def random_pairs(rng: np.random.Generator, n_users: int, n_items: int, count: int) -> list[Pair]:
    """Pairs of ids, some of them twice; a power of a uniform number makes some items hubs."""
    users = rng.integers(0, n_users, count)
    items = (rng.random(count) ** 2 * n_items).astype(int)
    return [(f"u{u}", f"i{v}") for u, v in zip(users, items, strict=True)]


def graph_of(pairs: Iterable[Pair], user_ids: Sequence[str], item_ids: Sequence[str]) -> InteractionGraph:
    """The kernel's graph, rows in the order of the ids given."""
    pairs = list(pairs)
    return InteractionGraph.from_pairs(
        np.array([user_ids.index(u) for u, _ in pairs], np.int64),
        np.array([item_ids.index(v) for _, v in pairs], np.int64),
        node_keys("user", user_ids),
        node_keys("item", item_ids),
    )


def names_of(user_ids: Sequence[str], item_ids: Sequence[str]) -> list[Node]:
    """The reference's name of each of the kernel's nodes."""
    return [("user", u) for u in user_ids] + [("item", v) for v in item_ids]


def reference_sets(
    pairs: Iterable[Pair], user_ids: Sequence[str], item_ids: Sequence[str], settings: WalkSettings
) -> dict[Node, set[Node]]:
    """Each node's visited set, by the plain-Python reference."""
    keys = {node: reference.key(node) for node in names_of(user_ids, item_ids)}
    lists = reference.neighbor_lists(pairs, keys)
    return {
        node: reference.visited_set(
            node, lists, keys, settings.n_walks, settings.walk_length, settings.restart_probability, settings.seed
        )
        for node in keys
    }


def random_adjacency(
    rng: np.random.Generator, n_users: int = 12, n_items: int = 15, count: int = 60, idle: int = 1
) -> tuple[InteractionGraph, Adjacency]:
    """A random graph with S on its edges; the last `idle` users and items have no interaction."""
    user_ids, item_ids = [f"u{i}" for i in range(n_users)], [f"i{i}" for i in range(n_items)]
    graph = graph_of(random_pairs(rng, n_users - idle, n_items - idle, count), user_ids, item_ids)
    similarity, _, _ = build_similarity(graph, WalkSettings(3, 6, 0.15, 5))
    return graph, Adjacency.of_graph(graph, similarity)


def dense_laplacian(adjacency: Adjacency, similarity_weight: float, self_loops: bool) -> NDArray[np.float64]:
    """L̄ = D^-½ (A + ξS) D^-½ as a dense matrix in double precision, D from A, or from A + I with self-loops."""
    n = adjacency.n_nodes
    links, similarity = np.zeros((n, n)), np.zeros((n, n))
    for node in range(n):
        for entry in range(adjacency.starts[node], adjacency.starts[node] + adjacency.lengths[node]):
            links[node, adjacency.neighbors[entry]] = 1
            similarity[node, adjacency.neighbors[entry]] = adjacency.similarity[entry]
    if self_loops:
        links += np.eye(n)
    degrees = links.sum(axis=1)
    scale = np.diag([d**-0.5 if d > 0 else 0.0 for d in degrees])
    return scale @ (links + similarity_weight * similarity) @ scale
