"""The top k of rows of scores, equal scores ranked by item row."""

from __future__ import annotations

import numpy as np
from numba import njit
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
    n, n_columns = scores.shape
    out = np.full((n, k), -1, np.int32)
    for i in range(n):
        best = np.full(k, -np.inf, np.float32)
        for j in range(n_columns):
            score = scores[i, j]
            if score > best[k - 1]:
                p = k - 1
                while p > 0 and best[p - 1] < score:
                    best[p] = best[p - 1]
                    out[i, p] = out[i, p - 1]
                    p -= 1
                best[p] = score
                out[i, p] = j
    return out
