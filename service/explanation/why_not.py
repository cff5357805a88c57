"""Why an item is not in a user's list, and which interactions would bring it in."""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from model_store.counterfactuals import MOST_ADDED, find_addition
from model_store.standing import Standing
from service.explanation.counterfactual import NamedItem
from service.explanation.names import Names
from service.live.model import LiveModel
from service.live.readout import UserView
from service.recommendation.recommender import has_evidence, standing_by_count
from service.recommendation.selection import ItemFilter, Selection

Rule = Literal["outranked", "seen", "withdrawn", "filtered", "no_vector", "no_evidence"]


class Addition(TypedDict):
    """Interactions that would bring the item in; none of them can be left out."""

    found: bool
    items: list[NamedItem]
    score: float | None
    rank: int | None
    tried: int
    most: int


class WhyNot(TypedDict):
    """Where an item stands that is not in the list."""

    k: int
    in_list: bool
    rules: list[Rule]
    filters: list[str]
    rank: int | None
    cutoff: float | None
    margin: float | None
    addition: Addition | None


def why_not(
    model: LiveModel,
    view: UserView,
    selection: Selection,
    standing: Standing,
    item_row: int,
    k: int,
    names: Names,
    where: ItemFilter | None = None,
) -> WhyNot:
    """Why an item is not among a user's k best.

    Args:
        model: the live model.
        view: the user.
        selection: what `where` allows.
        standing: the user's list.
        item_row: the item.
        k: length of the list.
        names: the items' names.
        where: what the list may hold.
    """
    rules: list[Rule] = []
    cutoff: float | None
    seen = bool((standing.seen == item_row).any())
    if seen:
        rules.append("seen")
    if model.metadata.is_withdrawn(item_row):
        rules.append("withdrawn")
    filters = [] if where is None else failed_conditions(model, where, item_row)
    if filters:
        rules.append("filtered")
    with_vector = view.readout.has_vector(item_row)
    if with_vector and has_evidence(model, view):
        now = standing.now()
        rank, score, top = now.rank(item_row), float(now.scores[item_row]), now.top(k)
        cutoff = float(now.scores[top[-1]]) if len(top) == k else None
        behind: list[Rule] = ["outranked"]
    else:
        rank, score, cutoff = standing_by_count(model, view, selection, item_row, k)
        behind = ["no_vector"] if has_evidence(model, view) else ["no_evidence", "outranked"]
    if rank > k:
        rules += behind
    answer: WhyNot = {
        "k": k,
        "in_list": not rules,
        "rules": rules,
        "filters": filters,
        "rank": rank,
        "cutoff": cutoff,
        "margin": None if cutoff is None else score - cutoff,
        "addition": None,
    }
    if with_vector and rules in (["outranked"], ["no_evidence", "outranked"]):
        tried = standing.tried
        added = find_addition(standing, item_row, k)
        answer["addition"] = {
            "found": added is not None,
            "items": [] if added is None else _named(standing, added.nodes, names),
            "score": None if added is None else float(added.outcome.scores[item_row]),
            "rank": None if added is None else added.outcome.rank(item_row),
            "tried": standing.tried - tried,
            "most": MOST_ADDED,
        }
    return answer


def _named(standing: Standing, nodes: tuple[int, ...], names: Names) -> list[NamedItem]:
    rows: NDArray[np.int32] = standing.node_rows[np.array(nodes, np.int32)]
    return [{"item_id": names.id_of(row), "name": names.name_of(row)} for row in rows.tolist()]


def failed_conditions(model: LiveModel, where: ItemFilter, item_row: int) -> list[str]:
    """The parts of a filter that don't hold for an item, by the names that a request has for them."""
    parts = {
        "include": ItemFilter(include=where.include),
        "exclude": ItemFilter(exclude=where.exclude),
        "categories.any": ItemFilter(any_of=where.any_of),
        "categories.all": ItemFilter(all_of=where.all_of),
        "categories.none": ItemFilter(none_of=where.none_of),
        **{f"attributes.{name}": ItemFilter(ranges={name: bounds}) for name, bounds in where.ranges.items()},
    }
    failed = []
    with model.lock.reading():
        for name, part in parts.items():
            mask = part.mask(model, len(model.items))
            if mask is not None and not mask[item_row]:
                failed.append(name)
    return failed
