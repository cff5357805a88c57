"""What a user's row would be with some interactions less or more, in a copy: nothing that is served changes.

An interaction that goes or comes changes the neighbor lists of the user and of the item, hence the walks that meet
them, hence S(u, ·), the degrees and the row of L̄. All of that is recomputed by the kernels that the live state is read
with, so a trial gives, bit for bit, the row that the state would give after the change (T and the items as in force).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model_store.keys import NodeKeys
from model_store.patched import NO_SETS
from model_store.propagation import Vectors
from model_store.ragged import NO_NODES, Ragged, grown, read_only
from model_store.serving_form import ServingForm
from model_store.similarity import similarity_row
from model_store.stamp import Stamps
from model_store.walks import WalkSettings


@dataclass(frozen=True)
class TrialRow:
    """A user's row after a change.

    Attributes:
        neighbors: (d,) the user's items as nodes, in key order.
        similarity: (d,) S(u, ·).
        degrees: (d,) the items' degrees.
        vector: (width,) Z_u.
    """

    neighbors: NDArray[np.int32]
    similarity: NDArray[np.float32]
    degrees: NDArray[np.int32]
    vector: Vectors


class Trials:
    """One user's surroundings at a moment, to try changes of its interactions on. For one thread."""

    def __init__(
        self,
        node: int,
        lists: Ragged,
        keys: NodeKeys,
        settings: WalkSettings,
        form: ServingForm,
        neighbor_embeddings: Vectors,
    ) -> None:
        """Take the surroundings over.

        Args:
            node: the user's node.
            lists: the neighbor lists, its own: `starts` and `lengths` are changed and put back, the tail grows.
            keys: (N,) node keys.
            settings: the walks' settings.
            form: the serving form.
            neighbor_embeddings: T in force.
        """
        self.node = node
        self._lists = lists
        self._starts, self._lengths = lists.starts, lists.lengths
        self._tail, self._end = lists.tail, len(lists.tail)
        self._keys = keys
        self._plan = settings.plan
        self._form = form
        self._neighbor_embeddings = neighbor_embeddings
        # Every set is walked anew: which stored ones would still be right is not asked.
        self._stale = np.ones(len(lists.starts), np.bool_)
        self._stamps = Stamps()
        self.neighbors = self._lists.row(node).copy()

    def row(self, removed: NDArray[np.int32] = NO_NODES, added: NDArray[np.int32] = NO_NODES) -> TrialRow:
        """The user's row without some of its interactions and with some more.

        Args:
            removed: item nodes that the user has interacted with.
            added: item nodes that it has not.

        Raises:
            ValueError: an item to remove is no neighbor of the user's, or one to add is.
        """
        gone, there = np.isin(self.neighbors, removed), np.isin(added, self.neighbors)
        if np.count_nonzero(gone) != len(removed) or there.any():
            raise ValueError("the removed items must be the user's, the added ones must not, each named once")
        own = self.neighbors[~gone]
        if len(added):
            own = np.concatenate([own, added]).astype(np.int32)
            own = own[np.argsort(self._keys[own])]
        lists = [own, *(self._without(node) for node in removed), *(self._with(node) for node in added)]
        nodes = np.concatenate([[self.node], removed, added]).astype(np.int64)
        kept = self._starts[nodes], self._lengths[nodes]
        self._place(nodes, lists)
        try:
            similarity = self._similarity(len(own))
            vector = self._form.user_embedding(self.node, own, similarity, self._lengths, self._neighbor_embeddings)
            return TrialRow(own, similarity, self._lengths[own], vector)
        finally:
            self._starts[nodes], self._lengths[nodes] = kept

    def _without(self, node: int) -> NDArray[np.int32]:
        entries = self._lists.row(node)
        left: NDArray[np.int32] = entries[entries != self.node]
        return left

    def _with(self, node: int) -> NDArray[np.int32]:
        entries = self._lists.row(node)
        return np.insert(entries, np.searchsorted(self._keys[entries], self._keys[self.node]), self.node)

    def _place(self, nodes: NDArray[np.int64], lists: list[NDArray[np.int32]]) -> None:
        """Let each node's list be another one, which lies beyond the tail's end."""
        needed = self._end + sum(map(len, lists))
        if len(self._tail) < needed:
            self._tail = grown(self._tail, needed, self._end)
            self._lists = self._lists._replace(tail=self._tail)
        end = self._end
        for node, entries in zip(nodes, lists, strict=True):
            self._tail[end : end + len(entries)] = entries
            self._starts[node], self._lengths[node] = len(self._lists.base) + end, len(entries)
            end += len(entries)

    def _similarity(self, degree: int) -> NDArray[np.float32]:
        if degree == 0:
            return np.zeros(0, np.float32)
        tag = self._stamps.take(degree + 1, len(self._starts))
        lists = self._lists._replace(tail=read_only(self._tail))
        row: NDArray[np.float32] = similarity_row(
            self.node,
            self._stale,
            lists,
            self._keys,
            NO_SETS,  # none is read: all are stale
            self._plan,
            self._stamps.sets.array,
            self._stamps.walks.array,
            tag,
        )
        return row
