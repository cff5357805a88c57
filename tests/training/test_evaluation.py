from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.training.worlds import interactions
from training.evaluation import (
    ScoreUsers,
    Split,
    evaluate,
    interaction_matrix,
    ndcg_at_k,
    ranking_hits,
    recall_at_k,
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
    whole = ranking_hits(table_scores(table), split, 5)
    np.testing.assert_array_equal(ranking_hits(table_scores(table), split, 5, chunk=chunk), whole)


def test_recall_and_ndcg_by_hand() -> None:
    # The first user: items of the split at ranks 1 and 3 of 4, three of them in all. The second: none of one found.
    hits = np.array([[True, False, True, False], [False, False, False, False]])
    relevant = np.array([3, 1])
    assert recall_at_k(hits, relevant).tolist() == [2 / 3, 0.0]
    best = 1 / math.log2(2) + 1 / math.log2(3) + 1 / math.log2(4)
    assert ndcg_at_k(hits, relevant) == pytest.approx([(1 + 1 / math.log2(4)) / best, 0.0])


def test_with_more_items_than_places_the_ideal_fills_the_places() -> None:
    hits = np.array([[True, True]])
    assert ndcg_at_k(hits, np.array([9])).tolist() == [1.0]
    assert recall_at_k(hits, np.array([9])).tolist() == [2 / 9]


def test_masked_items_neither_take_a_place_nor_count_as_truth() -> None:
    table = np.array([[9.0, 8.0, 1.0]], np.float32)
    split = Split.of(interactions([(0, 1), (0, 2)]), interactions([(0, 0), (0, 1)]), 1, 3)
    assert evaluate(table_scores(table), split, 1) == {"recall@1": 1.0, "ndcg@1": 1.0, "n_users": 1}


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
