from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model_store.experiment import MAIN, MOST_VARIANTS, SLOTS, Arm, Experiment, slot_of

USERS = [f"u{n}" for n in range(4000)]


def arms(**shares: float) -> list[Arm]:
    return [Arm(name, f"v-{name}", share) for name, share in shares.items()]


def dealt(before: Experiment | None = None, name: str = "test", **shares: float) -> Experiment:
    return Experiment.dealt(name, arms(**shares), before)


def holders(experiment: Experiment) -> list[str]:
    """Who holds each slot, by the ranges themselves."""
    found = [MAIN] * SLOTS
    for variant in experiment.variants:
        for first, end in variant.slots:
            found[first:end] = [variant.name] * (end - first)
    return found


def moves(before: Experiment, after: Experiment) -> Counter[tuple[str, str]]:
    """How many slots went from whom to whom."""
    pairs = zip(holders(before), holders(after), strict=True)
    return Counter(pair for pair in pairs if pair[0] != pair[1])


def test_a_variant_gets_its_share_of_the_users():
    experiment = dealt(a=0.25, b=0.1, off=0.0)
    counts = Counter(experiment.variant_of(user) for user in USERS)
    # Binomial: n p ± 4 standard deviations.
    for variant, p in (("a", 0.25), ("b", 0.1), (MAIN, 0.65)):
        assert abs(counts[variant] - len(USERS) * p) < 4 * math.sqrt(len(USERS) * p * (1 - p))
    assert "off" not in counts
    assert [variant.share for variant in experiment.variants] == [0.25, 0.1, 0.0]


def test_a_user_s_variant_is_who_holds_the_user_s_slot():
    experiment = dealt(a=0.3, b=0.5)
    of_slot = holders(experiment)
    assert all(experiment.variant_of(user) == of_slot[slot_of("test", user)] for user in USERS[:500])


def test_a_share_that_grows_takes_users_from_main_alone_and_one_that_shrinks_gives_them_back():
    before = dealt(a=0.1, b=0.2)
    after = dealt(before, a=0.3, b=0.2)
    assert moves(before, after) == {(MAIN, "a"): 2000}
    assert moves(after, dealt(after, a=0.1, b=0.2)) == {("a", MAIN): 2000}


def test_what_one_variant_gives_another_takes_before_main_is_touched():
    before = dealt(a=0.5, b=0.2)
    assert moves(before, dealt(before, a=0.4, b=0.25)) == {("a", "b"): 500, ("a", MAIN): 500}


def test_a_variant_that_comes_or_goes_shuffles_nobody_between_the_others():
    before = dealt(a=0.2, b=0.2)
    after = dealt(before, a=0.2, b=0.2, c=0.1)
    assert moves(before, after) == {(MAIN, "c"): 1000}
    assert moves(after, dealt(after, c=0.1, b=0.2)) == {("a", MAIN): 2000}


SHARES = st.dictionaries(st.sampled_from("abcd"), st.integers(0, SLOTS // MOST_VARIANTS), min_size=1)


@settings(deadline=None, max_examples=60)
@given(st.lists(SHARES, min_size=2, max_size=5))
def test_no_more_users_move_than_the_shares_differ_by(steps):
    before = None
    for step in steps:
        after = dealt(before, **{name: count / SLOTS for name, count in step.items()})
        held = Counter(holders(after))
        assert {name: held[name] for name in step} == step
        if before is not None:
            was = Counter(holders(before))
            grown = sum(max(held[name] - was[name], 0) for name in {*held, *was})
            assert sum(moves(before, after).values()) == grown
        before = after


def test_another_version_for_a_variant_moves_nobody():
    before = dealt(a=0.2, b=0.2)
    after = Experiment.dealt("test", [Arm("a", "v0009", 0.2), Arm("b", "v-b", 0.2)], before)
    assert not moves(before, after)
    assert after.variants[0].version == "v0009"


def test_another_name_deals_anew():
    one = dealt(a=0.5)
    other = dealt(one, name="other", a=0.5)
    assert {(one.variant_of(user), other.variant_of(user)) for user in USERS} == {
        (a, b) for a in ("a", MAIN) for b in ("a", MAIN)
    }


def test_all_users_may_be_given_away():
    experiment = dealt(a=1 / 3, b=1 / 3, c=1 / 3)
    assert Counter(holders(experiment)) == {"a": 3333, "b": 3333, "c": 3333, MAIN: 1}
    assert {dealt(a=1.0).variant_of(user) for user in USERS} == {"a"}


def test_an_experiment_is_read_as_it_was_written_and_the_same_users_get_the_same():
    before = dealt(a=0.2, b=0.2)
    after = dealt(before, a=0.1, b=0.3)
    read = Experiment.parse(json.loads(json.dumps(asdict(after))))
    assert read == after
    assert [read.variant_of(user) for user in USERS[:200]] == [after.variant_of(user) for user in USERS[:200]]


def test_variants_of_versions_that_are_gone_leave_their_users_to_main():
    experiment = dealt(a=0.2, b=0.2)
    left = experiment.without({"v-a"})
    assert left == replace(experiment, variants=experiment.variants[1:])
    assert experiment.without({"v-a", "v-b"}) is None


@pytest.mark.parametrize(
    ("name", "asked", "message"),
    [
        ("", arms(a=0.1), "needs a name"),
        ("x", [], "0 variants"),
        ("x", arms(a=0.1, b=0.1, c=0.1, d=0.1, e=0.1), "5 variants: 1 to 4"),
        ("x", arms(main=0.1), "'main'"),
        ("x", arms(forced=0.1), "'forced'"),
        ("x", arms(A=0.1), "variant 'A'"),
        ("x", [Arm("", "v1", 0.1)], "variant ''"),
        ("x", arms(a=-0.1), "share"),
        ("x", arms(a=1.1), "share"),
        ("x", arms(a=math.nan), "share"),
        ("x", arms(a=0.00001), "share"),
        ("x", [Arm("a", "v1", 0.1), Arm("a", "v2", 0.1)], "one name"),
        ("x", arms(a=0.7, b=0.4), "add up to 1.1"),
    ],
)
def test_what_can_not_be_is_refused(name, asked, message):
    with pytest.raises(ValueError, match=message):
        Experiment.dealt(name, asked)


@pytest.mark.parametrize("slots", [[[0, 5], [4, 6]], [[-1, 2]], [[9999, 10001]]])
def test_slots_that_overlap_or_lie_outside_are_refused(slots):
    with pytest.raises(ValueError, match="overlap or lie outside"):
        Experiment.parse({"name": "x", "variants": [{"name": "a", "version": "v1", "slots": slots}]})


def test_texts_are_hashed_one_by_one():
    assert {slot_of("ab", f"c{n}") == slot_of("a", f"bc{n}") for n in range(20)} == {False}
