from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from tests.training.item_item.histories import N_ITEMS, history, kept_by_hand
from tests.training.worlds import clips, small
from training.errors import ConfigurationError
from training.evaluation import interaction_matrix
from training.item_item import (
    EASE_L2,
    Content,
    Regressions,
    climb,
    item_item_weights,
    rp3beta_weights,
    select_weights,
    with_share,
    without_selection,
)
from training.item_item.ease import ease_table, gram_inverse, weighted_gram
from training.item_item.local import local_table
from training.item_item.selection import TARGET_EXPONENTS
from training.settings import ItemItemSettings, TableSettings

NO_CONTENT = Content(N_ITEMS, {}, None)


def settings(**values: object) -> ItemItemSettings:
    """The small settings of B with one hop, these on top."""
    return small(item_item={"weight": 1.0, "two_hop_weight": 0.0, **values}).item_item


def made(matrix: sparse.csr_array, **values: object) -> sparse.csr_array:
    table = item_item_weights(matrix, settings(**values), NO_CONTENT)
    assert table is not None
    return table


class Wanted:
    """A bench that likes tables the better the nearer they are to one."""

    def __init__(self, table: sparse.csr_array, share: float = 1.0) -> None:
        self.table, self.share, self.n_asked = table, share, 0

    def quality(self, table: sparse.csr_array) -> float:
        self.n_asked += 1
        return -float(np.abs((table - self.table).toarray()).sum())

    def best_weight(self, table: sparse.csr_array) -> float:
        return 3.0

    def best_share(self, table: sparse.csr_array, other: sparse.csr_array) -> tuple[float, float]:
        return self.quality(with_share(table, other, self.share)), self.share


class Hopeful(Wanted):
    """One that finds look-alikes a little better than nothing, so that their source is looked into."""

    def best_share(self, table: sparse.csr_array, other: sparse.csr_array) -> tuple[float, float]:
        quality, share = super().best_share(table, other)
        return quality + 1e-6, share


class Never(Wanted):
    """A bench that nobody may ask."""

    def quality(self, table: sparse.csr_array) -> float:
        raise AssertionError

    def best_weight(self, table: sparse.csr_array) -> float:
        raise AssertionError


# ---- what the settings say -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["ease", "local", "rp3beta", "auto"])
def test_b_has_no_negative_entry_no_diagonal_and_at_most_so_many_a_row(method: str) -> None:
    weights = made(history(4)[1], method=method, per_row=3)
    assert weights.shape == (N_ITEMS, N_ITEMS)
    assert weights.data.min() > 0
    assert np.diff(weights.indptr).max() == 3
    assert not weights.diagonal().any()


@pytest.mark.parametrize(("limits", "method"), [((9, 9), "ease"), ((8, 9), "local"), ((9, 8), "local")])
def test_auto_is_ease_up_to_both_limits_and_local_beyond(limits: tuple[int, int], method: str) -> None:
    _, matrix = history()
    found = made(matrix, method="auto", exact_items=limits[0], ease_limit=limits[1])
    np.testing.assert_array_equal(found.toarray(), made(matrix, method=method).toarray())


def test_each_method_takes_its_settings() -> None:
    _, matrix = history(5)
    ease = made(matrix, method="ease", l2=7.0, user_exponent=1.0, target_exponent=0.5, per_row=4)
    expected = ease_table(gram_inverse(matrix, 7.0, 1.0), 7.0, 0.5, 4)
    np.testing.assert_array_equal(ease.toarray(), expected.toarray())
    rp3beta = made(matrix, method="rp3beta", beta=0.7, per_row=4)
    np.testing.assert_array_equal(rp3beta.toarray(), rp3beta_weights(matrix, 0.7, 4).toarray())
    local = made(matrix, method="local", l2=7.0, user_exponent=1.0, target_exponent=0.0, n_candidates=2)
    table, rest = local_table(weighted_gram(matrix, 1.0), 7.0, 2)
    # As for ease: times λ P_jj, and `rest` is 1 / P_jj.
    np.testing.assert_allclose(local.toarray(), table.toarray() * (7.0 / rest), rtol=1e-6)


@pytest.mark.parametrize("method", ["ease", "local"])
def test_two_hops_are_added_with_their_weight_and_no_row_gets_longer(method: str) -> None:
    _, matrix = history(5)
    values = {"method": method, "l2": 7.0, "target_exponent": 0.5, "per_row": 4}
    one = made(matrix, **values).toarray()
    reached = one @ one
    np.fill_diagonal(reached, 0.0)
    reached = kept_by_hand(reached, 4)
    scale = 0.5 * one[one > 0].mean() / reached[reached > 0].mean()
    expected = kept_by_hand(one + scale * reached, 4)
    assert (expected[one == 0] > 0).any()
    np.testing.assert_allclose(made(matrix, two_hop_weight=0.5, **values).toarray(), expected, rtol=1e-5)


def test_a_walk_of_three_steps_gets_no_two_hops() -> None:
    _, matrix = history(5)
    found = made(matrix, method="rp3beta", two_hop_weight=2.0)
    np.testing.assert_array_equal(found.toarray(), made(matrix, method="rp3beta").toarray())


def test_there_is_nothing_for_none_and_nothing_without_interactions() -> None:
    _, matrix = history()
    nobody = sparse.csr_array((3, 4), dtype=np.float32)
    assert item_item_weights(matrix, settings(method="none"), NO_CONTENT) is None
    assert item_item_weights(nobody, settings(), Content(4, {}, None)) is None
    assert select_weights(Regressions(matrix, settings(method="none"), NO_CONTENT), Never(matrix))[0] is None
    assert select_weights(Regressions(nobody, settings(), Content(4, {}, None)), Never(nobody))[0] is None


def test_named_content_is_added_with_its_weight() -> None:
    data = clips()
    matrix = interaction_matrix(data.train, data.n_users, data.n_items)
    content = Content(data.n_items, data.features, data.knowledge)
    source = content.sources[0]
    values = settings(content=source, content_weight=0.5, n_neighbors=3)
    found = item_item_weights(matrix, values, content)
    plain = item_item_weights(matrix, replace(values, content="none"), content)
    assert found is not None
    assert plain is not None
    np.testing.assert_array_equal(found.toarray(), with_share(plain, content.table(source, 3), 0.5).toarray())
    assert (found.toarray() != plain.toarray()).any()


# ---- without a validation split --------------------------------------------------------------------------------------


def test_without_selection_ease_s_own_exponent_one_hop_and_no_content_are_taken() -> None:
    found = without_selection(settings(method="auto", target_exponent=-1.0, two_hop_weight=-1.0, content="auto"), 9)
    assert (found.method, found.target_exponent, found.two_hop_weight, found.content) == ("ease", 1.0, 0.0, "none")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"l2": -1.0}, r"item_item\.l2 = -1: .*--set item_item\.l2=100"),
        ({"l2": -1.0, "method": "local"}, r"item_item\.l2 = -1"),
        ({"weight": -1.0}, r"item_item\.weight = -1: .*--set item_item\.weight=64"),
        ({"content": "relations"}, r"item_item\.content_weight = -1: .*--set item_item\.content_weight=1"),
    ],
)
def test_what_only_validation_can_choose_is_refused_without_one(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        without_selection(settings(**values), 9)


@pytest.mark.parametrize("values", [{"weight": 0.0}, {"method": "none"}])
def test_where_b_is_0_nothing_has_to_be_chosen(values: dict[str, object]) -> None:
    without_selection(settings(**{"l2": -1.0, **values}), 9)


# ---- selection -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("peak", range(len(EASE_L2)))
def test_the_climb_ends_on_the_one_peak_wherever_it_is_and_makes_no_table_twice(peak: int) -> None:
    made: list[float] = []

    def make(l2: float) -> float:
        made.append(l2)
        return l2

    found, l2 = climb(make, lambda value: -abs(EASE_L2.index(value) - peak))
    assert l2 == EASE_L2[peak] == found
    assert len(made) == len(set(made)) <= 4


def test_of_equal_qualities_the_middle_of_the_grid_is_kept() -> None:
    assert climb(lambda l2: l2, lambda _: 0.5)[1] == EASE_L2[len(EASE_L2) // 2]


@pytest.mark.parametrize("method", ["ease", "local"])
@pytest.mark.parametrize(("l2", "exponent"), [(50.0, 0.5), (200.0, 0.0), (100.0, 1.0)])
def test_lambda_and_the_exponent_are_those_of_the_best_table(method: str, l2: float, exponent: float) -> None:
    _, matrix = history(5)
    best = made(matrix, method=method, l2=l2, target_exponent=exponent)
    table, chosen = select_weights(Regressions(matrix, settings(method=method, l2=-1.0), NO_CONTENT), Wanted(best))
    assert (chosen.l2, chosen.target_exponent, chosen.method) == (l2, exponent, method)
    assert table is not None
    np.testing.assert_array_equal(table.toarray(), best.toarray())


def test_what_is_given_is_taken_without_asking() -> None:
    _, matrix = history(5)
    for values in (
        {"l2": 7.0, "target_exponent": 1.0},
        {"l2": 7.0, "target_exponent": 0.5, "method": "local"},
        {"l2": 7.0, "target_exponent": 0.5, "two_hop_weight": 2.0},
        {"method": "rp3beta"},
    ):
        given = settings(**values)
        table, chosen = select_weights(Regressions(matrix, given, NO_CONTENT), Never(matrix))
        assert table is not None
        np.testing.assert_array_equal(table.toarray(), made(matrix, **values).toarray())
        resolved = "ease" if given.method == "auto" else given.method
        assert chosen == replace(given, method=resolved, content="none", content_weight=0.0, content_gram=0.0)


def test_a_given_lambda_leaves_the_exponent_to_selection() -> None:
    _, matrix = history(5)
    wanted = Wanted(made(matrix, l2=7.0, target_exponent=0.0))
    _, chosen = select_weights(Regressions(matrix, settings(l2=7.0), NO_CONTENT), wanted)
    assert (chosen.l2, chosen.target_exponent) == (7.0, 0.0)
    assert wanted.n_asked == len(TARGET_EXPONENTS)


@pytest.mark.parametrize("method", ["ease", "local"])
def test_two_hops_are_added_with_their_best_share_and_left_out_where_they_help_nothing(method: str) -> None:
    _, matrix = history(5)
    values = {"method": method, "l2": 7.0, "target_exponent": 1.0, "per_row": 4}
    given = settings(**values, two_hop_weight=-1.0)
    for weight in (0.0, 2.0):
        wanted = made(matrix, **values, two_hop_weight=weight)
        table, chosen = select_weights(Regressions(matrix, given, NO_CONTENT), Wanted(wanted, share=2.0))
        assert chosen.two_hop_weight == weight
        assert table is not None
        np.testing.assert_array_equal(table.toarray(), wanted.toarray())
        # A refit makes the same table from the settings alone.
        again = item_item_weights(matrix, chosen, NO_CONTENT)
        assert again is not None
        np.testing.assert_array_equal(again.toarray(), wanted.toarray())


def test_look_alikes_get_a_share_of_their_own_beside_two_hops() -> None:
    matrix, content, given = with_clips(l2=5.0, target_exponent=1.0, two_hop_weight=-1.0)
    source = next(source for source in content.sources if source.startswith("features."))
    resolved = replace(given, method="ease", two_hop_weight=2.0, content=source, content_weight=2.0, content_gram=0.0)
    wanted = item_item_weights(matrix, resolved, content)
    assert wanted is not None
    regressions = Regressions(matrix, replace(given, content=source), content)
    table, chosen = select_weights(regressions, Wanted(wanted, share=2.0))
    assert chosen == resolved
    assert table is not None
    np.testing.assert_array_equal(table.toarray(), wanted.toarray())


@pytest.mark.parametrize("method", ["ease", "local"])
def test_b_is_the_mean_of_what_each_part_prefers_by_their_best_weights(method: str) -> None:
    matrix, content, given = with_clips(method=method, l2=-1.0, two_hop_weight=-1.0, per_row=4, content="none")
    first = replace(given, l2=50.0, target_exponent=0.5, two_hop_weight=0.0)
    second = replace(first, l2=100.0, target_exponent=0.0)
    tables = [item_item_weights(matrix, one, content) for one in (first, second)]
    regressions = Regressions(matrix, given, content)
    whole, *parts = [Wanted(tables[place]) for place in (0, 0, 1, 0)]  # type: ignore[arg-type]
    found, chosen = select_weights(regressions, whole, parts)
    names = [(one.l2, one.target_exponent, one.two_hop_weight) for one in chosen.mean_of]
    assert names == [(50.0, 0.5, 0.0), (100.0, 0.0, 0.0)]
    assert [one.weight for one in chosen.mean_of] == pytest.approx([2 / 3, 1 / 3])
    dense = 2 / 3 * tables[0].toarray() + 1 / 3 * tables[1].toarray()  # type: ignore[union-attr]
    assert found is not None
    np.testing.assert_allclose(found.toarray(), kept_by_hand(dense, 4 + 3), rtol=1e-5, atol=1e-7)
    # A refit makes the same table from the settings alone, and nothing of it is selected again.
    again = item_item_weights(matrix, chosen, content)
    assert again is not None
    np.testing.assert_array_equal(again.toarray(), found.toarray())
    kept, same = select_weights(Regressions(matrix, chosen, content), Never(matrix), [Never(matrix)])
    assert kept is not None
    np.testing.assert_array_equal(kept.toarray(), found.toarray())
    assert same == chosen


def test_parts_choose_among_the_regressions_that_the_whole_asks_about_whatever_was_made_before() -> None:
    matrix, content, given = with_clips(l2=-1.0, content="relations")
    resolved = replace(given, method="ease", l2=50.0, target_exponent=0.5, content_weight=0.0, content_gram=3.0)
    wanted = item_item_weights(matrix, resolved, content)
    far = item_item_weights(matrix, replace(resolved, l2=500.0, content_gram=100.0), content)
    assert wanted is not None
    assert far is not None
    found = []
    for made_before in (False, True):
        regressions = Regressions(matrix, given, content)
        if made_before:
            regressions.tables(500.0, "relations", 100.0)
        _, chosen = select_weights(regressions, Hopeful(wanted, share=0.0), [Hopeful(far, share=0.0)])
        found.append(chosen)
    assert found[0] == found[1]
    (choice,) = found[0].mean_of
    assert choice.content == "relations"
    assert 3.0 < choice.content_gram < 100.0  # the nearest to it of those


@pytest.mark.parametrize(
    ("choices", "message"),
    [
        ([{"target_exponent": 1.0}], r"item_item\.mean_of\.0\.l2 = -1: every table"),
        ([{"l2": 5.0, "target_exponent": 1.0}, {"l2": 5.0}], r"item_item\.mean_of\.1\.target_exponent = -1"),
        ([{"l2": 5.0, "target_exponent": 1.0, "weight": 0.0}], r"item_item\.mean_of: every table's weight is 0"),
    ],
)
def test_a_table_of_a_mean_that_lacks_something_is_named(choices: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        made(history()[1], mean_of=choices)


def test_where_all_parts_agree_there_is_one_table() -> None:
    _, matrix = history(5)
    wanted = made(matrix, l2=50.0, target_exponent=1.0)
    regressions = Regressions(matrix, settings(l2=-1.0), NO_CONTENT)
    for parts in ([], [Wanted(wanted), Wanted(wanted)]):
        table, chosen = select_weights(regressions, Wanted(wanted), parts)
        assert (chosen.l2, chosen.target_exponent, chosen.mean_of) == (50.0, 1.0, ())
        assert table is not None
        np.testing.assert_array_equal(table.toarray(), wanted.toarray())
    nothing = Regressions(matrix, settings(method="none"), NO_CONTENT)
    assert select_weights(nothing, Never(matrix), [Never(matrix)])[0] is None


def test_parts_are_not_asked_about_what_is_given() -> None:
    matrix, content, given = with_clips(l2=5.0, target_exponent=1.0, content="relations", content_weight=0.5)
    for gram in (0.0, 4.0):
        resolved = replace(given, method="ease", content_gram=gram)
        _, chosen = select_weights(Regressions(matrix, resolved, content), Never(matrix), [Never(matrix)])
        assert chosen == resolved


def test_without_selection_a_mean_needs_its_weight_alone() -> None:
    given = settings(l2=-1.0, weight=2.0, mean_of=[TableSettings(l2=5.0, target_exponent=1.0)])
    assert without_selection(given, 9) == replace(given, method="ease")
    with pytest.raises(ConfigurationError, match=r"item_item\.weight = -1: .*--set item_item\.weight=64"):
        without_selection(replace(given, weight=-1.0), 9)


def test_the_best_source_of_content_is_taken_with_its_share_and_none_where_none_helps() -> None:
    data = clips()
    matrix = interaction_matrix(data.train, data.n_users, data.n_items)
    content = Content(data.n_items, data.features, data.knowledge)
    plain = item_item_weights(matrix, settings(target_exponent=1.0), Content(data.n_items, {}, None))
    assert plain is not None
    given = settings(target_exponent=1.0, n_neighbors=3)
    for source in content.sources[:2]:
        wanted = with_share(plain, content.table(source, 3), 2.0)
        table, chosen = select_weights(Regressions(matrix, given, content), Wanted(wanted, share=2.0))
        assert (chosen.content, chosen.content_weight) == (source, 2.0)
        assert table is not None
        np.testing.assert_array_equal(table.toarray(), wanted.toarray())
        # A refit makes the same table from the settings alone.
        again = item_item_weights(matrix, chosen, content)
        assert again is not None
        np.testing.assert_array_equal(again.toarray(), wanted.toarray())
    _, chosen = select_weights(Regressions(matrix, given, content), Wanted(plain, share=2.0))
    assert (chosen.content, chosen.content_weight) == ("none", 0.0)


def with_clips(**values: object) -> tuple[sparse.csr_array, Content, ItemItemSettings]:
    data = clips()
    matrix = interaction_matrix(data.train, data.n_users, data.n_items)
    return matrix, Content(data.n_items, data.features, data.knowledge), settings(n_neighbors=3, **values)


@pytest.mark.parametrize("method", ["ease", "local"])
@pytest.mark.parametrize(("l2", "gram"), [(20.0, 3.0), (200.0, 100.0), (50.0, 3.0)])
def test_content_goes_into_the_regression_where_that_is_better_and_lambda_is_climbed_again(
    method: str, l2: float, gram: float
) -> None:
    matrix, content, given = with_clips(method=method, l2=-1.0, content="relations")
    resolved = replace(given, l2=l2, target_exponent=0.5, content_weight=0.0, content_gram=gram)
    wanted = item_item_weights(matrix, resolved, content)
    assert wanted is not None
    table, chosen = select_weights(Regressions(matrix, given, content), Hopeful(wanted, share=0.0))
    assert chosen == resolved
    assert table is not None
    np.testing.assert_array_equal(table.toarray(), wanted.toarray())
    # A given α is not searched, and 0 leaves the content out of the regression.
    regressions = Regressions(matrix, replace(given, content_gram=gram), content)
    assert select_weights(regressions, Hopeful(wanted, share=0.0))[1] == resolved
    regressions = Regressions(matrix, replace(given, content_gram=0.0), content)
    assert select_weights(regressions, Hopeful(wanted, share=0.0))[1].content_gram == 0


class Ranking(Wanted):
    """One that finds some look-alikes a little better than nothing, the first of them most, and the others useless."""

    def __init__(self, table: sparse.csr_array, look_alikes: list[sparse.csr_array]) -> None:
        super().__init__(table, share=0.0)
        self.look_alikes = look_alikes

    def best_share(self, table: sparse.csr_array, other: sparse.csr_array) -> tuple[float, float]:
        places = [place for place, near in enumerate(self.look_alikes) if near is other]
        return self.quality(table) + (1e-6 / (1 + places[0]) if places else -1.0), self.share


@pytest.mark.parametrize(("rank", "taken"), [(0, True), (1, True), (2, False)])
def test_of_the_two_sources_with_the_best_look_alikes_the_one_is_taken_that_is_better_in_the_regression(
    rank: int, taken: bool
) -> None:
    matrix, content, given = with_clips(method="local", l2=-1.0)
    names = ["relations", "relation.creator", "relation.keyword"]
    best = names.pop(0)
    names.insert(rank, best)
    resolved = replace(given, l2=20.0, target_exponent=0.5, content=best, content_weight=0.0, content_gram=3.0)
    wanted = item_item_weights(matrix, resolved, content)
    assert wanted is not None
    bench = Ranking(wanted, [content.table(name, 3) for name in names])
    chosen = select_weights(Regressions(matrix, given, content), bench)[1]
    assert (chosen == resolved) is taken
    alone = select_weights(Regressions(matrix, replace(given, n_sources=1), content), bench)[1]
    assert (alone.content == best) is (rank == 0)
    # Parts choose among that source's regressions alone, whatever else was asked about.
    several = select_weights(Regressions(matrix, given, content), bench, [bench, Wanted(wanted * 2, share=0.0)])[1]
    assert all(choice.content in {best, "none"} for choice in several.mean_of) or not taken


@pytest.mark.parametrize("method", ["ease", "local"])
def test_look_alikes_are_added_to_a_regression_that_takes_in_the_content_where_they_help(method: str) -> None:
    matrix, content, given = with_clips(method=method, l2=5.0, target_exponent=1.0)
    source = content.sources[0]
    resolved = replace(given, content=source, content_weight=2.0, content_gram=10.0)
    wanted = item_item_weights(matrix, resolved, content)
    assert wanted is not None
    table, chosen = select_weights(
        Regressions(matrix, replace(given, content_gram=10.0), content), Wanted(wanted, share=2.0)
    )
    assert chosen == resolved
    assert table is not None
    np.testing.assert_array_equal(table.toarray(), wanted.toarray())


def test_feature_vectors_go_into_the_regression_only_where_that_is_asked_for() -> None:
    matrix, content, given = with_clips(l2=5.0, target_exponent=1.0)
    features = next(source for source in content.sources if source.startswith("features."))
    named = replace(given, content=features)
    wanted = item_item_weights(matrix, replace(named, content_weight=0.0, content_gram=10.0), content)
    assert wanted is not None
    found = [
        select_weights(Regressions(matrix, replace(named, content_gram=gram), content), Hopeful(wanted, share=0.5))[1]
        for gram in (-1.0, 10.0)
    ]
    assert [(chosen.content, chosen.content_gram) for chosen in found] == [(features, 0.0), (features, 10.0)]


def test_everything_that_is_given_of_the_content_is_taken_without_asking() -> None:
    matrix, content, given = with_clips(l2=5.0, target_exponent=1.0, content="relations", content_weight=0.5)
    for gram in (0.0, 4.0):
        resolved = replace(given, method="ease", content_gram=gram)
        table, chosen = select_weights(Regressions(matrix, resolved, content), Never(matrix))
        wanted = item_item_weights(matrix, resolved, content)
        assert chosen == resolved
        assert table is not None
        assert wanted is not None
        np.testing.assert_array_equal(table.toarray(), wanted.toarray())
