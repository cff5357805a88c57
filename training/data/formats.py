"""The formats by name: find out which one lies at a path, read it, write one."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from training.data.assembly import Note, log_note
from training.data.dataset import DataSet
from training.data.mmrec import LABEL, USER, read_mmrec, write_mmrec
from training.data.published import TRAIN_FILE, read_published
from training.data.recbole import read_recbole, write_recbole
from training.data.split import SplitSettings
from training.data.split import split as split_data
from training.data.table import shown
from training.data.tabular import interaction_files, read_tabular, write_tabular
from training.errors import DataError

READABLE = ("recbole", "mmrec", "published", "csv", "parquet")
WRITABLE = ("recbole", "mmrec", "csv", "parquet")


def read_data_set(
    path: Path,
    *,
    format: str = "auto",  # noqa: A002 — the word of the command line
    split: SplitSettings | None = None,
    min_rating: float | None = None,
    note: Note = log_note,
) -> DataSet:
    """Read the data set at `path`.

    Args:
        path: a directory, or one file of CSV or Parquet.
        format: `recbole`, `mmrec`, `published`, `csv`, `parquet`, or `auto` to find out.
        split: how to split a set that brings no split; None leaves all its interactions in `train`.
        min_rating: only interactions with at least this `rating` count; None counts every rating.
        note: takes a sentence about what a reader left out; by default a warning is logged.

    Raises:
        DataError: nothing readable at `path`, or a damaged file; the text names file, line and value.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    chosen = detect_format(path) if format == "auto" else format
    if chosen not in READABLE:
        raise DataError(f"unknown format {format!r}; known are auto, {', '.join(READABLE)}.")
    if not path.exists():
        raise DataError(f"{path}: no such file or directory.")
    if chosen in ("recbole", "mmrec", "published") and not path.is_dir():
        raise DataError(f"{path}: the format {chosen} is a directory, this is a file.")
    if chosen == "published":
        if min_rating is not None:
            raise DataError(f"{path}: the published layout has no ratings; leave the threshold out.")
        data = read_published(path, note=note)
    elif chosen == "mmrec":
        data = read_mmrec(path, min_rating=min_rating, note=note)
    elif chosen == "recbole":
        data = read_recbole(path, min_rating=min_rating, note=note)
    else:
        data = read_tabular(path, f".{chosen}", min_rating=min_rating, note=note)
    if not len(data.train):
        threshold = "" if min_rating is None else f" with a rating of at least {min_rating}"
        raise DataError(f"{path}: there is no interaction to learn from{threshold}.")
    if data.knowledge is not None and not len(data.knowledge):
        note(f"{path}: the knowledge graph has no triplet of the set's items, so there is none.")
        data = replace(data, knowledge=None)
    return data if split is None else split_data(data, split, note=note)


def detect_format(path: Path) -> str:
    """The format of what lies at `path`.

    Raises:
        DataError: none is recognised; the text lists what was looked for and what was found.
    """
    if not path.exists():
        raise DataError(f"{path}: no such file or directory.")
    if path.is_file():
        if path.suffix in (".csv", ".parquet"):
            return path.suffix.removeprefix(".")
        raise DataError(f"{path}: not a file that can be read as a data set; expected .csv, .parquet or a directory.")
    if (path / TRAIN_FILE).exists():
        return "published"
    if tables := sorted(path.glob("*.inter")):
        return "mmrec" if _looks_like_mmrec(tables[0]) else "recbole"
    for suffix in (".csv", ".parquet"):
        if interaction_files(path, suffix):
            return suffix.removeprefix(".")
    found = ", ".join(sorted(entry.name for entry in path.iterdir())[:10]) or "nothing"
    raise DataError(
        f"{path}: no data set. Looked for NAME.inter or NAME.train.inter (recbole, mmrec), {TRAIN_FILE} (published), "
        f"interactions.csv or train.csv (csv), interactions.parquet or train.parquet (parquet); found {found}."
    )


def write_data_set(data: DataSet, path: Path, format: str, *, note: Note = log_note) -> None:  # noqa: A002
    """Write `data` as the directory `path`, whole or not at all.

    The files are written into a temporary directory beside `path`, which takes its name when it is complete.

    Args:
        data: the data set.
        path: where to write: nothing, or an empty directory.
        format: `recbole`, `mmrec`, `csv` or `parquet`.
        note: takes a sentence about what the format can't hold; by default a warning is logged.

    Raises:
        DataError: the format is not one to write, something is at `path` already, or an id can't be written.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    if format == "published":
        raise DataError("the published layout (pickles) is only read; write one of " + ", ".join(WRITABLE) + ".")
    if format not in WRITABLE:
        raise DataError(f"unknown format {format!r} to write; known are {', '.join(WRITABLE)}.")
    if path.is_file() or (path.is_dir() and any(path.iterdir())):
        raise DataError(f"{path}: already there and not empty; choose another target or remove it.")
    for name in (data.name, *data.features):
        if not name or name.startswith(".") or "/" in name or "\0" in name:
            raise DataError(f"the name {shown(name)} can't be that of a file.")
    writers: dict[str, Callable[[Path], None]] = {
        "recbole": lambda directory: write_recbole(data, directory, note=note),
        "mmrec": lambda directory: write_mmrec(data, directory, note=note),
        "csv": lambda directory: write_tabular(data, directory, ".csv", note=note),
        "parquet": lambda directory: write_tabular(data, directory, ".parquet", note=note),
    }
    target = path.absolute()
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
        try:
            writers[format](temporary)
            temporary.chmod(0o777 & ~_umask())
            temporary.rename(target)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise DataError(f"{path}: can't be written ({error.strerror or error}).") from error


def _looks_like_mmrec(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            header = file.readline(4096).decode("utf-8", errors="replace")
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}).") from error
    return ":" not in header and (LABEL in header or USER in header)


def _umask() -> int:
    # There is no way to ask for the mask without setting it.
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
