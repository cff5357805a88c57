"""Exact retrieval with B (model.md): the top k by score, never a seen item, equal scores ranked by item row.

Since B ≥ 0, the top k lie in the union of the index's top (k + number of seen items) by Z_u · Z_v and the items that B
reaches from N(u). The union is scored in full. The index rounds its inner products in its own way and breaks ties as it
likes, so more is fetched until the last fetched inner product lies clearly below the k-th score.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.item_item import ItemItemTable
from model_store.propagation import Vectors
from model_store.serving_form import score_rows

Search = Callable[[Vectors, int], tuple[NDArray[np.float32], NDArray[np.int64]]]

# Inner products of the index are float32 sums of `width` terms: this bounds how far they lie from ours, relative to
# |Z_u||Z_v| (unit roundoff 6e-8 × a width of some hundreds).
ROUNDING = 1e-4


def top_items(
    user_vector: Vectors,
    item_vectors: Vectors,
    seen: NDArray[np.int32],
    table: ItemItemTable,
    search: Search,
    k: int,
    longest: float | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k unseen items of the highest score.

    Args:
        user_vector: (width,) Z_u.
        item_vectors: (J, width) Z of the items, as the index holds them.
        seen: (n,) the user's items, rows of `item_vectors` (rows beyond it are ignored).
        table: B.
        search: the index: (vector, m) → inner products, descending, and item rows of the m nearest.
        k: how many.
        longest: `longest_norm(item_vectors)`; computed where None, which reads all of `item_vectors`: hand it in where
            the same vectors serve many calls.

    Returns:
        item rows and scores, best first; fewer than k only where fewer items are unseen.
    """
    n_items = len(item_vectors)
    mask = np.zeros(n_items, np.bool_)
    known_seen = seen[seen < n_items]
    mask[known_seen] = True
    wanted = min(k, n_items - len(known_seen))
    if wanted <= 0:
        return np.zeros(0, np.int32), np.zeros(0, np.float64)
    direct, reached = table.accumulate(seen, n_items)
    # An item that was not fetched may be longer than every item that was, and is then rounded by more.
    longest = longest_norm(item_vectors) if longest is None else longest
    slack = ROUNDING * float(np.linalg.norm(user_vector)) * longest
    fetch = min(n_items, k + len(known_seen) + 8)
    while True:
        inner, rows = search(user_vector, fetch)
        candidates = np.union1d(rows[rows >= 0].astype(np.int32), reached)
        candidates = candidates[~mask[candidates]]
        scores = score_rows(user_vector, item_vectors, candidates, direct)
        order = np.lexsort((candidates, -scores))[:wanted]
        if fetch >= n_items:
            break
        if len(order) == wanted and inner[-1] + slack < scores[order[-1]]:
            break
        fetch = min(n_items, fetch * 4)
    return candidates[order], scores[order]


@njit(cache=True, nogil=True)
def longest_norm(item_vectors: Vectors) -> float:
    """The largest |Z_v|, in double precision; 0 where there is no item."""
    longest = 0.0
    for v in range(item_vectors.shape[0]):
        squares = 0.0
        for c in range(item_vectors.shape[1]):
            squares += np.float64(item_vectors[v, c]) * np.float64(item_vectors[v, c])
        longest = max(longest, squares)
    return math.sqrt(longest)


def rank_of(
    score: float,
    item_row: int,
    user_vector: Vectors,
    item_vectors: Vectors,
    seen: NDArray[np.int32],
    direct: NDArray[np.float64],
) -> int:
    """The rank (1 = best) that an item with `score` has among the unseen items, equal scores ranked by item row."""
    rows = np.arange(len(item_vectors), dtype=np.int32)
    scores = score_rows(user_vector, item_vectors, rows, direct)
    better = (scores > score) | ((scores == score) & (rows < item_row))
    better[seen[seen < len(rows)]] = False
    return int(np.count_nonzero(better)) + 1
