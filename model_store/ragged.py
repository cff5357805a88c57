"""Rows of different lengths in one arena: a row that outgrows its place moves to the end."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RaggedRows:
    """Growable rows over one or more parallel arenas (columns).

    The arrays `starts` and `lengths` and the columns are what compiled kernels read. They are replaced when they grow,
    so take them afresh for every call.
    """

    def __init__(self, indptr: NDArray[np.int64], **columns: NDArray[np.generic]) -> None:
        n_rows = len(indptr) - 1
        self._n_rows = n_rows
        self._starts = np.array(indptr[:-1], np.int64)
        self._lengths = np.diff(indptr).astype(np.int32)
        self._room = self._lengths.copy()
        self._end = int(indptr[-1])
        self._columns = {name: np.array(column) for name, column in columns.items()}

    def __len__(self) -> int:
        return self._n_rows

    @property
    def starts(self) -> NDArray[np.int64]:
        """(n,) where each row begins."""
        return self._starts[: self._n_rows]

    @property
    def lengths(self) -> NDArray[np.int32]:
        """(n,) how long each row is."""
        return self._lengths[: self._n_rows]

    def column(self, name: str) -> NDArray[np.generic]:
        """One arena, dead space included."""
        return self._columns[name]

    def row(self, row: int, name: str) -> NDArray[np.generic]:
        """A view of one row."""
        start = self._starts[row]
        return self._columns[name][start : start + self._lengths[row]]

    def add_rows(self, count: int) -> None:
        """Append empty rows."""
        needed = self._n_rows + count
        if needed > len(self._starts):
            spare = max(needed - len(self._starts), len(self._starts) // 2, 16)
            self._starts = np.concatenate([self._starts, np.zeros(spare, np.int64)])
            self._lengths = np.concatenate([self._lengths, np.zeros(spare, np.int32)])
            self._room = np.concatenate([self._room, np.zeros(spare, np.int32)])
        self._n_rows = needed

    def insert(self, row: int, offset: int, **values: object) -> None:
        """Insert one entry into a row, before the entry at `offset`."""
        length = int(self._lengths[row])
        if length == self._room[row]:
            self._move(row, length + length // 2 + 4)
        start = int(self._starts[row])
        for name, column in self._columns.items():
            column[start + offset + 1 : start + length + 1] = column[start + offset : start + length].copy()
            column[start + offset] = values[name]
        self._lengths[row] = length + 1

    def remove(self, row: int, offset: int) -> None:
        """Remove the entry at `offset` from a row."""
        start, length = int(self._starts[row]), int(self._lengths[row])
        for column in self._columns.values():
            column[start + offset : start + length - 1] = column[start + offset + 1 : start + length].copy()
        self._lengths[row] = length - 1

    def replace(self, rows: NDArray[np.int32], sizes: NDArray[np.int32], name: str, data: NDArray[np.generic]) -> None:
        """Give many rows a new content: `data` holds it row behind row. Only for a single column."""
        begin = self._reserve(len(data))
        self._columns[name][begin : begin + len(data)] = data
        offsets = np.zeros(len(sizes), np.int64)
        np.cumsum(sizes[:-1], out=offsets[1:])
        self._starts[rows] = begin + offsets
        self._lengths[rows] = sizes
        self._room[rows] = sizes
        self._end = begin + len(data)
        if self._end > 2 * int(self.lengths.sum()) + 65536:
            self.compact()

    def compact(self) -> None:
        """Drop the dead space: rows behind each other, in order."""
        indptr, columns = self.to_csr()
        self._starts[: self._n_rows] = indptr[:-1]
        self._room[: self._n_rows] = self.lengths
        self._columns = columns
        self._end = int(indptr[-1])

    def to_csr(self) -> tuple[NDArray[np.int64], dict[str, NDArray[np.generic]]]:
        """Copies without dead space: indptr (n + 1,) and each column."""
        indptr = np.zeros(self._n_rows + 1, np.int64)
        np.cumsum(self.lengths, out=indptr[1:])
        index = np.arange(indptr[-1]) + np.repeat(self.starts - indptr[:-1], self.lengths)
        return indptr, {name: column[index] for name, column in self._columns.items()}

    def _reserve(self, count: int) -> int:
        begin = self._end
        capacity = len(next(iter(self._columns.values())))
        if begin + count > capacity:
            spare = max(begin + count - capacity, capacity // 4, 1024)
            self._columns = {
                name: np.concatenate([column, np.zeros(spare, column.dtype)]) for name, column in self._columns.items()
            }
        return begin

    def _move(self, row: int, room: int) -> None:
        begin = self._reserve(room)
        start, length = int(self._starts[row]), int(self._lengths[row])
        for column in self._columns.values():
            column[begin : begin + length] = column[start : start + length]
        self._starts[row], self._room[row], self._end = begin, room, begin + room
