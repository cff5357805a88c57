from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE

import numpy as np
import pytest

from tests.training.experiments.worlds import DATA, Lucky, N, lab
from tests.training.worlds import Recorder, small
from training.comparison import MODELS, Candidate, Model, Task
from training.data.dataset import DataSet, Interactions
from training.data.split import resplit
from training.errors import ConfigurationError
from training.experiments.lab import Run
from training.results import Results, read_records


def runs(lucky: Lucky, *seeds: int) -> list[Run]:
    return [Run("comparison", lucky.model(), small(), seed) for seed in seeds]


def test_a_run_s_record_has_the_figures_of_arithmetic_with_and_without_b() -> None:
    place = lab()
    (record,) = place.run(runs(Lucky({5: 9}), 5)[0])
    # All items are ranked but the 4 of train; one is in the test split. 8 are left, so Recall@20 is always 1; a wrong
    # user's item comes last of them.
    left = [N - int((DATA.train.user_rows == user).sum()) for user in range(N)]
    gain = [1.0 if user < 9 else 1 / math.log2(left[user] + 1) for user in range(N)]
    bare = [1 / math.log2(left[user] + 1) for user in range(N)]
    assert record.metrics["ndcg@20"] == pytest.approx(sum(gain) / N)
    assert record.metrics["recall@20"] == 1.0
    assert record.without_table == pytest.approx({"recall@20": 1.0, "ndcg@20": sum(bare) / N})
    assert (record.seed, record.split, record.epochs, record.chosen) == (5, "test", 2, {"table_weight": 3.0})
    assert {"precision@20", "mrr@20", "coverage@20", "novelty@20"} <= set(record.metrics)
    found = place.values([record], "ndcg@20")
    assert found is not None
    by_user = dict(zip(found[0].tolist(), found[1][0].tolist(), strict=True))
    assert by_user == pytest.approx({f"u{user}": gain[user] for user in range(N)}, abs=1e-6)


def test_what_stands_in_the_records_is_not_trained_again(tmp_path: Path) -> None:
    first, second = Lucky({0: 12, 1: 6}), Lucky({0: 12, 1: 6})
    place = lab(Results(tmp_path / "r.jsonl"))
    records = [place.run(run) for run in runs(first, 0, 1)]
    again = lab(Results(tmp_path / "r.jsonl"))
    assert [again.run(run) for run in runs(second, 0, 1)] == records
    assert (first.trained, second.trained) == ([0, 1], [])
    assert len(read_records(tmp_path / "r.jsonl")) == 2


def test_a_run_that_another_process_is_at_is_refused_and_free_again_when_that_one_ends(tmp_path: Path) -> None:
    lucky, results = Lucky({0: 12, 1: 6}), Results(tmp_path / "r.jsonl")
    first, other = runs(lucky, 0, 1)
    place = lab(results)
    folder = results.folder(place._blank(first, "lucky", "test").key)
    assert folder is not None
    holding = "import fcntl, os, sys; fcntl.flock(os.open(sys.argv[1], 0), fcntl.LOCK_EX); print(flush=True); input()"
    folder.mkdir(parents=True)
    with subprocess.Popen([sys.executable, "-c", holding, folder], stdin=PIPE, stdout=PIPE) as held:
        assert held.stdout is not None
        held.stdout.readline()
        with pytest.raises(ConfigurationError, match="another kdiffe is at this run"):
            place.run(first)
        place.run(other)
        held.kill()
    place.run(first)
    assert lucky.trained == [1, 0]
    assert not (tmp_path / "r.runs").exists()


@pytest.mark.parametrize("change", ["seed", "settings", "value", "data", "split"])
def test_another_run_is_trained(change: str, tmp_path: Path) -> None:
    lucky = Lucky({0: 12, 1: 6})
    results = Results(tmp_path / "r.jsonl")
    (run,) = runs(lucky, 0)
    lab(results).run(run)
    data, splits = DATA, ("test",)
    if change == "seed":
        run = replace(run, seed=1)
    elif change == "settings":
        run = replace(run, settings=small(model={"width": 9}))
    elif change == "value":
        run = replace(run, parameter="xi", value=1.0)
    elif change == "data":
        data = replace(DATA, test=DATA.test.take(DATA.test.user_rows < 5))
    else:
        splits = ("valid",)
    lab(results, data=data, splits=splits).run(run)
    assert len(lucky.trained) == 2


def test_the_full_model_of_an_ablation_is_not_trained_again_where_it_was_compared(tmp_path: Path) -> None:
    lucky, results = Lucky({0: 12, 1: 6}), Results(tmp_path / "r.jsonl")
    (compared,) = runs(lucky, 0)
    (record,) = lab(results).run(compared)
    full = replace(compared, kind="ablation", parameter="variant", value="full", base="b")
    place = lab(results)
    (same,) = place.run(full)
    assert (same.kind, same.parameter, same.value, same.facts["base"]) == ("ablation", "variant", "full", "b")
    assert (same.metrics, same.seconds, same.at) == (record.metrics, record.seconds, record.at)
    assert place.values([same], "ndcg@20") is not None
    assert [found.key for found in read_records(tmp_path / "r.jsonl")] == [record.key, same.key]
    # Another seed is trained, and so is this one where the users' values, which differences need, are lost.
    place.run(replace(full, seed=1))
    other = Results(tmp_path / "without.jsonl")
    other.append([(record, None)])
    lab(other).run(full)
    assert lucky.trained == [0, 1, 0]


def test_a_run_that_stands_is_part_of_what_is_varied_now(tmp_path: Path) -> None:
    """ξ = 0 is the same run whatever the full model's ξ is: its table must not lose it."""
    lucky, path = Lucky({0: 12}), tmp_path / "r.jsonl"
    (compared,) = runs(lucky, 0)
    varied = replace(compared, kind="ablation", parameter="variant", value="KDiffE_1", base="with ξ = 1")
    (before,) = lab(Results(path)).run(varied)
    place = lab(Results(path))
    (now,) = place.run(replace(varied, base="with ξ = 4"))
    assert lucky.trained == [0]
    assert now == replace(before, facts={**before.facts, "base": "with ξ = 4"})
    assert place.values([now], "ndcg@20") is not None
    assert [r.facts["base"] for r in read_records(path)] == ["with ξ = 1", "with ξ = 4"]
    lab(Results(path)).run(replace(varied, base="with ξ = 4"))
    assert len(read_records(path)) == 2


def test_one_training_is_evaluated_on_every_split() -> None:
    lucky = Lucky({0: 12})
    records = lab(splits=("valid", "test")).run(runs(lucky, 0)[0])
    assert [record.split for record in records] == ["valid", "test"]
    assert lucky.trained == [0]


def test_an_interrupted_run_leaves_the_finished_ones_and_the_next_call_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    place, lucky = lab(Results(path)), Lucky({0: 12, 1: 6, 2: 3}, interrupted_at=1)
    with pytest.raises(KeyboardInterrupt):
        [place.run(run) for run in runs(lucky, 0, 1, 2)]
    assert [record.seed for record in read_records(path)] == [0]
    lucky.interrupted_at = None
    again = lab(Results(path))
    assert [again.run(run)[0].seed for run in runs(lucky, 0, 1, 2)] == [0, 1, 2]
    assert lucky.trained == [0, 1, 2]


def test_an_interrupted_training_goes_on_from_its_checkpoint_with_the_same_figures(tmp_path: Path) -> None:
    settings = small(item_item={"weight": 5.0}, optimiser={"max_epochs": 6})
    run = Run("comparison", MODELS["kdiffe"], settings, 0)
    (straight,) = lab().run(run)
    stopped = Recorder("fitting", 3)
    with pytest.raises(KeyboardInterrupt):
        lab(Results(tmp_path / "r.jsonl"), to=stopped).run(run)
    assert list((tmp_path / "r.runs").glob("**/checkpoint.safetensors"))
    resumed = Recorder()
    (record,) = lab(Results(tmp_path / "r.jsonl"), to=resumed).run(run)
    assert record.metrics == straight.metrics
    assert len([f for f in resumed.figures if "loss" in f]) == 3  # six epochs less the three that stood there
    assert not (tmp_path / "r.runs").exists()


def test_lambda_is_selected_once_and_the_record_is_the_same(tmp_path: Path) -> None:
    settings = small(item_item={"l2": -1.0, "method": "ease"})
    place = lab(Results(tmp_path / "r.jsonl"))
    first, second = (place.run(Run("comparison", MODELS["kdiffe"], settings, seed))[0] for seed in (0, 1))
    assert first.chosen["l2"] == second.chosen["l2"] > 0
    (alone,) = lab().run(Run("comparison", MODELS["kdiffe"], settings, 1))
    assert alone.metrics == second.metrics
    assert alone.settings_digest == second.settings_digest


def test_users_that_are_lost_are_told(tmp_path: Path) -> None:
    (record,) = lab(Results(tmp_path / "r.jsonl")).run(runs(Lucky({0: 12}), 0)[0])
    for kept in (tmp_path / "r.users").iterdir():
        kept.unlink()
    assert lab(Results(tmp_path / "r.jsonl")).values([record], "ndcg@20") is None


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (replace(DATA, valid=Interactions.empty()), "needs a valid split"),
        (replace(DATA, test=Interactions.empty()), "needs a test split"),
        (replace(DATA, train=Interactions.empty()), "no train interactions"),
    ],
)
def test_a_set_without_a_split_is_refused(data: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        lab(data=data)  # type: ignore[arg-type]


def test_drawn_trains_and_evaluates_each_seed_on_the_division_of_its_number(tmp_path: Path) -> None:
    seen: dict[int, DataSet] = {}

    def knowing(task: Task) -> Iterator[Candidate]:
        data = seen[task.settings.run.seed] = task.tables.data
        scores = np.zeros((N, N), np.float32)
        scores[data.valid.user_rows, data.valid.item_rows] = 1.0
        yield Candidate("knowing", lambda users: scores[users].copy())

    model = Model(knowing, ("knowing",), True, lambda _: {}, lambda _d, _s: "")
    place = lab(Results(tmp_path / "r.jsonl"), splits=("drawn",))
    records = [record for seed in (0, 3, 4) for record in place.run(Run("comparison", model, small(), seed))]
    for seed, data in seen.items():
        wanted = resplit(DATA, seed)
        for part, other in ((data.train, wanted.train), (data.valid, wanted.valid)):
            assert (part.user_rows.tolist(), part.item_rows.tolist()) == (
                other.user_rows.tolist(),
                other.item_rows.tolist(),
            )
    assert seen[0].valid == DATA.valid
    # Every item that is to be found comes first, which is so in its own division alone.
    assert [(r.seed, r.split, r.metrics["ndcg@20"]) for r in records] == [(s, "drawn", 1.0) for s in (0, 3, 4)]
    assert len({record.fingerprint for record in records}) == 1
    found = place.values(records, "ndcg@20")
    assert found is not None
    assert found[1].shape == (3, N)


@pytest.mark.parametrize("splits", [("drawn", "valid"), ("nope",)])
def test_drawn_stands_alone_and_other_names_are_refused(splits: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="choose valid, test, both or drawn"):
        lab(splits=splits)
