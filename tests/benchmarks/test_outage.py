from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.redis_server import MISSING, server_path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "outage.py"


@pytest.mark.slow
@pytest.mark.redis
@pytest.mark.skipif(server_path() is None, reason=MISSING)
@pytest.mark.timeout(400)
@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_workers_bear_that_redis_is_away_for_a_while(how):
    words = ["--how", how, "--seconds", "4", "--readers", "2", "--writers", "2"]
    ended = subprocess.run([sys.executable, str(SCRIPT), *words], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = json.loads(ended.stdout)
    assert set(found["reads"]) == {"200"}
    assert set(found["writes"]) == {"202", "503"}
    assert found["reads_during"] >= found["reads_during_marked"] > 0
    assert found["acknowledged"] > found["acknowledged_during"] == 0
    assert (found["acknowledged_and_lost"], found["counted_twice"], found["refused_without_retry_after"]) == (0, 0, 0)
    assert found["different_digests"] == 1
