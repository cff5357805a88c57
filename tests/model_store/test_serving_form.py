import math

import numpy as np
import pytest
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.serving_form import LaterRows, ServingForm, dot, score_rows
from tests.model_store.worlds import dense_laplacian, random_adjacency

WEIGHT = 0.7


def random_form(
    rng: np.random.Generator, n_users: int, n_items: int, *, n_layers: int = 2, width: int = 6, self_loops: bool = False
) -> ServingForm:
    """A form whose readout weights differ from column to column, as they may from view to view."""
    return ServingForm(
        rng.standard_normal((n_users + n_items, width)).astype(np.float32),
        rng.standard_normal((n_items, width)).astype(np.float32),
        rng.random((n_layers + 1, width)).astype(np.float32),
        WEIGHT,
        self_loops,
        n_users,
    )


def dense_embeddings(form: ServingForm, adjacency: Adjacency) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Z and T by powers of the dense matrix, in double precision. A node beyond the base has X = 0 and C = 0."""
    laplacian = dense_laplacian(adjacency, form.similarity_weight, form.self_loops)
    x = np.zeros((adjacency.n_nodes, form.width))
    x[: len(form.base)] = form.base
    c = np.zeros_like(x)
    if form.constant is not None:
        c[form.n_users : len(form.base)] = form.constant
    powers = [np.linalg.matrix_power(laplacian, layer) @ x for layer in range(form.n_layers + 1)]
    z = c + sum(form.alpha[layer] * powers[layer] for layer in range(form.n_layers + 1))
    t = sum((form.alpha[layer] * powers[layer - 1] for layer in range(1, form.n_layers + 1)), np.zeros_like(x))
    return z, t


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("n_layers", [0, 1, 2, 4])
def test_z_and_t_are_the_polynomials_in_the_dense_matrix(n_layers: int, self_loops: bool) -> None:
    rng = np.random.default_rng(n_layers)
    graph, adjacency = random_adjacency(rng)
    form = random_form(rng, graph.n_users, graph.n_items, n_layers=n_layers, self_loops=self_loops)
    neighbor_embeddings = form.neighbor_embeddings(adjacency)
    nodes = np.arange(adjacency.n_nodes, dtype=np.int32)
    z, t = dense_embeddings(form, adjacency)
    np.testing.assert_allclose(neighbor_embeddings, t, rtol=0, atol=1e-5)
    np.testing.assert_allclose(form.embeddings(nodes, adjacency, neighbor_embeddings), z, rtol=0, atol=1e-5)


def test_nodes_beyond_the_base_are_embedded_by_their_neighbors_alone() -> None:
    rng = np.random.default_rng(9)
    graph, adjacency = random_adjacency(rng, idle=0)
    form = random_form(rng, graph.n_users, graph.n_items - 4, self_loops=True)
    nodes = rng.permutation(adjacency.n_nodes).astype(np.int32)
    z, _ = dense_embeddings(form, adjacency)
    found = form.embeddings(nodes, adjacency, form.neighbor_embeddings(adjacency))
    np.testing.assert_allclose(found, z[nodes], rtol=0, atol=1e-5)


def test_without_a_constant_c_is_zero() -> None:
    rng = np.random.default_rng(10)
    graph, adjacency = random_adjacency(rng)
    form = random_form(rng, graph.n_users, graph.n_items)
    plain = ServingForm(form.base, None, form.alpha, WEIGHT, False, graph.n_users)
    nodes = np.arange(adjacency.n_nodes, dtype=np.int32)
    z, _ = dense_embeddings(plain, adjacency)
    np.testing.assert_allclose(
        plain.embeddings(nodes, adjacency, plain.neighbor_embeddings(adjacency)), z, rtol=0, atol=1e-5
    )


@pytest.mark.parametrize("self_loops", [False, True])
@pytest.mark.parametrize("width", [1, 6, 33])
def test_a_user_s_row_alone_has_the_bits_of_its_row_among_all(width: int, self_loops: bool) -> None:
    rng = np.random.default_rng(width)
    graph, adjacency = random_adjacency(rng)
    form = random_form(rng, graph.n_users, graph.n_items, width=width, self_loops=self_loops)
    neighbor_embeddings = form.neighbor_embeddings(adjacency)
    nodes = np.arange(adjacency.n_nodes, dtype=np.int32)
    embeddings = form.embeddings(nodes, adjacency, neighbor_embeddings)
    for user in range(graph.n_users):
        entries = slice(int(adjacency.starts[user]), int(adjacency.starts[user] + adjacency.lengths[user]))
        row = form.user_embedding(
            user,
            adjacency.neighbors[entries].copy(),
            adjacency.similarity[entries].copy(),
            adjacency.lengths,
            neighbor_embeddings,
        )
        assert row.tobytes() == embeddings[user].tobytes()
    # All of them together, beside a later one that has no interaction.
    users = np.append(np.arange(graph.n_users), adjacency.n_nodes).astype(np.int32)
    ends = np.append(graph.indptr[: graph.n_users + 1], graph.indptr[graph.n_users])
    count = int(ends[-1])
    rows = form.user_embeddings(
        users,
        ends,
        adjacency.neighbors[:count].copy(),
        adjacency.similarity[:count].copy(),
        adjacency.lengths,
        neighbor_embeddings,
    )
    assert rows[:-1].tobytes() == embeddings[: graph.n_users].tobytes()
    assert not rows[-1].any()


def test_a_new_user_s_row_is_one_row_of_l_times_t() -> None:
    rng = np.random.default_rng(12)
    graph, adjacency = random_adjacency(rng)
    form = random_form(rng, graph.n_users, graph.n_items)
    t = form.neighbor_embeddings(adjacency)
    items = np.array([graph.n_users, graph.n_users + 2], np.int32)
    similarity = np.array([0.25, 0.5], np.float32)
    lengths = np.append(adjacency.lengths, np.int32(2))
    row = form.user_embedding(adjacency.n_nodes, items, similarity, lengths, t)
    expected = sum(
        (1 + WEIGHT * float(s)) / math.sqrt(2 * lengths[i]) * t[i].astype(np.float64)
        for i, s in zip(items, similarity, strict=True)
    )
    np.testing.assert_allclose(row, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("width", [0, 1, 3, 4, 7, 64])
def test_an_inner_product_is_the_exactly_rounded_sum_to_double_precision(width: int) -> None:
    rng = np.random.default_rng(width)
    a, b = rng.standard_normal((2, width)).astype(np.float32)
    exact = math.fsum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    assert abs(dot(a, b) - exact) <= 1e-14 * max(width, 1)


def test_scores_are_inner_products_plus_the_direct_part() -> None:
    rng = np.random.default_rng(13)
    user, items = rng.standard_normal(5).astype(np.float32), rng.standard_normal((9, 5)).astype(np.float32)
    direct = rng.random(9)
    rows = np.array([8, 0, 3], np.int32)
    expected = [math.fsum(float(x) * float(y) for x, y in zip(user, items[v], strict=True)) + direct[v] for v in rows]
    np.testing.assert_allclose(score_rows(user, items, rows, direct), expected, rtol=1e-14)


def test_shapes_that_do_not_fit_are_refused() -> None:
    base = np.zeros((5, 4), np.float32)
    alpha = np.ones((2, 4), np.float32)
    for bad in (alpha[:, :3], alpha[:0], alpha[0]):
        with pytest.raises(ValueError, match="alpha has shape"):
            ServingForm(base, None, bad, WEIGHT, False, 2)
    with pytest.raises(ValueError, match=r"expected \(3, 4\)"):
        ServingForm(base, np.zeros((2, 4), np.float32), alpha, WEIGHT, False, 2)


def test_a_later_node_counts_as_if_its_x_stood_in_the_base() -> None:
    rng = np.random.default_rng(8)
    _, adjacency = random_adjacency(rng, 12, 14, 60)
    n_nodes, width = adjacency.n_nodes, 5
    base = rng.standard_normal((n_nodes, width)).astype(np.float32)
    alpha = rng.random((4, width)).astype(np.float32)
    whole = ServingForm(base, None, alpha, 0.7, False, 12)
    later = np.array([n_nodes - 4, n_nodes - 1], np.int32)
    short = base[: n_nodes - 4].copy()
    base[[n_nodes - 3, n_nodes - 2]] = 0  # later, and without X
    form = ServingForm(short, None, alpha, 0.7, False, 12).with_later(LaterRows(later, base[later]))
    t = whole.neighbor_embeddings(adjacency)
    assert form.neighbor_embeddings(adjacency).tobytes() == t.tobytes()
    nodes = np.array([n_nodes - 1, 3, n_nodes - 4, 20, n_nodes - 2], np.int32)
    assert form.embeddings(nodes, adjacency, t).tobytes() == whole.embeddings(nodes, adjacency, t).tobytes()
