"""Visited sets that change, and the index from a node to the sets that hold it.

Both have a read-only base, which processes may share as memory maps, and hold what came to be since in memory of their
own: patches of the sets (`model_store.patched`), and pairs that the index lacks. The index may name sets that hold a
node no longer, never the reverse: dropping such names waits for `swap_index`.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.compiled import borrowing
from model_store.neighbor_lists import Lock
from model_store.patched import (
    AS_THE_BASE,
    EMPTY,
    FIRST,
    FIRST_PATCHES,
    UNSTAMPED,
    Patched,
    gather_sets,
    keep_living,
    make_patches,
    n_living,
    stamp_set,
)
from model_store.ragged import grown, is_mapped, read_only
from model_store.stamp import Stamp

# Entries of its own that are not worth a look.
TOLERATED = 1 << 16


@njit(cache=True, nogil=True)
def transpose(indptr: NDArray[np.int64], members: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The index of all sets: indptr (N + 1,) and, for each node, the nodes whose set holds it, ascending."""
    n = indptr.size - 1
    ends = np.zeros(n + 1, np.int64)
    for p in range(members.size):
        ends[members[p] + 1] += 1
    for node in range(n):
        ends[node + 1] += ends[node]
    holders = np.empty(members.size, np.int32)
    places = ends[:-1].copy()
    for node in range(n):
        for p in range(indptr[node], indptr[node + 1]):
            member = members[p]
            holders[places[member]] = node
            places[member] += 1
    return ends, holders


@borrowing
def mark_holders(
    nodes: NDArray[np.int32],
    indptr: NDArray[np.int64],
    holders: NDArray[np.int32],
    newest: NDArray[np.int32],
    link_holders: NDArray[np.int32],
    links: NDArray[np.int32],
    stale: NDArray[np.bool_],
) -> int:
    """Mark `nodes` and everything whose visited set holds one of them. Returns how many were not marked before."""
    count = 0
    for node in nodes:
        count += not stale[node]
        stale[node] = True
        if node < indptr.size - 1:
            for p in range(indptr[node], indptr[node + 1]):
                count += not stale[holders[p]]
                stale[holders[p]] = True
        link = newest[node]
        while link >= 0:
            count += not stale[link_holders[link]]
            stale[link_holders[link]] = True
            link = links[link]
    return count


@borrowing
def compare_sets(
    nodes: NDArray[np.int32],
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    stored: Patched,
    stamp: NDArray[np.int32],
    first_tag: int,
    differs: NDArray[np.bool_],
    entered: NDArray[np.int32],
    entering: NDArray[np.int32],
) -> int:
    """Compare new visited sets with the stored ones.

    Args:
        nodes: (n,) whose sets.
        sizes: (n,) sizes of the new sets.
        members: the new sets, one behind the other.
        stored: the stored sets.
        stamp: (N,) scratch; no entry may lie in first_tag .. first_tag + n - 1.
        first_tag: what stamps the first set.
        differs: (n,) receives which sets have changed.
        entered: receives the members that are new in a set, as long as `members`.
        entering: receives, for each of them, whose set it is.

    Returns:
        How many members are new in a set.
    """
    count, p = 0, 0
    for i in range(nodes.size):
        node, tag = nodes[i], first_tag + i
        stamp_set(stored, node, stamp, tag)
        before = count
        for _ in range(sizes[i]):
            if stamp[members[p]] != tag:
                entered[count] = members[p]
                entering[count] = node
                count += 1
            p += 1
        differs[i] = count != before or stored.sizes[node] != sizes[i]
    return count


@borrowing
def link_all(
    entered: NDArray[np.int32],
    entering: NDArray[np.int32],
    newest: NDArray[np.int32],
    link_holders: NDArray[np.int32],
    links: NDArray[np.int32],
    end: int,
) -> None:
    """Enter (member, holder) pairs in the index."""
    for i in range(entered.size):
        link_holders[end + i] = entering[i]
        links[end + i] = newest[entered[i]]
        newest[entered[i]] = end + i


@borrowing
def look_again(
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    changed_at: NDArray[np.int64],
    clock: int,
    again: NDArray[np.bool_],
) -> None:
    """Whether a list that a set depends on has changed since `clock`, when its walks were made: (n,) `again`."""
    p = 0
    for i in range(sizes.size):
        again[i] = False
        for q in range(p, p + sizes[i]):
            if changed_at[members[q]] > clock:
                again[i] = True
                break
        p += sizes[i]


@borrowing
def publish_sets(
    nodes: NDArray[np.int32],
    sizes: NDArray[np.int32],
    differs: NDArray[np.bool_],
    lengths: NDArray[np.int32],
    again: NDArray[np.bool_],
    set_sizes: NDArray[np.int32],
    places: NDArray[np.int64],
    place: int,
    stale: NDArray[np.bool_],
) -> int:
    """Let the patches that were copied to `place` .. be the nodes' own. Returns how many nodes are no longer stale."""
    count = 0
    for i in range(nodes.size):
        node = nodes[i]
        if differs[i]:
            set_sizes[node] = sizes[i]
            places[node] = place if lengths[i] else AS_THE_BASE
            place += lengths[i]
        count += stale[node] and not again[i]
        stale[node] = again[i]
    return count


class Walked(NamedTuple):
    """Visited sets that were walked anew, and what they change.

    Attributes:
        nodes: (n,) whose.
        sizes: (n,) their sizes.
        members: the sets, one behind the other.
        differs: (n,) which are other ones than those stored.
        entered: members that are new in a set.
        entering: whose set it is, for each of them.
        patches: the patches of those that differ, one behind the other.
        lengths: (n,) the patches' lengths.
    """

    nodes: NDArray[np.int32]
    sizes: NDArray[np.int32]
    members: NDArray[np.int32]
    differs: NDArray[np.bool_]
    entered: NDArray[np.int32]
    entering: NDArray[np.int32]
    patches: NDArray[np.int32]
    lengths: NDArray[np.int32]


class Waste(NamedTuple):
    """What is worth putting in order.

    Attributes:
        sets: whether so much has changed that the sets are worth a fold.
        patches: whether there are more dead patches than living ones.
        links: whether the index lacks so much that it is worth a fold.
    """

    sets: bool
    patches: bool
    links: bool


def worth_a_fold(base: NDArray[np.int32]) -> int:
    """How many entries may lie beside a base until they are worth a fold.

    A fold makes reading cheaper and the memory that processes share this process's own: many where the base is mapped.
    """
    return TOLERATED + (3 * len(base) // 4 if is_mapped(base) else len(base) // 8)


class VisitedSets:
    """The visited set of every node, with its index. A node whose set has no entry is in its own set alone.

    One thread settles: it alone changes the sets. Another one calls `mark` and `add_rows`, never while the first one is
    in `store` or `swap_…` (`model_store.attention`); what takes long is done by functions that change nothing.
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        members: NDArray[np.int32],
        index: tuple[NDArray[np.int64], NDArray[np.int32]] | None = None,
    ) -> None:
        n_rows = len(indptr) - 1
        self._n_rows = n_rows
        self._indptr = read_only(np.ascontiguousarray(indptr, np.int64))
        self.base = read_only(np.ascontiguousarray(members, np.int32))
        self._sizes = np.diff(indptr).astype(np.int32)
        self._places = np.full(n_rows, AS_THE_BASE, np.int64)
        self._patches, self._end = FIRST_PATCHES.copy(), FIRST
        self._living = 0  # how many entries of the patches are some set's own
        self._newest = np.full(n_rows, -1, np.int32)
        self._link_holders = np.zeros(0, np.int32)
        self._links = np.zeros(0, np.int32)
        self._n_links = 0
        # The index is made when it is first needed: a state that never changes does without.
        self._index = None if index is None else (_indptr(index[0]), read_only(np.ascontiguousarray(index[1])))

    @property
    def rows(self) -> Patched:
        """The sets as compiled functions take them. A node without members is in its own set alone."""
        n_rows = self._n_rows
        return Patched(self._indptr, self.base, self._sizes[:n_rows], self._places[:n_rows], read_only(self._patches))

    @property
    def n_entries(self) -> tuple[int, int, int]:
        """How many entries there are: in the base, in patches (dead ones included), in the index beyond its base."""
        return len(self.base), self._end, self._n_links

    @property
    def index(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """The index's base: indptr and, for each node, whose set held it."""
        if self._index is None:
            indptr, holders = transpose(*self.to_csr())
            self._index = indptr, read_only(holders)
        return self._index

    def row(self, node: int) -> NDArray[np.int32]:
        """A node's set, the node itself included."""
        return self.rows.row(node) if self._sizes[node] else np.array([node], np.int32)

    def add_rows(self, count: int) -> None:
        """Append nodes that are in their own sets alone."""
        needed = self._n_rows + count
        self._sizes = grown(self._sizes, needed, fill=0)
        self._places = grown(self._places, needed, fill=EMPTY)
        self._newest = grown(self._newest, needed, fill=-1)
        self._n_rows = needed

    def mark(self, nodes: NDArray[np.int32], stale: NDArray[np.bool_]) -> int:
        """Mark `nodes` and everything whose set holds one of them. Returns how many were not marked before."""
        indptr, holders = self.index
        return int(mark_holders(nodes, indptr, holders, self._newest, self._link_holders, self._links, stale))

    def compare(
        self, nodes: NDArray[np.int32], sizes: NDArray[np.int32], members: NDArray[np.int32], stamp: Stamp
    ) -> Walked:
        """What new sets change.

        Args:
            nodes: (n,) whose.
            sizes: (n,) their sizes.
            members: the sets, one behind the other.
            stamp: scratch.
        """
        n, rows = len(nodes), self.rows
        differs = np.zeros(n, np.bool_)
        entered, entering = np.empty(len(members), np.int32), np.empty(len(members), np.int32)
        tag = stamp.take(3 * n, self._n_rows)
        count = compare_sets(nodes, sizes, members, rows, stamp.array, tag, differs, entered, entering)
        patches, lengths = np.empty(int(sizes[differs].sum()) + 2 * n, np.int32), np.empty(n, np.int32)
        end = make_patches(nodes, sizes, members, differs, rows, stamp.array, tag + n, patches, lengths)
        return Walked(nodes, sizes, members, differs, entered[:count], entering[:count], patches[:end], lengths)

    def reserve(self, walked: Walked) -> None:
        """Make room, so that `store` need not."""
        self._patches = grown(self._patches, self._end + len(walked.patches), self._end)
        self._links = grown(self._links, self._n_links + len(walked.entered), self._n_links)
        self._link_holders = grown(self._link_holders, self._n_links + len(walked.entered), self._n_links)

    def store(
        self,
        walked: Walked,
        stale: NDArray[np.bool_],
        changed_at: NDArray[np.int64],
        clock: int,
        lock: Lock = nullcontext,
    ) -> int:
        """Store walked sets (call `reserve` before). Readers are held up (`lock`) while a few numbers are set alone.

        A node is stale where a list that its new set depends on has changed since `clock`, when its walks were made.

        Returns:
            How many nodes are no longer stale.
        """
        nodes, sizes, entered = walked.nodes, walked.sizes, walked.entered
        link_all(entered, walked.entering, self._newest, self._link_holders, self._links, self._n_links)
        self._n_links += len(entered)
        again = np.empty(len(nodes), np.bool_)
        look_again(sizes, walked.members, changed_at, clock, again)
        self._living += len(walked.patches) - n_living(self._places[nodes[walked.differs]], self._patches)
        place, self._end = self._end, self._end + len(walked.patches)
        self._patches[place : self._end] = walked.patches
        with lock():
            return int(
                publish_sets(
                    nodes, sizes, walked.differs, walked.lengths, again, self._sizes, self._places, place, stale
                )
            )

    def to_csr(self) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
        """All sets: indptr (N + 1,) and members, without patches. A copy unless nothing has changed."""
        rows = self.rows  # nodes may be added meanwhile
        indptr = np.zeros(len(rows.sizes) + 1, np.int64)
        np.cumsum(np.maximum(rows.sizes, 1), out=indptr[1:])
        if self._end == FIRST and indptr[-1] == len(self.base):
            return indptr, self.base
        members = np.empty(indptr[-1], np.int32)
        gather_sets(rows, indptr, members, np.full(len(rows.sizes), UNSTAMPED, np.int32))
        lonely = np.flatnonzero(rows.sizes == 0)
        members[indptr[lonely]] = lonely
        return indptr, read_only(members)

    def weigh(self) -> Waste:
        """What lies beside the bases, against them."""
        dead = self._end - FIRST - self._living
        return Waste(
            self._living > worth_a_fold(self.base),
            dead > TOLERATED + self._living,
            2 * self._n_links > worth_a_fold(self.index[1]),
        )

    def living_patches(self) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
        """Places of the sets' patches, and the patches, once the dead ones are dropped; where they end."""
        places = self._places[: self._n_rows]  # nodes may be added meanwhile
        kept = np.empty(FIRST + self._living, np.int32)
        kept[:FIRST] = FIRST_PATCHES
        new_places = np.empty(len(places), np.int64)
        end = keep_living(places, self._patches, new_places, kept)
        return new_places, kept, end

    def swap_patches(self, places: NDArray[np.int64], patches: NDArray[np.int32], end: int) -> None:
        """Take what `living_patches` gave. Nodes may have been added in between, sets not changed."""
        self._places[: len(places)] = places
        self._patches, self._end = patches, end

    def swap_sets(self, indptr: NDArray[np.int64], members: NDArray[np.int32]) -> None:
        """Take what `to_csr` gave as the new base. Nodes may have been added in between, sets not changed."""
        count = len(indptr) - 1
        self._indptr, self.base = read_only(indptr), members
        self._sizes[:count] = np.diff(indptr)
        self._places[:count] = AS_THE_BASE
        self._patches, self._end, self._living = FIRST_PATCHES.copy(), FIRST, 0

    def swap_index(self, indptr: NDArray[np.int64], holders: NDArray[np.int32]) -> None:
        """Take an index of the present sets as the new base."""
        self._index = indptr, read_only(holders)
        self._newest.fill(-1)
        self._link_holders, self._links, self._n_links = np.zeros(0, np.int32), np.zeros(0, np.int32), 0


def _indptr(array: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.array(array, np.int64)
