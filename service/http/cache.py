"""Lists as bytes, kept while nothing that they are made of has changed."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import NamedTuple

from service.live.model import LiveModel
from service.recommendation.recommender import Strategy


class Listed(NamedTuple):
    """A list that was answered.

    Attributes:
        version: the model's version.
        sequence: the last entry of the log that it holds.
        refreshed_at: the refresh that it was made after.
        body: the answer.
        strategies: how many of its items each strategy brought.
    """

    version: str
    sequence: int
    refreshed_at: int
    body: bytes
    strategies: Mapping[Strategy, int]


class ListCache:
    """The latest lists of so many users. A version, a place of the log and a refresh decide a list's every bit."""

    def __init__(self, size: int) -> None:
        """Keep `size` lists at most; 0 keeps none."""
        self._size = size
        self._lists: OrderedDict[tuple[str, int], Listed] = OrderedDict()

    def find(self, model: LiveModel, user_id: str, k: int) -> Listed | None:
        """The list that the model would make now, None where it is not known."""
        key = (user_id, k)
        found = self._lists.get(key)
        if found is None:
            return None
        if (found.sequence, found.version) != (model.sequence, model.version):
            return None
        if found.refreshed_at != model.readout.refreshed_at:
            return None
        self._lists.move_to_end(key)
        return found

    def keep(self, user_id: str, k: int, listed: Listed) -> None:
        """Take the place of what was known; the list that was not asked for the longest goes."""
        if self._size:
            self._lists[user_id, k] = listed
            self._lists.move_to_end((user_id, k))
            if len(self._lists) > self._size:
                self._lists.popitem(last=False)
