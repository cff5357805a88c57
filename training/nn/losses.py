"""Losses of the recommender: formula (15), the sampled softmax and L2. All are means over the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bpr_loss(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Eq. (15): mean of -log σ(y_ui - y_uj); the paper's formula omits the sigmoid.

    Args:
        positive_scores: (b,) y_ui.
        negative_scores: (b, n) y_uj.

    Returns:
        A scalar.
    """
    return -functional.logsigmoid(positive_scores.unsqueeze(1) - negative_scores).mean()


def sampled_softmax_loss(positive_scores: Tensor, negative_scores: Tensor) -> Tensor:
    """Mean of -log( exp y_ui / (exp y_ui + Σ_j exp y_uj) ) over n uniform negatives.

    Args:
        positive_scores: (b,) y_ui.
        negative_scores: (b, n) y_uj.

    Returns:
        A scalar.
    """
    logits = torch.cat([positive_scores.unsqueeze(1), negative_scores], dim=1)
    return (torch.logsumexp(logits, dim=1) - positive_scores).mean()


def l2_penalty(*embeddings: Tensor) -> Tensor:
    """‖Θ_batch‖² / (2 b): half the squared norm of the batch's base embeddings, a mean over the batch (LightGCN's).

    Args:
        embeddings: (b, d) or (b, n, d) rows of the base embeddings.

    Returns:
        A scalar.
    """
    batch = embeddings[0].shape[0]
    squares = [e.pow(2).sum() for e in embeddings]
    return torch.stack(squares).sum() / (2 * batch)
