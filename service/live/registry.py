"""The registry: which version is served. A new one is loaded aside and caught up before the old one goes.

The version before goes on following the log for a while, so that a roll back is one step. A canary follows beside the
active version and is what its share of the users gets.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from model_store.errors import ArtifactError, KDiffEError
from model_store.store import Canary, ModelStore
from service.compaction import held_of
from service.errors import NotReadyError, StateError
from service.index import IndexBuilder
from service.live.follower import Follower, replay
from service.live.model import LiveModel, warm_up
from service.live.split import Split
from service.state.port import StateStore

# Seconds until a version that could not be loaded is tried again.
RETRY = 30.0
# A loading version catches up until so few interactions are missing, in so many passes at most.
CLOSE = 100
PASSES = 10

# The variants of the split.
MAIN, CANARY = "main", "canary"

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Problem:
    """A version that could not be loaded.

    Attributes:
        version: its name, empty where there is no active version.
        message: why, and what next.
        since: time.monotonic() of the attempt.
    """

    version: str
    message: str
    since: float


@dataclass(frozen=True)
class Served:
    """Who gets which model, from one moment to the next swap.

    Attributes:
        main: the follower of the active version.
        canary: the follower of the canary, None where there is none.
        split: who gets the canary.
    """

    main: Follower
    canary: Follower | None = None
    split: Split | None = None

    def of(self, user_id: str) -> Follower:
        """The follower of the model that a user gets."""
        if self.canary is None or self.split is None or self.split.variant_of(user_id) != CANARY:
            return self.main
        return self.canary

    @property
    def followers(self) -> tuple[Follower, ...]:
        """All of them."""
        return (self.main,) if self.canary is None else (self.main, self.canary)


class Registry:
    """Holds the served model and its follower, and follows the store's active version."""

    def __init__(
        self,
        store: ModelStore,
        state: StateStore,
        build_index: IndexBuilder,
        *,
        refresh_every: int,
        poll_interval: float = 0.5,
        version_interval: float = 1.0,
        keep_warm: float = 0.0,
        on_swap: Callable[[LiveModel], None] | None = None,
    ) -> None:
        """Serve the store's active version; call `start`.

        Args:
            store: the model store.
            state: the state store.
            build_index: makes an index over item vectors.
            refresh_every: see `LiveModel`.
            poll_interval: see `Follower`.
            version_interval: seconds between looks at the active version.
            keep_warm: seconds for which the version before goes on following the log.
            on_swap: told of every model that is put in force.
        """
        self.store = store
        self._state = state
        self._build_index = build_index
        self._refresh_every = refresh_every
        self._poll = poll_interval
        self._interval = version_interval
        self._on_swap = on_swap
        self._keep_warm = keep_warm
        self._served: Served | None = None
        # The version before, and until when (time.monotonic()) it is kept.
        self._warm: Follower | None = None
        self._warm_until = 0.0
        self._problem: Problem | None = None
        self._canary_problem: Problem | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    # ---- reading -------------------------------------------------------------------------------------------------

    @property
    def served(self) -> Served:
        """Who gets which model. Take it once for a request.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        served = self._served
        if served is None:
            problem = self._problem
            raise NotReadyError(problem.message if problem else "The model is being loaded. Try again in a moment.")
        return served

    @property
    def follower(self) -> Follower:
        """The follower of the active version's model.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return self.served.main

    @property
    def model(self) -> LiveModel:
        """The active version's model.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return self.served.main.model

    def model_of(self, user_id: str) -> LiveModel:
        """The model that a user gets: the active version's, or the canary's.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return self.served.of(user_id).model

    @property
    def canary(self) -> tuple[str, float] | None:
        """The canary that is served and its share of the users, None where there is none."""
        served = self._served
        if served is None or served.canary is None or served.split is None:
            return None
        return served.canary.model.version, served.split.share_of(CANARY)

    @property
    def applied(self) -> int:
        """Sequence number of the last interaction that every served model holds.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return min(follower.applied for follower in self.served.followers)

    def wake(self) -> None:
        """Tell every served model that the log has grown."""
        for follower in self.served.followers:
            follower.wake()

    @property
    def log_ends_at(self) -> int:
        """The last entry of the log that this process knows of."""
        return self._state.seen

    @property
    def serving(self) -> str | None:
        """The served version's name, None while there is none."""
        served = self._served
        return None if served is None else served.main.model.version

    @property
    def problem(self) -> Problem | None:
        """The active version that could not be loaded, None where the active version is served."""
        return self._problem

    @property
    def failure(self) -> Exception | None:
        """Why the served model no longer follows the log, None while it does."""
        served = self._served
        return None if served is None else served.main.failure

    @property
    def degraded(self) -> str | None:
        """Why the log can't be read at the moment, so that answers come from memory; None while it can."""
        failure = self.failure
        return str(failure) if isinstance(failure, StateError) else None

    async def wait_applied(self, sequence: int) -> None:
        """Wait until every served model holds an interaction of the log.

        Raises:
            NotReadyError: no model is served, or one no longer follows the log.
        """
        while True:
            served = self.served
            for follower in served.followers:
                await follower.wait_for(sequence)
            if served is self._served and all(follower.applied >= sequence for follower in served.followers):
                return
            await asyncio.sleep(0.001)  # a swap is under way

    # ---- changing ------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the thread that loads the active version and follows it."""
        self._thread = threading.Thread(target=self._run, name="kdiffe-registry", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop following the store and the log."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        served = self._served
        for follower in (*(served.followers if served else ()), *((self._warm,) if self._warm else ())):
            follower.stop()

    def wait_ready(self, timeout: float) -> bool:
        """Wait (blocking) until a model is served or the first attempt has failed. Whether a model is served."""
        with self._changed:
            self._changed.wait_for(lambda: self._served is not None or self._problem is not None, timeout)
        return self._served is not None

    def wait_version(self, version: str, timeout: float) -> None:
        """Wait (blocking) until a version that has been activated is served.

        Raises:
            NotReadyError: it could not be loaded, another one was activated, or the time is over.
        """
        reason = self._wait_for(version, lambda: self.serving, lambda: self._problem, timeout, "it was not swapped in")
        if reason is not None:
            raise NotReadyError(f"Version {version} is active but not served: {reason}")

    def wait_canary(self, version: str, timeout: float) -> None:
        """Wait (blocking) until a canary is served.

        Raises:
            NotReadyError: it could not be loaded, or the time is over.
        """

        def canary() -> str | None:
            served = self.canary
            return None if served is None else served[0]

        reason = self._wait_for(version, canary, lambda: self._canary_problem, timeout, "it was not loaded")
        if reason is not None:
            raise NotReadyError(f"The canary {version} is not served: {reason}")

    # ---- inside --------------------------------------------------------------------------------------------------

    def _wait_for(
        self,
        version: str,
        served: Callable[[], str | None],
        problem: Callable[[], Problem | None],
        timeout: float,
        otherwise: str,
    ) -> str | None:
        """Wait (blocking) until a version is served or can't be; why it is not, None where it is."""
        self._wake.set()

        def failed() -> Problem | None:
            found = problem()
            return found if found is not None and found.version == version else None

        with self._changed:
            self._changed.wait_for(lambda: self._stop.is_set() or served() == version or failed() is not None, timeout)
        if served() == version:
            return None
        found = failed()
        return otherwise if found is None else found.message

    def _run(self) -> None:
        warm = False
        while not self._stop.is_set():
            self._wake.clear()
            try:
                if not warm:
                    warm_up()
                    warm = True
                self._follow_store()
                self._follow_canary()
                self._cool()
            except Exception as error:  # a version that can't be loaded must not end the one that is served
                version = self._wanted
                log.exception("version can't be loaded", version=version)
                self._set_problem(_problem_of(version, error))
            self._wake.wait(self._interval)

    _wanted = ""

    def _follow_store(self) -> None:
        self._wanted = ""
        active = self.store.active()
        self._wanted = active or ""
        serving, problem = self.serving, self._problem
        if serving is not None and serving == active:
            self._set_problem(None)
            return
        if active is None:
            if serving is None and problem is None:
                log.warning("no version is active", store=str(self.store.root))
            if serving is None:
                message = (
                    f"No version is active in {self.store.root}: train one (kdiffe train) or activate one "
                    "(kdiffe models activate VERSION)."
                )
                self._set_problem(Problem("", message, time.monotonic()))
            return
        if problem is not None and problem.version == active and time.monotonic() - problem.since < RETRY:
            return
        began = time.monotonic()
        follower = self._at_hand(active) or self._load(active)
        if follower is None:
            return
        self._swap(follower)
        seconds = round(time.monotonic() - began, 3)
        log.info("serving", version=active, sequence=follower.applied, seconds=seconds)
        if self._on_swap is not None:
            self._on_swap(follower.model)

    def _load(self, version: str) -> Follower | None:
        """A version, loaded aside and caught up with the log, its follower not yet started."""
        artifact = self.store.open(version)
        artifact.verify()
        # Sequence numbers of another log mean nothing here: then the whole log comes after the artifact.
        start = held_of(artifact.manifest, self._state.state_id)
        last = self._state.last_sequence()
        if start > last:
            raise ArtifactError(
                f"Version {version} was trained up to interaction {start}, but the log ends at {last}: the state was "
                "set back. Restore it, or activate a version from before."
            )
        compacted = self._state.position().compacted
        if start < compacted:
            raise ArtifactError(
                f"Version {version} holds the log up to {start}, but the state was compacted up to {compacted}: "
                "activate a later version."
            )
        model = LiveModel(artifact, self._build_index, start=start, refresh_every=self._refresh_every)
        model.seed(self._state.records("item"), start)
        # Interactions go on arriving: come close, the last ones follow at the swap.
        for _ in range(PASSES):
            if last - model.sequence <= CLOSE:
                break
            replay(model, self._state, last, self._stop.is_set)
            last = self._state.last_sequence()
        return None if self._stop.is_set() else Follower(model, self._state, poll_interval=self._poll)

    def _at_hand(self, version: str) -> Follower | None:
        """The follower of a version that follows the log already: the version before, or the canary."""
        served = self._served
        for follower in (self._warm, served.canary if served else None):
            if follower is not None and follower.model.version == version and follower.failure is None:
                return follower
        return None

    def _swap(self, follower: Follower) -> None:
        """Put a caught-up model in force. No acknowledged interaction may be missing from what is read after it.

        The old follower rests while the new one makes up the last few interactions: reads go on, writes wait.
        """
        before = self._served
        old = None if before is None else before.main
        if old is not None:
            old.stop()
        try:
            if follower.running:
                _catch_up(follower, 0 if old is None else old.applied, self._stop)
            else:
                replay(follower.model, self._state, self._state.last_sequence() if old is None else old.applied)
                follower.start()
        except BaseException:
            if old is not None and old.failure is None:
                old.start()
            raise
        cooled = [self._warm, None if before is None else before.canary]
        self._warm = None
        if old is not None and self._keep_warm and old.failure is None:
            old.start()
            self._warm, self._warm_until = old, time.monotonic() + self._keep_warm
        self._serve(Served(follower))
        for other in cooled:
            if other is not None and other not in {follower, self._warm}:
                other.stop()

    def _follow_canary(self) -> None:
        """Begin, change or end the canary as the store says."""
        served = self._served
        if served is None:
            return
        wanted = self.store.canary()
        broken = served.canary
        if broken is not None and broken.failure is not None and not isinstance(broken.failure, StateError):
            # Writes would wait for it in vain.
            self._serve(Served(served.main))
            broken.stop()
            text = f"It no longer follows the log ({broken.failure!r})."
            self._canary_problem = Problem(broken.model.version, text, time.monotonic())
            return
        if wanted is None or wanted.version == served.main.model.version:
            self._canary_problem = None
            if served.canary is not None:
                self._serve(Served(served.main))
                if served.canary is not self._warm:
                    served.canary.stop()
                log.info("the canary has ended", version=served.canary.model.version)
            return
        if self.canary == (wanted.version, wanted.share):
            return
        problem = self._canary_problem
        if problem is not None and problem.version == wanted.version and time.monotonic() - problem.since < RETRY:
            return
        try:
            self._begin_canary(served, wanted)
        except Exception as error:  # everybody gets the active version then
            if self._served is not None and self._served.canary is not None and self._served.split is None:
                self._serve(Served(served.main))
            log.exception("the canary can't be loaded", version=wanted.version)
            with self._changed:
                self._canary_problem = _problem_of(wanted.version, error)
                self._changed.notify_all()

    def _begin_canary(self, served: Served, wanted: Canary) -> None:
        follower = self._at_hand(wanted.version) or self._load(wanted.version)
        if follower is None:
            return
        if not follower.running:
            follower.start()
        if served.canary is not follower:
            # From here on writes wait for it, too; nobody reads it until it holds what was acknowledged before.
            self._serve(Served(served.main, follower))
            _catch_up(follower, served.main.applied, self._stop)
        self._canary_problem = None
        self._serve(Served(served.main, follower, Split.canary(wanted.version, MAIN, CANARY, wanted.share)))
        if served.canary not in {None, follower, self._warm}:
            served.canary.stop()
        log.info("serving a canary", version=wanted.version, share=wanted.share)

    def _cool(self) -> None:
        """Let the version before go when its time is over, or when it does not follow."""
        warm, served = self._warm, self._served
        if warm is not None and (time.monotonic() > self._warm_until or warm.failure is not None):
            self._warm = None
            if served is None or warm is not served.canary:
                warm.stop()

    def _serve(self, served: Served) -> None:
        with self._changed:
            self._served = served
            self._problem = None
            self._changed.notify_all()

    def _set_problem(self, problem: Problem | None) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()


def _problem_of(version: str, error: Exception) -> Problem:
    return Problem(version, str(error) if isinstance(error, KDiffEError) else repr(error), time.monotonic())


def _catch_up(follower: Follower, target: int, stop: threading.Event) -> None:
    """Wait until a follower that runs holds an interaction of the log.

    Raises:
        NotReadyError: it no longer follows, or the service stops.
    """
    while follower.applied < target:
        if stop.is_set():
            raise NotReadyError("The service stops.")
        follower.check()
        follower.wake()
        stop.wait(0.002)
