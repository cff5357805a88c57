"""An index that outlives its vectors: what has changed since it was built is searched exactly and masked in it.

Two things change vectors: an item that comes or gets other contents (a row, at once), and a refresh (all rows, most by
very little). Rows that moved far are searched in an exact layer; for the others the index answers with its older
vectors, and `slack` says how far those may be off: exact retrieval (`model_store.retrieval`) allows for it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.index.port import Found, VectorIndex, Vectors, largest

# A row moved far where it moved by more than this share of the longest vector: a list's neighboring scores lie some
# hundredths of it apart, so that the slack costs a few more candidates and no second search.
FAR = 1e-3
# The layer's rows, as a share of all, beyond which the index is built anew; so few are always searched beside it.
LARGEST_SHARE = 0.05
FEW = 1024


class LayeredIndex:
    """An index with an exact layer over it."""

    def __init__(
        self, base: VectorIndex, base_vectors: Vectors, vectors: Vectors, fresh: NDArray[np.int32], slack: float
    ) -> None:
        """Lay rows over an index.

        Args:
            base: the index.
            base_vectors: (n, width) what it was built over.
            vectors: (J, width), J ≥ n, what is in force.
            fresh: rows that are searched here: all from n on that have a vector, and those that moved far.
            slack: how far the other rows have moved at most.
        """
        self._base, self._base_vectors = base, base_vectors
        self._fresh = np.asarray(fresh, np.int64)
        self._fresh_vectors = np.ascontiguousarray(vectors[fresh], np.float32)
        self._masked = np.zeros(len(base_vectors), np.bool_)
        self._masked[self._fresh[self._fresh < len(base_vectors)]] = True
        self._n_masked = int(np.count_nonzero(self._masked))
        self._drift = slack

    @property
    def name(self) -> str:
        """The backend that answers below."""
        return self._base.name

    @property
    def exact(self) -> bool:
        """Whether the index below is."""
        return self._base.exact

    @property
    def slack(self) -> float:
        """How far the rows of the index below have moved at most."""
        return self._drift + self._base.slack

    @property
    def waits(self) -> bool:
        """Whether the index below does."""
        return self._base.waits

    @property
    def scans(self) -> bool:
        """Whether the index below does."""
        return self._base.scans

    @property
    def dear(self) -> bool:
        """Whether the index below is."""
        return self._base.dear

    @property
    def least_recall(self) -> float:
        """That of the index below."""
        return self._base.least_recall

    @property
    def n_fresh(self) -> int:
        """Rows in the exact layer."""
        return len(self._fresh)

    def search(self, vector: Vectors, k: int) -> Found:
        """The k rows of the largest inner product: of both layers."""
        inner, rows = self._base.search(vector, k + self._n_masked)
        kept = ~self._masked[rows]
        fresh = self._fresh_vectors @ np.asarray(vector, np.float32)
        return largest(np.concatenate([inner[kept], fresh]), np.concatenate([rows[kept], self._fresh]), k)

    def over(self, vectors: Vectors) -> VectorIndex:
        """The same index below with another layer, or a new one where too much has moved."""
        return moved(self._base, self._base_vectors, vectors)

    def with_rows(self, vectors: Vectors, rows: NDArray[np.int32]) -> LayeredIndex:
        """The same with some more rows in the layer: (J, width) `vectors` are those in force."""
        fresh = np.union1d(self._fresh, rows).astype(np.int32)
        return LayeredIndex(self._base, self._base_vectors, vectors, fresh, self._drift)


def refreshed(index: VectorIndex, index_vectors: Vectors, vectors: Vectors) -> VectorIndex:
    """An index for vectors that have moved, all of them perhaps: built anew, or kept where that is dear.

    Args:
        index: the index.
        index_vectors: what it was built over, or has been laid over it.
        vectors: (J, width) what comes into force.
    """
    if isinstance(index, LayeredIndex) or not index.dear:
        return index.over(vectors)
    return moved(index, index_vectors, vectors)


def with_rows(index: VectorIndex, index_vectors: Vectors, vectors: Vectors, rows: NDArray[np.int32]) -> LayeredIndex:
    """An index with some rows laid over it, at the price of these rows.

    Args:
        index: the index.
        index_vectors: what it was built over, or has been laid over it.
        vectors: (J, width) what is in force; differs from `index_vectors` in `rows` alone.
        rows: the rows that came or changed.
    """
    if isinstance(index, LayeredIndex):
        return index.with_rows(vectors, rows)
    return LayeredIndex(index, index_vectors, vectors, rows, 0.0)


def moved(base: VectorIndex, base_vectors: Vectors, vectors: Vectors) -> VectorIndex:
    """An index kept for vectors that have moved, or built anew where too many have moved far.

    Args:
        base: the index.
        base_vectors: (n, width) what it was built over.
        vectors: (J, width) what comes into force.
    """
    if not base.dear or len(vectors) < len(base_vectors):
        return base.over(vectors)
    n = len(base_vectors)
    distances = _distances(base_vectors, vectors[:n])
    longest = float(np.sqrt(np.einsum("ij,ij->i", vectors, vectors).max(initial=0.0)))
    far = distances > FAR * longest
    fresh = np.concatenate([np.flatnonzero(far), np.arange(n, len(vectors))]).astype(np.int32)
    if len(fresh) > max(FEW, LARGEST_SHARE * len(vectors)):
        return base.over(vectors)
    return LayeredIndex(base, base_vectors, vectors, fresh, float(distances[~far].max(initial=0.0)))


def _distances(a: Vectors, b: Vectors, chunk: int = 65_536) -> NDArray[np.float64]:
    """|a_i - b_i|, in chunks."""
    found = np.zeros(len(a))
    for begin in range(0, len(a), chunk):
        difference = a[begin : begin + chunk].astype(np.float64) - b[begin : begin + chunk]
        found[begin : begin + chunk] = np.sqrt(np.einsum("ij,ij->i", difference, difference))
    return found
