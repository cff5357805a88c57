from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.worlds import ids, interactions
from training.data.dataset import DataSet, KnowledgeGraph
from training.evaluation import (
    USER_SLICES,
    Evaluation,
    ItemFacts,
    ScoreUsers,
    Split,
    evaluate,
    evaluate_fully,
    interaction_matrix,
    rank,
)

N_USERS, N_ITEMS = 30, 25


def table_scores(table: NDArray[np.float32]) -> ScoreUsers:
    return lambda users: table[users].copy()


def random_world(seed: int = 0) -> tuple[NDArray[np.float32], list[tuple[int, int]], list[tuple[int, int]]]:
    """Scores with ties, a split and masked pairs; some pairs are in both."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 6, (N_USERS, N_ITEMS)).astype(np.float32)
    wanted = [(int(u), int(v)) for u, v in np.argwhere(rng.random(table.shape) < 0.1)]
    masked = [(int(u), int(v)) for u, v in np.argwhere(rng.random(table.shape) < 0.2)]
    assert set(wanted) & set(masked)
    return table, wanted, masked


def brute_force(
    table: NDArray[np.float32], wanted: list[tuple[int, int]], masked: list[tuple[int, int]], k: int
) -> dict[str, float]:
    recalls, gains = [], []
    for user in range(N_USERS):
        truth = {v for u, v in wanted if u == user} - {v for u, v in masked if u == user}
        if not truth:
            continue
        open_items = [v for v in range(N_ITEMS) if (user, v) not in set(masked)]
        ranking = sorted(open_items, key=lambda v: (-table[user, v], v))[:k]
        recalls.append(len(set(ranking) & truth) / len(truth))
        gained = sum(1 / math.log2(place + 1) for place, v in enumerate(ranking, 1) if v in truth)
        gains.append(gained / sum(1 / math.log2(place + 1) for place in range(1, min(k, len(truth)) + 1)))
    count = len(recalls)
    return {f"recall@{k}": sum(recalls) / count, f"ndcg@{k}": sum(gains) / count, "n_users": count}


@pytest.mark.parametrize("k", [1, 5, 20, 40])
def test_both_metrics_are_those_of_a_plain_sort_for_each_user(k: int) -> None:
    table, wanted, masked = random_world()
    split = Split.of(interactions(wanted), interactions(masked), N_USERS, N_ITEMS)
    found = evaluate(table_scores(table), split, k)
    assert found == pytest.approx(brute_force(table, wanted, masked, k), rel=1e-12)


@pytest.mark.parametrize("chunk", [1, 7, 30, 1000])
def test_the_size_of_the_chunks_does_not_matter(chunk: int) -> None:
    table, wanted, masked = random_world(1)
    split = Split.of(interactions(wanted), interactions(masked), N_USERS, N_ITEMS)
    whole, found = rank(table_scores(table), split, 5), rank(table_scores(table), split, 5, chunk=chunk)
    for name in ("users", "lists", "hits", "n_relevant"):
        np.testing.assert_array_equal(getattr(found, name), getattr(whole, name))


def test_masked_items_neither_take_a_place_nor_count_as_truth() -> None:
    table = np.array([[9.0, 8.0, 1.0]], np.float32)
    split = Split.of(interactions([(0, 1), (0, 2)]), interactions([(0, 0), (0, 1)]), 1, 3)
    assert evaluate(table_scores(table), split, 1) == {"recall@1": 1.0, "ndcg@1": 1.0, "n_users": 1}


def test_a_stranger_is_shown_the_popular_items_whatever_the_model_scores() -> None:
    # Users 0 to 2 have a history in which item 2 stands twice and item 1 once; user 3 has none.
    history = interactions([(0, 2), (1, 2), (2, 1)])
    table = np.array([[9.0, 8.0, 1.0]] * 4, np.float32)
    split = Split.of(interactions([(0, 1), (3, 2)]), history, 4, 3)
    assert rank(table_scores(table), split, 3).lists.tolist() == [[0, 1, -1], [2, 1, 0]]
    # Masked is only what is named; strange is who has no history.
    seen = Split.of(interactions([(0, 1), (3, 2)]), interactions([(3, 1)]), 4, 3, history=split.masked)
    assert rank(table_scores(table), seen, 3).lists.tolist() == [[0, 1, 2], [2, 0, -1]]


def test_a_user_whose_items_are_all_masked_is_no_user_of_the_split() -> None:
    split = Split.of(interactions([(0, 1), (1, 2)]), interactions([(0, 1)]), 2, 3)
    assert split.users.tolist() == [1]


def test_a_split_without_users_gives_zeros() -> None:
    split = Split.of(interactions([]), interactions([(0, 1)]), 2, 3)
    assert evaluate(table_scores(np.zeros((2, 3), np.float32)), split) == {
        "recall@20": 0.0,
        "ndcg@20": 0.0,
        "n_users": 0,
    }


def test_a_pair_that_stands_twice_is_one() -> None:
    assert interaction_matrix(interactions([(0, 1), (0, 1)]), 1, 2).toarray().tolist() == [[0.0, 1.0]]


# ---- in full ---------------------------------------------------------------------------------------------------------

UNKNOWN = ItemFacts(np.zeros(N_ITEMS, np.bool_), np.zeros(N_ITEMS, np.bool_))


def random_evaluation(seed: int = 0) -> tuple[Evaluation, NDArray[np.float32], Split, NDArray[np.float64]]:
    """A full evaluation, the scores, the split and Y; the masked pairs are the history."""
    table, wanted, history = random_world(seed)
    split = Split.of(interactions(wanted), interactions(history), N_USERS, N_ITEMS)
    seen = interaction_matrix(interactions(history), N_USERS, N_ITEMS)
    return evaluate_fully(table_scores(table), split, seen, UNKNOWN), table, split, seen.toarray()


@pytest.mark.parametrize("k", [5, 10, 20])
def test_the_full_evaluation_s_means_are_those_of_a_plain_sort_and_of_the_short_one(k: int) -> None:
    found, table, split, _ = random_evaluation()
    assert {key: found.to_json()[key] for key in (f"recall@{k}", f"ndcg@{k}", "n_users")} == pytest.approx(
        evaluate(table_scores(table), split, k), rel=1e-12
    )
    recalls, precisions, found_any, reciprocals = [], [], [], []
    for user in split.users.tolist():
        truth = set(np.flatnonzero(split.truth[[user]].toarray()[0]).tolist())
        masked = set(np.flatnonzero(split.masked[[user]].toarray()[0]).tolist())
        ranking = sorted((v for v in range(N_ITEMS) if v not in masked), key=lambda v, u=user: (-table[u, v], v))[:k]
        places = [place for place, item in enumerate(ranking, 1) if item in truth]
        recalls.append(len(places) / len(truth))
        precisions.append(len(places) / k)
        found_any.append(1.0 if places else 0.0)
        reciprocals.append(1 / places[0] if places else 0.0)
    assert found.users.values[f"recall@{k}"].tolist() == pytest.approx(recalls)
    assert found.users.values[f"precision@{k}"].tolist() == pytest.approx(precisions)
    assert found.users.values[f"hit_rate@{k}"].tolist() == found_any
    assert found.users.values[f"mrr@{k}"].tolist() == pytest.approx(reciprocals)


def test_the_standard_error_is_the_deviation_over_the_root_of_the_users() -> None:
    found, _, split, _ = random_evaluation()
    values = found.users.values["recall@5"].tolist()
    mean = sum(values) / len(values)
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    assert found.users.standard_errors()["recall@5"] == pytest.approx(math.sqrt(variance / len(split.users)))


# Three users and five items. Train: u0 has 0 and 1, u1 has 0, u2 nothing; so n_i = 2, 1, 0, 0, 0 and I = 2 have some.
# Scores fall with the row, so the lists of two are: u0 (0, 1 masked) 2, 3; u1 (0 masked) 1, 2; u2 0, 1.
TRAIN = [(0, 0), (0, 1), (1, 0)]
TEST = [(0, 2), (0, 4), (1, 1), (2, 1), (2, 3)]
FALLING = np.tile(np.arange(5, 0, -1, dtype=np.float32), (3, 1))


def by_hand(*, graph: list[int] | None = None, features: list[int] | None = None) -> Evaluation:
    split = Split.of(interactions(TEST), interactions(TRAIN), 3, 5)
    facts = ItemFacts(np.isin(np.arange(5), graph or []), np.isin(np.arange(5), features or []))
    seen = interaction_matrix(interactions(TRAIN), 3, 5)
    return evaluate_fully(table_scores(FALLING), split, seen, facts, lengths=(1, 2))


def test_metrics_of_the_lists_by_hand() -> None:
    lists = by_hand().lists
    assert lists["coverage@2"] == 4 / 5
    assert lists["coverage@1"] == 3 / 5
    # -log2(n_i / 2) with n_i at least 1: items 0 to 4 have 0, 1, 1, 1, 1 bits.
    assert lists["novelty@2"] == pytest.approx(((1 + 1) / 2 + (1 + 1) / 2 + (0 + 1) / 2) / 3)
    # Users with a history are u0 and u1: lists of popularity (0 + 0)/2 and (1 + 0)/2; histories of (2 + 1)/2 and 2.
    assert lists["popularity_lift@2"] == pytest.approx((0 + 0.5) / (1.5 + 2))
    assert lists["gini@1"] == pytest.approx((1 * (2 * 3 - 6) + 1 * (2 * 4 - 6) + 1 * (2 * 5 - 6)) / (5 * 3))


def test_slices_of_users_are_by_their_train_interactions_and_say_how_many_they_are() -> None:
    slices = by_hand().slices
    assert slices["users_to_5"].users.users.tolist() == [0, 1, 2]
    assert slices["users_none"].users.users.tolist() == [2]
    assert slices["users_none"].what == "Users with no train interactions."
    # u2 finds item 1 of 1 and 3, at rank 2.
    told = slices["users_none"].to_json()
    assert (told["n_users"], told["n_interactions"]) == (1, 2)
    assert (told["metrics"]["recall@2"], told["metrics"]["mrr@2"]) == (1 / 2, 1 / 2)
    assert slices["users_over_50"].to_json() == {
        "what": "Users with more than 50 train interactions.",
        "n_users": 0,
        "n_interactions": 0,
        "metrics": {},
    }


def test_every_user_is_in_one_slice_of_those_with_some_or_few_interactions() -> None:
    n_items = 80
    sizes = [0, 1, 5, 6, 10, 11, 20, 21, 50, 51, 70]
    history = [(user, item) for user, size in enumerate(sizes) for item in range(size)]
    split = Split.of(
        interactions([(user, n_items - 1) for user in range(len(sizes))]), interactions([]), len(sizes), n_items
    )
    scores = table_scores(np.zeros((len(sizes), n_items), np.float32))
    nothing = ItemFacts(np.zeros(n_items, np.bool_), np.zeros(n_items, np.bool_))
    seen = interaction_matrix(interactions(history), len(sizes), n_items)
    slices = evaluate_fully(scores, split, seen, nothing).slices
    found = {name: [sizes[user] for user in slices[name].users.users] for name in USER_SLICES}
    assert found == {
        "users_to_5": [0, 1, 5],
        "users_none": [0],
        "users_6_to_10": [6, 10],
        "users_11_to_20": [11, 20],
        "users_21_to_50": [21, 50],
        "users_over_50": [51, 70],
    }


def test_unseen_items_alone_are_the_truth_and_are_ranked_among_all() -> None:
    # Unseen are 2, 3 and 4. u0 has 2 (rank 1) and 4 (not in the two), u1 none of them, u2 has 3 (not in the two).
    part = by_hand(graph=[0, 2], features=[2, 3]).slices["items_unseen"]
    assert part.users.users.tolist() == [0, 2]
    assert part.users.values["recall@2"].tolist() == [1 / 2, 0.0]
    assert part.users.values["ndcg@2"].tolist() == pytest.approx([1 / (1 + 1 / math.log2(3)), 0.0])
    assert part.what.endswith("Such items: 3 (1 in the knowledge graph, 2 with features).")


def test_unseen_items_that_something_describes_are_a_slice_of_their_own() -> None:
    part = by_hand(graph=[0, 2], features=[2]).slices["items_unseen_described"]
    assert part.users.users.tolist() == [0]  # item 2 alone is left
    assert part.users.values["recall@2"].tolist() == [1.0]
    assert part.what.endswith("Such items: 1.")
    assert len(by_hand().slices["items_unseen_described"].users) == 0


def test_items_are_described_by_a_triplet_or_by_features_other_than_zero() -> None:
    graph = KnowledgeGraph(*(np.array([row], np.int32) for row in (1, 0, 0)), ids("e", 1), ids("r", 1))
    features = {"visual": np.array([[0, 0], [0, 0], [0, 1]], np.float32)}
    data = DataSet("d", ids("u", 1), ids("i", 3), interactions([]), knowledge=graph, features=features)
    facts = ItemFacts.of(data)
    assert (facts.in_graph.tolist(), facts.with_features.tolist()) == ([False, True, False], [False, False, True])
    moved = facts.at(np.array([3, 0, 1]), 4)
    assert moved.in_graph.tolist() == [True, False, False, False]
    assert moved.with_features.tolist() == [False, True, False, False]


def test_a_selection_of_users_keeps_their_values() -> None:
    users = by_hand().users
    chosen = users.take(users.n_relevant == 2)
    assert chosen.users.tolist() == [0, 2]
    assert chosen.means()["recall@2"] == pytest.approx((1 / 2 + 1 / 2) / 2)


def test_where_nobody_has_a_history_there_is_no_popularity_lift() -> None:
    split = Split.of(interactions(TEST), interactions([]), 3, 5)
    nothing = ItemFacts(np.zeros(5, np.bool_), np.zeros(5, np.bool_))
    found = evaluate_fully(table_scores(FALLING), split, interaction_matrix(interactions([]), 3, 5), nothing)
    assert not [name for name in found.lists if name.startswith("popularity")]
    assert found.lists["novelty@5"] == 0.0
    assert found.users.means()["recall@5"] == 1.0


def test_a_split_without_users_has_no_means_and_says_zero_users() -> None:
    split = Split.of(interactions([]), interactions(TRAIN), 3, 5)
    nothing = ItemFacts(np.zeros(5, np.bool_), np.zeros(5, np.bool_))
    told = evaluate_fully(
        table_scores(FALLING), split, interaction_matrix(interactions(TRAIN), 3, 5), nothing
    ).to_json()
    assert told["n_users"] == told["n_interactions"] == 0
    assert "recall@20" not in told
    assert told["standard_errors"] == {}


def test_parts_of_a_split_are_drawn_at_random_and_are_the_same_each_time() -> None:
    _, wanted, masked = random_world()
    split = Split.of(interactions(wanted), interactions(masked), N_USERS, N_ITEMS)
    parts = [part.users.tolist() for part in split.parts(3, 0.6, 100)]
    assert [part.users.tolist() for part in split.parts(3, 0.6, 100)] == parts
    for users in parts:
        assert len(users) == round(0.6 * len(split.users))
        assert users == sorted(set(users))
        assert set(users) < set(split.users.tolist())
    assert len({tuple(users) for users in parts}) == 3
    assert [len(part.users) for part in split.parts(2, 0.6, 2)] == [2, 2]


def test_a_sample_of_a_split_is_spread_over_its_users_and_holds_no_more_than_wanted() -> None:
    _, wanted, masked = random_world()
    split = Split.of(interactions(wanted), interactions(masked), N_USERS, N_ITEMS)
    n = len(split.users)
    assert n > 10
    assert split.sample(5).users.tolist() == split.users[:: -(-n // 5)].tolist()
    assert split.sample(n).users.tolist() == split.users.tolist()
    nobody = Split.of(interactions([]), interactions(masked), N_USERS, N_ITEMS)
    assert nobody.sample(5).users.tolist() == []
