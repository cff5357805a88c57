from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

from service.state.memory import MemoryState
from tests.support.artifacts import publish_world

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "workers.py"
spec = importlib.util.spec_from_file_location("workers", SCRIPT)
assert spec is not None
assert spec.loader is not None
workers = importlib.util.module_from_spec(spec)
spec.loader.exec_module(workers)


def measured(store: Path, section: str, *options: str) -> dict[str, object]:
    """What a section prints."""
    words = [sys.executable, str(SCRIPT), section, "--store", str(store), *options]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return json.loads(ended.stdout)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_readers_beside_writers_are_all_answered(tmp_path):
    publish_world(tmp_path)
    found = measured(tmp_path, "load", "--seconds", "2", "--turns", "2", "--rate", "50", "--reads", "20")
    # 2 turns of 1 s each, and of 1 s beside writes; 1 s of reads before.
    assert found["statuses"] == {"reads": {"200": 20 * 5}, "writes": {"202": 50 * 2}}
    assert found["failed"] == 0
    assert found["write_ms"]["max"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_swaps_fail_no_request(tmp_path):
    publish_world(tmp_path)
    found = measured(tmp_path, "swaps", "--swaps", "10")
    assert found["swaps"] == 10
    assert found["failed"] == 0
    assert found["requests"] > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_roll_backs_reach_every_worker(tmp_path):
    publish_world(tmp_path)
    found = measured(tmp_path, "rollback", "--swaps", "3")
    assert (found["roll_backs"], found["failed"], found["workers"]) == (3, 0, 2)
    assert found["all_workers_s"]["max"] >= found["call_s"]["max"] > 0


@pytest.mark.parametrize("count", [0, 200, 1000, 1200])
def test_a_log_is_filled_with_as_many_interactions_as_are_asked_for(count):
    state = MemoryState()
    assert workers.fill(state, ["u1", "u2"], ["i1"], count) == state.last_sequence() == count


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_start_replays_is_what_was_asked_for(tmp_path):
    publish_world(tmp_path)
    found = measured(tmp_path, "replay", "--writes", "200")
    assert found["interactions"] == 200
    assert min(found["start_s"].values()) > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_hold_the_same_bits(tmp_path):
    publish_world(tmp_path)
    found = measured(tmp_path, "memory", "--workers", "2")
    assert found["different_digests"] == 1
    assert all(len(each) == 2 and min(each) > 0 for each in found["uss_mb"].values())
