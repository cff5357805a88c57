from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest

from model_store.artifact import Artifact
from model_store.standing import Standing
from tests.support.artifacts import World, publish_world
from training.data.dataset import DataSet, Interactions
from training.experiments.faithfulness import (
    GRID,
    ORDERS,
    Sample,
    Scene,
    agreement,
    area,
    best_deletion,
    check_counterfactuals,
    curve_of,
    draw,
    effect,
    fewer_interactions,
    follow,
    is_fewer,
    other_walks,
    recency_of,
    scores_without,
    without_first,
)
from training.observer import Silence


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return publish_world(tmp_path_factory.mktemp("store"), World(n_interactions=150, seed=3))


@pytest.fixture(scope="module")
def scene(artifact: Artifact) -> Scene:
    return Scene.of_artifact(artifact)


def data_of(artifact: Artifact, timestamps: np.ndarray | None = None) -> DataSet:
    """The artifact's interactions as a data set, in its rows, in an order of their own."""
    users, items = artifact.graph().pairs()
    order = np.random.default_rng(5).permutation(len(users))
    pairs = Interactions(users[order].astype(np.int32), items[order].astype(np.int32), timestamps)
    return DataSet("world", artifact.array("user_ids"), artifact.array("item_ids"), pairs)


def recency_in(data: DataSet):
    rows = np.arange(data.n_users, dtype=np.int32), np.arange(data.n_items, dtype=np.int32)
    return recency_of(data, *rows, data.n_items)


def test_a_scene_has_the_vectors_and_scores_that_are_served(artifact: Artifact, scene: Scene) -> None:
    np.testing.assert_array_equal(scene.item_vectors, artifact.array("item_embeddings"))
    for user in range(0, 29, 4):
        standing = scene.standing(user)
        np.testing.assert_array_equal(standing.vector, artifact.array("user_embeddings")[user])
        served = standing.now().scores
        np.testing.assert_array_equal(scores_without(standing, np.zeros(0, np.int64)), served)
        for item in (0, 17, 39):
            assert scene.parts(standing, item).score == pytest.approx(served[item], rel=1e-4, abs=1e-5)


def test_a_curve_begins_as_served_and_ends_with_the_user_s_own_vector(scene: Scene) -> None:
    for sample in draw(scene, 8, np.random.default_rng(0)):
        standing = scene.standing(sample.user)
        d = len(standing.neighbors)
        served = float(standing.now().scores[sample.item])
        own = scene.form.alpha[0] * scene.form.base[sample.user]
        empty = float(own.astype(np.float64) @ scene.item_vectors[sample.item])
        curve = curve_of(standing, sample.item, np.arange(d), served, empty)
        assert (curve.deletion[0], curve.insertion[-1]) == (1, 1)
        assert curve.deletion[-1] == pytest.approx(0, abs=1e-5)
        assert curve.insertion[0] == pytest.approx(0, abs=1e-5)
        first = (float(scores_without(standing, np.array([0]))[sample.item]) - empty) / (served - empty)
        assert curve.deleted[1] == pytest.approx(first)
        assert np.interp(1 / d, GRID, curve.deletion) == pytest.approx(first, abs=0.6)
        assert curve.pos[1] <= curve.pos[5] <= curve.pos[20]
        assert curve.deleted[20] == pytest.approx(0, abs=1e-5) or d > 20


def test_the_area_of_a_straight_line_is_a_half() -> None:
    assert area(1 - GRID) == pytest.approx(0.5)


def area_by(standing: Standing, item: int, order: tuple[int, ...], served: float, empty: float) -> float:
    values = [1.0] + [
        (float(scores_without(standing, np.array(order[:n]))[item]) - empty) / (served - empty)
        for n in range(1, len(order) + 1)
    ]
    return float(np.trapezoid(values, dx=1 / len(order)))


def test_the_best_order_is_the_best_of_all_orders(scene: Scene) -> None:
    seen = 0
    for user in np.flatnonzero((scene.degrees >= 2) & (scene.degrees <= 4)).tolist():
        standing = scene.standing(user)
        item = int(standing.now().top(1)[0])
        places = np.arange(len(standing.neighbors))
        served = float(scores_without(standing, places[:0])[item])
        empty = float(scores_without(standing, places)[item])

        expected = min(area_by(standing, item, order, served, empty) for order in permutations(places.tolist()))
        assert best_deletion(standing, item, served, empty) == pytest.approx(expected)
        seen += 1
    assert seen > 3


def test_the_explanation_s_order_beats_random_ones_and_the_best_there_is_bounds_it(
    artifact: Artifact, scene: Scene
) -> None:
    rng = np.random.default_rng(1)
    curves, best = follow(scene, draw(scene, 30, rng), recency_in(data_of(artifact)), rng, Silence())
    assert tuple(curves) == ORDERS
    means = {name: found.means() for name, found in curves.items()}
    for other in ("similarity", "degree", "recency", "random"):
        assert means["contribution"]["deletion"] < means[other]["deletion"]
        assert means["contribution"]["insertion"] > means[other]["insertion"]
        assert means["contribution"]["del@1"] < means[other]["del@1"]
    assert best is not None
    assert best.best <= best.contribution < best.random
    sizes = [part["n"] for part in curves["random"].slices().values()]
    assert sum(sizes) == len(curves["random"].degrees)


def test_recency_is_by_time_and_by_place_in_the_file_where_there_is_none(artifact: Artifact) -> None:
    plain = data_of(artifact)
    reversed_times = -np.arange(len(plain.train), dtype=np.float64)
    user = int(plain.train.user_rows[0])
    items = plain.train.item_rows[plain.train.user_rows == user]
    by_place = recency_in(plain)(user, items)
    assert by_place.tolist() == sorted(by_place.tolist())
    by_time = recency_in(data_of(artifact, reversed_times))(user, items)
    assert by_time.tolist() == sorted(by_time.tolist(), reverse=True)
    stranger = np.setdiff1d(np.arange(40, dtype=np.int32), items)[:1]
    # What only a log has brought is newer than the files.
    assert recency_in(plain)(user, stranger).tolist() == [len(plain.train)]


@pytest.mark.parametrize("timed", [True, False])
def test_recency_knows_all_splits(artifact: Artifact, timed: bool) -> None:
    plain = data_of(artifact)
    whole = replace(plain.train, timestamps=np.arange(len(plain.train), dtype=np.float64)) if timed else plain.train
    count = len(whole)
    parts = {
        "train": np.arange(count // 2),
        "valid": np.arange(count // 2, count - 9),
        "test": np.arange(count - 9, count),
    }
    divided = replace(plain, **{name: whole.take(places) for name, places in parts.items()})
    user = int(whole.user_rows[-1])
    items = whole.item_rows[whole.user_rows == user]
    assert recency_in(divided)(user, items).tolist() == recency_in(plain)(user, items).tolist()
    assert recency_in(divided)(user, items).max() == count - 1


def test_counterfactuals_hold_when_the_state_really_changes_and_the_state_is_as_before(scene: Scene) -> None:
    digest = scene.state.digest()
    samples = draw(scene, 20, np.random.default_rng(2), k=5, least=1)
    found = check_counterfactuals(scene, samples, 5, 4, Silence())
    assert found.asked == 20
    assert found.sizes
    assert found.valid == found.minimal == len(found.sizes)
    scene.state.settle()
    assert scene.state.digest() == digest


def test_explanations_agree_with_themselves_and_less_with_those_of_another_graph(scene: Scene) -> None:
    samples = draw(scene, 12, np.random.default_rng(3), k=5)
    same = {"rank_correlation": 1.0, "l1": 0.0, "first": 1.0, "first_three": 1.0}
    assert agreement(scene, scene, samples) == pytest.approx(same)
    spared = [sample.user for sample in samples]
    fewer = fewer_interactions(scene, 0.3, spared, np.random.default_rng(0))
    assert fewer.degrees.sum() < scene.degrees.sum()
    assert (fewer.degrees[spared] == scene.degrees[spared]).all()
    for other in (fewer, other_walks(scene)):
        found = agreement(scene, other, samples)
        assert found["l1"] > 0
        assert 0.3 < found["rank_correlation"] <= 1


def test_a_graph_that_has_hardly_lost_an_interaction_is_not_one_with_fewer(scene: Scene) -> None:
    everybody = list(range(scene.form.n_users))
    none_removed = fewer_interactions(scene, 0.3, everybody, np.random.default_rng(0))
    assert none_removed.n_interactions == scene.n_interactions
    assert not is_fewer(scene, none_removed, 0.3)
    fewer = fewer_interactions(scene, 0.3, [], np.random.default_rng(0))
    removed = scene.n_interactions - fewer.n_interactions
    half = 2 * removed / scene.n_interactions  # the share of which they are one half
    assert is_fewer(scene, fewer, half)
    assert not is_fewer(scene, fewer, half * 1.01)
    assert not is_fewer(scene, none_removed, 0.0)


def test_before_a_retraining_each_user_loses_what_its_explanation_names_first(artifact: Artifact, scene: Scene) -> None:
    data = data_of(artifact)
    samples = draw(scene, 6, np.random.default_rng(4))
    less = without_first(data, scene, samples, recency_in(data), "contribution", np.random.default_rng(0))
    whole = set(zip(data.train.user_rows.tolist(), data.train.item_rows.tolist(), strict=True))
    left = set(zip(less.train.user_rows.tolist(), less.train.item_rows.tolist(), strict=True))
    gone = whole - left
    assert {user for user, _ in gone} == {sample.user for sample in samples}
    assert len(gone) == len(samples)
    for sample in samples:
        standing = scene.standing(sample.user)
        parts = scene.parts(standing, sample.item)
        assert (sample.user, int(standing.seen[np.argmax(parts.total)])) in gone


def test_the_effect_of_a_retraining_that_changed_nothing_is_none(scene: Scene) -> None:
    samples = [*draw(scene, 6, np.random.default_rng(4)), Sample(0, int(scene.standing(0).now().top(3)[2]))]
    found = effect(scene, scene, samples)
    assert found == {"rank": pytest.approx(3 ** (1 / 7)), "fell": 0.0, "left@5": 0.0, "left@20": 0.0}
