from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, sparse

from tests.training.item_item.histories import N_ITEMS, history
from training.item_item.local import local_table


@pytest.mark.parametrize("l2", [1.0, 10.0])
def test_each_column_is_the_non_negative_ridge_regression_on_the_item_s_candidates(l2: float) -> None:
    y, matrix = history(2)
    table, rest = local_table(sparse.csr_array(matrix.T @ matrix), l2, 4)
    gram = y.T @ y
    found = table.toarray()
    for j in range(N_ITEMS):
        others = [i for i in range(N_ITEMS) if i != j and gram[i, j] > 0]
        chosen = sorted(others, key=lambda i: (-gram[i, j] / np.sqrt(gram[i, i] + l2), i))[:4]
        expected = np.zeros(N_ITEMS)
        if chosen:
            # ‖y_j - Y b‖² + λ‖b‖² is ‖[y_j; 0] - [Y; √λ I] b‖²: Lawson and Hanson's active sets solve it.
            design = np.concatenate([y[:, chosen], np.sqrt(l2) * np.eye(len(chosen))])
            expected[chosen] = optimize.nnls(design, np.concatenate([y[:, j], np.zeros(len(chosen))]))[0]
        np.testing.assert_allclose(found[:, j], expected, atol=1e-3)
        assert rest[j] == pytest.approx(gram[j, j] + l2 - gram[:, j] @ expected, abs=1e-2)


def test_where_no_entry_would_be_negative_it_is_ease_s_table() -> None:
    # Two pairs of items that are always taken together: nothing speaks against anything.
    y = np.zeros((10, 4))
    y[:5, :2] = y[5:, 2:] = 1
    p = np.linalg.inv(y.T @ y + 2 * np.eye(4))
    expected = -p / np.diag(p)
    np.fill_diagonal(expected, 0)
    table, rest = local_table(sparse.csr_array(y.T @ y), 2.0, 3)
    np.testing.assert_allclose(table.toarray(), np.maximum(expected, 0), atol=1e-5)
    np.testing.assert_allclose(rest, 1 / np.diag(p), rtol=1e-5)


def test_an_item_that_nobody_took_has_neither_row_nor_column() -> None:
    _, matrix = history(2)
    table, rest = local_table(sparse.csr_array(matrix.T @ matrix), 5.0, 100)
    dense = table.toarray()
    assert not dense[-1].any()
    assert not dense[:, -1].any()
    assert rest[-1] == 5.0
    assert not np.diag(dense).any()
    assert table.data.min() > 0


def test_what_is_left_of_a_target_is_at_least_lambda_whatever_the_gram_matrix() -> None:
    # The first item is like both others, which are not like each other: not positive semidefinite. Without the bound
    # 12.5 - 2 · 10 · 10 / 12.5 = -3.5 would be left of it.
    gram = sparse.csr_array(np.array([[10, 10, 10], [10, 10, 0], [10, 0, 10]], np.float32))
    assert np.linalg.eigvalsh(gram.toarray()).min() < 0
    _, rest = local_table(gram, 2.5, 3)
    np.testing.assert_allclose(rest, [2.5, 12.5 - 10 * 10 / 12.5, 12.5 - 10 * 10 / 12.5], rtol=1e-6)
