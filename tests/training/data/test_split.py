from collections import Counter

import numpy as np
import pytest

from tests.training.worlds import clips
from training.data.dataset import DataSet, Interactions
from training.data.split import SplitSettings, n_cold, parts_by_time, parts_by_user, resplit, split
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


@pytest.mark.parametrize("shares", [(0.1, 0.1), (0.1, 0), (0, 0.1)])
def test_interactions_of_one_moment_are_never_parted(shares):
    # 100 interactions, 0 to 99 in time: cuts at 80 and 90, at 90 alone. Those from 78 to 81 and from 88 to 91 are of
    # one moment each, so that the nearest changes of time are at 78 or 82 (82: as far, 78 comes first) and at 88 or 92.
    times = np.arange(100.0)
    times[78:82], times[88:92] = 78, 88
    part = parts_by_time(np.random.default_rng(0).permutation(times), *shares)
    times = np.random.default_rng(0).permutation(times)
    moments = [set(times[part == number].tolist()) for number in range(3)]
    assert not moments[0] & moments[1]
    assert not moments[0] & moments[2]
    assert not moments[1] & moments[2]
    expected = {(0.1, 0.1): [78, 10, 12], (0.1, 0): [88, 12, 0], (0, 0.1): [88, 0, 12]}
    assert np.bincount(part, minlength=3).tolist() == expected[shares]


def test_a_cut_goes_to_the_nearest_change_of_time():
    # Five years of 20 each: cuts wanted at 80 and 90. Test can begin at 80 alone (at 100 nothing is left), valid at 60.
    assert np.bincount(parts_by_time(np.repeat(np.arange(5.0), 20), 0.1, 0.1)).tolist() == [60, 20, 20]
    # One moment from 75 to 93, and changes at 74, 75 and 94 alone: test from 94, valid from 75.
    times = np.concatenate([np.zeros(74), [1], np.full(19, 2), np.full(6, 3)])
    assert np.bincount(parts_by_time(times, 0.1, 0.1)).tolist() == [75, 19, 6]


@pytest.mark.parametrize(
    "times",
    [
        np.zeros(100),
        np.repeat([0, 1], 50),  # one change for two cuts
        np.repeat([0, 1, 2], [30, 30, 40]),  # train would have 30 where half of its 80 are 40
        np.concatenate(
            [np.zeros(97), [1, 2, 3]]
        ),  # valid and test would have at most 3 where half of theirs are 5 each
        np.concatenate([[0, 1, 2], np.full(97, 3)]),
    ],
)
def test_where_nearly_all_times_are_equal_there_is_no_cut(times):
    assert parts_by_time(times, 0.1, 0.1) is None


def test_without_a_cut_auto_leaves_out_with_a_note_and_time_is_refused():
    notes = []
    data = data_set(np.repeat(np.arange(4), 5), list(range(5)) * 4, np.zeros(20))
    found = split(data, note=notes.append)
    assert (np.bincount(found.test.user_rows).tolist(), n_cold(found)[0]) == ([1, 1, 1, 1], 0)
    assert "'toy' have the same timestamp" in notes[0]
    with pytest.raises(DataError, match="have the same timestamp that no moment cuts them in shares; take"):
        split(data, SplitSettings(strategy="time"))


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


def test_a_resplit_keeps_all_pairs_and_each_user_s_number_of_validation_interactions():
    def pairs(*parts):
        return Counter((int(u), int(v)) for part in parts for u, v in zip(part.user_rows, part.item_rows, strict=True))

    own_split = clips()
    other = resplit(own_split, 1)
    assert pairs(other.train, other.valid) == pairs(own_split.train, own_split.valid)
    counts = [np.bincount(data.valid.user_rows, minlength=own_split.n_users).tolist() for data in (own_split, other)]
    assert counts[0] == counts[1]
    assert pairs(other.valid) != pairs(own_split.valid)
    assert pairs(resplit(own_split, 1).valid) == pairs(other.valid) != pairs(resplit(own_split, 2).valid)
    own = resplit(own_split, 0)
    assert (own.train, own.valid, len(own.test)) == (own_split.train, own_split.valid, 0)
