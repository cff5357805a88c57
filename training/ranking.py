"""The top k of rows of scores, equal scores ranked by item row."""

from __future__ import annotations

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray


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


@njit(cache=True, nogil=True, parallel=True)
def top_rows_of_sums(
    scores: NDArray[np.float32], added: NDArray[np.float32], weight: np.float32, k: int
) -> NDArray[np.int32]:
    """`top_rows` of scores + weight · added, both (n, J), a row of the sums at a time."""
    out = np.full((len(scores), k), -1, np.int32)
    for i in prange(len(scores)):
        _top(scores[i] + weight * added[i], out[i])
    return out


@njit(cache=True, nogil=True)
def _top(scores: NDArray[np.float32], out: NDArray[np.int32]) -> None:
    """The best columns of one row into (k,) of -1."""
    k = len(out)
    best = np.full(k, -np.inf, np.float32)
    for j in range(len(scores)):
        score = scores[j]
        if score > best[k - 1]:
            p = k - 1
            while p > 0 and best[p - 1] < score:
                best[p] = best[p - 1]
                out[p] = out[p - 1]
                p -= 1
            best[p] = score
            out[p] = j
