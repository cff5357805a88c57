"""Sparse matrices in compressed rows."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


def sparse_rows(indptr: Tensor, indices: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """A sparse CSR matrix, its parts trusted.

    torch 2.13 warns once that its CSR support is in beta; products with dense matrices, which are all that is used
    here, have been stable for years and the tests compare them with dense ones.

    Args:
        indptr: (rows + 1,).
        indices: (nnz,) columns.
        values: (nnz,).
        shape: rows and columns.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(indptr, indices, values, shape, check_invariants=False)
