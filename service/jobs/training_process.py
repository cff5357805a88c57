"""A training process: its command, its files, its limits, what it tells of its progress.

Its folder outlives it where it is interrupted: the process that takes the job again goes on from its checkpoint.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import JobFailedError
from service.leash import leashed
from service.workers import OWN_VARIABLES

# Characters of the training's log that a job keeps.
TAIL = 4000
PROC = Path("/proc")
# How a command, and a traceback, tell an error.
ERROR = re.compile(r"^(?:[Ee]rror: |[\w.]*(?:Error|Exception)(?:: |$))", re.MULTILINE)


@dataclass(frozen=True)
class Order:
    """What a training process is told.

    Attributes:
        base: the version to retrain.
        store: the model store's directory.
        interactions: the log as JSON lines.
        sequence: the log's last sequence number in that file.
        state_id: the log's name.
        progress: the file that the process keeps its progress in.
        trial: whether the new version is measured, for the gate.
    """

    base: str
    store: Path
    interactions: Path
    sequence: int
    state_id: str
    progress: Path
    trial: bool = True

    @property
    def run(self) -> Path:
        """The folder of the process's checkpoints."""
        return run_of(self.progress.parent)


Command = Callable[[Order], Sequence[str]]


def train_command(order: Order) -> list[str]:
    """The command of a training process."""
    return [
        *(sys.executable, "-m", "model_store", "train"),
        *("--base", order.base),
        *("--store", str(order.store)),
        *("--interactions", str(order.interactions)),
        *("--sequence", str(order.sequence)),
        *("--state-id", order.state_id),
        *("--progress-file", str(order.progress)),
        *("--run-dir", str(order.run)),
        *("--resume", "--no-activate", "--json"),
        *(["--trial"] if order.trial else []),
    ]


@dataclass(frozen=True)
class Limits:
    """What a training process may use.

    Attributes:
        seconds: of one attempt; 0 for no limit.
        memory_mb: resident memory of the process and all that it has started, in MiB; 0 for no limit.
    """

    seconds: float = 0.0
    memory_mb: int = 0


@dataclass(frozen=True)
class Progress:
    """How far a training process is: 0 to 1, and what it is doing."""

    progress: float
    phase: str


class TrainingProcess:
    """One process, from its start to its end; use it as a context manager, which leaves no process behind."""

    def __init__(self, order: Order, directory: Path, command: Command, limits: Limits) -> None:
        """Describe it; entering starts it.

        Args:
            order: what it is told.
            directory: where it writes.
            command: its command line.
            limits: what it may use.
        """
        self._order = order
        self._out, self.log = directory / "stdout.txt", log_of(directory)
        self._command = list(command(order))
        self._limits = limits
        self._process: subprocess.Popen[bytes] | None = None
        self._began = 0.0
        self._log_begin = 0

    def __enter__(self) -> TrainingProcess:
        """Start it. It ends with this process, even where that is killed; the starting thread must stay until then."""
        # Training needs neither the server's thread limits nor its secrets.
        hidden = {*OWN_VARIABLES, "KDIFFE_ADMIN_KEY", "KDIFFE_STATE", "KDIFFE_STATE_PASSWORD"}
        environment = {name: value for name, value in os.environ.items() if name not in hidden}
        # OpenMP's idle threads sleep instead of spinning: beside a busy core, spinning made a small set's epochs 2 to 4
        # times slower (alone on two cores it makes them 1.5 to 2 times faster).
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with self._out.open("wb") as stdout, self.log.open("ab") as stderr:
            self._log_begin = stderr.tell()  # another attempt may have written before
            self._process = subprocess.Popen(
                leashed(self._command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                start_new_session=True,
            )
        self._began = time.monotonic()
        return self

    def __exit__(self, *_error: object) -> None:
        """End it, and all that it has started."""
        process = self._process
        assert process is not None  # noqa: S101
        for number, patience in ((signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)):
            if process.poll() is not None:
                return
            try:
                os.killpg(process.pid, number)
            except ProcessLookupError:
                return
            try:
                process.wait(patience)
            except subprocess.TimeoutExpired:
                continue

    def running(self) -> bool:
        """Whether it still runs.

        Raises:
            JobFailedError: it uses more than it may.
        """
        process, limits = self._process, self._limits
        assert process is not None  # noqa: S101
        if process.poll() is not None:
            return False
        if limits.seconds and time.monotonic() - self._began > limits.seconds:
            raise JobFailedError(f"Training took longer than {limits.seconds:g} s: raise KDIFFE_JOB_SECONDS.")
        if limits.memory_mb and (used := resident_mb(process.pid)) > limits.memory_mb:
            raise JobFailedError(
                f"Training used {used:.0f} MiB of memory, {limits.memory_mb} are allowed: raise KDIFFE_JOB_MEMORY_MB."
            )
        return True

    def progress(self) -> Progress | None:
        """How far it is, None where it has not told yet."""
        try:
            found = json.loads(self._order.progress.read_text(encoding="utf-8"))
            return Progress(min(max(float(found["progress"]), 0.0), 1.0), str(found.get("phase", "train")))
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def version(self) -> str:
        """The version that it has published, once it has ended.

        Raises:
            JobFailedError: it has failed, or did not tell.
        """
        assert self._process is not None  # noqa: S101
        status = self._process.returncode
        if status != 0:
            raise JobFailedError(failure(status, tail(self.log, self._log_begin), self.log.parent))
        lines = self._out.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        try:
            return str(json.loads(lines[-1])["version"])
        except (IndexError, ValueError, KeyError, TypeError):
            raise JobFailedError(f"Training did not tell its version: {tail(self._out) or 'no output'}") from None


def failure(status: int, said: str, directory: Path) -> str:
    """Why a training has failed, as far as that is known.

    Args:
        status: how its process ended, below 0 the signal that ended it.
        said: the end of its log.
        directory: where it wrote.
    """
    errors = list(ERROR.finditer(said))
    error = said[errors[-1].start() :] if errors else ""
    if status < 0:
        # The log's last words are no cause: they told of the work that was interrupted.
        number = -status
        name = signal.Signals(number).name if number in {*signal.Signals} else "unknown"
        words = f"Training was ended by signal {number} ({name})."
        if number == signal.SIGKILL:
            words += (
                " Perhaps the machine's memory ran out: a training that reaches KDIFFE_JOB_MEMORY_MB is ended before "
                "that, and says so."
            )
        return f"{words} The last error in its log: {error}" if error else words
    if error:
        return f"Training ended with status {status}: {error}"
    space = shutil.disk_usage(directory).free / 2**20
    return (
        f"Training ended with status {status}: {said or 'its log is empty'}\n"
        f"No error was told. On the disk of {directory}, where it writes, {space:,.0f} MiB are free."
    )


def resident_mb(session: int) -> float:
    """MiB of resident memory of a session's processes; 0 where there is no /proc."""
    total = 0
    for folder in PROC.glob("[0-9]*"):
        try:
            # After the name, which may hold anything: the session is field 6, resident pages field 24 (proc(5)).
            fields = (folder / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session:
            total += int(fields[21])
    return total * os.sysconf("SC_PAGE_SIZE") / 2**20


def log_of(directory: Path) -> Path:
    """Where the training of a job with this folder writes its log."""
    return directory / "log.txt"


def run_of(directory: Path) -> Path:
    """Where the training of a job with this folder keeps its checkpoints."""
    return directory / "run"


def interactions_of(directory: Path) -> Path:
    """Where the training of a job with this folder finds the log of interactions."""
    return directory / "interactions.jsonl"


def tail(path: Path, begin: int = 0) -> str:
    """The end of a file, from `begin` at most; empty where there is none."""
    try:
        with path.open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - TAIL, begin))
            return file.read().decode(errors="replace").strip()
    except OSError:
        return ""


def clear(directory: Path) -> None:
    """Remove a job's folder."""
    shutil.rmtree(directory, ignore_errors=True)
