"""Item-item tables as scipy matrices: the largest entries of a row, scores, and the kernel's form."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray
from scipy import sparse

from model_store.item_item import ItemItemTable
from training.evaluation import ScoreUsers

CHUNK = 1024


def largest_entries(matrix: sparse.csr_array, per_row: int) -> sparse.csr_array:
    """The largest positive entries of each row, equal ones by column; columns ascending."""
    matrix = sparse.csr_array(matrix)
    matrix.sort_indices()
    kept = _largest(matrix.indptr.astype(np.int64), matrix.data, per_row)
    indptr = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], indptr), shape=matrix.shape)


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _largest(indptr: NDArray[np.int64], data: NDArray[Any], per_row: int) -> Any:
    """(nnz,) which entries are among the largest positive ones of their row, earlier ones of equals."""
    kept = np.zeros(len(data), np.bool_)
    for row in prange(len(indptr) - 1):
        begin, end = indptr[row], indptr[row + 1]
        if end - begin <= per_row:
            for place in range(begin, end):
                kept[place] = data[place] > 0
            continue
        for place in np.argsort(-data[begin:end], kind="mergesort")[:per_row]:
            kept[begin + place] = data[begin + place] > 0
    return kept


def largest_of_dense(
    weights: NDArray[np.float32], per_row: int, scale: NDArray[np.float32] | None = None
) -> sparse.csr_array:
    """The largest positive entries of each row of a dense table, chunk by chunk.

    Args:
        weights: (n, J).
        per_row: entries that are kept in each row.
        scale: (J,) factors of the columns, applied before; None for none.
    """
    per_row = min(per_row, weights.shape[1])
    parts = []
    for begin in range(0, len(weights), CHUNK):
        block = weights[begin : begin + CHUNK]
        if scale is not None:
            block = block * scale
        columns = np.argpartition(-block, per_row - 1, axis=1)[:, :per_row]
        values = np.take_along_axis(block, columns, 1)
        rows = np.repeat(np.arange(len(block)), per_row)
        positive = values.ravel() > 0
        parts.append(
            sparse.csr_array(
                (values.ravel()[positive], (rows[positive], columns.ravel()[positive])),
                shape=block.shape,
            )
        )
    result = sparse.csr_array(sparse.vstack(parts, format="csr"))
    result.sort_indices()
    return result


def two_hops(table: sparse.csr_array, per_row: int) -> sparse.csr_array:
    """(J, J) the largest entries of each row of B·B, zero diagonal: what a row's items lead to; chunk by chunk.

    Args:
        table: (J, J) B, entries ≥ 0.
        per_row: entries that are kept in each row.
    """
    parts = []
    for begin in range(0, table.shape[0], CHUNK):
        reached = sparse.csr_array(table[begin : begin + CHUNK] @ table)
        rows = np.repeat(np.arange(reached.shape[0]), np.diff(reached.indptr))
        reached.data[reached.indices == begin + rows] = 0.0
        parts.append(largest_entries(reached, per_row))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def with_share(table: sparse.csr_array, other: sparse.csr_array, share: float) -> sparse.csr_array:
    """The table + share × another, whose mean entry is brought to the table's first."""
    if share <= 0 or other.nnz == 0:
        return table
    if table.nnz == 0:
        return sparse.csr_array(other * np.float32(share))
    scale = share * float(table.data.mean()) / float(other.data.mean())
    result = sparse.csr_array(table + other * np.float32(scale)).astype(np.float32)
    result.sort_indices()
    return result


def table_scores(history: sparse.csr_array, table: sparse.csr_array) -> ScoreUsers:
    """score(u, ·) = Σ_{i in N(u)} B_iv alone; history is (I, J) Y."""

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.ascontiguousarray((history[users] @ table).toarray(), dtype=np.float32)

    return score_users


def item_item_table(weights: sparse.csr_array | None, weight: float) -> ItemItemTable:
    """B = weight × table, in the kernel's form."""
    if weights is None or weight <= 0:
        return ItemItemTable.empty()
    data = (np.float32(weight) * weights.data).astype(np.float32)
    return ItemItemTable(weights.indptr.astype(np.int64), weights.indices.astype(np.int32), data)


def table_matrix(table: ItemItemTable, n_items: int) -> sparse.csr_array | None:
    """B in scipy's form, (J, J), its weight included; None where B = 0."""
    if table.n_rows == 0:
        return None
    return sparse.csr_array((table.data, table.indices, table.indptr), shape=(n_items, n_items))
