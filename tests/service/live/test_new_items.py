"""Items that come while the service runs: placed by their content at once, by what users do with the next refresh."""

from __future__ import annotations

import sys
import threading

import numpy as np
import pytest

from model_store.encoders import Content, ItemEncoder
from service.index.exact import ExactIndex
from service.index.flat import FlatIndex
from service.index.layered import LayeredIndex
from service.live.model import LiveModel
from service.recommendation.recommender import Wish, recommend, recommend_page, similar
from service.state.port import Change, Interaction, Record
from tests.service.worlds import apply_all, changed, live_model, random_pairs
from tests.support.artifacts import World, publish_world

WORLD = World(with_encoders=True)


def put(item: str, *entities: str, **more: object) -> Change:
    pairs = [{"relation": "r0", "entity": entity} for entity in entities]
    return Change("item", item_id=item, content={"entities": pairs, **more})


def expected_base(model: LiveModel, *entities: str) -> np.ndarray:
    """Formulas (1) and (2) with z_j = 0, written out."""
    array = model.artifact.array
    ids = array("entity_ids").tolist()
    r, weight = array("knowledge.relation_embeddings")[0].astype(float), array("knowledge.weight").astype(float)
    z = np.stack([array("knowledge.entity_embeddings")[ids.index(e)] for e in sorted(set(entities))]).astype(float)
    logits = np.array([r @ weight[:, : z.shape[1]] @ row for row in z])
    logits = np.where(logits > 0, logits, 0.2 * logits)
    shares = np.exp(logits) / np.exp(logits).sum()
    total = shares @ z
    return total / np.linalg.norm(total)


@pytest.mark.parametrize("index", [ExactIndex, FlatIndex])
def test_a_new_item_is_in_lists_and_among_similar_ones_before_anybody_touched_it(tmp_path, index):
    model = LiveModel(publish_world(tmp_path, WORLD), index, start=0, refresh_every=1000)
    model.apply(changed(1, put("new", "e1", "e4"), put("twin", "e4", "e1", "e1"), put("bare"), put("far", "e2")))
    row = model.item_row("new")
    alpha = model.form.alpha[0].astype(float)
    np.testing.assert_allclose(
        model.readout.item_embeddings[row], alpha * expected_base(model, "e1", "e4"), rtol=0, atol=1e-6
    )
    near = similar(model, "new", 3)["items"]
    assert near[0]["item_id"] == "twin"
    assert near[0]["score"] == pytest.approx(1, abs=1e-6)
    for user in ("u1", "u7"):
        view = model.user(user)
        found = {item["item_id"]: item for item in recommend(model, user, 100)["items"]}
        assert found["new"]["strategy"] == "model"
        assert found["new"]["score"] == pytest.approx(
            float(view.vector.astype(float) @ (alpha * expected_base(model, "e1", "e4"))), rel=1e-5
        )
        # Nothing is known of this one: it stands behind what the model has scored.
        assert (found["bare"]["strategy"], found["bare"]["score"]) == ("popular", 0.0)
    assert similar(model, "bare", 3)["items"] == []
    assert "new" in {i["item_id"] for i in recommend_page(model, ["i1"], Wish(100))["items"]}


def test_what_is_read_before_an_item_comes_stays_as_it_was(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=1000)
    before, vectors = model.readout, model.readout.item_embeddings.copy()
    for n in range(30):
        model.apply(changed(model.sequence + 1, put(f"new{n}", f"e{n % 6}")))
        held = model.readout
        kept = held.item_embeddings.copy()
        model.apply(changed(model.sequence + 1, put("again", f"e{n % 5}")))  # changes in place, not in what is held
        assert held.item_embeddings.tobytes() == kept.tobytes()
    assert before.item_embeddings.tobytes() == vectors.tobytes()
    assert before.digest() == model.readout.digest()
    assert isinstance(model.readout.index, LayeredIndex)
    whole = ExactIndex(model.readout.item_embeddings)
    for user in ("u1", "u2", "u3"):
        vector = model.user(user).vector
        inner, rows = model.readout.index.search(vector, 20)
        expected = whole.search(vector, 20)
        assert rows.tolist() == expected[1].tolist()
        np.testing.assert_allclose(inner, expected[0], rtol=1e-5)


def test_after_a_refresh_it_is_as_if_the_model_had_been_trained_with_its_x(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=1000)
    pairs = [*random_pairs(np.random.default_rng(2), 12), ("u1", "new"), ("u2", "new"), ("stranger", "new")]
    model.apply(changed(1, Interaction("u9", "new", 0.0), put("new", "e3", "e5")))
    apply_all(model, pairs)
    laid = model.readout.item_embeddings[model.item_row("new")].copy()
    model.refresh()
    # The formula over the dense graph: X of the new item stands in the base.
    n_users, n_nodes = len(model.users), len(model.users) + len(model.items)
    snapshot = model._state.snapshot()
    laplacian = np.zeros((n_nodes, n_nodes))
    for node in range(n_nodes):
        there = slice(snapshot.starts[node], snapshot.starts[node] + snapshot.lengths[node])
        for other, s in zip(snapshot.neighbors[there], snapshot.similarity[there], strict=True):
            degrees = float(snapshot.lengths[node]) * float(snapshot.lengths[other])
            laplacian[node, other] = (1 + model.form.similarity_weight * float(s)) / np.sqrt(degrees)
    base = np.zeros((n_nodes, model.form.width))
    base[: len(model.form.base)] = model.form.base
    node = int(model._item_nodes.values[model.item_row("new")])
    base[node] = expected_base(model, "e3", "e5")
    alpha = model.form.alpha.astype(float)
    z = sum(alpha[layer] * (np.linalg.matrix_power(laplacian, layer) @ base) for layer in range(len(alpha)))
    found = model.readout.item_embeddings[model.item_row("new")]
    np.testing.assert_allclose(found, z[node], rtol=0, atol=1e-5)
    assert not np.allclose(found, laid)  # its neighbors count now
    stranger = model.user("stranger")
    np.testing.assert_allclose(stranger.vector, z[int(model._user_nodes.values[stranger.row])], rtol=0, atol=1e-5)
    assert n_users == len(model.users)
    assert recommend(model, "stranger", 3)["items"][0]["strategy"] == "fold_in"


def test_another_record_moves_the_item_by_its_own_part_alone_until_the_next_refresh(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=1000)
    model.apply(changed(1, put("new", "e0"), Interaction("u3", "new", 0.0), Interaction("u4", "new", 0.0)))
    model.refresh()
    row, alpha = model.item_row("new"), model.form.alpha[0]
    settled = model.readout.item_embeddings[row].copy()
    model.apply(changed(model.sequence + 1, put("new", "e0", attributes={"price": 3})))  # only the price is new
    assert model.readout.item_embeddings[row].tobytes() == settled.tobytes()
    model.apply(changed(model.sequence + 1, put("new", "e2")))
    moved = alpha * (expected_base(model, "e2") - expected_base(model, "e0"))
    np.testing.assert_allclose(model.readout.item_embeddings[row] - settled, moved, atol=1e-6)
    model.apply(changed(model.sequence + 1, put("new", "e0")))
    np.testing.assert_allclose(model.readout.item_embeddings[row], settled, atol=1e-6)


def test_an_item_of_the_version_keeps_what_it_has_learned(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=1000)
    before = model.readout.item_embeddings.copy()
    model.apply(changed(1, put("i3", "e1", categories=["a"])))
    assert model.readout.item_embeddings.tobytes() == before.tobytes()
    assert model.metadata.rows_in("a").tolist() == [3]


def test_a_record_that_says_nothing_any_more_leaves_the_item_to_its_neighbors(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=1000)
    model.apply(changed(1, put("a", "e1"), put("b", "e2"), put("b")))
    readout = model.readout
    assert readout.item_embeddings[model.item_row("a")].any()
    found = {i["item_id"]: i["strategy"] for i in recommend(model, "u1", 100)["items"]}
    assert (found["a"], found["b"]) == ("model", "popular")


def test_the_log_in_any_batches_and_with_refreshes_gives_the_same_bits(tmp_path):
    entries = [
        put("n1", "e1"),
        Interaction("u1", "n1", 0.0),
        Interaction("u5", "n2", 0.0),
        put("n2", "e2"),
        put("n1", "e3", name="renamed"),
        Change("withdrawal", item_id="n2"),
        Interaction("u6", "n1", 0.0),
        put("n3", "e4", "e5"),
        put("n2", "e0"),
        Interaction("u7", "n3", 0.0),
        Change("withdrawal", item_id="n4"),
        put("n3", "e4"),
    ]
    models = []
    for number, batch in enumerate((1, 3, 4)):
        model = live_model(tmp_path / str(number), WORLD, refresh_every=4)
        log = changed(1, *entries)
        while log:
            take = min(batch, model.until_refresh)
            model.apply(log[:take])
            log = log[take:]
            if model.refresh_due:
                model.refresh()
        models.append(model)
    for model in models[1:]:
        assert model.items.to_array().tolist() == models[0].items.to_array().tolist()
        assert model.digest() == models[0].digest()
        assert model.readout.digest() == models[0].readout.digest()
        assert model.readout.item_embeddings.tobytes() == models[0].readout.item_embeddings.tobytes()
        assert model.metadata.withdrawn.tolist() == models[0].metadata.withdrawn.tolist()


def test_records_from_before_the_log_is_followed_are_taken_up_and_later_ones_come_with_it(tmp_path):
    model = LiveModel(publish_world(tmp_path, WORLD), ExactIndex, start=10, refresh_every=1000)
    records = [
        Record("later", {"categories": ["a"]}, 11),
        Record("i5", {"categories": ["a", "b"]}, 4),
        Record("new", {"categories": ["b"], "entities": [{"relation": "r1", "entity": "e3"}]}, 9),
    ]
    model.seed(records, 10)
    assert [model.items.id_of(row) for row in model.metadata.rows_in("a")] == ["i5"]
    assert [model.items.id_of(row) for row in model.metadata.rows_in("b")] == ["i5", "new"]
    assert model.item_row("later") is None
    encoded = ItemEncoder(model.artifact).encode(Content([("r1", "e3")])).base
    assert model.readout.item_embeddings[model.item_row("new")].tolist() == (model.form.alpha[0] * encoded).tolist()


def test_an_artifact_says_which_items_had_been_withdrawn(tmp_path):
    model = live_model(tmp_path / "plain")
    best = recommend(model, "u4", 1)["items"][0]["item_id"]
    rows = np.array([model.item_row(best)], np.int32)
    later = LiveModel(
        publish_world(tmp_path / "said", extra={"withdrawn.item_rows": rows}), ExactIndex, start=0, refresh_every=10
    )
    assert best not in {item["item_id"] for item in recommend(later, "u4", 100)["items"]}


def test_who_sees_a_sequence_number_finds_the_items_up_to_it(tmp_path):
    model = live_model(tmp_path, WORLD, refresh_every=10_000)
    missing, done = [], threading.Event()

    def watch():
        while not done.is_set():
            sequence = model.sequence
            if sequence:
                row = model.item_row(f"new{sequence}")
                readout = model.readout
                if row is None or row >= readout.n_items or not readout.item_embeddings[row].any():
                    missing.append(sequence)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for n in range(1, 200):
            model.apply(changed(n, put(f"new{n}", "e1")))
    finally:
        done.set()
        watcher.join()
        sys.setswitchinterval(interval)
    assert missing == []
