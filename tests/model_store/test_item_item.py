import numpy as np
import pytest

from model_store.item_item import ItemItemTable
from tests.support.artifacts import random_table


def dense(table: ItemItemTable, n_items: int) -> np.ndarray:
    matrix = np.zeros((n_items, n_items))
    for row in range(table.n_rows):
        for p in range(table.indptr[row], table.indptr[row + 1]):
            matrix[row, table.indices[p]] = table.data[p]
    return matrix


def test_the_direct_part_is_the_sum_of_the_user_s_rows() -> None:
    rng = np.random.default_rng(0)
    table = random_table(rng, 20)
    rows = np.array([3, 17, 0], np.int32)
    sums, reached = table.accumulate(rows, 20)
    np.testing.assert_allclose(sums, dense(table, 20)[rows].sum(axis=0), rtol=1e-15)
    assert reached.tolist() == np.flatnonzero(dense(table, 20)[rows].sum(axis=0)).tolist()


def test_an_item_beyond_the_table_adds_nothing_and_is_reached_by_nothing() -> None:
    table = random_table(np.random.default_rng(1), 10)
    sums, _ = table.accumulate(np.array([25, 4], np.int32), 30)
    np.testing.assert_allclose(sums[:10], dense(table, 10)[4], rtol=1e-15)
    assert not sums[10:].any()
    assert table.entry(25, 3) == 0.0
    assert table.entry(3, 25) == 0.0


def test_every_entry_is_the_matrix_s() -> None:
    table = random_table(np.random.default_rng(2), 8, per_row=3)
    matrix = dense(table, 8)
    assert [[table.entry(i, v) for v in range(8)] for i in range(8)] == matrix.tolist()


def test_the_empty_table_is_b_equal_to_zero() -> None:
    table = ItemItemTable.empty()
    sums, reached = table.accumulate(np.array([0, 1], np.int32), 5)
    assert sums.tolist() == [0.0] * 5
    assert len(reached) == 0
    assert table.entry(0, 1) == 0.0
    some = random_table(np.random.default_rng(3), 5).accumulate(np.zeros(0, np.int32), 5)
    assert [part.tolist() for part in some] == [[0.0] * 5, []]


@pytest.mark.parametrize("bad", [-0.1, np.nan, np.inf])
def test_entries_that_exact_retrieval_could_not_bear_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="≥ 0"):
        ItemItemTable(np.array([0, 1]), np.zeros(1, np.int32), np.array([bad], np.float32))
