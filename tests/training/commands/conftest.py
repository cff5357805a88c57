from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_store.command import main
from tests.training.commands.runs import sets
from training.data.formats import write_data_set
from training.data.synthesis import synthesize


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small data set on disk, without a split of its own."""
    path = tmp_path_factory.mktemp("data") / "clips"
    write_data_set(synthesize(40, 30, 3, mean_interactions=8), path, "recbole", note=lambda _: None)
    return path


@pytest.fixture(scope="session")
def trained_once(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with one trained version; read it only."""
    root = tmp_path_factory.mktemp("once")
    words = ["train", "--data", str(data), "--store", str(root / "models"), "--run-dir", str(root / "run"), *sets()]
    assert main(words) == 0
    return root / "models"


@pytest.fixture
def store(trained_once: Path, tmp_path: Path) -> Path:
    """A copy of that store to change."""
    return Path(shutil.copytree(trained_once, tmp_path / "models"))
