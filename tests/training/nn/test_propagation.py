"""Propagation against powers of a dense matrix."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from training.nn.propagation import laplacian_matrix, propagate

N, WIDTH = 9, 3


def symmetric(seed: int = 0) -> tuple[np.ndarray, Tensor]:  # type: ignore[type-arg]
    """A random symmetric matrix with a zero diagonal and an empty row, dense and in compressed rows."""
    rng = np.random.default_rng(seed)
    upper = np.triu(rng.standard_normal((N, N)) * (rng.random((N, N)) < 0.4), 1)
    upper[:, 4] = upper[4] = 0
    dense = upper + upper.T
    rows, columns = np.nonzero(dense)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=N))])
    parts = (torch.from_numpy(part) for part in (indptr, columns, dense[rows, columns]))
    return dense, laplacian_matrix(*parts, N)


def embeddings(seed: int = 1) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal((N, WIDTH)))


def test_the_matrix_holds_the_given_values() -> None:
    dense, matrix = symmetric()
    np.testing.assert_array_equal(matrix.to_dense().numpy(), dense)


@pytest.mark.parametrize("n_layers", [0, 1, 2, 3])
@pytest.mark.parametrize("readout", ["mean", "sum"])
@pytest.mark.parametrize("self_loops", [False, True])
def test_propagation_sums_the_powers_of_the_dense_matrix(n_layers: int, readout: str, self_loops: bool) -> None:
    dense, matrix = symmetric()
    diagonal = np.random.default_rng(2).random(N) if self_loops else np.zeros(N)
    alpha = [1 / (n_layers + 1) if readout == "mean" else 1.0] * (n_layers + 1)
    x = embeddings()
    found = propagate(matrix, x, alpha, torch.from_numpy(diagonal[:, None]) if self_loops else None)
    whole = dense + np.diag(diagonal)
    expected = sum(a * np.linalg.matrix_power(whole, layer) @ x.numpy() for layer, a in enumerate(alpha))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-10, atol=1e-12)


def test_each_layer_has_a_weight_of_its_own() -> None:
    dense, matrix = symmetric()
    x = embeddings()
    found = propagate(matrix, x, [0.5, 0.0, 2.0])
    np.testing.assert_allclose(found.numpy(), 0.5 * x.numpy() + 2 * dense @ dense @ x.numpy(), rtol=1e-10, atol=1e-12)


def test_a_node_without_neighbors_keeps_only_its_own_part() -> None:
    _, matrix = symmetric()
    x = embeddings()
    torch.testing.assert_close(propagate(matrix, x, [0.25, 0.25, 0.5])[4], 0.25 * x[4])


@pytest.mark.parametrize("alpha", [[2.0], [0.0, 1.0], [0.2, 0.3, 0.5]])
def test_the_gradient_is_that_of_finite_differences(alpha: list[float]) -> None:
    _, matrix = symmetric()
    assert torch.autograd.gradcheck(lambda x: propagate(matrix, x, alpha), (embeddings().requires_grad_(),))


def test_the_indices_may_have_half_the_width() -> None:
    _, matrix = symmetric()
    parts = (matrix.crow_indices().to(torch.int32), matrix.col_indices().to(torch.int32), matrix.values())
    x, alpha = embeddings(), [0.2, 0.3, 0.5]
    torch.testing.assert_close(
        propagate(laplacian_matrix(*parts, N), x, alpha), propagate(matrix, x, alpha), rtol=0, atol=0
    )


@pytest.mark.parametrize("objective", ["projection", "sum", "column"])
def test_the_gradient_of_propagation_is_that_of_dense_autograd(objective: str) -> None:
    dense, matrix = symmetric()
    diagonal = torch.from_numpy(np.random.default_rng(3).random((N, 1)))
    alpha = [0.2, 0.3, 0.5]

    def value(z: Tensor) -> Tensor:
        if objective == "projection":
            return (z * embeddings(7)).sum()
        return z.sum() if objective == "sum" else z.T[1].pow(2).sum()

    x = embeddings().requires_grad_()
    value(propagate(matrix, x, alpha, diagonal)).backward()  # type: ignore[no-untyped-call]
    y = embeddings().requires_grad_()
    whole = torch.from_numpy(dense) + torch.diag(diagonal[:, 0])
    z = alpha[0] * y + alpha[1] * (whole @ y) + alpha[2] * (whole @ (whole @ y))
    value(z).backward()  # type: ignore[no-untyped-call]
    torch.testing.assert_close(x.grad, y.grad, rtol=1e-10, atol=1e-12)
