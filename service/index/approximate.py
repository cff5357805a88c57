"""FAISS's approximate indexes: inverted lists (IVF) and navigable graphs (HNSW). Their recall is measured, not assumed.

An approximate index may miss items, whence exact is the default. It never returns fewer than it was asked for: what it
can't fill is searched exactly.
"""

from __future__ import annotations

from typing import Any, Literal

import faiss
import numpy as np

from service.index.exact import ExactIndex
from service.index.options import IndexOptions
from service.index.port import Found, Vectors

# Vectors that k-means learns the lists' centers from, for each list (FAISS's own most).
PER_LIST = 256
# Who asks for more than an eighth of all vectors is served by exact search: a graph or a list saves nothing there.
SHARE = 8


class ApproximateIndex:
    """An IVF or HNSW index of FAISS over the inner product."""

    exact = False
    slack = 0.0
    waits = False
    scans = False
    dear = True

    def __init__(self, vectors: Vectors, kind: Literal["ivf", "hnsw"], options: IndexOptions) -> None:
        faiss.omp_set_num_threads(1)
        data = np.ascontiguousarray(vectors, np.float32)
        self.name = f"faiss-{kind}"
        self.least_recall = options.least_recall
        self._kind, self._options = kind, options
        self._size = len(data)
        self._whole = ExactIndex(data)
        width = data.shape[1]
        index: Any
        if kind == "ivf":
            # √J lists balance the centers' search with the lists'; FAISS wants 39 vectors for each at least.
            n_lists = min(options.lists or max(1, min(round(self._size**0.5), self._size // 39)), max(1, self._size))
            index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, n_lists, faiss.METRIC_INNER_PRODUCT)
            index.cp.max_points_per_centroid = PER_LIST
            index.cp.min_points_per_centroid = 1  # no warning on small catalogues
            if self._size:
                index.train(data)
            index.nprobe = min(options.probes, n_lists)
        else:
            index = faiss.IndexHNSWFlat(width, options.links, faiss.METRIC_INNER_PRODUCT)
        if self._size:
            index.add(data)
        self._index = index

    def search(self, vector: Vectors, k: int) -> Found:
        """Some k rows of large inner products, the largest among them mostly."""
        k = min(k, self._size)
        if k <= 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        if k > self._size // SHARE:
            return self._whole.search(vector, k)
        query = np.ascontiguousarray(vector, np.float32)[None, :]
        if self._kind == "hnsw":
            effort = max(self._options.effort, 2 * k)
            params = faiss.SearchParametersHNSW(efSearch=effort)  # type: ignore[attr-defined]
            inner, rows = self._index.search(query, k, params=params)
        else:
            inner, rows = self._index.search(query, k)
        if rows[0][-1] < 0:
            return self._whole.search(vector, k)
        return inner[0], rows[0]

    def over(self, vectors: Vectors) -> ApproximateIndex:
        """The same kind over other vectors."""
        return ApproximateIndex(vectors, self._kind, self._options)
