"""What a client tells of an item, a record's content: name, categories, attributes, entities, features."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.admission import is_vector
from model_store.encoders import Content


@dataclass(frozen=True)
class ItemRecord:
    """An item's record.

    Attributes:
        name: what to show, None where it has none.
        categories: what filters and boosts ask for, each once.
        attributes: name → number, for ranges (a price, a year, a time as seconds since 1970).
        entities: (relation, entity) pairs of the knowledge graph.
        features: modality → feature vector.
    """

    name: str | None = None
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, float] = field(default_factory=dict)
    entities: tuple[tuple[str, str], ...] = ()
    features: Mapping[str, NDArray[np.float32]] = field(default_factory=dict)

    @classmethod
    def of(cls, content: Mapping[str, Any]) -> ItemRecord:
        """A record of the log, which may have been imported from anywhere: what has another form is left out."""
        name = content.get("name")
        categories = content.get("categories")
        attributes, features = content.get("attributes"), content.get("features")
        return cls(
            name if isinstance(name, str) else None,
            tuple(dict.fromkeys(c for c in categories if isinstance(c, str))) if isinstance(categories, list) else (),
            {str(key): float(value) for key, value in attributes.items() if _is_number(value)}
            if isinstance(attributes, Mapping)
            else {},
            tuple(dict.fromkeys(_pairs(content.get("entities")))),
            {str(key): np.array(v, np.float32) for key, v in features.items() if is_vector(v)}
            if isinstance(features, Mapping)
            else {},
        )

    @property
    def content(self) -> Content:
        """What the item encoders read."""
        return Content(self.entities, self.features)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _pairs(value: object) -> list[tuple[str, str]]:
    found = []
    for entry in value if isinstance(value, list) else []:
        relation, entity = (entry.get("relation"), entry.get("entity")) if isinstance(entry, Mapping) else (None, None)
        if isinstance(relation, str) and isinstance(entity, str):
            found.append((relation, entity))
    return found
