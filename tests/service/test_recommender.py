from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model_store.artifact import Artifact, write_artifact
from service.errors import UnknownItemError, UnknownUserError
from service.index.exact import ExactIndex
from service.index.flat import FlatIndex
from service.live_model import LiveModel
from service.recommender import explain, popular, recommend, similar
from tests.service.worlds import apply_all, dense_scores, edges_of, live_model, logged, random_pairs
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


@pytest.mark.parametrize("n_layers", [1, 2, 3])
@pytest.mark.parametrize("self_loops", [True, False])
def test_an_explanation_adds_up_to_the_served_score(tmp_path, n_layers, self_loops):
    model = live_model(tmp_path, World(n_layers=n_layers, self_loops=self_loops, seed=n_layers), refresh_every=10)
    pairs = random_pairs(np.random.default_rng(n_layers), 27)
    for new in ([], pairs):
        apply_all(model, new)
        for user in sorted({"u0", "u1", "u29", *(user for user, _ in new)}):
            served = {item["item_id"]: item for item in recommend(model, user, 100)["items"]}
            seen = {item for other, item in model.edges() if other == user}
            for rank, item_id in enumerate(list(served)[:6], 1):
                found = explain(model, user, item_id)
                if served[item_id]["strategy"] != "popular":
                    assert found["score"] == served[item_id]["score"]
                    assert found["rank"] == rank
                assert found["strategy"] == served[item_id]["strategy"]
                parts = found["contributions"]
                magnitude = abs(found["self"]) + sum(abs(part["contribution"]) for part in parts)
                gap = abs(found["score"] - found["self"] - sum(part["contribution"] for part in parts))
                assert gap <= 1e-4 * magnitude
                assert found["additivity_error"] <= 1e-4
                assert {part["item_id"] for part in parts} == seen
                sizes = [abs(part["contribution"]) for part in parts]
                assert sizes == sorted(sizes, reverse=True)
                for part in parts:
                    assert part["contribution"] == pytest.approx(part["link"] + part["attention"] + part["direct"])
                    assert part["attention"] == pytest.approx(0.7 * part["similarity"] * part["link"])
                    assert part["share"] * magnitude == pytest.approx(part["contribution"])
                assert found["self_share"] * magnitude == pytest.approx(found["self"])


def test_a_seen_item_has_a_score_but_no_rank(tmp_path):
    model = live_model(tmp_path)
    user, item = min(model.edges())
    found = explain(model, user, item)
    assert found["rank"] is None
    assert found["score"] != 0


def test_an_item_without_a_vector_yet_explains_as_nothing(tmp_path):
    model = live_model(tmp_path)
    model.apply(logged([("u1", "fresh")]))
    found = explain(model, "u2", "fresh")
    assert (found["score"], found["rank"], found["additivity_error"]) == (0.0, None, 0.0)


def test_what_is_unknown_can_not_be_explained(tmp_path):
    model = live_model(tmp_path)
    with pytest.raises(UnknownUserError, match="nobody"):
        explain(model, "nobody", "i1")
    with pytest.raises(UnknownItemError, match="nothing"):
        explain(model, "u1", "nothing")
    with pytest.raises(UnknownItemError):
        similar(model, "nothing", 3)


def test_similar_items_come_by_cosine(tmp_path):
    model = live_model(tmp_path)
    vectors = model.readout.item_embeddings.astype(np.float64)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit[4]
    order = [row for row in np.argsort(-cosines).tolist() if row != 4][:6]
    found = similar(model, "i4", 6)["items"]
    assert [item["item_id"] for item in found] == [f"i{row}" for row in order]
    np.testing.assert_allclose([item["score"] for item in found], cosines[order], rtol=1e-6)


def knowledge_artifact(directory: Path) -> tuple[Artifact, dict[str, np.ndarray]]:
    """A world whose X_v is Norm(z_v + Σ a z_e), with the knowledge graph beside it."""
    source = publish_world(directory / "store")
    rng = np.random.default_rng(0)
    n_users, n_items, width = 30, 40, 8
    counts = rng.integers(0, 5, n_items)
    indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    arrays = {name: np.array(source.array(name)) for name in source.names()}
    arrays |= {
        "knowledge.indptr": indptr,
        "knowledge.relations": rng.integers(0, 2, indptr[-1]).astype(np.int32),
        "knowledge.entities": rng.integers(0, 9, indptr[-1]).astype(np.int32),
        "knowledge.attention": rng.random(indptr[-1]).astype(np.float32),
        "knowledge.entity_embeddings": rng.standard_normal((9, width)).astype(np.float32),
        "knowledge.item_embeddings": rng.standard_normal((n_items, width)).astype(np.float32),
        "entity_ids": np.array([f"e{e}" for e in range(9)]),
        "relation_ids": np.array(["brand", "word"]),
        "item_names": np.array([f"Item {v}" for v in range(n_items)]),
    }
    for v in range(n_items):
        total = arrays["knowledge.item_embeddings"][v].astype(np.float64)
        for p in range(indptr[v], indptr[v + 1]):
            entity = arrays["knowledge.entities"][p]
            total = total + arrays["knowledge.attention"][p] * arrays["knowledge.entity_embeddings"][entity]
        arrays["form.base"][n_users + v] = total / np.linalg.norm(total)
    out = directory / "artifact"
    out.mkdir()
    write_artifact(out, replace(source.manifest, version="v0009"), arrays)
    return Artifact(out), arrays


def test_the_items_side_splits_into_own_entities_and_the_rest(tmp_path):
    artifact, arrays = knowledge_artifact(tmp_path)
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=10)
    model.refresh()  # Z of the new base table
    view = model.user("u2")
    assert view is not None
    alpha = float(arrays["form.alpha"][0, 0])
    for v in range(0, 39, 5):
        parts = explain(model, "u2", f"i{v}")["item_parts"]
        assert parts is not None
        served = float(view.vector.astype(np.float64) @ model.readout.item_embeddings[v])
        assert parts["sum"] == pytest.approx(served, rel=1e-4, abs=1e-5)
        begin, end = arrays["knowledge.indptr"][v : v + 2]
        own = arrays["knowledge.item_embeddings"][v].astype(np.float64)
        each = [
            float(arrays["knowledge.attention"][p])
            * arrays["knowledge.entity_embeddings"][arrays["knowledge.entities"][p]]
            for p in range(begin, end)
        ]
        norm = np.linalg.norm(own + sum(each)) if each else np.linalg.norm(own)
        assert parts["own"] == pytest.approx(alpha * float(view.vector @ own) / norm, rel=1e-5)
        expected = sorted((alpha * float(view.vector @ vector) / norm for vector in each), key=abs, reverse=True)
        assert [entity["contribution"] for entity in parts["entities"]] == pytest.approx(expected, rel=1e-5)
        assert {entity["entity"] for entity in parts["entities"]} == {
            f"e{arrays['knowledge.entities'][p]}" for p in range(begin, end)
        }
    assert explain(model, "u2", "i3")["name"] == "Item 3"


def test_without_a_knowledge_graph_the_items_side_is_left_out(tmp_path):
    assert explain(live_model(tmp_path), "u2", "i3")["item_parts"] is None
