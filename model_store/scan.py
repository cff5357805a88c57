"""The top k of several users by one pass over all inner products: what `retrieval.top_items` finds, for less.

The inner products of many users with all items are one matrix product, in float32 and rounded as BLAS likes. Whatever
can still be among a user's best in spite of that rounding is scored again as everywhere else.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.item_item import ItemItemTable, accumulate_rows
from model_store.propagation import Vectors
from model_store.ragged import read_only
from model_store.retrieval import ROUNDING
from model_store.serving_form import dot

Ranking = tuple[NDArray[np.int32], NDArray[np.float64]]

# Inner products that are held at a time, 4 MiB: they stay in a core's cache (docs/index.md has the measurement).
HELD = 1 << 20
# Of so few users, a matrix product costs more than one product by a vector for each (OpenBLAS 0.3).
FEW_USERS = 4
# Numbers that are compared before a branch is taken: compiled to vector instructions.
BLOCK = 32
# Products of numbers this small are off by more than their share.
TINY = float(np.finfo(np.float32).tiny)


def top_items_of_many(
    user_vectors: Vectors,
    item_vectors: Vectors,
    seen: Sequence[NDArray[np.int32]],
    table: ItemItemTable,
    ks: Sequence[int],
    longest: float,
    *,
    blocked: NDArray[np.bool_] | None = None,
) -> list[Ranking]:
    """The k unseen items of the highest score for each of several users, equal scores ranked by item row.

    Args:
        user_vectors: (n, width) Z_u.
        item_vectors: (J, width) Z of the items.
        seen: each user's items, rows of `item_vectors` (rows beyond it count for B alone).
        table: B.
        ks: how many items each user wants.
        longest: `retrieval.longest_norm(item_vectors)`.
        blocked: (J,) items that are not to be recommended, seen or not.

    Returns:
        item rows and scores of each, best first; fewer than k only where fewer items are unseen and not blocked.
    """
    n_items = len(item_vectors)
    mask = np.zeros(0, np.bool_) if blocked is None else blocked
    most = [min(k, n_items) for k in ks]
    if not most or max(most) <= 0:
        return [(np.zeros(0, np.int32), np.zeros(0, np.float64)) for _ in most]
    step = max(1, HELD // n_items)
    found: list[Ranking] = []
    for begin in range(0, len(user_vectors), step):
        part = slice(begin, begin + step)
        vectors = user_vectors[part]
        ends = np.cumsum([0, *map(len, seen[part])])
        rows, scores, counts = scan(
            vectors,
            products_of(vectors, item_vectors),
            read_only(item_vectors),
            np.concatenate(seen[part]),
            ends,
            read_only(table.indptr),
            read_only(table.indices),
            read_only(table.data),
            read_only(mask),
            np.array(most[part], np.int64),
            longest,
        )
        found += [(rows[i, :count], scores[i, :count]) for i, count in enumerate(counts.tolist())]
    return found


def products_of(user_vectors: Vectors, item_vectors: Vectors) -> Vectors:
    """Z_u · Z_v of every user with every item, rounded somehow. (n, J)."""
    if len(user_vectors) < FEW_USERS:
        return np.stack([item_vectors @ vector for vector in user_vectors])
    products: Vectors = user_vectors @ item_vectors.T
    return products


@njit(cache=True, nogil=True)
def scan(
    user_vectors: Vectors,
    products: Vectors,
    item_vectors: Vectors,
    seen: NDArray[np.int32],
    ends: NDArray[np.int64],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    blocked: NDArray[np.bool_],
    wanted: NDArray[np.int64],
    longest: float,
) -> tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.int64]]:
    """The best items of each user from all inner products.

    Args:
        user_vectors: (n, width) Z_u.
        products: (n, J ≥ 1) Z_u · Z_v, each within `ROUNDING` |Z_u||Z_v|; overwritten.
        item_vectors: (J, width) Z of the items.
        seen: the users' items, one user after the other.
        ends: (n + 1,) where each user's begin.
        indptr: where B's rows begin.
        indices: B's columns.
        data: B's entries.
        blocked: (J,) items that are not wanted; empty for none.
        wanted: (n,) how many items each user wants, J at most, 1 at least for one of them.
        longest: the largest |Z_v|.

    Returns:
        item rows (n, most wanted), scores likewise, and how many of them there are for each user.
    """
    n_items = item_vectors.shape[0]
    most = wanted.max()
    rows = np.empty((wanted.size, most), np.int32)
    scores = np.empty((wanted.size, most), np.float64)
    counts = np.zeros(wanted.size, np.int64)
    direct = np.empty(n_items, np.float64)
    candidates = np.empty(n_items, np.int32)
    heap = np.empty(most, np.float32)
    for u in range(wanted.size):
        k, user_vector = wanted[u], user_vectors[u]
        if k == 0:
            continue
        items = seen[ends[u] : ends[u + 1]]
        direct[:] = 0.0
        largest = accumulate_rows(items, indptr, indices, data, direct)
        for v in range(blocked.size):
            if blocked[v]:
                direct[v] = -np.inf
        for i in range(items.size):
            if items[i] < n_items:
                direct[items[i]] = -np.inf
        # Two sums this far apart may stand in the other order; float32 rounds B's part by less than its share.
        margin = 2.0 * (ROUNDING * (longest * np.sqrt(dot(user_vector, user_vector)) + largest) + TINY)
        count = collect(products[u], direct, margin, candidates, heap[:k])
        least = heap[0] - margin
        for i in range(count):
            v = candidates[i]
            if products[u, v] >= least:
                score = dot(user_vector, item_vectors[v]) + direct[v]
                counts[u] = keep_best(rows[u], scores[u], counts[u], k, v, score)
    return rows, scores, counts


@njit(cache=True, nogil=True)
def collect(
    inner: Vectors, direct: NDArray[np.float64], margin: float, candidates: NDArray[np.int32], heap: Vectors
) -> int:
    """Find all items whose sum inner + direct comes within `margin` of the k-th largest sum, and some more.

    Args:
        inner: (J,) first summand; receives the sums.
        direct: (J,) second summand; -inf for items that are not wanted, which are never found.
        margin: how far a sum may lie below.
        candidates: (J,) receives the items that were found, ascending.
        heap: (k ≥ 1,) receives the k largest sums, the least of them at the root; -inf where there are fewer.

    Returns:
        how many were found.
    """
    count = 0
    heap[:] = -np.inf
    least = np.float32(-np.inf)
    for begin in range(0, inner.size, BLOCK):
        end = min(begin + BLOCK, inner.size)
        found = 0
        for v in range(begin, end):  # no branch: compiled to vector instructions
            inner[v] += np.float32(direct[v])
            found |= inner[v] >= least
        if found:
            for v in range(begin, end):
                value = inner[v]
                if value >= least and value > -np.inf:
                    candidates[count] = v
                    count += 1
                    if value > heap[0]:
                        replace_least(heap, value)
                        least = np.float32(heap[0] - margin)
    return count


@njit(cache=True, nogil=True)
def replace_least(heap: Vectors, value: float) -> None:
    """Put a larger number in the place of a heap's least one, its root."""
    place, child = 0, 1
    while child < heap.size:
        if child + 1 < heap.size and heap[child + 1] < heap[child]:
            child += 1
        if heap[child] >= value:
            break
        heap[place] = heap[child]
        place, child = child, 2 * child + 1
    heap[place] = value


@njit(cache=True, nogil=True)
def keep_best(
    rows: NDArray[np.int32], scores: NDArray[np.float64], count: int, most: int, row: int, score: float
) -> int:
    """Put an item in its place among the best, the highest score first; of equal ones the first that came stays first.

    Returns:
        how many there are now, `most` at most.
    """
    if count == most:
        if count == 0 or score <= scores[count - 1]:
            return count
        count -= 1
    place = count
    while place > 0 and scores[place - 1] < score:
        rows[place], scores[place] = rows[place - 1], scores[place - 1]
        place -= 1
    rows[place], scores[place] = row, score
    return count + 1
