import numpy as np
import pytest

from model_store.graph import InteractionGraph
from model_store.keys import node_keys
from tests.model_store.worlds import graph_of, random_pairs

USERS, ITEMS = [f"u{i}" for i in range(8)], [f"i{i}" for i in range(6)]


def test_each_neighbor_list_holds_the_distinct_neighbors_in_ascending_order_of_keys() -> None:
    pairs = random_pairs(np.random.default_rng(0), 8, 6, 60)
    graph = graph_of(pairs, USERS, ITEMS)
    assert len(set(pairs)) < len(pairs)  # some stand twice
    assert graph.n_edges == len(set(pairs))
    for node in range(graph.n_nodes):
        found = graph.neighbors[graph.indptr[node] : graph.indptr[node + 1]].tolist()
        if node < 8:
            expected = {8 + ITEMS.index(v) for u, v in pairs if USERS.index(u) == node}
        else:
            expected = {USERS.index(u) for u, v in pairs if ITEMS.index(v) == node - 8}
        assert found == sorted(expected, key=lambda n: int(graph.keys[n]))
        assert graph.degrees[node] == len(expected)


def test_pairs_are_the_distinct_interactions() -> None:
    pairs = random_pairs(np.random.default_rng(1), 8, 6, 30)
    users, items = graph_of(pairs, USERS, ITEMS).pairs()
    assert sorted((USERS[u], ITEMS[v]) for u, v in zip(users, items, strict=True)) == sorted(set(pairs))


def test_user_items_are_item_rows() -> None:
    indptr, items = graph_of([("u1", "i0"), ("u1", "i5"), ("u7", "i0")], USERS, ITEMS).user_items()
    assert indptr.tolist() == [0, 0, 2, 2, 2, 2, 2, 2, 3]
    assert sorted(items[:2].tolist()) == [0, 5]
    assert items[2:].tolist() == [0]


@pytest.mark.parametrize(("users", "items"), [(0, 0), (3, 0), (0, 2), (2, 2)])
def test_a_graph_without_interactions_has_nodes_without_neighbors(users: int, items: int) -> None:
    graph = graph_of([], USERS[:users], ITEMS[:items])
    assert (graph.n_nodes, graph.n_edges) == (users + items, 0)
    assert graph.degrees.tolist() == [0] * (users + items)


@pytest.mark.parametrize(("user", "item"), [(-1, 0), (0, -1), (8, 0), (0, 6)])
def test_a_row_out_of_range_is_refused(user: int, item: int) -> None:
    with pytest.raises(ValueError, match="8 users × 6 items"):
        InteractionGraph.from_pairs(
            np.array([0, user]), np.array([0, item]), node_keys("user", USERS), node_keys("item", ITEMS)
        )


def test_columns_of_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="2 user rows but 1 item rows"):
        InteractionGraph.from_pairs(np.array([0, 1]), np.array([0]), node_keys("user", USERS), node_keys("item", ITEMS))


def test_two_nodes_with_one_key_are_refused() -> None:
    with pytest.raises(ValueError, match="share a 64-bit key"):
        graph_of([], ["a", "b", "a"], ITEMS)
