"""External ids and rows: the two kinds of id, never mixed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import repeat

import numpy as np
from numpy.typing import NDArray

from model_store.errors import UnknownIdError


class IdMap:
    """External ids (str) ↔ rows (int) of one kind of node. Rows are given in order of arrival and never change."""

    def __init__(self, kind: str, ids: Iterable[str] = ()) -> None:
        self.kind = kind
        self._ids: list[str] = [str(external_id) for external_id in ids]
        self._rows = {external_id: row for row, external_id in enumerate(self._ids)}
        if len(self._rows) != len(self._ids):
            seen: set[str] = set()
            twice = next(i for i in self._ids if i in seen or seen.add(i))  # type: ignore[func-returns-value]
            raise UnknownIdError(f"{kind} id {twice!r} stands twice in the list of ids; every id names one {kind}.")

    def __len__(self) -> int:
        return len(self._ids)

    def __contains__(self, external_id: str) -> bool:
        return external_id in self._rows

    def row(self, external_id: str) -> int | None:
        """The row of an external id, or None where it is unknown."""
        return self._rows.get(external_id)

    def require(self, external_id: str) -> int:
        """The row of an external id.

        Raises:
            UnknownIdError: the id is not in the map.
        """
        row = self._rows.get(external_id)
        if row is None:
            raise UnknownIdError(f"Unknown {self.kind} {external_id!r}: it has no interaction and is in no artifact.")
        return row

    def id_of(self, row: int) -> str:
        """The external id of a row."""
        return self._ids[row]

    def add(self, external_id: str) -> int:
        """The row of an external id, a new one at the end where it was unknown."""
        row = self._rows.get(external_id)
        if row is None:
            row = len(self._ids)
            self._ids.append(external_id)
            self._rows[external_id] = row
        return row

    def forget(self, external_id: str) -> None:
        """Forget an id; its row stays, without a name, and the id gets a new row when it is added again."""
        row = self._rows.pop(external_id, None)
        if row is not None:
            self._ids[row] = ""

    def rows(self, external_ids: Sequence[str]) -> NDArray[np.int32]:
        """Rows of many ids, -1 where one is unknown."""
        return np.fromiter(map(self._rows.get, external_ids, repeat(-1)), np.int32, count=len(external_ids))

    def to_array(self) -> NDArray[np.str_]:
        """(n,) external ids in row order."""
        return np.array(self._ids, dtype=np.str_) if self._ids else np.zeros(0, "<U1")
