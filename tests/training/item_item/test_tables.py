from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from tests.training.item_item.histories import history, kept_by_hand
from tests.training.worlds import small
from training.item_item import (
    Content,
    item_item_table,
    item_item_weights,
    largest_entries,
    largest_of_dense,
    table_matrix,
    table_scores,
    tables,
    two_hops,
    with_share,
)

NO_CONTENT = Content(9, {}, None)


def made() -> sparse.csr_array:
    weights = item_item_weights(history()[1], small(item_item={"weight": 1.0}).item_item, NO_CONTENT)
    assert weights is not None
    return weights


@pytest.mark.parametrize("per_row", [1, 3, 50])
def test_the_largest_positive_entries_of_a_row_are_kept(per_row: int) -> None:
    dense = np.random.default_rng(3).standard_normal((6, 8)).astype(np.float32)
    expected = kept_by_hand(dense, per_row)
    np.testing.assert_array_equal(largest_of_dense(dense, per_row).toarray(), expected)
    np.testing.assert_array_equal(largest_entries(sparse.csr_array(dense), per_row).toarray(), expected)


def test_columns_are_scaled_before_the_largest_entries_are_found() -> None:
    dense = np.array([[3.0, 2.0, 1.0], [-1.0, -2.0, 5.0]], np.float32)
    scale = np.array([0.5, 1.0, -1.0], np.float32)
    # Row 0 becomes 1.5, 2, -1; row 1 becomes -0.5, -2, -5.
    assert largest_of_dense(dense, 1, scale).toarray().tolist() == [[0, 2, 0], [0, 0, 0]]
    assert dense[0, 0] == 3.0


def test_of_equal_entries_the_earlier_columns_are_kept() -> None:
    dense = np.array([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]], np.float32)
    expected = [[1, 2, 0, 0], [0, 0, 0, 0]]
    assert largest_entries(sparse.csr_array(dense), 2).toarray().tolist() == expected
    assert largest_of_dense(dense, 2).toarray().tolist() == expected


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_many_equal_entries_gives_the_same_ones(seed: int) -> None:
    rng = np.random.default_rng(seed)
    dense = rng.integers(-2, 4, rng.integers(1, 40, 2)).astype(np.float32)
    for per_row in (1, 2, 7, 60):
        expected = kept_by_hand(dense, per_row)
        for found in (largest_of_dense(dense, per_row), largest_entries(sparse.csr_array(dense), per_row)):
            np.testing.assert_array_equal(found.toarray(), expected)
            assert found.nnz == np.count_nonzero(expected)
            assert found.has_canonical_format
            assert found.indices.dtype == found.indptr.dtype == np.int32


def test_a_table_without_entries_stays_empty() -> None:
    assert largest_entries(sparse.csr_array((3, 4), dtype=np.float32), 5).shape == (3, 4)
    assert largest_of_dense(np.zeros((0, 4), np.float32), 5).shape == (0, 4)


@pytest.mark.parametrize("per_row", [1, 4, 50])
@pytest.mark.parametrize("chunk", [2, 1024])
def test_two_hops_are_the_largest_entries_of_the_square_without_its_diagonal(
    monkeypatch: pytest.MonkeyPatch, per_row: int, chunk: int
) -> None:
    monkeypatch.setattr(tables, "CHUNK", chunk)
    table = made()
    square = (table @ table).toarray()
    assert square.diagonal().any()
    np.fill_diagonal(square, 0.0)
    np.testing.assert_allclose(two_hops(table, per_row).toarray(), kept_by_hand(square, per_row), rtol=1e-6)


def test_a_share_is_added_in_units_of_the_table_s_mean_entry() -> None:
    table = sparse.csr_array(np.array([[0, 4.0], [2.0, 0]]))
    other = sparse.csr_array(np.array([[0, 0.5], [0, 0]]))
    # Means 3 and 0.5: half the weight is 1.5 / 0.5 times the other.
    assert with_share(table, other, 0.5).toarray().tolist() == [[0, 5.5], [2, 0]]
    assert with_share(table, other, 0.0) is table
    assert with_share(sparse.csr_array((2, 2)), other, 2.0).toarray().tolist() == [[0, 1], [0, 0]]


def test_the_kernel_s_table_is_the_weight_times_the_entries_and_reads_back() -> None:
    weights = made()
    table = item_item_table(weights, 2.5)
    back = table_matrix(table, 9)
    assert back is not None
    np.testing.assert_allclose(back.toarray(), 2.5 * weights.toarray(), rtol=1e-6)
    assert (table.indptr.dtype, table.indices.dtype, table.data.dtype) == (np.int64, np.int32, np.float32)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_without_a_weight_the_table_is_empty(weight: float) -> None:
    assert item_item_table(made(), weight).n_rows == 0
    assert item_item_table(None, 1.0).n_rows == 0
    assert table_matrix(item_item_table(None, 1.0), 9) is None


def test_the_table_s_scores_are_the_sums_of_the_user_s_rows() -> None:
    y, matrix = history(6)
    weights = made()
    found = table_scores(matrix, weights)(np.array([3, 0]))
    np.testing.assert_allclose(found, (y @ weights.toarray())[[3, 0]], rtol=1e-5, atol=1e-7)
