import numpy as np
import pytest

from training.data.dataset import DataSet, Interactions
from training.data.mmrec import read_mmrec, write_mmrec
from training.errors import DataError

HEADER = "userID\titemID\tx_label\n"


def layout(directory, body, n_rows=None, header=HEADER):
    (directory / "toy.inter").write_text(header + body)
    if n_rows is not None:
        np.save(directory / "image_feat.npy", np.arange(n_rows * 2.0).reshape(n_rows, 2))
    return directory


def pairs(data, split):
    return list(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


def test_the_label_decides_the_split_and_features_give_the_items(tmp_path):
    data = read_mmrec(layout(tmp_path, "10\t2\t0\n9\t0\t0\n9\t2\t1\n10\t0\t2\n9\t0\t2\n", n_rows=4))
    assert data.name == "toy"
    assert data.item_ids.tolist() == ["0", "1", "2", "3"]
    assert data.user_ids.tolist() == ["9", "10"]  # in numeric order
    assert pairs(data, data.train) == [("10", "2"), ("9", "0")]
    assert pairs(data, data.valid) == [("9", "2")]
    assert pairs(data, data.test) == [("10", "0")]  # 9, 0 is in train already
    assert data.features["visual"][2].tolist() == [4.0, 5.0]


def test_without_features_the_items_are_those_that_occur(tmp_path):
    assert read_mmrec(layout(tmp_path, "0\t30\t0\n0\t4\t1\n")).item_ids.tolist() == ["4", "30"]


def test_times_and_a_threshold_are_known(tmp_path):
    header = "userID\titemID\trating\ttimestamp\tx_label\n"
    data = read_mmrec(layout(tmp_path, "0\t0\t5\t7\t0\n0\t1\t2\t8\t0\n0\t2\t4\t9\t1\n", header=header), min_rating=4)
    assert pairs(data, data.train) == [("0", "0")]
    assert data.valid.timestamps.tolist() == [9.0]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("0\t0\t3\n", "line 2: the x_label 3 is none of 0"),
        ("0\t0\t0\n0\t4\t0\n", "line 3: the itemID 4 has no features; image_feat.npy has 4 rows"),
        ("0\tabc\t0\n", "line 2: the itemID 'abc' is not a row number"),
        ("0\t1\n", "line 2: too few fields"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, body, message):
    with pytest.raises(DataError, match=message):
        read_mmrec(layout(tmp_path, body, n_rows=4))


def test_feature_files_of_different_lengths_are_refused(tmp_path):
    layout(tmp_path, "0\t0\t0\n", n_rows=4)
    np.save(tmp_path / "text_feat.npy", np.ones((5, 2)))
    with pytest.raises(DataError, match="differ in their number of rows"):
        read_mmrec(tmp_path)


def test_what_is_written_reads_back_by_row(tmp_path):
    notes = []
    data = DataSet(
        name="toy",
        user_ids=np.array(["u", "v"]),
        item_ids=np.array(["a", "b"]),
        train=Interactions(np.array([1, 0], np.int32), np.array([0, 1], np.int32), np.array([3.0, 4.0])),
        valid=Interactions(np.array([1], np.int32), np.array([1], np.int32), np.array([5.0])),
        features={"text": np.ones((2, 3), np.float32), "acoustic": np.ones((2, 3), np.float32)},
        item_names=np.array(["A", "B"]),
    )
    write_mmrec(data, tmp_path, note=notes.append)
    assert "item names, the features 'acoustic'" in notes[0]
    assert (tmp_path / "i_id_mapping.csv").read_text() == "item_id\titemID\na\t0\nb\t1\n"
    again = read_mmrec(tmp_path)
    assert pairs(again, again.train) == [("1", "0"), ("0", "1")]
    assert pairs(again, again.valid) == [("1", "1")]
    assert again.train.timestamps.tolist() == [3.0, 4.0]
    assert list(again.features) == ["text"]


def test_users_and_items_that_do_not_come_back_are_noted(tmp_path):
    notes = []
    one = np.zeros(1, np.int32)
    data = DataSet("toy", np.array(["u", "v"]), np.array(["a", "b", "c"]), Interactions(one, one))
    write_mmrec(data, tmp_path, note=notes.append)
    assert "left out are 1 users without an interaction, 2 items without an interaction." in notes[0]
    again = read_mmrec(tmp_path)
    assert (again.n_users, again.n_items) == (1, 1)


def test_items_that_features_count_come_back(tmp_path):
    notes = []
    one = np.zeros(1, np.int32)
    features = {"visual": np.ones((3, 2), np.float32)}
    data = DataSet("toy", np.array(["u"]), np.array(["a", "b", "c"]), Interactions(one, one), features=features)
    write_mmrec(data, tmp_path, note=notes.append)
    assert notes == []
    assert read_mmrec(tmp_path).n_items == 3


def test_an_id_that_would_break_the_mapping_is_not_written(tmp_path):
    one = np.zeros(1, np.int32)
    with pytest.raises(DataError, match=r"the item id 'a\\tb'"):
        write_mmrec(DataSet("toy", np.array(["u"]), np.array(["a\tb"]), Interactions(one, one)), tmp_path)


def test_a_split_that_only_repeats_train_is_noted(tmp_path):
    notes = []
    read_mmrec(layout(tmp_path, "0\t0\t0\n0\t0\t1\n"), note=notes.append)
    assert "The valid split is left out" in notes[0]
