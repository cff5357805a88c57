from __future__ import annotations

import io
import os
import signal
import threading
import time
from pathlib import Path

import httpx
import pytest
from rich.console import Console

from service.commands.demo import _serving
from tests.support.artifacts import publish_world


def children() -> list[int]:
    found: list[int] = []
    for task in Path("/proc/self/task").iterdir():
        found += map(int, (task / "children").read_text(encoding="ascii").split())
    return found


def test_after_ctrl_c_the_service_shuts_down_in_order_and_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish_world(tmp_path)
    before = set(children())
    with _serving(Console(file=io.StringIO()), tmp_path, "127.0.0.1", 0) as url:
        (server,) = set(children()) - before
        assert httpx.get(f"{url}/recommend/u1", trust_env=False).status_code == 200
        # A terminal sends Ctrl-C to the demo's server, too. A second one would make uvicorn leave its shutdown out.
        os.kill(server, signal.SIGINT)
        time.sleep(0.03)
    assert server not in children()
    deadline = time.monotonic() + 10
    while any(thread.name == "kdiffe-demo-log" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert capsys.readouterr().err == ""
