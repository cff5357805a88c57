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
    widest = int(np.diff(matrix.indptr).max(initial=0))
    found = _largest_of_sparse(matrix.indptr, matrix.indices, matrix.data, min(per_row, widest))
    return _matrix(found, matrix.shape[1])


def largest_of_dense(
    weights: NDArray[np.float32], per_row: int, scale: NDArray[np.float32] | None = None
) -> sparse.csr_array:
    """The largest positive entries of each row of a dense table, equal ones by column; columns ascending.

    Args:
        weights: (n, J).
        per_row: entries that are kept in each row.
        scale: (J,) factors of the columns, applied before; None for none.
    """
    n_columns = weights.shape[1]
    factors = np.ones(n_columns, np.float32) if scale is None else scale
    return _matrix(_largest_of_dense(weights, factors, min(per_row, n_columns)), n_columns)


def _matrix(found: tuple[NDArray[np.int32], NDArray[Any], NDArray[np.int64]], n_columns: int) -> sparse.csr_array:
    """Rows of (n, k) columns and values, the first ones of each; (n,) how many."""
    columns, values, kept = found
    held = np.arange(columns.shape[1]) < kept[:, np.newaxis]
    indptr = np.concatenate([[0], np.cumsum(kept)])
    width = np.int32 if indptr[-1] <= np.iinfo(np.int32).max else np.int64  # scipy widens all where one is wide
    parts = (values[held], columns[held].astype(width, copy=False), indptr.astype(width))
    return sparse.csr_array(parts, shape=(len(kept), n_columns))


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _largest_of_sparse(
    indptr: NDArray[np.integer[Any]], indices: NDArray[np.integer[Any]], data: NDArray[Any], per_row: int
) -> Any:
    """(n, k) columns, ascending; (n, k) their values; (n,) how many of a row there are."""
    n = len(indptr) - 1
    columns, values = np.empty((n, per_row), np.int32), np.empty((n, per_row), data.dtype)
    kept = np.zeros(n, np.int64)
    for row in prange(n):
        size = 0
        for place in range(indptr[row], indptr[row + 1]):
            size = _offer(data[place], indices[place], values[row], columns[row], size)
        _by_column(values[row, :size], columns[row, :size])
        kept[row] = size
    return columns, values, kept


@njit(cache=True, parallel=True, nogil=True)  # type: ignore[untyped-decorator]
def _largest_of_dense(weights: NDArray[Any], scale: NDArray[np.float32], per_row: int) -> Any:
    """As `_largest_of_sparse`, of weights · scale."""
    n = len(weights)
    columns, values = np.empty((n, per_row), np.int32), np.empty((n, per_row), weights.dtype)
    kept = np.zeros(n, np.int64)
    for row in prange(n):
        size, least = 0, weights.dtype.type(0)
        for column in range(weights.shape[1]):
            value = weights[row, column] * scale[column]
            if value > least:
                size = _offer(value, column, values[row], columns[row], size)
                if size == per_row:
                    least = values[row, 0]
        _by_column(values[row, :size], columns[row, :size])
        kept[row] = size
    return columns, values, kept


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _offer(value: float, column: int, values: NDArray[Any], columns: NDArray[np.int32], size: int) -> int:
    """Offer an entry to a row's largest positive ones; columns come ascending. Returns how many there are now.

    They are a heap whose root is the one to go next: the smallest, of equals the last column. Most entries of a long
    row are turned away by one comparison.
    """
    capacity = len(values)
    if not value > 0 or (size == capacity and value <= values[0]):
        return size
    if size < capacity:
        place = size
        while place > 0:  # up; of equals the new one, whose column is higher, goes above
            above = (place - 1) // 2
            if values[above] < value:
                break
            values[place], columns[place] = values[above], columns[above]
            place = above
        values[place], columns[place] = value, column
        return size + 1
    place = 0
    while 2 * place + 1 < size:  # the root goes, and the new one sinks
        below = 2 * place + 1
        other = below + 1
        if other < size and (
            values[other] < values[below] or (values[other] == values[below] and columns[other] > columns[below])
        ):
            below = other
        if value <= values[below]:  # of equals the new one stays above
            break
        values[place], columns[place] = values[below], columns[below]
        place = below
    values[place], columns[place] = value, column
    return size


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _by_column(values: NDArray[Any], columns: NDArray[np.int32]) -> None:
    """Sort entries by column."""
    order = np.argsort(columns)
    values[:], columns[:] = values[order], columns[order]


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
