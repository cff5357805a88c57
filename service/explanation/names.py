"""Names to show beside ids."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.live.model import LiveModel


class Names(NamedTuple):
    """The items' ids and names.

    Attributes:
        model: the live model.
        texts: (J,) names, None where the artifact has none.
    """

    model: LiveModel
    texts: NDArray[np.str_] | None

    @classmethod
    def of(cls, model: LiveModel) -> Names:
        """Those of a model."""
        return cls(model, model.artifact.array("item_names") if "item_names" in model.artifact else None)

    def id_of(self, row: int) -> str:
        """An item's id."""
        return self.model.items.id_of(row)

    def name_of(self, row: int) -> str | None:
        """An item's name where it has one: its record's, else the artifact's."""
        told = self.model.metadata.name(row)
        if told is not None:
            return told
        return str(self.texts[row]) or None if self.texts is not None and row < len(self.texts) else None


def entity_name(relation: str, entity: str) -> str:
    """An entity's name: its id, less the relation that data sets put before it (`brand:Nike`)."""
    return entity.removeprefix(f"{relation}:") or entity
