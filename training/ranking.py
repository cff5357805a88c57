"""The top k of rows of scores, equal scores ranked by item row."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import sparse

# Portions of rows that threads take, each with a mark for every column.
_PARTS = 64


@njit(cache=True, nogil=True)
def top_rows(scores: NDArray[np.float32], k: int) -> NDArray[np.int32]:
    """The k best columns of each row, best first, equal scores by column.

    One ascending pass: a column enters only if it beats the k-th so far, and stands behind its equals.

    Args:
        scores: (n, J).
        k: how many; columns at -inf are never taken.

    Returns:
        (n, k) columns, -1 where a row has fewer than k above -inf.
    """
    out = np.full((len(scores), k), -1, np.int32)
    for i in range(len(scores)):
        _top(scores[i], out[i])
    return out


class SumRankings:
    """Rankings of scores + weight · added at any weight, looking at no more columns than can be among the k best.

    As nothing is taken away, a column that gets nothing stays behind the k that were ahead of it: so the k best are
    among those that were the best before and those that get something.
    """

    def __init__(self, scores: NDArray[np.float32], best: NDArray[np.int32], added: sparse.csr_array) -> None:
        """Look the scores up once, whatever the weights are.

        Args:
            scores: (n, J).
            best: (n, k) `top_rows` of the scores.
            added: (n, J) sparse, entries ≥ 0.
        """
        self._added = added
        self._scores, self._rest, self._rest_scores = _looked_up(scores, best, added.indptr, added.indices)

    def top(self, weight: float) -> NDArray[np.int32]:
        """(n, k) columns as `top_rows` has them, of scores + weight · added, weight ≥ 0."""
        added = self._added
        parts = (added.indptr, added.indices, added.data, self._scores, self._rest, self._rest_scores)
        return np.asarray(_top_of_sums(*parts, np.float32(weight)))


@njit(cache=True, nogil=True, parallel=True)
def _looked_up(
    scores: NDArray[np.float32], best: NDArray[np.int32], indptr: NDArray[np.integer], indices: NDArray[np.integer]
) -> Any:
    """(nnz,) the scores of the entries; (n, k) the best columns that have none, -1 for others; (n, k) their scores."""
    n, k = best.shape
    found = np.empty(len(indices), np.float32)
    rest, of_rest = np.full((n, k), -1, np.int32), np.full((n, k), -np.inf, np.float32)
    n_parts = min(n, _PARTS)
    for part in prange(n_parts):
        reached = np.full(scores.shape[1], -1, np.int32)  # the last row that reached a column
        for i in range(part * n // n_parts, (part + 1) * n // n_parts):
            for place in range(indptr[i], indptr[i + 1]):
                found[place] = scores[i, indices[place]]
                reached[indices[place]] = i
            for place in range(k):
                j = best[i, place]
                if j >= 0 and reached[j] != i:
                    rest[i, place], of_rest[i, place] = j, scores[i, j]
    return found, rest, of_rest


@njit(cache=True, nogil=True, parallel=True)
def _top_of_sums(
    indptr: NDArray[np.integer],
    indices: NDArray[np.integer],
    data: NDArray[np.float32],
    scores: NDArray[np.float32],
    rest: NDArray[np.int32],
    rest_scores: NDArray[np.float32],
    weight: np.float32,
) -> Any:
    n, k = rest.shape
    out = np.full((n, k), -1, np.int32)
    for i in prange(n):
        values = np.full(k, -np.inf, np.float32)
        for place in range(k):
            if rest[i, place] >= 0:
                _enter(rest_scores[i, place], rest[i, place], values, out[i])
        for place in range(indptr[i], indptr[i + 1]):
            value = scores[place] + weight * data[place]
            if value >= values[k - 1]:
                _enter(value, indices[place], values, out[i])
    return out


@njit(cache=True, nogil=True)
def _top(scores: NDArray[np.float32], out: NDArray[np.int32]) -> None:
    """The best columns of one row into (k,) of -1."""
    values = np.full(len(out), -np.inf, np.float32)
    for j in range(len(scores)):
        if scores[j] > values[-1]:
            _enter(scores[j], j, values, out)


@njit(cache=True, nogil=True)
def _enter(value: np.float32, column: int, values: NDArray[np.float32], columns: NDArray[np.int32]) -> None:
    """Put a column where it belongs among the best so far, equal values by column; -inf belongs nowhere."""
    k = len(values)
    p = k
    while p > 0 and (value > values[p - 1] or (value == values[p - 1] and column < columns[p - 1])):
        if p < k:
            values[p], columns[p] = values[p - 1], columns[p - 1]
        p -= 1
    if p < k:
        values[p], columns[p] = value, column
