from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from training.ranking import SumRankings, top_rows


def brute_force(row: list[float], k: int) -> list[int]:
    kept = [column for column in sorted(range(len(row)), key=lambda c: (-row[c], c)) if row[column] > -np.inf]
    return (kept + [-1] * k)[:k]


@pytest.mark.parametrize("k", [1, 3, 8, 12])
def test_the_top_k_are_those_of_a_sort_with_ties_by_column(k: int) -> None:
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 8)).astype(np.float32)  # many ties
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    found = top_rows(scores, k)
    assert found.dtype == np.int32
    assert found.tolist() == [brute_force(row, k) for row in scores.tolist()]


def test_columns_at_minus_infinity_are_never_taken() -> None:
    scores = np.array([[-np.inf, 1, -np.inf], [-np.inf, -np.inf, -np.inf]], np.float32)
    assert top_rows(scores, 2).tolist() == [[1, -1], [-1, -1]]


def test_a_score_that_is_not_a_number_is_never_taken() -> None:
    assert top_rows(np.array([[np.nan, 0.0, np.nan]], np.float32), 2).tolist() == [[1, -1]]


def test_negative_and_very_large_scores_rank_like_any_other() -> None:
    assert top_rows(np.array([[-3e38, 3e38, -1.0]], np.float32), 3).tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("weight", [0.0, 0.37, 1e4])
def test_the_top_of_a_sum_is_that_of_the_sum_written_out(weight: float) -> None:
    rng = np.random.default_rng(1)
    scores, added = (rng.integers(0, 3, (200, 9)).astype(np.float32) / 3 for _ in range(2))
    scores[rng.random(scores.shape) < 0.2] = -np.inf
    added[rng.random(added.shape) < 0.6] = 0
    reached = sparse.csr_array(added)
    reached.indices[:], reached.data[:] = _shuffled(reached, rng)  # a product's rows are in no order
    expected = top_rows(scores + np.float32(weight) * added, 4)
    np.testing.assert_array_equal(SumRankings(scores, top_rows(scores, 4), reached).top(weight), expected)


def _shuffled(matrix: sparse.csr_array, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    order = np.lexsort((rng.random(matrix.nnz), np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))))
    return matrix.indices[order], matrix.data[order]
