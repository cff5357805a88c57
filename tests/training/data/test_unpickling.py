import os
import pickle
import struct

import numpy as np
import pytest
import scipy.sparse as sp

from training.data.unpickling import read_sparse_pickle
from training.errors import DataError, UnsafePickleError

MATRIX = np.array([[0, 1, 0], [2, 0, 3]])


class Calls:
    """Unpickles to a call of `function(*arguments)`."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def saved(tmp_path, content, protocol=4):
    path = tmp_path / "trnMat.pkl"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64, np.int8, np.uint8])
@pytest.mark.parametrize(
    "kind", [sp.coo_matrix, sp.csr_matrix, sp.csc_matrix, sp.coo_array, sp.csr_array, sp.csc_array]
)
def test_the_places_that_are_not_zero_come_out_of_every_layout(tmp_path, kind, dtype, protocol):
    pairs = read_sparse_pickle(saved(tmp_path, kind(MATRIX.astype(dtype)), protocol))
    assert pairs.shape == (2, 3)
    assert set(zip(pairs.rows.tolist(), pairs.columns.tolist(), strict=True)) == {(0, 1), (1, 0), (1, 2)}


def test_booleans_count_and_stored_zeros_do_not(tmp_path):
    assert len(read_sparse_pickle(saved(tmp_path, sp.csr_matrix(MATRIX > 0))).rows) == 3
    stored = sp.coo_matrix(([1.0, 0.0], ([0, 1], [0, 1])), shape=(2, 2))
    pairs = read_sparse_pickle(saved(tmp_path, stored))
    assert (pairs.rows.tolist(), pairs.columns.tolist()) == ([0], [0])


def test_numbers_of_the_other_byte_order_are_read(tmp_path):
    matrix = sp.coo_matrix(MATRIX.astype(float))
    matrix.coords = tuple(places.astype(">i4") for places in matrix.coords)
    matrix.data = matrix.data.astype(">f8")
    assert read_sparse_pickle(saved(tmp_path, matrix)).columns.tolist() == [1, 0, 2]


def test_the_module_names_of_old_releases_are_known(tmp_path):
    # Protocol 3 writes module and name as plain lines, so the old names can be put in their place.
    content = pickle.dumps(sp.coo_matrix(MATRIX.astype(float)), 3)
    old = content.replace(b"scipy.sparse._coo\n", b"scipy.sparse.coo\n").replace(
        b"numpy._core.multiarray\n", b"numpy.core.multiarray\n"
    )
    assert old != content
    assert read_sparse_pickle(saved(tmp_path, old)).columns.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (Calls(os.system, "touch PROOF"), "posix.system"),
        (Calls(eval, "open('PROOF', 'w')"), "builtins.eval"),
        (Calls(getattr, "text", "load"), "builtins.getattr"),
        (Calls(np.load, "PROOF.npy"), "numpy.load"),
        (Calls(np.fromfile, "PROOF"), "numpy.fromfile"),
        (Calls(np.memmap, "PROOF", "u1", "w+", 0, (1,)), "numpy.memmap"),
        (Calls(sp.load_npz, "PROOF"), "load_npz"),
        (Calls(bytearray, 10), "builtins.bytearray"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 3, 4, 5])
def test_a_pickle_that_names_anything_else_is_refused_and_nothing_runs(tmp_path, monkeypatch, payload, name, protocol):
    monkeypatch.chdir(tmp_path)
    path = saved(tmp_path, payload, protocol)
    with pytest.raises(UnsafePickleError) as caught:
        read_sparse_pickle(path)
    assert str(path) in str(caught.value)
    assert name.split(".")[-1] in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["trnMat.pkl"]


@pytest.mark.parametrize(
    "name", ["cnumpy.f2py\ncompile\n", "cnumpy\nf2py.compile\n", "cnumpy.testing\nrunstring\n", "cscipy.io\nloadmat\n"]
)
def test_tools_of_numpy_and_scipy_that_run_code_are_refused(tmp_path, name):
    with pytest.raises(UnsafePickleError, match="nothing of the file was run"):
        read_sparse_pickle(saved(tmp_path, b"\x80\x02" + name.encode() + b"(X\x01\x00\x00\x00xtR."))


def test_a_dotted_name_does_not_reach_through_an_admitted_one(tmp_path):
    with pytest.raises(UnsafePickleError, match=r"ndarray\.__reduce__"):
        read_sparse_pickle(saved(tmp_path, b"\x80\x04\x8c\x05numpy\x8c\x12ndarray.__reduce__\x93."))


def test_a_pickle_can_not_change_what_the_next_one_meets(tmp_path):
    # BUILD with a state for the slots sets attributes of whatever lies on the stack: here, of an admitted type.
    attack = b"\x80\x04\x8c\x05numpy\x8c\x07ndarray\x93N}\x8c\x07changed\x88s\x86b."
    with pytest.raises(DataError, match="sets the attribute 'changed'"):
        read_sparse_pickle(saved(tmp_path, attack))
    assert len(read_sparse_pickle(saved(tmp_path, sp.csr_matrix(MATRIX))).rows) == 3


@pytest.mark.parametrize(
    "content", [{"a": 1}, [1, 2], None, np.arange(3), sp.lil_matrix(MATRIX), sp.csr_matrix(MATRIX.astype(complex))]
)
def test_something_else_than_a_numeric_sparse_matrix_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"trnMat\.pkl"):
        read_sparse_pickle(saved(tmp_path, content))


def test_an_array_of_objects_is_refused(tmp_path):
    matrix = sp.coo_matrix(MATRIX.astype(float))
    matrix.data = np.array([1, 2, 3], object)
    with pytest.raises(DataError, match="only numbers are read"):
        read_sparse_pickle(saved(tmp_path, matrix))


def test_every_truncated_pickle_is_refused(tmp_path):
    content = pickle.dumps(sp.csr_matrix(MATRIX.astype(float)), 4)
    for kept in range(len(content)):
        with pytest.raises(DataError):
            read_sparse_pickle(saved(tmp_path, content[:kept]))


def test_places_outside_of_the_shape_are_refused(tmp_path):
    matrix = sp.coo_matrix(MATRIX.astype(float))
    for wrong in (3, -1):
        matrix.coords = (np.array([0, 1, 1]), np.array([1, 0, wrong]))
        with pytest.raises(DataError, match=f"an entry in column {wrong}, but only 3"):
            read_sparse_pickle(saved(tmp_path, matrix))


@pytest.mark.parametrize("pointers", [[0, 1], [0, 9, 3], [1, 1, 3], [0, 2, 4]])
def test_pointers_that_do_not_fit_are_refused(tmp_path, pointers):
    matrix = sp.csr_matrix(MATRIX.astype(float))
    matrix.indptr = np.array(pointers, np.int32)
    with pytest.raises(DataError, match="'indptr' does not fit"):
        read_sparse_pickle(saved(tmp_path, matrix))


def test_values_that_are_not_finite_are_refused(tmp_path):
    with pytest.raises(DataError, match="value 1 of the matrix is NaN"):
        read_sparse_pickle(saved(tmp_path, sp.coo_matrix(np.array([[1.0, np.nan]]))))


def test_a_string_that_promises_more_than_the_file_holds_is_refused(tmp_path):
    with pytest.raises(DataError):
        read_sparse_pickle(saved(tmp_path, b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x."))


def test_a_far_place_in_the_memo_takes_no_memory(tmp_path):
    # LONG_BINPUT with the largest index: the unpickler in C would make a table of that many places.
    with pytest.raises(DataError, match="holds no scipy sparse matrix"):
        read_sparse_pickle(saved(tmp_path, b"\x80\x04]r\xff\xff\xff\xff."))


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_changed_bytes_give_a_matrix_or_an_error_and_nothing_else(tmp_path, protocol):
    rng = np.random.default_rng(protocol)
    content = np.frombuffer(pickle.dumps(sp.csr_matrix(MATRIX.astype(float)), protocol), np.uint8)
    for _ in range(300):
        changed = content.copy()
        changed[rng.integers(len(content), size=2)] = rng.integers(256, size=2)
        try:
            pairs = read_sparse_pickle(saved(tmp_path, changed.tobytes()))
        except DataError:
            continue
        assert len(pairs.rows) == len(pairs.columns)
        assert not len(pairs.rows) or (pairs.rows.max() < pairs.shape[0] and pairs.columns.max() < pairs.shape[1])


def nested(levels):
    """Instructions for a tuple that holds the one before it twice, and so on: 2 ** levels values in a few bytes."""
    return b"K\x01\x85" + b"2\x86" * levels


@pytest.mark.parametrize(
    ("instructions", "message"),
    [
        (b"X\x06\x00\x00\x00_shape" + nested(60) + b"s", "of the shape"),
        (nested(60) + b"K\x01s", "a key that is no text"),
        (b"(" + nested(60) + b"K\x01u", "a key that is no text"),
        (b"(" + nested(60) + b"K\x01d0", "no pickled matrix has"),
        (b"(" + nested(60) + b"\x910", "no pickled matrix has"),
    ],
)
def test_tuples_in_tuples_take_no_time(tmp_path, instructions, message):
    # EMPTY_DICT and what fills it, or hashes beside it, then BUILD: the state of a matrix.
    content = b"\x80\x04cscipy.sparse._coo\ncoo_matrix\n)\x81}" + instructions + b"b."
    with pytest.raises(DataError, match=message) as caught:
        read_sparse_pickle(saved(tmp_path, content))
    assert len(str(caught.value)) < 5_000
