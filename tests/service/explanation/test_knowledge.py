from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.artifact import Artifact, write_artifact
from service.explanation.account import Wanted, explain
from service.explanation.names import entity_name
from service.index.exact import ExactIndex
from service.live.model import LiveModel
from tests.service.worlds import live_model
from tests.support.artifacts import publish_world
from tests.support.knowledge import knowledge_arrays


def knowledge_artifact(directory: Path) -> tuple[Artifact, dict[str, np.ndarray]]:
    """A world whose X_v is Norm(z_v + Σ a z_e), with the knowledge graph beside it."""
    source = publish_world(directory / "store")
    arrays = knowledge_arrays(source)
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


def test_reasons_add_up_to_the_score_and_name_the_items_that_share_an_entity(tmp_path):
    artifact, arrays = knowledge_artifact(tmp_path)
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=10)
    model.refresh()
    indptr, members = arrays["knowledge.indptr"], arrays["knowledge.entities"]
    shared = 0
    for user in ("u2", "u5", "u11"):
        view = model.user(user)
        assert view is not None
        for v in range(0, 39, 5):
            found = explain(model, user, f"i{v}", Wanted(frozenset({"reasons"})))
            told = found["reasons"]
            assert told is not None
            assert told["sum"] == pytest.approx(found["score"], rel=1e-4, abs=1e-4)
            parts = told["own"] + sum(e["contribution"] for e in told["entities"]) + told["rest"] + told["direct"]
            assert parts == pytest.approx(told["sum"])
            assert told["direct"] == pytest.approx(sum(part["direct"] for part in found["contributions"]))
            own = arrays["knowledge.item_embeddings"][v].astype(np.float64)
            triplets = range(indptr[v], indptr[v + 1])
            each = [
                arrays["knowledge.attention"][p] * arrays["knowledge.entity_embeddings"][members[p]] for p in triplets
            ]
            norm = np.linalg.norm(own + sum(each)) if each else 1.0
            alpha = float(arrays["form.alpha"][0, 0])
            for reason in told["entities"]:
                entity = int(reason["entity"].removeprefix("e"))
                having = [int(i) for i in view.seen if entity in members[indptr[i] : indptr[i + 1]]]
                assert reason["n_items"] == len(having)
                assert {item["item_id"] for item in reason["items"]} <= {f"i{i}" for i in having}
                assert len(reason["items"]) == min(len(having), 5)
                listed = sum(item["contribution"] for item in reason["items"])
                assert listed + reason["others"] == pytest.approx(reason["contribution"])
                for item in reason["items"]:
                    # L̄_ui T_i · α_0 a_e z_e / ‖·‖, with L̄_ui = link's √ times what attention adds.
                    row = int(item["item_id"][1:])
                    place = view.seen.tolist().index(row)
                    degree = model.item_counts(np.array([row]))[0]
                    weight = (1 + 0.7 * float(view.similarity[place])) / np.sqrt(len(view.seen) * degree)
                    t = model.readout.neighbor_embeddings[30 + row].astype(np.float64)
                    same = [e for e, p in zip(each, triplets, strict=True) if members[p] == entity]
                    wanted = [weight * alpha * float(t @ e) / norm for e in same]
                    assert min(abs(item["contribution"] - w) for w in wanted) < 1e-6
                    shared += 1
    assert shared > 10


def test_the_sentence_names_what_the_largest_contributions_share(tmp_path):
    artifact, _ = knowledge_artifact(tmp_path)
    model = LiveModel(artifact, ExactIndex, start=0, refresh_every=10)
    words = [explain(model, "u2", f"i{v}")["sentence"] for v in range(39)]
    assert any(" share" in text and ("brand e" in text or "word e" in text) for text in words)
    assert all(f"“Item {v}”" in text for v, text in enumerate(words))


@pytest.mark.parametrize(
    ("relation", "entity", "name"),
    [("brand", "brand:Nike", "Nike"), ("brand", "Nike", "Nike"), ("word", "word:", "word:")],
)
def test_an_entity_s_name_is_its_id_less_the_relation(relation, entity, name):
    assert entity_name(relation, entity) == name
