"""A view: a block of columns of X, C and α in the serving form (D9)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from training.settings import ModelSettings


class View(nn.Module):
    """What a model adds to the inner product: X from parameters, C where it has one, and its readout weights.

    Attributes:
        name: the view's name in the manifest.
        alpha: (L + 1) readout weights α.
        user_embeddings: (I, d) free vectors of the users.
    """

    name: str
    alpha: list[float]
    user_embeddings: nn.Parameter

    def base(self) -> Tensor:
        """X: (I + J, width), users first."""
        raise NotImplementedError

    def constant(self) -> Tensor | None:
        """C: (J, width), or None where it is zero."""
        return None

    def penalised(self, users: Tensor, positives: Tensor, negatives: Tensor) -> Sequence[Tensor]:
        """The rows of a batch's base embeddings whose norm θ2 weighs: (b, width) and (n, width) each."""
        raise NotImplementedError

    def forget_users(self, without: Tensor) -> None:
        """Zero the users of a mask (I,): they have no interactions and are never trained."""
        self.user_embeddings[without] = 0.0

    def encoder(self) -> Mapping[str, NDArray[Any]]:
        """Arrays from which X and C of a new item follow (docs/artifact.md), empty where its row is zero."""
        return {}


def readout_weights(settings: ModelSettings) -> list[float]:
    """D4: α_l = g^l / (L+1), or g^l."""
    first = 1.0 / (settings.n_layers + 1) if settings.readout == "mean" else 1.0
    return [first * settings.readout_growth**layer for layer in range(settings.n_layers + 1)]


def embedding_table(rows: int, width: int, scale: float, generator: torch.Generator) -> nn.Parameter:
    """A table drawn from a normal distribution; a scale of 0 is Xavier's √(2/(rows + width))."""
    return nn.Parameter((scale or math.sqrt(2 / (rows + width))) * torch.randn(rows, width, generator=generator))


def to_numpy(tensor: Tensor) -> NDArray[np.float32]:
    """A detached copy on the CPU."""
    return np.asarray(tensor.detach().cpu().numpy(), np.float32).copy()
