from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from tests.training.worlds import interactions, small
from training import item_item
from training.errors import ConfigurationError
from training.evaluation import interaction_matrix
from training.item_item import (
    EASE_L2,
    climb,
    ease_weights,
    item_item_table,
    item_item_weights,
    largest_entries,
    largest_of_dense,
    rp3beta_weights,
    select_weights,
    table_scores,
)

N_USERS, N_ITEMS = 14, 9


def history(seed: int = 0) -> tuple[NDArray[np.float64], sparse.csr_array]:
    """Y dense and sparse; the last item has no user, the last user no item."""
    y = (np.random.default_rng(seed).random((N_USERS, N_ITEMS)) < 0.4).astype(np.float64)
    y[:, -1] = y[-1] = 0
    return y, interaction_matrix(interactions([(int(u), int(v)) for u, v in np.argwhere(y)]), N_USERS, N_ITEMS)


def closed_form(y: NDArray[np.float64], l2: float) -> NDArray[np.float64]:
    p = np.linalg.inv(y.T @ y + l2 * np.eye(y.shape[1]))
    weights = np.zeros_like(p)
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                weights[i, j] = -p[i, j] / p[j, j]
    return weights


@pytest.mark.parametrize("l2", [0.5, 5.0, 200.0])
def test_ease_is_the_closed_form_in_double_precision(l2: float) -> None:
    y, matrix = history()
    found = ease_weights(matrix, l2)
    np.testing.assert_allclose(found, closed_form(y, l2), atol=1e-5)
    assert not np.diag(found).any()


def test_a_lambda_that_single_precision_can_not_bear_is_refused_with_the_next_step() -> None:
    # 1000 users of the same two items: YᵀY is singular, and 1e-6 is lost beside 1000.
    same = interaction_matrix(interactions([(user, item) for user in range(1000) for item in (0, 1)]), 1000, 2)
    with pytest.raises(ConfigurationError, match=r"raise item_item\.l2 \(λ = 1e-06\)"):
        ease_weights(same, 1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_neither_ease_nor_rp3beta_depends_on_the_size_of_its_blocks(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, matrix = history(1)
    whole = (ease_weights(matrix, 2.0), rp3beta_weights(matrix, 0.4, 3).toarray())
    truncated = largest_of_dense(whole[0], 3).toarray()
    monkeypatch.setattr(item_item, "_CHUNK", chunk)
    np.testing.assert_array_equal(ease_weights(matrix, 2.0), whole[0])
    np.testing.assert_array_equal(rp3beta_weights(matrix, 0.4, 3).toarray(), whole[1])
    np.testing.assert_array_equal(largest_of_dense(whole[0], 3).toarray(), truncated)


@pytest.mark.parametrize("beta", [0.0, 0.4, 1.0])
def test_rp3beta_is_the_walk_of_three_steps_over_the_popularity(beta: float) -> None:
    y, matrix = history(2)
    item_degrees, user_degrees = y.sum(0), y.sum(1)
    expected = np.zeros((N_ITEMS, N_ITEMS))
    for i in range(N_ITEMS):
        for j in range(N_ITEMS):
            for u in range(N_USERS):
                if i != j and y[u, i] and y[u, j]:
                    expected[i, j] += 1 / item_degrees[i] / user_degrees[u] / item_degrees[j] ** beta
    np.testing.assert_allclose(rp3beta_weights(matrix, beta, N_ITEMS).toarray(), expected, rtol=1e-5)


def kept_by_hand(dense: NDArray[np.floating], per_row: int) -> NDArray[np.float64]:
    kept = np.zeros(dense.shape)
    for row in range(len(dense)):
        for column in sorted(range(dense.shape[1]), key=lambda c: (-dense[row, c], c))[:per_row]:
            kept[row, column] = max(dense[row, column], 0)
    return kept


@pytest.mark.parametrize("per_row", [1, 3, 50])
def test_the_largest_positive_entries_of_a_row_are_kept(per_row: int) -> None:
    dense = np.random.default_rng(3).standard_normal((6, 8)).astype(np.float32)
    expected = kept_by_hand(dense, per_row)
    np.testing.assert_array_equal(largest_of_dense(dense, per_row).toarray(), expected)
    np.testing.assert_array_equal(largest_entries(sparse.csr_array(dense), per_row).toarray(), expected)


def test_of_equal_sparse_entries_the_earlier_columns_are_kept() -> None:
    dense = np.array([[1.0, 2.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    assert largest_entries(sparse.csr_array(dense), 2).toarray().tolist() == [[1, 2, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("method", ["ease", "rp3beta", "auto"])
def test_b_has_no_negative_entry_no_diagonal_and_at_most_so_many_a_row(method: str) -> None:
    _, matrix = history(4)
    weights = item_item_weights(matrix, small(item_item={"method": method, "per_row": 3}).item_item)
    assert weights is not None
    assert weights.shape == (N_ITEMS, N_ITEMS)
    assert weights.data.min() > 0
    assert np.diff(weights.indptr).max() == 3
    assert not weights.diagonal().any()


def test_auto_is_ease_up_to_the_limit_and_rp3beta_beyond() -> None:
    _, matrix = history()
    for limit, method in ((N_ITEMS, "ease"), (N_ITEMS - 1, "rp3beta")):
        chosen, named = (
            item_item_weights(matrix, small(item_item={"method": name, "ease_limit": limit}).item_item)
            for name in ("auto", method)
        )
        assert chosen is not None
        assert named is not None
        np.testing.assert_array_equal(chosen.toarray(), named.toarray())


def test_there_is_nothing_for_none_and_nothing_without_interactions() -> None:
    _, matrix = history()
    assert item_item_weights(matrix, small(item_item={"method": "none"}).item_item) is None
    assert item_item_weights(sparse.csr_array((3, 4), dtype=np.float32), small().item_item) is None


def test_the_kernel_s_table_is_the_weight_times_the_entries() -> None:
    _, matrix = history()
    weights = item_item_weights(matrix, small().item_item)
    assert weights is not None
    table = item_item_table(weights, 2.5)
    dense = sparse.csr_array((table.data, table.indices, table.indptr), shape=weights.shape).toarray()
    np.testing.assert_allclose(dense, 2.5 * weights.toarray(), rtol=1e-6)
    assert (table.indptr.dtype, table.indices.dtype, table.data.dtype) == (np.int64, np.int32, np.float32)


@pytest.mark.parametrize("weight", [0.0, -1.0])
def test_without_a_weight_the_table_is_empty(weight: float) -> None:
    _, matrix = history()
    assert item_item_table(item_item_weights(matrix, small().item_item), weight).n_rows == 0
    assert item_item_table(None, 1.0).n_rows == 0


# ---- λ ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", range(len(EASE_L2)))
def test_the_climb_ends_on_the_one_peak_wherever_it_is_and_makes_no_table_twice(peak: int) -> None:
    made: list[float] = []

    def make(l2: float) -> sparse.csr_array:
        made.append(l2)
        return sparse.csr_array([[l2]])

    table, l2 = climb(make, lambda found: -abs(EASE_L2.index(float(found.toarray()[0, 0])) - peak))
    assert l2 == EASE_L2[peak] == table.toarray()[0, 0]
    assert len(made) == len(set(made)) <= 4


def test_of_equal_qualities_the_middle_of_the_grid_is_kept() -> None:
    assert climb(lambda l2: sparse.csr_array([[l2]]), lambda _: 0.5)[1] == EASE_L2[len(EASE_L2) // 2]


def test_the_selected_table_is_ease_s_with_the_best_lambda() -> None:
    _, matrix = history(5)
    settings = small(item_item={"l2": -1.0, "per_row": 4}).item_item
    qualities = {l2: -abs(l2 - 60.0) for l2 in EASE_L2}  # 50 is the nearest
    tables = {l2: largest_of_dense(ease_weights(matrix, l2), 4).toarray() for l2 in EASE_L2}

    def quality(table: sparse.csr_array) -> float:
        return next(qualities[l2] for l2 in EASE_L2 if np.array_equal(tables[l2], table.toarray()))

    table, l2 = select_weights(matrix, settings, quality)
    assert l2 == 50.0
    assert table is not None
    np.testing.assert_array_equal(table.toarray(), tables[50.0])


def test_a_given_lambda_and_another_method_are_taken_without_looking_at_the_quality() -> None:
    _, matrix = history(5)

    def never(_: sparse.csr_array) -> float:
        raise AssertionError

    for values in ({"l2": 7.0}, {"l2": -1.0, "method": "rp3beta"}, {"l2": -1.0, "method": "none"}):
        settings = small(item_item=values).item_item
        table, l2 = select_weights(matrix, settings, never)
        assert l2 == settings.l2
        assert (table is None) == (settings.method == "none")


def test_a_lambda_that_only_validation_can_choose_is_refused_without_one() -> None:
    _, matrix = history()
    with pytest.raises(ConfigurationError, match=r"item_item\.l2 = -1: .*--set item_item\.l2=100"):
        item_item_weights(matrix, small(item_item={"l2": -1.0}).item_item)


def test_the_table_s_scores_are_the_sums_of_the_user_s_rows() -> None:
    y, matrix = history(6)
    weights = item_item_weights(matrix, small().item_item)
    assert weights is not None
    found = table_scores(matrix, weights)(np.array([3, 0]))
    np.testing.assert_allclose(found, (y @ weights.toarray())[[3, 0]], rtol=1e-5, atol=1e-7)
