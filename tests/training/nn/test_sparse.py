import numpy as np
import pytest
import torch
from scipy import sparse
from torch import Tensor

from training.nn.sparse import entry_dots, product, scaled_product, sparse_rows


def test_a_product_is_the_dense_one_and_repeated_columns_add_up() -> None:
    # Row 0 holds column 2 twice, row 1 is empty.
    indptr, columns = torch.tensor([0, 3, 3, 4]), torch.tensor([2, 0, 2, 1])
    matrix = sparse_rows(indptr, columns, torch.tensor([1.0, 2.0, 4.0, 8.0], dtype=torch.float64), (3, 4))
    dense = torch.tensor([[2.0, 0, 5, 0], [0, 0, 0, 0], [0, 8, 0, 0]], dtype=torch.float64)
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((4, 3)))
    assert torch.equal(matrix @ x, dense @ x)


def random_matrix(n: int, m: int, dtype: torch.dtype) -> tuple[Tensor, sparse.csr_array]:
    """Some empty rows, and one that holds most of the entries."""
    rng = np.random.default_rng(1)
    dense = rng.standard_normal((n, m)) * (rng.random((n, m)) < 0.1)
    dense[::5] = 0
    dense[3] = rng.standard_normal(m)
    matrix = sparse.csr_array(dense)
    parts = (torch.from_numpy(part.astype(np.int64)) for part in (matrix.indptr, matrix.indices))
    return sparse_rows(*parts, torch.from_numpy(matrix.data).to(dtype), (n, m)), matrix


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_and_dots_are_those_of_dense_rows(dtype: torch.dtype) -> None:
    ours, theirs = random_matrix(23, 17, dtype)
    rng = np.random.default_rng(2)
    a, x = rng.standard_normal((23, 6)), rng.standard_normal((17, 6))
    tolerance = 1e-5 if dtype == torch.float32 else 1e-12
    found = product(ours, torch.from_numpy(x).to(dtype))
    np.testing.assert_allclose(found.numpy(), theirs.toarray() @ x, rtol=tolerance, atol=tolerance)
    rows = torch.from_numpy(np.repeat(np.arange(23), np.diff(theirs.indptr)))
    both = (torch.from_numpy(array).to(dtype) for array in (a, x))
    dots = entry_dots(ours.crow_indices(), rows, ours.col_indices(), *both)
    np.testing.assert_allclose(dots.numpy(), (a @ x.T)[theirs.toarray() != 0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("width", [1, 6, 33])
@pytest.mark.parametrize("indices", [torch.int32, torch.int64])
def test_a_scaled_product_adds_what_is_given(width: int, indices: torch.dtype) -> None:
    ours, theirs = random_matrix(23, 17, torch.float64)
    ours = sparse_rows(ours.crow_indices().to(indices), ours.col_indices().to(indices), ours.values(), (23, 17))
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((17, width)), rng.standard_normal((23, width))
    found = scaled_product(ours, torch.from_numpy(x), 0.5, -2.0, torch.from_numpy(y))
    np.testing.assert_allclose(found.numpy(), 0.5 * (theirs.toarray() @ x) - 2 * y, rtol=1e-12, atol=1e-12)


def test_the_bits_do_not_depend_on_the_number_of_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, _ = random_matrix(401, 90, torch.float32)
    x = torch.randn(90, 33, generator=torch.Generator().manual_seed(0))
    rows = torch.repeat_interleave(torch.arange(401), torch.diff(ours.crow_indices()))
    a = torch.randn(401, 33, generator=torch.Generator().manual_seed(1))
    monkeypatch.setattr("training.nn.sparse._PER_THREAD", 64)
    found = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        dots = entry_dots(ours.crow_indices(), rows, ours.col_indices(), a, x)
        found.append((product(ours, x), dots))
    assert all(torch.equal(one, three) for one, three in zip(*found, strict=True))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_products() -> None:
    ours, theirs = random_matrix(23, 17, torch.float32)
    x = torch.randn(17, 6, generator=torch.Generator().manual_seed(0))
    found = product(ours.to("cuda"), x.to("cuda")).cpu()
    np.testing.assert_allclose(found.numpy(), theirs.toarray() @ x.numpy(), rtol=1e-4, atol=1e-5)
