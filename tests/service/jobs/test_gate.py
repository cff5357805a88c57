from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from model_store.artifact import Artifact, write_artifact
from service.jobs.gate import broken, objection, worse
from service.recommendation.recommender import recommend
from tests.support.artifacts import publish_world

MARGIN = 0.05


def version_with(tmp_path, name: str, metrics: dict[str, object], **arrays: np.ndarray) -> Artifact:
    """A world's version with other metrics and arrays."""
    world = publish_world(tmp_path / "store")
    directory = tmp_path / name
    directory.mkdir()
    every = {array: world.array(array) for array in world.names()} | arrays
    write_artifact(directory, replace(world.manifest, version=name, metrics=metrics), every)
    return Artifact(directory)


def valid(recall: float, ndcg: float) -> dict[str, object]:
    return {"valid": {"recall@20": recall, "ndcg@20": ndcg}}


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (valid(0.2, 0.1), ""),
        (valid(0.19, 0.095), ""),  # 5 % less
        (valid(0.18, 0.3), "recall@20 is 0.1800, old's is 0.2000: worse by more than 5 %"),
        (valid(0.3, 0.0949), "ndcg@20 is 0.0949"),
        ({}, "it has no validation recall@20, old has 0.2000"),
    ],
)
def test_a_version_may_be_worse_by_the_margin_at_most(tmp_path, metrics, words):
    old = version_with(tmp_path, "old", valid(0.2, 0.1))
    found = worse(version_with(tmp_path, "new", metrics), old, MARGIN)
    assert words in found
    assert bool(words) == bool(found)


def test_where_there_is_nothing_to_compare_a_version_may_be_anything(tmp_path):
    new = version_with(tmp_path, "new", valid(0.0, 0.0))
    assert worse(new, None, MARGIN) == ""
    assert worse(new, version_with(tmp_path, "old", {}), MARGIN) == ""
    assert objection(new, None, MARGIN) == ""


def on_trial(base: str, before: float, known: float, all_users: float) -> dict[str, Any]:
    """A retrained version's metrics; its `valid` is its ancestor's."""
    figures = {name: {"recall@20": value, "ndcg@20": value} for name, value in (("before", before), ("known", known))}
    tried = {"base": base, **figures, "valid": {"recall@20": all_users, "ndcg@20": all_users}}
    return {**valid(0.9, 0.9), "selected_as": "old", "trial": tried}


@pytest.mark.parametrize(
    ("active", "metrics", "words"),
    [
        # The users of before, in the trial of the version that it takes the place of.
        (valid(0.9, 0.9), on_trial("old", 0.2, 0.2, 0.1), ""),
        (valid(0.1, 0.1), on_trial("old", 0.2, 0.18, 0.3), "recall@20 is 0.1800, old's is 0.2000"),
        # Another version became active meanwhile, which has been on trial too: all users of both.
        (on_trial("older", 0.5, 0.5, 0.3), on_trial("base", 0.2, 0.2, 0.3), ""),
        (on_trial("older", 0.1, 0.1, 0.3), on_trial("base", 0.2, 0.2, 0.2), "recall@20 is 0.2000, old's is 0.3000"),
        # No users to hold anything back of.
        (valid(0.9, 0.9), {"selected_as": "old", "trial": {"base": "old", "before": {}, "known": {}, "valid": {}}}, ""),
        # Figures that were carried over measure nothing.
        (valid(0.9, 0.9), {**valid(0.9, 0.9), "selected_as": "old"}, "nothing measures it beside old"),
        (valid(0.9, 0.9), on_trial("base", 0.2, 0.2, 0.2), "nothing measures it beside old"),
    ],
)
def test_a_retrained_version_is_measured_by_its_trial(tmp_path, active, metrics, words):
    found = worse(version_with(tmp_path, "new", metrics), version_with(tmp_path, "old", active), MARGIN)
    assert words in found
    assert bool(words) == bool(found)


@pytest.mark.parametrize(
    ("error", "passes"),
    [(0.0, False), (0.01, False), (0.02, True), (1.0, True)],  # 1.64 √(e² + e²) against the .04 beyond the margin
)
def test_what_chance_makes_holds_no_version_up(tmp_path, error, passes):
    metrics = on_trial("old", 0.4, 0.34, 0.3)
    for name in ("before", "known"):
        metrics["trial"][name]["standard_errors"] = {"recall@20": error, "ndcg@20": error}
    found = worse(version_with(tmp_path, "new", metrics), version_with(tmp_path, "old", {}), MARGIN)
    assert (found == "") is passes
    assert ("more than chance makes" in found) is (error > 0 and not passes)


def test_a_margin_of_1_lets_what_was_not_measured_pass(tmp_path):
    old = version_with(tmp_path, "old", valid(0.9, 0.9))
    assert worse(version_with(tmp_path, "new", {**valid(0.9, 0.9), "selected_as": "old"}), old, 1.0) == ""


def test_a_version_that_recommends_and_explains_is_let_through(tmp_path):
    assert broken(publish_world(tmp_path)) == ""


@pytest.mark.parametrize("withdrawn", [list(range(20, 40)), list(range(25)), list(range(40))])
def test_a_small_catalogue_whose_items_are_largely_withdrawn_is_sound(tmp_path, withdrawn):
    extra = {"withdrawn.item_rows": np.array(withdrawn, np.int32)}  # 40 items: fewer are left than a list would hold
    assert broken(publish_world(tmp_path, extra=extra)) == ""


def test_a_version_that_recommends_what_is_withdrawn_or_too_little_is_not(tmp_path, monkeypatch):
    artifact = publish_world(tmp_path, extra={"withdrawn.item_rows": np.arange(35, dtype=np.int32)})

    def fewer(model, user_id, k):
        return {"items": recommend(model, user_id, k)["items"][1:]}

    monkeypatch.setattr("service.jobs.gate.recommend", fewer)
    assert re.search(r"or other than the [1-5] that there are", broken(artifact))

    def all_items(model, user_id, k):
        seen = {model.items.id_of(int(row)) for row in model.user(user_id).seen}
        names = [f"i{row}" for row in range(40) if f"i{row}" not in seen]
        return {"items": [{"item_id": name, "score": 0.0, "strategy": "popular"} for name in names[-5:]]}

    monkeypatch.setattr("service.jobs.gate.recommend", all_items)
    assert "a withdrawn one" in broken(artifact)


def test_a_damaged_version_is_not(tmp_path):
    artifact = publish_world(tmp_path)
    path = artifact.directory / "form.base.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    assert "checksum" in broken(artifact)


def test_vectors_that_are_no_numbers_are_not(tmp_path):
    item_embeddings = np.array(publish_world(tmp_path / "other").array("item_embeddings"))
    item_embeddings[3, 0] = np.nan
    found = broken(version_with(tmp_path, "new", {}, item_embeddings=item_embeddings))
    assert found == "item_embeddings holds something that is no number"


@pytest.mark.parametrize(
    "name", ["item_embeddings", "neighbor_embeddings", "graph.indices", "visited.indices", "user_ids"]
)
def test_arrays_that_do_not_fit_each_other_are_not(tmp_path, name):
    short = np.array(publish_world(tmp_path / "other").array(name))[:-1]
    assert broken(version_with(tmp_path, "new", {}, **{name: short})).startswith(f"{name} has the shape")


def test_served_vectors_that_are_not_the_published_ones_are_not(tmp_path):
    neighbor_embeddings = 1.1 * np.array(publish_world(tmp_path / "other").array("neighbor_embeddings"))
    found = broken(version_with(tmp_path, "new", {}, neighbor_embeddings=neighbor_embeddings))
    assert "another vector when it is served" in found
