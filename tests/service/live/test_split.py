from __future__ import annotations

import math

import pytest

from service.live.split import Split, uniform

USERS = [f"u{n}" for n in range(4000)]


def test_a_variant_gets_its_weights_share_of_the_users():
    split = Split("test", {"a": 3.0, "b": 1.0, "off": 0.0})
    counts = dict.fromkeys(split.weights, 0)
    for user in USERS:
        counts[split.variant_of(user)] += 1
    # Binomial: n p ± 4 standard deviations.
    for variant, p in (("a", 0.75), ("b", 0.25)):
        assert abs(counts[variant] - len(USERS) * p) < 4 * math.sqrt(len(USERS) * p * (1 - p))
        assert split.share_of(variant) == p
    assert counts["off"] == split.share_of("off") == split.share_of("unknown") == 0


def test_the_same_user_gets_the_same_variant_whatever_the_order_of_the_variants():
    one, other = Split("test", {"a": 1.0, "b": 2.0}), Split("test", {"b": 2.0, "a": 1.0})
    assert [one.variant_of(user) for user in USERS] == [other.variant_of(user) for user in USERS]


def test_a_share_that_grows_moves_users_to_the_canary_alone():
    before, after = (Split.canary("c", "v1", "v2", share) for share in (0.1, 0.3))
    moved = [(before.variant_of(user), after.variant_of(user)) for user in USERS]
    assert ("v2", "v1") not in moved
    assert moved.count(("v1", "v2")) > 0


def test_a_third_variant_takes_users_and_shuffles_nobody_between_the_others():
    before, after = Split("x", {"a": 1.0, "b": 1.0}), Split("x", {"a": 1.0, "b": 1.0, "c": 1.0})
    moved = {(before.variant_of(user), after.variant_of(user)) for user in USERS}
    assert moved == {("a", "a"), ("b", "b"), ("a", "c"), ("b", "c")}


def test_another_name_deals_anew():
    one, other = Split("x", {"a": 1.0, "b": 1.0}), Split("y", {"a": 1.0, "b": 1.0})
    assert {(one.variant_of(user), other.variant_of(user)) for user in USERS} == {(a, b) for a in "ab" for b in "ab"}


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_all_or_nothing(share):
    split = Split.canary("c", "v1", "v2", share)
    assert {split.variant_of(user) for user in USERS[:100]} == {"v2" if share else "v1"}


@pytest.mark.parametrize("weights", [{}, {"a": 0.0}, {"a": -1.0, "b": 2.0}, {"a": math.nan}, {"a": math.inf}])
def test_weights_that_divide_nothing_are_refused(weights):
    with pytest.raises(ValueError, match=r"split 'x'|variant 'a'"):
        Split("x", weights)


@pytest.mark.parametrize(("main", "canary", "share"), [("v1", "v1", 0.5), ("v1", "v2", 1.5), ("v1", "v2", -0.1)])
def test_a_canary_needs_two_names_and_a_share(main, canary, share):
    with pytest.raises(ValueError, match="two names"):
        Split.canary("c", main, canary, share)


def test_texts_are_hashed_one_by_one():
    assert uniform("ab", "c") != uniform("a", "bc")
    assert 0 < uniform("") < 1
