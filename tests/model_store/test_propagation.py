import numpy as np
import pytest

from model_store.propagation import laplacian_values, laplacian_weight, propagate_rows
from tests.model_store import reference
from tests.model_store.worlds import dense_laplacian, random_adjacency

WEIGHT = 0.7


def test_a_weight_of_l_is_the_formula_in_double_precision_rounded_once() -> None:
    rng = np.random.default_rng(0)
    for similarity in rng.random(50, np.float32):
        a, b = (int(d) for d in rng.integers(1, 3000, 2))
        for self_loops in (False, True):
            expected = reference.laplacian(similarity, WEIGHT, a, b, self_loops)
            assert laplacian_weight(similarity, WEIGHT, a, b, int(self_loops)) == expected


def test_degrees_beyond_the_32_bit_product_do_not_overflow() -> None:
    assert laplacian_weight(np.float32(0), WEIGHT, 2**20, 2**20, 0) == np.float32(2.0**-20)


@pytest.mark.parametrize("self_loops", [False, True])
def test_propagation_is_the_product_with_the_dense_matrix(self_loops: bool) -> None:
    rng = np.random.default_rng(1)
    _, adjacency = random_adjacency(rng)
    n = adjacency.n_nodes
    vectors = rng.standard_normal((n, 5)).astype(np.float32)
    out = np.ones((n, 5), np.float32)
    nodes = np.arange(n, dtype=np.int32)
    propagate_rows(out, nodes, *adjacency[:4], WEIGHT, int(self_loops), vectors)
    expected = 1 + dense_laplacian(adjacency, WEIGHT, self_loops) @ vectors.astype(np.float64)
    np.testing.assert_allclose(out, expected, rtol=0, atol=2e-6)


def test_a_node_without_neighbors_gets_a_zero_row_and_with_self_loops_its_own() -> None:
    rng = np.random.default_rng(2)
    _, adjacency = random_adjacency(rng)
    idle = np.flatnonzero(adjacency.lengths == 0).astype(np.int32)
    assert len(idle) >= 2
    vectors = rng.standard_normal((adjacency.n_nodes, 3)).astype(np.float32)
    for self_loops in (0, 1):
        out = np.zeros((len(idle), 3), np.float32)
        propagate_rows(out, idle, *adjacency[:4], WEIGHT, self_loops, vectors)
        assert np.array_equal(out, self_loops * vectors[idle])


def test_a_node_beyond_the_vectors_counts_as_zero() -> None:
    rng = np.random.default_rng(3)
    _, adjacency = random_adjacency(rng)
    n, known = adjacency.n_nodes, adjacency.n_nodes - 6
    vectors = rng.standard_normal((n, 4)).astype(np.float32)
    vectors[known:] = 0
    nodes = np.arange(n, dtype=np.int32)
    whole, short = np.zeros((n, 4), np.float32), np.zeros((n, 4), np.float32)
    propagate_rows(whole, nodes, *adjacency[:4], WEIGHT, 1, vectors)
    propagate_rows(short, nodes, *adjacency[:4], WEIGHT, 1, vectors[:known].copy())
    assert np.array_equal(whole, short)


def test_a_row_has_the_same_bits_alone_and_among_others() -> None:
    rng = np.random.default_rng(4)
    _, adjacency = random_adjacency(rng)
    n = adjacency.n_nodes
    vectors = rng.standard_normal((n, 7)).astype(np.float32)
    together = np.zeros((n, 7), np.float32)
    propagate_rows(together, np.arange(n, dtype=np.int32), *adjacency[:4], WEIGHT, 0, vectors)
    for node in range(n):
        alone = np.zeros((1, 7), np.float32)
        propagate_rows(alone, np.array([node], np.int32), *adjacency[:4], WEIGHT, 0, vectors)
        assert np.array_equal(alone[0], together[node])


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_sum_of_a_row_is_the_documented_order_of_float32_operations(self_loops: bool) -> None:
    rng = np.random.default_rng(5)
    _, adjacency = random_adjacency(rng)
    vectors = rng.standard_normal((adjacency.n_nodes, 3)).astype(np.float32)
    for node in range(adjacency.n_nodes):
        degree = int(adjacency.lengths[node])
        expected = np.zeros(3, np.float32)
        if self_loops:
            expected += np.float32(1 / (degree + 1)) * vectors[node]
        for entry in range(adjacency.starts[node], adjacency.starts[node] + degree):
            other = adjacency.neighbors[entry]
            weight = reference.laplacian(
                adjacency.similarity[entry], WEIGHT, degree, int(adjacency.lengths[other]), self_loops
            )
            expected += weight * vectors[other]
        out = np.zeros((1, 3), np.float32)
        propagate_rows(out, np.array([node], np.int32), *adjacency[:4], WEIGHT, int(self_loops), vectors)
        assert np.array_equal(out[0], expected)


@pytest.mark.parametrize("self_loops", [False, True])
def test_the_values_of_l_are_the_dense_matrix_s_entries(self_loops: bool) -> None:
    _, adjacency = random_adjacency(np.random.default_rng(6))
    values = laplacian_values(*adjacency[:4], WEIGHT, int(self_loops))
    dense = dense_laplacian(adjacency, WEIGHT, self_loops)
    heads = np.repeat(np.arange(adjacency.n_nodes), adjacency.lengths)
    np.testing.assert_allclose(values, dense[heads, adjacency.neighbors], rtol=1e-7)
