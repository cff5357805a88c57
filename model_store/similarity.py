"""S: the Jaccard index of the visited sets at both ends of each interaction. Formula (5)."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys
from model_store.walks import WalkSettings, visited_sets


@njit(cache=True, nogil=True, inline="always")
def jaccard(shared: int, size_a: int, size_b: int) -> np.float32:
    """|A ∩ B| / |A ∪ B| from the sizes, in double precision, then rounded once."""
    return np.float32(shared / (size_a + size_b - shared))


@njit(cache=True, nogil=True)
def position_of(
    node: int,
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    neighbors: NDArray[np.int32],
    keys: NodeKeys,
    wanted: int,
) -> int:
    """Where `wanted` stands, or would stand, in `node`'s neighbor list: an offset by binary search over keys."""
    low, high = 0, lengths[node]
    begin = starts[node]
    key = keys[wanted]
    while low < high:
        middle = (low + high) // 2
        if keys[neighbors[begin + middle]] < key:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def refresh_similarity(
    nodes: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    keys: NodeKeys,
    visited_starts: NDArray[np.int64],
    visited_lengths: NDArray[np.int32],
    visited: NDArray[np.int32],
    stamp: NDArray[np.int32],
) -> None:
    """Recompute S on every edge of `nodes`, in both directions.

    Stamps one node's visited set and counts the stamped members of each neighbor's.

    Args:
        nodes: (n,) nodes whose edges are recomputed.
        starts: (N,) where each neighbor list begins.
        lengths: (N,) degrees.
        neighbors: neighbor lists, each ordered by key.
        similarity: S, aligned with `neighbors`; written in place.
        keys: (N,) node keys.
        visited_starts: (N,) where each visited set begins.
        visited_lengths: (N,) sizes of the visited sets.
        visited: the visited sets.
        stamp: (N,) scratch; every entry must differ from 0..n-1 on entry (fill with -1).
    """
    for i in range(nodes.size):
        node = nodes[i]
        begin = visited_starts[node]
        size = visited_lengths[node]
        for p in range(begin, begin + size):
            stamp[visited[p]] = i
        for e in range(starts[node], starts[node] + lengths[node]):
            other = neighbors[e]
            other_begin = visited_starts[other]
            other_size = visited_lengths[other]
            shared = 0
            for p in range(other_begin, other_begin + other_size):
                shared += stamp[visited[p]] == i
            value = jaccard(shared, size, other_size)
            similarity[e] = value
            back = position_of(other, starts, lengths, neighbors, keys, node)
            similarity[starts[other] + back] = value


def build_similarity(
    graph: InteractionGraph,
    settings: WalkSettings,
    *,
    threads: int = 1,
    progress: Callable[[int], None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int32]]:
    """S and the visited sets of a whole graph, from scratch. Eq. (5).

    Args:
        graph: the interaction graph.
        settings: the walk's settings.
        threads: how many chunks of nodes are worked on at a time; the result does not depend on it.
        progress: called with the number of nodes walked since the last call.

    Returns:
        similarity (2 × edges,) aligned with `graph.neighbors`; indptr (N + 1,) and nodes of the visited sets.
    """
    starts, lengths = graph.indptr[:-1], graph.degrees
    nodes = np.arange(graph.n_nodes, dtype=np.int32)
    sizes, visited = visited_sets(
        nodes, starts, lengths, graph.neighbors, graph.keys, settings, threads=threads, progress=progress
    )
    visited_indptr = np.zeros(graph.n_nodes + 1, np.int64)
    np.cumsum(sizes, out=visited_indptr[1:])
    similarity = np.zeros(len(graph.neighbors), np.float32)

    def refresh(part: NDArray[np.int32]) -> None:
        # The users' chunks share no edge, so no entry is written twice.
        stamp = np.full(graph.n_nodes, -1, np.int32)
        refresh_similarity(
            part, starts, lengths, graph.neighbors, similarity, graph.keys, visited_indptr[:-1], sizes, visited, stamp
        )

    parts = [nodes[begin : min(begin + 4096, graph.n_users)] for begin in range(0, graph.n_users, 4096)]
    if threads > 1 and len(parts) > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(refresh, parts))
    else:
        for part in parts:
            refresh(part)
    return similarity, visited_indptr, visited
