"""The contrast between two views: formula (13), and noise that makes a view of another."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# From here on exp((cos - 1) / τ) is above float32's underflow for every cosine, so no row's own maximum is needed.
_LEAST_TEMPERATURE = 2 / 80


class _MeanInfoNCE(torch.autograd.Function):
    """The mean of InfoNCE over rows of length 1, a chunk of anchors at a time.

    The gradients need the same softmax as the loss, so they are made in the same pass: no array of all pairs is ever
    kept, and none is computed a second time.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, positives: Tensor | None, temperature: float, chunk: int) -> Tensor:
        n = len(a)
        needs_a, needs_b = ctx.needs_input_grad[:2]
        of_a = torch.empty_like(a) if needs_a else None
        of_b = torch.zeros_like(b) if needs_b else None
        own = b if positives is None else b.index_select(0, positives)
        total = torch.zeros((), dtype=a.dtype, device=a.device)
        for begin in range(0, n, chunk):
            anchors = a[begin : begin + chunk]
            logits = (anchors @ b.T).div_(temperature)
            # exp(cos / τ) over what it is at most: one pass of exponentials serves the loss and the gradients.
            most = logits.amax(dim=1, keepdim=True) if temperature < _LEAST_TEMPERATURE else 1 / temperature
            softmax = logits.sub_(most).exp_()
            sums = softmax.sum(dim=1, keepdim=True)
            normalizer = (torch.log(sums) + most).squeeze(1)
            total += (normalizer - torch.linalg.vecdot(anchors, own[begin : begin + chunk]) / temperature).sum()
            if needs_a or needs_b:
                softmax.div_(sums)
                if of_a is not None:
                    of_a[begin : begin + chunk] = softmax @ b
                if of_b is not None:
                    of_b.addmm_(softmax.T, anchors)
        if of_a is not None:
            of_a.sub_(own).div_(n * temperature)
        if of_b is not None:
            if positives is None:
                of_b.sub_(a)
            else:
                of_b.index_add_(0, positives, a, alpha=-1)
            of_b.div_(n * temperature)
        ctx.save_for_backward(of_a, of_b)
        return total / n

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, Tensor | None, None, None, None]:
        of_a, of_b = (None if of is None else gradients[0] * of for of in ctx.saved_tensors)
        return of_a, of_b, None, None, None


def _unit(rows: Tensor) -> Tensor:
    """Rows at length 1. Rows of zeros stay, without gradient; `functional.normalize` would give them 1e12 times it."""
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    return rows / lengths.masked_fill(lengths == 0, torch.inf)


def perturbed(rows: Tensor, noise: float, generator: torch.Generator) -> Tensor:
    """Rows at length 1, each with a random vector of length ε in its own orthant added (SimGCL, Yu et al., SIGIR 2022).

    SimGCL adds it to the propagated vectors as they are; a fixed length would then mean more for short ones.

    Args:
        rows: (n, d).
        noise: ε.
        generator: draws the vectors, on the rows' device.

    Returns:
        (n, d); rows of zeros stay.
    """
    unit = _unit(rows)
    drawn = torch.rand(unit.shape, generator=generator, device=unit.device, dtype=unit.dtype)
    return unit + noise * torch.sign(unit.detach()) * _unit(drawn)


def info_nce(a: Tensor, b: Tensor, temperature: float, chunk: int, positives: Tensor | None = None) -> Tensor:
    """Eq. (13): mean over i of -log( exp(cos(a_i, b_i) / τ) / Σ_j exp(cos(a_i, b_j) / τ) ), the positive in the sum.

    One direction; a symmetric loss adds info_nce(b, a). Memory: two arrays of chunk × m beside the gradients. Rows of
    zeros have the cosine 0 to all and no gradient. The gradient can't be differentiated once more.

    Args:
        a: (n, d) anchors, one view.
        b: (m, d) the other view: each anchor's positive, and the negatives of all others.
        temperature: τ.
        chunk: anchors that are compared at once.
        positives: (n,) row of b that is each anchor's positive, none of them twice; None where m = n and it is the
            same row.

    Returns:
        A scalar.
    """
    loss: Tensor = _MeanInfoNCE.apply(  # type: ignore[no-untyped-call]
        _unit(a), _unit(b), positives, temperature, chunk
    )
    return loss
