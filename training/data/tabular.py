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
A title that is empty (or null) is the item's id.
"""

from __future__ import annotations

import csv
import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model_store.errors import MissingExtraError
from training.data.assembly import (
    Columns,
    Note,
    Parts,
    assemble,
    check_ids,
    dropped,
    id_array,
    log_note,
    n_silent,
    rated,
)
from training.data.dataset import DataSet, Ids, Interactions
from training.data.recbole import text_of_times
from training.data.table import Table, read_csv, shown, twice
from training.errors import DataError

USER_COLUMNS = ("user_id", "user", "userId", "userID")
ITEM_COLUMNS = ("item_id", "item", "itemId", "itemID")
TIME_COLUMNS = ("timestamp", "time", "ts")
TITLE_COLUMNS = ("title", "name")

# The years 1 to 9999, which dates as texts can name, in seconds since the epoch.
_EARLIEST, _LATEST = -62_135_596_800, 253_402_300_800

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


def read_tabular(path: Path, suffix: str, *, min_rating: float | None = None, note: Note = log_note) -> DataSet:
    """Read interactions, and items where they are listed, from CSV or Parquet.

    Args:
        path: a file of interactions, or a directory.
        suffix: `.csv` or `.parquet`.
        min_rating: only interactions with at least this `rating` count; None counts all.
        note: takes a sentence about what was left out.

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
        return assemble(name, parts, note=note)
    table = _read(listed)
    items = table.ids(_column(table, ITEM_COLUMNS))
    if len(set(items)) < len(items):
        raise twice(table, items)
    data = assemble(name, parts, items=items, note=note)
    title = next((column for column in TITLE_COLUMNS if column in table.columns), None)
    return data if title is None else replace(data, item_names=_names(data.item_ids, table.text(title)))


def write_tabular(data: DataSet, directory: Path, suffix: str, *, note: Note = log_note) -> None:
    """Write a data set as CSV or Parquet into an existing, empty directory.

    A set without valid and test becomes `interactions`. Items are listed in `items`, in row order. A graph and
    features are left out, with a note, and so are users without an interaction.

    Raises:
        DataError: an external id can't be read again.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    for kind, ids in (("user", data.user_ids), ("item", data.item_ids)):
        check_ids(kind, ids)
        around = next((value for value in ids.tolist() if value != value.strip(" \t")), None)
        if around is not None and suffix == ".csv":
            raise DataError(f"the {kind} id {shown(around)} begins or ends with a blank: CSV can't hold it.")
    users, _ = n_silent(data)
    what = {
        "the knowledge graph": data.knowledge is not None,
        "features": bool(data.features),
        f"{users} users without an interaction": users > 0,
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
        # A carriage return alone would not be quoted: every line end in a title is written as \n.
        text_of_times(values) if isinstance(values, np.ndarray) else map(_with_plain_line_ends, values)
        for values in columns.values()
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*texts, strict=True))


def _with_plain_line_ends(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


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
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names: list[str] = file.schema_arrow.names
    except (OSError, pyarrow.ArrowException) as error:
        raise DataError(f"{path}: not a readable Parquet file ({error}).") from error
    # Rows of a Parquet file are counted from 1, as lines of a text without a header would be.
    return Table(path, _ParquetColumns(path, file, names, pyarrow), file.metadata.num_rows, lambda row: row + 1)


class _ParquetColumns(Mapping[str, Sequence[str]]):
    """The columns of a Parquet file as texts, each read when it is asked for: of what type the others are is no matter.

    Getting one raises `DataError` where it can't be read as what its name says.
    """

    def __init__(self, path: Path, file: Any, names: Sequence[str], pyarrow: Any) -> None:
        self._path, self._file, self._names, self._pyarrow = path, file, names, pyarrow

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, name: str) -> list[str]:
        if name not in self._names:
            raise KeyError(name)
        if self._names.count(name) > 1:
            raise DataError(f"{self._path}: the column {name} is there twice.")
        try:
            return _texts(self._path, name, self._file.read(columns=[name]).column(name), self._pyarrow)
        except (OSError, self._pyarrow.ArrowException) as error:
            raise DataError(f"{self._path}: the column {name} can't be read ({error}).") from error


def _texts(path: Path, name: str, column: Any, pyarrow: Any) -> list[str]:
    kinds = pyarrow.types
    if kinds.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if name in TITLE_COLUMNS:
        if kinds.is_null(column.type):
            column = column.cast(pyarrow.string())
        if kinds.is_string(column.type) or kinds.is_large_string(column.type):
            column = column.fill_null("")
    kind = column.type
    if column.null_count:
        row = next(row for row, there in enumerate(column.is_valid().to_pylist()) if not there)
        raise DataError(f"{path}, row {row + 1}: the {name} is missing.")
    if kinds.is_string(kind) or kinds.is_large_string(kind) or kinds.is_integer(kind):
        return _plain_texts(path, name, column, pyarrow)
    if name in TIME_COLUMNS and (kinds.is_timestamp(kind) or kinds.is_date(kind)):
        return _seconds_texts(path, name, column, pyarrow)
    if (name in TIME_COLUMNS or name == "rating") and (kinds.is_floating(kind) or kinds.is_decimal(kind)):
        return list(map(repr, map(float, column.to_pylist())))
    raise DataError(f"{path}: the column {name} holds {kind}; expected text or integers (or times, where it is one).")


def _plain_texts(path: Path, name: str, column: Any, pyarrow: Any) -> list[str]:
    try:
        texts: list[str] = column.cast(pyarrow.large_string()).to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pyarrow.large_binary()).to_pylist()
        row = next(row for row, value in enumerate(values) if value.decode(errors="replace").encode() != value)
        raise DataError(
            f"{path}, row {row + 1}: the {name} {reprlib.repr(values[row])} is not UTF-8. Write the text as UTF-8."
        ) from None
    for row, text in enumerate(texts):
        if "\0" in text:
            raise DataError(f"{path}, row {row + 1}: the {name} {shown(text)} holds a zero byte.")
    return texts


def _seconds_texts(path: Path, name: str, column: Any, pyarrow: Any) -> list[str]:
    """Moments and dates as seconds since the epoch. Parquet holds them in UTC, whatever zone they are shown in."""
    kind, kinds = column.type, pyarrow.types
    if kinds.is_date32(kind):
        seconds = [86_400 * days for days in column.cast(pyarrow.int32()).to_pylist()]
    else:
        per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}["ms" if kinds.is_date64(kind) else kind.unit]
        seconds = [count / per_second for count in column.cast(pyarrow.int64()).to_pylist()]
    for row, value in enumerate(seconds):
        if not _EARLIEST <= value < _LATEST:
            raise DataError(
                f"{path}, row {row + 1}: the {name} {value:.0f} s since 1970 is not in the years 1 to 9999. "
                "Is it written in another unit?"
            )
    return list(map(repr, map(float, seconds)))
