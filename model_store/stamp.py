"""Scratch memory in which nodes are marked as members of a set."""

from __future__ import annotations

import numpy as np


class Stamp:
    """A scratch array whose entries are told apart by tags that count up, so that it is hardly ever cleared."""

    def __init__(self) -> None:
        self.array = np.zeros(0, np.int32)
        self._next = 1

    def take(self, count: int, n_nodes: int) -> int:
        """The first of `count` tags that no entry of `array` holds; `array` has room for `n_nodes`."""
        if len(self.array) < n_nodes:
            self.array = np.zeros(n_nodes + n_nodes // 4, np.int32)
            self._next = 1
        if self._next + count >= 2**31:
            self.array.fill(0)
            self._next = 1
        first = self._next
        self._next += count
        return first


class Stamps:
    """Two of them with the same tags: for the sets that a row of S counts, and for walks from what is stale of them."""

    def __init__(self) -> None:
        self.sets, self.walks = Stamp(), Stamp()

    def take(self, count: int, n_nodes: int) -> int:
        """The first of `count` tags that no entry of either array holds; both have room for `n_nodes`."""
        tag, walk_tag = self.sets.take(count, n_nodes), self.walks.take(count, n_nodes)
        assert tag == walk_tag  # noqa: S101
        return tag
