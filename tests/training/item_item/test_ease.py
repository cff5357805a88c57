from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

from tests.training.item_item.histories import gram_by_hand, history, kept_by_hand
from tests.training.worlds import interactions
from training.errors import ConfigurationError
from training.evaluation import interaction_matrix
from training.item_item import ease_weights, tables
from training.item_item.content import unit_rows
from training.item_item.ease import ease_table, gram_inverse, weighted_gram


def closed_form(gram: NDArray[np.float64], l2: float, exponent: float = 1.0) -> NDArray[np.float64]:
    p = np.linalg.inv(gram + l2 * np.eye(len(gram)))
    weights = np.zeros_like(p)
    for i in range(len(p)):
        for j in range(len(p)):
            if i != j:
                weights[i, j] = -p[i, j] / p[j, j] * (l2 * p[j, j]) ** (1 - exponent)
    return weights


@pytest.mark.parametrize("l2", [0.5, 5.0, 200.0])
def test_ease_is_the_closed_form_in_double_precision(l2: float) -> None:
    y, matrix = history()
    found = ease_weights(matrix, l2)
    np.testing.assert_allclose(found, closed_form(y.T @ y, l2), atol=1e-5)
    assert not np.diag(found).any()


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_users_weigh_by_a_power_of_their_degree_and_interactions_1_on_average(exponent: float) -> None:
    y, matrix = history(7)
    found = weighted_gram(matrix, exponent).toarray()
    np.testing.assert_allclose(found, gram_by_hand(y, exponent), rtol=1e-5)
    assert np.trace(found) == pytest.approx(y.sum(), rel=1e-5)


@pytest.mark.parametrize("user_exponent", [0.0, 0.5])
@pytest.mark.parametrize("target_exponent", [0.0, 0.5, 1.0])
def test_the_table_is_the_positive_closed_form_over_a_power_of_what_is_known_of_the_target(
    user_exponent: float, target_exponent: float
) -> None:
    y, matrix = history(8)
    found = ease_table(gram_inverse(matrix, 3.0, user_exponent), 3.0, target_exponent, 4).toarray()
    expected = kept_by_hand(closed_form(gram_by_hand(y, user_exponent), 3.0, target_exponent), 4)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("chunk", [2, 100])
@pytest.mark.parametrize("is_sparse", [False, True])
def test_content_in_the_regression_is_one_more_row_of_interactions_for_each_of_its_columns(
    chunk: int, is_sparse: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "CHUNK", chunk)
    y, matrix = history(8)
    units = unit_rows(np.random.default_rng(3).standard_normal((y.shape[1], 4)).astype(np.float32))
    units[2] = 0  # nothing is known of it
    vectors = sparse.csr_array(units) if is_sparse else units
    found = ease_table(gram_inverse(matrix, 3.0, 0.0, vectors, 2.5), 3.0, 1.0, 9).toarray()
    # CEASE: EASE on the interactions with the rows √α Vᵀ below them.
    stacked = np.vstack([y, np.sqrt(2.5) * units.T.astype(np.float64)])
    np.testing.assert_allclose(found, kept_by_hand(closed_form(stacked.T @ stacked, 3.0), 9), atol=1e-5)
    without = gram_inverse(matrix, 3.0)
    np.testing.assert_array_equal(gram_inverse(matrix, 3.0, 0.0, vectors, 0.0), without)
    assert (np.abs(found - ease_table(without, 3.0, 1.0, 9).toarray()) > 1e-3).any()


def test_a_target_exponent_of_0_gives_a_symmetric_table_and_1_favours_the_popular() -> None:
    # Everyone took item 0 beside one of the other four, which two users have in common.
    pairs = [(user, 0) for user in range(8)] + [(user, 1 + user // 2) for user in range(8)]
    inverse = gram_inverse(interaction_matrix(interactions(pairs), 8, 5), 3.0)
    symmetric, ease = (ease_table(inverse, 3.0, p, 5).toarray() for p in (0.0, 1.0))
    np.testing.assert_allclose(symmetric, symmetric.T, atol=1e-6)
    assert ease[1, 0] > ease[0, 1] > 0


def test_a_lambda_that_single_precision_can_not_bear_is_refused_with_the_next_step() -> None:
    # 1000 users of the same two items: YᵀY is singular, and 1e-6 is lost beside 1000.
    same = interaction_matrix(interactions([(user, item) for user in range(1000) for item in (0, 1)]), 1000, 2)
    with pytest.raises(ConfigurationError, match=r"raise item_item\.l2 \(λ = 1e-06\)"):
        ease_weights(same, 1e-6)


@pytest.mark.parametrize("chunk", [1, 2, 4, 100])
def test_nothing_depends_on_the_size_of_the_blocks(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    _, matrix = history(1)
    whole = ease_weights(matrix, 2.0)
    monkeypatch.setattr(tables, "CHUNK", chunk)
    np.testing.assert_array_equal(ease_weights(matrix, 2.0), whole)
