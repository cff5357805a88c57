"""The state as JSON lines: what a retrain job reads, what `kdiffe import` and `export` move, and backups.

A line is an object with a `kind`: an interaction where it is missing, a change of the log, `type` for a type's weight.
A backup begins with a line of kind `state` and holds `record`, `key` and `job` besides, and ends with `end`: one that
was cut off is told.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast, get_args

import orjson

from model_store.admission import check_vectors, external_id
from service.errors import StateError
from service.state.port import (
    DEFAULT_WEIGHT,
    Backup,
    Change,
    ChangeKind,
    EntryKind,
    Interaction,
    Job,
    LogEntry,
    Record,
    RecordKind,
    StateStore,
)

CHUNK = 10_000
# Raised with every change of a backup's lines.
BACKUP_VERSION = 1

Read = Callable[[int, int], list[LogEntry]]
Checked = Callable[[ChangeKind, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True)
class Imported:
    """What an import has done.

    Attributes:
        accepted: lines that are new in the log.
        duplicates: lines whose idempotency key was known already.
        types: lines that gave a type a weight.
        sequence: the log's last sequence number after it.
    """

    accepted: int
    duplicates: int
    types: int
    sequence: int


# ---- out -------------------------------------------------------------------------------------------------------------


def write_lines(read: Read, path: Path, after: int, upto: int, weights: Mapping[str, float]) -> int:
    """Write a part of the log, one JSON object a line, in order; durable. Returns how many lines.

    Args:
        read: `StateStore.read`.
        path: the file to write.
        after: sequence number before the first that is written.
        upto: last sequence number that is written.
        weights: of the types; every interaction's line says its type's weight.
    """
    count = 0
    with path.open("wb") as file:
        for entry in entries_between(read, after, upto):
            if entry.kind != "erased":
                _write(file, _line(entry, weights))
                count += 1
        _sync(file)
    return count


def entries_between(read: Read, after: int, upto: int) -> Iterator[LogEntry]:
    """The log's entries from `after` + 1 to `upto`."""
    while after < upto:
        part = read(after, min(CHUNK, upto - after))
        if not part:
            return
        yield from part
        after = part[-1].sequence


def export_state(state: StateStore, path: Path) -> int:
    """Write all that another state could take up: weights, records that the log no longer holds, and the log.

    Returns:
        How many lines.

    Raises:
        StateError: the file can't be written, or the state not read.
    """
    position, weights = state.position(), state.types()
    count = 0
    try:
        with path.open("wb") as file:
            for name, weight in sorted(weights.items()):
                _write(file, {"kind": "type", "type": name, "weight": weight})
                count += 1
            for kind in get_args(RecordKind):
                for record in state.records(kind):
                    if record.sequence <= position.compacted:
                        _write(file, {"kind": kind, f"{kind}_id": record.external_id, "content": record.content})
                        count += 1
            for entry in entries_between(state.read, position.compacted, position.last):
                if entry.kind != "erased":
                    _write(file, _line(entry, weights))
                    count += 1
            _sync(file)
    except OSError as error:
        raise StateError(f"{path}: can't be written ({error}).") from None
    return count


def _line(entry: LogEntry, weights: Mapping[str, float]) -> dict[str, Any]:
    line: dict[str, Any] = {"sequence": entry.sequence, "kind": entry.kind}
    if entry.user_id:
        line["user_id"] = entry.user_id
    if entry.item_id:
        line["item_id"] = entry.item_id
    line["timestamp"] = entry.timestamp
    if entry.kind == "interaction":
        line |= {"type": entry.type, "weight": weights.get(entry.type, DEFAULT_WEIGHT)}
    if entry.content is not None:
        line["content"] = entry.content
    line["event_id"] = entry.event_id
    return line


# ---- in --------------------------------------------------------------------------------------------------------------


def with_plain_vectors(kind: ChangeKind, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """A record's content as it is.

    Raises:
        ValueError: an item's vector holds what no model can read.
    """
    if kind == "item":
        check_vectors(content)
    return content


def import_lines(
    state: StateStore,
    path: Path,
    now: float,
    *,
    batch: int = 1000,
    told: Callable[[int], None] = lambda _: None,
    checked: Checked = with_plain_vectors,
) -> Imported:
    """Append a file's lines to the log. Lines with an idempotency key may be imported again: they count once.

    Args:
        state: takes them.
        path: JSON lines, as `export_state` writes them; `id` is read like `event_id`.
        now: the timestamp of lines that have none.
        batch: lines in one batch.
        told: is told how many lines were read so far.
        checked: gives a record's content as the log holds it, or raises ValueError.

    Raises:
        StateError: a line that is none of these; those of the batches before it were taken.
    """
    accepted = duplicates = types = number = taken = 0
    try:
        with path.open("rb") as file:
            while lines := list(islice(file, batch)):
                entries: list[Interaction | Change] = []
                for line in lines:
                    number += 1
                    if not line.strip():
                        continue
                    found = _parsed(line, f"{path}, line {number}", now, checked)
                    if isinstance(found, tuple):
                        state.set_type(*found)
                        types += 1
                    else:
                        entries.append(found)
                appended = state.append(entries)
                accepted += appended.accepted
                duplicates += appended.duplicates
                taken = number
                told(number)
    except StateError as error:
        if not taken:
            raise
        raise StateError(f"{error} Lines 1 to {taken} are taken up: leave them out when you import the rest.") from None
    except OSError as error:
        raise StateError(f"{path}: can't be read ({error}).") from None
    return Imported(accepted, duplicates, types, state.last_sequence())


def _parsed(
    line: bytes,
    where: str,
    now: float,
    checked: Checked,
) -> Interaction | Change | tuple[str, float]:
    """What a line says: something for the log, or a type and its weight."""
    try:
        raw = orjson.loads(line)
        kind = raw.get("kind", "interaction")
        key = raw.get("event_id", raw.get("id"))
        event_id = None if key is None else _text(key)
        timestamp = now if raw.get("timestamp") is None else _number(raw["timestamp"])
        if kind == "type":
            return _text(raw["type"]), _weight(raw["weight"])
        if kind == "interaction":
            interaction_type = _text(raw.get("type", "interaction"))
            return Interaction(_text(raw["user_id"]), _text(raw["item_id"]), timestamp, interaction_type, event_id)
        if kind not in get_args(ChangeKind):
            raise ValueError(f"{kind!r} is no kind of line")
        ids = {name: _text(raw[name]) for name in ("user_id", "item_id") if name in raw}
        content = raw.get("content")
        if content is not None:
            if not isinstance(content, dict):
                raise TypeError("content is an object")
            content = checked(kind, content)
        return Change(kind, **ids, content=content, timestamp=timestamp, event_id=event_id)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = line.strip()[:80].decode(errors="replace")
        raise StateError(f"{where}: {shown!r} can't be taken up ({error!r}).") from None


def _text(value: object) -> str:
    try:
        return external_id(value)
    except ValueError as error:
        raise ValueError(f"{repr(value)[:80]} is no id: it {error}") from None


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    return float(value)  # JSON has no infinite ones


def _weight(value: object) -> float:
    weight = _number(value)
    if weight < 0:
        raise ValueError(f"the weight {value!r} is below 0")
    return weight


# ---- backups ---------------------------------------------------------------------------------------------------------


def write_backup(backup: Backup, path: Path) -> int:
    """Write a backup: aside, then renamed, durable. Returns how many entries of the log it holds."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    count = 0
    try:
        with aside.open("wb") as file:
            header = {"version": BACKUP_VERSION, "state_id": backup.state_id, "compacted": backup.compacted}
            _write(file, {"kind": "state", **header, "types": backup.types, "documents": backup.documents})
            for job in backup.jobs:
                _write(file, {"kind": "job", "job": asdict(job)})
            for kind, record in backup.records:
                _write(file, {"kind": "record", "of": kind, "record": asdict(record)})
            for event_id, sequence in backup.keys:
                _write(file, {"kind": "key", "event_id": event_id, "sequence": sequence})
            for entry in backup.entries:
                _write(file, asdict(entry))
                count += 1
            _write(file, {"kind": "end", "entries": count})
            _sync(file)
        aside.replace(path)
    except OSError as error:
        raise StateError(f"{path}: the backup can't be written ({error}).") from None
    finally:
        aside.unlink(missing_ok=True)
    return count


def read_backup(path: Path) -> Backup:
    """A backup as it was written. Its lines are all checked first, so that none is restored by half.

    Raises:
        StateError: it can't be read, was cut off, or comes from a newer release.
    """
    header: dict[str, Any] = {}
    jobs: list[Job] = []
    count, ended = 0, False
    last: dict[str, Any] = {}
    for number, line in enumerate(_objects(path), 1):
        kind = line.get("kind")
        if number == 1:
            if kind != "state":
                raise StateError(f"{path}: is no backup of a state; `kdiffe import` takes up exported lines.")
            if line.get("version") != BACKUP_VERSION:
                raise StateError(
                    f"{path}: a backup of version {line.get('version')!r}; this release reads {BACKUP_VERSION}."
                )
            header = line
        elif kind == "job":
            jobs.append(Job(**line["job"]))
        elif kind in get_args(EntryKind):
            count += 1
            if line["sequence"] != header["compacted"] + count:
                raise StateError(f"{path}, line {number}: entry {line['sequence']} is out of its order.")
        ended, last = kind == "end", line
    if not ended or last["entries"] != count:
        raise StateError(f"{path}: was cut off: its last line is missing.")

    def records() -> Iterator[tuple[RecordKind, Record]]:
        for line in _objects(path):
            if line["kind"] == "record":
                yield cast(RecordKind, line["of"]), Record(**line["record"])

    def keys() -> Iterator[tuple[str, int]]:
        for line in _objects(path):
            if line["kind"] == "key":
                yield line["event_id"], line["sequence"]

    names = {f.name for f in fields(LogEntry)}

    def entries() -> Iterator[LogEntry]:
        for line in _objects(path):
            if line["kind"] in get_args(EntryKind):
                yield LogEntry(**{name: value for name, value in line.items() if name in names})

    return Backup(
        header["state_id"],
        header["compacted"],
        header["types"],
        header.get("documents", {}),  # a backup of an earlier release has none
        jobs,
        records(),
        keys(),
        entries(),
    )


def _objects(path: Path) -> Iterator[dict[str, Any]]:
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                found = orjson.loads(line)
                if not isinstance(found, dict):
                    raise StateError(f"{path}, line {number}: is no JSON object.")
                yield found
    except OSError as error:
        raise StateError(f"{path}: can't be read ({error}).") from None
    except orjson.JSONDecodeError as error:
        raise StateError(f"{path}: was cut off, or is no backup ({error}).") from None


def chunks(values: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Values in lists of a size."""
    iterator = iter(values)
    while part := list(islice(iterator, size)):
        yield part


def _write(file: BinaryIO, line: Mapping[str, Any]) -> None:
    file.write(orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE))


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
