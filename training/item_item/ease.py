"""EASE's table, exactly: one inverse of a dense J×J matrix, in place."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from training.errors import ConfigurationError
from training.item_item import tables
from training.item_item.content import Vectors, likeness
from training.item_item.tables import largest_of_dense


def weighted_gram(interactions: sparse.csr_array, user_exponent: float) -> sparse.csr_array:
    """Σ_u w_u Y_uᵀ Y_u with w_u ∝ d_u^-a, scaled so that an interaction weighs 1 on average: λ keeps its meaning.

    Args:
        interactions: (I, J) Y.
        user_exponent: a; 0 is YᵀY.
    """
    degrees = np.diff(interactions.indptr).astype(np.float64)
    weights = np.maximum(degrees, 1.0) ** -user_exponent
    weights *= interactions.nnz / max(float(weights @ degrees), 1e-12)
    weighted = sparse.csr_array(sparse.diags_array(weights.astype(np.float32)) @ interactions)
    return sparse.csr_array(interactions.T @ weighted).astype(np.float32)


def gram_inverse(
    interactions: sparse.csr_array,
    l2: float,
    user_exponent: float = 0.0,
    vectors: Vectors | None = None,
    content_gram: float = 0.0,
) -> NDArray[np.float32]:
    """P = (G + αVVᵀ + λI)⁻¹ with G the weighted Gram matrix, by Cholesky in single precision, in one J×J array.

    The content's part is CEASE's (Jeunen, Van Balen and Goethals, RecSys 2020): the regression also predicts the items'
    content, α times as important as an interaction.

    Args:
        interactions: (I, J) Y.
        l2: λ.
        user_exponent: of the Gram matrix.
        vectors: (J, width) V, the items' content, rows of length 1 or 0; None for none.
        content_gram: α.

    Raises:
        ConfigurationError: λ is too small for single precision.
    """
    gram = weighted_gram(interactions, user_exponent).toarray(order="F")
    if vectors is not None and content_gram > 0:
        for begin in range(0, len(gram), tables.CHUNK):  # symmetric: columns, which lie together, for rows
            block = likeness(vectors, begin, begin + tables.CHUNK)
            gram[:, begin : begin + tables.CHUNK] += (np.float32(content_gram) * block).T
    gram[np.diag_indices_from(gram)] += np.float32(l2)
    factor, failed = linalg.lapack.spotrf(gram, lower=False, overwrite_a=True)
    if failed:
        raise ConfigurationError(
            f"EASE: YᵀY + λI is not positive definite in single precision: raise item_item.l2 (λ = {l2})."
        )
    inverse, failed = linalg.lapack.spotri(factor, lower=False, overwrite_c=True)
    if failed:
        raise ConfigurationError(f"EASE: YᵀY + λI can't be inverted: raise item_item.l2 (λ = {l2}).")
    _mirror_upper(inverse)
    return np.asarray(inverse)


def ease_weights(interactions: sparse.csr_array, l2: float) -> NDArray[np.float32]:
    """EASE (Steck, WWW 2019): W_ij = -P_ij / P_jj, W_jj = 0, P = (YᵀY + λI)⁻¹.

    Dense, J×J: for small catalogues.

    Args:
        interactions: (I, J) Y.
        l2: λ.

    Returns:
        (J, J) W; a user's scores are Y_u W.

    Raises:
        ConfigurationError: λ is too small for single precision.
    """
    inverse = gram_inverse(interactions, l2)
    inverse /= -inverse.diagonal().copy()
    np.fill_diagonal(inverse, 0.0)
    return inverse


def ease_table(inverse: NDArray[np.float32], l2: float, target_exponent: float, per_row: int) -> sparse.csr_array:
    """The largest positive entries of -P_ij / P_jj · (λ P_jj)^(1-p) in each row.

    λ P_jj lies between 0 and 1: the more is known about an item, the less. p = 1 is EASE's W. EASE's division by P_jj
    favours popular items; beside a graph part that knows popularity already, p = 0, a symmetric table, can be better.

    Args:
        inverse: (J, J) P.
        l2: λ.
        target_exponent: p.
        per_row: entries that are kept in each row.
    """
    known = l2 * inverse.diagonal().astype(np.float64)
    scale = -l2 * known**-target_exponent
    return largest_of_dense(inverse, per_row, scale.astype(np.float32))


def _mirror_upper(matrix: NDArray[np.float32]) -> None:
    """Copy the upper triangle onto the lower one, block by block."""
    n = len(matrix)
    for begin in range(0, n, tables.CHUNK):
        end = min(begin + tables.CHUNK, n)
        block = matrix[begin:end, begin:end]
        block[:] = np.triu(block) + np.triu(block, 1).T
        matrix[end:, begin:end] = matrix[begin:end, end:].T
