"""Arrays that grow at their end."""

from __future__ import annotations

from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from model_store.ragged import grown

T = TypeVar("T", bound=np.generic)


class GrowingArray(Generic[T]):
    """A one-dimensional array that grows at its end.

    `values` is a view of what is there; one that was taken before stays as it was, though the array grows.
    """

    def __init__(self, values: NDArray[T]) -> None:
        self._values = values.copy()
        self._size = len(values)

    def __len__(self) -> int:
        return self._size

    @property
    def values(self) -> NDArray[T]:
        """The entries."""
        return self._values[: self._size]

    def append(self, value: int | float) -> None:
        """Add an entry."""
        self._values = grown(self._values, self._size + 1, self._size)
        self._values[self._size] = value
        self._size += 1

    def remove(self, place: int) -> None:
        """Take an entry out; what comes after it moves up, in memory of its own."""
        self._values = np.delete(self.values, place)
        self._size = len(self._values)
