"""Servers as processes of their own: where they listen, what they cost; and a connection that costs little itself."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
HOST = "127.0.0.1"
# What `kdiffe serve` and uvicorn say once they serve.
SERVING = re.compile(rf" on (http://{re.escape(HOST)}:(\d+))")
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
HEAD_ENDS = b"\r\n\r\n"


class Server:
    """A server as a process, with one BLAS thread; there once it has said where it listens."""

    def __init__(self, log: Path, *words: str, workers: int = 1, **environment: str) -> None:
        """Start one.

        Args:
            log: what it says is written here.
            words: what Python is called with.
            workers: how many processes serve; each says where.
            environment: beside what this process has.
        """
        began = time.monotonic()
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *words],
                stdout=file,
                stderr=file,
                cwd=ROOT,
                env={**os.environ, **ONE_THREAD, **environment},
            )
        self._workers = workers
        while len(found := SERVING.findall(log.read_text(encoding="utf-8"))) < workers:
            if self.process.poll() is not None or time.monotonic() > began + 300:
                self.kill()
                raise SystemExit(f"the server did not start:\n{log.read_text(encoding='utf-8')[-3000:]}")
            time.sleep(0.02)
        self.started_s = time.monotonic() - began
        self.url, self.port = found[0][0], int(found[0][1])

    @classmethod
    def of_store(cls, store: Path, *options: str, workers: int = 1, **environment: str) -> Server:
        """`kdiffe serve` over a model store, on a free port."""
        command = (
            "-m",
            "model_store",
            "serve",
            "--store",
            str(store.resolve()),
            "--port",
            "0",
            "--log-level",
            "warning",
        )
        several = ("--workers", str(workers))
        return cls(store / "serve.log", *command, *several, *options, workers=workers, **environment)

    @property
    def pids(self) -> list[int]:
        """Process ids of the serving processes."""
        pid = self.process.pid
        if self._workers == 1:
            return [pid]
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]

    @property
    def cpu_s(self) -> float:
        """CPU seconds of the serving processes so far."""
        return sum(cpu_of(pid) for pid in self.pids)

    def end(self) -> None:
        """Stop it."""
        self.process.terminate()
        self.process.wait(60)

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int | str = "self") -> dict[str, float]:
    """USS, PSS and RSS of a process in MiB."""
    fields = {
        line.split(":")[0]: int(line.split()[1])
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    }
    uss = fields["Private_Clean"] + fields["Private_Dirty"]
    return {name: round(kb / 1024, 1) for name, kb in (("uss", uss), ("pss", fields["Pss"]), ("rss", fields["Rss"]))}


class Connection:
    """A connection that is kept open, by hand: a client library would cost more than the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a server of this machine."""
        return cls(*await asyncio.open_connection(HOST, port))

    async def ask(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes]:
        """Send a request; its status and what was answered."""
        status, _, answer = await self.answer(method, path, body)
        return status, answer

    async def answer(self, method: str, path: str, body: bytes = b"") -> tuple[int, bytes, bytes]:
        """Send a request; its status, its head as it came, and what was answered."""
        head = f"{method} {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {len(body)}\r\n\r\n"
        self._writer.write(head.encode() + body)
        answered = await self._reader.readuntil(HEAD_ENDS)
        length = LENGTH.search(answered)
        assert length is not None
        return int(answered[9:12]), answered, await self._reader.readexactly(int(length.group(1)))

    def close(self) -> None:
        """End it."""
        self._writer.close()
