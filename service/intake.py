"""The intake: what many requests write at the same time is made durable together, and told to them together."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Sequence
from concurrent.futures import Future
from typing import NamedTuple

from service.errors import NotReadyError, StateError
from service.live.registry import Registry
from service.state.port import Appended, Change, Interaction, StateStore

Entries = Sequence[Interaction | Change]
# Seconds for which a write that failed says that writes fail, unless one succeeds before: there may be no other.
FAILURE_COUNTS = 60.0


class _Waiting(NamedTuple):
    """A batch, the request that waits for it, and how much of the log was applied before."""

    entries: Entries
    told: asyncio.Future[Appended]
    applied: int


class Intake:
    """Takes batches on an event loop: durable, then applied to the served model, then acknowledged.

    While one group of batches is on its way to disk, the next one gathers. A group costs one wake-up of the event loop
    and one wait for the follower, however many requests it holds.
    """

    def __init__(self, state: StateStore, registry: Registry, *, max_lag: int, apply_timeout: float) -> None:
        """Write to `state` what the model that `registry` serves follows.

        Args:
            state: the log.
            registry: tells what is applied.
            max_lag: batches are refused while so many interactions wait to be applied and settled.
            apply_timeout: seconds that a batch waits for being applied.
        """
        self._state = state
        self._registry = registry
        self._max_lag = max_lag
        self._apply_timeout = apply_timeout
        self._gathering: list[_Waiting] = []
        self._writing = False
        # The last write that failed, and when (time.monotonic()); None once another one has succeeded.
        self._failed: tuple[Exception, float] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def waiting(self) -> int:
        """How many requests wait for a group of theirs to be written."""
        return len(self._gathering)

    @property
    def failure(self) -> str | None:
        """Why the state could not be written lately (its disk is full), None where it could or nobody has tried."""
        failed = self._failed
        return None if failed is None or time.monotonic() - failed[1] > FAILURE_COUNTS else str(failed[0])

    async def take(self, entries: Entries) -> Appended:
        """Take a batch up. Returns once it is on disk and applied.

        Raises:
            NotReadyError: no model is served, it no longer follows the log, it lags too far behind, or the batch is
                safe on disk but not applied (in time, or as the log was set back).
            StateError: the batch can't be written.
        """
        self._check_writable()
        told: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        self._gathering.append(_Waiting(entries, told, self._registry.applied))
        if not self._writing:
            self._writing = True
            self._spawn_write()
        return await told

    def _check_writable(self) -> None:
        """Refuse a write that could not be applied soon.

        Raises:
            NotReadyError: no model is served, it no longer follows the log, or it lags too far behind.
            StateError: the log can't be read at the moment.
        """
        registry = self._registry
        registry.follower.check()
        # What this process has met: asking the store would keep every other request waiting.
        lag = self._state.seen - registry.settled + sum(len(waiting.entries) for waiting in self._gathering)
        if lag > self._max_lag:
            raise NotReadyError(f"{lag} interactions wait to be applied and settled: send again in a moment.")

    # ---- inside --------------------------------------------------------------------------------------------------

    def _spawn_write(self) -> None:
        self._keep(asyncio.get_running_loop().create_task(self._write()))

    def _keep(self, task: asyncio.Task[None]) -> None:
        """Hold a task until it ends: the event loop holds it weakly."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self) -> None:
        """Write group after group, as long as there is one."""
        loop = asyncio.get_running_loop()
        try:
            while self._gathering:
                # Requests that have arrived already and were not looked at yet come along.
                await asyncio.sleep(0)
                gathered, self._gathering = self._gathering, []
                group: list[_Waiting] = []
                written: list[Future[Appended]] = []
                for waiting in gathered:
                    try:
                        written.append(self._state.submit(waiting.entries))
                        group.append(waiting)
                    except Exception as error:  # this batch's, not the others'
                        if not waiting.told.done():  # the request is there
                            waiting.told.set_exception(error)
                if written:
                    await _all_done(loop, written)
                    self._keep(loop.create_task(self._acknowledge(group, written)))
        finally:
            self._writing = False

    async def _acknowledge(self, group: list[_Waiting], written: list[Future[Appended]]) -> None:
        """Tell a group what became of it, once it is applied."""
        last = max((future.result().sequence for future in written if future.exception() is None), default=0)
        failed = next((error for future in written if isinstance(error := future.exception(), StateError)), None)
        self._failed = None if last or failed is None else (failed, time.monotonic())
        late: Exception | None = None
        if last:
            registry = self._registry
            try:
                registry.wake()
                if registry.applied < last:
                    async with asyncio.timeout(self._apply_timeout):
                        await registry.wait_applied(last)
            except TimeoutError:
                late = NotReadyError(
                    f"The interactions are safe on disk (up to {last}) but not applied yet. Sent again with the same "
                    "ids they count once."
                )
            except Exception as error:  # whatever it was, nobody waits for ever
                late = error
        for waiting, future in zip(group, written, strict=True):
            if waiting.told.done():  # the request is gone
                continue
            failure = future.exception() or late
            if failure is None and (told := future.result()).accepted and told.sequence <= waiting.applied:
                failure = NotReadyError(
                    f"The interactions are safe on disk (up to {told.sequence}) but not applied: {waiting.applied} was "
                    "applied before, so the state was set back. Restore it from a backup, or restart the service, "
                    "which goes on with what the log holds then."
                )
            if failure is None:
                waiting.told.set_result(future.result())
            else:
                waiting.told.set_exception(failure)


async def _all_done(loop: asyncio.AbstractEventLoop, futures: Sequence[Future[Appended]]) -> None:
    """Wait until all are done, with one wake-up of the event loop."""
    done = asyncio.Event()
    # Counted by the state's writing thread, and here for those that are done already: one step, so safe for both.
    arrived = itertools.count(1)

    def count(_: Future[Appended]) -> None:
        if next(arrived) == len(futures):
            loop.call_soon_threadsafe(done.set)

    for future in futures:
        future.add_done_callback(count)
    await done.wait()
