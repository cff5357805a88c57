from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from model_store.store import ModelStore
from service.workers import METRICS, remove_metrics, shared_metrics
from tests.service.processes import Server, until
from tests.support.artifacts import World, publish_world


def fresh(server: Server, path: str) -> httpx.Response:
    """An answer over a connection of its own, so that any worker may accept it."""
    with httpx.Client(base_url=server.url, timeout=20) as client:
        return client.get(path)


def digests(server: Server, count: int) -> dict[int, dict]:
    """What every worker tells of its bits."""
    found: dict[int, dict] = {}

    def all_told() -> bool:
        told = fresh(server, "/admin/digest").json()
        found[told["worker"]] = told
        return len(found) == count

    until(all_told, 30)
    return found


def test_workers_share_a_socket_follow_one_log_and_hold_the_same_bits(tmp_path):
    publish_world(tmp_path)
    server = Server(tmp_path, "--workers", "2", "--refresh-every", "5", "--index", "exact")
    try:
        until(lambda: server.text.count("kdiffe: serving") == 2, 60)
        for n in range(12):
            answer = server.client.post("/interactions", json={"user_id": f"new{n % 3}", "item_id": f"i{n}"})
            assert answer.json()["sequence"] == n + 1
        # At once at the writer; elsewhere with ?at_least.
        assert server.client.get("/recommend/new0?k=40").json()["sequence"] == 12
        for _ in range(6):
            seen = fresh(server, "/recommend/new0?k=40&at_least=12").json()
            assert seen["sequence"] == 12
            assert not {"i0", "i3", "i6", "i9"} & {item["item_id"] for item in seen["items"]}

        def converged() -> bool:
            told = digests(server, 2).values()
            return all((one["sequence"], one["refreshed_at"]) == (12, 10) for one in told)

        until(converged, 30)
        told = digests(server, 2)
        assert len({(one["state"], one["readout"]) for one in told.values()}) == 1

        # Whichever is asked tells of both.
        until(lambda: "kdiffe_workers 2.0" in fresh(server, "/metrics").text, 10)
        metrics = fresh(server, "/metrics").text
        assert 'kdiffe_interactions_total{outcome="accepted"} 12.0' in metrics
        assert 'kdiffe_model_info{model="kdiffe",version="v0001"} 2.0' in metrics
        assert "kdiffe_applied_sequence 12.0" in metrics

        # One that is killed is replaced, and catches up before it accepts.
        killed = min(told)
        os.kill(killed, signal.SIGKILL)
        until(lambda: server.text.count("kdiffe: serving") == 3, 60)
        again = digests(server, 2)
        assert killed not in again
        assert len({(one["sequence"], one["state"], one["readout"]) for one in again.values()}) == 1
        assert 'kdiffe_interactions_total{outcome="accepted"} 12.0' in fresh(server, "/metrics").text

        # A version reaches all of them.
        publish_world(tmp_path)
        until(lambda: {one["model_version"] for one in digests(server, 2).values()} == {"v0002"}, 30)
        assert not any(name.startswith("torch") for name in server.modules())
    finally:
        began = time.monotonic()
        status = server.end(signal.SIGTERM)
    assert status == 0
    assert time.monotonic() - began < 20
    assert "Traceback" not in server.text
    with pytest.raises(ProcessLookupError):
        os.kill(max(again), 0)


def test_every_worker_and_every_start_gives_a_user_the_same_variant(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    words = ("--workers", "2", "--index", "exact")
    users = [f"u{n}" for n in range(12)]

    def told(server: Server) -> dict[int, dict[str, str]]:
        """Worker → user → variant, over connections of its own for each round."""
        found: dict[int, dict[str, str]] = {}

        def all_told() -> bool:
            with httpx.Client(base_url=server.url, timeout=20) as client:
                worker = client.get("/admin/digest").json()["worker"]
                found[worker] = {user: client.get(f"/recommend/{user}").json()["variant"] for user in users}
            return len(found) == 2

        until(all_told, 30)
        return found

    server = Server(tmp_path, *words)
    try:
        until(lambda: server.text.count("kdiffe: serving") == 2, 60)
        arms = [{"name": "b", "version": "v0002", "share": 0.5}, {"name": "c", "version": "v0001", "share": 0.2}]
        begun = server.client.put("/admin/experiment", json={"name": "x", "variants": arms})
        assert begun.status_code == 200, begun.text
        expected = ModelStore(tmp_path).experiment()
        assert expected is not None
        right = {user: expected.variant_of(user) for user in users}
        assert set(right.values()) == {"main", "b", "c"}
        until(lambda: list(told(server).values()) == [right, right], 30)
        # Either worker's writes are in both variants' models before they are acknowledged.
        for n in range(10):
            user = users[n]
            answer = httpx.post(f"{server.url}/interactions", json={"user_id": user, "item_id": f"i{n}"})
            read = f"/recommend/{user}?k=60&at_least={answer.json()['sequence']}"
            assert f"i{n}" not in {item["item_id"] for item in fresh(server, read).json()["items"]}
        metrics = fresh(server, "/metrics").text
        assert 'kdiffe_variant_share{variant="b",version="v0002"} 0.5' in metrics
    finally:
        server.end(signal.SIGKILL)
    again = Server(tmp_path, *words)
    try:
        until(lambda: again.text.count("kdiffe: serving") == 2, 60)
        until(lambda: list(told(again).values()) == [right, right], 30)
    finally:
        again.end(signal.SIGTERM)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Where the workers' metrics are."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    monkeypatch.setenv(METRICS, str(folder))
    return folder


class Running:
    """Workers that are kept by a process of their own: forks of this one would inherit its threads."""

    def __init__(self, count: int, code: str, *, grace: float = 20.0, first_rest: float = 0.5) -> None:
        program = f"""
import os, signal, sys, time
import service.workers
from service.workers import Workers
service.workers.LOOK, service.workers.FIRST_REST = 0.01, {first_rest}
def serve():
    {code}
workers = Workers({count}, serve, grace={grace})
signal.signal(signal.SIGTERM, workers.stop)
workers.run()
"""
        self.process = subprocess.Popen([sys.executable, "-c", program])

    def end(self) -> int:
        self.process.terminate()
        return self.process.wait(60)


def test_a_worker_that_ends_again_and_again_is_given_rests(tmp_path, folder):
    starts = tmp_path / "starts"
    workers = Running(1, f"open({str(starts)!r}, 'a').write(f'{{time.time()}}\\n')", first_rest=0.4)
    until(lambda: starts.exists() and starts.read_text().count("\n") == 3, 30)
    assert workers.end() == 0
    first, second, third = map(float, starts.read_text().split()[:3])
    assert third - second >= 0.4  # the second was replaced at once, the third after a rest
    assert first < second


def test_one_that_does_not_end_is_killed(tmp_path, folder):
    started = tmp_path / "started"
    code = f"signal.signal(signal.SIGTERM, signal.SIG_IGN); open({str(started)!r}, 'w'); time.sleep(60)"
    workers = Running(1, code, grace=0.3)
    until(started.exists, 30)
    began = time.monotonic()
    assert workers.end() == 0
    assert time.monotonic() - began < 20


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's signal is Linux's")
def test_workers_end_with_a_process_that_is_killed(tmp_path, folder):
    started = tmp_path / "started"
    workers = Running(2, f"open({str(started)!r}, 'a').write(f'{{os.getpid()}}\\n'); time.sleep(60)")
    until(lambda: started.exists() and started.read_text().count("\n") == 2, 30)
    pids = [int(word) for word in started.read_text().split()]
    workers.process.kill()
    workers.process.wait()
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 20)


def test_what_a_dead_worker_is_is_dropped_from_the_metrics_and_what_it_has_counted_stays(tmp_path, folder):
    names = ("gauge_livesum", "counter")
    code = f"pid = os.getpid(); [open({str(folder)!r} + f'/{{n}}_{{pid}}.db', 'w') for n in {names}]"
    workers = Running(1, code)
    until(lambda: len(list(folder.glob("counter_*"))) >= 3, 30)
    assert workers.end() == 0
    assert len(list(folder.glob("gauge_*"))) <= 1
    assert len(list(folder.glob("counter_*"))) >= 3


def test_the_metrics_folder_is_named_where_prometheus_looks_and_removed(monkeypatch):
    monkeypatch.setenv(METRICS, "another")  # and is as it was after the test
    folder = shared_metrics()
    assert os.environ[METRICS] == str(folder)
    assert folder.is_dir()
    remove_metrics(folder)
    assert not folder.exists()
