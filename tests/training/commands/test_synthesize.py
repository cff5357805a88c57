import json

import typer
from typer.testing import CliRunner

from training.commands.synthesize import synthesize
from training.data.fingerprint import fingerprint
from training.data.formats import read_data_set
from training.data.synthesis import synthesize as make_up

APP = typer.Typer()
APP.command()(synthesize)


def test_a_set_is_written_that_reads_back_as_it_was_made_up(tmp_path):
    options = ["--users", "30", "--items", "20", "--seed", "5", "--json"]
    result = CliRunner().invoke(APP, [str(tmp_path / "made"), *options])
    assert result.exit_code == 0, result.output
    data, expected = read_data_set(tmp_path / "made"), make_up(30, 20, 5)
    assert fingerprint(data) == fingerprint(expected)
    assert data.item_names.tolist() == expected.item_names.tolist()
    summary = json.loads(result.stdout.splitlines()[-1])
    assert summary["features"] == {"visual": 64, "text": 48}
    assert summary["fingerprint"] == fingerprint(expected)
    assert (summary["users"], summary["items"]) == (30, 20)
    assert "Knowledge graph" in result.stderr


def test_another_format_can_be_asked_for(tmp_path):
    result = CliRunner().invoke(APP, [str(tmp_path / "made"), "--users", "5", "--items", "5", "--format", "csv"])
    assert result.exit_code == 0
    assert (tmp_path / "made" / "interactions.csv").exists()
    assert "Note: The csv format can't hold" in result.stderr
