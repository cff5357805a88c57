"""What the service asks of a vector index."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Found = tuple[Vectors, NDArray[np.int64]]


class VectorIndex(Protocol):
    """An immutable index of item vectors; a new one is built aside and takes its place."""

    @property
    def name(self) -> str:
        """Which backend answers: it may change while the index lives, where one fails and another takes its place."""
        ...

    @property
    def exact(self) -> bool:
        """Whether the nearest are always found."""
        ...

    @property
    def slack(self) -> float:
        """How far an inner product may lie from that with the vector in force, for a query of length 1; 0 mostly."""
        ...

    @property
    def waits(self) -> bool:
        """Whether a search waits for another thread: then an event loop leaves it to a thread."""
        ...

    @property
    def scans(self) -> bool:
        """Whether a search goes through all vectors on this CPU: several at once are then better one matrix product."""
        ...

    @property
    def dear(self) -> bool:
        """Whether building it costs so much that it is kept while vectors move (`service.index.layered`)."""
        ...

    @property
    def least_recall(self) -> float:
        """The share of the true nearest that it must find at least to be served; 0 where it finds all."""
        ...

    def search(self, vector: Vectors, k: int) -> Found:
        """The k rows of the largest inner product with `vector`.

        Args:
            vector: (width,).
            k: how many; all rows where there are fewer.

        Returns:
            inner products, descending, and their rows; rows of equal inner products in any order.
        """
        ...

    def over(self, vectors: Vectors) -> VectorIndex:
        """An index of the same kind over other vectors; this one goes on as it is."""
        ...


def largest(inner: Vectors, rows: NDArray[np.int64], k: int) -> Found:
    """The k largest of some inner products, with their rows, descending, equal ones by row."""
    if k < len(inner):
        kept = np.argpartition(-inner, k - 1)[:k] if k > 0 else np.zeros(0, np.int64)
        inner, rows = inner[kept], rows[kept]
    order = np.lexsort((rows, -inner))
    return inner[order], rows[order]
