import numpy as np

from tests.training.worlds import interactions
from training.evaluation import interaction_matrix
from training.models.ease import ease


def test_scores_are_the_user_s_row_times_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    y = (rng.random((9, 6)) < 0.5).astype(np.float64)
    score = ease(interaction_matrix(interactions([(int(u), int(v)) for u, v in np.argwhere(y)]), 9, 6), 3.0)
    p = np.linalg.inv(y.T @ y + 3.0 * np.eye(6))
    weights = -p / np.diag(p)[None, :]
    np.fill_diagonal(weights, 0)
    np.testing.assert_allclose(score(np.array([4, 1])), (y @ weights)[[4, 1]], atol=1e-5)
