"""`kdiffe ablate`, `sweep`, `timing`, `tune` and `results`, as a user calls them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.commands.runs import kdiffe, sets
from training.commands.recording import command_text
from training.configuration import read_settings
from training.results import read_records

Capture = pytest.CaptureFixture[str]
QUICK = sets("optimiser.max_epochs=1")


def test_an_ablation_has_the_full_model_and_its_variants(data: Path, capsys: Capture) -> None:
    words = ["ablate", "--data", data, "--variants", "KDiffE_1,without multimodal", "--seeds", "1", "--json", *QUICK]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    assert list(done.json["variants"]) == ["full", "KDiffE_1"]
    assert done.json["variants"]["KDiffE_1"]["what"] == "no attention matrix S (ξ = 0)"
    assert {t["other"] for t in done.json["significance"]} >= {"KDiffE_1"}
    assert "without multimodal" in " ".join(done.err.split())  # it is not there in the full model, which is said


def test_an_ablation_of_drawn_splits_compares_over_all_of_them(data: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["ablate", "--data", data, "--variants", "KDiffE_1", "--seeds", "2", "--split", "drawn", "--json", *QUICK]
    done = kdiffe(capsys, *words, "--results", tmp_path / "r.jsonl")
    assert done.status == 0, done.err
    assert done.json["split"] == "drawn"
    assert {tuple(row["seed_values"]) for row in done.json["variants"].values()} == {(0, 1)}
    runs = [record for record in read_records(tmp_path / "r.jsonl") if record.kind == "ablation"]
    assert {record.split for record in runs} == {"drawn"}
    assert {test["other"] for test in done.json["significance"]} >= {"KDiffE_1"}


def test_a_sweep_has_a_row_a_value(data: Path, capsys: Capture) -> None:
    words = ["sweep", "--data", data, "--parameter", "walks", "--values", "5x2,3x1", "--json", *QUICK]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    assert [row["value"] for row in done.json["values"]] == ["5x2", "3x1"]
    assert (done.json["split"], done.json["parameter"]) == ("valid", "walks")


def test_timing_has_seconds_for_each_measurement(data: Path, capsys: Capture) -> None:
    words = ["timing", "--data", data, "--steps", "2", "--users", "0.5,40", "--epochs", "1", "--json", *QUICK]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    assert [(t["parameter"], t["value"]) for t in done.json["timings"]] == [("steps", 2), ("users", 20), ("users", 40)]
    assert all(t["seconds"] > 0 for t in done.json["timings"])


def test_tuning_writes_a_configuration_that_train_reads(data: Path, tmp_path: Path, capsys: Capture) -> None:
    space = tmp_path / "space.toml"
    space.write_text(
        '[[parameter]]\nname = "model.width"\nlow = 4\nhigh = 8\n'
        '[[parameter]]\nname = "contrast.temperature"\nlow = 0.1\nhigh = 0.9\n'
    )
    words = ["tune", "--data", data, "--space", space, "--store-file", tmp_path / "study.journal", "--json", *QUICK]
    done = kdiffe(capsys, *words, "--trials", "2", "--splits", "2", "--set", "contrast.weight=0")
    assert done.status == 0, done.err
    assert "Not searched, since on synthetic they change nothing: contrast.temperature." in " ".join(done.err.split())
    assert (done.json["left_out"], list(done.json["settings"])) == (["contrast.temperature"], ["model.width"])
    config = Path(done.json["config"])
    assert config == tmp_path / "study.toml"
    settings = read_settings(str(config))
    assert settings.model.width == done.json["settings"]["model.width"]
    assert settings.optimiser.max_epochs == 1
    assert (done.json["trials"], done.json["pruned"]) == (2, 0)
    words = ["train", "--data", data, "--config", config, "--store", tmp_path / "m", "--run-dir", tmp_path / "run"]
    assert kdiffe(capsys, *words).status == 0


@pytest.mark.parametrize("option", ["--store-file", "--config", "--space"])
def test_a_winner_is_written_over_nothing_that_the_search_is_made_of(
    option: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text('[[parameter]]\nname = "model.width"\nlow = 4\nhigh = 8\n' if option == "--space" else "# mine\n")
    before = mine.read_text()
    store_file = mine if option == "--store-file" else tmp_path / "mine.journal"
    words = ["tune", "--data", data, "--trials", "1", "--store-file", store_file]
    done = kdiffe(capsys, *words, *([] if option == "--store-file" else [option, mine]))
    assert done.status == 1
    assert f"{option} {mine}: the winner would be written over it" in " ".join(done.err.split())
    assert mine.read_text() == before


def test_a_winner_is_not_written_over_somebody_s_file_unasked(data: Path, tmp_path: Path, capsys: Capture) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("# mine\n")
    done = kdiffe(capsys, "tune", "--data", data, "--trials", "1", "--store-file", tmp_path / "mine.journal")
    assert done.status == 1
    assert "kdiffe tune did not write it" in " ".join(done.err.split())
    assert mine.read_text() == "# mine\n"
    # Its own it takes up again.
    mine.unlink()
    space = tmp_path / "space.toml"
    space.write_text('[[parameter]]\nname = "model.width"\nlow = 4\nhigh = 8\n')
    words = ["tune", "--data", data, "--space", space, "--store-file", tmp_path / "mine.journal", *QUICK]
    for trials in ("1", "2"):
        done = kdiffe(capsys, *words, "--trials", trials)
        assert done.status == 0, done.err


def test_results_renders_records_and_checks_the_document(data: Path, tmp_path: Path, capsys: Capture) -> None:
    folder, out = tmp_path / "records", tmp_path / "docs" / "results.md"
    words = ["sweep", "--data", data, "--parameter", "xi", "--values", "0.5", "--results", folder / "r.jsonl", *QUICK]
    assert kdiffe(capsys, *words).status == 0
    done = kdiffe(capsys, "results", "--records", folder, "--out", out, "--json")
    assert (done.json["records"], done.json["changed"]) == (len(read_records(folder / "r.jsonl")), True)
    assert "Weight of S, ξ" in out.read_text()
    assert f"from the records in {folder}/;" in out.read_text()
    assert kdiffe(capsys, "results", "--records", folder, "--out", out, "--check").status == 0
    out.write_text(out.read_text() + "typed by hand\n")
    done = kdiffe(capsys, "results", "--records", folder, "--out", out, "--check")
    assert (done.status, "run `kdiffe results`" in " ".join(done.err.split())) == (1, True)
    assert "typed by hand" in out.read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ablate", "--variants", "KDiffE_9"], "unknown ['KDiffE_9']"),
        (["sweep", "--parameter", "nope"], "--parameter 'nope'"),
        (["sweep", "--parameter", "q", "--values", "0"], "diffusion.n_kept = 0"),
        (["timing", "--users", "1000"], "has 40 users"),
        (["timing", "--steps", "2.5"], "whole numbers"),
        (["timing", "--steps", "x"], "--steps 'x': numbers"),
        (["timing", "--steps", "nan"], "--steps 'nan': numbers"),
        (["timing", "--users", "inf"], "--users 'inf': numbers"),
        (["tune", "--store-file", "STUDY", "--space", "nope"], "--space nope: can't be read"),
        (["tune", "--store-file", "STUDY", "--objective", "luck"], "--objective 'luck'"),
        (["tune", "--store-file", "STUDY", "--pruner", "x"], "--pruner 'x'"),
        (["tune", "--store-file", "/dev/null/s"], "can't be written"),
    ],
)
def test_an_error_names_the_value_and_ends_with_1(
    words: list[str], message: str, data: Path, tmp_path: Path, capsys: Capture
) -> None:
    given = [str(tmp_path / "s") if word == "STUDY" else word for word in words]
    done = kdiffe(capsys, given[0], "--data", data, *given[1:], *QUICK)
    assert (done.status, done.out) == (1, "")
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err


def test_a_command_is_told_without_the_machine_s_paths() -> None:
    options = {"data": Path("/home/me/tiktok"), "config": "/x/y.toml", "set": ["model.views=[1, 2]"], "seed": None}
    assert command_text("sweep", options) == "kdiffe sweep --data tiktok --config y.toml --set 'model.views=[1, 2]'"


@pytest.mark.parametrize(("users", "is_there"), [(2, True), (1000, False)])
def test_stability_beside_fewer_interactions_is_told_where_some_were_removed(
    users: int, is_there: bool, data: Path, store: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.commands.faithfulness.FEWER", 0.3)  # of few interactions 1 % may be none
    words = ["faithfulness", "--data", data, "--store", store, "--users", str(users), "--json"]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    stable = [record["value"] for record in done.json["records"] if record["parameter"] == "stability"]
    assert stable == ["other walks", *(["fewer interactions"] if is_there else [])]
    said = "30% fewer interactions is left out" in " ".join(done.err.split())
    assert said is not is_there


def test_faithfulness_makes_records_tables_and_figures(
    data: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    records = tmp_path / "records"
    words = ["faithfulness", "--data", data, "--store", store, "--users", "8", "--retrain", "4", "--json", *QUICK]
    done = kdiffe(capsys, *words, "--results", records / "clips.jsonl")
    assert done.status == 0, done.err
    found = read_records(records / "clips.jsonl")
    kinds = {(r.parameter, r.value) for r in found}
    assert {("curves 2", "contribution"), ("curves 5", "random"), ("counterfactual", None)} <= kinds
    assert {("stability", "other walks"), ("retraining", "contribution"), ("retraining", "random")} <= kinds
    removed = [r.facts["removed"] for r in found if r.value == "fewer interactions"]
    assert all(count > 0 for count in removed)
    (checked,) = [r for r in found if r.parameter == "counterfactual"]
    assert checked.metrics["valid"] == checked.metrics["minimal"] == 1
    out = tmp_path / "out" / "results.md"
    assert kdiffe(capsys, "results", "--records", records, "--out", out).status == 0
    text = out.read_text()
    for r in found:
        if r.parameter == "curves 2":
            assert f"{r.metrics['deletion']:.3f}" in text
    names = [f"images/faithfulness-{found[0].data}-{least}.svg" for least in (2, 5)]
    for name in names:
        assert f"]({name})" in text
        assert (out.parent / name).read_text().startswith("<?xml")
    assert kdiffe(capsys, "results", "--records", records, "--out", out, "--check").status == 0
    (out.parent / names[0]).write_text("")
    assert kdiffe(capsys, "results", "--records", records, "--out", out, "--check").status == 1
