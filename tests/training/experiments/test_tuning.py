from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tests.training.worlds import Recorder, clips, small, without_graph
from training.data.dataset import DataSet, Interactions
from training.errors import ConfigurationError, TrainingError
from training.experiments import tuning
from training.experiments.spaces import Dimension, Space
from training.experiments.tuning import Plan, Study, idle_settings, locked, objective_of
from training.fitting import Epoch, Fit
from training.results import Results, read_records
from training.selecting import Tables
from training.settings import TrainingSettings

CLIPS = clips()
SPACE = Space(
    (
        Dimension("contrast.weight", 0.0, 1.0),
        Dimension("model.views", choices=(("knowledge",), ("knowledge", "multimodal"))),
    ),
    {"model.n_layers": 1},
)


class Hill:
    """In the place of a training: NDCG@20 is 1 - (θ1 - .3)², the curve rises to it epoch by epoch."""

    def __init__(self) -> None:
        self.calls: list[tuple[TrainingSettings, DataSet]] = []
        self.interrupt_at, self.fail_at = -1, -1

    def __call__(
        self, data: DataSet, settings: TrainingSettings, observer: Any, folder: Path, *, tables: Tables
    ) -> Any:
        assert tables.data is data
        number = len(self.calls)
        self.calls.append((settings, data))
        if number == self.fail_at:
            raise TrainingError("The loss of epoch 1 is nan")
        quality = 1 - (settings.contrast.weight - 0.3) ** 2
        observer.phase("fitting", 20, 0.8)
        for epoch in range(1, 21):
            reached = quality * epoch / 20
            observer.advance(1, {"ndcg@20": reached, "best": reached})
            if number == self.interrupt_at and epoch == 3:
                raise KeyboardInterrupt

        metrics = {"recall@20": quality / 2, "ndcg@20": quality, "n_users": 3}
        trained = SimpleNamespace(metrics=metrics, fit=Fit(20, {}, (Epoch(20, 0.0, 0.0),)))
        return SimpleNamespace(trained=trained)


@pytest.fixture
def hill(monkeypatch: pytest.MonkeyPatch) -> Hill:
    made = Hill()
    monkeypatch.setattr(tuning, "train_on", made)
    return made


def plan(**changes: Any) -> Plan:
    return replace(Plan(CLIPS, small(contrast={"weight": 0.9}), SPACE, pruner="none"), **changes)


def search(path: Path, n: int, of: Plan | None = None, results: Results | None = None) -> tuple[Study, Recorder]:
    recorder = Recorder()
    study = Study(of or plan(), path)
    study.run(n, recorder, lambda _done, _total: None, Results() if results is None else results, "kdiffe tune")
    return study, recorder


@pytest.mark.parametrize(("name", "n"), [("study.journal", 12), ("study.sqlite", 3)])
def test_the_base_comes_first_and_the_best_trial_wins(name: str, n: int, hill: Hill, tmp_path: Path) -> None:
    study, _ = search(tmp_path / name, n)
    weights = [settings.contrast.weight for settings, _ in hill.calls]
    assert weights[0] == 0.9
    assert hill.calls[0][0].model.views == ("knowledge",)
    winner = study.winner()
    assert winner is not None
    best = min(weights, key=lambda w: abs(w - 0.3))
    assert winner.values["contrast.weight"] == winner.settings.contrast.weight == best
    assert winner.settings.model.views in {("knowledge",), ("knowledge", "multimodal")}
    assert {settings.model.n_layers for settings, _ in hill.calls} == {1}
    assert winner.value == winner.metrics["ndcg@20"] == pytest.approx(1 - (best - 0.3) ** 2)
    assert (winner.n_trials, winner.n_pruned) == (n, 0)


def test_one_seed_gives_one_search(hill: Hill, tmp_path: Path) -> None:
    for name in ("one", "two"):
        search(tmp_path / name, 9)
    weights = [settings.contrast.weight for settings, _ in hill.calls]
    assert weights[:9] == weights[9:]


def test_a_study_goes_on_to_the_number_of_trials_and_draws_others(hill: Hill, tmp_path: Path) -> None:
    search(tmp_path / "s", 4)
    search(tmp_path / "s", 4)
    assert len(hill.calls) == 4
    search(tmp_path / "s", 7)
    weights = [settings.contrast.weight for settings, _ in hill.calls]
    assert len(weights) == len(set(weights)) == 7


def test_an_interrupted_trial_is_tried_again(hill: Hill, tmp_path: Path) -> None:
    hill.interrupt_at = 2
    with pytest.raises(KeyboardInterrupt):
        search(tmp_path / "s", 4)
    study, _ = search(tmp_path / "s", 4)
    weights = [settings.contrast.weight for settings, _ in hill.calls]
    assert weights[3] == weights[2]
    winner = study.winner()
    assert winner is not None
    assert winner.n_trials == 4


def test_a_trial_that_a_killed_process_left_is_tried_again(hill: Hill, tmp_path: Path) -> None:
    study, _ = search(tmp_path / "s", 2)
    left = study._study.ask(study._distributions())
    search(tmp_path / "s", 3)
    assert hill.calls[2][0].contrast.weight == left.params["contrast.weight"]


def test_a_trial_that_fails_counts_and_the_search_goes_on(hill: Hill, tmp_path: Path) -> None:
    hill.fail_at = 1
    study, recorder = search(tmp_path / "s", 3)
    assert "trial 1: The loss of epoch 1 is nan" in recorder.notes
    assert len(hill.calls) == 3
    winner = study.winner()
    assert winner is not None
    assert winner.trial != 1


def test_a_search_without_a_single_training_says_why(hill: Hill, tmp_path: Path) -> None:
    hill.fail_at = 0
    with pytest.raises(TrainingError, match=r"No trial could be trained.*is nan"):
        search(tmp_path / "s", 1)


def test_a_trial_that_falls_behind_the_median_is_pruned(hill: Hill, tmp_path: Path) -> None:
    study, recorder = search(tmp_path / "s", 16, plan(pruner="median"))
    winner = study.winner()
    assert winner is not None
    assert winner.n_pruned > 0
    assert sum("pruned" in note for note in recorder.notes) == winner.n_pruned
    # A pruned trial ends after its warm-up and before its last epoch: fewer figures than epochs.
    assert len(recorder.figures) < 16 * 20


def test_every_trial_is_recorded(hill: Hill, tmp_path: Path) -> None:
    search(tmp_path / "s", 3, plan(n_splits=2), Results(tmp_path / "r.jsonl"))
    records = read_records(tmp_path / "r.jsonl")
    assert [record.value for record in records] == [0, 1, 2]
    assert records[0].chosen == {"contrast.weight": 0.9, "model.views": ["knowledge"]}
    assert records[0].metrics["objective"] == records[0].metrics["ndcg@20"] == pytest.approx(1 - 0.36)
    assert (records[0].kind, records[0].split, records[0].facts["splits"]) == ("tuning", "valid", 2)


def test_each_split_has_a_seed_of_its_own_and_never_the_test_split(hill: Hill, tmp_path: Path) -> None:
    search(tmp_path / "s", 1, plan(n_splits=3))
    assert [settings.run.seed for settings, _ in hill.calls] == [0, 1, 2]
    assert [len(data.test) for _, data in hill.calls] == [0, 0, 0]
    assert len({data.valid.item_rows.tobytes() for _, data in hill.calls}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"n_splits": 2},
        {"objective": "both"},
        {"base": small(model={"width": 9})},
        {"data": replace(CLIPS, train=CLIPS.train.take(np.arange(50)))},
        {"space": replace(SPACE, fixed={})},
    ],
)
def test_a_study_of_something_else_is_refused(changes: dict[str, Any], hill: Hill, tmp_path: Path) -> None:
    search(tmp_path / "s", 1)
    with pytest.raises(ConfigurationError, match="a study of other data"):
        Study(plan(**changes), tmp_path / "s")


def test_another_test_split_is_the_same_study(hill: Hill, tmp_path: Path) -> None:
    search(tmp_path / "s", 1)
    Study(plan(data=replace(CLIPS, test=Interactions.empty())), tmp_path / "s")


def test_a_file_that_is_no_study_is_refused(tmp_path: Path) -> None:
    for name in ("s.journal", "s.sqlite"):
        (tmp_path / name).write_text("no study\n")
        with pytest.raises(ConfigurationError, match="can't be used"):
            Study(plan(), tmp_path / name)


def test_a_study_belongs_to_one_process_at_a_time(tmp_path: Path) -> None:
    with locked(tmp_path / "s"), pytest.raises(ConfigurationError, match="another kdiffe tune"), locked(tmp_path / "s"):
        pass
    with locked(tmp_path / "s"):
        pass


# ---- settings that change nothing ------------------------------------------------------------------------------------

BARE = replace(without_graph(CLIPS), features={})
WIDTH = Dimension("model.width", 4, 8)
KEPT = Dimension("diffusion.n_kept", 1, 8)
WARMTH = Dimension("contrast.temperature", 0.1, 1.0)


@pytest.mark.parametrize(
    ("data", "dimensions", "fixed", "idle"),
    [
        (CLIPS, (KEPT, WARMTH, WIDTH), {}, []),
        (BARE, (KEPT, WARMTH, WIDTH), {}, ["diffusion.n_kept", "contrast.temperature"]),
        # What has an effect with some values of another searched setting is searched.
        (BARE, (KEPT, WARMTH, Dimension("contrast.view", choices=("generated", "noise"))), {}, ["diffusion.n_kept"]),
        (BARE, (WARMTH,), {"contrast.view": "noise"}, []),
        (CLIPS, (WARMTH, Dimension("contrast.weight", 0.0, 1.0)), {}, []),
        (CLIPS, (WARMTH, WIDTH), {"contrast.weight": 0.0}, ["contrast.temperature"]),
        (CLIPS, (KEPT, Dimension("model.kind", choices=("kdiffe", "diffmm"))), {"contrast.view": "noise"}, []),
        (CLIPS, (KEPT, Dimension("model.knowledge", choices=(False, True))), {}, []),
        (CLIPS, (KEPT, WIDTH), {"model.knowledge": False}, ["diffusion.n_kept"]),
        (
            CLIPS,
            (Dimension("diffusion.n_steps", 2, 9), Dimension("diffusion.graph", choices=("random", "diffusion"))),
            {},
            [],
        ),
    ],
)
def test_only_what_changes_nothing_whatever_the_others_values_is_left_out(
    data: DataSet, dimensions: tuple[Dimension, ...], fixed: dict[str, Any], idle: list[str]
) -> None:
    assert idle_settings(data, small(), Space(dimensions, fixed)) == idle


def test_what_changes_nothing_is_not_searched_and_the_base_comes_first_all_the_same(hill: Hill, tmp_path: Path) -> None:
    space = Space((WIDTH, replace(KEPT, low=6)))  # the base's 4 lies outside
    study, _ = search(tmp_path / "s", 3, plan(data=BARE, space=space))
    assert study.left_out == ["diffusion.n_kept"]
    assert hill.calls[0][0] == replace(small(contrast={"weight": 0.9}), run=hill.calls[0][0].run)
    assert {settings.diffusion.n_kept for settings, _ in hill.calls} == {4}
    winner = study.winner()
    assert winner is not None
    assert list(winner.values) == ["model.width"]


def test_a_search_of_nothing_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"none of its settings changes anything \(diffusion.n_kept\).*`plain`"
    ):
        Study(plan(data=BARE, space=Space((KEPT,))), tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_a_study_that_searched_what_changes_nothing_goes_on(
    hill: Hill, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of = plan(data=BARE, space=Space((WIDTH, KEPT)))
    monkeypatch.setattr(tuning, "idle_settings", lambda *_: [])  # as it was before they were left out
    search(tmp_path / "s", 2, of)
    monkeypatch.undo()
    monkeypatch.setattr(tuning, "train_on", hill)
    study, _ = search(tmp_path / "s", 4, of)
    assert len(hill.calls) == 4
    winner = study.winner()
    assert winner is not None
    assert winner.n_trials == 4
    assert winner.values.keys() <= {"model.width", "diffusion.n_kept"}


def test_both_is_the_geometric_mean() -> None:
    metrics = {"recall@20": 0.09, "ndcg@20": 0.04}
    assert objective_of(metrics, "both") == pytest.approx(0.06)
    assert (objective_of(metrics, "ndcg@20"), objective_of(metrics, "recall@20")) == (0.04, 0.09)
    assert math.isclose(objective_of({"recall@20": 0.09 * 1.02, "ndcg@20": 0.04}, "both") / 0.06, 1.01, abs_tol=1e-4)
