"""Item-kNN: cosine similarity of the items' columns, the nearest neighbors of each item (Sarwar et al., WWW 2001)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from training.evaluation import ScoreUsers
from training.item_item import largest_entries, table_scores

_CHUNK = 1024


def itemknn(interactions: sparse.csr_array, n_neighbors: int, shrink: float) -> ScoreUsers:
    """score(u, v) = Σ_{i in N(u)} cos(i, v) over the pairs where v is among i's nearest.

    cos(i, v) = |U_i ∩ U_v| / ( √(|U_i| |U_v|) + shrink ), U_i the users of item i.

    Args:
        interactions: (I, J) Y.
        n_neighbors: how many nearest neighbors of each item count.
        shrink: draws similarities of rare items towards 0.
    """
    norms = np.sqrt(np.asarray(interactions.sum(0)).ravel())
    columns = sparse.csr_array(interactions.T)
    parts = []
    for begin in range(0, interactions.shape[1], _CHUNK):
        block = sparse.csr_array(columns[begin : begin + _CHUNK] @ interactions)
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        block.data = (block.data / (norms[rows + begin] * norms[block.indices] + shrink)).astype(np.float32)
        block.data[block.indices == rows + begin] = 0.0
        parts.append(largest_entries(block, n_neighbors))
    return table_scores(interactions, sparse.csr_array(sparse.vstack(parts, format="csr")))
