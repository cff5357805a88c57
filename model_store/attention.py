"""The attention state: visited sets, S and degrees, kept up to date while interactions come and go.

Once settled, the state is bit for bit what a rebuild from scratch on the same interactions gives, whatever the order
of arrival and the batches (docs/attention.md). A walk is a pure function of the neighbor lists that it meets, so only
start nodes whose visited set holds a node whose list has changed are walked again.

Threads may share a state. Two change it: the one that follows the interactions (`foresee`, `add_nodes`, `apply`,
`mark`) and the one that settles (`settle`, `snapshot`). Two locks, always taken in this order:

- `writing`, the state's own: what the two would both change, they change in turn. Readers never wait for it.
- the readers' lock, the caller's: who reads (`similarity`, `neighbors`, `degrees`) holds it, and so does who follows
  around `add_nodes` and `apply`. `settle` is handed a way to take it and does so for moments: everything long (walks,
  marking what is affected, copies) is done where no reader looks.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from hashlib import sha256
from threading import RLock
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys
from model_store.neighbor_lists import Frozen, Lock, NeighborLists, has_edge
from model_store.patched import EMPTY
from model_store.ragged import Ragged, grown, is_mapped, read_only
from model_store.similarity import build_similarity, refresh_similarity, similarity_row, similarity_rows
from model_store.stamp import Stamp, Stamps
from model_store.visited import VisitedSets, transpose
from model_store.walks import WalkSettings, walk_nodes

# Nodes walked, or whose edges are recomputed, at a time: what is found is stored under one hold of `writing` (0.2 ms).
PORTION = 128

Ends = tuple[NDArray[np.int32], NDArray[np.int32]]


@dataclass(eq=False)
class Mark:
    """The graph at a moment to settle at. Cheap: the neighbor lists are shared with the state.

    Attributes:
        clock: the moment, counted in changes.
        lists: the neighbor lists.
        stale: nodes whose stored visited set may not be that of these lists.
        changed: nodes whose list may have changed since the state was last settled.
    """

    clock: int
    lists: Frozen
    stale: NDArray[np.int32]
    changed: NDArray[np.int32]

    @property
    def n_nodes(self) -> int:
        """N at that moment."""
        return len(self.lists.starts)


@dataclass
class _Cycle:
    """A settle under way: first the walks of `mark.stale`, then S on the edges of what has changed.

    Attributes:
        mark: the moment that is settled.
        lists: the neighbor lists of that moment.
        todo: nodes to walk.
        walked: how many of them are walked.
        affected: (N,) nodes whose edges are recomputed.
        edges: the same nodes, once all walks are made.
        refreshed: how many of them are done.
    """

    mark: Mark
    lists: Ragged
    todo: NDArray[np.int32]
    affected: NDArray[np.bool_]
    walked: int = 0
    edges: NDArray[np.int32] | None = None
    refreshed: int = 0


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
        visited_by: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None,
    ) -> None:
        """A settled state from its arrays. `neighbors`, `visited` and `visited_by` are used in place, never written.

        Args:
            keys: (N,) node keys.
            indptr: (N + 1,) where each neighbor list begins.
            neighbors: neighbor lists, each ordered by key.
            similarity: S, aligned with `neighbors`.
            visited_indptr: (N + 1,) where each visited set begins.
            visited: visited sets.
            settings: the walks' settings.
            visited_by: indptr and nodes: for each node, those whose visited set holds it. Made at the first change
                where None.
        """
        self.settings = settings
        self._plan = settings.plan
        # Held by whoever changes anything, before the readers' lock where that is needed, too.
        self.writing = RLock()
        self._keys = np.array(keys, np.uint64)
        self._n_nodes = len(keys)
        self._lists = NeighborLists(indptr, neighbors, similarity)
        self._sets = VisitedSets(visited_indptr, visited, visited_by)
        self._stale = np.zeros(self._n_nodes, np.bool_)
        self._n_stale = 0
        self._clock = 0
        self._changed_at = np.zeros(self._n_nodes, np.int64)
        self._settled_at = 0
        self._cycle: _Cycle | None = None
        self._reading, self._settling = Stamps(), Stamp()

    @classmethod
    def build(cls, graph: InteractionGraph, settings: WalkSettings, *, threads: int = 1) -> AttentionState:
        """The state of a whole graph, from scratch."""
        similarity, visited_indptr, visited = build_similarity(graph, settings, threads=threads)
        return cls(graph.keys, graph.indptr, graph.neighbors, similarity, visited_indptr, visited, settings)

    @classmethod
    def of_arrays(cls, arrays: Callable[[str], NDArray[Any]], settings: WalkSettings, *, index: bool) -> AttentionState:
        """A settled state from the arrays that `to_arrays` names, used where they are mapped.

        Args:
            arrays: gives an array by its name.
            settings: the walks' settings.
            index: whether there are the arrays `visited_by.…`.
        """
        return cls(
            arrays("node_keys"),
            arrays("graph.indptr"),
            arrays("graph.indices"),
            arrays("similarity.data"),
            arrays("visited.indptr"),
            arrays("visited.indices"),
            settings,
            (arrays("visited_by.indptr"), arrays("visited_by.indices")) if index else None,
        )

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
        return self._lists.lengths

    @property
    def n_stale(self) -> int:
        """How many nodes' visited sets may be out of date."""
        return self._n_stale

    @property
    def n_waiting(self) -> int:
        """How many nodes wait for their walks or for S on their edges; 0 where the state is settled."""
        cycle = self._cycle
        if cycle is None:
            return self._n_stale
        left = len(cycle.edges) - cycle.refreshed if cycle.edges is not None else 1
        return self._n_stale + max(left, 1)

    @property
    def clock(self) -> int:
        """The moment: how many batches have changed the graph."""
        return self._clock

    @property
    def settled_at(self) -> int:
        """The last moment that was settled."""
        return self._settled_at

    @property
    def nbytes(self) -> tuple[int, int]:
        """Bytes of the arrays that are shared (memory maps), and of those that are the state's own.

        A part that was put in one piece again (`settle` does, where it is worth it) is the state's own from then on.
        """
        lists, sets = self._lists, self._sets
        base = (lists.base, sets.base, *sets.index)
        shared = sum(array.nbytes for array in base if is_mapped(array))
        _, n_patches, n_links = sets.n_entries
        # Keys, changed_at, stale; four numbers a list; three a set; three stamps, a quarter larger than needed.
        per_node = 8 + 8 + 1 + (8 + 4 + 4 + 8) + (8 + 4 + 4) + 3 * 5
        own = sum(array.nbytes for array in base) - shared + lists.similarity_base.nbytes + 8 * lists.tail_size
        return shared, own + 4 * n_patches + 8 * n_links + per_node * self._n_nodes

    def neighbors(self, node: int) -> NDArray[np.int32]:
        """(d,) a node's neighbors in key order, always up to date. A view: copy it to keep it."""
        return self._lists.row(node)

    def has_edge(self, node: int, other: int) -> bool:
        """Whether two nodes have interacted."""
        return bool(has_edge(node, other, self._lists.rows, self._keys))

    def n_stale_of(self, node: int) -> int:
        """How many walks `similarity(node)` would have to start from: the node and its neighbors, if they are stale."""
        return int(np.count_nonzero(self._stale[self.neighbors(node)])) + int(self._stale[node])

    def similarity(self, node: int) -> NDArray[np.float32]:
        """(d,) S(node, ·) aligned with `neighbors(node)`, exact at any time: what is stale is walked on the spot."""
        scratch, degree = self._reading, int(self._lists.lengths[node])
        if degree == 0:
            return np.zeros(0, np.float32)
        tag = scratch.take(degree + 1, self._n_nodes)
        row: NDArray[np.float32] = similarity_row(
            node,
            self._stale,
            self._lists.rows,
            self._keys,
            self._sets.rows,
            self._plan,
            scratch.sets.array,
            scratch.walks.array,
            tag,
        )
        return row

    def similarities(
        self, nodes: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]]:
        """`neighbors` and `similarity` of several nodes, one after the other.

        Returns:
            (n + 1,) where each node's part begins; neighbors, copied; S aligned with them.
        """
        scratch, lists = self._reading, self._lists.rows
        tag = scratch.take(int(lists.lengths[nodes].sum()) + len(nodes), self._n_nodes)
        found: tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.float32]] = similarity_rows(
            nodes,
            self._stale,
            lists,
            self._keys,
            self._sets.rows,
            self._plan,
            scratch.sets.array,
            scratch.walks.array,
            tag,
        )
        return found

    def detach(self) -> Ragged:
        """The neighbor lists as they are now, to be changed aside (`model_store.trials`). Hold the readers' lock."""
        return self._lists.detach()

    def newcomer(
        self, key: int, others: NDArray[np.int32]
    ) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32]]:
        """What a new node with edges to some nodes would have, as after `add_nodes` and `apply`; nothing changes.

        Args:
            key: the new node's key; its number would be `n_nodes`.
            others: (d,) its neighbors-to-be, each once.

        Returns:
            its neighbors in key order, S(new, ·) aligned with them, and everybody's degrees, (N + 1,).
        """
        n, degree = self._n_nodes, len(others)
        keys = np.append(self.keys, np.uint64(key))
        others = np.asarray(others, np.int32)[np.argsort(keys[others])]
        lists, sets = self._lists.rows, self._sets.rows
        starts, lengths = np.append(lists.starts, np.int64(0)), np.append(lists.lengths, np.int32(0))
        end = len(lists.base) + len(lists.tail)
        parts = [lists.tail]
        for node, row in [(n, others), *((int(other), self._with(int(other), n, keys)) for other in others)]:
            starts[node], lengths[node] = end, len(row)
            parts.append(row)
            end += len(row)
        stale = np.append(self._stale[:n], True)
        stale[others] = True
        scratch = self._reading
        tag = scratch.take(degree + 1, n + 1)
        row_of_s: NDArray[np.float32] = similarity_row(
            n,
            stale,
            Ragged(starts, lengths, lists.base, read_only(np.concatenate(parts))),
            keys,
            sets._replace(sizes=np.append(sets.sizes, np.int32(0)), places=np.append(sets.places, np.int64(EMPTY))),
            self._plan,
            scratch.sets.array,
            scratch.walks.array,
            tag,
        )
        return others, row_of_s, lengths

    def _with(self, node: int, other: int, keys: NodeKeys) -> NDArray[np.int32]:
        """A node's neighbors with one more, in key order."""
        row = self.neighbors(node)
        return np.insert(row, np.searchsorted(keys[row], keys[other]), np.int32(other)).astype(np.int32)

    # ---- changes -------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Make the index that `apply` needs now, where it was not handed in: some tenths of a second at the most."""
        _ = self._sets.index

    def add_nodes(self, keys: NodeKeys) -> NDArray[np.int32]:
        """Append nodes without interactions. Returns their numbers."""
        with self.writing:
            first, count = self._n_nodes, len(keys)
            needed = first + count
            self._keys = grown(self._keys, needed, fill=0)
            self._stale = grown(self._stale, needed, fill=False)
            self._changed_at = grown(self._changed_at, needed, fill=0)
            self._keys[first:needed] = keys
            self._lists.add_rows(count)
            self._sets.add_rows(count)
            self._n_nodes = needed
            return np.arange(first, needed, dtype=np.int32)

    def foresee(self, added: Ends, removed: Ends | None = None) -> None:
        """Do before `apply`, with the same edges, what takes long and what readers need not be held up for.

        Nodes that the edges will affect are marked stale, and room is made. Hold `writing` from here to `apply`. An end
        that is no node yet may have any number outside of 0 .. N - 1.
        """
        with self.writing:
            for edges, remove in ((added, False), (removed, True)):
                if edges is not None and len(edges[0]):
                    self._mark_stale(
                        self._lists.foresee(
                            *edges,
                            remove=remove,
                            keys=self._keys,
                            changed_at=self._changed_at,
                            clock=self._clock + 1,
                        )
                    )

    def apply(self, added: Ends, removed: Ends | None = None) -> int:
        """Add and remove edges: neighbor lists and degrees at once, affected nodes are marked stale.

        Args:
            added: (n,) and (n,) endpoints of the edges to add; one that exists already changes nothing.
            removed: endpoints of the edges to remove, after the additions; one that doesn't exist changes nothing.

        Returns:
            How many edges came or went.
        """
        with self.writing:
            clock, total = self._clock + 1, 0
            for edges, remove in ((added, False), (removed, True)):
                if edges is None or len(edges[0]) == 0:
                    continue
                count, touched = self._lists.change(
                    *edges, remove=remove, keys=self._keys, changed_at=self._changed_at, clock=clock
                )
                total += count
                self._mark_stale(touched)
            if total:
                self._clock = clock
            return total

    def _mark_stale(self, nodes: NDArray[np.int32]) -> None:
        """Mark the nodes whose walks may meet one of `nodes`."""
        if len(nodes):
            self._n_stale += self._sets.mark(nodes, self._stale)

    def mark(self) -> Mark:
        """The graph as it is now, to settle at while it goes on changing."""
        with self.writing:
            n = self._n_nodes
            stale = np.flatnonzero(self._stale[:n]).astype(np.int32)
            changed = np.flatnonzero(self._changed_at[:n] > self._settled_at).astype(np.int32)
            return Mark(self._clock, self._lists.freeze(), stale, changed)

    # ---- settling ------------------------------------------------------------------------------------------------

    def settle(self, most: int | None = None, *, at: Mark | None = None, lock: Lock = nullcontext) -> int:
        """Walk stale nodes and recompute S on their edges.

        A settle goes on where the last one stopped: it is finished at the moment where it was begun, whatever has
        changed since, and the next one begins at `at`, or where the graph stands then.

        Args:
            most: do so many nodes' walks or edges now, at least; all where None.
            at: settle at this moment rather than at the present one; one before the last settled moment is skipped.
            lock: takes the readers' lock.

        Returns:
            How many nodes still wait (`n_waiting`); with `at`, 0 as soon as that moment is settled.
        """
        budget = most
        while budget is None or budget > 0:
            if self._cycle is None:
                if at is not None and self._settled_at >= at.clock:
                    return 0
                if at is None and self._n_stale == 0:
                    return 0
                with self.writing:
                    self._begin(self.mark() if at is None else at, lock)
            done = self._advance(PORTION if budget is None else min(budget, PORTION), lock)
            if budget is not None:
                budget -= max(done, 1)
        if at is not None and self._cycle is None and self._settled_at >= at.clock:
            return 0
        return self.n_waiting

    def _begin(self, mark: Mark, lock: Lock) -> None:
        """Begin to settle at a moment; `writing` is held."""
        self._lists.compact_if_wasteful(lock)
        self._lists.align_similarity()
        # What was walked since, at an earlier moment, and has not been marked again is right already.
        todo = mark.stale[self._stale[mark.stale]]
        affected = np.zeros(mark.n_nodes, np.bool_)
        affected[mark.changed] = True
        self._cycle = _Cycle(mark, self._lists.rows_at(mark.lists), todo, affected)

    def _advance(self, most: int, lock: Lock) -> int:
        """Do the next portion of the settle under way. Returns how many nodes were done."""
        cycle = self._cycle
        assert cycle is not None  # noqa: S101
        if cycle.walked < len(cycle.todo):
            nodes = cycle.todo[cycle.walked : cycle.walked + most]
            self._walk(cycle, nodes, lock)
            cycle.walked += len(nodes)
            return len(nodes)
        if cycle.edges is None:
            cycle.edges = np.flatnonzero(cycle.affected).astype(np.int32)
        nodes = cycle.edges[cycle.refreshed : cycle.refreshed + most]
        if len(nodes):
            self._refresh(cycle, nodes)
            cycle.refreshed += len(nodes)
        if cycle.refreshed == len(cycle.edges):
            self._settled_at = cycle.mark.clock
            self._cycle = None
            self._fold(lock)
        return len(nodes)

    def _walk(self, cycle: _Cycle, nodes: NDArray[np.int32], lock: Lock) -> None:
        sets, stamp = self._sets, self._settling
        sizes = np.zeros(len(nodes), np.int32)
        tag = stamp.take(len(nodes), self._n_nodes)
        members = walk_nodes(nodes, cycle.lists, self._keys, self._plan, stamp.array, tag, sizes)
        walked = sets.compare(nodes, sizes, members, stamp)
        sets.reserve(walked)
        with self.writing:
            self._n_stale -= sets.store(walked, self._stale, self._changed_at, cycle.mark.clock, lock)
        cycle.affected[nodes[walked.differs]] = True

    def _refresh(self, cycle: _Cycle, nodes: NDArray[np.int32]) -> None:
        lists, stamp = self._lists, self._settling
        tag = stamp.take(len(nodes), self._n_nodes)
        refresh_similarity(
            nodes,
            cycle.affected,
            cycle.lists,
            lists.similarity_base,
            lists.similarity_tail,
            self._keys,
            self._sets.rows,
            stamp.array,
            tag,
        )

    def _fold(self, lock: Lock) -> None:
        """Put the visited sets, and the index, in one piece again where too much lies beside their bases."""
        waste = self._sets.weigh()
        if waste.sets:
            csr = self._sets.to_csr()
            with self.writing, lock():
                self._sets.swap_sets(*csr)
        elif waste.patches:
            kept = self._sets.living_patches()
            with self.writing, lock():
                self._sets.swap_patches(*kept)
        if waste.links:
            made = transpose(*self._sets.to_csr())
            with self.writing:
                self._sets.swap_index(*made)

    def snapshot(self, at: Mark | None = None, *, lock: Lock = nullcontext) -> Adjacency:
        """A copy of the settled neighbor lists with S, to work on while the state moves on.

        Args:
            at: the moment, which must be the last settled one; the present (settled first) where None.
            lock: takes the readers' lock.

        Raises:
            ValueError: another moment than `at` was settled last, or a settle is under way.
        """
        if at is None:
            while True:
                self.settle(lock=lock)
                at = self.mark()
                if at.clock == self._settled_at:
                    break
        if self._cycle is not None or at.clock != self._settled_at:
            raise ValueError(f"the state was last settled at {self._settled_at}, not at {at.clock}: settle first")
        with self.writing:
            keys = self._keys[: at.n_nodes].copy()
        indptr, neighbors, similarity = self._lists.to_csr(at.lists)
        return Adjacency(indptr[:-1], at.lists.lengths.copy(), neighbors, similarity, keys)

    # ---- identity ------------------------------------------------------------------------------------------------

    def digest(self, at: Mark | None = None, *, lock: Lock = nullcontext) -> str:
        """A name for the settled state's bits: equal for equal interactions, whatever their order of arrival.

        Hashes, node by node in key order: key, neighbor keys, S, and the sorted keys of the visited set. `at` as of
        `snapshot`.
        """
        adjacency = self.snapshot(at, lock=lock)
        digest = sha256()
        keys = adjacency.keys
        for node in np.argsort(keys):
            row = slice(int(adjacency.starts[node]), int(adjacency.starts[node] + adjacency.lengths[node]))
            if row.start == row.stop:
                continue
            visited = np.sort(keys[self._sets.row(int(node))])
            neighbors = keys[adjacency.neighbors[row]]
            for part in (keys[node : node + 1], neighbors, adjacency.similarity[row], visited):
                digest.update(np.int64(len(part)).tobytes())
                digest.update(part.tobytes())
        return digest.hexdigest()

    def to_arrays(self) -> dict[str, NDArray[np.generic]]:
        """The settled state as arrays without dead space: what an artifact stores."""
        adjacency = self.snapshot()
        visited_indptr, visited = self._sets.to_csr()
        holders_indptr, holders = transpose(visited_indptr, visited)
        return {
            "node_keys": adjacency.keys,
            "graph.indptr": np.append(adjacency.starts, np.int64(len(adjacency.neighbors))),
            "graph.indices": adjacency.neighbors,
            "similarity.data": adjacency.similarity,
            "visited.indptr": visited_indptr,
            "visited.indices": np.array(visited),
            "visited_by.indptr": holders_indptr,
            "visited_by.indices": holders,
        }
