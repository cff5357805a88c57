"""Making B, the item-item table (D10): EASE's entries, or RP3β's where EASE's J³ is too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg, sparse

from model_store.item_item import ItemItemTable
from training.errors import ConfigurationError
from training.evaluation import ScoreUsers
from training.settings import ItemItemSettings

# λ from which EASE's is selected on validation; published figures lie between 20 and 1000 (Steck, WWW 2019).
EASE_L2 = (20.0, 50.0, 100.0, 200.0, 500.0)
_CHUNK = 1024


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
    gram = (interactions.T @ interactions).toarray().astype(np.float32, copy=False)
    gram = np.asfortranarray(gram)
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
    diagonal = inverse.diagonal().copy()
    inverse /= -diagonal
    np.fill_diagonal(inverse, 0.0)
    return np.asarray(inverse)


def _mirror_upper(matrix: NDArray[np.float32]) -> None:
    """Copy the upper triangle onto the lower one, block by block."""
    n = len(matrix)
    for begin in range(0, n, _CHUNK):
        end = min(begin + _CHUNK, n)
        block = matrix[begin:end, begin:end]
        block[:] = np.triu(block) + np.triu(block, 1).T
        matrix[end:, begin:end] = matrix[begin:end, end:].T


def rp3beta_weights(interactions: sparse.csr_array, beta: float, per_row: int) -> sparse.csr_array:
    """RP3β (Paudel et al., TiiS 2017): W_ij = Σ_u P(u|i) P(j|u) / degree_j^β, chunk by chunk, the largest of each row.

    Args:
        interactions: (I, J) Y.
        beta: β.
        per_row: entries that are kept in each row.

    Returns:
        (J, J) sparse W, zero diagonal.
    """
    item_degrees = np.maximum(np.asarray(interactions.sum(0)).ravel(), 1.0)
    user_degrees = np.maximum(np.asarray(interactions.sum(1)).ravel(), 1.0)
    to_items = sparse.csr_array(
        sparse.diags_array(1 / user_degrees) @ interactions @ sparse.diags_array(item_degrees**-beta)
    )
    to_users = sparse.csr_array(sparse.diags_array(1 / item_degrees) @ interactions.T)
    parts = []
    for begin in range(0, interactions.shape[1], _CHUNK):
        block = sparse.csr_array(to_users[begin : begin + _CHUNK] @ to_items)
        rows = np.repeat(np.arange(block.shape[0]), np.diff(block.indptr))
        block.data[block.indices == rows + begin] = 0.0
        parts.append(largest_entries(block, per_row))
    return sparse.csr_array(sparse.vstack(parts, format="csr"))


def largest_entries(matrix: sparse.csr_array, per_row: int) -> sparse.csr_array:
    """The largest positive entries of each row, equal ones by column; columns ascending."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    order = np.lexsort((matrix.indices, -matrix.data, rows))
    place = np.arange(len(order)) - np.repeat(matrix.indptr[:-1], np.diff(matrix.indptr))
    kept = order[(place < per_row) & (matrix.data[order] > 0)]
    result = sparse.csr_array((matrix.data[kept], (rows[kept], matrix.indices[kept])), shape=matrix.shape)
    result.sort_indices()
    return result


def largest_of_dense(weights: NDArray[np.float32], per_row: int) -> sparse.csr_array:
    """The largest positive entries of each row of a dense table, chunk by chunk."""
    per_row = min(per_row, weights.shape[1])
    parts = []
    for begin in range(0, len(weights), _CHUNK):
        block = weights[begin : begin + _CHUNK]
        columns = np.argpartition(-block, per_row - 1, axis=1)[:, :per_row]
        values = np.take_along_axis(block, columns, 1)
        rows = np.repeat(np.arange(len(block)), per_row)
        positive = values.ravel() > 0
        parts.append(
            sparse.csr_array(
                (values.ravel()[positive], (rows[positive], columns.ravel()[positive])),
                shape=block.shape,
            )
        )
    result = sparse.csr_array(sparse.vstack(parts, format="csr"))
    result.sort_indices()
    return result


def resolved_method(settings: ItemItemSettings, n_items: int) -> Literal["ease", "rp3beta", "none"]:
    """How B is made for a catalogue of this size: ease, rp3beta or none."""
    if settings.method == "auto":
        return "ease" if n_items <= settings.ease_limit else "rp3beta"
    return settings.method


def item_item_weights(interactions: sparse.csr_array, settings: ItemItemSettings) -> sparse.csr_array | None:
    """B before its weight, as the settings ask for it; None where B = 0.

    Args:
        interactions: (I, J) Y of the training interactions.
        settings: how B is made, λ included.

    Returns:
        (J, J) sparse, entries ≥ 0, at most `per_row` in a row.

    Raises:
        ConfigurationError: λ is not given: `select_weights` selects it.
    """
    method = resolved_method(settings, interactions.shape[1])
    if method == "none" or interactions.nnz == 0:
        return None
    if method == "rp3beta":
        return rp3beta_weights(interactions, settings.beta, settings.per_row)
    if settings.l2 <= 0:
        raise ConfigurationError(
            f"item_item.l2 = {settings.l2:g}: it can only be selected on a validation split, and there is none here. "
            "Set it (--set item_item.l2=100) or bring a validation split."
        )
    return largest_of_dense(ease_weights(interactions, settings.l2), settings.per_row)


def select_weights(
    interactions: sparse.csr_array, settings: ItemItemSettings, quality: Callable[[sparse.csr_array], float]
) -> tuple[sparse.csr_array | None, float]:
    """B before its weight, with λ selected where the settings leave it open, and that λ.

    Args:
        interactions: (I, J) Y of the training interactions.
        settings: how B is made.
        quality: how good a table is alone, on validation; higher is better.
    """
    method = resolved_method(settings, interactions.shape[1])
    if method != "ease" or settings.l2 > 0 or interactions.nnz == 0:
        return item_item_weights(interactions, settings), settings.l2

    def make(l2: float) -> sparse.csr_array:
        return largest_of_dense(ease_weights(interactions, l2), settings.per_row)

    return climb(make, quality)


def climb(
    make: Callable[[float], sparse.csr_array], quality: Callable[[sparse.csr_array], float]
) -> tuple[sparse.csr_array, float]:
    """The best of `EASE_L2` by a climb from its middle: three or four tables are made instead of all.

    Quality has one peak over λ on every set that was looked at. Equal qualities keep the place nearer to the middle.
    """
    place = len(EASE_L2) // 2
    best = make(EASE_L2[place])
    best_quality = quality(best)
    for step in (-1, 1):
        moved = False
        while 0 <= place + step < len(EASE_L2):
            candidate = make(EASE_L2[place + step])
            found = quality(candidate)
            if found <= best_quality:
                break
            place, best, best_quality, moved = place + step, candidate, found, True
        if moved:
            break
    return best, EASE_L2[place]


def table_scores(history: sparse.csr_array, table: sparse.csr_array) -> ScoreUsers:
    """score(u, ·) = Σ_{i in N(u)} B_iv alone; history is (I, J) Y."""

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        return np.ascontiguousarray((history[users] @ table).toarray(), dtype=np.float32)

    return score_users


def item_item_table(weights: sparse.csr_array | None, weight: float) -> ItemItemTable:
    """B = weight × table, in the kernel's form."""
    if weights is None or weight <= 0:
        return ItemItemTable.empty()
    data = (np.float32(weight) * weights.data).astype(np.float32)
    return ItemItemTable(weights.indptr.astype(np.int64), weights.indices.astype(np.int32), data)


def table_matrix(table: ItemItemTable, n_items: int) -> sparse.csr_array | None:
    """B in scipy's form, (J, J), its weight included; None where B = 0."""
    if table.n_rows == 0:
        return None
    return sparse.csr_array((table.data, table.indices, table.indptr), shape=(n_items, n_items))
