"""Exact search with numpy alone: the twin of the FAISS index."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.index.port import Vectors


class ExactIndex:
    """Inner products with every row."""

    name = "exact"

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)

    def search(self, vector: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """The k rows of the largest inner product, equal ones by row."""
        inner = self._vectors @ np.asarray(vector, np.float32)
        k = min(k, len(inner))
        if k <= 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        rows = np.argpartition(-inner, k - 1)[:k] if k < len(inner) else np.arange(len(inner))
        rows = rows[np.lexsort((rows, -inner[rows]))]
        return inner[rows], rows.astype(np.int64)
