"""Counterfactuals and additions against brute force on a model that really follows the change."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from model_store import counterfactuals
from service.explanation.account import Wanted, explain
from service.index.exact import ExactIndex
from service.live.model import LiveModel
from service.recommendation.recommender import recommend
from service.state.port import Change, Interaction
from tests.service.worlds import changed, live_model
from tests.support.artifacts import World, publish_world

K = 5


def wanted(part: str, k: int = K, most: int = 10) -> Wanted:
    return Wanted(frozenset({part}), k, most)  # type: ignore[arg-type]


def seen_by(model: LiveModel, user: str) -> list[str]:
    view = model.user(user)
    assert view is not None
    return [model.items.id_of(row) for row in view.seen.tolist()]


def rank_after(artifact, user: str, item: str, entries, hidden) -> int:
    """The item's rank among what is not hidden, in a model that has applied the entries."""
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    model.apply(changed(1, *entries))
    listed = [it["item_id"] for it in recommend(model, user, 60)["items"]]
    return [name for name in listed if name not in hidden].index(item) + 1


def removals(user: str, items) -> list[Change]:
    return [Change("removal", user, item) for item in items]


@pytest.mark.parametrize("seed", [0, 1])
def test_a_counterfactual_is_the_smallest_set_that_really_makes_the_item_leave(tmp_path, seed):
    artifact = publish_world(tmp_path, World(seed=seed, n_interactions=110))
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    outcomes = set()
    for user in [f"u{n}" for n in range(29)]:
        own = seen_by(model, user)
        if not 1 <= len(own) <= 4:
            continue
        item = recommend(model, user, K)["items"][len(own) % K]["item_id"]
        found = explain(model, user, item, wanted("counterfactual"))["counterfactual"]
        assert found is not None
        smallest = next(
            (
                size
                for size in range(1, len(own) + 1)
                for items in combinations(own, size)
                if rank_after(artifact, user, item, removals(user, items), own) > K
            ),
            None,
        )
        if smallest is None:
            assert (found["found"], found["why"]) == (False, "none_exists")
        else:
            removed = [it["item_id"] for it in found["removed"]]
            assert len(removed) == smallest
            assert rank_after(artifact, user, item, removals(user, removed), own) == found["rank"] > K
        outcomes.add(smallest)
    assert {1, 2} & outcomes
    assert len(outcomes) > 1


@pytest.mark.parametrize("seed", [2, 3])
def test_of_a_long_history_none_of_the_set_can_be_left_out(tmp_path, seed, monkeypatch):
    monkeypatch.setattr(counterfactuals, "ALL_SETS", 2)
    artifact = publish_world(tmp_path, World(seed=seed, n_interactions=260))
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    sizes = []
    for user in [f"u{n}" for n in range(0, 29, 2)]:
        own = seen_by(model, user)
        listed = [it["item_id"] for it in recommend(model, user, K)["items"]]
        for item in listed[1:4:2]:
            found = explain(model, user, item, wanted("counterfactual"))["counterfactual"]
            assert found is not None
            assert found["tried"] <= 4096
            if not found["found"]:
                assert found["why"] == "none_found"
                assert found["removed"] == found["replaced_by"] == []
                continue
            removed = [it["item_id"] for it in found["removed"]]
            sizes.append(len(removed))
            assert set(removed) <= set(own)
            assert rank_after(artifact, user, item, removals(user, removed), own) == found["rank"] > K
            for one in removed:
                left = [other for other in removed if other != one]
                assert rank_after(artifact, user, item, removals(user, left), own) <= K
            after = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
            after.apply(changed(1, *removals(user, removed)))
            shown = [it for it in recommend(after, user, 60)["items"] if it["item_id"] not in own][:K]
            newcomers = [it for it in shown if it["item_id"] not in listed]
            assert [(it["item_id"], it["score"]) for it in found["replaced_by"]] == [
                (it["item_id"], it["score"]) for it in newcomers
            ]
    assert len(sizes) > 8
    assert max(sizes) > 1


def test_nothing_that_is_served_changes_by_trying(tmp_path):
    model = live_model(tmp_path)
    before, digest = [recommend(model, f"u{n}", 10) for n in range(5)], model.digest()
    for n in range(5):
        for rank in (0, 9):
            explain(
                model, f"u{n}", before[n]["items"][rank]["item_id"], Wanted(frozenset({"counterfactual", "why_not"}))
            )
    assert [recommend(model, f"u{n}", 10) for n in range(5)] == before
    assert model.digest() == digest


def test_an_item_outside_of_the_list_has_no_counterfactual(tmp_path):
    model = live_model(tmp_path)
    outside = recommend(model, "u1", K + 1)["items"][K]["item_id"]
    for item in (outside, seen_by(model, "u1")[0]):
        found = explain(model, "u1", item, wanted("counterfactual"))["counterfactual"]
        assert found is not None
        assert (found["found"], found["why"], found["tried"]) == (False, "not_in_list", 0)


def test_a_set_has_no_more_members_than_asked_for(tmp_path):
    model = live_model(tmp_path, World(seed=2, n_interactions=260))
    for n in range(0, 29, 4):
        item = recommend(model, f"u{n}", K)["items"][0]["item_id"]
        found = explain(model, f"u{n}", item, wanted("counterfactual", most=1))["counterfactual"]
        assert found is not None
        assert len(found["removed"]) <= 1


def test_why_not_tells_rank_margin_and_what_would_bring_the_item_in(tmp_path):
    artifact = publish_world(tmp_path, World(seed=4))
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=1000)
    sizes = []
    for n in range(0, 29, 3):
        user = f"u{n}"
        listed = recommend(model, user, 30)["items"]
        for place in (K, K + 2, 15):
            item = listed[place]
            found = explain(model, user, item["item_id"], wanted("why_not"))["why_not"]
            assert found is not None
            assert (found["in_list"], found["rules"], found["rank"]) == (False, ["outranked"], place + 1)
            assert found["cutoff"] == listed[K - 1]["score"]
            assert found["margin"] == pytest.approx(item["score"] - listed[K - 1]["score"])
            assert found["margin"] <= 0
            addition = found["addition"]
            assert addition is not None
            if not addition["found"]:
                continue
            items = [it["item_id"] for it in addition["items"]]
            sizes.append(len(items))
            assert not set(items) & {*seen_by(model, user), item["item_id"]}

            def rank_with(names, user=user, item=item):
                return rank_after(artifact, user, item["item_id"], [Interaction(user, i, 0.0) for i in names], [])

            assert rank_with(items) == addition["rank"] <= K
            for one in items[: len(items) if len(items) > 1 else 0]:
                assert rank_with([other for other in items if other != one]) > K
    assert len(sizes) > 12


def test_why_not_names_the_rule_that_leaves_an_item_out(tmp_path):
    model = live_model(tmp_path)
    model.apply(changed(1, Interaction("u1", "fresh", 0.0)))

    def rules(user: str, item: str) -> list[str]:
        found = explain(model, user, item, wanted("why_not"))["why_not"]
        assert found is not None
        return list(found["rules"])

    assert rules("u1", recommend(model, "u1", 1)["items"][0]["item_id"]) == []
    assert "seen" in rules("u1", seen_by(model, "u1")[0])
    assert rules("u2", "fresh") == ["no_vector"]
    assert "no_evidence" in rules("u29", "i39")
    found = explain(model, "u1", seen_by(model, "u1")[0], wanted("why_not"))["why_not"]
    assert found is not None
    assert found["addition"] is None
    assert np.isfinite(found["margin"])
