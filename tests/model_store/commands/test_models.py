import json
from pathlib import Path
from typing import Any

import pytest

from model_store.commands.models import quality
from model_store.experiment import Arm
from model_store.store import ModelStore
from tests.model_store.commands.shell import Shell


@pytest.fixture
def models(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell("models", store, capsys)


def test_list_gives_every_version_the_oldest_first_and_marks_the_active_one(models: Shell) -> None:
    listed = models.json("list")
    assert listed["active"] == "v0003"
    assert [row["version"] for row in listed["versions"]] == ["v0001", "v0002", "v0003"]
    assert [row["active"] for row in listed["versions"]] == [False, False, True]
    first = listed["versions"][0]
    assert (first["model"], first["users"], first["items"], first["sequence"]) == ("kdiffe", 3, 4, 17)
    assert first["metrics"] == {"valid": {"ndcg@20": 0.25}}
    status, out, err = models("list")
    assert (status, out) == (0, "")
    assert "v0002" in err
    assert "0.2500" in err


def test_on_a_narrow_terminal_nothing_of_the_list_is_cut(
    models: Shell, store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    store.set_experiment("x", [Arm("canary", "v0001", 0.05)])
    (store.root / "v0002" / "manifest.json").write_text("{}")
    _, _, err = models("list")
    lines = err.splitlines()
    for row in models.json("list")["versions"]:
        (line,) = [line for line in lines if line.strip().startswith(f"{row['version']} ")]
        if "error" in row:
            assert f"{row['version']}: {row['error']}" in lines  # below the table, on a line of its own
        else:
            created = row["created_at"][:16].replace("T", " ")
            assert all(str(cell) in line for cell in ("kdiffe", created, row["users"], row["items"], row["sequence"]))
    assert "…" not in err
    assert "canary 5 %" in err


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [
        ({"valid": {"ndcg@20": 0.25}}, "0.2500"),
        ({"valid": {"ndcg@20": 0.25}, "selected_as": "v0001"}, "v0001's 0.2500"),
        (
            {
                "valid": {"ndcg@20": 0.25},
                "selected_as": "v0001",
                "trial": {"base": "v0002", "before": {"ndcg@20": 0.3}, "known": {"ndcg@20": 0.125}, "valid": {}},
            },
            "on trial 0.1250, v0002 0.3000",
        ),
        ({"selected_as": "v0001", "trial": {"base": "v0002", "before": {}, "known": {}, "valid": {}}}, "-"),
        ({}, "-"),
    ],
)
def test_a_retrained_version_s_quality_is_not_its_ancestor_s(metrics: dict[str, Any], shown: str) -> None:
    assert quality(metrics) == shown


def test_list_shows_an_experiment_s_variants(models: Shell, store: ModelStore) -> None:
    store.set_experiment("x", [Arm("b", "v0001", 0.25), Arm("control", "v0003", 0.1)])
    listed = models.json("list")["versions"]
    assert [row["variants"] for row in listed] == [{"b": 0.25}, {}, {"control": 0.1}]
    told = models("list")[2]
    assert "b 25 %" in told
    assert "active" in told


def test_list_of_an_empty_store_says_so_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    models = Shell("models", ModelStore(tmp_path / "none"), capsys)
    assert models.json("list") == {"versions": [], "active": None}
    assert "No versions" in models("list")[2]
    assert not (tmp_path / "none").exists()


def test_list_shows_a_damaged_version_as_such_and_the_others_as_ever(models: Shell, store: ModelStore) -> None:
    (store.root / "v0002" / "manifest.json").write_text("{")
    listed = models.json("list")
    assert [row["version"] for row in listed["versions"]] == ["v0001", "v0002", "v0003"]
    assert listed["versions"][1]["error"].startswith("DamagedArtifactError: ")
    assert "error" not in listed["versions"][0]
    status, _, err = models("list")
    assert status == 0
    assert "Damaged" in err


def test_show_prints_the_manifest_of_the_active_or_of_the_named_version(models: Shell, store: ModelStore) -> None:
    for words, version in (((), "v0003"), (("v0001",), "v0001")):
        status, out, _ = models("show", *words)
        assert status == 0
        assert json.loads(out) == json.loads((store.root / version / "manifest.json").read_text())


def test_activate_and_rollback_move_the_active_version(models: Shell, store: ModelStore) -> None:
    assert models.json("activate", "v0001") == {"active": "v0001"}
    assert store.active() == "v0001"
    assert models.json("rollback") == {"active": "v0003"}
    status, out, err = models("activate", "v0002")
    assert (status, out, err) == (0, "", "v0002 is active.\n")
    assert "Rolled back: v0003 is active." in models("rollback")[2]


def test_an_unknown_version_is_an_error_that_lists_the_known_ones(models: Shell, store: ModelStore) -> None:
    for words in (("activate", "../x"), ("show", "v0009"), ("verify", "v0009")):
        status, out, err = models(*words)
        assert (status, out) == (1, "")
        assert "there are: v0001, v0002, v0003" in err
    assert store.active() == "v0003"


def test_verify_passes_what_is_whole_and_names_what_is_not(models: Shell, store: ModelStore) -> None:
    assert models.json("verify") == {"verified": ["v0001", "v0002", "v0003"]}
    assert models.json("verify", "v0002") == {"verified": ["v0002"]}
    path = store.root / "v0002" / "form.alpha.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    for words in (("verify",), ("verify", "v0002")):
        status, _, err = models(*words)
        assert status == 1
        assert "form.alpha.npy: checksum" in err
    assert models.json("verify", "v0003") == {"verified": ["v0003"]}
    assert "checksum" in models("activate", "v0002")[2]
    assert store.active() == "v0003"
    (store.root / "v0001" / "form.alpha.npy").unlink()
    _, _, err = models("verify")
    assert "2 of 3 versions" in err
    assert "v0001/form.alpha.npy: missing" in err
    assert "v0002/form.alpha.npy: checksum" in err


def test_an_empty_name_is_no_call_to_verify_everything(models: Shell) -> None:
    status, _, err = models("verify", "")
    assert status == 1
    assert "No version ''" in " ".join(err.split())


@pytest.mark.parametrize(
    "words", [["models", "verify"], ["models", "prune"], ["models", "rollback"], ["experiment", "end"]]
)
def test_a_misspelt_store_is_no_empty_one(words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = Shell(words[0], ModelStore(tmp_path / "none"), capsys)(*words[1:])
    assert status == 1
    assert "there is no such directory" in " ".join(err.split())
    assert not (tmp_path / "none").exists()


def test_prune_removes_old_versions(models: Shell, store: ModelStore) -> None:
    assert models.json("prune", "--keep", "1") == {"removed": ["v0001"]}
    assert store.versions() == ["v0002", "v0003"]
    assert "Removed: nothing." in models("prune")[2]


def test_a_negative_number_to_keep_is_wrong_usage(models: Shell, store: ModelStore) -> None:
    assert models("prune", "--keep", "-1")[0] == 2
    assert len(store.versions()) == 3
