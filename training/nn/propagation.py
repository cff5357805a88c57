"""Propagation over L̄ and readout: formulas (3), (4) and (6)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from training.nn.sparse import scaled_product, sparse_rows


class _Propagation(torch.autograd.Function):
    """Σ_l α_l L̄^l X by Horner's rule. L̄ is symmetric, so the gradient is the same sum over that of Z."""

    @staticmethod
    def forward(ctx: Any, laplacian: Tensor, x: Tensor, alpha: list[float], self_weight: Tensor | None) -> Tensor:
        ctx.laplacian, ctx.alpha, ctx.self_weight = laplacian, alpha, self_weight
        return _horner(laplacian, x, alpha, self_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, Tensor, None, None]:
        return None, _horner(ctx.laplacian, gradients[0], ctx.alpha, ctx.self_weight), None, None


def _horner(laplacian: Tensor, x: Tensor, alpha: list[float], self_weight: Tensor | None) -> Tensor:
    """α_0 X + L̄(α_1 X + L̄(α_2 X + ...)): one pass a layer, and no array beside the one that it makes."""
    if len(alpha) == 1:
        return alpha[0] * x
    total, scale = x, alpha[-1]
    for weight in alpha[-2::-1]:
        product = scaled_product(laplacian, total, scale, weight, x)
        total = product if self_weight is None else product.add_(scale * self_weight * total)
        scale = 1.0
    return total


def laplacian_matrix(indptr: Tensor, indices: Tensor, values: Tensor, n_nodes: int) -> Tensor:
    """The matrix L̄ as a sparse matrix in compressed rows. Eq. (4); the values come from `model_store.propagation`.

    Args:
        indptr: (N + 1,).
        indices: (nnz,) neighbor nodes.
        values: (nnz,).
        n_nodes: N.

    Returns:
        (N, N) sparse CSR.
    """
    return sparse_rows(indptr, indices, values, (n_nodes, n_nodes))


def propagate(laplacian: Tensor, x: Tensor, alpha: list[float], self_weight: Tensor | None = None) -> Tensor:
    """Eq. (3)/(6): Z = Σ_l α_l L̄^l X.

    Args:
        laplacian: (N, N) sparse, symmetric, without its diagonal.
        x: (N, d) base embeddings, X.
        alpha: L + 1 readout weights.
        self_weight: (N, 1) diagonal of L̄ where it has self-loops, else None.

    Returns:
        (N, d).
    """
    z: Tensor = _Propagation.apply(laplacian, x, alpha, self_weight)  # type: ignore[no-untyped-call]
    return z
