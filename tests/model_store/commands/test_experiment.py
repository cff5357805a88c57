from __future__ import annotations

import pytest

from model_store.store import ModelStore
from tests.model_store.commands.shell import Shell

# Everybody gets the active version.
NONE = {"name": None, "variants": [{"name": "main", "version": "v0003", "share": 1.0}]}


@pytest.fixture
def experiment(store: ModelStore, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell("experiment", store, capsys)


def test_an_experiment_begins_is_shown_and_ends(experiment: Shell, store: ModelStore) -> None:
    assert experiment.json("show") == NONE
    begun = experiment.json("begin", "x", "--variant", "b=v0001:0.05", "--variant", "control=v0003:0.05")
    assert begun == {
        "name": "x",
        "variants": [
            {"name": "main", "version": "v0003", "share": 0.9},
            {"name": "b", "version": "v0001", "share": 0.05},
            {"name": "control", "version": "v0003", "share": 0.05},
        ],
    }
    assert experiment.json("show") == begun
    running = store.experiment()
    assert running is not None
    given = [running.variant_of(f"u{n}") for n in range(2000)]
    assert 0 < given.count("b") < 200  # 100 are expected, with a standard deviation of 10
    status, out, err = experiment("show")
    assert (status, out) == (0, "")
    told = [line.replace("│", " ").split() for line in err.splitlines() if "v0001" in line]
    assert told == [["b", "v0001", "5", "%"]]
    assert experiment.json("end") == NONE
    assert store.experiment() is None
    assert experiment("end")[2] == "No experiment runs: everybody gets v0003.\n"


def test_shares_change_under_the_same_name_and_nobody_else_moves(experiment: Shell, store: ModelStore) -> None:
    users = [f"u{n}" for n in range(500)]
    held = []
    for share in ("0.1", "0.2"):
        experiment.json("begin", "x", "--variant", f"b=v0001:{share}")
        running = store.experiment()
        assert running is not None
        held.append({user for user in users if running.variant_of(user) == "b"})
    assert held[0] < held[1]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("x", "--variant", "b"), "'b' is no variant: write NAME=VERSION:SHARE"),
        (("x", "--variant", "b=v0001:half"), "'b=v0001:half' is no variant"),
        (("x", "--variant", "b=v0001:nan"), "its share must be 0 or lie in"),
        (("x", "--variant", "b=v0009:0.1"), "v0009"),
        (("x", "--variant", "main=v0001:0.1"), "variant 'main'"),
        (("x", "--variant", "b=v0001:0.6", "--variant", "c=v0002:0.6"), "add up to 1.2"),
        (("", "--variant", "b=v0001:0.1"), "An experiment needs a name"),
        (("a\nb", "--variant", "b=v0001:0.1"), "at most 64 printable characters"),
        (("n" * 65, "--variant", "b=v0001:0.1"), "at most 64 printable characters"),
    ],
)
def test_what_can_not_be_an_experiment_is_told_and_changes_nothing(
    experiment: Shell, words: tuple[str, ...], said: str
) -> None:
    before = experiment.json("begin", "before", "--variant", "b=v0002:0.1")
    status, _, err = experiment("begin", *words)
    assert status == 1
    assert said in err
    assert experiment.json("show") == before


def test_a_damaged_version_is_not_given_to_anybody(experiment: Shell, store: ModelStore) -> None:
    path = store.root / "v0001" / "user_embeddings.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    status, _, err = experiment("begin", "x", "--variant", "b=v0001:0.1")
    assert status == 1
    assert "DamagedArtifactError" in err
    assert store.experiment() is None
