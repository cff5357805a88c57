"""The attention state: visited sets, S and degrees, kept up to date while interactions come and go.

Once settled, the state is bit for bit what a rebuild from scratch on the same interactions gives, whatever the order
of arrival and the batches (docs/attention.md). A walk is a pure function of the neighbor lists that it meets, so only
start nodes whose visited set, as it was before a batch, holds a node whose list changed are walked again.

Not thread-safe: the owner serialises access.
"""

from __future__ import annotations

from hashlib import sha256
from typing import cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys
from model_store.ragged import RaggedRows
from model_store.similarity import build_similarity, position_of, refresh_similarity
from model_store.walks import WalkSettings, walk_nodes

# How far a node's part of the state lags behind the graph.
FRESH = 0  # visited set and S on all its edges are exact
WALKED = 1  # the visited set is exact, S on its edges may not be
STALE = 2  # has to be walked again


@njit(cache=True, nogil=True)
def mark_affected(
    changed: NDArray[np.uint8],
    staleness: NDArray[np.uint8],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    visited: NDArray[np.int32],
) -> None:
    """Mark every start node stale whose visited set holds a changed node."""
    for node in range(starts.size):
        if staleness[node] != STALE:
            for p in range(starts[node], starts[node] + lengths[node]):
                if changed[visited[p]]:
                    staleness[node] = STALE
                    break


@njit(cache=True, nogil=True)
def mark_with_neighbors(
    nodes: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    neighbors: NDArray[np.int32],
    mask: NDArray[np.bool_],
) -> None:
    """Mark `nodes` and all of their neighbors."""
    for node in nodes:
        mask[node] = True
        for e in range(starts[node], starts[node] + lengths[node]):
            mask[neighbors[e]] = True


class AttentionState:
    """Neighbor lists, visited sets and S of a growing graph.

    Nodes of the graph that the state was built from keep their numbers; new nodes are appended, users and items alike.
    """

    def __init__(
        self,
        keys: NodeKeys,
        indptr: NDArray[np.int64],
        neighbors: NDArray[np.int32],
        similarity: NDArray[np.float32],
        visited_indptr: NDArray[np.int64],
        visited: NDArray[np.int32],
        settings: WalkSettings,
    ) -> None:
        self.settings = settings
        self._keys = np.array(keys, np.uint64)
        self._n_nodes = len(keys)
        self._edges = RaggedRows(indptr, neighbor=neighbors, similarity=similarity)
        self._visited = RaggedRows(visited_indptr, node=visited)
        self._staleness = np.zeros(self._n_nodes, np.uint8)
        self._stamp = np.full(self._n_nodes, -1, np.int32)
        self._n_stale = 0

    @classmethod
    def build(cls, graph: InteractionGraph, settings: WalkSettings, *, threads: int = 1) -> AttentionState:
        """The state of a whole graph, from scratch."""
        similarity, visited_indptr, visited = build_similarity(graph, settings, threads=threads)
        return cls(graph.keys, graph.indptr, graph.neighbors, similarity, visited_indptr, visited, settings)

    # ---- what is known -------------------------------------------------------------------------------------------

    @property
    def n_nodes(self) -> int:
        """N, new nodes included."""
        return self._n_nodes

    @property
    def keys(self) -> NodeKeys:
        """(N,) node keys."""
        return self._keys[: self._n_nodes]

    @property
    def degrees(self) -> NDArray[np.int32]:
        """(N,) degrees, always up to date."""
        return self._edges.lengths

    @property
    def n_stale(self) -> int:
        """How many nodes wait to be settled."""
        return self._n_stale

    def neighbors(self, node: int) -> NDArray[np.int32]:
        """(d,) a node's neighbors in key order, always up to date. A view: copy it to keep it."""
        return cast(NDArray[np.int32], self._edges.row(node, "neighbor"))

    def has_edge(self, node: int, other: int) -> bool:
        """Whether two nodes have interacted."""
        offset = self._position(node, other)
        row = self.neighbors(node)
        return bool(offset < len(row) and row[offset] == other)

    def adjacency(self) -> Adjacency:
        """The neighbor lists with S as they stand (settle first for exactness). Shares memory with the state."""
        return Adjacency(
            self._edges.starts,
            self._edges.lengths,
            cast(NDArray[np.int32], self._edges.column("neighbor")),
            cast(NDArray[np.float32], self._edges.column("similarity")),
            self.keys,
        )

    def snapshot(self) -> Adjacency:
        """A copy of the settled neighbor lists with S, to work on while the state moves on."""
        self.settle()
        indptr, columns = self._edges.to_csr()
        return Adjacency(
            indptr[:-1],
            self._edges.lengths.copy(),
            cast(NDArray[np.int32], columns["neighbor"]),
            cast(NDArray[np.float32], columns["similarity"]),
            self.keys.copy(),
        )

    # ---- changes -------------------------------------------------------------------------------------------------

    def add_nodes(self, keys: NodeKeys) -> NDArray[np.int32]:
        """Append nodes without interactions. Returns their numbers."""
        first, count = self._n_nodes, len(keys)
        if first + count > len(self._keys):
            spare = max(count, len(self._keys) // 2, 16)
            self._keys = np.concatenate([self._keys, np.zeros(spare, np.uint64)])
            self._staleness = np.concatenate([self._staleness, np.zeros(spare, np.uint8)])
            self._stamp = np.concatenate([self._stamp, np.full(spare, -1, np.int32)])
        self._keys[first : first + count] = keys
        self._n_nodes += count
        self._edges.add_rows(count)
        self._visited.add_rows(count)
        nodes = np.arange(first, first + count, dtype=np.int32)
        self._visited.replace(nodes, np.ones(count, np.int32), "node", nodes)
        return nodes

    def apply(
        self,
        added: tuple[NDArray[np.int32], NDArray[np.int32]],
        removed: tuple[NDArray[np.int32], NDArray[np.int32]] | None = None,
    ) -> int:
        """Add and remove edges: neighbor lists and degrees at once, affected nodes are marked stale.

        Args:
            added: (n,) and (n,) endpoints of the edges to add; one that exists already changes nothing.
            removed: endpoints of the edges to remove, after the additions; one that doesn't exist changes nothing.

        Returns:
            How many edges came or went.
        """
        changed = np.zeros(self._n_nodes, np.uint8)
        count = 0
        for a, b in zip(*added, strict=True):
            if not self.has_edge(int(a), int(b)):
                for node, other in ((int(a), int(b)), (int(b), int(a))):
                    self._edges.insert(node, self._position(node, other), neighbor=other, similarity=0.0)
                    changed[node] = 1
                count += 1
        for a, b in zip(*removed, strict=True) if removed is not None else ():
            if self.has_edge(int(a), int(b)):
                for node, other in ((int(a), int(b)), (int(b), int(a))):
                    self._edges.remove(node, self._position(node, other))
                    changed[node] = 1
                count += 1
        if count:
            mark_affected(
                changed,
                self._staleness[: self._n_nodes],
                self._visited.starts,
                self._visited.lengths,
                cast(NDArray[np.int32], self._visited.column("node")),
            )
            self._count_stale()
        return count

    def settle(self, most: int | None = None) -> int:
        """Walk stale nodes and recompute S on their edges.

        Args:
            most: settle at most so many nodes now, all where None.

        Returns:
            How many nodes still wait.
        """
        if self._n_stale == 0:
            return 0
        # A node that is walked becomes WALKED; S on its edges needs both ends walked, so a full settle walks all of
        # the chunk and the stale neighbors of the chunk before it recomputes the chunk's edges.
        waiting = np.flatnonzero(self._staleness[: self._n_nodes]).astype(np.int32)
        if most is not None:
            waiting = waiting[:most]
        self._walk(self._with_neighbors(waiting))
        self._refresh(waiting)
        self._count_stale()
        return self._n_stale

    def similarity(self, node: int) -> NDArray[np.float32]:
        """(d,) S(node, ·) aligned with `neighbors(node)`, exact at any time: what is stale is walked first."""
        nodes = np.append(self.neighbors(node), np.int32(node)).astype(np.int32)
        if self._staleness[nodes].any():
            self._walk(nodes)
            self._refresh(np.array([node], np.int32))
            self._count_stale()
        return cast(NDArray[np.float32], self._edges.row(node, "similarity"))

    # ---- identity ------------------------------------------------------------------------------------------------

    def digest(self) -> str:
        """A name for the settled state's bits: equal for equal interactions, whatever their order of arrival.

        Hashes, node by node in key order: key, neighbor keys, S, and the sorted keys of the visited set.
        """
        self.settle()
        digest = sha256()
        keys = self.keys
        for node in np.argsort(keys):
            if self.degrees[node] == 0:
                continue
            visited = np.sort(keys[cast(NDArray[np.int32], self._visited.row(int(node), "node"))])
            for part in (keys[node : node + 1], keys[self.neighbors(int(node))], self.similarity(int(node)), visited):
                digest.update(np.int64(len(part)).tobytes())
                digest.update(part.tobytes())
        return digest.hexdigest()

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The settled state as arrays without dead space: what an artifact stores."""
        self.settle()
        indptr, edges = self._edges.to_csr()
        visited_indptr, visited = self._visited.to_csr()
        return {
            "node_keys": self.keys.copy(),
            "graph.indptr": indptr,
            "graph.indices": edges["neighbor"],
            "similarity.data": edges["similarity"],
            "visited.indptr": visited_indptr,
            "visited.indices": visited["node"],
        }

    # ---- inside --------------------------------------------------------------------------------------------------

    def _position(self, node: int, other: int) -> int:
        return int(
            position_of(
                node,
                self._edges.starts,
                self._edges.lengths,
                cast(NDArray[np.int32], self._edges.column("neighbor")),
                self.keys,
                other,
            )
        )

    def _count_stale(self) -> None:
        self._n_stale = int(np.count_nonzero(self._staleness[: self._n_nodes]))

    def _with_neighbors(self, nodes: NDArray[np.int32]) -> NDArray[np.int32]:
        mask = np.zeros(self._n_nodes, np.bool_)
        neighbors = cast(NDArray[np.int32], self._edges.column("neighbor"))
        mark_with_neighbors(nodes, self._edges.starts, self._edges.lengths, neighbors, mask)
        return np.flatnonzero(mask).astype(np.int32)

    def _walk(self, nodes: NDArray[np.int32]) -> None:
        """Walk those of `nodes` that are stale."""
        stale = nodes[self._staleness[nodes] == STALE]
        if len(stale) == 0:
            return
        sizes = np.zeros(len(stale), np.int32)
        stamp = self._cleared_stamp()
        visited = walk_nodes(
            stale,
            self._edges.starts,
            self._edges.lengths,
            cast(NDArray[np.int32], self._edges.column("neighbor")),
            self.keys,
            self.settings.n_walks,
            self.settings.walk_length,
            self.settings.restart_threshold,
            np.uint64(self.settings.seed),
            stamp,
            sizes,
        )
        self._visited.replace(stale, sizes, "node", visited)
        self._staleness[stale] = WALKED

    def _refresh(self, nodes: NDArray[np.int32]) -> None:
        """Recompute S on the edges of walked nodes whose neighbors are walked too: they are fresh then."""
        refresh_similarity(
            nodes,
            self._edges.starts,
            self._edges.lengths,
            cast(NDArray[np.int32], self._edges.column("neighbor")),
            cast(NDArray[np.float32], self._edges.column("similarity")),
            self.keys,
            self._visited.starts,
            self._visited.lengths,
            cast(NDArray[np.int32], self._visited.column("node")),
            self._cleared_stamp(),
        )
        self._staleness[nodes] = FRESH

    def _cleared_stamp(self) -> NDArray[np.int32]:
        stamp = self._stamp[: self._n_nodes]
        stamp.fill(-1)
        return stamp
