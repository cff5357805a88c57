"""RecBole's atomic files: a directory of tab-separated tables with typed headers, and feature arrays beside them.

    NAME.inter, or NAME.train.inter with NAME.valid.inter and NAME.test.inter (each of the two may be missing)
                user_id:token  item_id:token  [rating:float]  [timestamp:float]  ...
    NAME.item   item_id:token  [title:token_seq]  ...
    NAME.link   item_id:token  entity_id:token
    NAME.kg     head_id:token  relation_id:token  tail_id:token
    features/MODALITY.npy      (items of NAME.item, width), float16, float32 or float64

Items have rows in the order of NAME.item, then, by first appearance over train, valid and test, those that only
interactions name (their feature vectors are zeros); users have rows by first appearance. Every rating counts as an
interaction unless a threshold is set. Quotes are literal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from training.data.assembly import (
    Columns,
    Note,
    Parts,
    assemble,
    check_ids,
    id_array,
    knowledge_graph,
    log_note,
    n_silent,
    rated,
    read_features,
)
from training.data.dataset import DataSet, Ids, Interactions, KnowledgeGraph, Rows
from training.data.table import Table, first_appearance, read_table, rows_of, twice
from training.errors import DataError

TYPES = ("token", "token_seq", "float", "float_seq")
NAME_COLUMNS = ("title", "name", "item_name", "keywords")
"""The columns of NAME.item that can name an item, the best first."""

_SPLITS = ("train", "valid", "test")


def read_recbole(directory: Path, *, min_rating: float | None = None, note: Note = log_note) -> DataSet:
    """Read a data set in RecBole's format.

    Args:
        directory: where the files lie.
        min_rating: only interactions with at least this `rating` count; None counts all.
        note: takes a sentence about what was left out.

    Returns:
        The data set; without split files all interactions are in `train`, in the order of the file.

    Raises:
        DataError: a file is missing or damaged, or the files don't fit together.
    """
    name = find_name(directory)
    parts = Parts(
        **{split: _read_interactions(path, min_rating) for split, path in _interaction_files(directory, name).items()}
    )
    listed = directory / f"{name}.item"
    catalogue = read_table(listed, parse_header=_column_name) if listed.exists() else None
    items = catalogue.ids("item_id") if catalogue else ()
    if catalogue and len(set(items)) < len(items):
        raise twice(catalogue, items)
    data = assemble(name, parts, items=items, note=note)
    return replace(
        data,
        features=_read_modalities(directory, catalogue, data.n_items),
        item_names=_item_names(catalogue, data.item_ids) if catalogue else None,
        knowledge=_read_graph(directory, name, data.item_ids, note),
    )


def find_name(directory: Path) -> str:
    """The NAME of the data set in `directory`.

    Raises:
        DataError: no `.inter` file, or those of several sets and none named like the directory.
    """
    names = {_set_name(path.name) for path in directory.glob("*.inter")}
    if len(names) == 1:
        return names.pop()
    own = directory.resolve().name
    if own in names:
        return own
    if not names:
        raise DataError(f"{directory}: no NAME.inter and no NAME.train.inter.")
    raise DataError(
        f"{directory}: files of several data sets ({', '.join(sorted(names))}). Keep one, or name the directory like "
        "the one to read."
    )


def write_recbole(data: DataSet, directory: Path, *, note: Note = log_note) -> None:
    """Write a data set in RecBole's format into an existing, empty directory.

    A set without valid and test becomes one `NAME.inter` (but `NAME.train.inter` where NAME itself ends like the file
    of a split). Tabs and line ends in item names become blanks. The format has no place for users and entities that
    nothing refers to: users without an interaction are left out, with a note.

    Raises:
        DataError: an external id can't be read again: it holds a tab or a line end, say.
    """
    check_ids("user", data.user_ids)
    check_ids("item", data.item_ids)
    silent, _ = n_silent(data)
    if silent:
        note(f"{silent} users of {data.name!r} have no interaction; RecBole's format leaves them out.")
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    if not len(data.valid) and not len(data.test) and _set_name(f"{data.name}.inter") == data.name:
        _write_interactions(directory / f"{data.name}.inter", data, data.train)
    else:
        for split, interactions in splits.items():
            if len(interactions) or split == "train":
                _write_interactions(directory / f"{data.name}.{split}.inter", data, interactions)
    items: dict[str, Sequence[str]] = {"item_id:token": data.item_ids.tolist()}
    if data.item_names is not None:
        items["title:token_seq"] = [" ".join(text.split()) for text in data.item_names.tolist()]
    _write_table(directory / f"{data.name}.item", items)
    if data.features:
        (directory / "features").mkdir()
        for modality, values in data.features.items():
            np.save(directory / "features" / f"{modality}.npy", np.asarray(values, np.float32))
    if data.knowledge is not None:
        _write_graph(data, data.knowledge, directory)


def _set_name(file: str) -> str:
    stem = file.removesuffix(".inter")
    base, _, last = stem.rpartition(".")
    return base if base and last in _SPLITS else stem


def _interaction_files(directory: Path, name: str) -> dict[str, Path]:
    files = {split: directory / f"{name}.{split}.inter" for split in _SPLITS}
    there = {split: path for split, path in files.items() if path.exists()}
    whole = directory / f"{name}.inter"
    if not whole.exists():
        if "train" not in there:
            raise DataError(f"{directory}: {', '.join(p.name for p in there.values())}, but no {name}.train.inter.")
        return there
    if there:
        raise DataError(f"{directory}: both {whole.name} and {', '.join(p.name for p in there.values())}. Remove one.")
    return {"train": whole}


def _read_interactions(path: Path, min_rating: float | None) -> Columns:
    table = read_table(path, parse_header=_column_name)
    times = table.numbers("timestamp") if "timestamp" in table.columns else None
    return Columns(table.ids("user_id"), table.ids("item_id"), times).take(rated(table, min_rating))


def _column_name(field: str) -> str:
    name, colon, kind = field.rpartition(":")
    if not colon:
        raise ValueError("has no type; expected NAME:TYPE as in 'user_id:token'")
    if kind.strip() not in TYPES:
        raise ValueError(f"has the type {kind!r}; known are {', '.join(TYPES)}")
    return name.strip()


def _item_names(catalogue: Table, item_ids: Ids) -> Ids | None:
    for column in NAME_COLUMNS:
        if column in catalogue.columns:
            ids: list[str] = item_ids.tolist()
            listed = [text or item for text, item in zip(catalogue.text(column), ids, strict=False)]
            return id_array(listed + ids[len(listed) :])
    return None


def _read_modalities(directory: Path, catalogue: Table | None, n_items: int) -> dict[str, NDArray[np.float32]]:
    features = {}
    for path in sorted((directory / "features").glob("*.npy")):
        if catalogue is None:
            raise DataError(f"{path}: features, but no NAME.item that gives the order of their rows.")
        values = read_features(path, len(catalogue), f"items in {catalogue.path.name}")
        missing = n_items - len(values)
        features[path.stem] = np.pad(values, ((0, missing), (0, 0))) if missing else values
    return features


def _read_graph(directory: Path, name: str, item_ids: Ids, note: Note) -> KnowledgeGraph | None:
    facts, links = directory / f"{name}.kg", directory / f"{name}.link"
    if not facts.exists():
        return None
    if not links.exists():
        raise DataError(f"{facts}: no {links.name} beside it, which says what entity an item is.")
    triplets = read_table(facts, parse_header=_column_name)
    heads, relations, tails = (triplets.ids(column) for column in ("head_id", "relation_id", "tail_id"))
    link_table = read_table(links, parse_header=_column_name)
    item_index = {item: row for row, item in enumerate(item_ids.tolist())}
    linked = [
        (item_index[item], entity)
        for item, entity in zip(link_table.ids("item_id"), link_table.ids("entity_id"), strict=True)
        if item in item_index
    ]
    if len(linked) < len(link_table):
        note(f"{links}: {len(link_table) - len(linked)} links are left out, their item is not in the set.")
    # Join on the head. Several items may be one entity, so a triplet can become several rows.
    heads_index = first_appearance([entity for _, entity in linked])
    link_rows = np.array([row for row, _ in linked], np.int32)
    link_heads = rows_of([entity for _, entity in linked], heads_index)
    by_head = np.argsort(link_heads, kind="stable")
    n_linked = np.bincount(link_heads, minlength=len(heads_index))
    starts = np.cumsum(n_linked) - n_linked
    head_rows = np.fromiter((heads_index.get(head, -1) for head in heads), np.int64, len(heads))
    kept = np.flatnonzero(head_rows >= 0)
    if len(kept) < len(heads):
        note(f"{facts}: {len(heads) - len(kept)} triplets are left out, their head is no item of the set.")
    repeats = n_linked[head_rows[kept]]
    triplet = np.repeat(kept, repeats)
    within = np.arange(len(triplet)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
    items: Rows = link_rows[by_head[starts[head_rows[triplet]] + within]]
    index = triplet.tolist()
    return knowledge_graph(items, [relations[i] for i in index], [tails[i] for i in index])


def _write_interactions(path: Path, data: DataSet, interactions: Interactions) -> None:
    columns: dict[str, Sequence[str]] = {
        "user_id:token": data.user_ids[interactions.user_rows].tolist(),
        "item_id:token": data.item_ids[interactions.item_rows].tolist(),
    }
    if interactions.timestamps is not None:
        columns["timestamp:float"] = text_of_times(interactions.timestamps)
    _write_table(path, columns)


def text_of_times(times: NDArray[np.float64]) -> list[str]:
    """Seconds as text that reads back to the same number: whole seconds without a decimal point."""
    return [str(int(value)) if value.is_integer() else repr(value) for value in times.tolist()]


def _write_graph(data: DataSet, graph: KnowledgeGraph, directory: Path) -> None:
    check_ids("entity", graph.entity_ids)
    check_ids("relation", graph.relation_ids)
    prefix, entities = "item:", set(graph.entity_ids.tolist())
    own = [f"{prefix}{row}" for row in range(data.n_items)]
    while not entities.isdisjoint(own):  # an item's own entity must not be mistaken for a tail
        prefix = f"item:{prefix}"
        own = [f"{prefix}{row}" for row in range(data.n_items)]
    _write_table(directory / f"{data.name}.link", {"item_id:token": data.item_ids.tolist(), "entity_id:token": own})
    triplets = {
        "head_id:token": [own[row] for row in graph.item_rows.tolist()],
        "relation_id:token": graph.relation_ids[graph.relation_rows].tolist(),
        "tail_id:token": graph.entity_ids[graph.entity_rows].tolist(),
    }
    _write_table(directory / f"{data.name}.kg", triplets)


def _write_table(path: Path, columns: dict[str, Sequence[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join(columns) + "\n")
        file.writelines("\t".join(line) + "\n" for line in zip(*columns.values(), strict=True))
