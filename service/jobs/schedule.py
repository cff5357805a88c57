"""When a retrain is due by itself: at times of a cron expression, or after so many new interactions.

Every worker of every host looks; a job's name says what it is due for, so that one of them adds it and once only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

from model_store.errors import ArtifactError, StoreError
from model_store.manifest import Manifest
from model_store.store import ModelStore
from service.compaction import held_of
from service.jobs.cron import first_after
from service.state.port import Job, StateStore


class Schedule:
    """Adds jobs when they are due."""

    def __init__(
        self,
        store: ModelStore,
        state: StateStore,
        cron: str = "",
        interactions: int = 0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Look at the clock and the log; call `look` now and then.

        Args:
            store: its active version says up to where the log is in a version.
            state: where jobs are added.
            cron: times in UTC, none where empty. What was missed while nobody looked is not made up for.
            interactions: so many new interactions make a retrain due; none do where it is 0.
            clock: seconds since 1970.
        """
        self._store = store
        self._state = state
        self._cron = cron
        self._interactions = interactions
        self._clock = clock
        self._next = self._after(clock())

    def look(self) -> Job | None:
        """Add a job where one is due. The job that was added.

        Raises:
            StateError: the state does not answer.
        """
        now = self._clock()
        if self._next is not None and now >= self._next.timestamp():
            last = self._state.last_sequence()
            name = f"cron-{self._next:%Y%m%dT%H%M}Z"
            self._next = self._after(now)
            return self._add(Job(name, "queued", now, "", last, phase="queued", trigger="schedule"))
        if self._interactions:
            last = self._state.last_sequence()
            due = self._held(last)
            if due is not None:
                name = f"log-{self._state.state_id[:8]}-{due}"
                # Where the log stands now, so that the next one is counted from here where this one is never taken.
                return self._add(Job(name, "queued", now, "", last, phase="queued", trigger="interactions"))
        return None

    def _add(self, job: Job) -> Job | None:
        # Two hosts may look at once: the owner's place holds who was first until the job is taken.
        wanted = replace(job, owner=f"asked-by-{uuid4().hex[:8]}")
        return wanted if self._state.add_job(wanted) == wanted else None

    def _after(self, moment: float) -> datetime | None:
        """The first time of the expression after a moment."""
        return first_after(self._cron, datetime.fromtimestamp(moment, UTC)) if self._cron else None

    def _served(self) -> Manifest | None:
        """Of the active version, or of the one before it that services stand in with where it is damaged."""
        with suppress(StoreError):
            for version in self._store.servable():
                with suppress(ArtifactError):
                    return self._store.open(version).manifest
        return None

    def _held(self, last: int) -> int | None:
        """Up to where a version or the latest job reaches, where that is so far before `last` that a retrain is due."""
        if last < self._interactions:
            return None
        jobs = self._state.jobs(1)
        reached = max((job.sequence for job in jobs), default=0)
        manifest = self._served()
        if manifest is None:
            return None  # nothing to retrain
        reached = max(reached, held_of(manifest, self._state.state_id))
        return reached if last - reached >= self._interactions else None
