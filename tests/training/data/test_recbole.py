import numpy as np
import pytest

from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.data.recbole import read_recbole, write_recbole
from training.errors import DataError

HEADER = "user_id:token\titem_id:token\n"


def files(directory, **contents):
    directory.mkdir(exist_ok=True)
    for name, content in contents.items():
        (directory / name.replace("__", ".")).write_text(content)
    return directory


def pairs(data, split):
    return list(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


def facts(data):
    graph = data.knowledge
    return list(
        zip(
            data.item_ids[graph.item_rows].tolist(),
            graph.relation_ids[graph.relation_rows].tolist(),
            graph.entity_ids[graph.entity_rows].tolist(),
            strict=True,
        )
    )


def test_a_set_in_three_splits_is_read(tmp_path):
    data = read_recbole(
        files(
            tmp_path / "toy",
            toy__train__inter=HEADER + "u\tb\nv\ta\nu\tb\n",
            toy__valid__inter=HEADER + "u\ta\nu\tb\n",
            toy__test__inter=HEADER + "w\tc\n",
        )
    )
    assert data.name == "toy"
    assert data.user_ids.tolist() == ["u", "v", "w"]
    assert data.item_ids.tolist() == ["b", "a", "c"]
    assert pairs(data, data.train) == [("u", "b"), ("v", "a")]
    assert pairs(data, data.valid) == [("u", "a")]
    assert pairs(data, data.test) == [("w", "c")]
    assert (data.knowledge, data.features, data.item_names) == (None, {}, None)


def test_one_file_with_times_is_all_train(tmp_path):
    content = "timestamp:float\titem_id:token\tuser_id:token\n5\ta\tu\n4.5\tb\tu\n"
    data = read_recbole(files(tmp_path / "toy", toy__inter=content))
    assert pairs(data, data.train) == [("u", "a"), ("u", "b")]
    assert data.train.timestamps.tolist() == [5.0, 4.5]
    assert (len(data.valid), len(data.test)) == (0, 0)


def test_every_rating_counts_unless_a_threshold_is_set(tmp_path):
    directory = files(
        tmp_path / "toy", toy__inter="user_id:token\titem_id:token\trating:float\nu\ta\t1\nu\tb\t4\nv\tb\t3.5\n"
    )
    assert len(read_recbole(directory).train) == 3
    data = read_recbole(directory, min_rating=3.5)
    assert pairs(data, data.train) == [("u", "b"), ("v", "b")]
    with pytest.raises(DataError, match="no column 'rating'"):
        read_recbole(files(tmp_path / "bare", toy__inter=HEADER + "u\ta\n"), min_rating=1)


def test_listed_items_come_first_and_an_item_that_is_not_listed_follows_with_zero_features(tmp_path):
    directory = files(
        tmp_path / "toy",
        toy__inter=HEADER + "u\tnew\nu\tb\n",
        toy__item="item_id:token\tkeywords:token_seq\tname:token\na\tk\tAlpha\nb\tk\t\n",
    )
    (directory / "features").mkdir()
    np.save(directory / "features" / "visual.npy", np.array([[1, 2], [3, 4]], np.float16))
    data = read_recbole(directory)
    assert data.item_ids.tolist() == ["a", "b", "new"]
    assert data.item_names.tolist() == ["Alpha", "b", "new"]  # name before keywords; no name: the id
    assert data.features["visual"].tolist() == [[1, 2], [3, 4], [0, 0]]
    assert data.features["visual"].dtype == np.float32


def test_triplets_reach_items_through_the_link(tmp_path):
    notes = []
    data = read_recbole(
        files(
            tmp_path / "toy",
            toy__inter=HEADER + "u\ta\nu\tb\nu\tc\n",
            toy__link="item_id:token\tentity_id:token\na\tm1\nb\tm2\nc\tm2\ngone\tm3\n",
            toy__kg="head_id:token\trelation_id:token\ttail_id:token\n"
            "m2\tby\tada\nm1\tby\tada\nm1\tlike\tm2\nada\tborn\t1815\nm3\tby\tada\nm1\tby\tada\n",
        ),
        note=notes.append,
    )
    # m2 is both b and c; m2 as a tail is an entity like any other; ada and m3 are no items of the set.
    assert sorted(facts(data)) == [("a", "by", "ada"), ("a", "like", "m2"), ("b", "by", "ada"), ("c", "by", "ada")]
    assert data.knowledge.entity_ids.tolist() == ["ada", "m2"]
    assert "1 links are left out" in notes[0]
    assert "2 triplets are left out" in notes[1]
    rows = np.stack([data.knowledge.item_rows, data.knowledge.relation_rows, data.knowledge.entity_rows], 1)
    assert rows.tolist() == sorted(rows.tolist())


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ({}, "no NAME.inter"),
        ({"one__inter": HEADER, "two__inter": HEADER}, r"several data sets \(one, two\)"),
        ({"one__inter": HEADER, "one__test__inter": HEADER}, "both one.inter and one.test.inter"),
        ({"one__test__inter": HEADER}, "no one.train.inter"),
        ({"one__inter": "user_id\titem_id\n"}, "line 1: the header field 'user_id' has no type"),
        ({"one__inter": "user_id:id\titem_id:token\n"}, "has the type 'id'; known are token"),
        ({"one__inter": "user_id:token\n"}, "no column 'item_id'"),
        ({"one__inter": HEADER + "u\ta\nu\t\n"}, "one.inter, line 3: the item_id is empty"),
        (
            {"one__inter": HEADER + "u\ta\n", "one__item": "item_id:token\na\nb\na\n"},
            "line 4: the id 'a' is listed twice",
        ),
        (
            {"one__inter": HEADER + "u\ta\n", "one__kg": "head_id:token\trelation_id:token\ttail_id:token\n"},
            "no one.link beside it",
        ),
    ],
)
def test_what_can_not_be_read_is_named(tmp_path, contents, message):
    with pytest.raises(DataError, match=message):
        read_recbole(files(tmp_path / "toy", **contents))


def test_the_directory_decides_between_several_sets(tmp_path):
    directory = files(tmp_path / "two", one__inter=HEADER + "u\ta\n", two__inter=HEADER + "v\tb\n")
    assert read_recbole(directory).user_ids.tolist() == ["v"]


def test_features_need_the_list_of_items(tmp_path):
    directory = files(tmp_path / "toy", toy__inter=HEADER + "u\ta\n")
    (directory / "features").mkdir()
    np.save(directory / "features" / "visual.npy", np.ones((1, 2)))
    with pytest.raises(DataError, match=r"no NAME\.item"):
        read_recbole(directory)


def test_what_is_written_reads_back(tmp_path):
    data = DataSet(
        name="toy",
        user_ids=np.array(["ü", 'v"']),
        item_ids=np.array(["x", "y z", "w"]),
        train=Interactions(np.array([0, 1], np.int32), np.array([2, 0], np.int32), np.array([1.25, 1e9])),
        test=Interactions(np.array([1], np.int32), np.array([1], np.int32), np.array([2e9])),
        knowledge=KnowledgeGraph(
            np.array([0, 2], np.int32),
            np.array([0, 0], np.int32),
            np.array([0, 1], np.int32),
            np.array(["genre:Noir", "item:0"]),
            np.array(["genre"]),
        ),
        features={"visual": np.array([[1], [2], [3]], np.float32)},
        item_names=np.array(["One\tTwo", "Zwei", "Drei"]),
    )
    write_recbole(data, tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "features",
        "toy.item",
        "toy.kg",
        "toy.link",
        "toy.test.inter",
        "toy.train.inter",
    ]
    assert (tmp_path / "toy.train.inter").read_text().splitlines()[1] == "ü\tw\t1.25"
    again = read_recbole(tmp_path)
    assert again.user_ids.tolist() == data.user_ids.tolist()
    assert again.item_ids.tolist() == data.item_ids.tolist()
    assert again.item_names.tolist() == ["One Two", "Zwei", "Drei"]
    for split in ("train", "valid", "test"):
        assert pairs(again, getattr(again, split)) == pairs(data, getattr(data, split))
    assert again.train.timestamps.tolist() == [1.25, 1e9]
    assert facts(again) == facts(data)  # although an entity has the name that an item's own entity would get
    np.testing.assert_array_equal(again.features["visual"], data.features["visual"])


def test_an_id_with_a_tab_is_not_written(tmp_path):
    one = np.zeros(1, np.int32)
    data = DataSet("toy", np.array(["u\t1"]), np.array(["a"]), Interactions(one, one))
    with pytest.raises(DataError, match=r"the user id 'u\\t1'"):
        write_recbole(data, tmp_path)


def test_users_without_an_interaction_are_left_out_with_a_note(tmp_path):
    notes = []
    one = np.zeros(1, np.int32)
    write_recbole(
        DataSet("toy", np.array(["u", "v"]), np.array(["a"]), Interactions(one, one)), tmp_path, note=notes.append
    )
    assert "1 users" in notes[0]


@pytest.mark.parametrize("name", ["log.train", "log.valid", "log.test", "train"])
def test_a_name_that_ends_like_the_file_of_a_split_reads_back(tmp_path, name):
    one = np.zeros(1, np.int32)
    whole = DataSet(name, np.array(["u"]), np.array(["a"]), Interactions(one, one), item_names=np.array(["Alpha"]))
    (tmp_path / "whole").mkdir()
    write_recbole(whole, tmp_path / "whole")
    data = read_recbole(tmp_path / "whole")
    assert (data.name, len(data.train), data.item_names.tolist()) == (name, 1, ["Alpha"])


def test_ids_of_the_most_characters_read_back_with_their_graph(tmp_path):
    one, item = np.zeros(1, np.int32), "i" * 256
    graph = KnowledgeGraph(one, one, one, np.array(["e"]), np.array(["r"]))
    write_recbole(DataSet("toy", np.array(["u"]), np.array([item]), Interactions(one, one), knowledge=graph), tmp_path)
    assert facts(read_recbole(tmp_path)) == [(item, "r", "e")]
