"""The exact additive explanation of a score by the neighbors in S(u, ·) (model.md, Explanation).

    score(u,v) = [α_0 X_u + L̄_uu T_u]·Z_v + Σ_{i in N(u)} ( L̄_ui T_i·Z_v + B_iv )

With L̄_ui = (1 + ξ S(u,i)) / √(d_u d_i), each item's contribution splits into a link part (the 1), an attention part
(ξ S(u,i)) and a direct part (B_iv).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from model_store.item_item import ItemItemTable
from model_store.propagation import Vectors
from model_store.serving_form import ServingForm, dot


@dataclass(frozen=True)
class Contributions:
    """A score, taken apart. All in double precision.

    Attributes:
        self_term: [α_0 X_u + L̄_uu T_u]·Z_v.
        neighbors: (d,) the user's items as nodes.
        similarity: (d,) S(u, i).
        link: (d,) the part of L̄_ui T_i·Z_v that a plain link gives.
        attention: (d,) the part that ξ S(u, i) adds.
        direct: (d,) B_iv.
    """

    self_term: float
    neighbors: NDArray[np.int32]
    similarity: NDArray[np.float32]
    link: NDArray[np.float64]
    attention: NDArray[np.float64]
    direct: NDArray[np.float64]

    @property
    def total(self) -> NDArray[np.float64]:
        """(d,) each neighbor's contribution."""
        return self.link + self.attention + self.direct

    @property
    def score(self) -> float:
        """The self term and all contributions together."""
        return self.self_term + float(self.total.sum())

    @property
    def magnitude(self) -> float:
        """|self| + Σ |contributions|: what shares and the additivity error are relative to."""
        return abs(self.self_term) + float(np.abs(self.total).sum())

    def additivity_error(self, served_score: float) -> float:
        """How far the sum lies from the served score, relative to `magnitude`."""
        gap = abs(served_score - self.score)
        return gap / self.magnitude if self.magnitude > 0 else gap


@njit(cache=True, nogil=True)
def neighbor_parts(
    item_vector: Vectors,
    neighbors: NDArray[np.int32],
    similarity: NDArray[np.float32],
    degree: int,
    lengths: NDArray[np.int32],
    similarity_weight: float,
    self_loops: int,
    neighbor_embeddings: Vectors,
    link: NDArray[np.float64],
    attention: NDArray[np.float64],
) -> None:
    """Write each neighbor's link and attention part; a node beyond T contributes 0."""
    for i in range(neighbors.size):
        other = neighbors[i]
        if other < neighbor_embeddings.shape[0]:
            product = np.float64(degree + self_loops) * np.float64(lengths[other] + self_loops)
            part = dot(neighbor_embeddings[other], item_vector) / np.sqrt(product)
            link[i] = part
            attention[i] = similarity_weight * np.float64(similarity[i]) * part


def contributions(
    form: ServingForm,
    table: ItemItemTable,
    node: int,
    neighbors: NDArray[np.int32],
    neighbor_items: NDArray[np.int32],
    similarity: NDArray[np.float32],
    lengths: NDArray[np.int32],
    neighbor_embeddings: Vectors,
    item_row: int,
    item_vector: Vectors,
) -> Contributions:
    """Take a score apart.

    Args:
        form: the serving form.
        table: B.
        node: the user's node.
        neighbors: (d,) the user's items as nodes, in key order.
        neighbor_items: (d,) the same as item rows.
        similarity: (d,) S(u, ·).
        lengths: (N,) degrees.
        neighbor_embeddings: T in force.
        item_row: v.
        item_vector: (width,) Z_v in force.
    """
    loops = int(form.self_loops)
    degree = len(neighbors)
    own = np.zeros(form.width, np.float64)
    if node < len(form.base):
        own += form.alpha[0].astype(np.float64) * form.base[node]
    if loops and node < len(neighbor_embeddings):
        own += neighbor_embeddings[node].astype(np.float64) / (degree + 1)
    link, attention = np.zeros(degree, np.float64), np.zeros(degree, np.float64)
    neighbor_parts(
        item_vector,
        neighbors,
        similarity,
        degree,
        lengths,
        form.similarity_weight,
        loops,
        neighbor_embeddings,
        link,
        attention,
    )
    direct = np.array([table.entry(int(i), item_row) for i in neighbor_items], np.float64)
    return Contributions(float(own @ item_vector.astype(np.float64)), neighbors, similarity, link, attention, direct)
