"""Splits for data sets that bring none: by time where there are timestamps, else some interactions of every user.

By time, one moment cuts the whole set: what came before it is train, what came after is valid and then test, as a
service would have seen it. Interactions of one moment stay together. Users and items that appear only after the cut
keep their rows: they are the cold start, known by id (and by features and graph) and without an interaction to learn
from.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from training.data.assembly import Note, log_note
from training.data.dataset import DataSet, Interactions
from training.errors import ConfigurationError, DataError

STRATEGIES = ("auto", "time", "leave_out")


@dataclass(frozen=True)
class SplitSettings:
    """How to split a set that brings no split.

    Attributes:
        valid_share: Share of all interactions that becomes valid, by time; 0 makes no valid split (both strategies).
        test_share: Share of all interactions that becomes test, by time; 0 makes no test split (both strategies).
        leave_out: Interactions of each user that become valid, and as many again that become test, by `leave_out`.
        seed: Seed of the choice by `leave_out`; by time nothing is random.
        strategy: `time`, `leave_out`, or `auto`: by time where timestamps can be cut, else `leave_out`.
    """

    valid_share: float = 0.1
    test_share: float = 0.1
    leave_out: int = 1
    seed: int = 0
    strategy: str = "auto"

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ConfigurationError: a value is out of its bounds.
        """
        for name in ("valid_share", "test_share"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigurationError(f"{name} is {getattr(self, name)}; it must be at least 0 and below 1.")
        if self.valid_share + self.test_share >= 1:
            raise ConfigurationError(
                f"valid_share {self.valid_share} and test_share {self.test_share} leave nothing to train on; "
                "their sum must be below 1."
            )
        if self.leave_out < 1:
            raise ConfigurationError(f"leave_out is {self.leave_out}; it must be at least 1.")
        if self.seed < 0:
            raise ConfigurationError(f"seed is {self.seed}; it must be at least 0.")
        if self.strategy not in STRATEGIES:
            raise ConfigurationError(f"strategy is {self.strategy!r}; known are {', '.join(STRATEGIES)}.")


def split(data: DataSet, settings: SplitSettings | None = None, *, note: Note = log_note) -> DataSet:
    """The data set with its interactions split into train, valid and test.

    A set that already has valid or test interactions comes back as it is. Interactions keep their order within a
    split, and users and items keep their rows.

    Args:
        data: the data set.
        settings: how to split; None takes the defaults.
        note: takes a sentence where timestamps can't be cut and `auto` leaves out instead.

    Raises:
        DataError: the strategy is `time`, and the set has no timestamps or too many of the same moment.
    """
    settings = settings or SplitSettings()
    if len(data.valid) or len(data.test):
        return data
    times = data.train.timestamps
    if settings.strategy == "time" and times is None:
        raise DataError(f"the data set {data.name!r} has no timestamps to split by; take the strategy 'leave_out'.")
    part = None
    if times is not None and settings.strategy != "leave_out":
        part = parts_by_time(times, settings.valid_share, settings.test_share)
        if part is None:
            problem = (
                f"So many interactions of {data.name!r} have the same timestamp that no moment cuts them in shares"
            )
            if settings.strategy == "time":
                raise DataError(f"{problem}; take the strategy 'leave_out'.")
            note(f"{problem}: they are split by the strategy 'leave_out'.")
    if part is None:
        part = parts_by_user(
            data.train.user_rows,
            settings.leave_out if settings.valid_share else 0,
            settings.leave_out if settings.test_share else 0,
            settings.seed,
        )
    train, valid, test = (data.train.take(part == number) for number in range(3))
    return replace(data, train=train, valid=valid, test=test)


def resplit(data: DataSet, number: int) -> DataSet:
    """Another division of the train and validation interactions; number 0 is the set's own. Test is left out.

    Every user keeps as many validation interactions as the set gives them, drawn at random with the number as seed.
    """
    none = Interactions.empty()
    if number == 0:
        return replace(data, test=none)
    pool = data.train.concatenate(data.valid)
    drawn = np.random.default_rng(number).random(len(pool))
    order = np.lexsort((drawn, pool.user_rows))
    users = pool.user_rows[order]
    counts = np.bincount(users, minlength=data.n_users)
    place = np.arange(len(users)) - np.repeat(np.cumsum(counts) - counts, counts)
    wanted = np.bincount(data.valid.user_rows, minlength=data.n_users)
    is_valid = np.zeros(len(pool), np.bool_)
    is_valid[order] = place < wanted[users]
    return replace(data, train=pool.take(~is_valid), valid=pool.take(is_valid), test=none)


def parts_by_time(times: NDArray[np.float64], valid_share: float, test_share: float) -> NDArray[np.int8] | None:
    """Which split each interaction falls in, by one cut in time.

    The latest `round(test_share · n)` interactions are test, the latest `round(valid_share · n)` before them valid;
    where a cut would part interactions of one moment, it goes to the change of time that is nearest in the order.

    Args:
        times: (n,) seconds.
        valid_share: share of valid.
        test_share: share of test.

    Returns:
        (n,) 0 for train, 1 for valid, 2 for test; None where no cuts leave each split half of what it should have.
    """
    n = len(times)
    n_test, n_valid = round(test_share * n), round(valid_share * n)
    least_train, least_valid, least_test = ((size + 1) // 2 for size in (n - n_valid - n_test, n_valid, n_test))
    order = np.argsort(times, kind="stable")
    changes = np.flatnonzero(np.diff(times[order])) + 1
    # Where valid and test begin in the order, n where no change of time will do. Test leaves room for valid before it.
    begin_test = n
    if n_test:
        room = _nearest(changes, 0, least_train, n, none=n) + least_valid if n_valid else least_train
        begin_test = _nearest(changes, n - n_test, room, n - least_test, none=n)
    begin_valid = begin_test
    if n_valid:
        begin_valid = _nearest(changes, n - n_test - n_valid, least_train, begin_test - least_valid, none=n)
    if (n_test and begin_test == n) or (n_valid and begin_valid == n):
        return None
    part = np.zeros(n, np.int8)
    part[order[begin_valid:begin_test]] = 1
    part[order[begin_test:]] = 2
    return part


def _nearest(changes: NDArray[np.intp], wanted: int, least: int, most: int, *, none: int) -> int:
    """The place of `changes` from `least` to `most` that is nearest to the wanted one; `none` where there is none."""
    within = changes[(changes >= least) & (changes <= most)]
    return int(within[np.abs(within - wanted).argmin()]) if len(within) else none


def parts_by_user(user_rows: NDArray[np.integer], n_valid: int, n_test: int, seed: int) -> NDArray[np.int8]:
    """Which split each interaction falls in, with the same number held out of every user, at random.

    Users with fewer than `n_valid + n_test + 1` interactions stay whole in train, so train keeps at least one
    interaction of every user.

    Args:
        user_rows: (n,) the user of each interaction.
        n_valid: interactions of each user for valid.
        n_test: interactions of each user for test.
        seed: of the choice.

    Returns:
        (n,) 0 for train, 1 for valid, 2 for test.
    """
    n = len(user_rows)
    if n == 0:
        return np.zeros(0, np.int8)
    order = np.lexsort((np.random.default_rng(seed).random(n), user_rows))
    counts = np.bincount(user_rows)
    starts = np.cumsum(counts) - counts
    place = np.empty(n, np.int64)
    place[order] = np.arange(n) - starts[user_rows[order]]
    enough = counts[user_rows] > n_valid + n_test
    part = np.zeros(n, np.int8)
    part[enough & (place < n_test)] = 2
    part[enough & (place >= n_test) & (place < n_test + n_valid)] = 1
    return part


def n_cold(data: DataSet) -> tuple[int, int]:
    """How many users and items valid and test hold that train does not."""
    held_out: Interactions = data.valid.concatenate(data.test)
    return (
        len(np.setdiff1d(held_out.user_rows, data.train.user_rows)),
        len(np.setdiff1d(held_out.item_rows, data.train.item_rows)),
    )
