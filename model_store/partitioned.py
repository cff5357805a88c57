"""S of a graph whose visited sets don't fit one machine's memory: blocks of start nodes on the workers of an engine.

Every worker needs the graph (8 bytes an edge and 20 a node), which is broadcast. The visited sets (some 1,600 bytes a
node) stay with the workers that walked them: a block of users and a block of items meet at a worker, which computes S
on the edges between the two. The result has the bits of `build_similarity`: a walk is a pure function of its start
node and the neighbor lists, and S one of two sets.

The engine is any object with Dask's `scatter`, `submit` and `gather` (`distributed.Client` is one); `LocalEngine` is
the twin that calls at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.compiled import borrowing
from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys
from model_store.patched import UNSTAMPED, Patched, count_stamped, stamp_set
from model_store.ragged import Ragged, entry
from model_store.similarity import jaccard, position_of
from model_store.walks import WalkSettings, visited_sets


class Engine(Protocol):
    """Runs functions on workers; futures among the arguments stand for their results."""

    def scatter(self, data: Any, *, broadcast: bool) -> Any:
        """Hand data to the workers, to all of them with `broadcast`. Returns a future."""
        ...

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function on a worker. Returns a future."""
        ...

    def gather(self, futures: Sequence[Any]) -> Sequence[Any]:
        """The results of futures, in order."""
        ...


class LocalEngine:
    """An engine without workers: futures are results."""

    def scatter(self, data: Any, *, broadcast: bool) -> Any:  # noqa: ARG002
        """The data."""
        return data

    def submit(self, function: Callable[..., Any], *args: Any) -> Any:
        """The function's result."""
        return function(*args)

    def gather(self, futures: Sequence[Any]) -> Sequence[Any]:
        """The results."""
        return futures


class Lists(NamedTuple):
    """What a worker knows of the graph.

    Attributes:
        indptr: (N + 1,) where each neighbor list begins.
        neighbors: (2 × edges,) neighbor lists, each ordered by key.
        keys: (N,) node keys.
    """

    indptr: NDArray[np.int64]
    neighbors: NDArray[np.int32]
    keys: NodeKeys

    @property
    def ragged(self) -> Ragged:
        """The neighbor lists as compiled functions take them, whether or not the engine's arrays can be written."""
        return Ragged.of_csr(np.array(self.indptr), np.asarray(self.neighbors))


class Block(NamedTuple):
    """The visited sets of consecutive nodes.

    Attributes:
        first: the first of the nodes.
        indptr: (n + 1,) where each set begins.
        members: the sets.
    """

    first: int
    indptr: NDArray[np.int64]
    members: NDArray[np.int32]

    @property
    def sets(self) -> Patched:
        """The sets as compiled functions take them."""
        return Patched.of_csr(np.array(self.indptr), np.asarray(self.members))


def walk_block(lists: Lists, settings: WalkSettings, first: int, end: int) -> Block:
    """The visited sets of the nodes first .. end - 1. A worker's part."""
    nodes = np.arange(first, end, dtype=np.int32)
    indptr, members = visited_sets(nodes, lists.ragged, np.array(lists.keys), settings)
    return Block(first, indptr, members)


def similarity_block(lists: Lists, users: Block, items: Block) -> NDArray[np.float32]:
    """Eq. (5) on the edges between two blocks, in the order of the users' neighbor lists. A worker's part."""
    return np.asarray(similarity_between(lists.ragged, users.first, users.sets, items.first, items.sets))


@njit(cache=True, nogil=True)
def similarity_between(
    lists: Ragged, first_user: int, users: Patched, first_item: int, items: Patched
) -> NDArray[np.float32]:
    """Eq. (5) on the edges between some users and some items, given by their visited sets; see `similarity_block`."""
    n_users, end_item = users.sizes.size, first_item + items.sizes.size
    stamp = np.full(lists.starts.size, UNSTAMPED, np.int32)
    most = 0
    for i in range(n_users):
        most += lists.lengths[first_user + i]
    out = np.empty(most, np.float32)
    count = 0
    for i in range(n_users):
        stamped = False
        begin = lists.starts[first_user + i]
        for e in range(begin, begin + lists.lengths[first_user + i]):
            other = entry(lists, e)
            if other < first_item or other >= end_item:
                continue
            if not stamped:
                stamp_set(users, i, stamp, i)
                stamped = True
            shared = count_stamped(items, other - first_item, stamp, i)
            out[count] = jaccard(shared, users.sizes[i], items.sizes[other - first_item])
            count += 1
    return out[:count]


@borrowing
def mirror(n_users: int, lists: Ragged, keys: NodeKeys, similarity: NDArray[np.float32]) -> None:
    """Copy S from the users' lists to the items' lists."""
    for user in range(n_users):
        for e in range(lists.starts[user], lists.starts[user] + lists.lengths[user]):
            item = entry(lists, e)
            similarity[lists.starts[item] + position_of(item, lists, keys, user)] = similarity[e]


def build_partitioned(
    graph: InteractionGraph, settings: WalkSettings, engine: Engine, *, blocks: int
) -> tuple[NDArray[np.float32], list[Any]]:
    """S of a whole graph, computed by an engine's workers. Eq. (5).

    Args:
        graph: the interaction graph.
        settings: the walk's settings.
        engine: runs the parts.
        blocks: into how many blocks the users, and the items, are cut: so many walks, and as many again, and
            blocks² parts of S. A worker holds some blocks' visited sets at a time.

    Returns:
        similarity (2 × edges,) aligned with `graph.neighbors`, and futures of the visited sets' `Block`s in node order.
    """
    lists = engine.scatter(Lists(graph.indptr, graph.neighbors, graph.keys), broadcast=True)
    user_ends = np.linspace(0, graph.n_users, blocks + 1, dtype=int)
    item_ends = np.linspace(graph.n_users, graph.n_nodes, blocks + 1, dtype=int)
    users, items = (
        [engine.submit(walk_block, lists, settings, int(a), int(b)) for a, b in pairwise(ends)]
        for ends in (user_ends, item_ends)
    )
    parts = [[engine.submit(similarity_block, lists, one, other) for other in items] for one in users]
    similarity = np.zeros(len(graph.neighbors), np.float32)
    for i, row in enumerate(parts):
        begin, end = int(graph.indptr[user_ends[i]]), int(graph.indptr[user_ends[i + 1]])
        # Which block of items each entry of these users' lists belongs to.
        where = np.searchsorted(item_ends[1:], graph.neighbors[begin:end], side="right")
        for j, values in enumerate(engine.gather(row)):
            similarity[begin:end][where == j] = values
    mirror(graph.n_users, graph.lists, graph.keys, similarity)
    return similarity, [*users, *items]
