from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.store import ModelStore
from tests.training.commands.runs import kdiffe, sets
from training.data.formats import write_data_set
from training.data.loading import load_data_set
from training.data.split import SplitSettings
from training.labels import NAMES, SLICE_NAMES

Capture = pytest.CaptureFixture[str]


def brute_force(store: Path, data: Path, split: str, masks: list[str]) -> dict[str, float]:
    """The metrics of the active version by a plain sort over its published arrays."""
    artifact = ModelStore(store).open()
    loaded = load_data_set(data, SplitSettings(strategy="leave_out"))
    assert artifact.array("user_ids").tolist() == loaded.user_ids.tolist()
    assert artifact.array("item_ids").tolist() == loaded.item_ids.tolist()
    scores = artifact.array("user_embeddings").astype(np.float64) @ artifact.array("item_embeddings").T
    table = artifact.item_item()
    for user, item in zip(*(rows.tolist() for rows in artifact.graph().pairs()), strict=True):
        for entry in range(table.indptr[item], table.indptr[item + 1]) if table.n_rows else ():
            scores[user, table.indices[entry]] += table.data[entry]
    recalls, gains = [], []
    for user in range(loaded.n_users):
        by_split = {
            name: set(part.item_rows[part.user_rows == user].tolist())
            for name, part in (("train", loaded.train), ("valid", loaded.valid), ("test", loaded.test))
        }
        masked = set().union(*(by_split[name] for name in masks))
        truth = by_split[split] - masked
        if not truth:
            continue
        candidates = [v for v in range(loaded.n_items) if v not in masked]
        top = sorted(candidates, key=lambda v, u=user: (-np.float32(scores[u, v]), v))[:20]
        recalls.append(len(truth & set(top)) / len(truth))
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(20, len(truth)) + 1))
        gains.append(sum(1 / math.log2(p + 1) for p, v in enumerate(top, 1) if v in truth) / ideal)
    count = len(recalls)
    return {"recall@20": sum(recalls) / count, "ndcg@20": sum(gains) / count, "n_users": count}


@pytest.mark.parametrize(
    ("options", "split", "masks"),
    [
        ([], "test", ["train"]),
        (["--split", "valid"], "valid", ["train"]),
        (["--mask", "train,valid"], "test", ["train", "valid"]),
        (["--mask", " train , valid "], "test", ["train", "valid"]),
    ],
)
def test_the_figures_are_those_of_a_plain_sort_over_the_published_arrays(
    options: list[str], split: str, masks: list[str], data: Path, trained_once: Path, capsys: Capture
) -> None:
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", trained_once, "--json", *options)
    assert done.status == 0, done.err
    result = done.json
    assert (result["version"], result["split"], result["mask"]) == ("v0001", split, masks)
    expected = brute_force(trained_once, data, split, masks)
    assert {key: result[key] for key in expected} == pytest.approx(expected)


def test_the_validation_figures_are_those_that_training_reported(
    data: Path, trained_once: Path, capsys: Capture
) -> None:
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", trained_once, "--split", "valid", "--json")
    reported = ModelStore(trained_once).open().manifest.metrics["valid"]
    assert {key: done.json[key] for key in reported} == pytest.approx(reported)


def test_json_has_every_metric_and_slice_and_people_read_the_same(
    data: Path, trained_once: Path, capsys: Capture
) -> None:
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", trained_once, "--split", "valid", "--json")
    found = done.json
    report = json.loads((trained_once / "v0001" / "report.json").read_text(encoding="utf-8"))["validation"]["served"]
    assert {key: found[key] for key in report if key not in {"slices", "standard_errors"}} == pytest.approx(
        {key: value for key, value in report.items() if key not in {"slices", "standard_errors"}}
    )
    assert found["slices"].keys() == report["slices"].keys() == SLICE_NAMES.keys()
    for name, part in found["slices"].items():
        assert part["metrics"] == pytest.approx(report["slices"][name]["metrics"])
        assert SLICE_NAMES[name].split(",")[0] in done.err
    for label in NAMES.values():
        assert label.split(",")[0] in done.err
    assert f"{found['ndcg@5']:.4f}" in done.err
    assert f"{found['popularity_lift@10']:.4f}" in done.err


def test_users_without_train_interactions_are_measured_apart_and_count_in_the_whole(
    data: Path, trained_once: Path, capsys: Capture
) -> None:
    loaded = load_data_set(data, SplitSettings(strategy="leave_out"))
    sizes = np.bincount(loaded.train.user_rows, minlength=loaded.n_users)
    with_truth = np.unique(loaded.test.user_rows)
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", trained_once, "--json")
    slices = done.json["slices"]
    for name, least, most in (("users_to_5", 0, 5), ("users_6_to_10", 6, 10), ("users_11_to_20", 11, 20)):
        wanted = np.count_nonzero((sizes[with_truth] >= least) & (sizes[with_truth] <= most))
        assert slices[name]["n_users"] == wanted
    disjoint = ("users_to_5", "users_6_to_10", "users_11_to_20", "users_21_to_50", "users_over_50")
    assert sum(slices[name]["n_users"] for name in disjoint) == done.json["n_users"] == len(with_truth)


def test_a_version_can_be_named(data: Path, trained_once: Path, capsys: Capture) -> None:
    words = ["evaluate", "--data", data, "--store", trained_once, "--version"]
    named = kdiffe(capsys, *words, "v0001")
    assert (named.status, named.out) == (0, "")
    assert "v0001" in named.err
    unknown = kdiffe(capsys, *words, "v0042")
    assert unknown.status == 1
    assert "v0042" in unknown.err


@pytest.mark.parametrize("how", ["refit", "retrained"])
def test_a_version_that_was_fitted_on_all_interactions_is_refused(
    how: str, data: Path, store: Path, tmp_path: Path, capsys: Capture
) -> None:
    words = ["--data", data, "--refit", *sets()] if how == "refit" else ["--base", "v0001"]
    assert kdiffe(capsys, "train", *words, "--store", store, "--run-dir", tmp_path / "run").status == 0
    for split in ("test", "valid"):
        done = kdiffe(capsys, "evaluate", "--data", data, "--store", store, "--split", split)
        assert done.status == 1
        assert "v0002 was refitted on all interactions" in " ".join(done.err.split())
    assert kdiffe(capsys, "evaluate", "--data", data, "--store", store, "--version", "v0001").status == 0


def test_a_split_that_the_version_was_fitted_on_is_refused(
    data: Path, trained_once: Path, tmp_path: Path, capsys: Capture
) -> None:
    loaded = load_data_set(data, SplitSettings(strategy="leave_out"))
    part = np.arange(len(loaded.train)) < 3
    other = replace(loaded, train=loaded.train.take(~part), test=loaded.test.concatenate(loaded.train.take(part)))
    write_data_set(other, tmp_path / "other", "recbole")
    done = kdiffe(capsys, "evaluate", "--data", tmp_path / "other", "--store", trained_once)
    assert done.status == 1
    assert f"fitted on 3 of the test split's {len(other.test)} interactions" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--split", "train"], "--split 'train': choose valid or test"),
        (["--split", "nope"], "--split 'nope'"),
        (["--mask", "nope"], "--mask 'nope'"),
        (["--split", "valid", "--mask", "train,valid"], "--mask 'train,valid': name splits other than 'valid'"),
    ],
)
def test_a_wrong_option_names_the_value(
    options: list[str], message: str, data: Path, trained_once: Path, capsys: Capture
) -> None:
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", trained_once, *options)
    assert (done.status, done.out) == (1, "")
    assert message in " ".join(done.err.split())


def test_without_an_active_version_the_next_step_is_named(data: Path, tmp_path: Path, capsys: Capture) -> None:
    done = kdiffe(capsys, "evaluate", "--data", data, "--store", tmp_path / "empty")
    assert done.status == 1
    assert "kdiffe train" in " ".join(done.err.split())
