from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Self

import numpy as np
import pytest

from model_store.artifact import Artifact
from model_store.store import ModelStore
from tests.training.commands.runs import kdiffe, sets
from tests.training.worlds import checkerboard
from training.commands.train import _own_folder
from training.data.formats import read_data_set, write_data_set

Capture = pytest.CaptureFixture[str]


def pairs(artifact: Artifact) -> set[tuple[str, str]]:
    """What a version was fitted on, by external id."""
    users, items = artifact.graph().pairs()
    user_ids, item_ids = artifact.array("user_ids"), artifact.array("item_ids")
    return set(zip(user_ids[users].tolist(), item_ids[items].tolist(), strict=True))


def all_pairs(data: Path) -> set[tuple[str, str]]:
    whole = read_data_set(data)
    users, items = whole.user_ids[whole.train.user_rows], whole.item_ids[whole.train.item_rows]
    return set(zip(users.tolist(), items.tolist(), strict=True))


def held_out(artifact: Artifact) -> set[tuple[str, str]]:
    users = artifact.array("user_ids")[artifact.array("held_out.user_rows")]
    items = artifact.array("item_ids")[artifact.array("held_out.item_rows")]
    return set(zip(users.tolist(), items.tolist(), strict=True))


# ---- training --------------------------------------------------------------------------------------------------------


def test_json_is_the_last_line_and_says_what_was_published(data: Path, tmp_path: Path, capsys: Capture) -> None:
    store, run = tmp_path / "models", tmp_path / "run"
    done = kdiffe(capsys, "train", "--data", data, "--store", store, "--run-dir", run, "--json", *sets())
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) == 1
    result = done.json
    assert result["version"] == "v0001" == ModelStore(store).active()
    artifact = ModelStore(store).open()
    artifact.verify()
    for key in ("recall@20", "ndcg@20"):
        assert result[key] == result["metrics"]["valid"][key] == artifact.manifest.metrics["valid"][key]
        assert 0 < result[key] <= 1
    assert result["epochs"] == artifact.manifest.training["epochs"] <= 3
    assert (result["refit"], result["device"], result["run_dir"]) == (False, result["device"], str(run))
    assert "v0001" in done.err

    content = json.loads((run / "run.json").read_text(encoding="utf-8"))
    assert [epoch["epoch"] for epoch in content["history"]] == [1, 2, 3]
    assert content["best_epoch"] == result["epochs"]
    assert (run / "training.png").read_bytes().startswith(b"\x89PNG")
    # Everything that was held out is in the artifact, for a later refit.
    assert pairs(artifact) | held_out(artifact) == all_pairs(data)
    assert not pairs(artifact) & held_out(artifact)


def test_standard_output_stays_empty_without_json(
    data: Path, tmp_path: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = kdiffe(capsys, "train", "--data", data, "--store", tmp_path / "models", *sets("optimiser.max_epochs=1"))
    assert (done.status, done.out) == (0, "")
    assert len(list((tmp_path / "runs").glob("*/run.json"))) == 1  # where a run goes that names no folder


def test_runs_that_begin_at_one_moment_have_folders_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2026, 1, 2, 3, 4, 5, tzinfo=tz)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("training.commands.train.datetime", Stopped)
    names = ["20260102-030405", "20260102-030405-2", "20260102-030405-3"]
    assert [_own_folder() for _ in names] == [Path("runs") / name for name in names]
    assert sorted(path.name for path in Path("runs").iterdir()) == names


def test_a_history_that_can_t_be_written_is_told_and_the_version_is_published_all_the_same(
    data: Path, tmp_path: Path, capsys: Capture
) -> None:
    run = tmp_path / "run"
    (run / "run.json").mkdir(parents=True)
    done = kdiffe(
        capsys, "train", "--data", data, "--store", tmp_path / "models", "--run-dir", run, "--json",
        *sets("optimiser.max_epochs=1"),
    )  # fmt: skip
    assert (done.status, done.json["version"]) == (0, "v0001")
    assert "history and curve can't be written" in " ".join(done.err.split())


def test_the_seed_and_the_overrides_are_the_model_s(data: Path, tmp_path: Path, capsys: Capture) -> None:
    config = tmp_path / "mine.toml"
    config.write_text("[model]\nwidth = 4\nn_layers = 1\n[run]\nseed = 3\n")
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", tmp_path / "run", "--config", config]
    assert kdiffe(capsys, *words, "--seed", "9", *sets("model.width=6"), "--no-activate").status == 0
    store = ModelStore(tmp_path / "models")
    assert store.active() is None
    manifest = store.open("v0001").manifest
    assert (manifest.configuration["model"]["width"], manifest.configuration["model"]["n_layers"]) == (6, 1)
    assert (manifest.configuration["run"]["seed"], manifest.walks["seed"], manifest.training["seed"]) == (9, 9, 9)


def test_one_seed_publishes_the_same_bits_twice(
    data: Path, trained_once: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", tmp_path / "run", *sets()]
    assert kdiffe(capsys, *words).status == 0
    one, two = ModelStore(trained_once).open(), ModelStore(tmp_path / "models").open()
    assert sorted(one.names()) == sorted(two.names())
    for name, entry in one.manifest.arrays.items():
        assert entry.sha256 == two.manifest.arrays[name].sha256, name


def test_a_refit_includes_all_splits_and_keeps_the_selected_model_s_figures(
    data: Path, trained_once: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", tmp_path / "run", *sets()]
    done = kdiffe(capsys, *words, "--refit", "--json")
    assert done.status == 0, done.err
    artifact, selected = ModelStore(tmp_path / "models").open(), ModelStore(trained_once).open()
    assert pairs(artifact) == all_pairs(data)
    assert "held_out.user_rows" not in artifact
    assert artifact.manifest.metrics == selected.manifest.metrics
    assert artifact.manifest.training["epochs"] == selected.manifest.training["epochs"]
    assert artifact.manifest.training["refit"] is True is done.json["refit"]
    assert artifact.manifest.configuration["item_item"] == selected.manifest.configuration["item_item"]


# ---- retraining ------------------------------------------------------------------------------------------------------


def retrain(capsys: Capture, store: Path, tmp_path: Path, *more: str | Path) -> dict[str, object]:
    words = ["train", "--base", "v0001", "--store", store, "--run-dir", tmp_path / "again", "--json", *more]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    return done.json


def test_a_retrained_version_has_its_data_the_log_s_and_the_sequence(
    data: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    log, progress = tmp_path / "log.jsonl", tmp_path / "progress.json"
    base = ModelStore(store).open("v0001")
    later = [("new-user", "clip-0003"), ("u0001", "new-item"), *sorted(pairs(base))[:1]]
    log.write_text("".join(json.dumps({"user_id": u, "item_id": v, "extra": 1}) + "\n" for u, v in later) + "\n")
    options = ["--interactions", log, "--sequence", "17", "--state-id", "state-1", "--progress-file", progress]
    result = retrain(capsys, store, tmp_path, *options)
    assert (result["version"], result["refit"]) == ("v0002", True)
    artifact = ModelStore(store).open()
    manifest = artifact.manifest
    assert (manifest.version, manifest.sequence, manifest.data["state_id"]) == ("v0002", 17, "state-1")
    assert pairs(artifact) == all_pairs(data) | set(later)
    assert manifest.data["n_interactions"] == len(all_pairs(data) | set(later))
    assert manifest.training["base"] == "v0001"
    assert manifest.training["epochs"] == base.manifest.training["epochs"]
    assert manifest.metrics["valid"] == base.manifest.metrics["valid"]
    assert manifest.metrics["selected_as"] == "v0001"
    assert manifest.configuration == base.manifest.configuration
    # Known rows stay.
    np.testing.assert_array_equal(artifact.array("user_ids")[: base.manifest.n_users], base.array("user_ids"))
    np.testing.assert_array_equal(artifact.array("knowledge.entities"), base.array("knowledge.entities"))
    assert 0 < json.loads(progress.read_text())["progress"] <= 1


def test_a_version_retrained_from_a_retrained_one_names_the_one_that_was_selected(
    store: Path, tmp_path: Path, capsys: Capture
) -> None:
    retrain(capsys, store, tmp_path)
    words = ["train", "--base", "v0002", "--store", store, "--run-dir", tmp_path / "third", "--json"]
    assert kdiffe(capsys, *words).json["version"] == "v0003"
    manifest = ModelStore(store).open("v0003").manifest
    assert (manifest.metrics["selected_as"], manifest.training["base"]) == ("v0001", "v0002")


def test_a_trial_is_for_retraining(data: Path, store: Path, tmp_path: Path, capsys: Capture) -> None:
    retrain(capsys, store, tmp_path, "--trial")
    trial = ModelStore(store).open("v0002").manifest.metrics["trial"]
    assert trial["base"] == "v0001"
    assert 0 <= trial["known"]["recall@20"] <= 1
    done = kdiffe(capsys, "train", "--data", data, "--store", store, "--trial")
    assert done.status == 1
    assert "--trial goes with --base" in done.err


@pytest.mark.parametrize(
    ("more", "device"), [([], "auto"), (["--device", "cpu"], "cpu"), (["--set", "run.device=cpu"], "cpu")]
)
def test_a_version_from_another_machine_is_retrained_on_this_one_s_device(
    more: list[str], device: str, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    # As `kdiffe train --device cuda` leaves it, to be retrained beside a service that has no GPU.
    path = store / "v0001" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["configuration"]["run"]["device"] = "cuda"
    path.write_text(json.dumps(manifest))
    retrain(capsys, store, tmp_path, *more)
    assert ModelStore(store).open("v0002").manifest.configuration["run"]["device"] == device


def test_codebooks_survive_a_retraining(tmp_path: Path, capsys: Capture) -> None:
    data, store = tmp_path / "featured", tmp_path / "models"
    board = checkerboard(8)
    features = {"visual": np.random.default_rng(0).standard_normal((8, 5)).astype(np.float32)}
    write_data_set(type(board)(**{**vars(board), "features": features}), data, "recbole")
    words = ["train", "--data", data, "--store", store, "--run-dir", tmp_path / "run"]
    assert kdiffe(capsys, *words, *sets("entities.n_centroids=3", "entities.n_nearest=1")).status == 0
    retrain(capsys, store, tmp_path)
    before, after = (ModelStore(store).open(version) for version in ("v0001", "v0002"))
    for name in ("codebook.visual", "knowledge.entities", "knowledge.relations", "entity_ids", "relation_ids"):
        np.testing.assert_array_equal(before.array(name), after.array(name))


def test_resuming_without_a_checkpoint_says_that_it_starts_afresh(data: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", tmp_path / "run", "--resume"]
    done = kdiffe(capsys, *words, *sets("optimiser.max_epochs=1"))
    assert (done.status, "no checkpoint" in done.err) == (0, True)
    done = kdiffe(capsys, *words, *sets("optimiser.max_epochs=1"))
    assert (done.status, "no checkpoint" in done.err) == (0, False)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name either a data set"),
        (["--data", "DATA", "--base", "v0001"], "Name either a data set"),
        (["--data", "gone"], "gone: no such file or directory"),
        (["--data", "DATA", "--resume"], "--run-dir DIR"),
        (["--data", "DATA", "--device", "tpu"], "--device 'tpu': choose auto, cpu or cuda"),
        (["--data", "DATA", "--set", "model.widht=3"], "Did you mean model.width?"),
        (["--data", "DATA", "--set", "model.width=0"], "model.width = 0"),
        (["--data", "DATA", "--config", "nope"], "nope: can't be read"),
        (["--data", "DATA", "--store", "/dev/null/models"], "/dev/null/models: can't be written"),
        (["--data", "DATA", "--interactions", "log.jsonl"], "--interactions, --sequence and --state-id go with --base"),
        (["--data", "DATA", "--sequence", "3"], "--interactions, --sequence and --state-id go with --base"),
        (["--data", "DATA", "--state-id", "x"], "--interactions, --sequence and --state-id go with --base"),
        (["--data", "DATA", "--progress-file", "/dev/null/p"], "--progress-file /dev/null/p: can't be written"),
        (["--base", "v0009"], "No version 'v0009'"),
        (["--base", "v0001", "--config", "x.toml"], "--config goes with --data"),
        (["--base", "v0001", "--interactions", "gone.jsonl"], "gone.jsonl: can't be read"),
    ],
)
def test_an_error_names_the_value_and_ends_with_1(
    words: list[str], message: str, data: Path, trained_once: Path, tmp_path: Path, capsys: Capture
) -> None:
    given = [str(data) if word == "DATA" else word for word in words]
    run = [] if "--resume" in words else ["--run-dir", tmp_path / "run"]
    store = [] if "--store" in words else ["--store", trained_once]
    done = kdiffe(capsys, "train", *store, *run, *given)
    assert "fitting" not in done.err  # nothing long has begun
    assert (done.status, done.out) == (1, "")
    assert message in " ".join(done.err.split())
    assert "Traceback" not in done.err
    assert ModelStore(trained_once).versions() == ["v0001"]


@pytest.mark.parametrize("line", ["not json", "[1]", "3", '{"user_id": "u"}', '{"user_id": null, "item_id": "i"}'])
def test_a_line_that_is_no_interaction_is_named(line: str, store: Path, tmp_path: Path, capsys: Capture) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"user_id": "u", "item_id": "i"}\n' + line + "\n")
    words = ["train", "--base", "v0001", "--store", store, "--interactions", log, "--run-dir", tmp_path / "run"]
    done = kdiffe(capsys, *words)
    assert done.status == 1
    assert "log.jsonl, line 2" in " ".join(done.err.split())
    assert ModelStore(store).versions() == ["v0001"]


def test_resuming_with_other_settings_is_refused(data: Path, tmp_path: Path, capsys: Capture) -> None:
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", tmp_path / "run"]
    assert kdiffe(capsys, *words, *sets("optimiser.max_epochs=1")).status == 0
    done = kdiffe(capsys, *words, *sets("optimiser.max_epochs=1", "loss.l2_weight=0.5"), "--resume")
    assert done.status == 1
    assert "belongs to another run" in " ".join(done.err.split())
    assert kdiffe(capsys, *words, *sets("optimiser.max_epochs=1"), "--resume").status == 0


def test_what_an_earlier_run_left_is_no_hindrance_to_resuming(data: Path, tmp_path: Path, capsys: Capture) -> None:
    run = tmp_path / "run"
    words = ["train", "--data", data, "--store", tmp_path / "models", "--run-dir", run, "--refit"]
    assert kdiffe(capsys, *words, *sets("loss.kind=auto")).status == 0
    assert (run / "select" / "softmax").is_dir()
    other = sets("loss.kind=bpr", "loss.l2_weight=0.5")
    assert kdiffe(capsys, *words, *other).status == 0
    assert not (run / "select" / "softmax").exists()
    done = kdiffe(capsys, *words, *other, "--resume")
    assert done.status == 0, done.err


# ---- Ctrl-C ----------------------------------------------------------------------------------------------------------


def test_ctrl_c_ends_with_130_and_no_half_version_and_resume_finishes(tmp_path: Path, capsys: Capture) -> None:
    data, store, run = tmp_path / "board", tmp_path / "models", tmp_path / "run"
    write_data_set(checkerboard(16), data, "recbole")
    n_epochs = 300
    words = ["train", "--data", data, "--store", store, "--run-dir", run]
    words += sets(
        f"optimiser.max_epochs={n_epochs}", "optimiser.evaluate_every=100", "item_item.method=none", "loss.kind=bpr"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "model_store", *map(str, words)],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    checkpoint = run / "select" / "bpr" / "checkpoint.safetensors"
    while process.poll() is None and not checkpoint.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert ModelStore(store).versions() == []
    assert not store.exists() or not list(store.glob(".incoming*"))
    assert not (run / "run.json").exists()

    done = kdiffe(capsys, *words, "--resume", "--json")
    assert done.status == 0, done.err
    assert done.json["version"] == "v0001" == ModelStore(store).active()
    history = json.loads((run / "run.json").read_text())["history"]
    assert [epoch["epoch"] for epoch in history] == list(range(1, n_epochs + 1))


def test_a_run_folder_that_can_t_be_made_is_told_before_anything_is_trained(
    data: Path, tmp_path: Path, capsys: Capture
) -> None:
    (tmp_path / "file").write_text("in the way")
    run, store = tmp_path / "file" / "run", tmp_path / "models"
    done = kdiffe(capsys, "train", "--data", data, "--store", store, "--run-dir", run, *sets())
    assert done.status == 1
    assert "ConfigurationError" in done.err
    assert str(run) in done.err.replace("\n", "")
    assert ModelStore(store).versions() == []
