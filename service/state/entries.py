"""Entries as rows: what the stores have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import orjson

from service.errors import SetBackError, StateError
from service.state.port import Change, EntryKind, Interaction, Interactions, Job, LogEntry


class Row(NamedTuple):
    """An entry as it is stored, without its sequence number; the content as JSON text."""

    kind: EntryKind
    user_id: str
    item_id: str
    timestamp: float
    type: str
    event_id: str | None
    content: str | None


def row_of(entry: Interaction | Change) -> Row:
    """The row of what is to be logged."""
    if isinstance(entry, Interaction):
        event_id = entry.event_id or None
        return Row("interaction", entry.user_id, entry.item_id, entry.timestamp, entry.type, event_id, None)
    content = None if entry.content is None else to_text(entry.content)
    return Row(entry.kind, entry.user_id, entry.item_id, entry.timestamp, "", entry.event_id or None, content)


def row_of_logged(entry: LogEntry) -> Row:
    """The row of what was logged, here or elsewhere."""
    content = None if entry.content is None else to_text(entry.content)
    return Row(entry.kind, entry.user_id, entry.item_id, entry.timestamp, entry.type, entry.event_id or None, content)


def entry_of(sequence: int, row: Row) -> LogEntry:
    """The entry of a stored row."""
    kind, user_id, item_id, timestamp, interaction_type, event_id, content = row
    return LogEntry(
        sequence,
        user_id,
        item_id,
        timestamp,
        interaction_type,
        event_id,
        kind,
        None if content is None else orjson.loads(content),
    )


def columns_of(after: int, rows: Sequence[Row]) -> Interactions | None:
    """Stored rows as columns, None where there are none or not all are interactions."""
    if not rows or any(row.kind != "interaction" for row in rows):
        return None
    return Interactions(after, [row.user_id for row in rows], [row.item_id for row in rows])


def erased(entry: Row) -> Row:
    """What is left of an entry of an erased user: an interaction's item, so that items keep their order of arrival."""
    return Row("erased", "", entry.item_id if entry.kind == "interaction" else "", 0.0, "", None, None)


def to_text(content: Mapping[str, Any]) -> str:
    """JSON text of a record.

    Raises:
        StateError: it holds what JSON can't.
    """
    try:
        return orjson.dumps(content, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError as error:
        raise StateError(f"the record can't be written as JSON ({error}).") from None


def check_range(after: int, last: int, compacted: int) -> None:
    """Refuse to read where the log is not.

    Raises:
        SetBackError: the log never reached `after`.
        StateError: it has been compacted beyond `after`.
    """
    if after > last:
        raise SetBackError(
            f"The log ends at {last}, but {after} was read before: the state was set back. Restore it from a backup."
        )
    if after < compacted:
        raise StateError(
            f"The log begins at {compacted + 1}: what follows {after} was compacted into an artifact. Activate a "
            f"version that reaches {compacted} or further."
        )


def check_compaction(upto: int, forget_keys: int, last: int) -> None:
    """Refuse to drop what is not there.

    Raises:
        StateError: beyond the log's end, or keys of entries that stay.
    """
    if not 0 <= forget_keys <= upto <= last:
        raise StateError(
            f"The log up to {upto} and keys up to {forget_keys} can't go: 0 ≤ keys ≤ entries ≤ {last} must hold."
        )


def check_empty(last: int, records: Sequence[object]) -> None:
    """Refuse to restore over a state that holds something.

    Raises:
        StateError: it does.
    """
    if last or records:
        raise StateError("A backup is restored into an empty state, and this one is not: name another one.")


def taken_by(job: Job, owner: str, now: float) -> Job:
    """A queued job, taken."""
    return replace(job, state="running", owner=owner, heartbeat_at=now, attempts=job.attempts + 1)
