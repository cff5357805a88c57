"""InfoNCE against a double loop, and its gradient against autograd's through the plain formula."""

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from training.nn.contrast import info_nce, perturbed


def views(n: int = 7, m: int = 7, width: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    a, b = (torch.randn(k, width, generator=generator, dtype=torch.float64) for k in (n, m))
    return a.requires_grad_(), b.requires_grad_()


def looped(a: list[list[float]], b: list[list[float]], temperature: float, positives: list[int]) -> float:
    def cosine(p: list[float], q: list[float]) -> float:
        return sum(s * t for s, t in zip(p, q, strict=True)) / (math.hypot(*p) * math.hypot(*q))

    losses = []
    for i, anchor in enumerate(a):
        terms = [math.exp(cosine(anchor, other) / temperature) for other in b]
        losses.append(-math.log(terms[positives[i]] / sum(terms)))
    return sum(losses) / len(losses)


def plain(a: Tensor, b: Tensor, temperature: float, positives: Tensor) -> Tensor:
    logits = functional.normalize(a, dim=1) @ functional.normalize(b, dim=1).T / temperature
    return functional.cross_entropy(logits, positives)


@pytest.mark.parametrize("chunk", [1, 3, 7, 100])
def test_the_loss_is_the_double_loop_s_in_chunks_of_any_size(chunk: int) -> None:
    a, b = views()
    expected = looped(a.tolist(), b.tolist(), 0.5, list(range(7)))
    assert info_nce(a, b, 0.5, chunk).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk", [2, 100])
def test_anchors_may_be_some_of_the_nodes(chunk: int) -> None:
    a, b = views(3, 8)
    positives = [6, 0, 3]
    expected = looped(a.tolist(), b.tolist(), 0.3, positives)
    assert info_nce(a, b, 0.3, chunk, torch.tensor(positives)).item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 3, 100])
@pytest.mark.parametrize("positives", [None, [6, 0, 3]])
def test_the_gradient_is_that_of_the_plain_formula(chunk: int, positives: list[int] | None) -> None:
    a, b = views(7, 7) if positives is None else views(3, 8)
    chosen = None if positives is None else torch.tensor(positives)
    # Some factor behind the loss, so that the incoming gradient is not 1.
    found = torch.autograd.grad(3 * info_nce(a, b, 0.2, chunk, chosen), (a, b))
    expected = torch.autograd.grad(3 * plain(a, b, 0.2, torch.arange(7) if chosen is None else chosen), (a, b))
    torch.testing.assert_close(found, expected)


def test_the_gradient_is_the_difference_quotient() -> None:
    assert torch.autograd.gradcheck(lambda a, b: info_nce(a, b, 0.5, 2), views(4, 4, 3))


def test_a_view_without_gradient_gets_none() -> None:
    a, b = views()
    info_nce(a, b.detach(), 0.5, 3).backward()
    assert a.grad is not None
    expected = torch.autograd.grad(plain(a, b, 0.5, torch.arange(7)), a)[0]
    torch.testing.assert_close(a.grad, expected)
    assert not info_nce(a.detach(), b.detach(), 0.5, 3).requires_grad


def test_equal_views_of_orthogonal_rows_have_the_loss_on_the_page() -> None:
    rows = 5 * torch.eye(4)
    expected = -math.log(math.exp(1 / 0.7) / (math.exp(1 / 0.7) + 3))
    assert info_nce(rows, 2 * rows, 0.7, 2).item() == pytest.approx(expected, rel=1e-6)


def test_a_temperature_near_zero_gives_finite_numbers() -> None:
    a, b = (part.detach().float().requires_grad_() for part in views())
    loss = info_nce(a, b, 1e-3, 3)
    loss.backward()
    assert loss.isfinite()
    assert a.grad is not None
    assert a.grad.isfinite().all()


def test_a_row_of_zeros_is_equally_far_from_all_and_gets_no_gradient() -> None:
    a, b = views()
    with torch.no_grad():
        a[2] = 0
        b[5] = 0
    loss = info_nce(a, b, 0.5, 3)
    unit_a, unit_b = functional.normalize(a.detach(), dim=1), functional.normalize(b.detach(), dim=1)
    logits = unit_a @ unit_b.T / 0.5
    assert logits[2].tolist() == [0] * 7
    torch.testing.assert_close(loss, functional.cross_entropy(logits, torch.arange(7)))
    loss.backward()
    assert a.grad is not None
    assert b.grad is not None
    assert a.grad[2].tolist() == [0] * 4
    assert b.grad[5].tolist() == [0] * 4
    assert a.grad.abs().max() < 10


@pytest.mark.parametrize("temperature", [1e-3, 0.01, 0.025, 1.0])
def test_cold_and_warm_temperatures_stay_finite_in_float32(temperature: float) -> None:
    a, b = (view.detach().float().requires_grad_() for view in views(5, 5, 3))
    loss = info_nce(a, b, temperature, 2)
    gradients = torch.autograd.grad(loss, (a, b))
    expected = plain(a, b, temperature, torch.arange(5))
    torch.testing.assert_close(loss, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, (a, b)), rtol=1e-3, atol=1e-3)


def test_noise_is_a_vector_of_its_length_in_the_row_s_own_orthant() -> None:
    rows, _ = views(n=50)
    rows = torch.cat([rows.detach(), torch.zeros(1, 4, dtype=torch.float64)])
    found = perturbed(rows, 0.3, torch.Generator().manual_seed(1))
    noise = found - functional.normalize(rows, dim=1)
    torch.testing.assert_close(noise[:-1].norm(dim=1), torch.full((50,), 0.3, dtype=torch.float64))
    assert (noise[:-1] * rows[:-1] >= 0).all()
    assert not found[-1].any()
    # Drawn anew for every row: no two alike.
    assert len(torch.unique(noise[:-1].abs(), dim=0)) == 50
    torch.testing.assert_close(perturbed(rows, 0.3, torch.Generator().manual_seed(1)), found)
    torch.testing.assert_close(perturbed(rows, 0.0, torch.Generator()), functional.normalize(rows, dim=1))
