"""L̄ as torch has it against D^-½ (A + ξS) D^-½ in dense double precision."""

from __future__ import annotations

import numpy as np
import pytest

from model_store.walks import WalkSettings
from tests.training.worlds import CPU, ids, interactions
from training.data.dataset import DataSet
from training.models.graph import Laplacian, attention_state

N_USERS, N_ITEMS = 4, 5
# User 3 and item 4 have no interaction.
PAIRS = [(0, 0), (0, 1), (0, 2), (1, 1), (2, 0), (2, 3), (1, 3)]
WALKS = WalkSettings(3, 6, 0.15, 2)


def dataset() -> DataSet:
    return DataSet("tiny", ids("u", N_USERS), ids("i", N_ITEMS), interactions(PAIRS))


@pytest.mark.parametrize("similarity_weight", [0.0, 0.7])
@pytest.mark.parametrize("self_loops", [False, True])
def test_the_matrix_is_a_plus_xi_s_normalised_by_the_degrees(similarity_weight: float, self_loops: bool) -> None:
    data = dataset()
    state = attention_state(data, data.train, WALKS, 1)
    n = N_USERS + N_ITEMS
    links, similarity = np.zeros((n, n)), np.zeros((n, n))
    visited = state.to_arrays()
    sets = [
        set(visited["visited.indices"][visited["visited.indptr"][node] : visited["visited.indptr"][node + 1]].tolist())
        for node in range(n)
    ]
    for user, item in PAIRS:
        a, b = user, N_USERS + item
        links[a, b] = links[b, a] = 1
        similarity[a, b] = similarity[b, a] = len(sets[a] & sets[b]) / len(sets[a] | sets[b])
    assert similarity.max() > 0
    if self_loops:
        links += np.eye(n)
    degrees = links.sum(1)
    scale = np.diag([1 / np.sqrt(degree) if degree else 0.0 for degree in degrees])
    expected = scale @ (links + similarity_weight * similarity) @ scale

    laplacian = Laplacian.of(state, similarity_weight, self_loops, CPU)
    found = laplacian.matrix.to_dense().numpy().astype(np.float64)
    if self_loops:
        assert laplacian.self_weight is not None
        found += np.diag(laplacian.self_weight[:, 0].numpy())
    else:
        assert laplacian.self_weight is None
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8)
    if not self_loops:
        assert not found[3].any()
        assert not found[N_USERS + 4].any()


def test_the_state_knows_every_user_and_item_and_only_the_given_interactions() -> None:
    data = dataset()
    state = attention_state(data, interactions(PAIRS[:2]), WALKS, 1)
    assert state.n_nodes == N_USERS + N_ITEMS
    assert state.degrees.tolist() == [2, 0, 0, 0, 1, 1, 0, 0, 0]
