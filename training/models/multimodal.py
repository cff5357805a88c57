"""The multimodal view (D9): users as free vectors, items as what their feature vectors say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.models.view import View, embedding_table, readout_weights, to_numpy
from training.nn.projection import FeatureProjections, softmax_mix
from training.settings import ModelSettings


class MultimodalView(View):
    """X of a user is a free vector; X of an item mixes its modalities' projections by learned weights.

    So an item that nobody touched yet has a place as soon as it has features. Modalities are entries of a mapping: two,
    three or seven are the same code.
    """

    def __init__(
        self,
        n_users: int,
        features: Mapping[str, NDArray[np.floating]],
        settings: ModelSettings,
        width: int,
        generator: torch.Generator,
    ) -> None:
        """Draw the parameters.

        Args:
            n_users: I.
            features: modality → (J, w_m), at least one.
            settings: readout, layers and the start's scale.
            width: of the view.
            generator: draws the parameters, on the CPU.
        """
        super().__init__()
        self.name = "multimodal"
        self.alpha = readout_weights(settings)
        scale = settings.init_scale or width**-0.5
        self.user_embeddings = embedding_table(n_users, width, settings.init_scale, generator)
        # The mix is a mean at the start: as many times larger, so that an item's entries have the start's scale.
        self.projections = FeatureProjections(features, width, scale * len(features) ** 0.5, generator)
        self.mix = nn.Parameter(torch.zeros(len(features)))

    def base(self) -> Tensor:
        """X: (I + J, width)."""
        return torch.cat([self.user_embeddings, softmax_mix(self.projections(), self.mix)])

    def penalised(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Sequence[Tensor]:
        """The users' rows; the projections are few parameters and are left alone."""
        del positives, negatives
        return (self.user_embeddings.index_select(0, users),)

    def encoder(self) -> Mapping[str, NDArray[Any]]:
        """`multimodal.MODALITY.*`; `share` is the modality's weight in the mix."""
        shares = to_numpy(torch.softmax(self.mix, dim=0))
        modalities = self.projections.modalities
        of_mix = {f"multimodal.{m}.share": shares[row : row + 1] for row, m in enumerate(modalities)}
        return {**self.projections.encoder("multimodal"), **of_mix}
