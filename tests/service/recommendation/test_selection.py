"""Lists with filters, boosts, diversity and pages, against brute force over all items."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.errors import GoneError, InvalidRequestError
from service.index.exact import ExactIndex
from service.index.flat import FlatIndex
from service.live.model import SESSION, LiveModel
from service.recommendation.cursor import Cursor
from service.recommendation.recommender import POOL, Wish, popular, recommend, recommend_page, similar, unknown_items
from service.recommendation.selection import Boost, ItemFilter, Range
from service.state.port import Change, Interaction, LogEntry
from tests.service.worlds import apply_all, changed, live_model, logged, random_pairs
from tests.support.artifacts import World, publish_world

CATEGORIES = ["a", "b", "c"]


def furnished(root, index=ExactIndex, world: World | None = None, seed: int = 5) -> tuple[LiveModel, dict]:
    """A live model with records for most items, some of them withdrawn, and what they say."""
    model = LiveModel(publish_world(root, world), index, start=0, refresh_every=1000)
    rng = np.random.default_rng(seed)
    records: dict[str, dict] = {}
    changes: list[Change] = []
    for row in range(len(model.items)):
        if rng.random() < 0.8:
            item = model.items.id_of(row)
            records[item] = {
                "categories": [c for c in CATEGORIES if rng.random() < 0.4],
                "attributes": {n: float(rng.integers(0, 5)) for n in ("price", "year") if rng.random() < 0.7},
            }
            changes.append(Change("item", item_id=item, content=records[item]))
    model.apply(changed(1, *changes))
    pairs = random_pairs(np.random.default_rng(6), 20)
    apply_all(model, pairs)
    gone = [model.items.id_of(row) for row in (3, 7, 11)]
    model.apply(changed(model.sequence + 1, *(Change("withdrawal", item_id=item) for item in gone)))
    return model, records


@pytest.fixture(scope="module")
def furnished_model(tmp_path_factory):
    return furnished(tmp_path_factory.mktemp("furnished"))


RANGES = st.fixed_dictionaries(
    {},
    optional={
        "at_least": st.integers(0, 5),
        "above": st.integers(0, 5),
        "at_most": st.integers(0, 5),
        "below": st.integers(0, 5),
    },
).map(lambda bounds: Range(**bounds))
SOME = st.lists(st.sampled_from([*CATEGORIES, "unknown"]), max_size=2, unique=True).map(tuple)
ITEMS = st.lists(st.integers(0, 44).map(lambda n: f"i{n}"), max_size=12, unique=True).map(tuple)
FILTERS = st.builds(
    ItemFilter,
    st.one_of(st.none(), ITEMS),
    ITEMS,
    SOME,
    SOME,
    SOME,
    st.dictionaries(st.sampled_from(["price", "year", "unknown"]), RANGES, max_size=1),
)
WISHES = st.builds(
    Wish,
    st.integers(1, 60),
    FILTERS,
    st.lists(st.builds(Boost, st.integers(-3, 3).map(float), FILTERS), max_size=2).map(tuple),
    st.just(0.0),
    st.one_of(st.none(), st.floats(-2, 3)),
)


def holds(where: ItemFilter, item: str, record: dict | None) -> bool:
    """The filter, by its words."""
    categories = set() if record is None else set(record["categories"])
    attributes = {} if record is None else record["attributes"]
    if where.include is not None and item not in where.include:
        return False
    if item in where.exclude or categories & set(where.none_of) or set(where.all_of) - categories:
        return False
    if where.any_of and not categories & set(where.any_of):
        return False
    for name, bounds in where.ranges.items():
        value = attributes.get(name)
        if value is None:
            return False
        low_enough = (bounds.at_most is None or value <= bounds.at_most) and (
            bounds.below is None or value < bounds.below
        )
        high_enough = (bounds.at_least is None or value >= bounds.at_least) and (
            bounds.above is None or value > bounds.above
        )
        if not (low_enough and high_enough):
            return False
    return True


def expected_list(model: LiveModel, records: dict, user: str, wish: Wish) -> list[tuple[str, float]]:
    """Every item that is allowed and unseen with its score, best first, by loops."""
    view = model.user(user)
    readout, table = model.readout, model.table
    found = []
    if view is not None:
        direct = np.zeros(len(model.items))
        for i in view.seen[view.seen < table.n_rows]:
            row = slice(table.indptr[i], table.indptr[i + 1])
            np.add.at(direct, table.indices[row], table.data[row].astype(np.float64))
        inner = readout.item_embeddings.astype(np.float64) @ view.vector.astype(np.float64)
        seen = set(view.seen.tolist())
    counts = model.counts().tolist()
    for row in range(len(model.items)):
        item = model.items.id_of(row)
        if model.metadata.is_withdrawn(row) or not holds(wish.where, item, records.get(item)):
            continue
        if view is not None and row in seen:
            continue
        boost = sum(b.amount for b in wish.boosts if holds(b.where, item, records.get(item)))
        if view is not None and row < readout.n_items:
            score = inner[row] + direct[row] + boost
            if wish.min_score is None or score >= wish.min_score:
                found.append((0, -score, row, item))
        elif wish.min_score is None:
            found.append((1, -(counts[row] + boost), row, item))
    return [(item, -score) for _, score, _, item in sorted(found)]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(["u1", "u5", "u33", "nobody"]), WISHES)
def test_a_list_is_that_of_brute_force_whatever_the_filters_and_boosts(furnished_model, user, wish):
    model, records = furnished_model
    expected = expected_list(model, records, user, wish)
    page = recommend_page(model, user, wish)
    assert [item["item_id"] for item in page["items"]] == [item for item, _ in expected[: wish.k]]
    np.testing.assert_allclose(
        [item["score"] for item in page["items"]], [score for _, score in expected[: wish.k]], rtol=1e-9, atol=1e-9
    )
    assert (page["cursor"] is None) == (len(expected) <= wish.k)


@pytest.mark.parametrize("index", [ExactIndex, FlatIndex])
def test_a_large_catalogue_and_a_heavy_user_are_served_exactly_by_every_backend(tmp_path, index):
    world = World(n_users=20, n_items=4000, n_interactions=3000, with_table=True)
    model, records = furnished(tmp_path, index, world)
    heavy = [(("heavy"), f"i{n}") for n in range(0, 4000, 2)]
    model.apply(logged(heavy, model.sequence + 1))
    model.refresh()
    for user in ("heavy", "u3"):
        for wish in (
            Wish(30),
            Wish(30, ItemFilter(any_of=("a",))),
            Wish(30, ItemFilter(include=tuple(f"i{n}" for n in range(90, 110)))),
            Wish(30, ItemFilter(all_of=("a", "b", "c"), ranges={"price": Range(at_least=4)}), min_score=0.0),
            Wish(30, boosts=(Boost(2.0, ItemFilter(any_of=("b",))), Boost(-1.0, ItemFilter(any_of=("c",))))),
        ):
            expected = expected_list(model, records, user, wish)[:30]
            found = recommend_page(model, user, wish)["items"]
            assert [item["item_id"] for item in found] == [item for item, _ in expected]
    assert recommend_page(model, "u3", Wish(1))["index"] == model.readout.index.name


def test_pages_put_together_are_the_whole_list_and_end(furnished_model):
    model, records = furnished_model
    for user in ("u5", "nobody"):
        for diversity in (0.0, 0.4):
            wish = Wish(7, ItemFilter(none_of=("c",)), diversity=diversity)
            whole = recommend_page(model, user, replace(wish, k=1000))
            assert whole["cursor"] is None
            assert {item["item_id"] for item in whole["items"]} == {
                item for item, _ in expected_list(model, records, user, wish)
            }
            items, cursor = [], None
            while True:
                page = recommend_page(model, user, wish, cursor)
                items += page["items"]
                if page["cursor"] is None:
                    break
                assert len(page["items"]) == 7
                cursor = Cursor.decode(page["cursor"])
            assert items == whole["items"]
            assert len(items) < POOL


def test_a_diverse_list_holds_the_same_items_in_the_order_of_relevance_and_unlikeness(furnished_model):
    model, _ = furnished_model
    plain = recommend_page(model, "u5", Wish(100))["items"]
    diverse = recommend_page(model, "u5", Wish(100, diversity=0.7))["items"]
    assert diverse != plain
    assert diverse[0] == plain[0]
    assert sorted(item["item_id"] for item in diverse) == sorted(item["item_id"] for item in plain)


def test_a_cursor_is_gone_when_its_list_is_and_only_then(tmp_path):
    model, _ = furnished(tmp_path)
    wish = Wish(5, ItemFilter(none_of=("c",)))

    def second(user, cursor, wish=wish):
        return recommend_page(model, user, wish, Cursor.decode(cursor))

    first, of_popular = (recommend_page(model, user, wish)["cursor"] for user in ("u5", "nobody"))
    before = second("u5", first)
    with pytest.raises(InvalidRequestError, match="another request"):
        second("u6", first)
    with pytest.raises(InvalidRequestError, match="another request"):
        second("u5", first, Wish(5))
    assert second("u5", first, replace(wish, k=2))["items"] == before["items"][:2]
    # What strangers do changes nothing here, though the log goes on; a popular list has another item.
    model.apply(logged([("stranger", "strange")], model.sequence + 1))
    same = second("u5", first)
    assert same["items"] == before["items"]
    assert same["sequence"] > before["sequence"]
    with pytest.raises(GoneError, match=f"version {model.version} made it at sequence {before['sequence']}"):
        second("nobody", of_popular)
    # The user's own interaction, and an item that is withdrawn, change the list.
    fresh = recommend_page(model, "u5", wish)["cursor"]
    model.apply(changed(model.sequence + 1, Change("withdrawal", item_id=before["items"][0]["item_id"])))
    with pytest.raises(GoneError, match="Begin again"):
        second("u5", fresh)
    fresh = recommend_page(model, "u5", wish)["cursor"]
    model.apply(logged([("u5", before["items"][1]["item_id"])], model.sequence + 1))
    with pytest.raises(GoneError):
        second("u5", fresh)


def test_a_cursor_is_gone_when_a_record_leaves_an_item_of_its_list_without_a_vector(tmp_path):
    model = live_model(tmp_path, World(with_encoders=True), refresh_every=1000)
    told = {"entities": [{"relation": "r0", "entity": "e1"}]}
    model.apply(changed(1, Change("item", item_id="new", content=told)))
    model.refresh()
    cursor = recommend_page(model, "u1", Wish(5))["cursor"]
    model.apply(changed(2, Change("item", item_id="new", content={})))
    with pytest.raises(GoneError):
        recommend_page(model, "u1", Wish(5), Cursor.decode(cursor))


@pytest.mark.parametrize("text", ["", "x", "AAAA", "bnVsbA", "WzEsMiwzLDQsNV0", "é"])
def test_what_is_no_cursor_is_refused(text):
    with pytest.raises(InvalidRequestError, match="none that this service gave out"):
        Cursor.decode(text)


@pytest.mark.parametrize("settled", [True, False])
def test_a_session_gets_what_a_new_user_with_its_items_gets_and_leaves_nothing(tmp_path, settled):
    model = live_model(tmp_path / "one", refresh_every=1000)
    pairs = random_pairs(np.random.default_rng(3), 25)
    apply_all(model, pairs)
    if settled:
        while model.settle():
            pass
    items = ["i3", "i17", pairs[0][1]]
    digest, n_users = (model.digest() if settled else None), len(model.users)
    page = recommend_page(model, [*items, items[0], "never seen"], Wish(12))
    view = model.session(np.unique(model.items.rows(items)))
    assert (len(model.users), model.sequence) == (n_users, 25)
    if settled:
        assert model.digest() == digest
    assert unknown_items(model, [*items, "never seen", "never seen"]) == ["never seen"]
    # The same as an interaction log would say it.
    model.apply([LogEntry(26 + n, SESSION, item, 0.0) for n, item in enumerate(items)])
    expected = model.user(SESSION)
    assert expected is not None
    assert view.vector.tobytes() == expected.vector.tobytes()
    assert view.similarity.tobytes() == expected.similarity.tobytes()
    assert view.seen.tolist() == expected.seen.tolist()
    assert page["items"] == recommend(model, SESSION, 12)["items"]
    assert {item["strategy"] for item in page["items"]} == {"fold_in"}
    assert page["user_id"] is None


def test_a_session_of_nothing_that_is_known_gets_the_popular_items(furnished_model):
    model, _ = furnished_model
    for session in ([], ["never seen"]):
        assert recommend_page(model, session, Wish(5))["items"] == recommend(model, "nobody", 5)["items"]


def test_a_withdrawn_item_is_nowhere_until_it_is_put_again(tmp_path):
    model = live_model(tmp_path, refresh_every=1000)
    best = recommend(model, "u4", 1)["items"][0]["item_id"]
    most = popular(model, 1)["items"][0]["item_id"]
    near = similar(model, "i5", 1)["items"][0]["item_id"]
    gone = {best, most, near}
    model.apply(changed(1, *(Change("withdrawal", item_id=item) for item in sorted(gone))))
    # An interaction does not bring it back.
    model.apply(changed(model.sequence + 1, *(Interaction("u9", item, 0.0) for item in sorted(gone))))
    for found in (
        recommend(model, "u4", 100)["items"],
        recommend(model, "nobody", 100)["items"],
        recommend_page(model, "u4", Wish(100, ItemFilter(include=tuple(gone))))["items"],
        recommend_page(model, ["i1"], Wish(100, diversity=0.5))["items"],
        popular(model, 100)["items"],
        similar(model, "i5", 100)["items"],
    ):
        assert not gone & {item["item_id"] for item in found}
    model.apply(changed(model.sequence + 1, Change("item", item_id=best, content={})))
    assert recommend(model, "u4", 1)["items"][0]["item_id"] == best
