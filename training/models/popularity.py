"""Popularity: every user gets the most-interacted items."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.evaluation import ScoreUsers


def popularity(interactions: sparse.csr_array) -> ScoreUsers:
    """score(u, v) = number of users who interacted with v.

    Args:
        interactions: (I, J) Y.
    """
    counts = np.asarray(interactions.sum(0)).ravel().astype(np.float32)

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.tile(counts, (len(users), 1))

    return score_users
