"""Delimited text as columns: quick where the file is sound, exact about the line where it isn't.

A file is read whole, checked as a whole (encoding, number of fields in each line) and cut into columns with few calls
into C. Only where a check fails does a second, slow pass look for the line to name.

Two dialects: `read_table` takes every character between two separators as it stands (RecBole's files, where a quote
is a quote), `read_csv` follows the `csv` module (quotes protect commas and line ends).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_store.admission import LONGEST_ID, NOT_TEXT, external_id
from training.data.dataset import Rows
from training.errors import DataError

_BOM = b"\xef\xbb\xbf"
_SHOWN = 60  # characters of a bad value that an error shows


class _Dialect(csv.excel):
    strict = True
    skipinitialspace = True  # a quote after a blank opens a quoted field, too


def shown(value: str) -> str:
    """`value` as an error shows it: quoted, and cut where it is long."""
    return repr(value if len(value) <= _SHOWN else value[:_SHOWN] + "…")


def read_bytes(path: Path) -> bytes:
    """The content of `path`.

    Raises:
        DataError: the file can't be opened; the text names it and says why.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror}).") from error


def read_text(path: Path) -> str:
    r"""The text of `path`, UTF-8, without byte order mark, every line end as `\n`.

    Raises:
        DataError: the file can't be opened, is not UTF-8 or holds a zero byte; the text names the line.
    """
    content = read_bytes(path).removeprefix(_BOM)
    if b"\0" in content:
        line = content.count(b"\n", 0, content.index(b"\0")) + 1
        raise DataError(f"{path}, line {line}: a zero byte; the file is binary or UTF-16. Save it as UTF-8 text.")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise DataError(
            f"{path}, line {line}: the byte 0x{content[error.start]:02x} is not UTF-8. Save the file as UTF-8."
        ) from error
    return text.replace("\r\n", "\n") if "\r" in text else text


@dataclass(frozen=True)
class Table:
    """Columns of one file.

    Attributes:
        path: the file, for errors.
        columns: name → values as text, all of the same length.
        n_rows: that length.
        line_of: row number → line number in the file, both as a person counts lines (the first line is 1).
    """

    path: Path
    columns: Mapping[str, Sequence[str]]
    n_rows: int
    line_of: Callable[[int], int]

    def __len__(self) -> int:
        return self.n_rows

    def error(self, row: int, message: str) -> DataError:
        """The error of `message`, with the file and the line of `row` before it."""
        return DataError(f"{self.path}, line {self.line_of(row)}: {message}")

    def text(self, column: str) -> Sequence[str]:
        """The values of `column` as they stand.

        Raises:
            DataError: no such column.
        """
        try:
            return self.columns[column]
        except KeyError:
            found = ", ".join(self.columns)
            raise DataError(f"{self.path}: no column {column!r}; the header names {found}.") from None

    def ids(self, column: str) -> Sequence[str]:
        """The values of `column` as external ids, each of which the service would take.

        Raises:
            DataError: no such column, or a value that is empty, too long or holds a control character.
        """
        values = self.text(column)
        if "" in values or max(map(len, values), default=0) > LONGEST_ID or NOT_TEXT.search("".join(values)):
            for row, value in enumerate(values):
                try:
                    external_id(value)
                except ValueError as error:
                    what = f"the {column} {shown(value)}" if value else f"the {column}"
                    raise self.error(
                        row, f"{what} {error}; the service takes no such id. Give it another one."
                    ) from None
        return values

    def numbers(self, column: str) -> NDArray[np.float64]:
        """The values of `column` as finite numbers, shape (n,).

        Raises:
            DataError: no such column, a value that is no number, NaN or an infinity.
        """
        values = self.text(column)
        try:
            numbers = np.fromiter(map(float, values), np.float64, len(values))
        except ValueError:
            pass
        else:
            if np.isfinite(numbers).all():
                return numbers
        row, value = next((row, value) for row, value in enumerate(values) if not _is_finite(value))
        kind = "finite number" if _is_number(value) else "number"
        raise self.error(row, f"the {column} {shown(value)} is not a {kind}.")

    def integers(self, column: str) -> NDArray[np.int64]:
        """The values of `column` as integers of at least 0, shape (n,).

        Raises:
            DataError: no such column, or a value that is not a plain integer of 0 or more.
        """
        values = self.text(column)
        joined = "".join(values)
        longest = max(map(len, values), default=1)
        if "" in values or longest > 18 or (joined and not (joined.isascii() and joined.isdigit())):
            plain = (v.isascii() and v.isdigit() and len(v) <= 18 for v in values)
            row = next(row for row, good in enumerate(plain) if not good)
            raise self.error(row, f"the {column} {shown(values[row])} is not a row number (0, 1, 2, ...).")
        return np.fromiter(map(int, values), np.int64, len(values))

    def times(self, column: str) -> NDArray[np.float64]:
        """The values of `column` as seconds since the epoch, shape (n,).

        Numbers are taken as seconds; else every value must be an ISO-8601 date or date-time, in UTC where it names no
        offset. Which of the two it is, the first value decides.

        Raises:
            DataError: no such column, or a value that is neither.
        """
        values = self.text(column)
        if not values or _is_number(values[0]):
            return self.numbers(column)
        try:
            return np.fromiter(map(_seconds, values), np.float64, len(values))
        except ValueError:
            row, value = next((row, value) for row, value in enumerate(values) if not _is_time(value))
            raise self.error(
                row, f"the {column} {shown(value)} is neither a number of seconds nor an ISO-8601 date-time."
            ) from None


def read_table(path: Path, *, separator: str = "\t", parse_header: Callable[[str], str] | None = None) -> Table:
    """Read delimited text with a header, every character literal.

    Args:
        path: the file.
        separator: one character between two fields.
        parse_header: from a header field to the column's name; raises ValueError, whose text says what is wrong.

    Returns:
        The table; blank lines at the end are left out.

    Raises:
        DataError: the file is empty, its header can't be used, or a line has too few or too many fields.
    """
    return _cut(path, read_text(path), separator, parse_header)


def read_csv(path: Path) -> Table:
    """Read comma-separated text with a header as the `csv` module does: quotes protect commas and line ends.

    Returns:
        The table; blank lines are left out, and so are blanks and tabs around a value, as around a header's name.

    Raises:
        DataError: the file is empty, its header can't be used, a quote is not closed, or a line has too few or too
            many fields.
    """
    text = read_text(path)
    if not any(mark in text for mark in ('"', "\r")) and "\n\n" not in text.rstrip("\n") and text[:1] != "\n":
        # Nothing in it that the two dialects read differently, and this way is several times as fast.
        table = _cut(path, text, ",", None)
    else:
        table = _parsed(path, text)
    if " " not in text and "\t" not in text:
        return table
    return replace(table, columns={name: [v.strip(" \t") for v in values] for name, values in table.columns.items()})


def twice(table: Table, ids: Sequence[str]) -> DataError:
    """The error of an id that `ids`, a column of `table`, holds a second time."""
    first: dict[str, int] = {}
    row = next(row for row, value in enumerate(ids) if first.setdefault(value, row) != row)
    return table.error(
        row, f"the id {shown(ids[row])} is listed twice, first in line {table.line_of(first[ids[row]])}."
    )


def first_appearance(*columns: Sequence[str], first: Sequence[str] = ()) -> dict[str, int]:
    """Number ids by first appearance: those of `first`, then those of each column in turn.

    Returns:
        id → row, in row order.
    """
    order: dict[str, None] = dict.fromkeys(first)
    for column in columns:
        order.update(dict.fromkeys(column))
    return {name: row for row, name in enumerate(order)}


def rows_of(ids: Sequence[str], index: Mapping[str, int]) -> Rows:
    """The rows of `ids`, shape (n,); every one of them must be in `index`."""
    return np.fromiter(map(index.__getitem__, ids), np.int32, len(ids))


def _cut(path: Path, text: str, separator: str, parse_header: Callable[[str], str] | None) -> Table:
    text = text.rstrip("\n")
    if not text:
        raise DataError(f"{path}: the file is empty; its first line must be a header.")
    header, _, body = text.partition("\n")
    names = _names(path, header.split(separator), parse_header)
    n_fields = len(names)
    n_lines = body.count("\n") + 1 if body else 0
    if not body:
        fields: list[str] = []
    else:
        _check_field_counts(path, body, separator, n_fields, n_lines)
        fields = body.replace("\n", separator).split(separator)
    columns = {name: fields[number::n_fields] for number, name in enumerate(names)}
    return Table(path, columns, n_lines, lambda row: row + 2)


def _parsed(path: Path, text: str) -> Table:
    reader = csv.reader(io.StringIO(text, newline=""), _Dialect)
    try:
        lines = [line for line in reader if line]
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}.") from error
    if not lines:
        raise DataError(f"{path}: the file is empty; its first line must be a header.")
    names = _names(path, lines[0], None)
    rows = lines[1:]

    def line_of(row: int) -> int:
        again = csv.reader(io.StringIO(text, newline=""), _Dialect)
        starts, before = [], 0
        for line in again:
            if line:
                starts.append(before + 1)
            before = again.line_num
        return starts[row + 1]

    if set(map(len, rows)) - {len(names)}:
        row = next(row for row, fields in enumerate(rows) if len(fields) != len(names))
        raise _field_count_error(path, line_of(row), len(rows[row]), len(names))
    values = list(zip(*rows, strict=True)) if rows else [()] * len(names)
    return Table(path, dict(zip(names, values, strict=True)), len(rows), line_of)


def _names(path: Path, fields: list[str], parse_header: Callable[[str], str] | None) -> list[str]:
    names = []
    for field in fields:
        try:
            name = parse_header(field) if parse_header else field.strip()
        except ValueError as error:
            raise DataError(f"{path}, line 1: the header field {shown(field)} {error}.") from None
        if not name:
            raise DataError(f"{path}, line 1: a header field is empty; the header is {shown(','.join(fields))}.")
        if name in names:
            raise DataError(f"{path}, line 1: the header names the column {shown(name)} twice.")
        names.append(name)
    return names


def _check_field_counts(path: Path, body: str, separator: str, n_fields: int, n_lines: int) -> None:
    # The separators of each line, counted over the bytes: UTF-8 never uses an ASCII byte inside another character.
    content = np.frombuffer(body.encode("utf-8"), np.uint8)
    separators = np.flatnonzero(content == ord(separator))
    ends = np.append(np.flatnonzero(content == ord("\n")), len(content))
    counts = np.diff(np.searchsorted(separators, ends), prepend=0) + 1
    if len(counts) != n_lines or (counts != n_fields).any():
        row = int(np.argmax(counts != n_fields))
        raise _field_count_error(path, row + 2, int(counts[row]), n_fields)


def _field_count_error(path: Path, line: int, found: int, expected: int) -> DataError:
    kind = "few" if found < expected else "many"
    return DataError(f"{path}, line {line}: too {kind} fields, {found} where the header names {expected}.")


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _is_finite(value: str) -> bool:
    return _is_number(value) and math.isfinite(float(value))


def _seconds(value: str) -> float:
    moment = datetime.fromisoformat(value)
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _is_time(value: str) -> bool:
    try:
        _seconds(value)
    except ValueError:
        return False
    return True
