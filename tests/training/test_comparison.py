from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import sparse

from tests.training.experiments.worlds import DATA
from tests.training.item_item.histories import kept_by_hand
from tests.training.worlds import Recorder, clips, knowledge_view, matrix_of, model_of, small
from training import comparison
from training.comparison import MODELS, Task, describe, models_for
from training.data.dataset import DataSet, Interactions
from training.errors import ConfigurationError
from training.evaluation import evaluate, scores_of
from training.experiments.lab import Lab, Run
from training.item_item import ease_weights
from training.observer import Silence
from training.results import Record, Results
from training.sampling import Sampler
from training.selecting import Tables, popularity_embeddings
from training.settings import OptimiserSettings, TrainingSettings

CLIPS = clips()


def trained(data: DataSet, names: list[str], settings: TrainingSettings, split: str = "test") -> dict[str, Record]:
    """The records of some models, seed 0."""
    place = Lab(data, Results(), Silence(), splits=(split,), command="")
    records = [record for name in names for record in place.run(Run("comparison", MODELS[name], settings, 0))]
    return {record.model: record for record in records}


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
    found = trained(CLIPS, ["popularity"], small())["popularity"].metrics
    counts = matrix_of(CLIPS.train, CLIPS.n_users, CLIPS.n_items).sum(0)
    expected = figures(np.tile(counts, (CLIPS.n_users, 1)), CLIPS)
    assert {key: found[key] for key in expected} == pytest.approx(expected)


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
    found = trained(data, ["itemknn"], small())["itemknn"].metrics
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
    found = trained(DATA, names, small(optimiser={"max_epochs": 20}))
    assert set(found) == {*names, "lightgcn_with_table"}
    # Two items of the own group are not in train, one of them in the test split: the first two places.
    for name in found.keys() - {"popularity"}:
        assert found[name].metrics["ndcg@20"] >= 1 / math.log2(3), name
    # Every item has 4 users: popularity ranks by row alone.
    assert found["popularity"].metrics["ndcg@20"] < 1 / math.log2(3)


def test_lightgcn_is_one_training_with_b_beside_it_and_without(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = OptimiserSettings(learning_rate=0.05, batch_size=32, min_batches=1, max_epochs=3, evaluate_every=1)
    monkeypatch.setattr(comparison, "LIGHTGCN", replace(comparison.LIGHTGCN, optimiser=quick))
    found = trained(CLIPS, ["lightgcn"], small(item_item={"weight": 5.0}))
    alone, with_table = found["lightgcn"], found["lightgcn_with_table"]
    assert with_table.without_table == {name: alone.metrics[name] for name in ("recall@20", "ndcg@20")}
    assert alone.without_table == {}
    assert with_table.chosen["table_weight"] == 5.0
    # Without a table at all, the same model.
    bare = trained(CLIPS, ["lightgcn"], small(item_item={"method": "none"}))
    assert bare["lightgcn"].metrics == alone.metrics


def test_lightgcns_reference_is_a_plain_lightgcn_written_out_here(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    data, users, items, n_epochs = CLIPS, CLIPS.n_users, CLIPS.n_items, 12
    base = comparison.LIGHTGCN_REFERENCE
    # Fewer columns and a faster rate, so that a few epochs show what is minimised.
    quick = replace(base.optimiser, learning_rate=0.02, max_epochs=n_epochs, evaluate_every=1)
    model = replace(base.model, width=8)
    monkeypatch.setattr(comparison, "LIGHTGCN_REFERENCE", replace(base, model=model, optimiser=quick))
    settings = small(run={"seed": 5})
    task = Task(Tables(data), settings, Silence(), tmp_path)
    (found,) = MODELS["lightgcn_reference"].train(task)

    # He et al. (SIGIR 2020): the mean of D^-1/2 A D^-1/2 applied 0, 1 and 2 times; the mean of -log σ(y_ui - y_uj) plus
    # 1e-4 ‖Θ_batch‖² / 2b; interactions alike; Adam. Its start and its draws are those of the run.
    start = knowledge_view(model_of(data, comparison.lightgcn_reference_settings(settings), 5))
    theta = torch.cat([start.user_embeddings, start.item_embeddings]).detach().requires_grad_()
    links = torch.from_numpy(matrix_of(data.train, users, items)).float()
    whole = torch.zeros(users + items, users + items)
    whole[:users, users:], whole[users:, :users] = links, links.T
    scale = whole.sum(1).clamp(min=1e-12) ** -0.5
    whole = scale[:, None] * whole * scale
    adam, sampler = torch.optim.Adam([theta], lr=0.02), Sampler(data.train, items, 1, 5)
    by_epoch = []
    for epoch in range(1, n_epochs + 1):
        drawn = sampler.epoch(epoch)
        u, i, j = (torch.from_numpy(rows) for rows in (drawn.users, drawn.positives, drawn.negatives[:, 0]))
        z = (theta + whole @ theta + whole @ (whole @ theta)) / 3
        margins = (z[u] * (z[users + i] - z[users + j])).sum(1)
        squares = torch.stack([theta[rows].pow(2).sum() for rows in (u, users + i, users + j)]).sum()
        adam.zero_grad()
        (torch.log1p(torch.exp(-margins)).mean() + 1e-4 * squares / (2 * len(u))).backward()  # type: ignore[no-untyped-call]
        adam.step()
        with torch.no_grad():
            z = (theta + whole @ theta + whole @ (whole @ theta)) / 3
            scores = (z[:users] @ z[users:].T).numpy()
        by_epoch.append((figures(scores, replace(data, test=data.valid))["ndcg@20"], scores))
    best = max(range(n_epochs), key=lambda epoch: by_epoch[epoch][0])
    assert found.epochs == best + 1
    np.testing.assert_allclose(found.scores(np.arange(users)), by_epoch[best][1], atol=1e-5)
    assert (found.chosen, found.without_table) == ({}, None)


def test_kdiffe_without_its_table_is_the_model_whose_table_weighs_nothing() -> None:
    # Selected by the graph part alone: beside B another epoch may be the best.
    alone = {"selected_by": "graph"}
    found = trained(CLIPS, ["kdiffe"], small(item_item={"weight": 5.0}, optimiser=alone))["kdiffe"]
    weightless = trained(CLIPS, ["kdiffe"], small(item_item={"weight": 0.0}))["kdiffe"]
    none = trained(CLIPS, ["kdiffe"], small(item_item={"method": "none"}))["kdiffe"]
    expected = {name: none.metrics[name] for name in ("recall@20", "ndcg@20")}
    assert found.without_table == weightless.without_table == expected
    assert none.without_table == {}
    assert found.metrics != none.metrics


def test_the_table_alone_lies_beside_popularity() -> None:
    given = {"method": "ease", "target_exponent": 1.0, "two_hop_weight": 0.0, "content": "none", "weight": 5.0}
    settings = small(item_item={**given, "user_exponent": 0.0})
    found = trained(CLIPS, ["item_item"], settings)["item_item"]
    train = matrix_of(CLIPS.train, CLIPS.n_users, CLIPS.n_items)
    table = kept_by_hand(ease_weights(sparse.csr_array(train, dtype=np.float32), settings.item_item.l2), 6)
    expected = figures(np.log1p(train.sum(0)) + 5 * train @ table, CLIPS)
    assert {key: found.metrics[key] for key in expected} == pytest.approx(expected)
    assert (found.without_table, found.epochs, found.chosen["table_weight"]) == ({}, 0, 5.0)


def test_the_table_alone_is_what_a_fit_selects_its_epochs_beside(tmp_path: Path) -> None:
    tables, settings = Tables(CLIPS), small(item_item={"n_selections": 1})
    (found,) = MODELS["item_item"].train(Task(tables, settings, Silence(), tmp_path))
    beside = tables.preliminary(settings.item_item)
    assert beside is not None
    popularity = popularity_embeddings(tables.history)
    quality = beside.quality(scores_of(popularity, CLIPS.n_users, tables.history, None))
    assert found.chosen is not None
    assert found.chosen["table_weight"] > 0
    # Weights are powers of two of a unit there, finer ones of another here: of so few users nearly the same figure.
    assert evaluate(found.scores, tables.split)["ndcg@20"] == pytest.approx(quality, rel=0.02)
    assert quality > 0


def test_the_table_alone_is_refused_where_there_is_none() -> None:
    for table in ({"method": "none"}, {"weight": 0.0}):
        with pytest.raises(ConfigurationError, match=r"item_item: the settings ask for no B"):
            models_for(["item_item"], CLIPS, small(item_item=table), Silence())


def test_the_test_split_does_not_take_part_in_any_choice() -> None:
    other = replace(CLIPS, test=Interactions(CLIPS.test.user_rows, CLIPS.test.item_rows[::-1].copy()))
    one, two = (trained(data, ["itemknn", "ease", "kdiffe"], small()) for data in (CLIPS, other))
    assert {name: (r.chosen, r.epochs) for name, r in one.items()} == {n: (r.chosen, r.epochs) for n, r in two.items()}


@pytest.mark.parametrize("names", [["nope"], ["popularity", "nope"], []])
def test_an_unknown_model_is_refused_with_the_known_ones(names: list[str]) -> None:
    with pytest.raises(ConfigurationError, match=r"--models: unknown .*popularity, itemknn, ease") as error:
        models_for(names, DATA, small(), Silence())
    assert ("nope" in str(error.value)) == bool(names)


def test_a_model_that_does_not_fit_the_set_is_refused_by_name_and_left_out_by_default() -> None:
    limited = small(item_item={"ease_limit": 11})
    with pytest.raises(ConfigurationError, match=r"12 items are more than item_item\.ease_limit = 11"):
        models_for(["ease"], DATA, limited, Silence())
    with pytest.raises(ConfigurationError, match="no feature vectors"):
        models_for(["diffmm"], DATA, limited, Silence())
    recorder = Recorder()
    assert models_for(None, DATA, limited, recorder) == ["popularity", "itemknn", "lightgcn", "kdiffe"]
    assert [note.split()[0] for note in recorder.notes] == ["ease", "diffmm"]
    assert models_for(["lightgcn_reference"], DATA, limited, recorder) == ["lightgcn_reference"]  # named only
    assert models_for(["kdiffe", "ease", "kdiffe"], DATA, small(), recorder) == ["kdiffe", "ease"]


def test_what_was_chosen_is_one_short_text() -> None:
    assert describe(7, {"table_weight": 12.3456, "l2": 50.0}) == "7 epochs, B × 12.35, λ = 50"
    assert describe(0, {"n_neighbors": 20, "shrink": 10.0}) == "20 neighbors, shrink 10"
    assert describe(3, {"table_weight": 0.0, "l2": -1.0}) == "3 epochs"
    taken_in = {"content": "relation.word", "content_gram": 10.0, "content_weight": 0.0}
    assert describe(0, {"l2": 50.0, **taken_in}) == "λ = 50, content relation.word, α = 10"
    added = {"content": "features", "content_gram": 0.0, "content_weight": 0.25}
    assert describe(2, added) == "2 epochs, content features, share = 0.25"
    assert describe(2, {"content": "none", "content_weight": 0.0}) == "2 epochs"
    assert describe(2, {"l2": 50.0, "two_hop_weight": 0.5}) == "2 epochs, λ = 50, two hops 0.5"
    assert describe(2, {"two_hop_weight": 0.0}) == "2 epochs"
    members = [{"l2": 20.0, "content": "none"}, {"l2": 50.0, "content": "features"}]
    assert describe(2, {"l2": -1.0, "mean_of": members}) == (
        "2 epochs, mean of 2 tables, λ = 20 to 50, content features"
    )
    assert describe(0, {"mean_of": members[:1]}) == "mean of 1 tables, λ = 20"
