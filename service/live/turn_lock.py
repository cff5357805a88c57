"""A lock with one background owner that steps back between two holds while readers wait."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager


class TurnLock:
    """A lock with one background owner that steps back between two holds while readers wait.

    Python's locks are not fair: an owner that lets go and takes again at once would starve the readers.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting = 0
        self._count = threading.Lock()

    @property
    def held(self) -> bool:
        """Whether someone holds it now."""
        return self._lock.locked()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Hold it as a reader."""
        if not self._lock.acquire(blocking=False):
            with self._count:
                self._waiting += 1
            try:
                self._lock.acquire()
            finally:
                with self._count:
                    self._waiting -= 1
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Hold it as the background owner, once the readers that wait have had their turn (or 10 ms are over)."""
        deadline = time.monotonic() + 0.01
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.0001)
        with self._lock:
            yield
