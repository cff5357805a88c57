from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.patched import FIRST
from model_store.stamp import Stamp
from model_store.visited import VisitedSets, transpose

Sets = list[set[int]]
N = 7
members = st.sets(st.integers(0, N - 1), max_size=N)
sets_of_all = st.lists(members, min_size=N, max_size=N).map(lambda sets: [{n} | s for n, s in enumerate(sets)])
orders = st.sampled_from(["", "fold", "compact"])
steps = st.lists(st.tuples(st.lists(st.tuples(st.integers(0, N - 1), members), max_size=5), orders), max_size=12)


def csr(sets: Sets) -> tuple[np.ndarray, np.ndarray]:
    rows = [sorted(row, key=lambda m, n=n: (m != n, -m)) for n, row in enumerate(sets)]  # the node itself first
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    return indptr, np.array([m for row in rows for m in row], np.int32)


def store(visited: VisitedSets, chosen: dict[int, set[int]], stamp: Stamp, **kept) -> int:
    nodes = np.array(list(chosen), np.int32)
    sizes = np.array([len(row) for row in chosen.values()], np.int32)
    flat = np.array([m for row in chosen.values() for m in row], np.int32)
    walked = visited.compare(nodes, sizes, flat, stamp)
    before = [set(visited.row(int(node)).tolist()) for node in nodes]
    # A node's row of an empty set stands for the node alone, but has no entry in the index yet.
    stored = [row if visited.rows.sizes[n] else set() for n, row in zip(nodes, before, strict=True)]
    assert walked.differs.tolist() == [row != chosen[int(n)] for n, row in zip(nodes, stored, strict=True)]
    pairs = sorted(zip(walked.entered.tolist(), walked.entering.tolist(), strict=True))
    assert pairs == sorted((m, int(n)) for n, row in zip(nodes, stored, strict=True) for m in chosen[int(n)] - row)
    visited.reserve(walked)
    return visited.store(walked, kept["stale"], kept["changed_at"], 0)


@given(sets_of_all, steps, st.booleans())
def test_sets_and_their_index_follow_what_is_stored(expected: Sets, operations: list, handed_in: bool) -> None:
    indptr, flat = csr(expected)
    flat.flags.writeable = False
    visited = VisitedSets(indptr, flat, transpose(indptr, flat) if handed_in else None)
    stamp, kept = Stamp(), {"stale": np.zeros(N + 2, np.bool_), "changed_at": np.zeros(N + 2, np.int64)}
    visited.add_rows(2)
    expected = [*expected, {N}, {N + 1}]
    for changes, order in operations:
        visited.mark(np.zeros(0, np.int32), kept["stale"])
        chosen = {node: {node} | row for node, row in changes}
        store(visited, chosen, stamp, **kept)
        for node, row in chosen.items():
            expected[node] = row
        if order == "compact":
            visited.swap_patches(*visited.living_patches())
        if order == "fold":
            visited.swap_sets(*visited.to_csr())
            visited.swap_index(*transpose(*visited.to_csr()))
        assert [set(visited.row(node).tolist()) for node in range(N + 2)] == expected
        for node in range(N):
            marked = np.zeros(N + 2, np.bool_)
            count = visited.mark(np.array([node], np.int32), marked)
            holders = {n for n, row in enumerate(expected) if node in row}
            found = set(np.flatnonzero(marked).tolist())
            assert holders <= found
            assert count == len(found)
            if order == "fold":
                assert found == holders
    ends, found_flat = visited.to_csr()
    assert [set(part.tolist()) for part in np.split(found_flat, ends[1:-1])] == expected


@given(sets_of_all)
def test_the_index_names_the_holders_in_ascending_order(sets: Sets) -> None:
    indptr, holders = transpose(*csr(sets))
    rows = [part.tolist() for part in np.split(holders, indptr[1:-1])]
    assert rows == [[n for n, row in enumerate(sets) if member in row] for member in range(N)]


def test_a_stored_node_is_stale_again_where_its_set_holds_what_has_changed_since() -> None:
    visited = VisitedSets(*csr([{0}, {1}, {2}]))
    stale = np.ones(3, np.bool_)
    changed_at = np.array([0, 0, 5])
    args = (np.array([0, 1], np.int32), np.array([2, 2], np.int32), np.array([0, 1, 1, 2], np.int32))
    walked = visited.compare(*args, Stamp())
    visited.reserve(walked)
    assert visited.store(walked, stale, changed_at, 4) == 1
    assert stale.tolist() == [False, True, True]  # 1's set holds 2, which changed at 5; 2 was not walked


def mapped(array: np.ndarray, path: Path) -> np.ndarray:
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def test_a_fold_is_asked_for_once_too_much_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.visited.TOLERATED", 3)
    indptr, flat = csr([{0, 1, 2}, {0, 1, 2}, {0, 1, 2}])
    visited = VisitedSets(indptr, mapped(flat, tmp_path / "sets.npy"))
    kept = {"stale": np.zeros(3, np.bool_), "changed_at": np.zeros(3, np.int64)}
    stamp = Stamp()
    # A patch of one member takes 3 entries; 3 + 9 * 3 // 4 may lie beside a base that is shared.
    store(visited, {0: {0, 1}, 1: {1, 2}, 2: {1, 2}}, stamp, **kept)
    assert visited.weigh() == (False, False, False)
    monkeypatch.setattr("model_store.visited.TOLERATED", 2)
    assert visited.weigh() == (True, False, False)
    visited.swap_sets(*visited.to_csr())
    assert visited.weigh() == (False, False, False)
    assert visited.n_entries == (6, FIRST, 0)
    # Nothing is shared any more: 2 + 6 // 8 is the limit.
    store(visited, {0: {0}}, stamp, **kept)
    assert visited.weigh() == (True, False, False)


def test_dead_patches_are_dropped_once_they_outnumber_the_living(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.visited.TOLERATED", 3)
    visited = VisitedSets(*csr([{0, 1, 2}, {0, 1, 2}, {0, 1, 2}]))
    kept = {"stale": np.zeros(3, np.bool_), "changed_at": np.zeros(3, np.int64)}
    stamp = Stamp()
    for n in range(3):
        assert not visited.weigh().patches
        store(visited, {0: {0, 1 + n % 2}}, stamp, **kept)
    # Three patches of 3 entries, two of them dead: 6 are no more than 3 + 3.
    assert not visited.weigh().patches
    store(visited, {0: {0, 1}, 1: {1}}, stamp, **kept)  # the first one is as it was; {1} takes 3, too
    store(visited, {0: {0, 1, 2}}, stamp, **kept)  # as in the base: no patch
    assert visited.n_entries == (9, FIRST + 12, 3)
    assert visited.weigh().patches  # 9 dead ones, more than 3 + 3
    visited.swap_patches(*visited.living_patches())
    assert visited.n_entries == (9, FIRST + 3, 3)
    assert not visited.weigh().patches
    assert [set(visited.row(n).tolist()) for n in range(3)] == [{0, 1, 2}, {1}, {0, 1, 2}]


def test_the_index_is_folded_once_it_has_too_many_pairs_beside_its_base(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("model_store.visited.TOLERATED", 3)
    visited = VisitedSets(*csr([{0, 1, 2}, {0, 1, 2}, {0, 1, 2}]))
    kept = {"stale": np.zeros(3, np.bool_), "changed_at": np.zeros(3, np.int64)}
    stamp = Stamp()
    for n in range(4):  # from the second time on, a member comes back
        assert not visited.weigh().links
        store(visited, {0: {0, 1 + n % 2}}, stamp, **kept)
    assert visited.weigh().links  # 3 pairs take 6 entries, more than 3 + 9 // 8
    visited.swap_index(*transpose(*visited.to_csr()))
    assert not visited.weigh().links
