"""The interaction graph as torch sees it: L̄ with S on its edges."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model_store.attention import AttentionState
from model_store.graph import InteractionGraph
from model_store.keys import node_keys
from model_store.propagation import laplacian_values
from model_store.walks import WalkSettings
from training.data.dataset import DataSet, Interactions
from training.nn.propagation import laplacian_matrix


@dataclass(frozen=True)
class Laplacian:
    """L̄ on a device.

    Attributes:
        matrix: (N, N) sparse CSR, without its diagonal.
        self_weight: (N, 1) its diagonal where it has self-loops, else None.
    """

    matrix: Tensor
    self_weight: Tensor | None

    @classmethod
    def of(cls, state: AttentionState, similarity_weight: float, self_loops: bool, device: torch.device) -> Laplacian:
        """Eq. (4) of a settled state."""
        adjacency = state.snapshot()
        loops = int(self_loops)
        values = laplacian_values(
            adjacency.starts, adjacency.lengths, adjacency.neighbors, adjacency.similarity, similarity_weight, loops
        )
        n_nodes = adjacency.n_nodes
        # Half as many bytes of indices to read, where they are enough.
        kind = np.int32 if max(n_nodes, len(adjacency.neighbors)) < 2**31 else np.int64
        indptr = np.append(adjacency.starts, np.int64(len(adjacency.neighbors)))
        matrix = laplacian_matrix(
            torch.from_numpy(indptr.astype(kind)).to(device),
            torch.from_numpy(adjacency.neighbors.astype(kind)).to(device),
            torch.from_numpy(values).to(device),
            n_nodes,
        )
        diagonal = None
        if self_loops:
            diagonal = torch.from_numpy((1.0 / (adjacency.lengths + 1.0)).astype(np.float32)).to(device)[:, None]
        return cls(matrix, diagonal)


def attention_state(data: DataSet, interactions: Interactions, walks: WalkSettings, threads: int) -> AttentionState:
    """The attention state of a data set's users and items and some of its interactions."""
    graph = InteractionGraph.from_pairs(
        interactions.user_rows,
        interactions.item_rows,
        node_keys("user", data.user_ids),
        node_keys("item", data.item_ids),
    )
    return AttentionState.build(graph, walks, threads=threads)
