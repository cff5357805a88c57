"""A served score, taken apart: self + one contribution for each of the user's items = score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from model_store.retrieval import rank_of
from model_store.serving_form import score_rows
from model_store.standing import Standing
from model_store.trials import Trials
from service.errors import UnknownUserError
from service.explanation.counterfactual import Counterfactual, counterfactual
from service.explanation.knowledge import ItemParts, ItemSide, Reasons, item_parts, reasons, shared_entities
from service.explanation.names import Names, entity_name
from service.explanation.paths import Paths, paths
from service.explanation.sentence import ITEMS, Because, Place, sentence, without
from service.explanation.served import recommendation_id
from service.explanation.why_not import WhyNot, why_not
from service.live.model import LiveModel
from service.live.readout import Explained
from service.recommendation.recommender import Strategy, has_evidence, require_item, strategy_of
from service.recommendation.selection import ItemFilter, Selection

Part = Literal["paths", "reasons", "counterfactual", "why_not"]
PARTS: tuple[Part, ...] = ("paths", "reasons", "counterfactual", "why_not")


@dataclass(frozen=True)
class Wanted:
    """What an explanation is to hold beside the plain account.

    Attributes:
        parts: further parts.
        k: length of the list that `counterfactual` and `why_not` are about.
        most: how many interactions a counterfactual may name.
        where: what that list may hold, as `POST /recommend` says it; None for no condition.
    """

    parts: frozenset[Part] = frozenset()
    k: int = 20
    most: int = 10
    where: ItemFilter | None = None


PLAIN = Wanted()


class ContributionPart(TypedDict):
    """What one item of the user's adds to the score: contribution = link + attention parts + direct."""

    item_id: str
    name: str | None
    contribution: float
    similarity: float
    link: float
    attention: float
    direct: float
    share: float


class Explanation(TypedDict):
    """A served score, taken apart."""

    user_id: str
    item_id: str
    name: str | None
    score: float
    strategy: Strategy
    rank: int | None
    self: float
    self_share: float
    contributions: list[ContributionPart]
    sum: float
    additivity_error: float
    item_parts: ItemParts | None
    sentence: str
    paths: Paths | None
    reasons: Reasons | None
    counterfactual: Counterfactual | None
    why_not: WhyNot | None
    model_version: str
    sequence: int
    refreshed_at: int
    recommendation_id: str


def explain(model: LiveModel, user_id: str, item_id: str, wanted: Wanted = PLAIN) -> Explanation:
    """A score as it is served, taken apart: self + Σ contributions = score.

    Args:
        model: the live model.
        user_id: external id.
        item_id: external id.
        wanted: which parts beside the account.

    Raises:
        UnknownUserError: the user is unknown, so it has no vector to explain.
        UnknownItemError: the item is unknown.
    """
    item_row = require_item(model, item_id)
    found = model.explained(user_id, item_row, trials=bool(wanted.parts & {"counterfactual", "why_not"}))
    if found is None:
        raise UnknownUserError.of(user_id)
    view, parts = found.view, found.parts
    readout = view.readout
    score, rank = 0.0, None
    selection = Selection.of(model)
    hidden = _hidden(found, selection)
    if item_row < readout.n_items:
        direct, _ = model.table.accumulate(view.seen, readout.n_items)
        one = np.array([item_row], np.int32)
        score = float(score_rows(view.vector, readout.item_embeddings, one, direct)[0])
        if not hidden[item_row]:
            left_out = np.flatnonzero(hidden).astype(np.int32)
            rank = rank_of(score, item_row, view.vector, readout.item_embeddings, left_out, direct)
    names, side = Names.of(model), ItemSide.of(model, view, item_row)
    magnitude = parts.magnitude
    self_share = parts.self_term / magnitude if magnitude else 0.0
    # The list's, for this item: one without a vector stands at its end.
    ranked = readout.has_vector(item_row) and has_evidence(model, view)
    strategy: Strategy = strategy_of(view) if ranked else "popular"
    answer: Explanation = {
        "user_id": user_id,
        "item_id": item_id,
        "name": names.name_of(item_row),
        "score": score,
        "strategy": strategy,
        "rank": rank,
        "self": parts.self_term,
        "self_share": self_share,
        "contributions": _contributions(found, names),
        "sum": parts.score,
        "additivity_error": parts.additivity_error(score),
        "item_parts": item_parts(model, side),
        "sentence": "",
        "paths": paths(model, found, item_row, names) if "paths" in wanted.parts else None,
        "reasons": reasons(model, found, side, names) if "reasons" in wanted.parts else None,
        "counterfactual": None,
        "why_not": None,
        "model_version": model.version,
        "sequence": view.sequence,
        "refreshed_at": readout.refreshed_at,
        "recommendation_id": recommendation_id(model, user_id, view, readout, view.sequence),
    }
    because = _because(model, found, side, names, item_row)
    place = _place(model, found, selection, item_row)
    answer["sentence"] = sentence(answer["name"] or item_id, place, rank or 0, self_share, because)
    if found.trials is not None:
        if wanted.where is not None:
            selection = Selection.of(model, wanted.where)
            hidden = _hidden(found, selection)
        standing = _standing(model, found, found.trials, hidden)
        if "counterfactual" in wanted.parts:
            other = counterfactual(standing, parts, item_row, wanted.k, wanted.most, names)
            answer["counterfactual"] = other
            if other["found"]:
                removed = [item["name"] or item["item_id"] for item in other["removed"]]
                instead = next((item["name"] or item["item_id"] for item in other["replaced_by"]), None)
                answer["sentence"] += " " + without(removed, other["rank"], instead)
        if "why_not" in wanted.parts:
            answer["why_not"] = why_not(model, view, selection, standing, item_row, wanted.k, names, wanted.where)
    return answer


def _place(model: LiveModel, found: Explained, selection: Selection, item_row: int) -> Place:
    """Where the user's lists hold the item; `selection` is without conditions."""
    view = found.view
    if selection.blocked is not None and selection.blocked[item_row]:
        return "withdrawn"
    if (view.seen == item_row).any():
        return "seen"
    if not has_evidence(model, view):
        return "popular"
    if view.readout.has_vector(item_row):
        return "ranked"
    # Whether anybody chose it whom the graph of T does not hold.
    node, lengths = int(found.item_nodes[item_row]), view.readout.adjacency.lengths
    counted = int(lengths[node]) if node < len(lengths) else 0
    return "awaited" if int(model.item_counts(np.array([item_row], np.int32))[0]) > counted else "unknown"


def _hidden(found: Explained, selection: Selection) -> NDArray[np.bool_]:
    """(J,) the items that the user's list leaves out: seen, not allowed, or without a vector yet."""
    readout, seen = found.view.readout, found.view.seen
    hidden = np.zeros(readout.n_items, np.bool_)
    hidden[seen[seen < readout.n_items]] = True
    if selection.blocked is not None:
        blocked = selection.blocked[: readout.n_items]
        hidden[: len(blocked)] |= blocked
    if readout.absent is not None:
        hidden |= readout.absent
    return hidden


def _standing(model: LiveModel, found: Explained, trials: Trials, hidden: NDArray[np.bool_]) -> Standing:
    """The user's list, and trials of it."""
    view, readout = found.view, found.view.readout

    def popularity() -> NDArray[np.float64]:
        counts = np.zeros(readout.n_items)
        rows, numbers = model.popular(len(found.item_nodes))
        known = rows < readout.n_items
        counts[rows[known]] = numbers[known]
        return counts

    return Standing(
        trials,
        model.form,
        model.table,
        readout.neighbor_embeddings,
        readout.item_embeddings,
        found.node_rows,
        found.item_nodes,
        view.similarity,
        view.vector,
        hidden,
        readout.adjacency.lengths,
        popularity,
    )


def _contributions(found: Explained, names: Names) -> list[ContributionPart]:
    view, parts = found.view, found.parts
    totals, magnitude = parts.total, parts.magnitude
    listed: list[ContributionPart] = []
    for i in np.argsort(-np.abs(totals), kind="stable").tolist():
        row = int(view.seen[i])
        total = float(totals[i])
        listed.append(
            {
                "item_id": names.id_of(row),
                "name": names.name_of(row),
                "contribution": total,
                "similarity": float(parts.similarity[i]),
                "link": float(parts.link[i]),
                "attention": float(parts.attention[i]),
                "direct": float(parts.direct[i]),
                "share": total / magnitude if magnitude else 0.0,
            }
        )
    return listed


def _because(model: LiveModel, found: Explained, side: ItemSide | None, names: Names, item_row: int) -> list[Because]:
    """The largest positive contributions, with the entities that those items share with the explained one."""
    view, parts = found.view, found.parts
    best = np.argsort(-parts.total, kind="stable")[:ITEMS]
    rows, shares = view.seen[best], parts.total[best] / (parts.magnitude or 1.0)
    words: list[list[str]] = [[] for _ in rows]
    if side is not None:
        sharing = shared_entities(model.artifact, rows, side.entities)
        entity_ids, relation_ids = model.artifact.array("entity_ids"), model.artifact.array("relation_ids")
        for e in side.order:
            relation, entity = str(relation_ids[side.relations[e]]), str(entity_ids[side.entities[e]])
            # Entities that were made from features have numbers for names.
            made = f"codebook.{relation}" in model.artifact
            word = f"a kind of {relation} content" if made else f"{relation} {entity_name(relation, entity)}"
            for i in np.flatnonzero(sharing[:, e]).tolist():
                if word not in words[i]:
                    words[i].append(word)
    return [
        Because(names.name_of(row) or names.id_of(row), share, word, itself=row == item_row)
        for row, share, word in zip(rows.tolist(), shares.tolist(), words, strict=True)
    ]
