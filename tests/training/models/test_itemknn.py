from __future__ import annotations

import numpy as np
import pytest

from tests.training.worlds import interactions
from training.evaluation import interaction_matrix
from training.models.itemknn import itemknn


@pytest.mark.parametrize(("n_neighbors", "shrink"), [(2, 0.0), (2, 1.5), (100, 0.0), (1, 10.0)])
def test_scores_are_sums_of_cosines_to_the_nearest_neighbors(n_neighbors: int, shrink: float) -> None:
    rng = np.random.default_rng(1)
    y = rng.random((10, 7)) < 0.4
    y[:, 6] = False  # an item that nobody had
    who = [set(np.flatnonzero(y[:, item]).tolist()) for item in range(7)]
    cosine = np.zeros((7, 7))
    for i in range(7):
        for v in range(7):
            if i != v and who[i] and who[v]:
                cosine[i, v] = len(who[i] & who[v]) / (np.sqrt(len(who[i]) * len(who[v])) + shrink)
    for i in range(7):
        for v in sorted(range(7), key=lambda item: (-np.float32(cosine[i, item]), item))[n_neighbors:]:
            cosine[i, v] = 0
    history = interaction_matrix(interactions([(int(u), int(v)) for u, v in np.argwhere(y)]), 10, 7)
    found = itemknn(history, n_neighbors, shrink)(np.arange(10))
    np.testing.assert_allclose(found, y @ cosine, atol=1e-5)
