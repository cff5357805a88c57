"""The weighted neighbor lists that propagation reads: a whole graph's, or the live state's at a moment."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model_store.graph import InteractionGraph
from model_store.keys import NodeKeys


class Adjacency(NamedTuple):
    """Neighbor lists in key order, with S on every edge.

    Attributes:
        starts: (N,) where each node's list begins.
        lengths: (N,) degrees.
        neighbors: neighbor nodes.
        similarity: S, aligned with `neighbors`.
        keys: (N,) node keys.
    """

    starts: NDArray[np.int64]
    lengths: NDArray[np.int32]
    neighbors: NDArray[np.int32]
    similarity: NDArray[np.float32]
    keys: NodeKeys

    @classmethod
    def of_graph(cls, graph: InteractionGraph, similarity: NDArray[np.float32]) -> Adjacency:
        """The neighbor lists of a whole graph."""
        return cls(graph.indptr[:-1], graph.degrees, graph.neighbors, similarity, graph.keys)

    @property
    def n_nodes(self) -> int:
        """N, users and items together."""
        return len(self.starts)
