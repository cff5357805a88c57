"""What is known of users and items beside scores: a user's history, items with their names and entities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from service.errors import UnknownUserError
from service.explanation.knowledge import KNOWLEDGE, triplets_of
from service.explanation.names import Names
from service.live.model import LiveModel
from service.live.readout import UserView


class HistoryItem(TypedDict):
    """An item that a user has interacted with."""

    item_id: str
    name: str | None
    source: Literal["version", "log"]
    similarity: float
    n_interactions: int


class History(TypedDict):
    """What a user has interacted with."""

    user_id: str
    in_version: bool
    n_items: int
    items: list[HistoryItem]
    model_version: str
    sequence: int
    refreshed_at: int


class Entity(TypedDict):
    """A fact of the knowledge graph about an item."""

    relation: str
    entity: str


class Item(TypedDict):
    """What is known of an item."""

    item_id: str
    name: str | None
    in_version: bool
    n_interactions: int
    entities: list[Entity]


class Items(TypedDict):
    """Items that were asked for, and what of it is unknown."""

    items: list[Item]
    unknown: list[str]
    model_version: str
    sequence: int
    refreshed_at: int


def history(model: LiveModel, user_id: str, limit: int, offset: int = 0) -> History:
    """A user's items: what came since the version first, then by S(u, i), equal ones by row.

    Args:
        model: the served model.
        user_id: external id.
        limit: most items of the answer.
        offset: items left out at the beginning.

    Raises:
        UnknownUserError: the user is unknown.
    """
    view = model.user(user_id)
    if view is None:
        raise UnknownUserError.of(user_id)
    trained = np.isin(view.seen, _rows_in_version(model, view))
    order = np.lexsort((view.seen, -view.similarity, trained))[offset : offset + limit]
    rows = view.seen[order]
    names, counts = Names.of(model), model.item_counts(rows)
    return {
        "user_id": user_id,
        "in_version": view.in_artifact,
        "n_items": len(view.seen),
        "items": [
            {
                "item_id": model.items.id_of(row),
                "name": names.name_of(row),
                "source": "version" if trained[place] else "log",
                "similarity": float(view.similarity[place]),
                "n_interactions": count,
            }
            for place, row, count in zip(order.tolist(), rows.tolist(), counts.tolist(), strict=True)
        ],
        "model_version": model.version,
        "sequence": view.sequence,
        "refreshed_at": view.readout.refreshed_at,
    }


def items(model: LiveModel, item_ids: Sequence[str]) -> Items:
    """Items in the order in which they were asked for, each once."""
    wanted = list(dict.fromkeys(item_ids))
    found = {item_id: row for item_id in wanted if (row := model.item_row(item_id)) is not None}
    sequence, refreshed_at = model.sequence, model.readout.refreshed_at
    counts = model.item_counts(np.fromiter(found.values(), np.int32, len(found)))
    names, entities, n_trained = Names.of(model), _Entities(model), model.artifact.manifest.n_items
    return {
        "items": [
            {
                "item_id": item_id,
                "name": names.name_of(row),
                "in_version": row < n_trained,
                "n_interactions": count,
                "entities": entities.of(row),
            }
            for (item_id, row), count in zip(found.items(), counts.tolist(), strict=True)
        ],
        "unknown": [item_id for item_id in wanted if item_id not in found],
        "model_version": model.version,
        "sequence": sequence,
        "refreshed_at": refreshed_at,
    }


def _rows_in_version(model: LiveModel, view: UserView) -> NDArray[np.int32]:
    """The items of a user's that the version was trained with."""
    if not view.in_artifact:
        return np.zeros(0, np.int32)
    indptr = model.artifact.array("graph.indptr")
    nodes = model.artifact.array("graph.indices")[int(indptr[view.row]) : int(indptr[view.row + 1])]
    return (nodes - model.form.n_users).astype(np.int32)


class _Entities:
    """The artifact's knowledge graph by item: none where it has none or the item is newer."""

    def __init__(self, model: LiveModel) -> None:
        artifact = model.artifact
        self._n_items = artifact.manifest.n_items if all(name in artifact for name in KNOWLEDGE) else 0
        if self._n_items:
            self._indptr = artifact.array("knowledge.indptr")
            self._relations = artifact.array("knowledge.relations")
            self._entities = artifact.array("knowledge.entities")
            self._relation_ids = artifact.array("relation_ids")
            self._entity_ids = artifact.array("entity_ids")

    def of(self, row: int) -> list[Entity]:
        if row >= self._n_items:
            return []
        triplets = triplets_of(self._indptr, row)
        relations = self._relation_ids[self._relations[triplets]].tolist()
        entities = self._entity_ids[self._entities[triplets]].tolist()
        return [{"relation": relation, "entity": entity} for relation, entity in zip(relations, entities, strict=True)]
