"""Exact retrieval with B (model.md): the top k by score, never a seen item, equal scores ranked by item row.

Since B ≥ 0, the top k lie in the union of the index's top (k + number of seen items) by Z_u · Z_v and the items that B
reaches from N(u); of the latter, only those that can still be among the best are scored. The index rounds its inner
products in its own way and breaks ties as it likes, so more is fetched until the last fetched inner product lies
clearly below the k-th score. Where so much would have to be fetched that an index is no help (a narrow filter,
thousands of seen items), everything that is allowed is scored.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.item_item import ItemItemTable
from model_store.propagation import Vectors
from model_store.serving_form import dot, score_rows

Search = Callable[[Vectors, int], tuple[NDArray[np.float32], NDArray[np.int64]]]

# Inner products of the index are float32 sums of `width` terms: this bounds how far they lie from ours, relative to
# |Z_u||Z_v| (unit roundoff 6e-8 × a width of some hundreds).
ROUNDING = 1e-4
# Where at most so many items or this part of all (an eighth) are allowed, or this part would have to be fetched, all
# that is allowed is scored (docs/recommend.md has the measurement).
FEW = 1024
SHARE = 8


def top_items(
    user_vector: Vectors,
    item_vectors: Vectors,
    seen: NDArray[np.int32],
    table: ItemItemTable,
    search: Search,
    k: int,
    longest: float | None = None,
    *,
    blocked: NDArray[np.bool_] | None = None,
    boost: NDArray[np.float64] | None = None,
    slack: float = 0.0,
    most: int | None = None,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The k unseen items of the highest score.

    Args:
        user_vector: (width,) Z_u.
        item_vectors: (J, width) Z of the items.
        seen: (n,) the user's items, rows of `item_vectors` (rows beyond it are ignored).
        table: B.
        search: the index: (vector, m) → inner products, descending, and item rows of the m nearest.
        k: how many.
        longest: `longest_norm(item_vectors)`; computed where None, which reads all of `item_vectors`: hand it in where
            the same vectors serve many calls.
        blocked: (J,) items that are not to be recommended, seen or not.
        boost: (J,) what is added to each item's score.
        slack: how far the index's inner products may lie from those with `item_vectors`, for |Z_u| = 1, beyond
            rounding (an index over slightly older vectors).
        most: how many the index is asked for at most, before everything that is allowed is scored; chosen where None.

    Returns:
        item rows and scores, best first; fewer than k only where fewer items are unseen and not blocked.
    """
    n_items = len(item_vectors)
    mask = np.zeros(n_items, np.bool_) if blocked is None else blocked.copy()
    known_seen = seen[seen < n_items]
    mask[known_seen] = True
    n_free = n_items - (len(known_seen) if blocked is None else int(np.count_nonzero(mask)))
    wanted = min(k, n_free)
    if wanted <= 0:
        return np.zeros(0, np.int32), np.zeros(0, np.float64)
    direct = table.sums(seen, n_items)
    if boost is not None:
        direct += boost
    if most is None:
        most = n_items // SHARE if n_free > max(FEW, n_items // SHARE) else 0
    # As many as hold `wanted` that are free: at worst all seen items are among them, and blocked ones as elsewhere.
    fetch = min(n_items, math.ceil((k + 8) * (n_items - len(known_seen)) / n_free) + len(known_seen))
    if fetch <= most:
        # An item that was not fetched may be longer than every item that was, and is then rounded by more.
        longest = longest_norm(item_vectors) if longest is None else longest
        margin = (ROUNDING * longest + slack) * float(np.linalg.norm(user_vector))
    while fetch <= most:
        inner, rows = search(user_vector, fetch)
        # No item that was not fetched has a larger inner product; an index that found fewer says nothing of the rest.
        bound = float(inner[-1]) + margin if len(rows) == fetch and rows[-1] >= 0 else math.inf
        candidates, scores = scored_candidates(user_vector, item_vectors, rows, bound, direct, mask, wanted)
        order = np.lexsort((candidates, -scores))[:wanted]
        if len(order) == wanted and bound < scores[order[-1]]:
            return candidates[order], scores[order]
        fetch = min(fetch * 4, most) if fetch < most else most + 1
    candidates = np.flatnonzero(~mask).astype(np.int32)
    scores = score_rows(user_vector, item_vectors, candidates, direct)
    order = best_of(scores, wanted)
    return candidates[order], scores[order]


def best_of(scores: NDArray[np.float64], k: int) -> NDArray[np.int64]:
    """Places of the k highest scores, best first, equal ones by place. (min(k, n),)."""
    if k < len(scores):
        kth = np.partition(scores, len(scores) - k)[len(scores) - k]
        places = np.flatnonzero(scores >= kth)
    else:
        places = np.arange(len(scores))
    return places[np.argsort(-scores[places], kind="stable")][:k]


@njit(cache=True, nogil=True)
def scored_candidates(
    user_vector: Vectors,
    item_vectors: Vectors,
    fetched: NDArray[np.int64],
    bound: float,
    direct: NDArray[np.float64],
    mask: NDArray[np.bool_],
    wanted: int,
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Items and their scores, among them the best `wanted` of those that were fetched or that B reaches.

    An item that B alone reaches is scored where its score can reach the `wanted`-th best of the fetched ones.

    Args:
        user_vector: (width,) Z_u.
        item_vectors: (J, width) Z of the items.
        fetched: rows that the index has found, negative where it found fewer.
        bound: no other item has a larger Z_u · Z_v.
        direct: (J,) what B adds.
        mask: (J,) items that are not wanted.
        wanted: how many.
    """
    n_items = item_vectors.shape[0]
    taken = mask.copy()
    rows = np.empty(n_items, np.int32)
    scores = np.empty(n_items, np.float64)
    count = 0
    for i in range(fetched.size):
        row = fetched[i]
        if row >= 0 and not taken[row]:
            taken[row] = True
            rows[count] = row
            scores[count] = dot(user_vector, item_vectors[row]) + direct[row]
            count += 1
    least = least_of_best(scores[:count], wanted)
    reached = np.empty(n_items, np.int32)
    n_reached = 0
    for row in range(n_items):
        if direct[row] != 0.0 and not taken[row] and bound + direct[row] >= least:
            reached[n_reached] = row
            n_reached += 1
    # Those to which B adds most come first: they tell which of the others are worth a look.
    most = least_of_best(direct[reached[:n_reached]], wanted)
    for first in (True, False):
        for i in range(n_reached):
            row = reached[i]
            if (direct[row] >= most) == first and bound + direct[row] >= least:
                rows[count] = row
                scores[count] = dot(user_vector, item_vectors[row]) + direct[row]
                count += 1
        least = least_of_best(scores[:count], wanted)
    return rows[:count].copy(), scores[:count].copy()


@njit(cache=True, nogil=True)
def least_of_best(values: NDArray[np.float64], wanted: int) -> float:
    """The `wanted`-th largest value, -inf where there are fewer."""
    if values.size < wanted:
        return -np.inf
    return float(np.partition(values, values.size - wanted)[values.size - wanted])


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
