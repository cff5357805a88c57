"""Sparse matrices out of pickles, without running what the pickle asks for.

A pickle is a program: it names functions and calls them. The one here may name a closed list of things, those that a
pickled scipy matrix consists of, and even these are never called: each name stands for a small record of this module
that only remembers what it was given. When the pickle is read to its end, the records are checked and an array is
built from plain bytes of a plain numeric type. So neither scipy's nor numpy's own code meets data that nobody has
checked, and it doesn't matter which release of them wrote the file. A few bytes can also nest tuples so that whatever
walks through them never ends: errors show values in short, and a key of a dictionary, which is hashed, is a text.
"""

from __future__ import annotations

import io
import pickle
import pickletools
import re
import reprlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from training.data.table import read_bytes
from training.errors import DataError, UnsafePickleError

_NUMERIC = re.compile(r"[<>|=]?[biuf][1248]")


@dataclass(frozen=True)
class Pairs:
    """The places of a sparse matrix that are not zero, row after row as the file holds them.

    Attributes:
        rows: (n,) int64.
        columns: (n,) int64.
        shape: the matrix's shape.
    """

    rows: NDArray[np.int64]
    columns: NDArray[np.int64]
    shape: tuple[int, int]


def read_sparse_pickle(path: Path) -> Pairs:
    """Read the places that are not zero from a pickled scipy matrix (COO, CSR or CSC; matrix or array).

    Raises:
        UnsafePickleError: the pickle names anything but scipy's sparse types and numpy's array types.
        DataError: the file can't be read, is damaged, or holds something else than one sparse matrix.
    """
    try:
        content = read_bytes(path)
        for _ in pickletools.genops(content):  # fails where an instruction promises more bytes than there are
            pass
        loaded = _RestrictedUnpickler(io.BytesIO(content), path).load()
        if not isinstance(loaded, _Sparse):
            raise DataError(f"{path}: the pickle holds no scipy sparse matrix (COO, CSR or CSC).")
        return loaded.pairs()
    except UnsafePickleError:
        raise
    except DataError as error:
        raise error if str(path) in str(error) else DataError(f"{path}: {error}") from error
    except Exception as error:  # a damaged pickle can fail in any way that the pickle machine knows
        raise DataError(f"{path}: not a readable pickle of a sparse matrix ({error}).") from error


class _Sealed(type):
    """The type of the records: a pickle can set attributes of what it names, and these take none."""

    def __setattr__(cls, name: str, value: object) -> None:
        raise DataError(f"the pickle sets the attribute {reprlib.repr(name)} of a type.")


class _DType(metaclass=_Sealed):
    """What `numpy.dtype(...)` was called with, and the state that followed."""

    def __init__(self, spec: object, *_flags: object) -> None:
        self._spec = spec
        self._order: object = "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._order = state[1]

    def resolve(self) -> np.dtype[Any]:
        spec = self._spec
        if not isinstance(spec, str) or not _NUMERIC.fullmatch(spec) or self._order not in ("<", ">", "=", "|"):
            raise DataError(f"an array of the type {reprlib.repr(spec)}; only numbers are read.")
        return np.dtype(f"{self._order}{spec.lstrip('<>|=')}")


class _Array(metaclass=_Sealed):
    """An array that `_reconstruct` made, and its state."""

    def __init__(self, *_arguments: object) -> None:
        self._content: tuple[object, object, object] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _version, shape, dtype, _fortran, raw = state
        self._content = (shape, dtype, raw)

    def resolve(self) -> NDArray[Any]:
        """The values, one dimension."""
        if self._content is None:
            raise DataError("an array without content.")
        shape, dtype, raw = self._content
        if not isinstance(dtype, _DType) or not isinstance(raw, bytes | bytearray):
            raise DataError("an array whose content is not plain bytes; only numbers are read.")
        values = np.frombuffer(raw, dtype.resolve())
        if not isinstance(shape, tuple) or shape != (len(values),):
            raise DataError(
                f"an array of the shape {reprlib.repr(shape)} with {len(values)} values; expected one dimension."
            )
        return values


class _BufferArray(_Array):
    """An array that `_frombuffer` made (pickle protocol 5)."""

    def __init__(self, raw: object, dtype: object, shape: object, *_order: object) -> None:
        super().__init__()
        self._content = (shape, dtype, raw)


class _ArrayType(metaclass=_Sealed):
    """Stands for `numpy.ndarray` where a pickle names it as the type to rebuild."""


class _Scalar(metaclass=_Sealed):
    """What a numpy scalar was rebuilt from."""

    def __init__(self, dtype: object, raw: object = b"") -> None:
        self._dtype, self._raw = dtype, raw

    def resolve(self) -> int:
        if not isinstance(self._dtype, _DType) or not isinstance(self._raw, bytes):
            raise DataError("a scalar that is not a plain number.")
        values = np.frombuffer(self._raw, self._dtype.resolve())
        if values.shape != (1,) or values.dtype.kind not in "iu":
            raise DataError("a scalar that is not one integer.")
        return int(values[0])


class _Sparse(metaclass=_Sealed):
    """The state of a sparse matrix, by attribute name."""

    def __init__(self) -> None:
        self._state: dict[str, object] = {}

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, dict):
            raise DataError("a matrix whose state is not a dictionary.")
        self._state = state

    def shape(self) -> tuple[int, int]:
        shape = self._state.get("_shape")
        if not isinstance(shape, tuple) or len(shape) != 2:
            raise DataError(f"a matrix of the shape {reprlib.repr(shape)}; expected two dimensions.")
        n_rows, n_columns = (size.resolve() if isinstance(size, _Scalar) else size for size in shape)
        if not (isinstance(n_rows, int) and isinstance(n_columns, int) and min(n_rows, n_columns) >= 0):
            raise DataError(f"a matrix of the shape {reprlib.repr(shape)}; expected two sizes.")
        if max(n_rows, n_columns) > np.iinfo(np.int32).max:
            raise DataError(f"a matrix of the shape {reprlib.repr(shape)}; it is larger than rows can be numbered.")
        return n_rows, n_columns

    def values(self, key: str) -> NDArray[Any]:
        array = self._state.get(key)
        if not isinstance(array, _Array):
            raise DataError(f"a matrix without its array {key!r}.")
        return array.resolve()

    def indices(self, key: str) -> NDArray[np.int64]:
        values = self.values(key)
        if values.dtype.kind not in "iu":
            raise DataError(f"the matrix's array {key!r} holds {values.dtype}, not integers.")
        return values.astype(np.int64)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        raise NotImplementedError

    def pairs(self) -> Pairs:
        """The places whose value is not zero, checked against the shape."""
        shape = self.shape()
        rows, columns = self.places()
        data = self.values("data")
        if not len(rows) == len(columns) == len(data):
            raise DataError(f"a matrix with {len(rows)} rows, {len(columns)} columns and {len(data)} values.")
        if data.dtype.kind == "f" and not np.isfinite(data).all():
            raise DataError(f"value {int(np.argmin(np.isfinite(data)))} of the matrix is NaN or infinite.")
        for places, size, axis in ((rows, shape[0], "row"), (columns, shape[1], "column")):
            if len(places) and not (places.min() >= 0 and places.max() < size):
                wrong = places[(places < 0) | (places >= size)][0]
                raise DataError(f"the matrix has an entry in {axis} {wrong}, but only {size} of them.")
        there = data != 0
        return Pairs(rows[there], columns[there], shape)


class _Coordinates(_Sparse):
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        coordinates = self._state.get("coords")
        if isinstance(coordinates, tuple) and len(coordinates) == 2:  # scipy 1.13 and later
            self._state["row"], self._state["col"] = coordinates
        return self.indices("row"), self.indices("col")


class _CompressedRows(_Sparse):
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.expand(self.shape()[0]), self.indices("indices")

    def expand(self, size: int) -> NDArray[np.int64]:
        pointers = self.indices("indptr")
        n_values = len(self.values("data"))
        counts = np.diff(pointers)
        if len(pointers) != size + 1 or pointers[0] != 0 or pointers[-1] != n_values or (counts < 0).any():
            raise DataError("a compressed matrix whose 'indptr' does not fit its shape.")
        return np.repeat(np.arange(size, dtype=np.int64), counts)


class _CompressedColumns(_CompressedRows):
    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return self.indices("indices"), self.expand(self.shape()[1])


_ADMITTED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _ArrayType,
    ("numpy", "dtype"): _DType,
    **{
        (f"numpy.{core}.multiarray", name): record
        for core in ("core", "_core")  # before and from numpy 2.0
        for name, record in (("_reconstruct", _Array), ("scalar", _Scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _BufferArray for core in ("core", "_core")},
    **{
        (f"scipy.sparse.{module}", f"{layout}_{kind}"): record
        for layout, record in (("coo", _Coordinates), ("csr", _CompressedRows), ("csc", _CompressedColumns))
        for module in (layout, f"_{layout}")  # before and from scipy 1.8
        for kind in ("matrix", "array")
    },
}


class _Named(dict[str, object]):
    """A dictionary whose keys are texts."""

    def __setitem__(self, key: str, value: object) -> None:
        if not isinstance(key, str):
            raise DataError("the pickle holds a dictionary with a key that is no text.")
        super().__setitem__(key, value)


def _load_empty_dictionary(unpickler: Any) -> None:
    unpickler.append(_Named())


def _refuse(_unpickler: Any) -> None:
    raise DataError("the pickle holds an instruction (for a set, say) that no pickled matrix has.")


class _RestrictedUnpickler(pickle._Unpickler):
    """Knows the names of `_ADMITTED` and no other, and of what is hashed texts alone.

    It is the standard library's unpickler in Python and not the one in C: the latter takes memory for whatever place
    in its memo a damaged file names, and fails in ways that can't be caught. A matrix has some thirty instructions, so
    speed doesn't matter.
    """

    dispatch: ClassVar[dict[int, Any]] = {
        **pickle._Unpickler.dispatch,
        pickle.EMPTY_DICT[0]: _load_empty_dictionary,
        **{code[0]: _refuse for code in (pickle.DICT, pickle.EMPTY_SET, pickle.FROZENSET, pickle.ADDITEMS)},
    }

    def __init__(self, stream: io.BytesIO, path: Path) -> None:
        super().__init__(stream)
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ADMITTED[module, name]
        except KeyError:
            raise UnsafePickleError(
                f"{self._path}: the pickle names {module}.{name}. Only scipy's sparse matrices and numpy's arrays are "
                "admitted; nothing of the file was run. Write the data in another format, or don't trust it."
            ) from None
