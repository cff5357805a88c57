"""Items' metadata in columns, so that a filter is a few operations on whole arrays.

A category is the list of its items' rows; an attribute is two arrays, its items' rows and their values. Only what items
have is stored, so a name that few items use costs little. Whoever reads or changes it holds the live model's lock.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from service.live.growing import GrowingArray
from service.live.item_record import ItemRecord

Rows = NDArray[np.int32]
NO_ROWS: Rows = np.zeros(0, np.int32)


class _Column:
    """The rows of the items that have something, in no particular order, and its values for an attribute."""

    def __init__(self) -> None:
        self._rows = GrowingArray(np.zeros(0, np.int32))
        self._numbers = GrowingArray(np.zeros(0, np.float64))

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, row: int, value: float = 0.0) -> None:
        self._rows.append(row)
        self._numbers.append(value)

    def remove(self, row: int) -> None:
        place = int(np.flatnonzero(self._rows.values == row)[0])
        self._rows.remove(place)
        self._numbers.remove(place)

    @property
    def rows(self) -> Rows:
        return self._rows.values

    @property
    def numbers(self) -> NDArray[np.float64]:
        return self._numbers.values


class ItemMetadata:
    """What is known of the items beside interactions, by item row."""

    def __init__(self) -> None:
        self._categories: dict[str, _Column] = {}
        self._attributes: dict[str, _Column] = {}
        # What each item stands in, so that it can be taken out again: categories, attributes.
        self._stands_in: dict[int, tuple[tuple[str, ...], tuple[str, ...]]] = {}
        self._names: dict[int, str] = {}
        self._withdrawn: set[int] = set()
        # The change that they were made after: readers hold no lock, and a change meanwhile must not be overlooked.
        self._withdrawn_rows: tuple[int, Rows] = (0, NO_ROWS)
        self._changes = 0
        self._withdrawals = 0

    @property
    def changes(self) -> int:
        """How often anything has changed."""
        return self._changes

    @property
    def withdrawn(self) -> Rows:
        """Rows of the items that are not to be recommended, ascending; never written in place."""
        change, rows = self._withdrawn_rows
        if change != self._withdrawals:
            change = self._withdrawals  # before the set is read, which a change precedes
            rows = np.array(sorted(self._withdrawn), np.int32)
            self._withdrawn_rows = (change, rows)
        return rows

    def is_withdrawn(self, row: int) -> bool:
        """Whether an item is not to be recommended."""
        return row in self._withdrawn

    def name(self, row: int) -> str | None:
        """An item's name, None where its record has none."""
        return self._names.get(row)

    def counts(self) -> Mapping[str, int]:
        """How many items are in each category."""
        return {name: len(column) for name, column in sorted(self._categories.items())}

    # ---- changes -------------------------------------------------------------------------------------------------

    def put(self, row: int, record: ItemRecord) -> None:
        """Put an item's record in the place of the one before; a withdrawn item is back."""
        self._take_out(row)
        self._stands_in[row] = record.categories, tuple(record.attributes)
        for category in record.categories:
            self._categories.setdefault(category, _Column()).add(row)
        for name, value in record.attributes.items():
            self._attributes.setdefault(name, _Column()).add(row, value)
        if record.name is not None:
            self._names[row] = record.name
        if row in self._withdrawn:
            self._withdrawn.discard(row)
            self._withdrawals += 1
        self._changes += 1

    def withdraw(self, row: int) -> None:
        """Forget an item's record; it is not to be recommended until another one is put."""
        self._take_out(row)
        if row not in self._withdrawn:
            self._withdrawn.add(row)
            self._withdrawals += 1
        self._changes += 1

    def _take_out(self, row: int) -> None:
        categories, attributes = self._stands_in.pop(row, ((), ()))
        for columns, names in ((self._categories, categories), (self._attributes, attributes)):
            for name in names:
                columns[name].remove(row)
                if not len(columns[name]):
                    del columns[name]
        self._names.pop(row, None)

    # ---- reading -------------------------------------------------------------------------------------------------

    def rows_in(self, category: str) -> Rows:
        """Rows of the items of a category, none where it is unknown."""
        column = self._categories.get(category)
        return NO_ROWS if column is None else column.rows

    def numbers(self, attribute: str) -> tuple[Rows, NDArray[np.float64]]:
        """Rows of the items that have an attribute, and its values."""
        column = self._attributes.get(attribute)
        return (NO_ROWS, np.zeros(0)) if column is None else (column.rows, column.numbers)
