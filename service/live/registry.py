"""The registry: which version is served. A new one is loaded aside and caught up before the old one goes.

The version before goes on following the log for a while, so that a roll back is one step. Where the active version
can't be loaded at a start, an earlier one is served until it can. An experiment's versions follow beside the active
one, each for its share of the users.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple

import structlog

from model_store.errors import ArtifactError, KDiffEError
from model_store.experiment import MAIN, Experiment
from model_store.manifest import Manifest
from model_store.store import ModelStore
from service.compaction import held_of
from service.errors import NotReadyError, StateError
from service.index import IndexBuilder
from service.live.follower import Follower, replay
from service.live.model import LiveModel, warm_up
from service.live.priority import step_back
from service.state.port import StateStore

# Seconds until a version that could not be loaded is tried again.
RETRY = 30.0
# A loading version catches up until so few interactions are missing, in so many passes at most.
CLOSE = 100
PASSES = 10
# Documents of the state that name versions which were trained beyond the log's end.
BEYOND = "beyond"

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


class Chosen(NamedTuple):
    """The model that a request gets.

    Attributes:
        variant: its name in the experiment, MAIN for the active version.
        model: the model.
    """

    variant: str
    model: LiveModel


@dataclass(frozen=True)
class Served:
    """Who gets which model, from one moment to the next swap.

    Attributes:
        main: the follower of the active version.
        experiment: who gets another version, None where nobody does.
        variants: its variants that are served → their followers; who is given another one gets the active version.
        joining: a follower that writes wait for and nobody reads: it does not yet hold all that was acknowledged.
    """

    main: Follower
    experiment: Experiment | None = None
    variants: Mapping[str, Follower] = field(default_factory=dict)
    joining: Follower | None = None

    def of(self, user_id: str) -> Chosen:
        """What a user gets."""
        if self.experiment is not None:
            name = self.experiment.variant_of(user_id)
            follower = self.variants.get(name)
            if follower is not None:
                return Chosen(name, follower.model)
        return Chosen(MAIN, self.main.model)

    def named(self, variant: str) -> LiveModel | None:
        """A variant's model, None where it is not served."""
        follower = self.main if variant == MAIN else self.variants.get(variant)
        return None if follower is None else follower.model

    def shares(self) -> list[tuple[str, str, float]]:
        """Name, version and share of the users of every variant that is served beside the active version."""
        variants = () if self.experiment is None else self.experiment.variants
        return [(v.name, v.version, v.share) for v in variants if v.name in self.variants]

    @cached_property
    def followers(self) -> tuple[Follower, ...]:
        """All of them, each once."""
        joining = () if self.joining is None else (self.joining,)
        return tuple(dict.fromkeys((self.main, *self.variants.values(), *joining)))


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
        # Versions of the experiment that can't be served.
        self._unserved: dict[str, Problem] = {}
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

    def chosen_for(self, user_id: str) -> Chosen:
        """What a user gets: the active version's model, or that of its variant in the experiment.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return self.served.of(user_id)

    def problem_of(self, version: str) -> Problem | None:
        """Why a version of the experiment is not served, None where it is or is being loaded."""
        return self._unserved.get(version)

    @property
    def standing_in(self) -> Problem | None:
        """Why another version is served than the active one, beside which nothing can be tried; None where none is."""
        problem = self._problem
        return problem if problem is not None and self._served is not None and problem.version != self.serving else None

    @property
    def applied(self) -> int:
        """Sequence number of the last interaction that every served model holds.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return min(follower.applied for follower in self.served.followers)

    @property
    def settled(self) -> int:
        """Sequence number of the last interaction that every served model has settled.

        Raises:
            NotReadyError: no model is loaded yet.
        """
        return min(follower.model.settled_sequence for follower in self.served.followers)

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
        asked = time.monotonic()
        with self._changed:
            if self._problem is not None and self._problem.version == version:
                # It may have been put right since: tried again now, and what is found then counts.
                self._problem = replace(self._problem, since=asked - RETRY)
        reason = self._wait_for(
            lambda: self.serving == version,
            lambda: self._problem_with(version, asked),
            lambda: self.store.active() != version,
            timeout,
        )
        if reason is not None:
            raise NotReadyError(f"Version {version} is not served: {reason}")

    def wait_experiment(self, experiment: Experiment, timeout: float) -> None:
        """Wait (blocking) until every variant of an experiment is served.

        Raises:
            NotReadyError: one could not be loaded, another experiment was begun, or the time is over.
        """
        versions = [variant.version for variant in experiment.variants]

        def served() -> bool:
            now = self._served
            return now is not None and now.experiment == experiment and len(now.variants) == len(versions)

        reason = self._wait_for(
            served,
            lambda: next(
                (self._unserved[version] for version in versions if version in self._unserved), self.standing_in
            ),
            lambda: self.store.experiment() != experiment,
            timeout,
        )
        if reason is not None:
            raise NotReadyError(f"The experiment {experiment.name!r} is not served: {reason}")

    # ---- inside --------------------------------------------------------------------------------------------------

    def _problem_with(self, version: str, since: float) -> Problem | None:
        """Why a version could not be loaded, where that was found out at or after a moment."""
        problem = self._problem
        return problem if problem is not None and problem.version == version and problem.since >= since else None

    def _wait_for(
        self,
        served: Callable[[], bool],
        failed: Callable[[], Problem | None],
        superseded: Callable[[], bool],
        timeout: float,
    ) -> str | None:
        """Wait (blocking) until something is served or can't be; why it is not, None where it is."""
        self._wake.set()
        with self._changed:
            over = self._changed.wait_for(
                lambda: self._stop.is_set() or served() or failed() is not None or superseded(), timeout
            )
        if served():
            return None
        problem = failed()
        if problem is not None:
            return f"{problem.version}: {problem.message}"
        if self._stop.is_set():
            return "the service stops."
        return "something else was put in force meanwhile." if over else f"it was not loaded within {timeout:g} s."

    def _run(self) -> None:
        warm = False
        while not self._stop.is_set():
            self._wake.clear()
            try:
                if not warm:
                    warm_up()
                    warm = True
                self._follow_store()
                self._follow_experiment()
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
        try:
            self._put_in_force(active)
        except StateError:
            raise  # the log can't be read: no other version could be brought up to it
        except Exception as error:
            if self._served is not None or not self._stand_in(active, error):
                raise

    def _put_in_force(self, version: str, problem: Problem | None = None) -> bool:
        """Load a version and serve it. Whether it is served: not where the service stops meanwhile.

        Args:
            version: the active version, or one that stands in for it.
            problem: why the active version is not served, None where it is this one.
        """
        began = time.monotonic()
        follower = self._at_hand(version) or self._load_aside(version)
        if follower is None:
            return False
        self._swap(follower, problem)
        seconds = round(time.monotonic() - began, 3)
        log.info("serving", version=version, sequence=follower.applied, seconds=seconds)
        if self._on_swap is not None:
            self._on_swap(follower.model)
        return True

    def _stand_in(self, active: str, error: Exception) -> bool:
        """At a start: serve what was active before a version that can't be loaded, the latest that can be. Whether any.

        Every process that starts finds the same one. The active one is tried again as ever.
        """
        problem = _problem_of(active, error)
        for version in self.store.earlier():
            if self._stop.is_set() or self.store.active() != active:
                return False
            try:
                served = self._put_in_force(version, replace(problem, since=time.monotonic()))
            except Exception:  # an earlier one still may do
                log.exception("an earlier version can't be loaded either", version=version)
                continue
            if served:
                told = {"version": version, "active": active, "error": problem.message}
                log.error("the active version can't be loaded: an earlier one is served", **told)
            return served
        return False

    def _load_aside(self, version: str) -> Follower | None:
        """A version as `_load` gives it; where another one is served, whoever reads that one goes first."""
        if self._served is None:
            return self._load(version)
        # A thread of its own: one that has stepped back can't step forward again.
        with ThreadPoolExecutor(1, f"kdiffe-load-{version}", initializer=step_back) as aside:
            return aside.submit(self._load, version).result()

    def _load(self, version: str) -> Follower | None:
        """A version, loaded aside and caught up with the log, its follower not yet started."""
        artifact = self.store.open(version)
        artifact.verify()
        # Sequence numbers of another log mean nothing here: then the whole log comes after the artifact.
        start = held_of(artifact.manifest, self._state.state_id)
        last = self._state.last_sequence()
        set_back = self._set_back(artifact.manifest, start, last)
        if set_back is not None:
            raise ArtifactError(
                f"Version {version} was trained up to interaction {start}, but the log ended at {set_back}: the state "
                "was set back. Restore a fuller copy of it, or activate a version from before (kdiffe models list "
                "tells the sequence numbers) and retrain it: POST /admin/retrain."
            )
        compacted = self._state.position().compacted
        if start < compacted:
            raise ArtifactError(
                f"Version {version} holds the log up to {start}, but the state was compacted up to {compacted}. "
                "Activate a version that holds more (kdiffe models list tells the sequence numbers), or retrain one: "
                "POST /admin/retrain, or kdiffe train --base (docs/state.md, Compaction)."
            )
        model = LiveModel(artifact, self._build_index, start=start, refresh_every=self._refresh_every)
        model.seed(self._state.records("item"), start)
        # Interactions go on arriving: come close, the last ones follow at the swap. Settled here, so that those who
        # read the model first need not walk.
        for _ in range(PASSES):
            replay(model, self._state, last, self._stop.is_set)
            while model.settle() and not self._stop.is_set():
                pass
            last = self._state.last_sequence()
            if last - model.sequence <= CLOSE:
                break
        return None if self._stop.is_set() else Follower(model, self._state, poll_interval=self._poll)

    def _set_back(self, manifest: Manifest, start: int, last: int) -> int | None:
        """Where the log ended when a version was found to be trained beyond its end; None where none was.

        The state keeps it: when the log has grown beyond the number again, other entries have it, for every process.
        """
        name = f"{manifest.version} {manifest.created_at}"
        if start > last:
            with suppress(StateError):  # refused all the same, and tried again
                self._state.put_document(BEYOND, name, {"sequence": start, "last": last})
            return last
        known = self._state.documents(BEYOND).get(name)
        return None if known is None else int(known["last"])

    def _at_hand(self, version: str) -> Follower | None:
        """The follower of a version that follows the log already: a served one, or the version before."""
        served = self._served
        candidates: tuple[Follower | None, ...] = (*(served.followers if served else ()), self._warm)
        for follower in candidates:
            if follower is not None and follower.model.version == version and _follows(follower):
                return follower
        return None

    def _swap(self, follower: Follower, problem: Problem | None) -> None:
        """Put a model in force. No acknowledged interaction may be missing from what is read after it.

        Args:
            follower: of the model.
            problem: why it is not the active version's, None where it is.
        """
        before, warm = self._served, self._warm
        self._bring_up(follower)
        self._warm = None
        if before is not None and self._keep_warm and _follows(before.main):
            self._warm, self._warm_until = before.main, time.monotonic() + self._keep_warm
        self._serve(Served(follower), problem)
        self._stop_unused(*(before.followers if before else ()), *((warm,) if warm else ()))

    def _bring_up(self, follower: Follower) -> None:
        """Let a model make up what others hold. Writes wait for it, too, from here on; nobody reads it yet.

        Raises:
            NotReadyError, StateError: it does not follow, or the service stops; nothing has changed then.
        """
        before = self._served
        try:
            if not follower.running:
                replay(follower.model, self._state, self._state.last_sequence(), self._stop.is_set)
                follower.start()
            if before is not None:
                self._serve(replace(before, joining=follower))
            last = self._state.last_sequence()
            # What was applied of a log that was set back since will never come again.
            _catch_up(follower, last if before is None else min(last, before.main.applied), self._stop)
        except BaseException:
            if before is not None:
                self._serve(before)
                self._stop_unused(follower)
            else:
                follower.stop()
            raise

    def _follow_experiment(self) -> None:
        """Begin, change or end the experiment as the store says. One version is loaded at a time."""
        served = self._served
        if served is None:
            return
        for follower in {*served.variants.values()} - {served.main}:
            if not _follows(follower):  # writes would wait for it in vain
                text = f"It no longer follows the log ({follower.failure!r})."
                self._unserved[follower.model.version] = Problem(follower.model.version, text, time.monotonic())
                kept = {name: other for name, other in served.variants.items() if other is not follower}
                served = replace(served, variants=kept)
                self._serve(served)
                follower.stop()
        standing = self.store.standing()
        if served.main.model.version != standing.active:
            return  # an activation ends the experiment, unless it fails and is undone
        wanted = standing.experiment
        versions = dict.fromkeys(variant.version for variant in (wanted.variants if wanted else ()))
        self._unserved = {version: problem for version, problem in self._unserved.items() if version in versions}
        self._serve_experiment(wanted)
        following = {follower.model.version for follower in self.served.followers}
        for version in versions:
            problem = self._unserved.get(version)
            if version not in following and (problem is None or time.monotonic() - problem.since > RETRY):
                self._join(version)
                self._serve_experiment(wanted)
                self._wake.set()  # there may be more; what the store wants is looked at again first
                return

    def _serve_experiment(self, experiment: Experiment | None) -> None:
        """Give every variant whose version follows its users; the others get the active version."""
        before = self.served
        found = {follower.model.version: follower for follower in before.followers}
        variants = {v.name: found[v.version] for v in (experiment.variants if experiment else ()) if v.version in found}
        if (before.experiment, before.variants, before.joining) == (experiment, variants, None):
            return
        self._serve(Served(before.main, experiment, variants))
        self._stop_unused(*before.followers)
        log.info(
            "serving an experiment" if experiment else "the experiment has ended",
            variants={name: follower.model.version for name, follower in variants.items()},
        )

    def _join(self, version: str) -> None:
        """Bring in a version that is to be served beside the others."""
        try:
            follower = self._at_hand(version) or self._load_aside(version)
            if follower is None:
                return
            self._bring_up(follower)
            self._unserved.pop(version, None)
        except Exception as error:  # its users get the active version then
            log.exception("a version of the experiment can't be loaded", version=version)
            with self._changed:
                self._unserved[version] = _problem_of(version, error)
                self._changed.notify_all()

    def _cool(self) -> None:
        """Let the version before go when its time is over, or when it does not follow."""
        warm = self._warm
        if warm is not None and (time.monotonic() > self._warm_until or not _follows(warm)):
            self._warm = None
            self._stop_unused(warm)

    def _stop_unused(self, *followers: Follower) -> None:
        """Stop those of some followers that are neither served nor kept warm."""
        used = {*self.served.followers, self._warm}
        for follower in dict.fromkeys(followers):
            if follower not in used:
                follower.stop()

    def _serve(self, served: Served, problem: Problem | None = None) -> None:
        with self._changed:
            self._served = served
            self._problem = problem
            self._changed.notify_all()

    def _set_problem(self, problem: Problem | None) -> None:
        with self._changed:
            self._problem = problem
            self._changed.notify_all()


def _problem_of(version: str, error: Exception) -> Problem:
    return Problem(version, str(error) if isinstance(error, KDiffEError) else repr(error), time.monotonic())


def _follows(follower: Follower) -> bool:
    """Whether a follower follows the log, or will again when the state is back."""
    return follower.failure is None or isinstance(follower.failure, StateError)


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
