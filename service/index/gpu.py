"""FAISS on a GPU: one thread owns the device, searches come to it in micro-batches, and a failure is no outage.

FAISS on a GPU is not safe for several threads, even for reads, and destroying one index while another is loaded has
crashed others: so one thread builds, searches and drops, one thing after the other. An index is immutable and resident.
A search that the device can't do (k beyond its limit), or that fails or hangs, is done on the CPU; after a failure all
are, until vectors change and the device is tried again.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from service.index.port import Found, VectorIndex, Vectors

# The largest k of a search on a GPU (https://github.com/facebookresearch/faiss/wiki/Faiss-on-the-GPU).
MOST = 2048
# Scratch memory that FAISS reserves on a GPU; by default it takes up to 1.5 GiB.
SCRATCH = 64 << 20
# Searches of one batch at most.
BATCH = 64
# Seconds that a search waits for the device before it is done on the CPU: the device is taken for broken then.
PATIENCE = 5.0
# Seconds that building may take, and that a broken device is left alone.
BUILD_PATIENCE = 120.0
REST = 60.0

log = structlog.get_logger(__name__)


class Resident(Protocol):
    """An index on the device."""

    def search(self, queries: Vectors, k: int) -> tuple[Vectors, NDArray[np.int64]]:
        """(n, width) queries → (n, k) inner products, descending, and rows."""
        ...


Build = Callable[[Vectors], Resident]


def faiss_on_gpu() -> Build | None:
    """How to put a flat index on the first GPU, None where FAISS sees none. Only the owner thread may call it."""
    import faiss

    # On a build without GPU code the function is missing.
    count = getattr(faiss, "get_num_gpus", lambda: 0)()
    if count == 0:
        return None
    resources: list[Any] = []

    def build(vectors: Vectors) -> Resident:
        if not resources:
            made = faiss.StandardGpuResources()
            made.setTempMemory(SCRATCH)
            resources.append(made)
        index: Resident = faiss.GpuIndexFlatIP(resources[0], vectors.shape[1])
        index.add(vectors)  # type: ignore[attr-defined]
        return index

    return build


@dataclass(frozen=True)
class _Search:
    """A search that waits for the device."""

    handle: int
    vector: Vectors
    k: int
    answer: Future[Found]


class GpuOwner:
    """The thread that owns the device."""

    def __init__(self, build: Build, *, patience: float = PATIENCE) -> None:
        """Start the thread.

        Args:
            build: puts an index on the device; called by the thread alone.
            patience: seconds that a search waits.
        """
        self.patience = patience
        self._build = build
        self._waiting: queue.SimpleQueue[_Search | Callable[[], None] | None] = queue.SimpleQueue()
        self._residents: dict[int, Resident] = {}
        self._next = 0
        self.batches = 0
        self.searches = 0
        self._thread = threading.Thread(target=self._run, name="kdiffe-gpu", daemon=True)
        self._thread.start()

    def load(self, vectors: Vectors) -> int:
        """Put an index on the device. Returns its handle.

        Raises:
            Exception: whatever the device says.
        """
        done: Future[int] = Future()

        def build() -> None:
            try:
                resident = self._build(vectors)
            except BaseException as error:
                done.set_exception(error)
                return
            handle, self._next = self._next, self._next + 1
            self._residents[handle] = resident
            done.set_result(handle)

        self._waiting.put(build)
        return done.result(BUILD_PATIENCE)

    def drop(self, handle: int) -> None:
        """Take an index off the device, after the searches that wait for it."""

        def drop() -> None:
            self._residents.pop(handle, None)

        self._waiting.put(drop)

    def search(self, handle: int, vector: Vectors, k: int) -> Found:
        """Search an index.

        Raises:
            Exception: whatever the device says, or a TimeoutError.
        """
        answer: Future[Found] = Future()
        self._waiting.put(_Search(handle, np.ascontiguousarray(vector, np.float32), k, answer))
        return answer.result(self.patience)

    def close(self) -> None:
        """End the thread, after what waits."""
        self._waiting.put(None)

    def _run(self) -> None:
        left: _Search | Callable[[], None] | None = None
        while True:
            task = left if left is not None else self._waiting.get()
            left = None
            if task is None:
                return
            if not isinstance(task, _Search):
                task()
                continue
            batch = [task]
            while len(batch) < BATCH:
                try:
                    following = self._waiting.get_nowait()
                except queue.Empty:
                    break
                if isinstance(following, _Search) and following.handle == task.handle:
                    batch.append(following)
                else:
                    if following is None:
                        self._waiting.put(None)
                    left = following
                    break
            self._search(batch)

    def _search(self, batch: list[_Search]) -> None:
        try:
            k = max(task.k for task in batch)
            resident = self._residents[batch[0].handle]
            inner, rows = resident.search(np.stack([task.vector for task in batch]), k)
            for task, of_inner, of_rows in zip(batch, inner, rows, strict=True):
                task.answer.set_result((of_inner[: task.k], of_rows[: task.k]))
        except BaseException as error:
            for task in batch:
                if not task.answer.done():
                    task.answer.set_exception(error)
        self.batches += 1
        self.searches += len(batch)


class GpuIndex:
    """A flat index on the device, with an exact one on the CPU for what the device can't do."""

    exact = True
    slack = 0.0
    waits = True
    scans = False
    least_recall = 0.0

    def __init__(
        self,
        vectors: Vectors,
        owner: GpuOwner,
        on_cpu: Callable[[Vectors], VectorIndex],
        *,
        clock: Callable[[], float] = time.monotonic,
        rests_until: float = 0.0,
    ) -> None:
        """Put vectors on the device; where that fails, the CPU serves.

        Args:
            vectors: (J, width).
            owner: the device.
            on_cpu: makes the index that takes its place.
            clock: tells the time.
            rests_until: the device is not tried before, after a failure.
        """
        self._owner, self._make_cpu, self._clock = owner, on_cpu, clock
        self._rests_until = rests_until
        data = np.ascontiguousarray(vectors, np.float32)
        self._size = len(data)
        self._cpu = on_cpu(data)
        self._handle: int | None = None
        self._failed = True
        if clock() >= rests_until:
            try:
                handle = owner.load(data)
            except Exception as error:
                self._fail("loading", error)
            else:
                self._handle, self._failed = handle, False
                weakref.finalize(self, owner.drop, handle)

    @property
    def name(self) -> str:
        """`faiss-gpu`, or the CPU's index once the device has failed."""
        return self._cpu.name if self._failed else "faiss-gpu"

    @property
    def dear(self) -> bool:
        """Whether it is kept while vectors move: yes, but a device that failed is to be tried again."""
        return not self._failed

    def search(self, vector: Vectors, k: int) -> Found:
        """The k rows of the largest inner product."""
        k = min(k, self._size)
        if self._failed or self._handle is None or not 0 < k <= MOST:
            return self._cpu.search(vector, k)
        try:
            return self._owner.search(self._handle, vector, k)
        except Exception as error:
            self._fail("searching", error)
            return self._cpu.search(vector, k)

    def over(self, vectors: Vectors) -> GpuIndex:
        """The same over other vectors; a device that failed is tried again after a rest."""
        return GpuIndex(vectors, self._owner, self._make_cpu, clock=self._clock, rests_until=self._rests_until)

    def _fail(self, doing: str, error: Exception) -> None:
        if self._rests_until < self._clock():
            log.error("the GPU failed, the CPU searches", doing=doing, error=repr(error), rest=REST)
        self._failed = True
        self._rests_until = self._clock() + REST
