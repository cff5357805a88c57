"""FAISS on the CPU: the flat inner-product index, and which build of FAISS is installed."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import faiss
import numpy as np

from service.errors import StartError
from service.index.port import Found, Vectors


def installed_builds() -> list[str]:
    """Which FAISS distributions are installed."""
    found = []
    for name in ("faiss-cpu", "faiss-gpu"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return found


def check_build(builds: list[str]) -> None:
    """Refuse two FAISS builds: they own the same folder, so one has overwritten parts of the other.

    Raises:
        StartError: both are installed.
    """
    if len(builds) > 1:
        raise StartError(
            f"{' and '.join(builds)} are both installed and overwrite each other: pip uninstall -y {' '.join(builds)}, "
            "then install one of the extras cpu and gpu."
        )


class FlatIndex:
    """FAISS's exact index over the inner product."""

    name = "faiss"
    exact = True
    slack = 0.0
    waits = False
    scans = True
    dear = False
    least_recall = 0.0

    def __init__(self, vectors: Vectors) -> None:
        # Requests are served side by side: one thread each is the fastest.
        faiss.omp_set_num_threads(1)
        data = np.ascontiguousarray(vectors, np.float32)
        self._size = len(data)
        self._index = faiss.IndexFlatIP(data.shape[1])
        self._index.add(data)

    def search(self, vector: Vectors, k: int) -> Found:
        """The k rows of the largest inner product."""
        k = min(k, self._size)
        if k <= 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        inner, rows = self._index.search(np.ascontiguousarray(vector, np.float32)[None, :], k)
        return inner[0], rows[0]

    def over(self, vectors: Vectors) -> FlatIndex:
        """The same over other vectors."""
        return FlatIndex(vectors)
