import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_store.ragged import RaggedRows

Rows = list[list[tuple[int, float]]]

starts = st.lists(st.lists(st.tuples(st.integers(0, 99), st.floats(0, 1, width=32)), max_size=5), max_size=5)
steps = st.lists(
    st.tuples(st.sampled_from(["add", "insert", "remove", "compact"]), st.integers(0, 99), st.integers(0, 99)),
    max_size=60,
)


def ragged(rows: Rows) -> RaggedRows:
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    entries = [entry for row in rows for entry in row]
    return RaggedRows(
        indptr,
        number=np.array([n for n, _ in entries], np.int32),
        weight=np.array([w for _, w in entries], np.float32),
    )


def content(rows: RaggedRows) -> Rows:
    return [
        list(zip(rows.row(r, "number").tolist(), rows.row(r, "weight").tolist(), strict=True)) for r in range(len(rows))
    ]


@given(starts, steps)
def test_rows_behave_as_lists_do(expected: Rows, operations: list[tuple[str, int, int]]) -> None:
    rows = ragged(expected)
    expected = [list(row) for row in expected]
    for name, a, b in operations:
        if name == "add":
            rows.add_rows(a % 3)
            expected += [[] for _ in range(a % 3)]
        elif name == "compact":
            rows.compact()
        elif expected:
            row = a % len(expected)
            if name == "insert":
                offset = b % (len(expected[row]) + 1)
                rows.insert(row, offset, number=b, weight=0.5)
                expected[row].insert(offset, (b, 0.5))
            elif expected[row]:
                offset = b % len(expected[row])
                rows.remove(row, offset)
                del expected[row][offset]
        assert content(rows) == expected
    indptr, columns = rows.to_csr()
    assert indptr.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
    assert columns["number"].tolist() == [n for row in expected for n, _ in row]
    assert rows.lengths.tolist() == [len(row) for row in expected]


def test_replaced_rows_hold_their_new_content_and_the_dead_space_is_dropped() -> None:
    rng = np.random.default_rng(0)
    expected = [[int(n)] for n in range(40)]
    rows = RaggedRows(np.arange(41, dtype=np.int64), number=np.arange(40, dtype=np.int32))
    for _ in range(60):
        chosen = rng.choice(40, 20, replace=False).astype(np.int32)
        sizes = rng.integers(0, 300, 20).astype(np.int32)
        data = rng.integers(0, 1000, sizes.sum()).astype(np.int32)
        rows.replace(chosen, sizes, "number", data)
        for row, part in zip(chosen, np.split(data, np.cumsum(sizes)[:-1]), strict=True):
            expected[row] = part.tolist()
        assert [rows.row(r, "number").tolist() for r in range(40)] == expected
    # 60 × 20 × 150 entries went in; about 6000 live.
    assert len(rows.column("number")) < 65536 * 2 + 20 * 300


def test_the_arrays_handed_in_are_not_written() -> None:
    indptr, numbers = np.array([0, 2, 3]), np.array([1, 2, 3], np.int32)
    numbers.flags.writeable = False
    rows = RaggedRows(indptr, number=numbers)
    rows.insert(0, 0, number=9)
    rows.remove(1, 0)
    assert numbers.tolist() == [1, 2, 3]
    assert [rows.row(r, "number").tolist() for r in range(2)] == [[9, 1, 2], []]


def test_a_column_is_named() -> None:
    with pytest.raises(KeyError):
        ragged([[(1, 1.0)]]).column("other")


def test_a_replaced_row_grows_within_its_own_place_alone() -> None:
    rows = RaggedRows(np.array([0, 4, 5]), number=np.arange(5, dtype=np.int32))
    rows.replace(np.array([0, 1], np.int32), np.array([1, 2], np.int32), "number", np.array([7, 8, 9], np.int32))
    rows.insert(0, 1, number=6)
    rows.insert(0, 2, number=5)
    assert [rows.row(r, "number").tolist() for r in range(2)] == [[7, 6, 5], [8, 9]]
