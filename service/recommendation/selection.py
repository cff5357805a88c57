"""Which items a list may hold, and what is added to their scores: filters and boosts over the items' metadata.

Boosts are added, not multiplied: scores may be negative, where a factor above 1 would push an item down, and a sum of
contributions stays a sum, so that an explanation of the list still adds up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.live.model import LiveModel

Mask = NDArray[np.bool_]


class Range(NamedTuple):
    """Bounds of a number; those that are None don't bound."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, values: NDArray[np.float64]) -> Mask:
        """(n,) which values lie within."""
        inside = np.ones(len(values), np.bool_)
        if self.at_least is not None:
            inside &= values >= self.at_least
        if self.above is not None:
            inside &= values > self.above
        if self.at_most is not None:
            inside &= values <= self.at_most
        if self.below is not None:
            inside &= values < self.below
        return inside


@dataclass(frozen=True)
class ItemFilter:
    """A condition on items; all parts must hold. An item without a record is in no category and has no attribute.

    Attributes:
        include: item ids that alone are allowed; None for all.
        exclude: item ids that are not.
        any_of: categories of which an item is in one at least; empty for no condition.
        all_of: categories that an item is in.
        none_of: categories that an item is not in.
        ranges: attribute → bounds of its number, which an item must have.
    """

    include: tuple[str, ...] | None = None
    exclude: tuple[str, ...] = ()
    any_of: tuple[str, ...] = ()
    all_of: tuple[str, ...] = ()
    none_of: tuple[str, ...] = ()
    ranges: Mapping[str, Range] = field(default_factory=dict)

    @property
    def item_ids(self) -> tuple[str, ...]:
        """Every item that is named."""
        return (*(self.include or ()), *self.exclude)

    def mask(self, model: LiveModel, n_items: int) -> Mask | None:
        """(n_items,) the items for which it holds, None for all; the model's lock is held."""
        metadata = model.metadata
        if self == ItemFilter():
            return None
        include = self.include
        mask = np.ones(n_items, np.bool_) if include is None else _of_rows(_rows(model, include), n_items)
        if self.any_of:
            mask &= _of_rows(np.concatenate([metadata.rows_in(name) for name in self.any_of]), n_items)
        for name in self.all_of:
            mask &= _of_rows(metadata.rows_in(name), n_items)
        for name in self.none_of:
            mask[metadata.rows_in(name)] = False
        for name, bounds in self.ranges.items():
            rows, values = metadata.numbers(name)
            mask &= _of_rows(rows[bounds.holds(values)], n_items)
        mask[_rows(model, self.exclude)] = False
        return mask


@dataclass(frozen=True)
class Boost:
    """An amount, negative to push down, that is added to the score of every item for which a filter holds."""

    amount: float
    where: ItemFilter = field(default_factory=ItemFilter)


@dataclass(frozen=True)
class Selection:
    """Filters and boosts at one moment of the items' metadata.

    Attributes:
        blocked: (J,) items that no list may hold, None where there are none.
        boost: (J,) what is added to scores, None where nothing is.
        n_items: J: items that came later are not considered.
    """

    blocked: Mask | None
    boost: NDArray[np.float64] | None
    n_items: int

    @classmethod
    def of(cls, model: LiveModel, where: ItemFilter | None = None, boosts: Sequence[Boost] = ()) -> Selection:
        """Filters and boosts over the items as they are now; withdrawn items are never allowed."""
        if where is None and not boosts and not len(model.metadata.withdrawn):
            return cls(None, None, len(model.items))
        with model.lock.reading():
            n_items, withdrawn = len(model.items), model.metadata.withdrawn
            allowed = None if where is None else where.mask(model, n_items)
            blocked = None if allowed is None else ~allowed
            if len(withdrawn):
                blocked = np.zeros(n_items, np.bool_) if blocked is None else blocked
                blocked[withdrawn] = True
            total = None
            if boosts:
                total = np.zeros(n_items)
                for boost in boosts:
                    mask = boost.where.mask(model, n_items)
                    total[slice(None) if mask is None else mask] += boost.amount
        return cls(blocked, total, n_items)


def _rows(model: LiveModel, item_ids: Sequence[str]) -> NDArray[np.int32]:
    rows = model.items.rows(item_ids)
    return rows[rows >= 0]


def _of_rows(rows: NDArray[np.int32], n_items: int) -> Mask:
    mask = np.zeros(n_items, np.bool_)
    mask[rows] = True
    return mask
