"""CSV and Parquet: one table of interactions, or one for each split, and a table of items beside them.

    interactions.csv, or train.csv with valid.csv and test.csv (each of the two may be missing); `.parquet` alike
        user_id     or `user`, `userId`, `userID`
        item_id     or `item`, `itemId`, `itemID`
        timestamp   or `time`, `ts`; may be missing. Seconds since the epoch, or ISO-8601 dates or date-times
                    (UTC where they name no offset)
        rating      only looked at where a threshold is set
    items.csv (or .parquet), may be missing
        item_id     as above
        title       or `name`; may be missing

Where a file has several of the names of one column, the first of the list counts. Other columns are ignored. A single
file of interactions is read as well. CSV follows the `csv` module: a quoted field may hold commas and line ends.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import MissingExtraError
from training.data.assembly import Columns, Note, Parts, assemble, dropped, id_array, log_note, rated
from training.data.dataset import DataSet, Ids, Interactions
from training.data.recbole import text_of_times
from training.data.table import Table, read_csv, twice
from training.errors import DataError

USER_COLUMNS = ("user_id", "user", "userId", "userID")
ITEM_COLUMNS = ("item_id", "item", "itemId", "itemID")
TIME_COLUMNS = ("timestamp", "time", "ts")
TITLE_COLUMNS = ("title", "name")

_SPLITS = ("train", "valid", "test")


def interaction_files(path: Path, suffix: str) -> dict[str, Path]:
    """The files of interactions at `path`: split → file; one file alone is `train`. Empty where there are none.

    Args:
        path: a file, or a directory.
        suffix: `.csv` or `.parquet`.

    Raises:
        DataError: both one file for all and files of splits, or valid or test without train.
    """
    if path.is_file():
        return {"train": path} if path.suffix == suffix else {}
    whole = path / f"interactions{suffix}"
    there = {split: path / f"{split}{suffix}" for split in _SPLITS if (path / f"{split}{suffix}").exists()}
    if whole.exists() and there:
        raise DataError(f"{path}: both {whole.name} and {', '.join(p.name for p in there.values())}. Remove one.")
    if there and "train" not in there:
        raise DataError(f"{path}: {', '.join(p.name for p in there.values())}, but no train{suffix}.")
    return {"train": whole} if whole.exists() else there


def read_tabular(path: Path, suffix: str, *, min_rating: float | None = None) -> DataSet:
    """Read interactions, and items where they are listed, from CSV or Parquet.

    Args:
        path: a file of interactions, or a directory.
        suffix: `.csv` or `.parquet`.
        min_rating: only interactions with at least this `rating` count; None counts all.

    Returns:
        The data set; without files of splits all interactions are in `train`, in the order of the file.

    Raises:
        DataError: a file is missing or damaged.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    files = interaction_files(path, suffix)
    if not files:
        raise DataError(f"{path}: neither interactions{suffix} nor train{suffix}.")
    parts = Parts(**{split: _read_interactions(file, min_rating) for split, file in files.items()})
    name = path.stem if path.is_file() else path.resolve().name
    listed = path / f"items{suffix}"
    if not path.is_dir() or not listed.exists():
        return assemble(name, parts)
    table = _read(listed)
    items = table.ids(_column(table, ITEM_COLUMNS))
    if len(set(items)) < len(items):
        raise twice(table, items)
    data = assemble(name, parts, items=items)
    title = next((column for column in TITLE_COLUMNS if column in table.columns), None)
    return data if title is None else replace(data, item_names=_names(data.item_ids, table.text(title)))


def write_tabular(data: DataSet, directory: Path, suffix: str, *, note: Note = log_note) -> None:
    """Write a data set as CSV or Parquet into an existing, empty directory.

    A set without valid and test becomes `interactions`. Items are listed in `items`, in row order. A graph and
    features are left out, with a note, and so are users without an interaction.

    Raises:
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    seen = np.unique(np.concatenate([data.train.user_rows, data.valid.user_rows, data.test.user_rows]))
    what = {
        "the knowledge graph": data.knowledge is not None,
        "features": bool(data.features),
        f"{data.n_users - len(seen)} users without an interaction": len(seen) < data.n_users,
    }
    dropped(data, what, suffix.removeprefix("."), note)
    write = _write_parquet if suffix == ".parquet" else _write_csv
    if not len(data.valid) and not len(data.test):
        write(directory / f"interactions{suffix}", _written(data, data.train))
    else:
        for split, interactions in {"train": data.train, "valid": data.valid, "test": data.test}.items():
            if len(interactions) or split == "train":
                write(directory / f"{split}{suffix}", _written(data, interactions))
    items: dict[str, Any] = {"item_id": data.item_ids.tolist()}
    if data.item_names is not None:
        items["title"] = data.item_names.tolist()
    write(directory / f"items{suffix}", items)


def _read(path: Path) -> Table:
    return _read_parquet(path) if path.suffix == ".parquet" else read_csv(path)


def _column(table: Table, names: Sequence[str]) -> str:
    for name in names:
        if name in table.columns:
            return name
    found = ", ".join(table.columns)
    raise DataError(f"{table.path}: no column {names[0]!r} (or {', '.join(names[1:])}); the header names {found}.")


def _read_interactions(path: Path, min_rating: float | None) -> Columns:
    table = _read(path)
    time = next((column for column in TIME_COLUMNS if column in table.columns), None)
    columns = Columns(
        table.ids(_column(table, USER_COLUMNS)),
        table.ids(_column(table, ITEM_COLUMNS)),
        None if time is None else table.times(time),
    )
    return columns.take(rated(table, min_rating))


def _names(item_ids: Ids, titles: Sequence[str]) -> Ids:
    ids: list[str] = item_ids.tolist()
    named = [title or item for title, item in zip(titles, ids, strict=False)]
    return id_array(named + ids[len(named) :])


def _written(data: DataSet, interactions: Interactions) -> dict[str, Any]:
    columns: dict[str, Any] = {
        "user_id": data.user_ids[interactions.user_rows].tolist(),
        "item_id": data.item_ids[interactions.item_rows].tolist(),
    }
    if interactions.timestamps is not None:
        columns["timestamp"] = interactions.timestamps
    return columns


def _write_csv(path: Path, columns: Mapping[str, Any]) -> None:
    texts: list[Iterable[str]] = [
        text_of_times(values) if isinstance(values, np.ndarray) else values for values in columns.values()
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*texts, strict=True))


def _pyarrow_parquet() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("Parquet needs pyarrow: pip install 'kdiffe[parquet]'") from error
    return pyarrow


def _write_parquet(path: Path, columns: Mapping[str, Any]) -> None:
    pyarrow = _pyarrow_parquet()
    kinds = {name: pyarrow.float64() if isinstance(v, np.ndarray) else pyarrow.string() for name, v in columns.items()}
    arrays = [pyarrow.array(values, kinds[name]) for name, values in columns.items()]
    pyarrow.parquet.write_table(pyarrow.table(arrays, names=list(columns)), path)


def _read_parquet(path: Path) -> Table:
    pyarrow = _pyarrow_parquet()
    known = {*USER_COLUMNS, *ITEM_COLUMNS, *TIME_COLUMNS, *TITLE_COLUMNS, "rating"}
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = [name for name in file.schema_arrow.names if name in known]
        table = file.read(columns=names)
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).") from error
    if len(set(names)) < len(names):
        raise DataError(f"{path}: a column is there twice ({', '.join(names)}).")
    columns = {}
    for name in names:
        columns[name] = _texts(path, name, table.column(name), pyarrow)
    # Rows of a Parquet file are counted from 1, as lines of a text without a header would be.
    return Table(path, columns or {name: [] for name in file.schema_arrow.names}, lambda row: row + 1)


def _texts(path: Path, name: str, column: Any, pyarrow: Any) -> list[str]:
    kinds = pyarrow.types
    if column.null_count:
        row = next(row for row, value in enumerate(column.to_pylist()) if value is None)
        raise DataError(f"{path}, row {row + 1}: the {name} is missing.")
    kind = column.type
    if kinds.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_integer(kind):
        texts: list[str] = column.cast(pyarrow.large_string()).to_pylist()
        if any("\0" in text for text in texts):
            raise DataError(f"{path}: a value of {name} holds a zero byte.")
        return texts
    if name in TIME_COLUMNS and (kinds.is_timestamp(kind) or kinds.is_date(kind)):
        return _seconds_texts(column.cast(pyarrow.timestamp("us", getattr(kind, "tz", None))).to_pylist())
    if (name in TIME_COLUMNS or name == "rating") and (kinds.is_floating(kind) or kinds.is_decimal(kind)):
        return list(map(repr, map(float, column.to_pylist())))
    raise DataError(f"{path}: the column {name} holds {kind}; expected text or integers (or times, where it is one).")


def _seconds_texts(moments: list[datetime]) -> list[str]:
    return [repr((m if m.tzinfo else m.replace(tzinfo=UTC)).timestamp()) for m in moments]
