"""Explaining what was served: the version as it was at that moment of the log, rebuilt from artifact and log.

A moment's bits follow from the artifact and the log up to it (docs/attention.md), so nothing is kept when a reply is
made; what is rebuilt is compared with the mark that the reply's id carries. Bounded: `KEPT` rebuilt models, a log of at
most `MOST_ENTRIES` entries behind an artifact, one rebuild at a time.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Container
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from functools import partial

from model_store.errors import ArtifactError, StoreError
from model_store.store import ModelStore
from service.compaction import held_of
from service.errors import GoneError, NotReadyError, UnknownUserError
from service.explanation.account import PLAIN, Explanation, Wanted, explain
from service.explanation.served import Served
from service.index.exact import ExactIndex
from service.live.follower import replay
from service.live.model import LiveModel
from service.state.lines import entries_between
from service.state.port import StateStore

# Rebuilt models that are kept, the last ones used.
KEPT = 2
# Entries of the log that are applied again at most: some 10 s.
MOST_ENTRIES = 100_000
# A rebuilt model is refreshed when it is told to.
NEVER = 1 << 62
# Requests that rebuild, or wait for others that do, at once.
THREADS = 4


class PastModels:
    """Versions at moments of the log that is no longer now."""

    def __init__(self, store: ModelStore, state: StateStore) -> None:
        """Rebuild from these versions and this log."""
        self._store = store
        self._state = state
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(THREADS, "kdiffe-past")
        self._models: OrderedDict[tuple[str, int], LiveModel] = OrderedDict()

    async def told(
        self, now: LiveModel, user_id: str, item_id: str, recommendation_id: str, wanted: Wanted
    ) -> Explanation:
        """`explain` in a thread of its own pool: who waits for a rebuild takes none that other requests need."""
        ask = partial(copy_context().run, self.explain, now, user_id, item_id, recommendation_id, wanted)
        return await asyncio.get_running_loop().run_in_executor(self._threads, ask)

    def explain(
        self,
        now: LiveModel,
        user_id: str,
        item_id: str,
        recommendation_id: str,
        wanted: Wanted = PLAIN,
        *,
        timeout: float = 30.0,
    ) -> Explanation:
        """An explanation of the score that a reply held.

        Args:
            now: the served model, which knows who has been erased since.
            user_id: external id.
            item_id: external id.
            recommendation_id: the reply's id.
            wanted: which parts beside the account.
            timeout: seconds to wait for other rebuilds.

        Raises:
            InvalidRequestError: no such id.
            UnknownUserError: the user is unknown now.
            UnknownItemError: the item was unknown then.
            GoneError: the moment can't be rebuilt any more.
            NotReadyError: others are being rebuilt.
        """
        served = Served.parse(recommendation_id)
        if now.users.row(user_id) is None:
            raise UnknownUserError.of(user_id)
        if (now.version, now.sequence, now.readout.refreshed_at) == (
            served.version,
            served.sequence,
            served.refreshed_at,
        ):
            found = explain(now, user_id, item_id, wanted)
            if found["recommendation_id"] == recommendation_id:
                return found
        if not self._lock.acquire(timeout=timeout):
            raise NotReadyError(f"recommendation_id={recommendation_id}: others are being rebuilt. Try again.")
        try:
            model, erased = self._at(served, user_id)
            found = explain(model, user_id, item_id, wanted)
        except UnknownUserError:  # erased from the log since, or the id is another user's
            raise _gone(served, "the user was unknown then") from None
        finally:
            self._lock.release()
        if found["recommendation_id"] != recommendation_id:
            raise _gone(served, "it was made for another user, or interactions have been erased from the log since")
        return _without_erased(found, now, erased)

    def _at(self, served: Served, user_id: str) -> tuple[LiveModel, set[str]]:
        """The version at the moment, and who was erased since; the lock is held."""
        try:
            artifact = self._store.open(served.version)
        except (StoreError, ArtifactError) as error:
            self._models.clear()
            raise _gone(served, str(error)) from None
        start = held_of(artifact.manifest, self._state.state_id)
        last, compacted = self._state.last_sequence(), self._state.position().compacted
        if start < compacted or served.refreshed_at < start or served.sequence > last:
            raise _gone(served, f"the log holds {compacted + 1} to {last}, the version what is up to {start}")
        if served.sequence - start > MOST_ENTRIES:
            raise _gone(served, f"more than {MOST_ENTRIES:,} entries of the log would have to be applied again")
        erased = self._erased_since(served, user_id, last)
        key = (served.version, served.refreshed_at)
        model = self._models.pop(key, None)
        if model is None or model.sequence > served.sequence:
            model = LiveModel(artifact, ExactIndex, start=start, refresh_every=NEVER)
            model.seed(self._state.records("item"), start)
            self._replay(model, served.refreshed_at, served)
            if served.refreshed_at > start:
                model.refresh()
        self._replay(model, served.sequence, served)
        self._models[key] = model
        while len(self._models) > KEPT:
            self._models.popitem(last=False)
        return model, erased

    def _replay(self, model: LiveModel, target: int, served: Served) -> None:
        try:
            replay(model, self._state, target)
        except ValueError as error:
            raise _gone(served, str(error)) from None

    def _erased_since(self, served: Served, user_id: str, last: int) -> set[str]:
        """Users who were erased since: an artifact from before still holds them, and nobody is to be shown that.

        Raises:
            GoneError: the user is one of them, or too much has come since.
        """
        if last - served.sequence > MOST_ENTRIES:
            raise _gone(served, f"more than {MOST_ENTRIES:,} entries of the log came after it")
        entries = entries_between(self._state.read, served.sequence, last)
        erased = {entry.user_id for entry in entries if entry.kind == "erasure"}
        if user_id in erased:
            raise _gone(served, "the user was erased since")
        return erased


def _without_erased(found: Explanation, now: LiveModel, erased: Container[str]) -> Explanation:
    """Paths less the users who are unknown now, or were erased and came back: what they amount to goes to the rest."""
    if found["paths"] is not None:
        for item in found["paths"]["items"]:
            kept = [
                user
                for user in item["users"]
                if user["user_id"] not in erased and now.users.row(user["user_id"]) is not None
            ]
            item["rest"] += sum(user["amount"] for user in item["users"] if user not in kept)
            item["users"] = kept
    return found


def _gone(served: Served, why: str) -> GoneError:
    return GoneError(
        f"What version {served.version} served at {served.sequence} can't be rebuilt any more: {why}. "
        "Ask for new recommendations, or explain without recommendation_id."
    )
