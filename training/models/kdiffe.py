"""KDiffE: the knowledge view, further views beside it, and the contrast with a view over a generated graph or noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from training.models.graph import Laplacian
from training.models.knowledge import KnowledgeView
from training.models.recommender import Recommender
from training.models.view import View
from training.nn.aggregation import Triplets
from training.nn.contrast import info_nce, perturbed
from training.row_diffusion import seeded_generator
from training.settings import ContrastSettings

# Anchors whose similarities to a batch's nodes are made at once.
_CHUNK = 1024
# What an epoch's noise is drawn for, as a number; the generated graph has 0 to 2.
_NOISE = 3


class GeneratesTriplets(Protocol):
    """What makes Ĝ_k: `training.models.generated`, or a test's own."""

    triplets: Triplets | None

    def begin_epoch(self, number: int, user_embeddings: Tensor, entity_embeddings: Tensor) -> Mapping[str, float]:
        """Make Ĝ_k anew where it is due; returns the mean losses of what was trained for it."""

    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint must keep."""

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Take it back."""


class KDiffE(Recommender):
    """The paper's model, formulas (1)-(15).

    Without a knowledge graph there is nothing to generate and no contrast, unless the settings ask for noise (SimGCL).
    """

    def __init__(
        self,
        n_users: int,
        n_items: int,
        laplacian: Laplacian,
        views: Sequence[View],
        generated: GeneratesTriplets | None = None,
        contrast: ContrastSettings | None = None,
        seed: int = 0,
    ) -> None:
        """Put the views together.

        Args:
            n_users: I.
            n_items: J.
            laplacian: L̄.
            views: the knowledge view first.
            generated: makes Ĝ_k; None without a knowledge graph.
            contrast: θ1, τ, and what is contrasted; None for no contrast.
            seed: of the noise.
        """
        super().__init__(n_users, n_items, laplacian, views)
        self.contrast, self.seed = contrast or ContrastSettings(weight=0.0), seed
        self.graph = generated if self.contrast.second_view == "generated" else None
        self.is_noised = self.contrast.second_view == "noise"
        self._draws: torch.Generator | None = None

    @property
    def knowledge(self) -> KnowledgeView:
        """The main view."""
        view = self.views["knowledge"]
        assert isinstance(view, KnowledgeView)  # noqa: S101
        return view

    def begin_epoch(self, number: int) -> Mapping[str, float]:
        """D7: train the denoiser and make Ĝ_k anew, where it is due; or seed the epoch's noise."""
        if self.is_noised:  # by the epoch, so that a resumed fit draws the same
            self._draws = seeded_generator(self.seed, number, _NOISE, next(self.parameters()).device)
        if self.graph is None:
            return {}
        view = self.knowledge
        with torch.no_grad():
            users = self.propagated(view, view.base())[: self.n_users]
            entities = view.entity_embeddings.detach()
        return self.graph.begin_epoch(number, users, entities)

    @property
    def has_own_loss(self) -> bool:
        """Whether there is a contrast."""
        return self.graph is not None or self.is_noised

    def own_loss(self, view_embeddings: Sequence[Tensor], users: Tensor, items: Tensor) -> Tensor:
        """θ1 (L_s^u + L_s^v): InfoNCE between the main view and the view over Ĝ_k, negatives in the batch. Eq. (13).

        Or between two copies of the main view's nodes under noise.
        """
        view = self.knowledge
        main = view_embeddings[self.view_list().index(view)]
        other = None if self.graph is None else self.propagated(view, view.base_over(self.graph.triplets))
        losses = [self._contrasted(main, other, nodes) for nodes in (users, items + self.n_users)]
        return self.contrast.weight * (losses[0] + losses[1])

    def _contrasted(self, main: Tensor, other: Tensor | None, nodes: Tensor) -> Tensor:
        """InfoNCE of some nodes."""
        own = main.index_select(0, nodes)
        if other is None:
            assert self._draws is not None, "begin_epoch seeds the noise"  # noqa: S101
            pair = [perturbed(own, self.contrast.noise, self._draws) for _ in range(2)]
        else:
            pair = [own, other.index_select(0, nodes)]
        return info_nce(pair[0], pair[1], self.contrast.temperature, _CHUNK)

    def generated(self) -> dict[str, Tensor]:
        """The denoiser, its optimiser and Ĝ_k."""
        return {} if self.graph is None else self.graph.tensors()

    def restore_generated(self, tensors: dict[str, Tensor]) -> None:
        """Take them back."""
        if self.graph is not None:
            self.graph.restore(tensors)
