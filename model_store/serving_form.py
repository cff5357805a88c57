"""The serving form: Z = C + Σ_l α_l L̄^l X and score(u, v) = Z_u · Z_v + Σ_{i in N(u)} B_iv (model.md).

Computed by way of T, what a node hands to its neighbors:

    T = Σ_{l≥1} α_l L̄^(l-1) X        Z = C + α_0 X + L̄ T

so that a user's row can be computed alone, from the user's neighbor list and T, with the same bits.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.propagation import Vectors, add_neighbors, propagate_rows
from model_store.ragged import read_only


@dataclass(frozen=True)
class LaterRows:
    """X of nodes that came after training and have one.

    Attributes:
        nodes: (m,) ascending.
        base: (m, width) X.
    """

    nodes: NDArray[np.int32]
    base: Vectors


@dataclass(frozen=True)
class ServingForm:
    """What a trained model is, apart from the graph.

    Attributes:
        base: X, (N_0, width): users' rows, then items' rows. A node beyond (new since training) has X = 0, unless it is
            one of `later`.
        constant: C, (J_0, width) for the items, or None where C = 0. Users have C = 0.
        alpha: α, (L + 1, width): readout weights, a column each, since a view is a block of columns.
        similarity_weight: ξ.
        self_loops: whether L̄ has self-loops.
        n_users: I_0, how many of the base's rows are users.
        later: X of nodes beyond the base, None where all are zero.
    """

    base: Vectors
    constant: Vectors | None
    alpha: Vectors
    similarity_weight: float
    self_loops: bool
    n_users: int
    later: LaterRows | None = None

    def __post_init__(self) -> None:
        if self.alpha.ndim != 2 or self.alpha.shape[1] != self.width or len(self.alpha) < 1:
            raise ValueError(f"alpha has shape {self.alpha.shape}, expected (layers + 1, {self.width})")
        n_items = len(self.base) - self.n_users
        if self.constant is not None and self.constant.shape != (n_items, self.width):
            raise ValueError(f"C has shape {self.constant.shape}, expected {(n_items, self.width)}")

    @property
    def width(self) -> int:
        """Width of the vectors, all views together."""
        return int(self.base.shape[1])

    @property
    def n_layers(self) -> int:
        """L, number of propagation layers."""
        return len(self.alpha) - 1

    def with_later(self, later: LaterRows | None) -> ServingForm:
        """The same with X of some later nodes."""
        return replace(self, later=later)

    def base_of(self, nodes: NDArray[np.int32]) -> Vectors:
        """X of some nodes, (n, width); zero for later ones that have none."""
        out = np.zeros((len(nodes), self.width), np.float32)
        known = nodes < len(self.base)
        out[known] = self.base[nodes[known]]
        if self.later is not None and len(self.later.nodes):
            places = np.minimum(np.searchsorted(self.later.nodes, nodes), len(self.later.nodes) - 1)
            found = self.later.nodes[places] == nodes
            out[found] = self.later.base[places[found]]
        return out

    def neighbor_embeddings(self, adjacency: Adjacency) -> Vectors:
        """T = Σ_{l≥1} α_l L̄^(l-1) X by Horner's rule: L - 1 propagations. (N, width)."""
        n_nodes = adjacency.n_nodes
        nodes = np.arange(n_nodes, dtype=np.int32)
        total = np.zeros((n_nodes, self.width), np.float32)
        for layer in range(self.n_layers, 0, -1):
            term = np.zeros((n_nodes, self.width), np.float32)
            term[: len(self.base)] = self.alpha[layer] * self.base
            if self.later is not None:
                term[self.later.nodes] = self.alpha[layer] * self.later.base
            if layer < self.n_layers:
                self._propagate(term, nodes, adjacency, total)
            total = term
        return total

    def embeddings(self, nodes: NDArray[np.int32], adjacency: Adjacency, neighbor_embeddings: Vectors) -> Vectors:
        """Z = C + α_0 X + L̄ T for some nodes of the graph. (n, width)."""
        out: Vectors = self.alpha[0] * self.base_of(nodes)
        if self.constant is not None:
            item = (nodes < len(self.base)) & (nodes >= self.n_users)
            out[item] += self.constant[nodes[item] - self.n_users]
        self._propagate(out, nodes, adjacency, neighbor_embeddings)
        return out

    def _propagate(self, out: Vectors, nodes: NDArray[np.int32], adjacency: Adjacency, vectors: Vectors) -> None:
        propagate_rows(
            out,
            nodes,
            adjacency.starts,
            adjacency.lengths,
            adjacency.neighbors,
            adjacency.similarity,
            self.similarity_weight,
            int(self.self_loops),
            vectors,
        )

    def user_embedding(
        self,
        node: int,
        neighbors: NDArray[np.int32],
        similarity: NDArray[np.float32],
        lengths: NDArray[np.int32],
        neighbor_embeddings: Vectors,
    ) -> Vectors:
        """Z_u of one user (C_u = 0) from its neighbor list: the same bits as its row of `embeddings`.

        Args:
            node: the user's node.
            neighbors: (d,) the user's items as nodes, in key order.
            similarity: (d,) S(u, ·).
            lengths: (N,) degrees.
            neighbor_embeddings: T.

        Returns:
            (width,) Z_u.
        """
        ends = np.array([0, len(neighbors)])
        nodes = np.array([node], np.int32)
        vector: Vectors = self.user_embeddings(nodes, ends, neighbors, similarity, lengths, neighbor_embeddings)[0]
        return vector

    def user_embeddings(
        self,
        nodes: NDArray[np.int32],
        ends: NDArray[np.int64],
        neighbors: NDArray[np.int32],
        similarity: NDArray[np.float32],
        lengths: NDArray[np.int32],
        neighbor_embeddings: Vectors,
    ) -> Vectors:
        """`user_embedding` of several users.

        Args:
            nodes: (n,) the users' nodes.
            ends: (n + 1,) where each user's neighbors begin.
            neighbors: the users' items as nodes, one user after the other.
            similarity: S, aligned with `neighbors`.
            lengths: (N,) degrees.
            neighbor_embeddings: T.

        Returns:
            (n, width) Z_u.
        """
        out = np.zeros((len(nodes), self.width), np.float32)
        user_rows(
            out,
            nodes,
            ends,
            neighbors,
            similarity,
            lengths,
            read_only(self.alpha[0]),
            read_only(self.base),
            self.similarity_weight,
            int(self.self_loops),
            neighbor_embeddings,
        )
        return out


@njit(cache=True, nogil=True)
def user_rows(
    out: Vectors,
    nodes: NDArray[np.int32],
    ends: NDArray[np.int64],
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    lengths: NDArray[np.int32],
    alpha: Vectors,
    base: Vectors,
    similarity_weight: float,
    self_loops: int,
    neighbor_embeddings: Vectors,
) -> None:
    """Z_u = α_0 X_u + (L̄ T)_u of some users into rows of zeros; see `ServingForm.user_embeddings`."""
    for i in range(nodes.size):
        node = nodes[i]
        if node < base.shape[0]:
            for c in range(out.shape[1]):
                out[i, c] = alpha[c] * base[node, c]
        add_neighbors(
            out[i],
            node,
            ends[i],
            ends[i + 1] - ends[i],
            neighbors,
            similarity,
            lengths,
            similarity_weight,
            self_loops,
            neighbor_embeddings,
        )


@njit(cache=True, nogil=True)
def dot(a: Vectors, b: Vectors) -> float:
    """The inner product of two float32 vectors, accumulated in double precision in a fixed order (four lanes)."""
    s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
    n = a.size
    whole = n - n % 4
    for c in range(0, whole, 4):
        s0 += np.float64(a[c]) * np.float64(b[c])
        s1 += np.float64(a[c + 1]) * np.float64(b[c + 1])
        s2 += np.float64(a[c + 2]) * np.float64(b[c + 2])
        s3 += np.float64(a[c + 3]) * np.float64(b[c + 3])
    for c in range(whole, n):
        s0 += np.float64(a[c]) * np.float64(b[c])
    return (s0 + s1) + (s2 + s3)


@njit(cache=True, nogil=True)
def score_rows(
    user_vector: Vectors, item_vectors: Vectors, item_rows: NDArray[np.int32], direct: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Eq. (7) and D10: score(u, v) = Z_u · Z_v + direct_v for some items. Returns (n,)."""
    out = np.empty(item_rows.size, np.float64)
    for i in range(item_rows.size):
        out[i] = dot(user_vector, item_vectors[item_rows[i]]) + direct[item_rows[i]]
    return out
