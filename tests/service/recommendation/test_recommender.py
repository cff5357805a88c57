from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.store import ModelStore
from service.errors import UnknownItemError
from service.index.exact import ExactIndex
from service.index.flat import FlatIndex
from service.live.model import LiveModel
from service.recommendation.recommender import Wish, popular, recommend, recommend_many, recommend_page, similar
from service.state.port import Change
from tests.service.worlds import apply_all, changed, dense_scores, edges_of, live_model, logged, random_pairs
from tests.support.artifacts import World, publish_world


@pytest.mark.parametrize("build_index", [ExactIndex, FlatIndex])
@pytest.mark.parametrize("with_table", [True, False])
def test_the_list_is_that_of_a_full_sort_over_all_items(tmp_path, build_index, with_table):
    artifact = publish_world(tmp_path, World(with_table=with_table))
    model = LiveModel(artifact, build_index, start=0, refresh_every=10)
    pairs = random_pairs(np.random.default_rng(1), 23)
    apply_all(model, pairs)
    edges = edges_of(artifact, pairs)
    for user in [*sorted({user for user, _ in pairs}), "u3"]:
        items, scores = dense_scores(artifact, pairs[:20], pairs, user)
        unseen = sorted(
            (-score, row)
            for row, (item, score) in enumerate(zip(items, scores, strict=True))
            if (user, item) not in edges
        )
        found = recommend(model, user, 10)["items"]
        assert [item["item_id"] for item in found] == [items[row] for _, row in unseen[:10]]
        np.testing.assert_allclose(
            [item["score"] for item in found], [-s for s, _ in unseen[:10]], rtol=1e-4, atol=1e-4
        )
        assert {item["strategy"] for item in found} == {"model" if int(user[1:]) < 30 else "fold_in"}


def test_an_unknown_user_and_one_without_interactions_get_the_popular_items(tmp_path):
    model = live_model(tmp_path)
    top = popular(model, 7)["items"]
    for user in ("nobody", "u29"):  # the last user of a world has no interaction
        found = recommend(model, user, 7)["items"]
        assert [(item["item_id"], item["score"]) for item in found] == [(i["item_id"], i["score"]) for i in top]
        assert {item["strategy"] for item in found} == {"popular"}


def test_a_user_of_new_items_alone_gets_the_popular_items(tmp_path):
    model = live_model(tmp_path)
    model.apply(logged([("x", "fresh")]))
    found = recommend(model, "x", 5)["items"]
    assert {item["strategy"] for item in found} == {"popular"}
    assert "fresh" not in {item["item_id"] for item in found}


def test_an_item_newer_than_the_refresh_fills_the_end_of_the_list(tmp_path):
    model = live_model(tmp_path)
    model.apply(logged([("u1", "fresh"), ("u2", "fresher"), ("u3", "fresher")]))
    found = recommend(model, "u2", 100)["items"]
    assert found[-1] == {"item_id": "fresh", "score": 1.0, "strategy": "popular"}
    assert {item["strategy"] for item in found[:-1]} == {"model"}
    assert len(found) == 42 - len({item for user, item in model.edges() if user == "u2"})


@pytest.mark.parametrize("build_index", [ExactIndex, FlatIndex])
def test_an_item_without_a_vector_stands_behind_those_that_score_below_zero(tmp_path, build_index):
    world = World(n_items=3000, with_table=False)
    likes = live_model(tmp_path / "known", world).user("u1").vector
    # Five items that the user likes, then 500 without a vector, then what it dislikes, more and more.
    amounts = -np.arange(3000) / 3000
    amounts[:5], amounts[5:505] = 1, 0
    vectors = (amounts[:, None] * likes).astype(np.float32)
    artifact = publish_world(tmp_path / "made", world, extra={"item_embeddings": vectors})
    model = LiveModel(artifact, build_index, start=0, refresh_every=1000)
    seen = {item for user, item in model.edges() if user == "u1"}
    scored = [f"i{row}" for row in [*range(5), *range(505, 3000)] if f"i{row}" not in seen]
    for k in (20, 2000):
        found = recommend(model, "u1", k)["items"]
        assert [item["item_id"] for item in found] == scored[:k]
        assert recommend_many(model, [("u1", k), ("u2", k)])[0]["items"] == found
    rest = recommend(model, "u1", 3000)["items"][len(scored) :]
    assert {item["strategy"] for item in rest} == {"popular"}
    assert {item["item_id"] for item in rest} == {f"i{row}" for row in range(5, 505)} - seen
    # The least score that is wanted leaves them out, whatever it is.
    low = recommend_page(model, "u1", Wish(3000, min_score=-1e9))["items"]
    assert [item["item_id"] for item in low] == scored


ids = st.tuples(st.integers(0, 33).map("u{}".format), st.integers(0, 43).map("i{}".format))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(ids, max_size=25), st.integers(1, 60), st.integers(1, 7))
def test_seen_items_are_never_recommended_and_a_list_is_full(tmp_path, pairs, k, refresh_every):
    model = live_model(tmp_path, refresh_every=refresh_every)
    edges = edges_of(model.artifact, [])
    for n, pair in enumerate(pairs):
        apply_all(model, [pair])
        edges.add(pair)
        catalogue = {f"i{row}" for row in range(40)} | {item for _, item in pairs[: n + 1]}
        for user in (pair[0], "u1", "nobody"):
            seen = {item for other, item in edges if other == user}
            found = [item["item_id"] for item in recommend(model, user, k)["items"]]
            assert len(found) == len(set(found)) == min(k, len(catalogue - seen))
            assert set(found) <= catalogue - seen


@pytest.mark.parametrize("build_index", [ExactIndex, FlatIndex])
def test_lists_that_are_made_together_are_those_that_are_made_alone(tmp_path, build_index):
    publish_world(tmp_path, World(n_users=60, n_items=3000, n_interactions=3000))
    model = LiveModel(ModelStore(tmp_path).open(None), build_index, start=0, refresh_every=10)
    heavy = [("u3", f"i{n}") for n in range(500)]
    apply_all(model, [*heavy, ("new", "i7"), ("newer", "nothing-yet")])
    wanted = [(f"u{n}", 5 + n) for n in range(60)]
    wanted += [("u3", 200), ("new", 20), ("newer", 20), ("nobody", 20), ("u1", 1)]
    assert recommend_many(model, wanted) == [recommend(model, user, k) for user, k in wanted]
    assert recommend_many(model, []) == []
    best = recommend(model, "u1", 1)["items"][0]["item_id"]
    model.apply(changed(model.sequence + 1, Change("withdrawal", item_id=best)))
    found = recommend_many(model, wanted)
    assert found == [recommend(model, user, k) for user, k in wanted]
    assert best not in {item["item_id"] for it in found for item in it["items"]}


def test_similar_items_come_by_cosine(tmp_path):
    model = live_model(tmp_path)
    vectors = model.readout.item_embeddings.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[4]
    order = [row for row in np.argsort(-cosines).tolist() if row != 4][:6]
    found = similar(model, "i4", 6)["items"]
    assert [item["item_id"] for item in found] == [f"i{row}" for row in order]
    np.testing.assert_allclose([item["score"] for item in found], cosines[order], rtol=1e-6)


def test_an_unknown_item_has_no_similar_ones(tmp_path):
    with pytest.raises(UnknownItemError, match="nothing"):
        similar(live_model(tmp_path), "nothing", 3)
