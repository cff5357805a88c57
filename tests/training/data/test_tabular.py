import builtins
from datetime import UTC, date, datetime

import numpy as np
import pytest

from model_store.errors import MissingExtraError
from training.data.dataset import DataSet, Interactions
from training.data.tabular import read_tabular, write_tabular
from training.errors import DataError


def pairs(data, split):
    return list(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


def toy():
    return DataSet(
        name="toy",
        user_ids=np.array(["u,1", 'v"']),
        item_ids=np.array(["x", "y", "w"]),
        train=Interactions(np.array([0, 1], np.int32), np.array([2, 0], np.int32), np.array([1.25, 1e9])),
        test=Interactions(np.array([1], np.int32), np.array([1], np.int32), np.array([2e9])),
        item_names=np.array(["One, two", "Line\nend", "Drei"]),
    )


@pytest.mark.parametrize(
    "header", ["user_id,item_id,timestamp", "user,item,ts", "userId,itemId,time", "userID,itemID,time"]
)
def test_columns_are_known_by_several_names(tmp_path, header):
    (tmp_path / "log.csv").write_text(f"extra,{header}\n?,u,a,5\n?,v,a,6\n")
    data = read_tabular(tmp_path / "log.csv", ".csv")
    assert data.name == "log"
    assert pairs(data, data.train) == [("u", "a"), ("v", "a")]
    assert data.train.timestamps.tolist() == [5.0, 6.0]


def test_the_first_name_of_a_column_counts(tmp_path):
    (tmp_path / "log.csv").write_text("user,user_id,item_id\nwrong,right,a\n")
    assert read_tabular(tmp_path / "log.csv", ".csv").user_ids.tolist() == ["right"]


def test_a_directory_may_hold_splits_and_items(tmp_path):
    (tmp_path / "train.csv").write_text("user_id,item_id\nu,b\n")
    (tmp_path / "valid.csv").write_text("user_id,item_id\nu,c\n")
    (tmp_path / "items.csv").write_text('item_id,title\na,"Alpha, the first"\nb,\n')
    data = read_tabular(tmp_path, ".csv")
    assert data.item_ids.tolist() == ["a", "b", "c"]
    assert data.item_names.tolist() == ["Alpha, the first", "b", "c"]
    assert pairs(data, data.valid) == [("u", "c")]
    assert len(data.test) == 0


def test_a_threshold_looks_at_the_rating(tmp_path):
    (tmp_path / "interactions.csv").write_text("user_id,item_id,rating\nu,a,1\nu,b,5\n")
    data = read_tabular(tmp_path, ".csv", min_rating=2)
    assert pairs(data, data.train) == [("u", "b")]


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, r"neither interactions\.csv nor train\.csv"),
        ({"interactions.csv": "user_id,item_id\n", "train.csv": "user_id,item_id\n"}, "both interactions"),
        ({"test.csv": "user_id,item_id\n"}, r"no train\.csv"),
        ({"train.csv": "user_id,movie\nu,a\n"}, r"no column 'item_id' \(or item, itemId, itemID\); the header names"),
        ({"train.csv": "user_id,item_id\nu,\n"}, "line 2: the item_id is empty"),
        ({"train.csv": "user_id,item_id,ts\nu,a,1\nu,b,later\n"}, "line 3: the ts 'later' is not a number"),
        (
            {"train.csv": "user_id,item_id\nu,a\n", "items.csv": "item_id\na\nb\na\n"},
            "line 4: the id 'a' is listed",
        ),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, contents, message):
    for name, content in contents.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_tabular(tmp_path, ".csv")


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_what_is_written_reads_back(tmp_path, suffix):
    if suffix == ".parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    data = toy()
    write_tabular(data, tmp_path, suffix)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"items{suffix}", f"test{suffix}", f"train{suffix}"]
    again = read_tabular(tmp_path, suffix)
    assert again.item_ids.tolist() == data.item_ids.tolist()
    assert again.item_names.tolist() == data.item_names.tolist()
    for split in ("train", "valid", "test"):
        assert pairs(again, getattr(again, split)) == pairs(data, getattr(data, split))
    assert again.train.timestamps.tolist() == [1.25, 1e9]


def test_a_set_without_splits_is_written_as_one_file_and_what_is_lost_is_noted(tmp_path):
    notes = []
    one = np.zeros(1, np.int32)
    data = DataSet(
        "toy", np.array(["u", "v"]), np.array(["a"]), Interactions(one, one), features={"f": np.ones((1, 1))}
    )
    write_tabular(data, tmp_path, ".csv", note=notes.append)
    assert (tmp_path / "interactions.csv").read_text() == "user_id,item_id\nu,a\n"
    assert "left out are features, 1 users without an interaction" in notes[0]


def test_line_ends_in_a_csv_title_read_back_as_one_kind(tmp_path):
    one = np.zeros(1, np.int32)
    ids = np.array(["a", "b", "c"])
    names = np.array(["carriage\rreturn", "both\r\nof them", "plain"])
    write_tabular(DataSet("toy", np.array(["u"]), ids, Interactions(one, one), item_names=names), tmp_path, ".csv")
    assert read_tabular(tmp_path, ".csv").item_names.tolist() == ["carriage\nreturn", "both\nof them", "plain"]


@pytest.mark.parametrize("item_id", ["a\rb", " a", "a\t", "\ud800", "x" * 257])
def test_an_id_that_would_not_read_back_is_not_written_as_csv(tmp_path, item_id):
    one = np.zeros(1, np.int32)
    data = DataSet("toy", np.array(["u"]), np.array([item_id]), Interactions(one, one))
    with pytest.raises(DataError, match="the item id"):
        write_tabular(data, tmp_path, ".csv")
    assert list(tmp_path.iterdir()) == []


def test_blanks_around_ids_do_not_make_other_ids(tmp_path):
    (tmp_path / "log.csv").write_text("user_id, item_id\nu1, i1\nu2,i1\n")
    assert read_tabular(tmp_path / "log.csv", ".csv").item_ids.tolist() == ["i1"]


class TestParquet:
    @pytest.fixture(autouse=True)
    def _write(self, tmp_path):
        pyarrow = pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")

        def write(**columns):
            parquet.write_table(pyarrow.table(columns), tmp_path / "log.parquet")
            return tmp_path / "log.parquet"

        self.pyarrow, self.write = pyarrow, write

    def test_whole_numbers_are_ids_and_moments_are_seconds(self):
        moments = [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 1, 0, 0, 1, tzinfo=UTC)]
        for kind in (self.pyarrow.timestamp("ns"), self.pyarrow.timestamp("ms", "Europe/Paris")):
            path = self.write(user=[1, 2], item=["a", "b"], time=self.pyarrow.array(moments, kind), other=[[1], [2]])
            data = read_tabular(path, ".parquet")
            assert data.user_ids.tolist() == ["1", "2"]
            # 2024-01-01: 54 years after 1970, 13 of them leap years.
            start = (54 * 365 + 13) * 86_400
            assert data.train.timestamps.tolist() == [start, start + 1]

    def test_a_missing_value_and_a_column_of_another_type_are_named(self):
        with pytest.raises(DataError, match="row 2: the item is missing"):
            read_tabular(self.write(user=["u", "v"], item=["a", None]), ".parquet")
        with pytest.raises(DataError, match="the column user holds double; expected text or integers"):
            read_tabular(self.write(user=[1.0, 2.0], item=["a", "b"]), ".parquet")
        with pytest.raises(DataError, match="the time 'nan' is not a finite number"):
            read_tabular(self.write(user=["u"], item=["a"], time=[float("nan")]), ".parquet")
        with pytest.raises(DataError, match=r"no column 'item_id' .*; the header names user, movie"):
            read_tabular(self.write(user=["u"], movie=["a"]), ".parquet")

    def test_moments_are_read_to_the_nanosecond_whatever_the_zone_is_called(self):
        counts = [1_700_000_000_123_456_789, -1]
        for kind in (self.pyarrow.timestamp("ns"), self.pyarrow.timestamp("ns", "Mars/Olympus")):
            path = self.write(user=["u", "v"], item=["a", "b"], time=self.pyarrow.array(counts, kind))
            times = read_tabular(path, ".parquet").train.timestamps
            assert times.tolist() == [1_700_000_000.123456789, -1e-9]

    def test_dates_are_the_seconds_of_their_midnight(self):
        for kind in (self.pyarrow.date32(), self.pyarrow.date64()):
            path = self.write(user=["u"], item=["a"], time=self.pyarrow.array([date(1970, 1, 3)], kind))
            assert read_tabular(path, ".parquet").train.timestamps.tolist() == [2 * 86_400]

    def test_a_moment_beyond_the_years_is_named(self):
        moments = self.pyarrow.array([0, 2**40]).cast(self.pyarrow.timestamp("s"))
        days = self.pyarrow.array([0, 2**30], self.pyarrow.int32()).cast(self.pyarrow.date32())
        for far in (moments, days):
            with pytest.raises(DataError, match=r"log\.parquet, row 2: the time \d+ s since 1970 is not in the years"):
                read_tabular(self.write(user=["u", "v"], item=["a", "b"], time=far), ".parquet")

    def test_text_that_is_not_utf_8_is_named(self):
        damaged = self.pyarrow.array([b"a", b"\xff\xfe"]).cast(self.pyarrow.binary())
        damaged = self.pyarrow.Array.from_buffers(self.pyarrow.string(), 2, damaged.buffers())
        with pytest.raises(DataError, match=r"log\.parquet, row 2: the item b'\\xff\\xfe' is not UTF-8"):
            read_tabular(self.write(user=["u", "v"], item=damaged), ".parquet")

    @pytest.mark.parametrize("value", ["u\x01", "x" * 257, "", "u\0"])
    def test_an_id_that_the_service_refuses_is_named(self, value):
        with pytest.raises(DataError, match=r"log\.parquet, (line|row) 2: the user "):
            read_tabular(self.write(user=["u", value], item=["a", "b"]), ".parquet")

    def test_columns_that_nothing_is_read_from_may_hold_anything(self):
        ignored = {
            "user": [{"n": 1}, {"n": 2}],
            "ts": [None, "late"],
            "rating": [None, True],
            "title": [[1], None],
        }
        path = self.write(user_id=["u", "v"], item_id=["a", "b"], timestamp=[1, 2], **ignored)
        data = read_tabular(path, ".parquet")
        assert data.user_ids.tolist() == ["u", "v"]
        assert data.train.timestamps.tolist() == [1, 2]
        with pytest.raises(DataError, match="row 1: the rating is missing"):
            read_tabular(path, ".parquet", min_rating=1)

    @pytest.mark.parametrize("titles", [["Alpha", None], ["Alpha", ""]])
    def test_an_item_without_a_title_is_named_by_its_id(self, tmp_path, titles):
        self.write(item_id=["a", "b"], title=titles).rename(tmp_path / "items.parquet")
        self.write(user_id=["u"], item_id=["a"]).rename(tmp_path / "interactions.parquet")
        assert read_tabular(tmp_path, ".parquet").item_names.tolist() == ["Alpha", "b"]

    def test_titles_that_are_all_missing_are_the_ids(self, tmp_path):
        self.write(item_id=["a"], title=self.pyarrow.nulls(1)).rename(tmp_path / "items.parquet")
        self.write(user_id=["u"], item_id=["a"]).rename(tmp_path / "interactions.parquet")
        assert read_tabular(tmp_path, ".parquet").item_names.tolist() == ["a"]

    def test_a_damaged_column_is_named(self):
        path = self.write(user=["u", "v"], item=["a", "b"])
        content = bytearray(path.read_bytes())
        content[30:33] = b"\xff\xff\xff"
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"log\.parquet: the column user can't be read"):
            read_tabular(path, ".parquet")

    def test_a_damaged_file_is_named(self, tmp_path):
        (tmp_path / "log.parquet").write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError, match=r"log\.parquet: not a readable Parquet file"):
            read_tabular(tmp_path / "log.parquet", ".parquet")


def test_parquet_without_pyarrow_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_pyarrow(name, *arguments, **named):
        if name.partition(".")[0] == "pyarrow":
            raise ImportError(name)
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without_pyarrow)
    with pytest.raises(MissingExtraError, match=r"pip install 'kdiffe\[parquet\]'"):
        write_tabular(toy(), tmp_path, ".parquet")
