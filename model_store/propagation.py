"""L̄, propagation and readout in numpy/numba: formulas (3), (4), (6) and the serving form's Z and T.

One compiled row function serves the export, every refresh and a single user's row: the same inputs in the same
neighbor order give the same bits (no fastmath, no BLAS).
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


@njit(cache=True, nogil=True, inline="always")
def laplacian_weight(
    similarity: np.float32, similarity_weight: float, degree_a: int, degree_b: int, self_loops: int
) -> np.float32:
    """Eq. (4): L̄_ab = (1 + ξ S(a,b)) / √(d_a d_b); with self-loops the degrees are those of A + I."""
    product = np.float64(degree_a + self_loops) * np.float64(degree_b + self_loops)
    return np.float32((1.0 + similarity_weight * np.float64(similarity)) / np.sqrt(product))


@njit(cache=True, nogil=True)
def add_neighbors(
    out: Vectors,
    node: int,
    begin: int,
    degree: int,
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    lengths: NDArray[np.int32],
    similarity_weight: float,
    self_loops: int,
    vectors: Vectors,
) -> None:
    """One row of Eq. (3)/(6): out += Σ_m L̄_nm vectors_m, neighbors in key order; a node beyond `vectors` counts zero.

    Args:
        out: (width,) the row, added to in place.
        node: n.
        begin: where n's neighbor list begins.
        degree: how many neighbors n has.
        neighbors: neighbor lists.
        similarity: S, aligned with `neighbors`.
        lengths: (N,) degrees.
        similarity_weight: ξ.
        self_loops: 1 where L̄ has self-loops (S(n,n) = 0, so L̄_nn = 1/d_n), else 0.
        vectors: (≤ N, width) what is propagated.
    """
    width = out.size
    rows = vectors.shape[0]
    if self_loops and node < rows:
        weight = laplacian_weight(np.float32(0.0), similarity_weight, degree, degree, 1)
        for c in range(width):
            out[c] += weight * vectors[node, c]
    for e in range(begin, begin + degree):
        other = neighbors[e]
        if other < rows:
            weight = laplacian_weight(similarity[e], similarity_weight, degree, lengths[other], self_loops)
            for c in range(width):
                out[c] += weight * vectors[other, c]


@njit(cache=True, nogil=True)
def propagate_rows(
    out: Vectors,
    nodes: NDArray[np.int32],
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    similarity_weight: float,
    self_loops: int,
    vectors: Vectors,
) -> None:
    """Eq. (3)/(6): out_i += (L̄ vectors)_nodes[i]. out: (n, width); nodes: (n,); vectors: (≤ N, width)."""
    for i in range(nodes.size):
        node = nodes[i]
        add_neighbors(
            out[i],
            node,
            starts[node],
            lengths[node],
            neighbors,
            similarity,
            lengths,
            similarity_weight,
            self_loops,
            vectors,
        )


@njit(cache=True, nogil=True)
def laplacian_values(
    starts: NDArray[np.int64],
    lengths: NDArray[np.int32],
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    similarity_weight: float,
    self_loops: int,
) -> NDArray[np.float32]:
    """Eq. (4): the off-diagonal values of L̄, aligned with `neighbors`."""
    values = np.zeros(neighbors.size, np.float32)
    for node in range(starts.size):
        for e in range(starts[node], starts[node] + lengths[node]):
            values[e] = laplacian_weight(
                similarity[e], similarity_weight, lengths[node], lengths[neighbors[e]], self_loops
            )
    return values
