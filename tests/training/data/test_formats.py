import os
import pickle

import numpy as np
import pytest
import scipy.sparse as sp

from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.formats import WRITABLE, detect_format, read_data_set, write_data_set
from training.data.split import SplitSettings
from training.errors import DataError

MADE = {
    "recbole": ("toy.inter", b"user_id:token\titem_id:token\n0\t0\n0\t1\n0\t2\n"),
    "mmrec": ("toy.inter", b"userID\titemID\tx_label\n0\t0\t0\n0\t1\t0\n0\t2\t0\n"),
    "published": ("trnMat.pkl", pickle.dumps(sp.coo_matrix(np.ones((1, 3))))),
    "csv": ("interactions.csv", b"user_id,item_id\n0,0\n0,1\n0,2\n"),
}


def toy(name="toy"):
    rows = np.array([0, 1, 1], np.int32)
    columns = np.array([0, 0, 1], np.int32)
    one = np.array([0], np.int32)
    return DataSet(
        name, np.array(["0", "1"]), np.array(["0", "1"]), Interactions(rows, columns), test=Interactions(one, one + 1)
    )


@pytest.mark.parametrize("format_name", sorted(MADE))
def test_a_format_is_found_out_and_read(tmp_path, format_name):
    name, content = MADE[format_name]
    (tmp_path / name).write_bytes(content)
    assert detect_format(tmp_path) == format_name
    data = read_data_set(tmp_path)
    assert data.item_ids.tolist() == ["0", "1", "2"]
    assert len(data.train) == 3
    assert fingerprint(data) == fingerprint(read_data_set(tmp_path, format=format_name))


def test_a_file_is_read_by_its_ending(tmp_path):
    (tmp_path / "log.csv").write_bytes(MADE["csv"][1])
    assert read_data_set(tmp_path / "log.csv").name == "log"
    (tmp_path / "log.txt").write_bytes(MADE["csv"][1])
    with pytest.raises(DataError, match=r"expected \.csv, \.parquet or a directory"):
        read_data_set(tmp_path / "log.txt")


def test_where_nothing_is_recognised_the_error_lists_what_was_looked_for(tmp_path):
    (tmp_path / "notes.md").touch()
    with pytest.raises(DataError) as caught:
        read_data_set(tmp_path)
    for text in ("NAME.inter", "trnMat.pkl", "interactions.csv", "train.parquet", "found notes.md"):
        assert text in str(caught.value)
    with pytest.raises(DataError, match="no such file"):
        read_data_set(tmp_path / "gone")


def test_a_format_that_is_not_known_is_refused(tmp_path):
    with pytest.raises(DataError, match="unknown format 'xml'"):
        read_data_set(tmp_path, format="xml")
    with pytest.raises(DataError, match="unknown format 'xml'"):
        write_data_set(toy(), tmp_path, "xml")
    with pytest.raises(DataError, match="only read; write one of recbole"):
        write_data_set(toy(), tmp_path, "published")


def test_a_set_without_a_split_is_split_only_where_that_is_asked_for(tmp_path):
    (tmp_path / "toy.inter").write_bytes(MADE["recbole"][1])
    assert len(read_data_set(tmp_path).train) == 3
    data = read_data_set(tmp_path, split=SplitSettings())
    assert (len(data.train), len(data.valid), len(data.test)) == (1, 1, 1)


@pytest.mark.parametrize("triplets", ["", "elsewhere\tr\tt\n"], ids=["empty", "of no item"])
def test_a_knowledge_graph_without_triplets_is_none(tmp_path, triplets):
    (tmp_path / "toy.inter").write_bytes(MADE["recbole"][1])
    (tmp_path / "toy.kg").write_text("head_id:token\trelation_id:token\ttail_id:token\n" + triplets)
    (tmp_path / "toy.link").write_text("item_id:token\tentity_id:token\n")
    told = []
    assert read_data_set(tmp_path, note=told.append).knowledge is None
    assert any("no triplet of the set's items" in sentence for sentence in told)


def test_a_set_without_interactions_is_refused(tmp_path):
    (tmp_path / "toy.inter").write_text("user_id:token\titem_id:token\trating:float\nu\ta\t1\n")
    with pytest.raises(DataError, match="no interaction to learn from with a rating of at least 2"):
        read_data_set(tmp_path, min_rating=2)


@pytest.mark.parametrize("format_name", WRITABLE)
def test_every_format_to_write_reads_back_as_the_same_set(tmp_path, format_name):
    if format_name == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    target = tmp_path / "deep" / "toy"
    write_data_set(toy(), target, format_name)
    assert detect_format(target) == format_name
    assert fingerprint(read_data_set(target)) == fingerprint(toy())
    assert [entry.name for entry in target.parent.iterdir()] == ["toy"]
    assert target.stat().st_mode & 0o700 == 0o700


def test_a_target_that_holds_something_is_left_alone(tmp_path):
    (tmp_path / "here").mkdir()
    write_data_set(toy(), tmp_path / "here", "recbole")  # empty: fine
    before = sorted(p.name for p in (tmp_path / "here").iterdir())
    with pytest.raises(DataError, match="already there and not empty"):
        write_data_set(toy(), tmp_path / "here", "csv")
    assert sorted(p.name for p in (tmp_path / "here").iterdir()) == before


def test_a_write_that_fails_leaves_nothing_behind(tmp_path):
    bad = toy()
    bad = DataSet("toy", np.array(["a\tb", "c"]), bad.item_ids, bad.train)
    with pytest.raises(DataError):
        write_data_set(bad, tmp_path / "out", "recbole")
    assert os.listdir(tmp_path) == []  # noqa: PTH208 — also hidden entries


@pytest.mark.parametrize("name", ["", "../up", ".hidden"])
def test_a_name_that_is_no_file_name_is_refused(tmp_path, name):
    with pytest.raises(DataError, match="can't be that of a file"):
        write_data_set(toy(name), tmp_path / "out", "recbole")
