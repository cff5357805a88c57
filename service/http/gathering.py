"""The gathering: lists that are asked for at the same time are made together."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NamedTuple

from service.live.model import LiveModel
from service.recommendation import recommender
from service.recommendation.recommender import Recommendations

# Most lists that are made in one go: some milliseconds, for which the event loop does nothing else.
MOST_TOGETHER = 32


class _Wanted(NamedTuple):
    """A list, and the request that waits for it."""

    model: LiveModel
    user_id: str
    k: int
    made: asyncio.Future[Recommendations]


class Gathering:
    """Makes lists on an event loop: those of all requests that have arrived by the loop's next turn."""

    def __init__(self) -> None:
        self._wanted: list[_Wanted] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def recommend(self, model: LiveModel, user_id: str, k: int) -> Recommendations:
        """`recommender.recommend`, together with others."""
        loop = asyncio.get_running_loop()
        wanted = _Wanted(model, user_id, k, loop.create_future())
        if not self._wanted:
            loop.call_soon(self._make)
        self._wanted.append(wanted)
        return await wanted.made

    def _make(self) -> None:
        loop = asyncio.get_running_loop()
        taken, self._wanted = self._wanted[:MOST_TOGETHER], self._wanted[MOST_TOGETHER:]
        if self._wanted:
            loop.call_soon(self._make)
        for model in {id(wanted.model): wanted.model for wanted in taken}.values():
            group = [wanted for wanted in taken if wanted.model is model]
            if model.lock.held:  # not on the event loop: it would have to wait
                task = loop.create_task(self._aside(model, group))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            else:
                _tell(group, _made(model, group))

    async def _aside(self, model: LiveModel, group: Sequence[_Wanted]) -> None:
        _tell(group, await asyncio.to_thread(_made, model, group))


def _made(model: LiveModel, group: Sequence[_Wanted]) -> Sequence[Recommendations | Exception]:
    """A list or an error for each; one that fails fails alone."""
    try:
        return recommender.recommend_many(model, [(wanted.user_id, wanted.k) for wanted in group])
    except Exception as error:
        if len(group) == 1:
            return [error]
        return [_made(model, [wanted])[0] for wanted in group]


def _tell(group: Sequence[_Wanted], made: Sequence[Recommendations | Exception]) -> None:
    for wanted, found in zip(group, made, strict=True):
        if wanted.made.done():  # the request is gone
            continue
        if isinstance(found, Exception):
            wanted.made.set_exception(found)
        else:
            wanted.made.set_result(found)
