"""Full-ranking evaluation: every user with items in the split, all items but the masked ones ranked.

    Recall@k = |top k ∩ T_u| / |T_u|
    NDCG@k   = Σ_{p ≤ k, v_p ∈ T_u} 1/log2(p + 1)  /  Σ_{p ≤ min(k, |T_u|)} 1/log2(p + 1)

where T_u are the user's items in the split, v_p the item at rank p (1 = best); both are means over the users.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from training.data.dataset import Interactions
from training.ranking import top_rows

# (n,) user rows → (n, J) float32 scores, higher is better, a fresh writable array.
ScoreUsers = Callable[[NDArray[np.int64]], NDArray[np.float32]]


@dataclass(frozen=True)
class Split:
    """What an evaluation ranks against.

    Attributes:
        users: (n,) users with items in the split, ascending.
        truth: (I, J) 0/1, items of the split.
        masked: (I, J) 0/1, items that are left out of the ranking.
    """

    users: NDArray[np.int64]
    truth: sparse.csr_array
    masked: sparse.csr_array

    @classmethod
    def of(cls, split: Interactions, masked: Interactions, n_users: int, n_items: int) -> Split:
        """Prepare a split once for many evaluations. A masked item never counts as truth."""
        truth = interaction_matrix(split, n_users, n_items)
        hidden = interaction_matrix(masked, n_users, n_items)
        truth = sparse.csr_array(truth - truth.multiply(hidden))
        truth.eliminate_zeros()
        return cls(np.flatnonzero(np.diff(truth.indptr)).astype(np.int64), truth, hidden)


def interaction_matrix(interactions: Interactions, n_users: int, n_items: int) -> sparse.csr_array:
    """Y: (I, J) sparse, 1 where the user interacted with the item."""
    ones = np.ones(len(interactions), np.float32)
    matrix = sparse.csr_array((ones, (interactions.user_rows, interactions.item_rows)), shape=(n_users, n_items))
    matrix.data[:] = 1.0  # a pair that stands twice is one
    return matrix


def ranking_hits(score_users: ScoreUsers, split: Split, k: int, *, chunk: int = 1024) -> NDArray[np.bool_]:
    """Which of each user's top k are in the split: (number of users, k)."""
    hits = np.zeros((len(split.users), k), np.bool_)
    for begin in range(0, len(split.users), chunk):
        users = split.users[begin : begin + chunk]
        scores = score_users(users)
        hidden = split.masked[users].tocoo()
        scores[hidden.row, hidden.col] = -np.inf
        top = top_rows(scores, k)
        truth = np.zeros(scores.shape, np.bool_)
        wanted = split.truth[users].tocoo()
        truth[wanted.row, wanted.col] = True
        hits[begin : begin + chunk] = np.take_along_axis(truth, np.maximum(top, 0).astype(np.int64), 1) & (top >= 0)
    return hits


def recall_at_k(hits: NDArray[np.bool_], n_relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """Recall@k of each user; hits (n, k), n_relevant (n,) = |T_u|."""
    return np.asarray(hits.sum(1) / n_relevant, np.float64)


def ndcg_at_k(hits: NDArray[np.bool_], n_relevant: NDArray[np.integer]) -> NDArray[np.float64]:
    """NDCG@k of each user; hits (n, k), n_relevant (n,) = |T_u|."""
    k = hits.shape[1]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])
    return np.asarray((hits @ discount) / ideal[np.minimum(n_relevant, k)], np.float64)


def evaluate(score_users: ScoreUsers, split: Split, k: int = 20) -> dict[str, float]:
    """Mean Recall@k and NDCG@k over the users of a split.

    Args:
        score_users: scores of some users over all items.
        split: what to rank against.
        k: length of the ranking.

    Returns:
        {"recall@k", "ndcg@k", "n_users"}; zeros where the split has no users.
    """
    if len(split.users) == 0:
        return {f"recall@{k}": 0.0, f"ndcg@{k}": 0.0, "n_users": 0}
    hits = ranking_hits(score_users, split, k)
    relevant = np.diff(split.truth.indptr)[split.users]
    return {
        f"recall@{k}": float(recall_at_k(hits, relevant).mean()),
        f"ndcg@{k}": float(ndcg_at_k(hits, relevant).mean()),
        "n_users": len(split.users),
    }
