from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model_store.store import ModelStore
from tests.model_store.test_store import small


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three versions, the third active; written (and flushed to disk) once."""
    root = tmp_path_factory.mktemp("published")
    for _ in range(3):
        ModelStore(root).publish(small())
    return root


@pytest.fixture
def store(published: Path, tmp_path: Path) -> ModelStore:
    """A copy of them to change."""
    return ModelStore(Path(shutil.copytree(published, tmp_path / "models")))
