"""The knowledge view, which is the main view: base embeddings, items aggregated with their entities. (1)-(2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.view import View, embedding_table, readout_weights, to_numpy
from training.nn.aggregation import Triplets, aggregate, attention, attention_logits
from training.settings import ModelSettings


class KnowledgeView(View):
    """Users and items as free vectors; items take in their entities where there is a knowledge graph."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        settings: ModelSettings,
        generator: torch.Generator,
        triplets: Triplets | None = None,
        n_relations: int = 0,
    ) -> None:
        super().__init__()
        self.name = "knowledge"
        self.alpha = readout_weights(settings)
        self.triplets = triplets
        width, scale = settings.width, settings.init_scale
        self.user_embeddings = embedding_table(n_users, width, scale, generator)
        self.item_embeddings = embedding_table(n_items, width, scale, generator)
        if triplets is not None:
            self.entity_embeddings = embedding_table(triplets.n_entities, width, scale, generator)
            self.relation_embeddings = nn.Parameter(torch.empty(n_relations, width))
            self.weight = nn.Parameter(torch.empty(width, 2 * width))
            nn.init.xavier_uniform_(self.relation_embeddings, generator=generator)
            nn.init.xavier_uniform_(self.weight, generator=generator)

    def triplet_attention(self, triplets: Triplets) -> Tensor:
        """Eq. (1): (n,) weights of the triplets."""
        logits = attention_logits(
            self.entity_embeddings, self.item_embeddings, self.weight, self.relation_embeddings, triplets
        )
        return attention(logits, triplets)

    def base(self) -> Tensor:
        """X: (I + J, d), items after (1) and (2)."""
        return self.base_over(self.triplets)

    def base_over(self, triplets: Triplets | None) -> Tensor:
        """X over a given knowledge graph, such as the generated one."""
        items: Tensor = self.item_embeddings
        if triplets is not None:
            items = aggregate(items, self.entity_embeddings, self.triplet_attention(triplets), triplets)
        return torch.cat([self.user_embeddings, items])

    def penalised(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Sequence[Tensor]:
        """z_u, z_i and z_j before aggregation."""
        return (
            self.user_embeddings.index_select(0, users),
            self.item_embeddings.index_select(0, positives),
            self.item_embeddings.index_select(0, negatives),
        )

    def encoder(self) -> Mapping[str, NDArray[Any]]:
        """What (1) and (2) need; z_j of a new item is zero."""
        if self.triplets is None:
            return {}
        return {
            "knowledge.attention": to_numpy(self.triplet_attention(self.triplets)),
            "knowledge.entity_embeddings": to_numpy(self.entity_embeddings),
            "knowledge.item_embeddings": to_numpy(self.item_embeddings),
            "knowledge.relation_embeddings": to_numpy(self.relation_embeddings),
            "knowledge.weight": to_numpy(self.weight),
        }
