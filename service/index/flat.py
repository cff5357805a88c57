"""FAISS: the flat inner-product index, on a GPU where there is one."""

from __future__ import annotations

import threading
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from service.errors import StartError
from service.index.exact import ExactIndex
from service.index.port import Vectors

# The largest k of a search on a GPU (https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU).
GPU_MOST = 2048
# Scratch memory that FAISS reserves on a GPU; by default it takes up to 1.5 GiB.
GPU_SCRATCH = 64 << 20
# FAISS on a GPU is not safe for several threads, even for reads.
_gpu_lock = threading.Lock()


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

    def __init__(self, vectors: Vectors) -> None:
        # Requests are served side by side: one thread each is the fastest.
        faiss.omp_set_num_threads(1)
        data = np.ascontiguousarray(vectors, np.float32)
        self._size = len(data)
        index = faiss.IndexFlatIP(data.shape[1])
        index.add(data)
        self._index: Any = index
        self._beyond: ExactIndex | None = None
        self.name = "faiss"
        if faiss.get_num_gpus() > 0:
            with _gpu_lock:
                self._resources = faiss.StandardGpuResources()
                self._resources.setTempMemory(GPU_SCRATCH)
                self._index = faiss.index_cpu_to_gpu(self._resources, 0, index)
            self._beyond = ExactIndex(data)
            self.name = "faiss-gpu"

    def search(self, vector: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """The k rows of the largest inner product."""
        k = min(k, self._size)
        if k <= 0:
            return np.zeros(0, np.float32), np.zeros(0, np.int64)
        query = np.ascontiguousarray(vector, np.float32)[None, :]
        if self._beyond is None:
            inner, rows = self._index.search(query, k)
        elif k > GPU_MOST:
            return self._beyond.search(vector, k)
        else:
            with _gpu_lock:
                inner, rows = self._index.search(query, k)
        return inner[0], rows[0]
