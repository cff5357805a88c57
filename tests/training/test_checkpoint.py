from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from training.checkpoint import FILE_NAME, Checkpoint
from training.errors import CheckpointError


def written(folder: Path) -> Checkpoint:
    tensors = {"model.a": torch.arange(600.0).reshape(20, 30).T, "adam.a.step": torch.tensor(3.0)}
    checkpoint = Checkpoint("me", {"history": [{"epoch": 1, "loss": 0.1}], "best_metrics": {}}, tensors)
    checkpoint.write(folder)
    return checkpoint


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    before = written(tmp_path / "deep" / "folder")
    after = Checkpoint.read(tmp_path / "deep" / "folder", "me")
    assert after is not None
    assert after.progress == before.progress
    assert after.tensors.keys() == before.tensors.keys()
    assert all(torch.equal(after.tensors[name], before.tensors[name]) for name in before.tensors)


def test_a_new_checkpoint_replaces_the_old_one_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    written(tmp_path)
    Checkpoint("me", {"n": 2}, {"x": torch.ones(1)}).write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [FILE_NAME]
    found = Checkpoint.read(tmp_path, "me")
    assert found is not None
    assert found.progress == {"n": 2}


def test_a_folder_without_one_has_none(tmp_path: Path) -> None:
    assert Checkpoint.read(tmp_path, "me") is None


@pytest.mark.parametrize("left", [0, 4, 60, 1000])
def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path, left: int) -> None:
    written(tmp_path)
    path = tmp_path / FILE_NAME
    assert path.stat().st_size > 1000
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(CheckpointError, match=FILE_NAME):
        Checkpoint.read(tmp_path, "me")


@pytest.mark.parametrize("content", [b"not a checkpoint at all", b"\xff" * 200, b"\x80\x04\x95pickle"])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match="can't be read"):
        Checkpoint.read(tmp_path, "me")


@pytest.mark.parametrize("header", [None, {"identity": "me"}, {"identity": "me", "progress": "{half"}])
def test_tensors_without_a_run_s_facts_are_refused(tmp_path: Path, header: dict[str, str] | None) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / FILE_NAME, header)
    with pytest.raises(CheckpointError, match="can't be read"):
        Checkpoint.read(tmp_path, "me")


def test_a_checkpoint_of_another_run_is_refused_with_the_next_step(tmp_path: Path) -> None:
    written(tmp_path)
    with pytest.raises(CheckpointError, match="--run-dir"):
        Checkpoint.read(tmp_path, "someone else")
