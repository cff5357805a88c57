from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.training.experiments.worlds import DATA, Lucky, N, lab
from tests.training.worlds import Recorder, small
from training import comparison
from training.comparison import MODELS
from training.experiments import compare as module
from training.experiments.compare import Comparison, compare, comparison_of
from training.experiments.lab import Run
from training.results import Record, Results
from training.significance import compare_paired, holm


def record(model: str, seed: int, ndcg: float) -> Record:
    return Record("comparison", "d", "f", model, "", None, seed, "test", "s", {"recall@20": 0.5, "ndcg@20": ndcg})


def test_a_row_is_mean_and_sample_deviation_over_the_seeds() -> None:
    place, lucky = lab(), Lucky({0: 12, 1: 6, 2: 3})
    records = [r for seed in range(3) for r in place.run(Run("comparison", lucky.model(), small(), seed))]
    row = comparison_of(place, records, "test").to_json()["lucky"]
    assert (row["seeds"], row["seed_values"]) == (3, [0, 1, 2])
    assert row["chosen"] == ["2 epochs, B × 3"] * 3
    # 12 items less those of train are ranked: a wrong user's item comes last of them.
    last = [N - int((DATA.train.user_rows == user).sum()) for user in range(N)]
    by_seed = [
        sum(1.0 if user < known else 1 / math.log2(last[user] + 1) for user in range(N)) / N for known in (12, 6, 3)
    ]
    mean = sum(by_seed) / 3
    assert row["ndcg@20"] == pytest.approx(mean)
    assert row["ndcg@20_std"] == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in by_seed) / 2))
    assert (row["recall@20"], row["recall@20_std"]) == (1.0, 0.0)


def test_models_that_draw_run_with_every_seed_and_the_others_once() -> None:
    own = small(model={"width": 9})
    found = compare(["popularity", "kdiffe", "diffmm"], 2, {"kdiffe": small(run={"seed": 4}), "diffmm": own})
    assert [(run.model.names[0], run.seed) for run in found] == [
        ("popularity", 0),
        ("kdiffe", 4),
        ("kdiffe", 5),
        ("diffmm", 0),
        ("diffmm", 1),
    ]
    assert {run.settings.model.width for run in found if run.model is MODELS["diffmm"]} == {9}


def test_the_best_peer_is_found_for_each_metric_and_yardsticks_are_no_peers() -> None:
    means = {"ease": [0.3], "lightgcn": [0.2, 0.5], "lightgcn_with_table": [0.9], "kdiffe": [0.8]}
    records = {name: [record(name, seed, v) for seed, v in enumerate(values)] for name, values in means.items()}
    found = Comparison(records, [])
    assert found.best_peer("ndcg@20") == "lightgcn"
    assert Comparison({"kdiffe": records["kdiffe"]}, []).best_peer("ndcg@20") is None


def test_kdiffe_is_compared_in_pairs_with_every_row_and_holm_is_over_all_of_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    place = lab()
    names = ["popularity", "ease", "kdiffe"]
    settings = small(item_item={"weight": 5.0})
    runs = compare(names, 2, {"kdiffe": settings})
    records = [r for run in runs for r in place.run(run)]
    found = comparison_of(place, records, "test")
    pairs = {(r.model, r.value): r for r in found.significance if r.facts["metric"] == "ndcg@20"}
    assert list(pairs) == [("kdiffe", "popularity"), ("kdiffe", "ease"), ("kdiffe", "kdiffe_without_table")]
    values = {}
    for name in names:
        of_users = place.values(found.records[name], "ndcg@20")
        assert of_users is not None
        values[name] = of_users[1]
    expected = compare_paired(values["kdiffe"], values["popularity"])
    one = pairs["kdiffe", "popularity"]
    assert one.metrics["difference"] == expected.difference
    assert (one.metrics["low"], one.metrics["high"]) == (expected.low, expected.high)
    assert one.facts["seeds"] == [[0, 1], [0]]
    assert one.facts["family"] == len(found.significance) == 6
    assert [r.metrics["p_holm"] for r in found.significance] == holm([r.metrics["p_t"] for r in found.significance])
    rows = found.to_json()
    assert set(rows) == {*names, "kdiffe_without_table"}
    assert one.metrics["difference"] == pytest.approx(rows["kdiffe"]["ndcg@20"] - rows["popularity"]["ndcg@20"])


def test_the_same_comparison_is_recorded_once_and_a_larger_one_again() -> None:
    results = Results()
    place = lab(results)

    def significance(n_seeds: int) -> int:
        runs = compare(["popularity", "kdiffe"], n_seeds, {"kdiffe": small()})
        comparison_of(place, [r for run in runs for r in place.run(run)], "test")
        return sum(r.kind == "significance" for r in results)

    one = significance(1)
    assert (significance(1), one) == (one, one)
    assert significance(2) == 2 * one


def test_lost_users_leave_the_table_and_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    recorder = Recorder()
    place = lab(to=recorder)
    runs = compare(["popularity", "kdiffe"], 1, {"kdiffe": small(item_item={"method": "none"})})
    records = [r for run in runs for r in place.run(run)]
    monkeypatch.setattr(place.results, "users", {}.get)
    found = comparison_of(place, records, "test")
    assert (found.significance, set(found.to_json())) == ([], {"popularity", "kdiffe"})
    assert "values of a run are lost" in recorder.notes[-1]


def test_a_split_with_items_of_one_user_has_a_table_and_no_paired_comparison() -> None:
    recorder = Recorder()
    place = lab(data=replace(DATA, test=DATA.test.take(DATA.test.user_rows == 0)), to=recorder)
    runs = compare(["popularity", "kdiffe"], 1, {"kdiffe": small(item_item={"method": "none"})})
    found = comparison_of(place, [r for run in runs for r in place.run(run)], "test")
    assert (found.significance, set(found.to_json())) == ([], {"popularity", "kdiffe"})
    assert "one user alone" in recorder.notes[-1]


def test_every_model_that_is_trained_unnamed_is_a_peer() -> None:
    unnamed = {name for name, model in comparison.MODELS.items() if not model.named_only}
    assert set(module.PEERS) == unnamed - {"kdiffe"}


def test_on_drawn_splits_every_model_has_every_seed_and_a_division_s_runs_stand_together() -> None:
    found = compare(["popularity", "kdiffe"], 2, {"kdiffe": small(run={"seed": 4})}, ("drawn",))
    assert [(run.model.names[0], run.seed) for run in found] == [
        ("popularity", 4),
        ("kdiffe", 4),
        ("popularity", 5),
        ("kdiffe", 5),
    ]
