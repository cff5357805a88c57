from __future__ import annotations

from pathlib import Path

import pytest

from tests.training.commands.runs import kdiffe, sets

Capture = pytest.CaptureFixture[str]


def test_json_has_mean_deviation_and_seeds_of_every_model(data: Path, capsys: Capture) -> None:
    words = ["compare", "--data", data, "--models", "popularity, kdiffe,popularity", "--seeds", "2", "--json", *sets()]
    done = kdiffe(capsys, *words)
    assert done.status == 0, done.err
    assert len(done.out.splitlines()) == 1
    models = done.json["models"]
    assert {"popularity", "kdiffe"} <= set(models)
    for name, seeds in (("popularity", [0]), ("kdiffe", [0, 1])):
        assert models[name]["seed_values"] == seeds
        assert models[name]["seeds"] == len(seeds)
        for metric in ("recall@20", "ndcg@20"):
            assert 0 <= models[name][metric] <= 1
            assert models[name][f"{metric}_std"] >= 0
    assert "popularity" in done.err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--models", "nope"], "unknown ['nope']"),
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
