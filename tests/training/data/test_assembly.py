import numpy as np
import pytest

from training.data.assembly import Columns, Parts, assemble, check_ids, knowledge_graph, read_features
from training.data.table import read_table
from training.errors import DataError


def pairs(data, split):
    return list(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


def test_rows_go_by_first_appearance_over_train_valid_and_test():
    data = assemble(
        "toy",
        Parts(Columns(["b", "a"], ["y", "x"]), Columns(["c"], ["w"]), Columns(["a", "d"], ["v", "y"])),
        items=["z", "x"],
    )
    assert data.user_ids.tolist() == ["b", "a", "c", "d"]
    assert data.item_ids.tolist() == ["z", "x", "y", "w", "v"]
    assert pairs(data, data.test) == [("a", "v"), ("d", "y")]


def test_a_repeated_pair_counts_once_and_keeps_its_first_time():
    data = assemble("toy", Parts(Columns(["a", "b", "a"], ["x", "x", "x"], np.array([3.0, 2.0, 1.0]))))
    assert pairs(data, data.train) == [("a", "x"), ("b", "x")]
    assert data.train.timestamps.tolist() == [3.0, 2.0]


def test_a_pair_of_train_is_dropped_from_valid_and_test():
    train = Columns(["a", "b"], ["x", "y"])
    data = assemble("toy", Parts(train, Columns(["b", "b"], ["y", "x"]), Columns(["a", "a", "a"], ["x", "y", "y"])))
    assert pairs(data, data.valid) == [("b", "x")]
    assert pairs(data, data.test) == [("a", "y")]


@pytest.mark.parametrize("name", ["valid", "test"])
def test_a_split_that_only_repeats_train_is_left_out_with_a_note(name):
    notes = []
    train = Columns(["a", "b"], ["x", "y"])
    assemble("toy", Parts(train, **{name: Columns(["a", "a"], ["x", "y"])}), note=notes.append)
    assert notes == []  # one pair is left
    data = assemble("toy", Parts(train, **{name: Columns(["b", "a"], ["y", "x"])}), note=notes.append)
    assert len(getattr(data, name)) == 0
    assert notes == [
        f"The {name} split is left out: each of its 2 interactions is in train, too, and counts there alone."
    ]


def test_no_interactions_at_all_make_an_empty_set():
    data = assemble("toy", Parts(Columns()))
    assert (data.n_users, data.n_items, len(data.train)) == (0, 0, 0)


def test_triplets_come_out_unique_and_sorted():
    graph = knowledge_graph(np.array([1, 0, 1, 1], np.int32), ["r", "s", "r", "s"], ["e", "f", "e", "e"])
    assert graph.relation_ids.tolist() == ["r", "s"]
    assert graph.entity_ids.tolist() == ["e", "f"]
    rows = zip(graph.item_rows.tolist(), graph.relation_rows.tolist(), graph.entity_rows.tolist(), strict=True)
    assert list(rows) == [(0, 1, 1), (1, 0, 0), (1, 1, 0)]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_features_of_every_width_of_float_become_float32(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.array([[0.5, 1.0], [2.0, -4.0]], dtype))
    values = read_features(tmp_path / "a.npy", 2, "items")
    assert values.dtype == np.float32
    assert values.tolist() == [[0.5, 1.0], [2.0, -4.0]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.ones((3, 2)), "3 rows, but there are 2 items"),
        (np.ones(2), r"shape is \(2,\)"),
        (np.ones((2, 2), int), "the values are int64"),
        (np.array([[0.0, 1.0], [0.0, np.nan]]), "row 1: a value is NaN"),
        (np.array([[1e300, 1.0], [0.0, 0.0]]), "row 0: a value is NaN, infinite or too large"),
    ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, values, message):
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(DataError, match=message):
        read_features(tmp_path / "a.npy", 2, "items")


def test_features_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([[{}]], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable \.npy array"):
        read_features(tmp_path / "a.npy", 1, "items")


@pytest.mark.parametrize("kept", [0, 5, 60, 200])
def test_truncated_features_are_refused(tmp_path, kept):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((20, 2)))
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"a\.npy: not a readable"):
        read_features(path, 20, "items")


@pytest.mark.parametrize("byte", [b"\xd7", b"(", b"'", b"\n"])
def test_a_header_with_a_damaged_byte_is_refused_or_means_the_same(tmp_path, byte):
    path = tmp_path / "a.npy"
    np.save(path, np.ones((2, 3), np.float32))
    content = path.read_bytes()
    refused = 0
    for place in range(content.index(b"{"), content.index(b"}")):
        path.write_bytes(content[:place] + byte + content[place + 1 :])
        try:
            assert read_features(path, 2, "items").size == 6
        except DataError:
            refused += 1
    assert refused > 20


def test_ids_that_no_reader_takes_are_not_written():
    check_ids("user", np.array(["a", "b c"]))
    with pytest.raises(DataError, match=r"the user id 'a\\r' holds the control character U\+000D"):
        check_ids("user", np.array(["b", "a\r"]))


def test_taking_interactions_keeps_their_order():
    columns = Columns(["a", "b", "c"], ["x", "y", "z"], np.array([1.0, 2.0, 3.0])).take(np.array([True, False, True]))
    assert (list(columns.user_ids), list(columns.item_ids)) == (["a", "c"], ["x", "z"])
    assert columns.timestamps.tolist() == [1.0, 3.0]


def test_a_table_error_names_the_line(tmp_path):
    (tmp_path / "a").write_text("x\n1\n2\n")
    assert "line 3: bad" in str(read_table(tmp_path / "a").error(1, "bad"))
