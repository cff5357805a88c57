from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from tests.training.worlds import Recorder, checkerboard, clips, interactions, matrix_of, small
from training import comparison
from training.comparison import MODELS, compare
from training.data.dataset import DataSet, Interactions
from training.errors import ConfigurationError
from training.observer import Silence
from training.settings import OptimiserSettings

BOARD = checkerboard(12)
# The checkerboard with one more item of each user's own group held out for the test.
_pairs = list(zip(BOARD.train.user_rows.tolist(), BOARD.train.item_rows.tolist(), strict=True))
_TEST = [(user, [item for item in range(12) if item % 2 == user % 2][(user // 2 + 3) % 6]) for user in range(12)]
DATA = replace(BOARD, train=interactions([p for p in _pairs if p not in _TEST]), test=interactions(_TEST))
CLIPS = clips()


def figures(scores: np.ndarray, data: DataSet) -> dict[str, float]:  # type: ignore[type-arg]
    """Recall@20 and NDCG@20 on the test split by a plain sort, train items masked."""
    train, recalls, gains = matrix_of(data.train, data.n_users, data.n_items), [], []
    for user in range(data.n_users):
        truth = set(data.test.item_rows[data.test.user_rows == user].tolist())
        if truth:
            candidates = [v for v in range(data.n_items) if not train[user, v]]
            top = sorted(candidates, key=lambda v, u=user: (-scores[u, v], v))[:20]
            recalls.append(len(truth & set(top)) / len(truth))
            ideal = sum(1 / math.log2(place + 1) for place in range(1, min(20, len(truth)) + 1))
            gains.append(sum(1 / math.log2(p + 1) for p, v in enumerate(top, 1) if v in truth) / ideal)
    return {"recall@20": sum(recalls) / len(recalls), "ndcg@20": sum(gains) / len(gains)}


def test_popularity_has_the_figures_of_brute_force() -> None:
    found = compare(CLIPS, ["popularity"], 3, small(), Silence())["popularity"]
    counts = matrix_of(CLIPS.train, CLIPS.n_users, CLIPS.n_items).sum(0)
    expected = figures(np.tile(counts, (CLIPS.n_users, 1)), CLIPS)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    assert (found["seed_values"], found["recall@20_std"], found["ndcg@20_std"]) == ([0], 0.0, 0.0)  # it draws nothing


def test_itemknn_has_the_figures_of_the_setting_that_is_best_on_validation() -> None:
    data = CLIPS
    train = matrix_of(data.train, data.n_users, data.n_items)
    norms = np.sqrt(train.sum(0))
    by_setting = []
    for n_neighbors, shrink in comparison.ITEMKNN:
        table = (train.T @ train) / (np.outer(norms, norms) + shrink + 1e-30)
        np.fill_diagonal(table, 0)
        for row in table:
            row[sorted(range(data.n_items), key=lambda v, r=row: (-np.float32(r[v]), v))[n_neighbors:]] = 0
        scores = (train @ table).astype(np.float32)
        on_valid = figures(scores, replace(data, test=data.valid))
        by_setting.append((on_valid["ndcg@20"], figures(scores, data)))
    found = compare(data, ["itemknn"], 1, small(), Silence())["itemknn"]
    best = max(quality for quality, _ in by_setting)
    assert any(
        quality == pytest.approx(best) and {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-6)
        for quality, expected in by_setting
    )


def test_every_model_knows_the_groups_of_the_checkerboard_and_popularity_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quick = OptimiserSettings(learning_rate=0.05, batch_size=32, min_batches=1, max_epochs=30, evaluate_every=5)
    monkeypatch.setattr(comparison, "LIGHTGCN", replace(comparison.LIGHTGCN, optimiser=quick))
    names = ["popularity", "itemknn", "ease", "lightgcn", "kdiffe"]
    found = compare(DATA, names, 1, small(optimiser={"max_epochs": 20}), Silence())
    assert set(found) >= set(names)
    # Two items of the own group are not in train, one of them in the test split: the first two places.
    for name in names[1:]:
        assert float(str(found[name]["ndcg@20"])) >= 1 / math.log2(3), name
    # Every item has 4 users: popularity ranks by row alone.
    assert float(str(found["popularity"]["ndcg@20"])) < 1 / math.log2(3)


def test_the_summary_is_mean_and_sample_deviation_over_the_seeds(monkeypatch: pytest.MonkeyPatch) -> None:
    # A model that is right about the test split for the first so many users, by its seed.
    right = {0: 12, 1: 6, 2: 3}

    def luck(task: comparison.Task) -> object:
        known = right[task.settings.run.seed]
        scores = np.zeros((12, 12), np.float32)
        for user, item in _TEST:
            scores[user] = np.where(np.arange(12) == item, 1.0 if user < known else -1.0, 0.0)
        yield comparison.Candidate("luck", lambda users: scores[users].copy(), f"{known} right")

    monkeypatch.setattr(comparison, "MODELS", {**MODELS, "luck": luck})
    recorder = Recorder()
    found = compare(DATA, ["luck"], 3, small(), recorder)["luck"]
    assert (found["seeds"], found["seed_values"]) == (3, [0, 1, 2])
    assert found["chosen"] == ["12 right", "6 right", "3 right"]
    assert recorder.notes == ["luck, seed 0", "luck, seed 1", "luck, seed 2"]
    # 12 items less those of train: a wrong user's item comes last of them.
    last = [12 - int((DATA.train.user_rows == user).sum()) for user in range(12)]
    by_seed = [
        sum(1.0 if user < known else 1 / math.log2(last[user] + 1) for user in range(12)) / 12
        for known in right.values()
    ]
    mean = sum(by_seed) / 3
    assert found["ndcg@20"] == pytest.approx(mean)
    assert found["ndcg@20_std"] == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in by_seed) / 2))
    assert (found["recall@20"], found["recall@20_std"]) == (1.0, 0.0)


def test_kdiffe_is_reported_with_and_without_its_table() -> None:
    found = compare(DATA, ["kdiffe"], 2, small(item_item={"weight": 5.0}), Silence())
    assert list(found) == ["kdiffe", "kdiffe_without_table"]
    assert found["kdiffe"]["seed_values"] == [0, 1]
    assert "B × 5" in str(found["kdiffe"]["chosen"])
    assert list(compare(DATA, ["kdiffe"], 1, small(item_item={"method": "none"}), Silence())) == ["kdiffe"]


def test_the_test_split_does_not_take_part_in_any_choice() -> None:
    other = replace(CLIPS, test=Interactions(CLIPS.test.user_rows, CLIPS.test.item_rows[::-1].copy()))
    names = ["itemknn", "ease", "kdiffe"]
    one, two = (compare(data, names, 1, small(), Silence()) for data in (CLIPS, other))
    assert {name: row["chosen"] for name, row in one.items()} == {name: row["chosen"] for name, row in two.items()}


@pytest.mark.parametrize("names", [["nope"], ["popularity", "nope"], []])
def test_an_unknown_model_is_refused_with_the_known_ones(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"--models: unknown .*popularity, itemknn, ease") as error:
        compare(DATA, names, 1, small(), Silence())
    assert ("nope" in str(error.value)) == bool(names)


@pytest.mark.parametrize("missing", ["valid", "test"])
def test_a_set_without_validation_or_test_split_can_not_be_compared_on(missing: str) -> None:
    bare = replace(DATA, **{missing: Interactions.empty()})
    with pytest.raises(ConfigurationError, match="needs a validation and a test split"):
        compare(bare, ["popularity"], 1, small(), Silence())


def test_ease_is_refused_beyond_its_limit_before_its_memory_is_taken() -> None:
    with pytest.raises(ConfigurationError, match=r"12 items are more than item_item\.ease_limit = 11"):
        compare(DATA, ["ease"], 1, small(item_item={"ease_limit": 11}), Silence())
