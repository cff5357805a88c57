from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.worlds import Recorder, clips, small, without_graph
from training.errors import ConfigurationError
from training.experiments import timing
from training.experiments.operations import operations_of
from training.experiments.timing import some_users, time_epochs, timings, usual
from training.results import Results, read_records
from training.row_diffusion import SparseRows, operations

CLIPS = clips()


def test_t_and_users_are_varied_one_at_a_time() -> None:
    found = timings(CLIPS, small(diffusion={"n_steps": 7}), [5, 10], [10, 0.5, 1.0])
    measured = [(t.parameter, t.value, t.settings.diffusion.n_steps, t.data.n_users) for t in found]
    assert measured == [
        ("steps", 5, 5, 40),
        ("steps", 10, 10, 40),
        ("users", 10, 7, 10),
        ("users", 20, 7, 20),
        ("users", 1, 7, 1),
    ]


def test_by_default_a_small_set_is_cut_to_shares_and_ends_with_all() -> None:
    assert [t.value for t in timings(CLIPS, small(), [], None)] == [10, 20, 30, 40]


def test_by_default_a_large_set_has_the_paper_s_numbers_of_users(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "USERS", (10, 15, 50))
    assert [t.value for t in timings(CLIPS, small(), [], None)] == [10, 15, 40]


@pytest.mark.parametrize(("steps", "users"), [([0], []), ([], [41]), ([], [-1]), ([], [0])])
def test_what_the_set_or_the_settings_don_t_have_is_refused(steps: list[int], users: list[float]) -> None:
    with pytest.raises(ConfigurationError):
        timings(CLIPS, small(), steps, users)


def test_without_a_diffusion_nothing_is_measured_against_t_unless_it_is_asked_for() -> None:
    noised = small(contrast={"view": "noise"})
    assert {t.parameter for t in timings(CLIPS, noised, None, None)} == {"users"}
    assert {t.parameter for t in timings(CLIPS, small(), None, [])} == {"steps"}
    with pytest.raises(ConfigurationError, match="has no diffusion"):
        timings(CLIPS, noised, [5], [])


def test_the_usual_time_holds_its_share_of_the_epochs_that_generate_a_graph() -> None:
    assert usual([2.0, 3.0, 9.0], 1) == 3.0
    assert usual([1.0, 1.0, 7.0, 1.0, 3.0, 9.0], 3) == pytest.approx((1 + 2 + 8) / 3)


def test_whole_cycles_are_measured(tmp_path: Path) -> None:
    settings = small(contrast={"weight": 0.1}, diffusion={"rebuild_every": 3})
    (one,) = timings(CLIPS, settings, [4], [])
    record = time_epochs(one, "clips", "mark", 2, Results(tmp_path / "r.jsonl"), Recorder(), "kdiffe timing")
    assert len(record.facts["epoch_seconds"]) == record.epochs == 3


def test_some_users_keep_their_own_interactions_and_the_whole_catalogue() -> None:
    part = some_users(CLIPS, 15, 3)
    assert (part.n_users, part.n_items, len(part.valid), len(part.test)) == (15, CLIPS.n_items, 0, 0)
    whole = {(CLIPS.user_ids[u], v) for u, v in zip(CLIPS.train.user_rows, CLIPS.train.item_rows, strict=True)}
    kept = {(part.user_ids[u], v) for u, v in zip(part.train.user_rows, part.train.item_rows, strict=True)}
    assert kept == {pair for pair in whole if pair[0] in set(part.user_ids.tolist())}
    assert some_users(CLIPS, 15, 3).user_ids.tolist() == part.user_ids.tolist()
    assert some_users(CLIPS, 15, 4).user_ids.tolist() != part.user_ids.tolist()


def test_an_epoch_is_measured_once_the_first_left_out(tmp_path: Path) -> None:
    (one,) = timings(CLIPS, small(), [4], [])
    results = Results(tmp_path / "r.jsonl")
    recorder = Recorder()
    record = time_epochs(one, "clips", "mark", 3, results, recorder, "kdiffe timing")
    assert len(record.facts["epoch_seconds"]) == 3
    assert record.seconds == pytest.approx(float(np.median(record.facts["epoch_seconds"])), abs=1e-3)
    assert (record.parameter, record.value, record.facts["n_users"]) == ("steps", 4, 40)
    assert record.facts["n_interactions"] == len(CLIPS.train)
    # Nothing was evaluated, and there was no table to weigh.
    assert not [f for f in recorder.figures if "ndcg@20" in f]
    assert read_records(tmp_path / "r.jsonl") == [record]
    silent = Recorder()
    assert time_epochs(one, "clips", "mark", 3, Results(tmp_path / "r.jsonl"), silent, "again") == record
    assert silent.phases == []


def test_operations_are_those_of_the_graph_s_rows() -> None:
    graph = CLIPS.knowledge
    assert graph is not None
    settings = small(contrast={"weight": 0.1})
    rows = SparseRows.from_pairs(graph.item_rows, graph.entity_rows, CLIPS.n_items, len(graph.entity_ids))
    training, reverse = operations(rows, 8, settings.diffusion)
    assert operations_of(CLIPS, settings) == {"training": training, "reverse": reverse}
    halved = operations_of(CLIPS, small(contrast={"weight": 0.1}, diffusion={"rebuild_every": 2}))
    assert halved == {"training": training, "reverse": reverse // 2}  # the denoiser trains in every epoch


@pytest.mark.parametrize("guided", [True, False])
def test_diffmm_s_denoisers_have_a_signal_and_no_guide(guided: bool) -> None:
    settings = small(model={"kind": "diffmm"}, contrast={"weight": 0.0}, diffusion={"guided": guided})
    train = CLIPS.train
    rows = SparseRows.from_pairs(train.user_rows, train.item_rows, CLIPS.n_users, CLIPS.n_items)
    training, reverse = operations(rows, 8, replace(settings.diffusion, guided=False), has_target=guided)
    n = len(CLIPS.features)
    assert operations_of(CLIPS, settings) == {"training": n * training, "reverse": n * reverse}
    plain, unguided = (operations(rows, 8, replace(settings.diffusion, guided=g)) for g in (guided, False))
    assert (training < plain[0]) == guided
    assert (training > unguided[0]) == guided
    assert reverse == unguided[1]


@pytest.mark.parametrize(
    "sections", [{"contrast": {"weight": 0.0}}, {"diffusion": {"graph": "random"}}, {"model": {"knowledge": False}}]
)
def test_without_a_diffusion_there_is_nothing_to_count(sections: dict[str, dict[str, object]]) -> None:
    assert operations_of(CLIPS, small(**sections)) is None
    random = small(model={"kind": "diffmm"}, diffusion={"graph": "random"})
    assert operations_of(CLIPS, random) is None
    assert operations_of(replace(without_graph(CLIPS), features={}), small()) is None
