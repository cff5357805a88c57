"""S: the Jaccard index of the visited sets at both ends of each interaction. Formula (5)."""

from __future__ import annotations

from collections.abc import Callable
from threading import local

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.compiled import borrowing
from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys
from model_store.parallel import each, part_size
from model_store.patched import Patched, count_stamped, stamp_set, touch
from model_store.ragged import Ragged, entry, where
from model_store.stamp import Stamp
from model_store.walks import Walkers, WalkPlan, WalkSettings, new_walkers, visited_sets, walk_node

NO_VALUES = np.zeros(0, np.float32)
# Most entries of the users' lists that one call of the kernel works on.
CHUNK = 1 << 16


@njit(cache=True, nogil=True, inline="always")
def jaccard(shared: int, size_a: int, size_b: int) -> np.float32:
    """|A ∩ B| / |A ∪ B| from the sizes, in double precision, then rounded once."""
    return np.float32(shared / (size_a + size_b - shared))


@borrowing
def position_of(node: int, lists: Ragged, keys: NodeKeys, wanted: int) -> int:
    """Where `wanted` stands, or would stand, in `node`'s neighbor list: an offset by binary search over keys."""
    low, high = 0, lists.lengths[node]
    others, begin = where(lists, node)
    key = keys[wanted]
    while low < high:
        middle = (low + high) // 2
        if keys[others[begin + middle]] < key:
            low = middle + 1
        else:
            high = middle
    return low


@borrowing
def refresh_similarity(
    nodes: NDArray[np.int32],
    chosen: NDArray[np.bool_],
    lists: Ragged,
    similarity_base: NDArray[np.float32],
    similarity_tail: NDArray[np.float32],
    keys: NodeKeys,
    sets: Patched,
    stamp: NDArray[np.int32],
    first_tag: int,
) -> np.int32:
    """Recompute S on every edge of `nodes`, in both directions. Eq. (5).

    Stamps one node's visited set and counts the stamped members of each neighbor's.

    Args:
        nodes: (n,) nodes whose edges are recomputed.
        chosen: (N,) of a pair of neighbors that are both chosen, the one with the larger number takes the edge.
        lists: neighbor lists, each ordered by key.
        similarity_base: S, aligned with the lists' base; written in place.
        similarity_tail: S, aligned with the lists' tail; written in place.
        keys: (N,) node keys.
        sets: visited sets.
        stamp: (N,) scratch; no entry may lie in first_tag .. first_tag + n - 1.
        first_tag: what stamps the first node's set; the following ones count on.

    Returns:
        A number without meaning, so that `touch` is not left out as useless.
    """
    split = lists.base.size
    seen = np.int32(0)
    for i in range(nodes.size):
        node, tag = nodes[i], first_tag + i
        size = sets.sizes[node]
        stamp_set(sets, node, stamp, tag)
        end = lists.starts[node] + lists.lengths[node]
        for e in range(lists.starts[node], end):
            if e + 1 < end:
                seen ^= touch(sets, entry(lists, e + 1))
            other = entry(lists, e)
            if chosen[other] and other > node:
                continue
            value = jaccard(count_stamped(sets, other, stamp, tag), size, sets.sizes[other])
            back = lists.starts[other] + position_of(other, lists, keys, node)
            if e < split:
                similarity_base[e] = value
            else:
                similarity_tail[e - split] = value
            if back < split:
                similarity_base[back] = value
            else:
                similarity_tail[back - split] = value
    return seen


@njit(cache=True, nogil=True)
def similarity_row(
    node: int,
    stale: NDArray[np.bool_],
    lists: Ragged,
    keys: NodeKeys,
    sets: Patched,
    plan: WalkPlan,
    stamp: NDArray[np.int32],
    walk_stamp: NDArray[np.int32],
    first_tag: int,
) -> NDArray[np.float32]:
    """One row of S from the lists as they are: Eq. (5) for a node and each of its neighbors, in list order.

    Stale nodes are walked on the spot, what they visited is forgotten again.

    Args:
        node: the row's node.
        stale: (N,) whose stored visited set may be out of date.
        lists: neighbor lists, each ordered by key.
        keys: (N,) node keys.
        sets: visited sets; not read where a node is stale.
        plan: how to walk.
        stamp: (N,) scratch; no entry may hold `first_tag`.
        walk_stamp: (N,) scratch; no entry may lie in first_tag .. first_tag + d.
        first_tag: what stamps the row's own set.

    Returns:
        (d,) S.
    """
    row = np.empty(lists.lengths[node], np.float32)
    walked = np.empty(plan.n_walks * plan.walk_length + 2, np.int32)
    fill_row(node, stale, lists, keys, sets, plan, stamp, walk_stamp, first_tag, new_walkers(plan), walked, row)
    return row


@njit(cache=True, nogil=True)
def similarity_rows(
    nodes: NDArray[np.int32],
    stale: NDArray[np.bool_],
    lists: Ragged,
    keys: NodeKeys,
    sets: Patched,
    plan: WalkPlan,
    stamp: NDArray[np.int32],
    walk_stamp: NDArray[np.int32],
    first_tag: int,
) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
    """Some nodes' neighbor lists and rows of S, one after the other: see `similarity_row`.

    Of the scratch arrays no entry may lie in first_tag .. first_tag + Σ (d + 1) - 1.

    Returns:
        (n + 1,) where each node's part begins, neighbors, and S aligned with them.
    """
    ends = np.zeros(nodes.size + 1, np.int64)
    for i in range(nodes.size):
        ends[i + 1] = ends[i] + lists.lengths[nodes[i]]
    neighbors, similarity = np.empty(ends[-1], np.int32), np.empty(ends[-1], np.float32)
    walkers = new_walkers(plan)
    walked = np.empty(plan.n_walks * plan.walk_length + 2, np.int32)
    for i in range(nodes.size):
        node, begin, end = nodes[i], ends[i], ends[i + 1]
        for p in range(end - begin):
            neighbors[begin + p] = entry(lists, lists.starts[node] + p)
        tag, row = first_tag + begin + i, similarity[begin:end]
        fill_row(node, stale, lists, keys, sets, plan, stamp, walk_stamp, tag, walkers, walked, row)
    return ends, neighbors, similarity


@borrowing
def fill_row(
    node: int,
    stale: NDArray[np.bool_],
    lists: Ragged,
    keys: NodeKeys,
    sets: Patched,
    plan: WalkPlan,
    stamp: NDArray[np.int32],
    walk_stamp: NDArray[np.int32],
    first_tag: int,
    walkers: Walkers,
    walked: NDArray[np.int32],
    row: NDArray[np.float32],
) -> None:
    """Fill one row of S in: `similarity_row` with its scratch, `walked` with room for a visited set, and its result."""
    begin, own_size = lists.starts[node], 0
    # The node itself first, then its neighbors.
    for i in range(-1, row.size):
        other = node if i < 0 else entry(lists, begin + i)
        size, shared = 0, 0
        if stale[other]:
            size = walk_node(other, lists, keys, plan, walkers, walk_stamp, first_tag + 1 + i, walked, 0)
            if i < 0:
                for p in range(size):
                    stamp[walked[p]] = first_tag
            else:
                for p in range(size):
                    shared += stamp[walked[p]] == first_tag
        else:
            size = sets.sizes[other]
            if i < 0:
                stamp_set(sets, other, stamp, first_tag)
            else:
                shared = count_stamped(sets, other, stamp, first_tag)
        if i < 0:
            own_size = size
        else:
            row[i] = jaccard(shared, own_size, size)


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
        threads: how many parts are worked on at a time; the result does not depend on it.
        progress: called with the number of nodes walked since the last call.

    Returns:
        similarity (2 × edges,) aligned with `graph.neighbors`; indptr (N + 1,) and nodes of the visited sets.
    """
    lists, nodes = graph.lists, np.arange(graph.n_nodes, dtype=np.int32)
    indptr, visited = visited_sets(nodes, lists, graph.keys, settings, threads=threads, progress=progress)
    return similarity_of_sets(graph, Patched.of_csr(indptr, visited), threads=threads), indptr, visited


def similarity_of_sets(graph: InteractionGraph, sets: Patched, *, threads: int = 1) -> NDArray[np.float32]:
    """S on every edge of a whole graph from its visited sets; (2 × edges,) aligned with `graph.neighbors`. Eq. (5)."""
    lists, nodes = graph.lists, np.arange(graph.n_users, dtype=np.int32)
    similarity = np.zeros(len(graph.neighbors), np.float32)
    nobody = np.zeros(graph.n_nodes, np.bool_)
    own = local()

    def refresh(part: NDArray[np.int32]) -> None:
        # The users' parts share no edge, so no entry is written twice.
        stamp: Stamp = own.__dict__.setdefault("stamp", Stamp())
        tag = stamp.take(len(part), graph.n_nodes)
        refresh_similarity(part, nobody, lists, similarity, NO_VALUES, graph.keys, sets, stamp.array, tag)

    # Parts of about equally many edges.
    ends = graph.indptr[1 : graph.n_users + 1]
    size = part_size(graph.n_edges, threads, CHUNK)
    cuts = np.unique(np.searchsorted(ends, np.arange(size, graph.n_edges, size)))
    each(refresh, [part for part in np.split(nodes, cuts) if len(part)], threads)
    return similarity
