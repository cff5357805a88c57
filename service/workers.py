"""Several serving processes on one socket: started, watched, replaced where they end, ended in order.

Each is a fork of this one, which has loaded every library and compiled every function by then and has no thread: what
is there already costs a worker no memory, and a replacement serves within a moment. (A fork after OpenMP has started
threads hangs: this process searches no index and computes nothing.) A worker accepts once its model is loaded, so that
a replacement drops no request. The kernel ends the workers where this process is killed.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkProcess
from pathlib import Path

import structlog

from service.leash import bind_to

# prometheus_client keeps the metrics of all workers in files of this directory; read when it is first imported.
METRICS = "PROMETHEUS_MULTIPROC_DIR"
# What the serving process limits for itself. One thread for each request: with two, BLAS takes five times as long for
# the exact top 20 of 12,000 × 64.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# What a process that does not serve must not inherit: training uses all cores.
OWN_VARIABLES = (METRICS, *THREAD_VARIABLES)
# A worker that has run for less is restarted after a rest, doubled with each further one.
STEADY = 10.0
FIRST_REST, LONGEST_REST = 0.5, 30.0
LOOK = 0.1

log = structlog.get_logger(__name__)


@dataclass
class _Place:
    """A worker's place.

    Attributes:
        process: the worker, None while the place is empty.
        started_at: time.monotonic() of its start.
        failures: how many workers in a row have ended early.
        not_before: time.monotonic() before which none is started here.
    """

    process: ForkProcess | None = None
    started_at: float = 0.0
    failures: int = 0
    not_before: float = 0.0


class Workers:
    """Keeps a number of workers running until it is told to stop."""

    def __init__(self, count: int, serve: Callable[[], None], *, grace: float) -> None:
        """Keep workers; call `run`. Where they share metrics, METRICS names the folder of them.

        Args:
            count: how many.
            serve: what a worker does until it is told to stop.
            grace: seconds that a worker gets to end.
        """
        self._serve = serve
        self._grace = grace
        self._places = [_Place() for _ in range(count)]
        self._metrics = Path(os.environ[METRICS])
        self._stop = threading.Event()

    def run(self) -> None:
        """Start the workers and replace those that end, until `stop`; then end them in order."""
        # Objects that are there already are looked at by no collection, so that their pages stay shared.
        gc.collect()
        gc.freeze()
        try:
            while not self._stop.is_set():
                for place in self._places:
                    self._look(place)
                self._stop.wait(LOOK)
        finally:
            self._end()

    def stop(self, *_signal: object) -> None:
        """End the workers; `run` returns then. Fits as a signal's handler."""
        self._stop.set()

    def _look(self, place: _Place) -> None:
        """Start a worker where there is none."""
        now = time.monotonic()
        process = place.process
        if process is not None:
            status = process.exitcode
            if status is None:
                return
            self._forget(process)
            place.process = None
            place.failures = 0 if now - place.started_at > STEADY else place.failures + 1
            rest = min(FIRST_REST * 2.0 ** (place.failures - 1), LONGEST_REST) if place.failures > 1 else 0.0
            place.not_before = now + rest
            log.error("a worker has ended and is replaced", pid=process.pid, status=status, rest=rest)
        if now >= place.not_before:
            place.process, place.started_at = self._start(), now

    def _start(self) -> ForkProcess:
        process = multiprocessing.get_context("fork").Process(target=self._work, args=(os.getpid(),), name="worker")
        process.start()
        return process

    def _work(self, parent: int) -> None:
        """A worker's life."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()  # Ctrl-C reaches the first process alone, which ends the workers in order
        if bind_to(parent):
            self._serve()

    def _forget(self, process: ForkProcess) -> None:
        """Drop what the metrics say of a process that has ended; what it has counted stays."""
        for path in self._metrics.glob(f"gauge_live*_{process.pid}.db"):
            path.unlink(missing_ok=True)

    def _end(self) -> None:
        running = [place.process for place in self._places if place.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + self._grace
        for process in running:
            process.join(max(deadline - time.monotonic(), 0.1))
            if process.exitcode is None:
                log.error("a worker did not end in time and is killed", pid=process.pid)
                process.kill()
                process.join()


def shared_metrics() -> Path:
    """A folder for the metrics of workers, named where prometheus_client and every worker look for it.

    To be called before prometheus_client is imported; the caller removes it.
    """
    folder = Path(tempfile.mkdtemp(prefix="kdiffe-metrics-"))
    os.environ[METRICS] = str(folder)
    return folder


def remove_metrics(folder: Path) -> None:
    """Remove the folder of the workers' metrics."""
    shutil.rmtree(folder, ignore_errors=True)
