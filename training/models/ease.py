"""EASE as a recommender: a peer for catalogues whose dense item-item table fits into memory."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation import ScoreUsers
from training.item_item import ease_weights


def ease(interactions: sparse.csr_array, l2: float) -> ScoreUsers:
    """score(u, ·) = Y_u W with EASE's W (Steck, WWW 2019).

    Args:
        interactions: (I, J) Y.
        l2: λ.
    """
    weights = ease_weights(interactions, l2)

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.ascontiguousarray(interactions[users] @ weights, dtype=np.float32)

    return score_users
