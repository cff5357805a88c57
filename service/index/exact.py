"""Exact search with numpy alone: the twin of the FAISS index."""

from __future__ import annotations

import numpy as np

from service.index.port import Found, Vectors, largest


class ExactIndex:
    """Inner products with every row."""

    name = "exact"
    exact = True
    slack = 0.0
    waits = False
    scans = True
    dear = False
    least_recall = 0.0

    def __init__(self, vectors: Vectors) -> None:
        self._vectors = np.ascontiguousarray(vectors, np.float32)

    def search(self, vector: Vectors, k: int) -> Found:
        """The k rows of the largest inner product, equal ones by row."""
        inner = self._vectors @ np.asarray(vector, np.float32)
        return largest(inner, np.arange(len(inner), dtype=np.int64), k)

    def over(self, vectors: Vectors) -> ExactIndex:
        """The same over other vectors."""
        return ExactIndex(vectors)
