"""What the service asks of a vector index."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


class VectorIndex(Protocol):
    """An immutable index of item vectors; a new one is built aside and takes its place."""

    @property
    def name(self) -> str:
        """Which index this is."""
        ...

    def search(self, vector: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """The k rows of the largest inner product with `vector`.

        Args:
            vector: (width,).
            k: how many; all rows where there are fewer.

        Returns:
            inner products, descending, and their rows; rows of equal inner products in any order.
        """
        ...
