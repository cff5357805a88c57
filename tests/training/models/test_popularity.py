import numpy as np

from tests.training.worlds import interactions
from training.evaluation import interaction_matrix
from training.models.popularity import popularity


def test_an_item_s_score_is_its_number_of_users_for_everyone() -> None:
    pairs = [(0, 1), (1, 1), (2, 1), (0, 3), (2, 3), (1, 0)]
    score = popularity(interaction_matrix(interactions(pairs), 3, 4))
    expected = [sum(item == v for _, item in pairs) for v in range(4)]
    np.testing.assert_array_equal(score(np.array([2, 0])), [expected, expected])


def test_every_call_gives_an_array_of_its_own() -> None:
    score = popularity(interaction_matrix(interactions([(0, 1)]), 1, 2))
    score(np.array([0]))[0, 1] = -np.inf
    assert score(np.array([0]))[0, 1] == 1
