from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from model_store.patched import (
    EMPTY,
    FIRST,
    FIRST_PATCHES,
    UNSTAMPED,
    WHOLE,
    Patched,
    count_stamped,
    gather_sets,
    keep_living,
    make_patches,
    n_living,
    stamp_set,
    touch,
)
from model_store.ragged import read_only
from model_store.stamp import Stamp

N, N_BASE = 8, 6  # the last two sets came after the base
Sets = list[set[int]]
members = st.sets(st.integers(0, N - 1), min_size=1, max_size=N)
bases = st.lists(members, min_size=N_BASE, max_size=N_BASE)
wholes = st.lists(members, min_size=N, max_size=N)


def based_on(base: Sets) -> Patched:
    indptr = np.cumsum([0, *map(len, base)]).astype(np.int64)
    sets = Patched.of_csr(indptr, np.array([m for row in base for m in sorted(row)], np.int32))
    later = N - len(base)
    return sets._replace(
        sizes=np.append(sets.sizes, np.zeros(later, np.int32)),
        places=np.append(sets.places, np.full(later, EMPTY, np.int64)),
    )


def changed(sets: Patched, new: Sets, chosen: list[bool]) -> tuple[Patched, list[int]]:
    """The sets with other ones in the place of some, and the patches' lengths."""
    rows = np.arange(N, dtype=np.int32)
    sizes = np.array([len(row) for row in new], np.int32)
    flat = np.array([m for row in new for m in sorted(row, reverse=True)], np.int32)
    stamp = Stamp()
    tag = stamp.take(2 * N, N)
    patches, lengths = np.zeros(len(flat) + 2 * N, np.int32), np.zeros(N, np.int32)
    end = make_patches(rows, sizes, flat, np.array(chosen), sets, stamp.array, tag, patches, lengths)
    assert end == lengths.sum()
    begins = FIRST + np.cumsum(lengths) - lengths
    places = np.where(chosen, np.where(lengths > 0, begins, 0), sets.places)
    patched = sets._replace(
        sizes=np.where(chosen, sizes, sets.sizes).astype(np.int32),
        places=places,
        patches=read_only(np.concatenate([FIRST_PATCHES, patches[:end]])),
    )
    return patched, lengths.tolist()


def of(sets: Patched) -> Sets:
    return [set(sets.row(row).tolist()) for row in range(N)]


@given(bases, wholes, st.lists(st.booleans(), min_size=N, max_size=N))
def test_sets_are_what_their_patches_make_of_the_base(base: Sets, new: Sets, chosen: list[bool]) -> None:
    sets, lengths = changed(based_on(base), new, chosen)
    before = [*base, set(), set()]
    expected = [now if other else old for old, now, other in zip(before, new, chosen, strict=True)]
    assert of(sets) == expected
    assert sets.sizes.tolist() == [len(row) for row in expected]
    for row, length in enumerate(lengths):
        differing = len(before[row] ^ new[row])
        shortest = len(new[row]) if row >= N_BASE else min(differing, len(new[row]))
        assert length == (0 if not chosen[row] or not differing else 2 + shortest)


@given(bases, wholes)
def test_compiled_functions_see_the_members(base: Sets, new: Sets) -> None:
    sets, _ = changed(based_on(base), new, [True] * N)
    for row in range(N):
        stamp = np.zeros(N, np.int32)
        stamp_set(sets, row, stamp, 7)
        assert set(np.flatnonzero(stamp == 7).tolist()) == new[row]
        assert [count_stamped(sets, other, stamp, 7) for other in range(N)] == [len(new[row] & s) for s in new]
        touch(sets, row)
    indptr = np.cumsum([0, *map(len, new)]).astype(np.int64)
    out = np.zeros(indptr[-1], np.int32)
    gather_sets(sets, indptr, out, np.full(N, UNSTAMPED, np.int32))
    assert [sorted(part.tolist()) for part in np.split(out, indptr[1:-1])] == [sorted(row) for row in new]


@given(bases, wholes, st.lists(st.booleans(), min_size=N, max_size=N))
def test_what_is_kept_of_the_patches_makes_the_same_sets(base: Sets, new: Sets, back: list[bool]) -> None:
    sets, lengths = changed(based_on(base), new, [True] * N)
    # Some are as the base has them again: their patches are dead.
    before = [*base, {0}, {1}]
    places = np.where(back[:N_BASE] + [False] * (N - N_BASE), 0, sets.places)
    living = sum(length for length, place in zip(lengths, places, strict=True) if place)
    assert n_living(places, sets.patches) == living
    kept, new_places = np.empty(FIRST + living, np.int32), np.empty(N, np.int64)
    kept[:FIRST] = FIRST_PATCHES
    assert keep_living(places, sets.patches, new_places, kept) == FIRST + living
    found = of(sets._replace(places=new_places, patches=kept))
    assert found == [before[r] if r < N_BASE and back[r] else new[r] for r in range(N)]


def test_a_patch_reads_as_it_is_written() -> None:
    # Base {0, 1, 2}; 1 has left, 5 and 6 have come; another one is {4, 3} whole.
    sets = based_on([{0, 1, 2}] * N_BASE)
    patches = np.array([*FIRST_PATCHES, 1, 2, 1, 5, 6, WHOLE, 2, 4, 3], np.int32)
    places = sets.places.copy()
    places[[2, 7]] = 4, 9
    sets = sets._replace(places=places, patches=patches)
    assert sets.row(0).tolist() == [0, 1, 2]
    assert sets.row(2).tolist() == [0, 2, 5, 6]
    assert sets.row(6).tolist() == []
    assert sets.row(7).tolist() == [4, 3]
