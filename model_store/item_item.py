"""B: the sparse item-item table of the serving form (model.md, D10), entries ≥ 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray


@dataclass(frozen=True)
class ItemItemTable:
    """B in compressed rows: row i holds what a user's interaction with item i adds to other items' scores.

    Attributes:
        indptr: (J + 1,) where each row begins; of length 1 where B = 0.
        indices: item rows.
        data: the entries, float32, ≥ 0.
    """

    indptr: NDArray[np.int64]
    indices: NDArray[np.int32]
    data: NDArray[np.float32]

    def __post_init__(self) -> None:
        if len(self.data) and not (np.isfinite(self.data).all() and self.data.min() >= 0):
            raise ValueError("B must be finite and ≥ 0: exact retrieval rests on it")

    @classmethod
    def empty(cls) -> ItemItemTable:
        """B = 0."""
        return cls(np.zeros(1, np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))

    @property
    def n_rows(self) -> int:
        """How many items have a row; an item beyond has none."""
        return len(self.indptr) - 1

    def accumulate(self, item_rows: NDArray[np.int32], n_items: int) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
        """Σ_i B_iv over the given items i.

        Args:
            item_rows: (n,) the user's items, in the order of summation.
            n_items: length of the result.

        Returns:
            (n_items,) the sums, and the rows of the items that are reached, ascending.
        """
        sums = self.sums(item_rows, n_items)
        return sums, np.flatnonzero(sums).astype(np.int32)

    def sums(self, item_rows: NDArray[np.int32], n_items: int) -> NDArray[np.float64]:
        """Σ_i B_iv over the given items i: (n_items,); see `accumulate`."""
        sums = np.zeros(n_items, np.float64)
        if self.n_rows and len(item_rows):
            accumulate_rows(item_rows, self.indptr, self.indices, self.data, sums)
        return sums

    def entry(self, item_row: int, other_row: int) -> float:
        """B_iv, 0 where the table has no entry."""
        if item_row >= self.n_rows:
            return 0.0
        row = slice(int(self.indptr[item_row]), int(self.indptr[item_row + 1]))
        hit = np.flatnonzero(self.indices[row] == other_row)
        return float(self.data[row][hit[0]]) if len(hit) else 0.0


@njit(cache=True, nogil=True)
def accumulate_rows(
    item_rows: NDArray[np.int32],
    indptr: NDArray[np.int64],
    indices: NDArray[np.int32],
    data: NDArray[np.float32],
    sums: NDArray[np.float64],
) -> float:
    """sums_v += B_iv for each i of `item_rows`, in that order; an item beyond B's rows adds nothing.

    Returns:
        the largest sum that was added to, 0 where there is none (B ≥ 0).
    """
    largest = 0.0
    for i in range(item_rows.size):
        item = item_rows[i]
        if item < indptr.size - 1:
            for p in range(indptr[item], indptr[item + 1]):
                sums[indices[p]] += data[p]
                largest = max(largest, sums[indices[p]])
    return largest
