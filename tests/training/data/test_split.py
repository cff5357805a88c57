import numpy as np
import pytest

from training.data.dataset import DataSet, Interactions
from training.data.split import SplitSettings, n_cold, parts_by_time, parts_by_user, split
from training.errors import ConfigurationError, DataError


def data_set(users, items, times=None):
    users, items = np.array(users, np.int32), np.array(items, np.int32)
    times = None if times is None else np.array(times, float)
    ids = np.array([str(n) for n in range(50)])
    return DataSet("toy", ids, ids, Interactions(users, items, times))


def test_by_time_the_latest_are_test_and_those_before_them_valid():
    # Ten interactions, a share of 0.2 each: the two latest, then the two before.
    times = np.array([9, 0, 1, 8, 2, 3, 7, 4, 5, 6.0])
    assert parts_by_time(times, 0.2, 0.2).tolist() == [2, 0, 0, 2, 0, 0, 1, 0, 0, 1]


def test_interactions_of_one_moment_are_taken_in_the_order_of_the_file():
    assert parts_by_time(np.zeros(10), 0.1, 0.2).tolist() == [0] * 7 + [1] + [2] * 2


def test_no_share_makes_no_split():
    assert parts_by_time(np.arange(10.0), 0, 0).tolist() == [0] * 10
    assert parts_by_time(np.arange(10.0), 0, 0.1).tolist() == [0] * 9 + [2]


def test_every_user_leaves_the_same_number_out_and_keeps_at_least_one():
    users = np.array([0] * 3 + [1] * 2 + [2] * 10 + [4])
    part = parts_by_user(np.random.default_rng(0).permutation(users), 1, 1, seed=3)
    users = np.random.default_rng(0).permutation(users)
    assert [np.bincount(part[users == user], minlength=3).tolist() for user in (0, 1, 2, 4)] == [
        [1, 1, 1],  # three: one each
        [2, 0, 0],  # too few: whole in train
        [8, 1, 1],
        [1, 0, 0],
    ]


def test_leaving_out_is_decided_by_the_seed_and_reaches_every_place():
    users = np.zeros(5, int)
    parts = [parts_by_user(users, 0, 1, seed).tolist() for seed in range(60)]
    assert parts[7] == parts_by_user(users, 0, 1, 7).tolist()
    assert {part.index(2) for part in parts} == {0, 1, 2, 3, 4}
    assert all(part.count(2) == 1 and part.count(1) == 0 for part in parts)


def test_auto_takes_time_where_there_are_timestamps():
    timed = split(data_set(range(10), range(10), range(10)))
    assert timed.valid.user_rows.tolist() == [8]
    assert timed.test.user_rows.tolist() == [9]
    assert timed.test.timestamps.tolist() == [9.0]
    # Without: every user has one interaction, too few to leave any out.
    assert len(split(data_set(range(10), range(10))).train) == 10


def test_users_and_items_after_the_cut_keep_their_rows():
    data = split(data_set([0, 0, 0, 0, 1], [0, 1, 2, 3, 4], range(5)), SplitSettings(0.0, 0.2))
    assert data.n_users == data.n_items == 50
    assert data.test.user_rows.tolist() == [1]
    assert n_cold(data) == (1, 1)


def test_a_split_that_the_set_brings_stays():
    bare = data_set([0, 1], [0, 1], [0, 1])
    own = DataSet("toy", bare.user_ids, bare.item_ids, bare.train, test=Interactions(*(np.array([1], np.int32),) * 2))
    assert split(own) is own


def test_the_order_within_a_split_is_that_of_the_file():
    data = split(data_set([0] * 9, range(9), None), SplitSettings(seed=1, leave_out=2))
    assert (len(data.valid), len(data.test)) == (2, 2)
    for part in (data.train, data.valid, data.test):
        assert part.item_rows.tolist() == sorted(part.item_rows.tolist())


def test_time_without_timestamps_is_refused():
    with pytest.raises(DataError, match="no timestamps"):
        split(data_set([0], [0]), SplitSettings(strategy="time"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"valid_share": -0.1},
        {"test_share": 1.0},
        {"valid_share": 0.5, "test_share": 0.5},
        {"valid_share": float("nan")},
        {"leave_out": 0},
        {"seed": -1},
        {"strategy": "random"},
    ],
)
def test_settings_out_of_bounds_are_refused(wrong):
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        SplitSettings(**wrong)


def test_no_interactions_split_into_nothing():
    assert len(split(data_set([], [])).test) == 0
