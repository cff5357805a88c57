"""KDiffE's main view: base embeddings, aggregation over the knowledge graph, propagation over L̄. Formulas (1)-(7)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from training.models.graph import Laplacian
from training.nn.aggregation import Triplets, aggregate, attention, attention_logits
from training.nn.losses import bpr_loss, l2_penalty, sampled_softmax_loss
from training.nn.propagation import propagate
from training.settings import LossSettings, ModelSettings


class KDiffE(nn.Module):
    """The main view. Without triplets and with ξ = 0 it is LightGCN."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        laplacian: Laplacian,
        settings: ModelSettings,
        generator: torch.Generator,
        triplets: Triplets | None = None,
        n_relations: int = 0,
    ) -> None:
        super().__init__()
        self.n_users, self.n_items = n_users, n_items
        self.settings = settings
        self.laplacian = laplacian
        self.triplets = triplets
        width = settings.width

        def table(rows: int) -> nn.Parameter:
            scale = settings.init_scale or math.sqrt(2 / (rows + width))
            return nn.Parameter(scale * torch.randn(rows, width, generator=generator))

        self.user_embeddings = table(n_users)
        self.item_embeddings = table(n_items)
        if triplets is not None:
            self.entity_embeddings = table(triplets.n_entities)
            self.relation_embeddings = nn.Parameter(torch.empty(n_relations, width))
            self.weight = nn.Parameter(torch.empty(width, 2 * width))
            nn.init.xavier_uniform_(self.relation_embeddings, generator=generator)
            nn.init.xavier_uniform_(self.weight, generator=generator)

    @property
    def alpha(self) -> list[float]:
        """Readout weights α (D4)."""
        layers = self.settings.n_layers + 1
        return [1.0 / layers if self.settings.readout == "mean" else 1.0] * layers

    def triplet_attention(self) -> Tensor:
        """Eq. (1): (n,) weights of the triplets."""
        assert self.triplets is not None  # noqa: S101
        logits = attention_logits(
            self.entity_embeddings, self.item_embeddings, self.weight, self.relation_embeddings, self.triplets
        )
        return attention(logits, self.triplets)

    def base(self) -> Tensor:
        """X: (I + J, d), items after (1) and (2)."""
        items: Tensor = self.item_embeddings
        if self.triplets is not None:
            items = aggregate(items, self.entity_embeddings, self.triplet_attention(), self.triplets)
        return torch.cat([self.user_embeddings, items])

    def embeddings(self) -> Tensor:
        """Z: (I + J, d). Eq. (3)/(6)."""
        return propagate(self.laplacian.matrix, self.base(), self.alpha, self.laplacian.self_weight)

    def loss(self, users: Tensor, positives: Tensor, negatives: Tensor, settings: LossSettings) -> Tensor:
        """The recommendation loss of a batch: Eq. (15) or the sampled softmax, and θ2 ‖Θ_batch‖².

        Args:
            users: (b,) user rows.
            positives: (b,) item rows.
            negatives: (b, n) item rows, or (n,) where the batch shares them.
            settings: which loss, and θ2.

        Returns:
            A scalar.
        """
        z = self.embeddings()
        flat = negatives.flatten()
        z_users = z.index_select(0, users)
        z_positives = z.index_select(0, positives + self.n_users)
        z_negatives = z.index_select(0, flat + self.n_users)
        positive_scores = (z_users * z_positives).sum(1)
        if negatives.dim() == 1:
            negative_scores = z_users @ z_negatives.T
        else:
            negative_scores = (z_negatives.view(*negatives.shape, -1) * z_users.unsqueeze(1)).sum(2)
        loss = (bpr_loss if settings.kind == "bpr" else sampled_softmax_loss)(positive_scores, negative_scores)
        penalty = l2_penalty(
            self.user_embeddings.index_select(0, users),
            self.item_embeddings.index_select(0, positives),
            self.item_embeddings.index_select(0, flat),
        )
        return loss + settings.l2_weight * penalty
