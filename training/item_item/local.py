"""EASE's regression in neighborhoods, for catalogues whose J³ is too much: each item from its own candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import sparse

# Most sweeps of coordinate descent, and the change of an entry below which it stops; a few sweeps are enough: entries
# are well below 1 and only their order and rough size matter.
_SWEEPS = 30
_TOLERANCE = 1e-4


def local_table(gram: sparse.csr_array, l2: float, n_candidates: int) -> tuple[sparse.csr_array, NDArray[np.float32]]:
    """For each item j: min over b ≥ 0 of ‖Y_j - Y_C b‖² + λ‖b‖², C the items that co-occur with j the most.

    A column of EASE's W is this regression on all other items, of either sign (Steck, WWW 2019); SLIM's (Ning and
    Karypis, ICDM 2011) is the one with b ≥ 0. Candidates are ordered by G_ij / √(G_ii + λ).

    Args:
        gram: (J, J) G = YᵀY, weighted or not.
        l2: λ.
        n_candidates: most candidates of an item: time grows with its square.

    Returns:
        (J, J) sparse W, entries > 0, zero diagonal; and (J,) 1 / P_jj, what the regression leaves of G_jj + λ: at least
        λ, as it is for every G that is positive semidefinite (likeness to the nearest items alone need not be).
    """
    gram = sparse.csr_array(gram).astype(np.float32)
    gram.sort_indices()
    n_items = gram.shape[0]
    lengths = np.diff(gram.indptr)
    place = np.empty(n_items, np.int32)
    place[np.argsort(lengths, kind="stable")] = np.arange(n_items, dtype=np.int32)
    ahead = place[gram.indices] > np.repeat(place, lengths)
    ahead_indptr = np.concatenate([[0], np.cumsum(ahead)])[gram.indptr].astype(np.int64)
    columns, entries, rest = _solve(
        gram.indptr.astype(np.int64),
        gram.indices.astype(np.int32),
        gram.data,
        ahead_indptr,
        gram.indices[ahead].astype(np.int32),
        gram.data[ahead],
        gram.diagonal().astype(np.float32),
        np.float32(l2),
        min(n_candidates, n_items),
    )
    rest = np.maximum(rest, np.float32(l2))
    kept = entries.ravel() > 0
    targets = np.repeat(np.arange(n_items, dtype=np.int32), columns.shape[1])[kept]
    return sparse.csr_array((entries.ravel()[kept], (columns.ravel()[kept], targets)), shape=gram.shape), rest


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _solve(
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    ahead_indptr: NDArray[np.int64],
    ahead_indices: NDArray[np.int32],
    ahead_data: NDArray[np.float32],
    diagonal: NDArray[np.float32],
    l2: np.float32,
    n_candidates: int,
) -> Any:
    """(J, c) candidates, (J, c) their entries, (J,) what is left of each target.

    `ahead` is the half of G that holds each pair in the row of the item with fewer entries. Nearly all of the time goes
    into reading the candidates' rows for their block of G, and candidates are often popular: the whole rows of
    gowalla's have 2,192 entries on average, the halves few.
    """
    n_items = len(indptr) - 1
    columns = np.zeros((n_items, n_candidates), np.int32)
    entries = np.zeros((n_items, n_candidates), np.float32)
    rest = np.empty(n_items, np.float32)
    for j in prange(n_items):
        rest[j] = diagonal[j] + l2
        begin, end = indptr[j], indptr[j + 1]
        found = np.empty(end - begin, np.int64)
        order = np.empty(end - begin, np.float64)
        together = np.empty(end - begin, np.float32)
        n = 0
        for place in range(begin, end):
            i = indices[place]
            if i != j and data[place] > 0:
                found[n] = i
                order[n] = -data[place] / np.sqrt(diagonal[i] + l2)
                together[n] = data[place]
                n += 1
        if n == 0:
            continue
        candidates, target = found[:n], together[:n]
        if n > n_candidates:
            chosen = np.sort(np.argsort(order[:n], kind="mergesort")[:n_candidates])
            candidates, target = candidates[chosen], target[chosen]
            n = n_candidates
        position = np.full(n_items, -1, np.int32)
        for a in range(n):
            position[candidates[a]] = a
        matrix = np.zeros((n, n), np.float32)
        for a in range(n):
            i = candidates[a]
            for place in range(ahead_indptr[i], ahead_indptr[i + 1]):
                other = position[ahead_indices[place]]
                if other >= 0:
                    matrix[a, other] = ahead_data[place]
                    matrix[other, a] = ahead_data[place]
            matrix[a, a] = diagonal[i] + l2
        b = np.zeros(n, np.float32)
        residual = target.copy()
        for _ in range(_SWEEPS):
            largest = np.float32(0.0)
            for a in range(n):
                change = max(np.float32(0.0), b[a] + residual[a] / matrix[a, a]) - b[a]
                if change != 0:
                    b[a] += change
                    for q in range(n):
                        residual[q] -= change * matrix[a, q]
                    largest = max(largest, abs(change))
            if largest < _TOLERANCE:
                break
        for a in range(n):
            columns[j, a] = candidates[a]
            entries[j, a] = b[a]
            rest[j] -= target[a] * b[a]
    return columns, entries, rest
