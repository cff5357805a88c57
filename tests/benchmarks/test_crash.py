from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis_server import MISSING, server_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "crash.py"
needs_redis = [pytest.mark.redis, pytest.mark.skipif(server_path() is None, reason=MISSING)]


@pytest.mark.parametrize(
    ("subject", "level", "rounds"),
    [
        ("sqlite", "store", 2),
        pytest.param("redis", "store", 2, marks=needs_redis),
        pytest.param("sqlite", "store", 40, marks=pytest.mark.slow),
        pytest.param("redis", "store", 40, marks=[*needs_redis, pytest.mark.slow]),
        pytest.param("sqlite", "service", 5, marks=pytest.mark.slow),
        pytest.param("redis", "service", 5, marks=[*needs_redis, pytest.mark.slow]),
        pytest.param("models", "store", 20, marks=pytest.mark.slow),
    ],
)
@pytest.mark.timeout(600)
def test_what_is_killed_loses_nothing_that_it_acknowledged(subject, level, rounds):
    words = ["--subject", subject, "--level", level, "--rounds", str(rounds), "--longest", "0.3", "--seed", "5"]
    ended = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    if subject == "models":
        assert found["rounds_with_a_broken_store"] == 0
        assert found["changes"] >= rounds
        return
    assert (found["acknowledged_and_lost"], found["counted_twice"], found["gaps"]) == (0, 0, 0)
    assert found["acknowledged"] > 0
