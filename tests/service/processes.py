"""`kdiffe serve` as a process of its own, and waiting for what it does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait for a condition, for so many seconds at most."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Server:
    """`kdiffe serve` as a process of its own, on a free port; in the folder of its log stands what it said."""

    def __init__(self, store: Path, *options: str, environment: Mapping[str, str] | None = None) -> None:
        self.log = store / "serve.log"
        with self.log.open("ab") as log:
            self.log_begin = log.tell()
            command = [sys.executable, "-m", "model_store", "serve", "--store", str(store), "--port", "0", *options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, **(environment or {})})
        try:
            self.version, self.url = self._serving()
        except BaseException:  # one that is too slow must not be left behind
            self.process.kill()
            self.process.wait()
            raise
        self.client = httpx.Client(base_url=self.url, timeout=20)

    def _serving(self) -> tuple[str | Any, ...]:
        """The version that it serves and its address, once it says so."""
        deadline = time.monotonic() + 110
        while (found := re.search(r"kdiffe: serving (\S+) on (\S+)", self.text)) is None:
            assert self.process.poll() is None, self.text
            assert time.monotonic() < deadline, self.text
            time.sleep(0.02)
        return found.groups()

    @property
    def text(self) -> str:
        """What this run has logged."""
        return self.log.read_bytes()[self.log_begin :].decode()

    def workers(self) -> list[int]:
        """Process ids of the processes that it has started."""
        return [
            int(pid) for pid in Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        ]

    def modules(self) -> set[str]:
        """Names of the libraries' folders that the workers have mapped files of."""
        found = set()
        for pid in self.workers():
            for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
                found |= set(re.findall(r"/site-packages/([^/]+)/", line))
        return found

    def end(self, number: int) -> int:
        """Send it a signal. Its exit status."""
        self.client.close()
        os.kill(self.process.pid, number)
        return self.process.wait(30)
