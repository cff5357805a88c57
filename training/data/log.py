"""The interaction log that a service has exported, as a retraining reads it: JSON lines."""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from model_store.admission import check_vectors, external_id
from training.data.table import shown
from training.errors import DataError

Pair = tuple[str, str]
# Lines that say nothing of who interacted with what.
OTHERS = frozenset({"user", "type"})


@dataclass(frozen=True)
class Log:
    """What a log changes in the data that it follows.

    Attributes:
        added: (user id, item id) pairs in the order of their first interaction, less those that were ended later.
        removed: pairs that no longer count, wherever they come from.
        erased: ids of users whose every earlier interaction goes; one that came back later is in `added`, as new.
        records: item id → what was told of it last, in the order of the items' first records.
        withdrawn: ids of the items that were withdrawn last.
        weights: weight of each pair of `added` that has another one than 1: the heaviest of its interactions' types.
        ended: pairs that were removed at some time, whether or not they came back.
        is_whole: whether it begins with the first entry: nothing that it follows was compacted.
    """

    added: tuple[Pair, ...] = ()
    removed: frozenset[Pair] = frozenset()
    erased: frozenset[str] = frozenset()
    records: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    withdrawn: frozenset[str] = frozenset()
    weights: Mapping[Pair, float] = field(default_factory=dict)
    ended: frozenset[Pair] = frozenset()
    is_whole: bool = False


def read_log(path: Path) -> Log:
    """Read a log.

    Raises:
        DataError: a line that is none of it.
    """
    added: dict[Pair, float] = {}
    pairs_of: defaultdict[str, set[Pair]] = defaultdict(set)
    removed: set[Pair] = set()
    erased: set[str] = set()
    records: dict[str, Mapping[str, Any]] = {}
    withdrawn: set[str] = set()
    ended: set[Pair] = set()
    is_whole = False
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    raw = _object(line)
                    is_whole |= raw.get("sequence") == 1
                    kind = raw.get("kind", "interaction")
                    if kind == "interaction":
                        pair = (_id(raw, "user_id"), _id(raw, "item_id"))
                        added[pair] = max(added.get(pair, 0.0), _weight(raw))
                        pairs_of[pair[0]].add(pair)
                        removed.discard(pair)
                    elif kind == "removal":
                        pair = (_id(raw, "user_id"), _id(raw, "item_id"))
                        added.pop(pair, None)
                        removed.add(pair)
                        ended.add(pair)
                    elif kind == "erasure":
                        user_id = _id(raw, "user_id")
                        for pair in pairs_of.pop(user_id, ()):
                            added.pop(pair, None)
                        erased.add(user_id)
                    elif kind == "item":
                        item_id, content = _id(raw, "item_id"), raw.get("content")
                        if not isinstance(content, dict):
                            raise TypeError("the content is no object")
                        check_vectors(content)
                        records[item_id] = content
                        withdrawn.discard(item_id)
                    elif kind == "withdrawal":
                        item_id = _id(raw, "item_id")
                        records.pop(item_id, None)
                        withdrawn.add(item_id)
                    elif kind not in OTHERS:
                        raise ValueError(f"{kind!r} is no kind of line")
                except (ValueError, TypeError, RecursionError) as error:
                    raise DataError(
                        f'{path}, line {number}: {shown(line.strip())} is no {{"user_id", "item_id"}} object, nor '
                        f"another line of an exported log: {error}."
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}).") from None
    weights = {pair: weight for pair, weight in added.items() if weight != 1.0}
    return Log(
        tuple(added),
        frozenset(removed),
        frozenset(erased),
        records,
        frozenset(withdrawn),
        weights,
        frozenset(ended),
        is_whole,
    )


def _object(line: str) -> dict[str, Any]:
    raw = json.loads(line)
    if not isinstance(raw, dict):
        raise TypeError("it is no object")
    try:
        if "\\u" in line:  # an escape can name half of a surrogate pair, which is no text
            json.dumps(raw, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise ValueError("it holds half of a surrogate pair") from None
    return raw


def _weight(raw: Mapping[str, Any]) -> float:
    value = raw.get("weight", 1.0)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= sys.float_info.max:
        raise TypeError("the weight is no number of 0 or more")
    return float(value)


def _id(raw: Mapping[str, Any], name: str) -> str:
    try:
        return external_id(raw[name])
    except KeyError:
        raise ValueError(f"the {name} is missing") from None
    except ValueError as error:
        raise ValueError(f"the {name} {error}") from None
