from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model_store.store import ModelStore
from tests.support.artifacts import publish_world

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "serving.py"


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_store_with_fewer_users_than_are_asked_for_is_measured_with_all_of_them(tmp_path):
    publish_world(tmp_path)
    words = ["--store", str(tmp_path), "--users", "2000", "--rounds", "1", "--seconds", "0.2", "--index", "exact"]
    ended = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert found["lists"] == found["users"] == ModelStore(tmp_path).open().manifest.n_users
    assert all(figures["refused"] == 0 for figures in found["reads"].values())
