import json

import typer
from typer.testing import CliRunner

from training.commands.convert import convert
from training.data.formats import read_data_set
from training.errors import DataError

APP = typer.Typer()
APP.command()(convert)


def test_a_set_is_converted_and_reported_as_json(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "interactions.csv").write_text("user_id,item_id,rating\nu,a,5\nv,a,4\nv,b,1\n")
    result = CliRunner().invoke(
        APP, [str(tmp_path / "in"), str(tmp_path / "out"), "--to", "recbole", "--min-rating", "2", "--json"]
    )
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["from"], summary["to"], summary["users"], summary["items"]) == ("csv", "recbole", 2, 1)
    assert summary["interactions"] == {"train": 2, "valid": 0, "test": 0}
    assert "Read csv" in result.stderr
    assert read_data_set(tmp_path / "out").user_ids.tolist() == ["u", "v"]


def test_standard_output_stays_empty_without_json(tmp_path):
    (tmp_path / "log.csv").write_text("user_id,item_id\nu,a\n")
    result = CliRunner().invoke(APP, [str(tmp_path / "log.csv"), str(tmp_path / "out"), "--from", "csv"])
    assert (result.exit_code, result.stdout) == (0, "")


def test_what_a_format_can_not_hold_is_noted(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "toy.inter").write_text("user_id:token\titem_id:token\nu\ta\n")
    (tmp_path / "in" / "toy.item").write_text("item_id:token\ttitle:token_seq\na\tAlpha\n")
    result = CliRunner().invoke(APP, [str(tmp_path / "in"), str(tmp_path / "out"), "--to", "mmrec"])
    assert "Note: The mmrec format can't hold everything of 'toy': left out are item names." in result.stderr


def test_an_error_goes_to_the_caller(tmp_path):
    result = CliRunner().invoke(APP, [str(tmp_path / "gone"), str(tmp_path / "out")])
    assert isinstance(result.exception, DataError)
