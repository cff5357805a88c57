"""The item's side of a score: what its own vector and its entities in the knowledge graph add, and who shares them."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Artifact
from model_store.serving_form import dot
from service.explanation.names import Names, entity_name
from service.live.model import LiveModel
from service.live.readout import Explained, UserView

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
# Contributing items that are named beside an entity that they share.
NAMED = 5


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


class SharingItem(TypedDict):
    """One of the user's items that has the entity, too, and what it adds by way of it."""

    item_id: str
    name: str | None
    contribution: float


class Reason(TypedDict):
    """An entity of the item: what the user's items that share it add by way of it, and everything else."""

    relation: str
    entity: str
    name: str
    contribution: float
    items: list[SharingItem]
    n_items: int
    others: float


class Reasons(TypedDict):
    """The score by the item's side: own + Σ entities + rest + direct = sum."""

    view: str
    own: float
    entities: list[Reason]
    rest: float
    direct: float
    sum: float


class ItemSide:
    """X_v = (z_v + Σ_e a_e z_e) / ‖·‖ in the view `knowledge` (Eq. 1), for the fixed norm, read by a user's vector.

    Attributes:
        view: the view's name.
        columns: its columns.
        relations: (n,) the item's relations, as rows.
        entities: (n,) its entities, as rows.
        attention: (n,) a_e.
        vectors: (n, columns) α_0 a_e z_e / ‖·‖: what one unit of Z_u adds by way of each entity.
        own: what the item's own vector adds.
        rest: what Z_v adds beside α_0 X_v.
    """

    def __init__(self, artifact: Artifact, model: LiveModel, view: UserView, item_row: int) -> None:
        block = next(v for v in artifact.manifest.views if v.name == "knowledge")
        self.view = block.name
        self.columns = slice(block.begin, block.end)
        triplets = triplets_of(artifact.array("knowledge.indptr"), item_row)
        self.entities = artifact.array("knowledge.entities")[triplets]
        self.relations = artifact.array("knowledge.relations")[triplets]
        self.attention = artifact.array("knowledge.attention")[triplets].astype(np.float64)
        own = artifact.array("knowledge.item_embeddings")[item_row].astype(np.float64)
        parts = artifact.array("knowledge.entity_embeddings")[self.entities] * self.attention[:, None]
        norm = float(np.linalg.norm(own + parts.sum(0)))
        alpha = model.form.alpha[0][self.columns].astype(np.float64)
        scale = alpha / norm if norm > 0 else np.zeros(block.end - block.begin)
        self.vectors = parts * scale
        user = view.vector.astype(np.float64)[self.columns]
        base = model.form.base[model.form.n_users + item_row][self.columns].astype(np.float64)
        self.own = float(user @ (own * scale))
        self.rest = float(dot(view.vector, view.readout.item_embeddings[item_row])) - float(user @ (alpha * base))
        self.contributions: NDArray[np.float64] = self.vectors @ user

    @classmethod
    def of(cls, model: LiveModel, view: UserView, item_row: int) -> ItemSide | None:
        """None where the artifact has no knowledge graph or the item is newer than it."""
        artifact = model.artifact
        if not has_knowledge(artifact) or item_row >= artifact.manifest.n_items:
            return None
        return cls(artifact, model, view, item_row)

    @property
    def order(self) -> list[int]:
        """The entities' places, the largest contribution first."""
        places: list[int] = np.argsort(-np.abs(self.contributions), kind="stable").tolist()
        return places


def has_knowledge(artifact: Artifact) -> bool:
    """Whether an artifact holds a knowledge graph with its attention."""
    return all(name in artifact for name in KNOWLEDGE) and any(v.name == "knowledge" for v in artifact.manifest.views)


def item_parts(model: LiveModel, side: ItemSide | None) -> ItemParts | None:
    """The item's side alone."""
    if side is None:
        return None
    entity_ids, relation_ids = model.artifact.array("entity_ids"), model.artifact.array("relation_ids")
    listed: list[EntityPart] = [
        {
            "relation": str(relation_ids[side.relations[i]]),
            "entity": str(entity_ids[side.entities[i]]),
            "attention": float(side.attention[i]),
            "contribution": float(side.contributions[i]),
        }
        for i in side.order
    ]
    total = side.own + float(side.contributions.sum()) + side.rest
    return {"view": side.view, "own": side.own, "entities": listed, "rest": side.rest, "sum": total}


def reasons(model: LiveModel, found: Explained, side: ItemSide | None, names: Names) -> Reasons | None:
    """The item's side, each entity with the user's items that share it: what T_i adds by way of the entity.

    An item's part is L̄_ui T_i · α_0 a_e z_e / ‖·‖, a piece of its link and attention part.
    """
    if side is None:
        return None
    view, parts = found.view, found.parts
    embeddings = view.readout.neighbor_embeddings
    known = view.neighbors < len(embeddings)
    rows = np.zeros((len(view.neighbors), side.vectors.shape[1]))
    rows[known] = parts.weight[known, None] * embeddings[view.neighbors[known]][:, side.columns]
    by_item = rows @ side.vectors.T  # (d, entities)
    sharing = shared_entities(model.artifact, view.seen, side.entities)
    entity_ids, relation_ids = model.artifact.array("entity_ids"), model.artifact.array("relation_ids")
    listed: list[Reason] = []
    for e in side.order:
        items = sorted(np.flatnonzero(sharing[:, e]).tolist(), key=lambda i: -abs(by_item[i, e]))
        told: list[SharingItem] = [
            {
                "item_id": names.id_of(int(view.seen[i])),
                "name": names.name_of(int(view.seen[i])),
                "contribution": float(by_item[i, e]),
            }
            for i in items[:NAMED]
        ]
        relation, entity = str(relation_ids[side.relations[e]]), str(entity_ids[side.entities[e]])
        contribution = float(side.contributions[e])
        listed.append(
            {
                "relation": relation,
                "entity": entity,
                "name": entity_name(relation, entity),
                "contribution": contribution,
                "items": told,
                "n_items": len(items),
                "others": contribution - sum(item["contribution"] for item in told),
            }
        )
    direct = float(parts.direct.sum())
    total = side.own + float(side.contributions.sum()) + side.rest + direct
    return {
        "view": side.view,
        "own": side.own,
        "entities": listed,
        "rest": side.rest,
        "direct": direct,
        "sum": total,
    }


def shared_entities(artifact: Artifact, item_rows: NDArray[np.int32], entities: NDArray[np.int32]) -> NDArray[np.bool_]:
    """(items, entities) which items have which of the entities; an item newer than the artifact has none."""
    indptr, members = artifact.array("knowledge.indptr"), artifact.array("knowledge.entities")
    out = np.zeros((len(item_rows), len(entities)), np.bool_)
    for i, row in enumerate(item_rows.tolist()):
        if row < len(indptr) - 1:
            out[i] = np.isin(entities, members[triplets_of(indptr, row)])
    return out


def triplets_of(indptr: NDArray[np.int64], item_row: int) -> slice:
    """Where an item's triplets stand."""
    return slice(int(indptr[item_row]), int(indptr[item_row + 1]))
