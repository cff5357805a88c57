import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest

from model_store import command
from model_store.command import SUBCOMMANDS, Subcommand, main

ROOT = Path(__file__).parents[2]


def test_without_words_or_with_help_the_subcommands_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["-h"]):
        assert main(words) == 0
        out = capsys.readouterr().out
        assert all(name in out for name in SUBCOMMANDS)


def test_the_version_is_the_package_s(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"kdiffe {version('kdiffe')}\n"


def test_a_misspelt_command_is_wrong_usage_and_suggests_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["modles"]) == 2
    assert "Did you mean 'models'?" in capsys.readouterr().err
    assert main(["xyzzy"]) == 2
    assert "There are: demo, train" in capsys.readouterr().err


def test_wrong_options_are_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "list", "--colour", "blue"]) == 2
    assert main(["models", "activate"]) == 2
    capsys.readouterr()


def test_an_error_that_the_user_can_mend_is_one_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["models", "show", "--store", str(tmp_path / "none")]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: NoActiveVersionError: No version is active in ")
    assert err.count("\n") == 1


def test_a_missing_extra_is_named_with_the_command_that_installs_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "needs_something.py").write_text("import a_library_that_nobody_has\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(command, "SUBCOMMANDS", {"x": Subcommand("needs_something:run", "training", "")})
    assert main(["x"]) == 1
    assert "needs a_library_that_nobody_has" in (err := capsys.readouterr().err)
    assert "pip install 'kdiffe[training]'" in err


def test_a_plain_function_becomes_a_command(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "greeting.py").write_text(
        "from model_store.command import write_json\ndef greet(name: str) -> None:\n    write_json({'hello': name})\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(command, "SUBCOMMANDS", {"greet": Subcommand("greeting:greet", "", "Say hello.")})
    assert main(["greet", "ada"]) == 0
    assert json.loads(capsys.readouterr().out) == {"hello": "ada"}
    assert main(["greet", "--help"]) == 0
    assert "Say hello." in capsys.readouterr().out


def test_what_is_not_foreseen_ends_in_a_plain_traceback_without_local_variables(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text(
        "def fall(password: str = 'hunter2') -> None:\n    mine = password.upper()\n    raise KeyError('a fault')\n"
    )
    program = (
        "import sys\nfrom model_store import command\n"
        "command.SUBCOMMANDS = {'fall': command.Subcommand('broken:fall', '', 'Fall.')}\n"
        "sys.exit(command.main(['fall']))\n"
    )
    paths = os.pathsep.join([str(tmp_path), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "KeyError: 'a fault'"
    assert "─" not in ended.stderr
    assert "HUNTER2" not in ended.stderr


def test_ctrl_c_ends_with_130(tmp_path: Path) -> None:
    (tmp_path / "patient.py").write_text(
        "import time\ndef wait() -> None:\n    print('waiting', flush=True)\n    time.sleep(60)\n"
    )
    code = """
import sys
from model_store import command
command.SUBCOMMANDS = {"wait": command.Subcommand("patient:wait", "", "")}
sys.exit(command.main(["wait"]))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{ROOT}:{tmp_path}"},
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in err


@pytest.mark.parametrize("name", sorted(SUBCOMMANDS))
def test_every_subcommand_names_an_extra_that_the_package_has(name: str) -> None:
    text = (ROOT / "pyproject.toml").read_text()
    for extra in filter(None, SUBCOMMANDS[name].extra.split(",")):
        assert f"\n{extra} = [" in text


def test_the_kernel_s_command_loads_neither_side() -> None:
    code = """
import sys
from model_store.command import main
main(["models", "--help"])
print(sorted({name.split(".")[0] for name in sys.modules} & {"torch", "fastapi", "faiss", "training", "service"}))
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert out.splitlines()[-1] == "[]"


def test_the_module_is_the_command() -> None:
    assert importlib.util.find_spec("model_store.__main__") is not None
    words = [sys.executable, "-m", "model_store", "--version"]
    out = subprocess.run(words, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert out == f"kdiffe {version('kdiffe')}\n"
