"""The follower: background threads that apply the interaction log, in order, to one live model, and settle it.

One thread applies, so that what is acknowledged is never held up; the other one settles and refreshes behind it.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from service.errors import NotReadyError, SetBackError, StateError
from service.live.model import LiveModel
from service.state.entries import check_range
from service.state.port import EntryKind, Interactions, LogEntry, StateStore

# Most interactions applied under one hold of the lock while serving, and while catching up before serving.
MICRO_BATCH = 256
REPLAY_BATCH = 4096
# Most seconds between two refreshes that follow one upon the other.
LONGEST_REST = 0.5

log = structlog.get_logger(__name__)

Events = Sequence[LogEntry] | Interactions
# Kind, user and item: what an entry is known again by.
Named = tuple[EntryKind, str, str]


def never() -> bool:
    """Nobody asks to stop."""
    return False


def replay(model: LiveModel, state: StateStore, target: int, stop: Callable[[], bool] = never) -> None:
    """Bring a model that nobody reads yet to a sequence number of the log.

    A refresh depends on the log up to it alone, so only the last one that is due is made: the same bits as if every
    refresh on the way had been.

    Args:
        model: the live model.
        state: the log.
        target: at most the log's last sequence number.
        stop: asked between the steps; gives up where it is true.
    """
    boundary = target - target % model.refresh_every
    while model.sequence < target and not stop():
        end = boundary if model.sequence < boundary else target
        events = _next(state, model.sequence, min(end - model.sequence, REPLAY_BATCH))
        if not len(events):
            raise ValueError(f"the log ends at {model.sequence}, before {target}")
        model.apply(events)
        if model.sequence == boundary:
            model.refresh(stop)


class Follower:
    """Follows the log for one model: apply, acknowledge, settle, refresh."""

    def __init__(self, model: LiveModel, state: StateStore, *, poll_interval: float = 0.5) -> None:
        """Follow `state` with `model`; call `start`.

        Args:
            model: the live model, applied to by this follower alone.
            state: the log.
            poll_interval: seconds between looks at the log when nobody wakes the follower.
        """
        self.model = model
        self._state = state
        self._poll = poll_interval
        self._wake = threading.Event()
        self._stop = threading.Event()
        # None, a `StateError` (passes when the log can be read again), or what it has failed of for good.
        self._failure: Exception | None = None
        self._failing = threading.Lock()
        # The last entry that the model holds, None while that is not known.
        self._held: Named | None = None
        self._waiting_lock = threading.Lock()
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._settle = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def applied(self) -> int:
        """Sequence number of the last interaction that was applied."""
        return self.model.sequence

    @property
    def failure(self) -> Exception | None:
        """Why the follower does not follow, None while it does."""
        return self._failure

    def check(self) -> None:
        """Refuse to go on where the follower does not follow.

        Raises:
            NotReadyError: it has failed for good, the log was set back among it.
            StateError: the log can't be read at the moment.
        """
        failure = self._failure
        if isinstance(failure, StateError):
            raise failure
        if isinstance(failure, NotReadyError):
            raise NotReadyError(str(failure))  # a new one: each raising adds to an error's traceback
        if failure is not None:
            raise NotReadyError(
                f"The model no longer follows the interaction log ({failure!r}): restart the service. "
                "Interactions that were acknowledged are safe."
            )

    @property
    def running(self) -> bool:
        """Whether the threads run."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start following, also again after `stop`."""
        self._stop.clear()
        self._held = None  # the model may have been brought further meanwhile
        for name, step in (("follow", self._step), ("settle", self._settle_step)):
            thread = threading.Thread(
                target=self._run, args=[step], name=f"kdiffe-{name}-{self.model.version}", daemon=True
            )
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop following: what is begun is finished or left for a later `start`. Whoever waits is released."""
        self._stop.set()
        self._wake.set()
        self._settle.set()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._release(everyone=True)

    def wake(self) -> None:
        """Tell that the log has grown."""
        self._wake.set()

    async def wait_for(self, sequence: int) -> None:
        """Wait until an interaction is applied. Returns early where the follower stops: look at `applied`.

        Raises:
            NotReadyError: the follower has failed.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        with self._waiting_lock:
            if self.applied >= sequence or self._stop.is_set():
                return
            self.check()
            self._waiting.append((sequence, loop, future))
        try:
            await future
        finally:
            with self._waiting_lock:
                self._waiting = [entry for entry in self._waiting if entry[2] is not future]
        if self.applied < sequence:
            self.check()

    def idle(self) -> bool:
        """Whether all of the log is applied, settled and refreshed."""
        model = self.model
        return model.sequence >= self._state.last_sequence() and model.n_stale == 0 and not model.refresh_due

    def wait_idle(self, timeout: float = 30.0) -> bool:
        """Wait (blocking) until all of the log is applied, settled and refreshed. Whether it is."""
        deadline = time.monotonic() + timeout
        self.wake()
        while time.monotonic() < deadline and self._failure is None:
            if self.idle():
                return True
            time.sleep(0.005)
        return False

    # ---- inside --------------------------------------------------------------------------------------------------

    def _run(self, step: Callable[[], None]) -> None:
        try:
            while not self._stop.is_set():
                try:
                    step()
                    if self._failure is not None and step == self._step:
                        self._note(None)
                except SetBackError as error:
                    raise NotReadyError(
                        f"{error} The model no longer follows the interaction log: restart the service, which goes on "
                        "with what the log holds then."
                    ) from error
                except StateError as error:
                    # Nothing was applied: tell, and try again until the state can be read.
                    if self._failure is None:
                        log.error("the log can't be read", version=self.model.version, error=str(error))
                    self._note(error)
                    self._release(everyone=True)
                    self._stop.wait(self._poll)
        except Exception as error:  # whatever it is, it must not be silent: readiness and writes fail from here on
            self._note(error)
            log.exception("follower failed", version=self.model.version, sequence=self.model.sequence)
            self._release(everyone=True)

    def _note(self, failure: Exception | None) -> None:
        """Take up how it goes. What has failed for good stays so, whatever the other thread says."""
        with self._failing:
            if self._failure is None or isinstance(self._failure, StateError):
                self._failure = failure

    def _step(self) -> None:
        """Apply what is new in the log, or wait for it."""
        model = self.model
        self._wake.clear()
        events = self._new(min(model.until_refresh, MICRO_BATCH))
        if len(events):
            model.apply(events)
            self._held = _named(events, -1)
            self._settle.set()
            self._release()
        else:
            self._wake.wait(self._poll)

    def _new(self, limit: int) -> Events:
        """The entries of the log that the model does not hold yet, the first of them at most.

        The last one that it holds is read along: a log that was set back may have grown beyond it since.

        Raises:
            SetBackError: the log was set back.
            StateError: it can't be read.
        """
        last = self.model.sequence
        try:
            found = _next(self._state, last - 1, limit + 1)
        except SetBackError:
            raise
        except StateError:
            # It is the log's begin, or was compacted. Where the log can't be read at all, this says so.
            return _next(self._state, last, limit)
        if not len(found):
            check_range(last, last - 1, 0)
        named = _named(found, 0)
        if self._held not in {None, named} and named[0] != "erased":
            raise SetBackError(
                f"Entry {last} of the log is another one than was applied: the state was set back and has grown since. "
                "Restore it from a backup."
            )
        self._held = named
        if isinstance(found, Interactions):
            return Interactions(last, found.user_ids[1:], found.item_ids[1:])
        return found[1:]

    def _settle_step(self) -> None:
        """Refresh or settle what is due, or wait for it."""
        model = self.model
        self._settle.clear()
        if model.refresh_due:
            began = time.monotonic()
            if model.refresh(self._stop.is_set, due_only=True):
                seconds = round(time.monotonic() - began, 3)
                refreshed_at = model.readout.refreshed_at
                log.info("refreshed", version=model.version, sequence=refreshed_at, seconds=seconds)
                if model.refresh_due:
                    # The log outruns the refreshes: requests get the other half of the time.
                    self._stop.wait(min(seconds, LONGEST_REST))
        elif model.n_stale:
            model.settle()
        else:
            self._settle.wait(self._poll)

    def _release(self, *, everyone: bool = False) -> None:
        with self._waiting_lock:
            ready = [entry for entry in self._waiting if everyone or entry[0] <= self.applied]
            self._waiting = [entry for entry in self._waiting if entry not in ready] if not everyone else []
        for _, loop, future in ready:
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # the loop is closed: nobody waits any more
                continue


def _next(state: StateStore, after: int, limit: int) -> Events:
    """The entries of the log after a sequence number, the first of them at most."""
    return state.interactions(after, limit) or state.read(after, limit)


def _named(events: Events, place: int) -> Named:
    """What one of some entries is known again by."""
    if isinstance(events, Interactions):
        return "interaction", events.user_ids[place], events.item_ids[place]
    entry = events[place]
    return entry.kind, entry.user_id, entry.item_id


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
