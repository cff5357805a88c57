"""Items that came after training: what the log tells of them, their rows of X, their vectors until the next refresh."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from model_store.artifact import Artifact
from model_store.encoders import ItemEncoder
from model_store.ids import IdMap
from model_store.propagation import Vectors
from service.live.item_metadata import ItemMetadata
from service.live.item_record import ItemRecord
from service.live.readout import Readout
from service.state.port import LogEntry


class Told(NamedTuple):
    """What an entry of the log says of an item: a record and its row of X, neither where it is withdrawn."""

    item_id: str
    record: ItemRecord | None = None
    base: Vectors | None = None


class NewItems:
    """X of the items that came after training and have one, by row.

    The version's own items have learned their X: what is new of them counts with the next version. Who changes it holds
    the live model's locks.
    """

    def __init__(self, artifact: Artifact, alpha: Vectors) -> None:
        """None yet.

        Args:
            artifact: the version, with its item encoders.
            alpha: (width,) α_0.
        """
        self.encoder = ItemEncoder(artifact)
        self._alpha = alpha
        self._n_trained = artifact.manifest.n_items
        self._bases: dict[int, Vectors] = {}

    def bases(self) -> Mapping[int, Vectors]:
        """X by row, as it is now; a row's array is another object only where its X is another one."""
        return dict(self._bases)

    def read(self, events: Iterable[LogEntry]) -> list[Told]:
        """What entries of the log say of items. Takes some time, and no lock."""
        return [
            self.read_record(event.item_id, event.content) if event.kind == "item" else Told(event.item_id)
            for event in events
            if event.kind in {"item", "withdrawal"}
        ]

    def read_record(self, item_id: str, content: Mapping[str, Any] | None) -> Told:
        """What a record says; no X where its content says nothing."""
        record = ItemRecord.of(content or {})
        base = self.encoder.encode(record.content).base
        return Told(item_id, record, base if base.any() else None)

    def take(self, told: Iterable[Told], items: IdMap, metadata: ItemMetadata) -> bool:
        """Take up records and withdrawals of items that have rows. Whether any X is another one now."""
        changed = False
        for item_id, record, base in told:
            row = items.row(item_id)
            assert row is not None  # noqa: S101
            if record is None:
                metadata.withdraw(row)
            else:
                metadata.put(row, record)
            if row >= self._n_trained:
                changed |= self._put(row, base)
        return changed

    def _put(self, row: int, base: Vectors | None) -> bool:
        before = self._bases.get(row)
        if base is None:
            self._bases.pop(row, None)
        elif before is None or not np.array_equal(before, base):
            self._bases[row] = base
        return self._bases.get(row) is not before

    def laid_over(self, readout: Readout) -> Readout:
        """A readout with the vectors of the items whose X came or changed after its refresh.

        Until the next refresh such an item is where its content puts it, beside what its neighbors gave it by then.
        """
        rows = self._differing(readout)
        if rows and rows[0] < readout.n_items:  # not at the end: laid anew over what the refresh made
            readout = readout.bare()
            rows = self._differing(readout)
        return readout.with_items(self._bases, rows, self._alpha) if rows else readout

    def _differing(self, readout: Readout) -> list[int]:
        """Rows whose X is not the one that a readout has laid, ascending."""
        bases, laid = self._bases, readout.laid
        return sorted(row for row in bases.keys() | laid.keys() if bases.get(row) is not laid.get(row))
