"""The use cases of one item: what is known of it, and what became of it when it was put or withdrawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

import numpy as np

from service.errors import InvalidRequestError, UnknownItemError
from service.explanation.names import Names
from service.live.item_record import ItemRecord
from service.live.model import LiveModel
from service.state.port import Appended, Record


class ItemDescription(TypedDict):
    """What is known of an item."""

    item_id: str
    name: str | None
    record: Mapping[str, Any] | None
    recorded_at: int | None
    withdrawn: bool
    in_version: bool
    has_vector: bool
    n_interactions: int
    model_version: str
    sequence: int


class TakenItem(TypedDict):
    """What became of an item that was put or withdrawn."""

    item_id: str
    accepted: bool
    sequence: int
    has_vector: bool
    unknown: list[str]
    model_version: str


def describe(model: LiveModel, item_id: str, record: Record | None) -> ItemDescription:
    """What is known of an item.

    Args:
        model: the served model.
        item_id: external id.
        record: what the state holds.

    Raises:
        UnknownItemError: nobody knows it.
    """
    row = model.item_row(item_id)
    if row is None and record is None:
        raise UnknownItemError(f"Unknown item {item_id!r}: it has no record, no interaction and is in no artifact.")
    sequence = model.sequence
    return {
        "item_id": item_id,
        "name": None if row is None else Names.of(model).name_of(row),
        "record": None if record is None else record.content,
        "recorded_at": None if record is None else record.sequence,
        "withdrawn": row is not None and model.metadata.is_withdrawn(row),
        "in_version": row is not None and row < model.artifact.manifest.n_items,
        "has_vector": has_vector(model, item_id),
        "n_interactions": 0 if row is None else int(model.item_counts(np.array([row], np.int32))[0]),
        "model_version": model.version,
        "sequence": sequence,
    }


def taken(model: LiveModel, item_id: str, written: Appended, content: Mapping[str, Any]) -> TakenItem:
    """What became of an item whose change is applied; `content` is what was put."""
    return {
        "item_id": item_id,
        "accepted": written.accepted > 0,
        "sequence": written.sequence,
        "has_vector": has_vector(model, item_id),
        "unknown": list(model.encoder.encode(ItemRecord.of(content).content).unknown),
        "model_version": model.version,
    }


def has_vector(model: LiveModel, item_id: str) -> bool:
    """Whether the model can place an item."""
    row = model.item_row(item_id)
    return row is not None and model.readout.has_vector(row)


def check_features(model: LiveModel, content: Mapping[str, Any]) -> None:
    """Refuse feature vectors that the served version can't read.

    Raises:
        InvalidRequestError: one has another length than those that it was trained with.
    """
    lengths = model.encoder.modalities
    for modality, vector in content.get("features", {}).items():
        if modality in lengths and len(vector) != lengths[modality]:
            raise InvalidRequestError(
                f"features.{modality}: {len(vector)} values; version {model.version} was trained with vectors of "
                f"{lengths[modality]}."
            )
