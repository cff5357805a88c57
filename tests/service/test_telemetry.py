from __future__ import annotations

import io
import json
import logging
from dataclasses import replace
from functools import partial

import pytest
import structlog

from model_store.store import ModelStore
from service.index.exact import ExactIndex
from service.live.registry import Registry
from service.security.api_key import PREFIX
from service.state.memory import MemoryState
from service.state.port import Job
from service.telemetry import Telemetry, configure_logging, without_secrets
from tests.service.worlds import interactions
from tests.support.artifacts import publish_world

ENDED = 'kdiffe_job_ended_timestamp_seconds{{state="{}"}}'
SHOWN, BLANKED = f"{PREFIX}_0af1_s3cr-et", f"{PREFIX}_0af1_***"


def test_what_is_counted_is_exposed():
    telemetry = Telemetry()
    telemetry.request("GET", "/recommend/{user_id}", 200, 0.004)
    telemetry.recommended({"model": 3}, "v0001", "main", "exact")
    telemetry.interactions(2, 1)
    text = telemetry.exposition().decode()
    assert 'kdiffe_requests_total{method="GET",route="/recommend/{user_id}",status="200"} 1.0' in text
    assert 'kdiffe_request_seconds_bucket{le="0.005",route="/recommend/{user_id}"} 1.0' in text
    assert 'kdiffe_recommended_items_total{strategy="model",variant="main",version="v0001"} 3.0' in text
    assert 'kdiffe_lists_total{backend="exact",variant="main",version="v0001"} 1.0' in text
    assert 'kdiffe_interactions_total{outcome="duplicate"} 1.0' in text


def told_of_jobs(telemetry):
    text = telemetry.exposition().decode()
    told = [line.split() for line in text.splitlines() if line.startswith("kdiffe_job")]
    return {name: float(value) for name, value in told}


def test_when_jobs_ended_is_exposed_for_every_way_to_end_once_they_are_known():
    telemetry = Telemetry()
    ended = ENDED.format
    assert ended("failed") not in telemetry.exposition().decode()  # not 0, which would be a change later on
    telemetry.jobs([])
    assert told_of_jobs(telemetry) == {
        "kdiffe_job_running": 0.0,
        ended("succeeded"): 0.0,
        ended("failed"): 0.0,
        ended("cancelled"): 0.0,
    }
    job = Job("j", "running", 1.0, "v0001", 0)
    failed = [replace(job, state="failed", finished_at=at) for at in (70.0, 60.0)]
    telemetry.jobs([job, *failed, replace(job, state="queued")])
    telemetry.jobs(
        [replace(job, state="succeeded", finished_at=80.0), job]
    )  # the failed ones are among the latest no more
    assert told_of_jobs(telemetry) == {
        "kdiffe_job_running": 1.0,
        ended("succeeded"): 80.0,
        ended("failed"): 70.0,
        ended("cancelled"): 0.0,
    }


def test_two_services_in_one_process_count_apart():
    one, other = Telemetry(), Telemetry()
    one.swapped()
    assert "kdiffe_model_swaps_total 1.0" in one.exposition().decode()
    assert "kdiffe_model_swaps_total 0.0" in other.exposition().decode()


def test_the_served_models_condition_is_exposed(tmp_path):
    registry = Registry(ModelStore(tmp_path), MemoryState(), ExactIndex, refresh_every=10, version_interval=0.02)
    telemetry = Telemetry()
    telemetry.watch(registry)
    assert "kdiffe_ready 0.0" in telemetry.exposition().decode()
    publish_world(tmp_path)
    registry.start()
    assert registry.wait_ready(30)
    text = telemetry.exposition().decode()
    assert "kdiffe_ready 1.0" in text
    assert 'kdiffe_model_info{model="kdiffe",version="v0001"} 1.0' in text
    assert "kdiffe_applied_sequence 0.0" in text
    assert "kdiffe_stale_nodes 0.0" in text
    sizes = dict(line.split() for line in text.splitlines() if line.startswith("kdiffe_state_"))
    shared, own = registry.model.state_nbytes
    assert float(sizes["kdiffe_state_shared_bytes"]) == shared > 0
    assert float(sizes["kdiffe_state_own_bytes"]) == own > 0
    registry.stop()


def test_a_state_that_takes_no_writes_is_exposed(tmp_path):
    publish_world(tmp_path)
    registry = Registry(ModelStore(tmp_path), MemoryState(), ExactIndex, refresh_every=10, version_interval=0.02)
    failing = [True]
    telemetry = Telemetry()
    telemetry.watch(registry, writes_fail=lambda: failing[0])
    registry.start()
    assert registry.wait_ready(30)
    assert "kdiffe_degraded 1.0" in telemetry.exposition().decode()
    failing[0] = False
    assert "kdiffe_degraded 0.0" in telemetry.exposition().decode()
    registry.stop()


def test_how_much_waits_and_where_the_log_ends_is_exposed(tmp_path):
    state = MemoryState()
    publish_world(tmp_path)
    registry = Registry(ModelStore(tmp_path), state, ExactIndex, refresh_every=10, version_interval=0.02)
    waiting = {"writes": 2, "jobs": 1}
    telemetry = Telemetry()
    telemetry.watch(registry, {name: partial(waiting.__getitem__, name) for name in waiting})
    registry.start()
    assert registry.wait_ready(30)
    registry.follower.stop()  # what comes now waits
    state.append(interactions([("u1", "i1"), ("u1", "i2"), ("u2", "i3")]))
    text = telemetry.exposition().decode()
    assert "kdiffe_state_sequence 3.0" in text
    assert "kdiffe_applied_sequence 0.0" in text
    assert text.count("# TYPE kdiffe_queue_depth gauge") == 1
    for queue, depth in {"apply": 3, "settle": 0, "writes": 2, "jobs": 1}.items():
        assert f'kdiffe_queue_depth{{queue="{queue}"}} {depth}.0' in text
    assert 'kdiffe_index_info{index="exact"} 1.0' in text
    registry.follower.start()
    assert registry.follower.wait_idle()
    assert 'kdiffe_queue_depth{queue="apply"} 0.0' in telemetry.exposition().decode()
    registry.stop()


def test_secrets_are_blanked():
    deep = {"headers": [{"Cookie": "abc", "accept": "*"}], "tried": (SHOWN, 3)}
    event = {"event": "x", "Authorization": "Bearer abc", "admin_key": "abc", "user": "u", "request": deep}
    assert without_secrets(None, "info", event) == {
        "event": "x",
        "Authorization": "***",
        "admin_key": "***",
        "user": "u",
        "request": {"headers": [{"Cookie": "***", "accept": "*"}], "tried": [BLANKED, 3]},
    }


@pytest.fixture
def restored_logging():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


def test_logs_are_json_lines_also_those_of_other_libraries(restored_logging, monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    configure_logging("info")
    structlog.get_logger("a").info("hello", admin_key="abc", n=1)
    logging.getLogger("other").warning("from %s", "outside")
    logging.getLogger("other").debug("not this")
    try:
        raise ValueError(f"refused {SHOWN}")
    except ValueError:
        structlog.get_logger("a").exception("broken")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["hello", "from outside", "broken"]
    assert f"ValueError: refused {BLANKED}" in lines[2]["exception"]
    assert lines[0]["admin_key"] == "***"
    assert lines[0]["level"] == "info"
    assert "timestamp" in lines[1]
