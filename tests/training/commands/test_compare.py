from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.commands.runs import kdiffe, sets
from training.commands.compare import settings_by_model
from training.results import read_records

Capture = pytest.CaptureFixture[str]


def test_json_has_mean_deviation_and_seeds_of_every_model(data: Path, tmp_path: Path, capsys: Capture) -> None:
    file = tmp_path / "r.jsonl"
    words = ["compare", "--data", data, "--models", "popularity, kdiffe,popularity", "--seeds", "2", "--json", *sets()]
    own = tmp_path / "own.toml"
    own.write_text("[model]\nwidth = 5\n")
    words += ["--results", file, "--split", "both", "--model-config", f"diffmm={own}"]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) == 1
    models = done.json["models"]
    assert done.json["split"] == "test"
    assert set(done.json["splits"]) == {"valid", "test"}
    assert {"popularity", "kdiffe"} <= set(models)
    for name, seeds in (("popularity", [0]), ("kdiffe", [0, 1])):
        assert models[name]["seed_values"] == seeds
        assert models[name]["seeds"] == len(seeds)
        for metric in ("recall@20", "ndcg@20"):
            assert 0 <= models[name][metric] <= 1
            assert models[name][f"{metric}_std"] >= 0
    assert done.json["best_peer"] == {"recall@20": "popularity", "ndcg@20": "popularity"}
    assert {(t["model"], t["other"]) for t in done.json["significance"]} >= {("kdiffe", "popularity")}
    assert "popularity" in done.err

    records = read_records(file)
    assert all(str(place) not in record.command for record in records for place in (data.parent, tmp_path))
    assert "--model-config diffmm=own.toml" in records[0].command
    assert records[0].command.startswith("kdiffe compare --data clips --models 'popularity, kdiffe,popularity'")
    assert kdiffe(capsys, *words).json == done.json
    assert read_records(file) == records  # nothing was run again


def test_three_seeds_are_the_default(data: Path, capsys: Capture) -> None:
    done = kdiffe(capsys, "compare", "--data", data, "--models", "kdiffe", "--json", *sets("optimiser.max_epochs=1"))
    assert done.json["models"]["kdiffe"]["seed_values"] == [0, 1, 2]
    # The table names them, as those of other experiments and docs/results.md do.
    assert [line for line in done.err.splitlines() if "kdiffe" in line and "0, 1, 2" in line]


def test_diffmm_has_the_settings_of_its_file_or_those_shipped_beside_kdiffe_s_or_kdiffe_s(tmp_path: Path) -> None:
    shipped = settings_by_model("tiktok", ["run.seed=3", "item_item.per_row=7"], "cpu", [])
    assert [shipped[name].model.kind for name in ("kdiffe", "diffmm")] == ["kdiffe", "diffmm"]
    assert {(own.run.seed, own.run.device, own.item_item.per_row) for own in shipped.values()} == {(3, "cpu", 7)}
    file = tmp_path / "own.toml"
    file.write_text("[model]\nwidth = 5\n")
    named = settings_by_model("tiktok", ["run.seed=3"], "cpu", [f"diffmm={file}"])["diffmm"]
    assert (named.model.width, named.run.seed) == (5, 3)
    assert list(settings_by_model("baby", [], "cpu", [])) == ["kdiffe"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "nope"], "unknown ['nope']"),
        (["--split", "train"], "--split 'train': choose valid, test, both or drawn"),
        (["--model-config", "ease=x"], "expected diffmm=FILE"),
        (["--results", "/dev/null/r.jsonl"], "can't be written"),
        (["--device", "tpu"], "--device 'tpu'"),
        (["--set", "x.y=1"], "unknown key x"),
    ],
)
def test_an_error_names_the_value_and_ends_with_1(
    options: list[str], message: str, data: Path, capsys: Capture
) -> None:
    done = kdiffe(capsys, "compare", "--data", data, *options)
    assert (done.status, done.out) == (1, "")
    assert message in " ".join(done.err.split())


def test_no_seeds_at_all_is_wrong_usage(data: Path, capsys: Capture) -> None:
    assert kdiffe(capsys, "compare", "--data", data, "--seeds", "0").status == 2
