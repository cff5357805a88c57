"""From columns of external ids to a data set in rows: what every reader does after its own format is understood."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.admission import external_id
from training.data.dataset import DataSet, Ids, Interactions, KnowledgeGraph, Rows
from training.data.table import Table, first_appearance, rows_of, shown
from training.errors import DataError

Note = Callable[[str], None]
"""Takes a sentence about something that a reader or writer left out."""

log_note: Note = logging.getLogger(__name__).warning


@dataclass(frozen=True)
class Columns:
    """Interactions by external id, in the order of the file.

    Attributes:
        user_ids: (n,) external ids.
        item_ids: (n,) external ids.
        timestamps: (n,) seconds since the epoch, or None.
    """

    user_ids: Sequence[str] = ()
    item_ids: Sequence[str] = ()
    timestamps: NDArray[np.float64] | None = None

    def take(self, keep: NDArray[np.bool_]) -> Columns:
        """The interactions where `keep` is true, in the same order."""
        if keep.all():
            return self
        index = np.flatnonzero(keep).tolist()
        times = None if self.timestamps is None else self.timestamps[keep]
        return Columns([self.user_ids[i] for i in index], [self.item_ids[i] for i in index], times)


@dataclass(frozen=True)
class Parts:
    """The three splits by external id; a set without a split has all in `train`."""

    train: Columns
    valid: Columns = field(default_factory=Columns)
    test: Columns = field(default_factory=Columns)


def assemble(
    name: str,
    parts: Parts,
    *,
    users: Sequence[str] = (),
    items: Sequence[str] = (),
    note: Note = log_note,
) -> DataSet:
    """A data set of interactions: ids become rows, repeated pairs go.

    Rows of users: first `users` in their order, then by first appearance over train, valid, test; items alike.
    A pair that a split repeats counts once (its first appearance stays), and a pair of train that valid or test
    repeats stays in train alone.

    Args:
        name: the set's name.
        parts: the three splits.
        users: ids that come first, whether they interact or not.
        items: ids that come first, whether they interact or not.
        note: takes a sentence about a split of which nothing is left.

    Returns:
        The data set, with neither graph nor features nor names.
    """
    splits = (parts.train, parts.valid, parts.test)
    user_index = first_appearance(*(split.user_ids for split in splits), first=users)
    item_index = first_appearance(*(split.item_ids for split in splits), first=items)
    train, valid, test = (
        Interactions(rows_of(split.user_ids, user_index), rows_of(split.item_ids, item_index), split.timestamps)
        for split in splits
    )
    train, valid, test = without_repeats(train, valid, test, n_items=len(item_index), note=note)
    return DataSet(name, id_array(list(user_index)), id_array(list(item_index)), train, valid, test)


def without_repeats(
    train: Interactions, valid: Interactions, test: Interactions, *, n_items: int, note: Note = log_note
) -> tuple[Interactions, Interactions, Interactions]:
    """The splits without repeated pairs, in the same order.

    Within a split the first appearance stays; a pair of train that valid or test repeats stays in train alone. A split
    of which nothing is left is noted.
    """
    keys = [split.user_rows.astype(np.int64) * max(n_items, 1) + split.item_rows for split in (train, valid, test)]
    in_train = np.sort(keys[0])
    kept = []
    for name, split, key in zip(("train", "valid", "test"), (train, valid, test), keys, strict=True):
        first = np.sort(np.unique(key, return_index=True)[1])
        if name != "train" and len(in_train):
            place = np.searchsorted(in_train, key[first]).clip(max=len(in_train) - 1)
            first = first[in_train[place] != key[first]]
            if len(split) and not len(first):
                note(
                    f"The {name} split is left out: each of its {len(split):,} interactions is in train, too, and "
                    "counts there alone."
                )
        kept.append(split if len(first) == len(split) else split.take(first))
    return kept[0], kept[1], kept[2]


def n_silent(data: DataSet) -> tuple[int, int]:
    """How many users and items have no interaction in any split."""
    splits = (data.train, data.valid, data.test)
    return (
        data.n_users - len(np.unique(np.concatenate([split.user_rows for split in splits]))),
        data.n_items - len(np.unique(np.concatenate([split.item_rows for split in splits]))),
    )


def check_ids(kind: str, ids: Ids) -> None:
    """Refuse to write ids that no reader would take.

    Raises:
        DataError: one is empty, too long, or holds a control character (a tab, a line end).
    """
    for value in ids.tolist():
        try:
            external_id(value)
        except ValueError as error:
            raise DataError(f"the {kind} id {shown(value)} {error}: it couldn't be read again.") from None


def id_array(ids: Sequence[str]) -> Ids:
    """External ids as an array, shape (n,), of text also where it is empty."""
    return np.array(ids, dtype=np.str_) if len(ids) else np.zeros(0, "<U1")


def knowledge_graph(item_rows: Rows, relations: Sequence[str], entities: Sequence[str]) -> KnowledgeGraph:
    """A knowledge graph from one item row, one relation id and one entity id for each triplet.

    Relations and entities get rows by first appearance. Triplets come out unique and sorted by item row, relation row,
    entity row.
    """
    relation_index, entity_index = first_appearance(relations), first_appearance(entities)
    return sorted_graph(
        item_rows,
        rows_of(relations, relation_index),
        rows_of(entities, entity_index),
        id_array(list(entity_index)),
        id_array(list(relation_index)),
    )


def sorted_graph(
    item_rows: Rows, relation_rows: Rows, entity_rows: Rows, entity_ids: Ids, relation_ids: Ids
) -> KnowledgeGraph:
    """A knowledge graph whose triplets are unique and sorted by item row, relation row, entity row."""
    order = np.lexsort((entity_rows, relation_rows, item_rows))
    heads, relations, tails = item_rows[order], relation_rows[order], entity_rows[order]
    new = np.ones(len(order), bool)
    new[1:] = (np.diff(heads) != 0) | (np.diff(relations) != 0) | (np.diff(tails) != 0)
    return KnowledgeGraph(
        heads[new].astype(np.int32),
        relations[new].astype(np.int32),
        tails[new].astype(np.int32),
        entity_ids,
        relation_ids,
    )


def rated(table: Table, min_rating: float | None) -> NDArray[np.bool_]:
    """Which rows of `table` count as interactions, shape (n,): those whose `rating` is at least `min_rating`.

    Without a threshold every row counts.

    Raises:
        DataError: a threshold is set and the file has no numeric column `rating`.
    """
    if min_rating is None:
        return np.ones(len(table), bool)
    return table.numbers("rating") >= min_rating


def read_features(path: Path, n_rows: int, rows_meaning: str) -> NDArray[np.float32]:
    """Feature vectors from an `.npy` file, never unpickled.

    Args:
        path: the file: float16, float32 or float64, two dimensions.
        n_rows: the number of rows that it must have.
        rows_meaning: what the rows stand for, for the error.

    Returns:
        (n_rows, width) float32.

    Raises:
        DataError: no such file, damaged, of another type or shape, or with a value that is not finite.
    """
    values = read_matrix(path)
    if len(values) != n_rows:
        raise DataError(f"{path}: {len(values)} rows, but there are {n_rows} {rows_meaning}.")
    return values


def read_matrix(path: Path) -> NDArray[np.float32]:
    """A matrix of floats from an `.npy` file, never unpickled, as float32.

    Raises:
        DataError: as `read_features`, but for the number of rows.
    """
    try:
        # Mapped: a file that promises more than it holds fails here, before memory is taken for the promise.
        mapped = np.lib.format.open_memmap(path, mode="r")
    except Exception as error:  # a damaged header can fail in any way that Python's tokenizer knows
        raise DataError(f"{path}: not a readable .npy array ({error}).") from error
    if mapped.dtype.kind != "f" or mapped.dtype.itemsize > 8:
        raise DataError(f"{path}: the values are {mapped.dtype}; expected float16, float32 or float64.")
    if mapped.ndim != 2 or mapped.shape[1] == 0:
        raise DataError(f"{path}: the shape is {mapped.shape}; expected (rows, width).")
    with np.errstate(over="ignore"):
        values = np.array(mapped, dtype=np.float32, order="C")
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        row = int(np.argmin(finite))
        raise DataError(f"{path}, row {row}: a value is NaN, infinite or too large for float32.")
    return values


def dropped(data: DataSet, what: Mapping[str, bool], format_name: str, note: Note) -> None:
    """Note what a format can't hold of a data set: the keys of `what` whose value is true."""
    lost = [name for name, there in what.items() if there]
    if lost:
        note(f"The {format_name} format can't hold everything of {data.name!r}: left out are {', '.join(lost)}.")
