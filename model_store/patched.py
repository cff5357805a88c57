"""Sets that change a little: a read-only base, and for each set what has left it and what has come since.

Visited sets are kept so, and compiled functions are handed them so. An interaction changes the sets of very many nodes
by a few members each: what changed is a small part of what the sets hold, and the base stays shared by processes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.compiled import borrowing
from model_store.ragged import NO_NODES, read_only

# A patch is (number of members that left, number that came, those that left, those that came). Where the first number
# is WHOLE, the set is what came alone and has nothing of the base. At the begin of all stand two: that of a set which
# is as the base has it, and that of one which has no members.
WHOLE = -1
AS_THE_BASE, EMPTY = 0, 2
FIRST_PATCHES = np.array([0, 0, WHOLE, 0], np.int32)
NO_PATCHES = read_only(FIRST_PATCHES)
FIRST = len(FIRST_PATCHES)
# What stamps nothing: tags are 0 or more.
UNSTAMPED = -1


class Patched(NamedTuple):
    """Sets of numbers, as a base and patches.

    Attributes:
        indptr: (N_0 + 1,) where each set of the base begins; a set beyond the base has a whole patch.
        base: members, read-only; processes may share them.
        sizes: (N,) how many members each set has.
        places: (N,) where each set's patch begins.
        patches: see WHOLE; read-only here.
    """

    indptr: NDArray[np.int64]
    base: NDArray[np.int32]
    sizes: NDArray[np.int32]
    places: NDArray[np.int64]
    patches: NDArray[np.int32]

    @classmethod
    def of_csr(cls, indptr: NDArray[np.int64], members: NDArray[np.int32]) -> Patched:
        """Sets that have not changed: set s is members[indptr[s] : indptr[s + 1]]."""
        sizes = np.diff(indptr).astype(np.int32)
        return cls(read_only(indptr), read_only(members), sizes, np.zeros(len(sizes), np.int64), NO_PATCHES)

    def row(self, row: int) -> NDArray[np.int32]:
        """(size,) one set, in memory of its own."""
        place = int(self.places[row])
        n_removed, n_added = (int(n) for n in self.patches[place : place + 2])
        first_added = place + 2 + max(n_removed, 0)
        added = self.patches[first_added : first_added + n_added]
        if n_removed == WHOLE:
            return added.copy()
        base = self.base[self.indptr[row] : self.indptr[row + 1]]
        kept = base[~np.isin(base, self.patches[place + 2 : first_added])]
        return np.concatenate([kept, added])


NO_SETS = Patched.of_csr(np.zeros(1, np.int64), NO_NODES)


@borrowing
def parts_of(sets: Patched, row: int) -> tuple[int, int, int, int, int]:
    """Where a set lies: begin and end in the base; in `patches` where what left begins, what came, and the end."""
    place = sets.places[row]
    n_removed, n_added = sets.patches[place], sets.patches[place + 1]
    if n_removed == WHOLE:
        return 0, 0, place + 2, place + 2, place + 2 + n_added
    first_added = place + 2 + n_removed
    return sets.indptr[row], sets.indptr[row + 1], place + 2, first_added, first_added + n_added


@borrowing
def stamp_set(sets: Patched, row: int, stamp: NDArray[np.int32], tag: int) -> None:
    """Stamp a set's members with `tag`, which no entry holds."""
    begin, end, first_removed, first_added, end_added = parts_of(sets, row)
    for p in range(begin, end):
        stamp[sets.base[p]] = tag
    for p in range(first_removed, first_added):
        stamp[sets.patches[p]] = UNSTAMPED
    for p in range(first_added, end_added):
        stamp[sets.patches[p]] = tag


@borrowing
def count_stamped(sets: Patched, row: int, stamp: NDArray[np.int32], tag: int) -> int:
    """How many of a set's members are stamped with `tag`."""
    begin, end, first_removed, first_added, end_added = parts_of(sets, row)
    count = 0
    for p in range(begin, end):
        count += stamp[sets.base[p]] == tag
    for p in range(first_removed, first_added):
        count -= stamp[sets.patches[p]] == tag
    for p in range(first_added, end_added):
        count += stamp[sets.patches[p]] == tag
    return count


@borrowing
def touch(sets: Patched, row: int) -> np.int32:
    """Read one entry of each cache line of a set's base, so that it is near when it is counted.

    The loads don't wait for one another as those of the counting loop do. Returns a number that depends on them.
    """
    seen = np.int32(0)
    begin, end, _, _, _ = parts_of(sets, row)
    for p in range(begin, end, 16):
        seen ^= sets.base[p]
    return seen


@borrowing
def gather_sets(sets: Patched, indptr: NDArray[np.int64], out: NDArray[np.int32], left: NDArray[np.int32]) -> None:
    """Copy every set to indptr[row] .. of `out`. `left` is (N,) scratch, UNSTAMPED everywhere."""
    for row in range(sets.sizes.size):
        begin, end, first_removed, first_added, end_added = parts_of(sets, row)
        to = indptr[row]
        for p in range(first_removed, first_added):
            left[sets.patches[p]] = row
        for p in range(begin, end):
            if left[sets.base[p]] != row:
                out[to] = sets.base[p]
                to += 1
        for p in range(first_added, end_added):
            out[to] = sets.patches[p]
            to += 1


@borrowing
def make_patches(
    rows: NDArray[np.int32],
    sizes: NDArray[np.int32],
    members: NDArray[np.int32],
    chosen: NDArray[np.bool_],
    sets: Patched,
    stamp: NDArray[np.int32],
    first_tag: int,
    patches: NDArray[np.int32],
    lengths: NDArray[np.int32],
) -> int:
    """The patches that make some sets other ones.

    Args:
        rows: (n,) which sets.
        sizes: (n,) sizes of the new sets.
        members: the new sets, one behind the other.
        chosen: (n,) which of them need a patch.
        sets: the base is theirs.
        stamp: (N,) scratch; no entry may lie in first_tag .. first_tag + 2 n - 1.
        first_tag: the first of 2 n tags.
        patches: receives the patches, one behind the other; a set takes its size + 2 entries at most.
        lengths: (n,) receives their lengths, 0 where a set is as the base has it.

    Returns:
        The patches' length together.
    """
    first, end = 0, 0
    for i in range(rows.size):
        row, size, lengths[i] = rows[i], sizes[i], 0
        if chosen[i]:
            new, old = first_tag + 2 * i, first_tag + 2 * i + 1
            for p in range(first, first + size):
                stamp[members[p]] = new
            at, count = end + 2, 0
            whole = row >= sets.indptr.size - 1
            if not whole:
                for p in range(sets.indptr[row], sets.indptr[row + 1]):
                    member = sets.base[p]
                    if stamp[member] != new:
                        if count < size:
                            patches[at + count] = member
                        count += 1
                    stamp[member] = old
            n_removed = count
            for p in range(first, first + size):
                if stamp[members[p]] == new:
                    if count < size:
                        patches[at + count] = members[p]
                    count += 1
            if whole or count >= size:  # the set itself is no longer than what has changed
                n_removed, count = WHOLE, size
                for p in range(size):
                    patches[at + p] = members[first + p]
            if count:
                patches[end] = n_removed
                patches[end + 1] = count - max(n_removed, 0)
                lengths[i] = count + 2
                end += lengths[i]
        first += size
    return end


@borrowing
def length_of(patches: NDArray[np.int32], place: int) -> int:
    """How many entries a patch takes."""
    return int(2 + max(patches[place], 0) + patches[place + 1])


@borrowing
def n_living(places: NDArray[np.int64], patches: NDArray[np.int32]) -> int:
    """How many entries the sets' patches take."""
    count = 0
    for place in places:
        if place >= FIRST:
            count += length_of(patches, place)
    return count


@borrowing
def keep_living(
    places: NDArray[np.int64], patches: NDArray[np.int32], new_places: NDArray[np.int64], kept: NDArray[np.int32]
) -> int:
    """Copy the sets' patches, one behind the other, behind the first ones. Returns the new end."""
    end = FIRST
    for row in range(places.size):
        place = places[row]
        new_places[row] = place
        if place >= FIRST:
            new_places[row] = end
            for p in range(place, place + length_of(patches, place)):
                kept[end] = patches[p]
                end += 1
    return end
