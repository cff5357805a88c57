"""The use cases: recommend, explain, similar, popular. No HTTP here; ids in, plain values out."""

from __future__ import annotations

from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from model_store.retrieval import rank_of, top_items
from model_store.serving_form import dot, score_rows
from service.errors import UnknownItemError, UnknownUserError
from service.live_model import LiveModel, UserView

Strategy = Literal["model", "fold_in", "popular"]


class RecommendedItem(TypedDict):
    """An item of a list. A popular item's score is its number of interactions."""

    item_id: str
    score: float
    strategy: Strategy


class Recommendations(TypedDict):
    """What a user is recommended."""

    user_id: str
    items: list[RecommendedItem]
    model_version: str
    sequence: int
    refreshed_at: int


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


class EntityPart(TypedDict):
    """What one entity of the item adds to Z_u · Z_v."""

    relation: str
    entity: str
    attention: float
    contribution: float


class ItemParts(TypedDict):
    """Z_u · Z_v by the item's side: own + Σ entities + rest = sum."""

    view: str
    own: float
    entities: list[EntityPart]
    rest: float
    sum: float


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
    model_version: str
    sequence: int
    refreshed_at: int


class ScoredItem(TypedDict):
    """An item and a number."""

    item_id: str
    score: float


class ItemList(TypedDict):
    """Items without a user."""

    items: list[ScoredItem]
    model_version: str
    sequence: int
    refreshed_at: int


class SimilarItems(ItemList):
    """Items near an item."""

    item_id: str


def recommend(model: LiveModel, user_id: str, k: int) -> Recommendations:
    """The k best unseen items: k of them unless fewer are unseen.

    A user with interactions gets the model's items (`model` where it was trained with the user, `fold_in` where it was
    not); everybody else, and every place that is left, gets the items with the most interactions (`popular`).
    """
    view = model.user(user_id)
    readout = model.readout if view is None else view.readout
    sequence = model.sequence if view is None else view.sequence
    items: list[RecommendedItem] = []
    taken = np.zeros(0, np.int32) if view is None else view.seen
    if view is not None and _has_evidence(model, view):
        rows, scores = top_items(
            view.vector, readout.item_embeddings, view.seen, model.table, readout.index.search, k, readout.longest
        )
        strategy = _strategy(view)
        items = [
            {"item_id": model.items.id_of(row), "score": score, "strategy": strategy}
            for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
        ]
        taken = np.concatenate([taken, rows])
    if len(items) < k:
        items += _popular_items(model, taken, k - len(items))
    return {
        "user_id": user_id,
        "items": items,
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": readout.refreshed_at,
    }


def explain(model: LiveModel, user_id: str, item_id: str) -> Explanation:
    """A score as it is served, taken apart: self + Σ contributions = score.

    Raises:
        UnknownUserError: the user is unknown, so it has no vector to explain.
        UnknownItemError: the item is unknown.
    """
    item_row = require_item(model, item_id)
    explained = model.explained(user_id, item_row)
    if explained is None:
        raise UnknownUserError(f"Unknown user {user_id!r}: it has no interaction and is in no artifact.")
    view, parts = explained
    readout = view.readout
    score, rank = 0.0, None
    if item_row < readout.n_items:
        direct, _ = model.table.accumulate(view.seen, readout.n_items)
        one = np.array([item_row], np.int32)
        score = float(score_rows(view.vector, readout.item_embeddings, one, direct)[0])
        if item_row not in view.seen:
            rank = rank_of(score, item_row, view.vector, readout.item_embeddings, view.seen, direct)
    totals, magnitude = parts.total, parts.magnitude
    names = _names(model)
    order = np.argsort(-np.abs(totals), kind="stable")
    listed: list[ContributionPart] = []
    for i in order.tolist():
        row = int(view.seen[i])
        total = float(totals[i])
        listed.append(
            {
                "item_id": model.items.id_of(row),
                "name": _name(names, row),
                "contribution": total,
                "similarity": float(parts.similarity[i]),
                "link": float(parts.link[i]),
                "attention": float(parts.attention[i]),
                "direct": float(parts.direct[i]),
                "share": total / magnitude if magnitude else 0.0,
            }
        )
    return {
        "user_id": user_id,
        "item_id": item_id,
        "name": _name(names, item_row),
        "score": score,
        "strategy": _strategy(view) if _has_evidence(model, view) else "popular",
        "rank": rank,
        "self": parts.self_term,
        "self_share": parts.self_term / magnitude if magnitude else 0.0,
        "contributions": listed,
        "sum": parts.score,
        "additivity_error": parts.additivity_error(score),
        "item_parts": _item_parts(model, view, item_row),
        "model_version": model.version,
        "sequence": view.sequence,
        "refreshed_at": readout.refreshed_at,
    }


def similar(model: LiveModel, item_id: str, k: int) -> SimilarItems:
    """The k items of the largest cosine with an item; none where the item has no vector yet.

    Raises:
        UnknownItemError: the item is unknown.
    """
    item_row = require_item(model, item_id)
    readout, sequence = model.readout, model.sequence
    items: list[ScoredItem] = []
    vectors = readout.item_embeddings
    if item_row < readout.n_items and vectors[item_row].any():
        rows = np.arange(readout.n_items, dtype=np.int32)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
        inner = score_rows(vectors[item_row], vectors, rows, np.zeros(readout.n_items))
        candidates = rows[(norms > 0) & (rows != item_row)]
        cosines = inner[candidates] / (norms[candidates] * norms[item_row])
        best = np.lexsort((candidates, -cosines))[:k]
        items = [
            {"item_id": model.items.id_of(row), "score": cosine}
            for row, cosine in zip(candidates[best].tolist(), cosines[best].tolist(), strict=True)
        ]
    return {
        "item_id": item_id,
        "items": items,
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": readout.refreshed_at,
    }


def popular(model: LiveModel, k: int) -> ItemList:
    """The k items with the most interactions, equal ones by row."""
    sequence, refreshed_at = model.sequence, model.readout.refreshed_at
    items = _popular_items(model, np.zeros(0, np.int32), k)
    return {
        "items": [{"item_id": item["item_id"], "score": item["score"]} for item in items],
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": refreshed_at,
    }


def require_item(model: LiveModel, item_id: str) -> int:
    """An item's row.

    Raises:
        UnknownItemError: the item is unknown.
    """
    row = model.item_row(item_id)
    if row is None:
        raise UnknownItemError(f"Unknown item {item_id!r}: it has no interaction and is in no artifact.")
    return row


def _has_evidence(model: LiveModel, view: UserView) -> bool:
    """Whether what the user did says anything yet: it has interactions, and not only with items newer than T and B."""
    if len(view.seen) == 0:
        return False
    return bool(view.vector.any()) or bool((view.seen < model.table.n_rows).any())


def _strategy(view: UserView) -> Strategy:
    return "model" if view.in_artifact else "fold_in"


def _popular_items(model: LiveModel, taken: NDArray[np.int32], k: int) -> list[RecommendedItem]:
    rows, counts = model.popular(k + len(taken))
    free = ~np.isin(rows, taken)
    return [
        {"item_id": model.items.id_of(row), "score": float(count), "strategy": "popular"}
        for row, count in zip(rows[free][:k].tolist(), counts[free][:k].tolist(), strict=True)
    ]


def _names(model: LiveModel) -> NDArray[np.str_] | None:
    return model.artifact.array("item_names") if "item_names" in model.artifact else None


def _name(names: NDArray[np.str_] | None, row: int) -> str | None:
    return str(names[row]) if names is not None and row < len(names) else None


KNOWLEDGE = (
    "knowledge.indptr",
    "knowledge.relations",
    "knowledge.entities",
    "knowledge.attention",
    "knowledge.entity_embeddings",
    "knowledge.item_embeddings",
    "entity_ids",
    "relation_ids",
)


def _item_parts(model: LiveModel, view: UserView, item_row: int) -> ItemParts | None:
    """The item's side, for the fixed norm: X_v = (z_v + Σ_e a_e z_e) / ‖·‖ in the view `knowledge` (Eq. 1).

    None where the artifact has no knowledge graph or the item is newer than it.
    """
    artifact = model.artifact
    block = next((v for v in artifact.manifest.views if v.name == "knowledge"), None)
    if block is None or item_row >= artifact.manifest.n_items or any(name not in artifact for name in KNOWLEDGE):
        return None
    columns = slice(block.begin, block.end)
    indptr = artifact.array("knowledge.indptr")
    triplets = slice(int(indptr[item_row]), int(indptr[item_row + 1]))
    entities = artifact.array("knowledge.entities")[triplets]
    relations = artifact.array("knowledge.relations")[triplets]
    attention = artifact.array("knowledge.attention")[triplets].astype(np.float64)
    own = artifact.array("knowledge.item_embeddings")[item_row].astype(np.float64)
    parts = artifact.array("knowledge.entity_embeddings")[entities].astype(np.float64) * attention[:, None]
    norm = float(np.linalg.norm(own + parts.sum(0)))
    # What one unit of X_v's block adds to Z_u · Z_v is α_0 Z_u.
    reading = view.vector.astype(np.float64) * model.form.alpha[0]
    scale = reading[columns] / norm if norm > 0 else np.zeros(block.end - block.begin)
    item_vector = view.readout.item_embeddings[item_row]
    served = float(dot(view.vector, item_vector))
    base = model.form.base[model.form.n_users + item_row][columns].astype(np.float64)
    rest = served - float(reading[columns] @ base)
    own_part = float(own @ scale)
    shares = parts @ scale
    entity_ids, relation_ids = artifact.array("entity_ids"), artifact.array("relation_ids")
    listed: list[EntityPart] = [
        {
            "relation": str(relation_ids[relations[i]]),
            "entity": str(entity_ids[entities[i]]),
            "attention": float(attention[i]),
            "contribution": float(shares[i]),
        }
        for i in np.argsort(-np.abs(shares), kind="stable").tolist()
    ]
    return {
        "view": block.name,
        "own": own_part,
        "entities": listed,
        "rest": rest,
        "sum": own_part + float(shares.sum()) + rest,
    }
