import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_store import scan
from model_store.item_item import ItemItemTable
from model_store.propagation import Vectors
from model_store.retrieval import ROUNDING, longest_norm
from model_store.scan import Ranking, top_items_of_many
from tests.support.artifacts import random_table

NONE = np.zeros(0, np.int32)


def full_sort(
    user: Vectors,
    items: Vectors,
    seen: NDArray[np.int32],
    table: ItemItemTable,
    k: int,
    blocked: NDArray[np.bool_] | None = None,
) -> tuple[list[int], list[float]]:
    """Every allowed item scored one by one, sorted by score, then by item row."""
    scored = []
    for v in range(len(items)):
        if v not in seen.tolist() and (blocked is None or not blocked[v]):
            inner = math.fsum(float(x) * float(y) for x, y in zip(user, items[v], strict=True))
            scored.append((-(inner + sum(table.entry(int(i), v) for i in seen)), v))
    best = sorted(scored)[:k]
    return [v for _, v in best], [-score for score, _ in best]


def found_for(
    users: Vectors,
    items: Vectors,
    seen: Sequence[NDArray[np.int32]],
    table: ItemItemTable,
    ks: Sequence[int],
    blocked: NDArray[np.bool_] | None = None,
) -> list[Ranking]:
    """The lists, each of which must be a full sort's."""
    found = top_items_of_many(users, items, seen, table, ks, longest_norm(items), blocked=blocked)
    assert len(found) == len(users)
    for user, own, k, (rows, scores) in zip(users, seen, ks, found, strict=True):
        expected = full_sort(user, items, own[own < len(items)], table, k, blocked)
        assert rows.tolist() == expected[0]
        np.testing.assert_allclose(scores, expected[1], rtol=1e-12, atol=1e-12)
    return found


@pytest.mark.parametrize("with_table", [False, True])
@pytest.mark.parametrize("n_users", [1, 3, 40])
def test_every_user_gets_the_list_of_a_full_sort(n_users: int, with_table: bool) -> None:
    rng = np.random.default_rng(n_users)
    items = rng.standard_normal((150, 6)).astype(np.float32)
    table = random_table(rng, 150) if with_table else ItemItemTable.empty()
    seen = [np.sort(rng.choice(150, rng.integers(0, 150), replace=False)).astype(np.int32) for _ in range(n_users)]
    ks = [int(k) for k in rng.integers(1, 200, n_users)]
    users = rng.standard_normal((n_users, 6)).astype(np.float32)
    found_for(users, items, seen, table, ks)
    found_for(users, items, seen, table, ks, rng.random(150) < 0.5)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.booleans())
def test_ties_seen_and_blocked_items_agree_with_a_full_sort(seed: int, share: float, with_table: bool) -> None:
    # Small whole numbers: exact in float32, so ties are many and exact.
    rng = np.random.default_rng(seed)
    items = rng.integers(-1, 2, (70, 2)).astype(np.float32)
    whole = random_table(rng, 70)
    rounded = ItemItemTable(whole.indptr, whole.indices, np.round(whole.data * 2))
    seen = [rng.choice(80, n, replace=False).astype(np.int32) for n in (0, 3, 60)]  # rows beyond the items among them
    users = np.concatenate([np.zeros((1, 2)), rng.integers(-1, 2, (2, 2))]).astype(np.float32)
    ks = rng.integers(0, 45, 3).tolist()
    found_for(users, items, seen, rounded if with_table else ItemItemTable.empty(), ks, rng.random(70) < share)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 1.0, 1e3])
def test_products_that_are_rounded_within_their_bound_change_nothing(
    scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    # Scores so close together that rounding reorders them.
    items = (scale * (np.ones((400, 8)) + 2e-5 * rng.standard_normal((400, 8)))).astype(np.float32)
    users = rng.standard_normal((10, 8)).astype(np.float32)
    seen = [rng.choice(400, 5, replace=False).astype(np.int32) for _ in users]
    bound = 0.99 * ROUNDING * np.linalg.norm(users, axis=1)[:, None] * np.linalg.norm(items, axis=1)

    def rounded(users: Vectors, items: Vectors) -> Vectors:
        return (users @ items.T + bound * rng.choice([-1, 1], bound.shape)).astype(np.float32)

    monkeypatch.setattr(scan, "products_of", rounded)
    found_for(users, items, seen, ItemItemTable.empty(), [10] * 10)


def test_a_large_direct_part_that_float32_rounds_hides_nothing() -> None:
    # B adds 2^20 + 0.06 to item 2 and 2^20 to item 3: one number in float32, where neighbors lie 1/8 apart.
    table = ItemItemTable(
        np.array([0, 2, 3, 3, 3]), np.array([2, 3, 2], np.int32), np.array([2**20, 2**20, 0.06], np.float32)
    )
    items = np.array([[0], [0], [0.06], [0.07]], np.float32)
    seen = [np.array([0, 1], np.int32)]
    [(rows, _)] = found_for(np.ones((1, 1), np.float32), items, seen, table, [1])
    assert rows.tolist() == [2]


def test_products_that_vanish_in_float32_hide_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    # In units of the least number of float32: 0.4 + 0.4 rounds to 0 where each is rounded, 0.7 + 0 rounds to 1.
    user = np.full((1, 2), 2.0**-75, np.float32)
    items = np.array([[0.4, 0.4], [0.7, 0.0]], np.float32) * np.float32(2.0**-74)
    rounded = np.array([[0, 2.0**-149]], np.float32)
    monkeypatch.setattr(scan, "products_of", lambda users, items: rounded.copy())  # noqa: ARG005
    [(rows, _)] = top_items_of_many(user, items, [NONE], ItemItemTable.empty(), [1], longest_norm(items))
    assert rows.tolist() == [0]


def test_many_users_are_taken_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(5)
    items, users = (rng.standard_normal((n, 4)).astype(np.float32) for n in (90, 7))
    seen = [np.array([n], np.int32) for n in range(7)]
    table = random_table(rng, 90)
    whole = found_for(users, items, seen, table, [8] * 7)
    parts = []
    products_of = scan.products_of

    def noted(users: Vectors, items: Vectors) -> Vectors:
        parts.append(len(users))
        return products_of(users, items)

    monkeypatch.setattr(scan, "products_of", noted)
    monkeypatch.setattr(scan, "HELD", 3 * 90)
    again = top_items_of_many(users, items, seen, table, [8] * 7, longest_norm(items))
    assert parts == [3, 3, 1]
    assert [(rows.tolist(), scores.tolist()) for rows, scores in again] == [
        (rows.tolist(), scores.tolist()) for rows, scores in whole
    ]


def test_of_nothing_comes_nothing() -> None:
    items = np.ones((5, 2), np.float32)
    none = ItemItemTable.empty()
    assert top_items_of_many(np.zeros((0, 2), np.float32), items, [], none, [], 1.0) == []
    users = np.ones((2, 2), np.float32)
    everything = np.arange(5, dtype=np.int32)
    assert [len(rows) for rows, _ in found_for(users, items, [everything, NONE], none, [3, 0])] == [0, 0]
    assert [len(rows) for rows, _ in found_for(users, items[:0], [NONE, NONE], none, [3, 3])] == [0, 0]
