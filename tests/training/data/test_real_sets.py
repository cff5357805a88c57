"""Real data sets, which are not part of this repository: set KDIFFE_DATA to the directory that holds them."""

import os
from pathlib import Path

import numpy as np
import pytest

from training.data.fingerprint import fingerprint
from training.data.formats import detect_format, read_data_set, write_data_set
from training.data.split import SplitSettings

ROOT = os.environ.get("KDIFFE_DATA")
pytestmark = pytest.mark.skipif(ROOT is None, reason="KDIFFE_DATA names no directory of data sets")

# users, items, interactions in train, valid and test, triplets: from the README beside the data.
SIZES = {
    "tiktok": (9_308, 6_710, 59_541, 3_051, 6_130, 0),
    "sports": (35_598, 18_357, 218_409, 40_029, 37_899, 167_256),
    "baby": (19_445, 7_050, 118_551, 21_682, 20_559, 0),
    "amazon-beauty": (15_576, 8_678, 108_166, 15_576, 15_576, 137_534),
    "ml-100k": (943, 1_682, 100_000, 0, 0, 2_893),
    "gowalla": (29_858, 40_981, 810_128, 0, 217_242, 0),
}


def path(*parts):
    found = Path(ROOT, *parts)
    if not found.exists():
        pytest.skip(f"{found} is not there")
    return found


def pairs(data, split):
    return set(zip(data.user_ids[split.user_rows].tolist(), data.item_ids[split.item_rows].tolist(), strict=True))


@pytest.mark.parametrize("name", sorted(SIZES))
def test_a_set_has_the_sizes_that_its_description_gives(name):
    data = read_data_set(path(name))
    n_triplets = 0 if data.knowledge is None else len(data.knowledge)
    sizes = (data.n_users, data.n_items, len(data.train), len(data.valid), len(data.test), n_triplets)
    assert sizes == SIZES[name]


@pytest.mark.parametrize(
    ("layout", "format_name", "modalities"),
    [("published-layout", "published", {"visual", "acoustic"}), ("mmrec-layout", "mmrec", {"visual"})],
)
def test_the_other_layouts_hold_the_same_set(layout, format_name, modalities):
    source = path(layout, "tiktok")
    assert detect_format(source) == format_name
    data, expected = read_data_set(source, note=lambda _: None), read_data_set(path("tiktok"))
    for split in ("train", "valid", "test"):
        assert pairs(data, getattr(data, split)) == pairs(expected, getattr(expected, split))
        assert len(getattr(data, split)) == len(getattr(expected, split))
    assert set(data.user_ids.tolist()) == set(expected.user_ids.tolist())
    assert data.item_ids.tolist() == expected.item_ids.tolist()
    assert set(data.features) == modalities
    for modality in modalities:
        np.testing.assert_array_equal(data.features[modality], expected.features[modality])


@pytest.mark.parametrize(
    ("source", "format_name"), [("tiktok", "recbole"), ("sports", "recbole"), ("baby", "csv"), ("ml-100k", "parquet")]
)
def test_a_set_comes_back_as_it_was_written(tmp_path, source, format_name):
    if format_name == "parquet":
        pytest.importorskip("pyarrow", reason="Parquet needs pyarrow")
    data = read_data_set(path(source))
    write_data_set(data, tmp_path / source, format_name, note=lambda _: None)
    again = read_data_set(tmp_path / source)
    if format_name != "recbole":
        data = type(data)(data.name, data.user_ids, data.item_ids, data.train, data.valid, data.test)
    assert fingerprint(again) == fingerprint(data)
    if data.train.timestamps is not None:
        np.testing.assert_array_equal(again.train.timestamps, data.train.timestamps)


def test_the_published_layout_becomes_the_same_recbole_set(tmp_path):
    write_data_set(read_data_set(path("published-layout", "tiktok"), note=lambda _: None), tmp_path / "t", "recbole")
    assert fingerprint(read_data_set(tmp_path / "t")) == fingerprint(read_data_set(path("tiktok")))


def test_a_log_is_cut_in_time():
    data = read_data_set(path("ml-100k"), split=SplitSettings())
    # The 80,000th interaction is of the same moment as the next three: the cut goes before it.
    assert (len(data.train), len(data.valid), len(data.test)) == (79_999, 10_001, 10_000)
    assert data.train.timestamps.max() < data.valid.timestamps.min()
    assert data.valid.timestamps.max() < data.test.timestamps.min()


def test_a_threshold_leaves_the_better_ratings():
    # 55,375 of the ratings are 4 or 5 (21,201 + 34,174, MovieLens 100K).
    assert len(read_data_set(path("ml-100k"), min_rating=4).train) == 55_375
