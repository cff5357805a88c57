"""MMRec's layout: one `NAME.inter` with a column for the split, and feature files of fixed names.

    NAME.inter      tab-separated: userID, itemID, x_label (0 train, 1 valid, 2 test); more columns may follow, of
                    which `rating` and `timestamp` are known
    image_feat.npy, text_feat.npy      one row for each item, in the order of the item numbers; each may be missing

Ids are numbers. Items come in numeric order, 0 to J-1 with J the number of feature rows, or, where there are no
features, the numbers that occur; users in the numeric order of the numbers that occur.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from training.data.assembly import (
    Columns,
    Note,
    Parts,
    assemble,
    check_ids,
    dropped,
    log_note,
    n_silent,
    rated,
    read_matrix,
)
from training.data.dataset import DataSet
from training.data.table import read_table
from training.errors import DataError

USER, ITEM, LABEL = "userID", "itemID", "x_label"
MODALITY_FILES = {"visual": "image_feat.npy", "text": "text_feat.npy"}


def read_mmrec(directory: Path, *, min_rating: float | None = None, note: Note = log_note) -> DataSet:
    """Read a data set in MMRec's layout.

    Args:
        directory: where the one `NAME.inter` lies.
        min_rating: only interactions with at least this `rating` count; None counts all.
        note: takes a sentence about what was left out.

    Raises:
        DataError: a file is missing or damaged, an id is no number, a label is none of 0, 1 and 2, or an item has no
            row of features.
    """
    found = sorted(directory.glob("*.inter"))
    if len(found) != 1:
        raise DataError(f"{directory}: expected one NAME.inter, found {', '.join(p.name for p in found) or 'none'}.")
    path = found[0]
    table = read_table(path)
    users, items, labels = (table.integers(column) for column in (USER, ITEM, LABEL))
    if len(labels) and labels.max() > 2:
        row = int(np.argmax(labels > 2))
        raise table.error(row, f"the {LABEL} {labels[row]} is none of 0 (train), 1 (valid), 2 (test).")
    features = {
        modality: read_matrix(directory / file)
        for modality, file in MODALITY_FILES.items()
        if (directory / file).exists()
    }
    sizes = {MODALITY_FILES[modality]: len(values) for modality, values in features.items()}
    if len(set(sizes.values())) > 1:
        raise DataError(f"{directory}: the feature files differ in their number of rows: {sizes}.")
    if features:
        n_items = next(iter(sizes.values()))
        if len(items) and items.max() >= n_items:
            row = int(np.argmax(items >= n_items))
            raise table.error(row, f"the {ITEM} {items[row]} has no features; {next(iter(sizes))} has {n_items} rows.")
        item_ids = _text(range(n_items))
    else:
        item_ids = _text(np.unique(items).tolist())
    times = table.numbers("timestamp") if "timestamp" in table.columns else None
    columns = Columns(_text(users.tolist()), _text(items.tolist()), times)
    counts = rated(table, min_rating)
    parts = Parts(*(columns.take(counts & (labels == label)) for label in (0, 1, 2)))
    data = assemble(path.stem, parts, users=_text(np.unique(users).tolist()), items=item_ids, note=note)
    return replace(data, features=features)


def write_mmrec(data: DataSet, directory: Path, *, note: Note = log_note) -> None:
    """Write a data set in MMRec's layout into an existing, empty directory.

    Ids become rows; `u_id_mapping.csv` and `i_id_mapping.csv` (tab-separated, as MMRec has them) keep the external
    ids. The layout has no place for a graph, for names, for modalities other than visual and text, for users without
    an interaction and, where there are no features, for items without one: these are left out, with a note.

    Raises:
        DataError: an external id can't be read again.
    """
    check_ids("user", data.user_ids)
    check_ids("item", data.item_ids)
    others = sorted(set(data.features) - set(MODALITY_FILES))
    users, items = n_silent(data)
    counted = len(others) < len(data.features)  # a features file counts the items
    what = {
        "the knowledge graph": data.knowledge is not None,
        "item names": data.item_names is not None,
        **{f"the features {modality!r}": True for modality in others},
        f"{users} users without an interaction": users > 0,
        f"{items} items without an interaction": items > 0 and not counted,
    }
    dropped(data, what, "mmrec", note)
    splits = (data.train, data.valid, data.test)
    timed = (
        all(split.timestamps is not None or not len(split) for split in splits) and data.train.timestamps is not None
    )
    with (directory / f"{data.name}.inter").open("w", encoding="utf-8", newline="\n") as file:
        file.write("\t".join([USER, ITEM, LABEL, *(["timestamp"] if timed else [])]) + "\n")
        for label, split in enumerate(splits):
            columns = [split.user_rows.tolist(), split.item_rows.tolist(), [label] * len(split)]
            if timed and split.timestamps is not None:
                columns.append(split.timestamps.tolist())
            file.writelines("\t".join(map(str, line)) + "\n" for line in zip(*columns, strict=True))
    for name, column, own, ids in (
        ("u_id_mapping.csv", USER, "user_id", data.user_ids),
        ("i_id_mapping.csv", ITEM, "item_id", data.item_ids),
    ):
        with (directory / name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(f"{own}\t{column}\n")
            file.writelines(f"{external}\t{row}\n" for row, external in enumerate(ids.tolist()))
    for modality, name in MODALITY_FILES.items():
        if modality in data.features:
            np.save(directory / name, np.asarray(data.features[modality], np.float32))


def _text(numbers: Sequence[int]) -> list[str]:
    return list(map(str, numbers))
