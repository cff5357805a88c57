"""Train-serve parity on the real path: what is published is what torch computes, and can be computed again from it."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from model_store.artifact import Artifact
from model_store.encoders import Content, ItemEncoder
from model_store.store import ModelStore
from tests.training.worlds import CPU, clips, matrix_of, small, without_graph
from training.commands.evaluate import evaluate_artifact
from training.configuration import settings_from
from training.data.dataset import DataSet, Interactions
from training.data.log import Log
from training.errors import DataError
from training.export import WITHDRAWN, carried_arrays, data_set_of, kernel_embeddings, publish
from training.models.graph import Laplacian
from training.nn.propagation import propagate
from training.observer import Silence
from training.runs import retrain
from training.settings import TrainingSettings
from training.trained import Trained, train_kdiffe

GRAPHED = clips(cold=True)
FEATURED = without_graph(clips())
CASES = {
    "graph": (GRAPHED, small()),
    "codebooks": (FEATURED, small(model={"readout": "sum", "self_loops": True}, item_item={"content": "none"})),
    "views": (
        FEATURED,
        small(model={"views": ["knowledge", "multimodal"], "readout_growth": 1.5}, multimodal={"width": 5}),
    ),
    "diffmm": (
        FEATURED,
        small(model={"kind": "diffmm"}, diffusion={"n_kept": 1, "hidden": 8}, multimodal={"residual_weight": 0.0}),
    ),
    "bare": (GRAPHED, small(model={"knowledge": False, "n_layers": 0}, item_item={"method": "none"})),
}


def published(data: DataSet, trained: Trained, root: Path, held_out: Interactions | None = None) -> Artifact:
    store = ModelStore(root)
    version = publish(
        trained,
        data,
        store,
        metrics={"valid": dict(trained.metrics)},
        data_facts={"name": data.name, "fingerprint": "f"},
        training_facts={"epochs": trained.fit.best_epoch, "refit": False},
        held_out=data.valid.concatenate(data.test) if held_out is None else held_out,
    )
    return store.open(version)


Case = tuple[DataSet, TrainingSettings, Trained, Artifact]


@pytest.fixture(scope="module", params=list(CASES))
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made(request.param, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope="module")
def codebooks(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made("codebooks", tmp_path_factory.mktemp("books"))


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return made("graph", tmp_path_factory.mktemp("graph"))


def made(name: str, root: Path) -> Case:
    data, settings = CASES[name]
    trained = train_kdiffe(data, settings, Silence())
    return data, settings, trained, published(data, trained, root)


# ---- Z ---------------------------------------------------------------------------------------------------------------


def test_the_published_z_is_torch_s_z(case: Case) -> None:
    _, settings, trained, artifact = case
    laplacian = Laplacian.of(trained.state, settings.model.similarity_weight, settings.model.self_loops, CPU)
    alpha = [float(weight) for weight in trained.alpha[:, 0]]
    z = propagate(laplacian.matrix, torch.from_numpy(trained.base), alpha, laplacian.self_weight).numpy()
    found = np.concatenate([artifact.array("user_embeddings"), artifact.array("item_embeddings")])
    np.testing.assert_allclose(found, z, rtol=0, atol=1e-5 * max(1, float(np.abs(z).max())))


def test_the_published_z_is_the_polynomial_in_the_dense_matrix(case: Case) -> None:
    data, settings, trained, artifact = case
    model, n_users = settings.model, data.n_users
    links = np.zeros((n_users + data.n_items,) * 2)
    links[:n_users, n_users:] = matrix_of(data.train, n_users, data.n_items)
    links = links + links.T
    similarity = np.zeros_like(links)
    indptr, indices = artifact.array("graph.indptr"), artifact.array("graph.indices")
    for node in range(len(links)):
        there = slice(indptr[node], indptr[node + 1])
        similarity[node, indices[there]] = artifact.array("similarity.data")[there]
    if model.self_loops:
        links += np.eye(len(links))
    scale = np.diag([1 / math.sqrt(degree) if degree else 0 for degree in links.sum(1)])
    whole = scale @ (links + model.similarity_weight * similarity) @ scale
    first = 1.0 if model.readout == "sum" else 1 / (model.n_layers + 1)
    expected = sum(
        first * model.readout_growth**layer * np.linalg.matrix_power(whole, layer) @ trained.base.astype(np.float64)
        for layer in range(model.n_layers + 1)
    )
    found = kernel_embeddings(trained, n_users)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, float(np.abs(expected).max())))
    np.testing.assert_array_equal(found[:n_users], artifact.array("user_embeddings"))
    np.testing.assert_array_equal(found[n_users:], artifact.array("item_embeddings"))


def test_users_without_train_interactions_have_zero_rows(graph: Case) -> None:
    data, _, _, artifact = graph
    cold = np.setdiff1d(np.arange(data.n_users), data.train.user_rows)
    assert len(cold)
    assert not artifact.array("form.base")[cold].any()
    assert not artifact.array("user_embeddings")[cold].any()


def test_evaluating_the_artifact_gives_the_figures_that_training_reported(case: Case) -> None:
    data, _, trained, artifact = case
    found = evaluate_artifact(artifact, data, "valid", ["train"])
    assert found == pytest.approx(dict(trained.metrics), abs=1e-9)


# ---- X from what the artifact holds: formulas (1) and (2) in numpy ---------------------------------------------------


def encoded(artifact: Artifact) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The items' X and the triplets' attention, item by item."""
    items = artifact.array("knowledge.item_embeddings").astype(np.float64)
    entities = artifact.array("knowledge.entity_embeddings").astype(np.float64)
    relations = artifact.array("knowledge.relation_embeddings").astype(np.float64)
    weight = artifact.array("knowledge.weight").astype(np.float64)
    indptr = artifact.array("knowledge.indptr")
    x, attention = [], []
    for item, own in enumerate(items):
        logits, tails = [], []
        for t in range(indptr[item], indptr[item + 1]):
            tail = entities[artifact.array("knowledge.entities")[t]]
            value = relations[artifact.array("knowledge.relations")[t]] @ weight @ np.concatenate([tail, own])
            logits.append(math.exp(value if value > 0 else 0.2 * value))
            tails.append(tail)
        shares = [value / sum(logits) for value in logits]
        total = own + sum((share * tail for share, tail in zip(shares, tails, strict=True)), np.zeros_like(own))
        x.append(total / np.linalg.norm(total))
        attention += shares
    return np.array(x), np.array(attention)


@pytest.mark.parametrize("name", ["graph", "codebooks"])
def test_x_can_be_computed_again_from_the_arrays_of_the_artifact(name: str, request: pytest.FixtureRequest) -> None:
    data, _, _, artifact = request.getfixturevalue(name)
    x, attention = encoded(artifact)
    np.testing.assert_allclose(artifact.array("form.base")[data.n_users :], x, atol=1e-5)
    np.testing.assert_allclose(artifact.array("knowledge.attention"), attention, atol=1e-5)


def test_the_codebooks_link_an_item_s_features_to_its_entities(codebooks: Case) -> None:
    data, settings, _, artifact = codebooks
    names = artifact.array("entity_ids").tolist()
    relations = artifact.array("relation_ids").tolist()
    assert sorted(relations) == ["text", "visual"]
    indptr = artifact.array("knowledge.indptr")
    for item in range(data.n_items):
        there = slice(indptr[item], indptr[item + 1])
        linked = {
            (relations[r], names[e])
            for r, e in zip(
                artifact.array("knowledge.relations")[there], artifact.array("knowledge.entities")[there], strict=True
            )
        }
        expected = set()
        for modality, features in data.features.items():
            book = artifact.array(f"codebook.{modality}").astype(np.float64)
            unit = features[item].astype(np.float64) / np.linalg.norm(features[item].astype(np.float64))
            near = np.argsort([((unit - centroid) ** 2).sum() for centroid in book])[: settings.entities.n_nearest]
            expected |= {(modality, f"{modality}:{number}") for number in near}
        assert linked == expected


def test_a_model_without_a_graph_publishes_none(tmp_path: Path) -> None:
    _, _, _, artifact = made("bare", tmp_path)
    assert not [name for name in artifact.names() if name.startswith(("knowledge", "codebook", "entity", "item_item"))]


# ---- the manifest ----------------------------------------------------------------------------------------------------


def test_the_manifest_says_what_was_trained_with_what(case: Case) -> None:
    data, settings, trained, artifact = case
    manifest = artifact.manifest
    width = settings.model.width + (settings.multimodal.width if "multimodal" in settings.model.views else 0)
    assert (manifest.n_users, manifest.n_items, manifest.width) == (data.n_users, data.n_items, width)
    assert settings_from(manifest.configuration, "it") == trained.settings
    assert dict(manifest.walks) == {**asdict(settings.walks), "seed": settings.run.seed}
    assert manifest.data == {"name": data.name, "fingerprint": "f", "n_interactions": len(data.train)}
    assert manifest.metrics == {"valid": dict(trained.metrics)}
    assert [epoch["epoch"] for epoch in manifest.training["history"]] == [e.epoch for e in trained.fit.history]
    assert manifest.training["seed"] == settings.run.seed
    assert manifest.sequence == 0
    artifact.verify()


def test_the_published_b_is_the_chosen_weight_times_the_table(graph: Case) -> None:
    data, _, trained, artifact = graph
    assert trained.table is not None
    table, dense = artifact.item_item(), np.zeros((data.n_items, data.n_items))
    for row in range(table.n_rows):
        for entry in range(table.indptr[row], table.indptr[row + 1]):
            dense[row, table.indices[entry]] = table.data[entry]
    np.testing.assert_allclose(dense, trained.table_weight * trained.table.toarray(), rtol=1e-6)


# ---- back to a data set ----------------------------------------------------------------------------------------------


def pairs(data: DataSet, part: Interactions) -> set[tuple[str, str]]:
    users, items = data.user_ids[part.user_rows].tolist(), data.item_ids[part.item_rows].tolist()
    return set(zip(users, items, strict=True))


def test_a_version_s_data_are_its_interactions_those_held_out_and_later_ones(graph: Case) -> None:
    data, _, _, artifact = graph
    known = next(iter(pairs(data, data.train)))
    later = [known, ("new-user", str(data.item_ids[2])), (str(data.user_ids[1]), "new-item"), ("new-user", "new-item")]
    again = data_set_of(artifact, Log((*later, *later)))
    everything = pairs(data, data.train) | pairs(data, data.valid) | pairs(data, data.test) | set(later)
    assert pairs(again, again.train) == everything
    assert len(again.train) == len(everything)
    assert len(again.valid) == len(again.test) == 0
    # Known rows stay, new ones follow.
    assert again.user_ids.tolist() == [*data.user_ids.tolist(), "new-user"]
    assert again.item_ids.tolist() == [*data.item_ids.tolist(), "new-item"]
    assert data.item_names is not None
    assert again.item_names is not None
    assert again.item_names.tolist() == [*data.item_names.tolist(), "new-item"]


def weights_of(data: DataSet) -> dict[tuple[str, str], float]:
    """Weight of each pair of train that has another one than 1."""
    if data.train.weights is None:
        return {}
    users, items = data.user_ids[data.train.user_rows].tolist(), data.item_ids[data.train.item_rows].tolist()
    named = zip(users, items, data.train.weights.tolist(), strict=True)
    return {(user, item): weight for user, item, weight in named if weight != 1}


def test_weights_of_the_log_are_the_data_s_and_go_on_in_the_next_version(graph: Case, tmp_path: Path) -> None:
    data, _, trained, artifact = graph
    known = sorted(pairs(data, data.train))
    first, second, third, erased = known[0], known[5], known[9], next(p for p in known if p[0] != known[0][0])
    new = ("new-user", "new-item")
    told = Log((first, second, new), weights={first: 3.0, second: 0.0, new: 2.5})
    weighed = data_set_of(artifact, told)
    assert weights_of(weighed) == {first: 3.0, second: 0.0, new: 2.5}
    assert weights_of(data_set_of(artifact, Log((first,)))) == {}

    again = published(weighed, train_kdiffe(weighed, trained.settings, Silence(), fixed_epochs=1), tmp_path)
    assert weights_of(data_set_of(again)) == {first: 3.0, second: 0.0, new: 2.5}
    # A log that is whole has all that was ever done; what was compacted of one, the version holds.
    plain = {"added": (first, second, new)}
    assert weights_of(data_set_of(again, Log(**plain, is_whole=True))) == {}
    assert weights_of(data_set_of(again, Log(**plain))) == {first: 3.0, new: 2.5}
    assert weights_of(data_set_of(again, Log(**plain, weights={new: 4.0}))) == {first: 3.0, new: 4.0}
    assert weights_of(data_set_of(again, Log(**plain, ended=frozenset({first})))) == {new: 2.5}
    back = Log(**plain, erased=frozenset({"new-user"}))
    assert weights_of(data_set_of(again, back)) == {first: 3.0}
    later = Log((second, third), removed=frozenset({first}), weights={third: 4.0})
    assert weights_of(data_set_of(again, later)) == {third: 4.0, new: 2.5}
    gone = Log((), erased=frozenset({erased[0], "new-user"}))
    kept = {pair: weight for pair, weight in {first: 3.0, second: 0.0}.items() if pair[0] != erased[0]}
    assert weights_of(data_set_of(again, gone)) == kept


def test_what_the_log_has_ended_is_no_longer_in_the_data(graph: Case) -> None:
    data, _, _, artifact = graph
    everything = pairs(data_set_of(artifact), data_set_of(artifact).train)
    gone, removed = min(everything)[0], max(everything)
    assert removed[0] != gone
    back, new = (gone, "clip-0001"), ("new-user", "clip-0001")
    log = Log((back, new), frozenset({removed, ("nobody", "clip-0001")}), frozenset({gone, "nobody"}))
    again = data_set_of(artifact, log)
    assert pairs(again, again.train) == {p for p in everything if p[0] != gone} - {removed} | {back, new}
    # Who came back is new, and the others have moved up.
    users = [user_id for user_id in data.user_ids.tolist() if user_id != gone]
    assert again.user_ids.tolist() == [*users, gone, "new-user"]
    assert again.item_ids.tolist() == data.item_ids.tolist()


def test_a_version_s_knowledge_graph_comes_back_as_it_was(codebooks: Case) -> None:
    _, _, trained, artifact = codebooks
    found, expected = data_set_of(artifact).knowledge, trained.knowledge
    assert found is not None
    assert expected is not None
    for name in ("item_rows", "relation_rows", "entity_rows", "entity_ids", "relation_ids"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


def test_what_was_held_out_and_then_fitted_on_is_not_added_twice(tmp_path: Path, graph: Case) -> None:
    data, _, trained, _ = graph
    artifact = published(data, trained, tmp_path, Interactions.empty())
    again = data_set_of(artifact)
    assert pairs(again, again.train) == pairs(data, data.train)


def test_a_version_with_new_users_and_items_can_be_trained(graph: Case, tmp_path: Path) -> None:
    _, _, trained, artifact = graph
    data = data_set_of(artifact, Log((("new-user", "new-item"), ("new-user", "clip-0001"))))
    refitted = train_kdiffe(data, trained.settings, Silence(), fixed_epochs=2)
    new = published(data, refitted, tmp_path, Interactions.empty())
    x, _ = encoded(new)
    # The new item has no entity: its X is its own direction.
    np.testing.assert_allclose(new.array("form.base")[-1], x[-1], atol=1e-5)
    assert new.array("user_embeddings")[-new.manifest.n_items :].any()
    row = new.array("user_ids").tolist().index("new-user")
    assert new.array("user_embeddings")[row].any()


def test_evaluating_on_users_that_a_version_does_not_know_names_one(graph: Case) -> None:
    data, _, _, artifact = graph
    strange = DataSet("other", np.array([*data.user_ids, "stranger"]), data.item_ids, data.train, data.valid)
    with pytest.raises(DataError, match=r"1 users .*'stranger'"):
        evaluate_artifact(artifact, strange, "valid", ["train"])


def test_the_order_of_a_data_set_s_rows_does_not_matter_to_an_evaluation(graph: Case) -> None:
    data, _, trained, artifact = graph
    users, items = np.arange(data.n_users, dtype=np.int32)[::-1], np.arange(data.n_items, dtype=np.int32)[::-1]

    def turned(part: Interactions) -> Interactions:
        return Interactions(users[part.user_rows], items[part.item_rows])

    other = DataSet("turned", data.user_ids[::-1], data.item_ids[::-1], turned(data.train), turned(data.valid))
    assert evaluate_artifact(artifact, other, "valid", ["train"]) == pytest.approx(dict(trained.metrics), abs=1e-9)


def test_a_split_that_a_set_lacks_can_not_be_evaluated(graph: Case) -> None:
    data, _, _, artifact = graph
    with pytest.raises(DataError, match="no test split"):
        evaluate_artifact(artifact, DataSet("bare", data.user_ids, data.item_ids, data.train), "test", ["train"])


# ---- views and features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "views"), [("views", ["knowledge", "multimodal"]), ("diffmm", ["modal"])])
def test_a_model_that_is_made_of_features_can_be_retrained_from_its_artifact(
    name: str, views: list[str], tmp_path: Path
) -> None:
    data, settings, _, artifact = made(name, tmp_path / "store")
    assert [view.name for view in artifact.manifest.views] == views
    assert artifact.manifest.views[-1].end == artifact.manifest.width
    again = data_set_of(artifact, Log((("new user", "new item"),)))
    assert set(again.features) == set(data.features) == {"visual", "text"}
    for modality, vectors in again.features.items():
        np.testing.assert_array_equal(vectors[:-1], data.features[modality])
        assert not vectors[-1].any()
    resolved = settings_from(artifact.manifest.configuration, "the artifact's")
    run = retrain(artifact, resolved, Log((("new user", "new item"),)), Silence(), tmp_path / "run")
    newer = ModelStore(tmp_path / "store").open(run.publish(ModelStore(tmp_path / "store"), 1.0, activate=True))
    assert newer.manifest.model == settings.model.kind
    assert newer.manifest.n_items == data.n_items + 1
    assert "new item" in newer.array("item_ids")
    for modality in data.features:
        assert f"features.{modality}" in newer


def test_a_model_that_is_not_made_of_features_keeps_none(codebooks: Case) -> None:
    assert not [name for name in codebooks[3].names() if name.startswith("features.")]


def test_a_table_with_look_alikes_by_features_can_be_made_again_from_the_artifact(tmp_path: Path) -> None:
    table = {"content": "features.visual", "content_weight": 0.5, "n_neighbors": 3, "weight": 2.0}
    settings = small(item_item=table)
    trained = train_kdiffe(FEATURED, settings, Silence())
    artifact = published(FEATURED, trained, tmp_path / "store")
    # Fitted on the train interactions alone, it is made again from the same interactions.
    again = replace(FEATURED, features=data_set_of(artifact).features)
    found, kept = train_kdiffe(again, trained.settings, Silence(), fixed_epochs=1).table, trained.table
    assert found is not None
    assert kept is not None
    np.testing.assert_allclose(found.toarray(), kept.toarray(), rtol=1e-6)
    run = retrain(artifact, trained.settings, Log((("new user", "new item"),)), Silence(), tmp_path / "run")
    assert run.trained.table is not None
    assert run.trained.settings.item_item.content == "features.visual"


def test_look_alikes_by_a_graph_that_the_model_does_not_use_can_be_made_again_too(tmp_path: Path) -> None:
    assert GRAPHED.knowledge is not None
    table = {"content": "relations", "content_weight": 0.5, "n_neighbors": 3, "weight": 2.0}
    settings = small(model={"knowledge": False}, item_item=table)
    artifact = published(GRAPHED, train_kdiffe(GRAPHED, settings, Silence()), tmp_path / "store")
    assert "knowledge.attention" not in artifact
    kept = data_set_of(artifact).knowledge
    assert kept is not None
    assert len(kept) == len(GRAPHED.knowledge)
    run = retrain(artifact, settings, Log((("new user", "new item"),)), Silence(), tmp_path / "run")
    assert run.trained.table is not None
    assert run.trained.knowledge is None


def test_entities_that_were_made_beside_a_graph_are_no_content_of_the_table_in_a_retrain_either(tmp_path: Path) -> None:
    table = {"content": "relations", "content_weight": 2.0, "n_neighbors": 3, "weight": 2.0}
    settings = small(entities={"source": "always"}, item_item=table)
    trained = train_kdiffe(GRAPHED, settings, Silence())
    artifact = published(GRAPHED, trained, tmp_path / "store")
    data = data_set_of(artifact)
    assert data.made_relations == set(GRAPHED.features) != set()
    assert GRAPHED.knowledge is not None
    assert data.knowledge is not None
    assert data.own_knowledge is not None
    assert len(data.own_knowledge) == len(GRAPHED.knowledge) < len(data.knowledge)
    first = train_kdiffe(replace(GRAPHED, train=data.train), settings, Silence(), fixed_epochs=1)
    run = retrain(artifact, settings, Log(), Silence(), tmp_path / "run")
    assert run.trained.knowledge is not None
    assert len(run.trained.knowledge) == len(data.knowledge)
    assert first.table is not None
    assert run.trained.table is not None
    np.testing.assert_allclose(run.trained.table.toarray(), first.table.toarray(), rtol=1e-6)


def test_what_any_table_of_a_mean_is_made_of_is_kept_for_a_retrain(tmp_path: Path) -> None:
    plain = {"l2": 5.0, "target_exponent": 1.0}
    for name, data, content in (("f", FEATURED, "features.visual"), ("g", GRAPHED, "relations")):
        mean = [plain, {**plain, "content": content, "content_weight": 0.5}]
        settings = small(model={"knowledge": False}, item_item={"mean_of": mean, "n_neighbors": 3, "weight": 2.0})
        artifact = published(data, train_kdiffe(data, settings, Silence()), tmp_path / name / "store")
        assert ("features.visual" in artifact) == (name == "f")
        assert (data_set_of(artifact).knowledge is not None) == (name == "g")
        run = retrain(artifact, settings, Log((("new user", "new item"),)), Silence(), tmp_path / name / "run")
        assert run.trained.table is not None
        assert run.trained.settings.item_item.mean_of == settings.item_item.mean_of


@pytest.mark.parametrize("name", ["graph", "codebooks", "views", "diffmm"])
def test_the_numpy_encoder_gives_every_trained_item_its_x_from_its_content(name: str, tmp_path: Path) -> None:
    data, _, trained, artifact = made(name, tmp_path)
    encoder = ItemEncoder(artifact)
    base = trained.base[data.n_users :]
    own = trained.encoders.get("knowledge.item_embeddings")
    for row in range(data.n_items):
        entities = []
        if data.knowledge is not None:
            graph = data.knowledge
            entities = [
                (str(graph.relation_ids[r]), str(graph.entity_ids[e]))
                for i, r, e in zip(graph.item_rows, graph.relation_rows, graph.entity_rows, strict=True)
                if i == row
            ]
        features = {} if name == "graph" else {m: vectors[row] for m, vectors in data.features.items()}
        found = encoder.encode(Content(entities, features), None if own is None else own[row])
        if name == "diffmm":  # exports no encoder
            assert not found.base.any()
            continue
        assert found.unknown == ()
        np.testing.assert_allclose(found.base, base[row], rtol=0, atol=2e-6)


def test_an_item_like_a_trained_one_lies_near_it_though_it_has_no_vector_of_its_own(tmp_path: Path) -> None:
    data, _, trained, artifact = made("views", tmp_path)
    found = np.stack(
        [
            ItemEncoder(artifact).encode(Content(features={m: v[row] for m, v in data.features.items()})).base
            for row in range(data.n_items)
        ]
    )
    base = trained.base[data.n_users :]
    begin = next(view.begin for view in trained.views if view.name == "multimodal")
    np.testing.assert_allclose(found[:, begin:], base[:, begin:], rtol=0, atol=2e-6)
    # The knowledge view's rows differ by z_j alone, which is left out; of length 1 as (2) says.
    np.testing.assert_allclose(np.linalg.norm(found[:, :begin], axis=1), 1, rtol=1e-5)


def test_what_the_model_does_not_know_of_an_item_is_told(tmp_path: Path) -> None:
    _, _, _, artifact = made("views", tmp_path)
    encoder = ItemEncoder(artifact)
    modality, length = next(iter(encoder.modalities.items()))
    found = encoder.encode(
        Content(
            [("brand", "acme"), (str(artifact.array("relation_ids")[0]), "nothing")],
            {"smell": np.ones(3), modality: np.ones(length + 1)},
        )
    )
    assert not found.base.any()
    assert len(found.unknown) == 4
    assert [text.split()[0] for text in found.unknown] == ["modality", "modality", "relation", "entity"]
    assert f"{length + 1} values where {length} are expected" in found.unknown[1]
    assert not encoder.encode(Content(features={modality: np.zeros(length)})).base.any()


def test_items_that_a_service_was_told_of_are_in_the_next_version(codebooks: Case, tmp_path: Path) -> None:
    data, settings, trained, artifact = codebooks
    vector = data.features["visual"][3]
    brand = {"relation": "brand", "entity": "acme"}
    later = Log(
        (("new-user", "clip-0001"),),
        records={
            "told": {"features": {"visual": vector.tolist(), "smell": [1.0]}, "entities": [brand, brand, "x"]},
            "clip-0002": {"entities": [brand], "name": "Second"},
        },
        withdrawn=frozenset({"clip-0003", "never met"}),
    )
    found = data_set_of(artifact, later)
    ids = found.item_ids.tolist()
    assert ids == [*data.item_ids.tolist(), "told", "never met"]
    graph = found.knowledge
    assert graph is not None

    def facts(item: str) -> set[tuple[str, str]]:
        rows = np.flatnonzero(graph.item_rows == ids.index(item))
        return {
            (str(graph.relation_ids[graph.relation_rows[r]]), str(graph.entity_ids[graph.entity_rows[r]])) for r in rows
        }

    # Its vector is clip 3's: so are its visual entities.
    assert facts("told") == {("brand", "acme"), *(f for f in facts(ids[3]) if f[0] == "visual")}
    assert len([f for f in facts("told") if f[0] == "visual"]) == settings.entities.n_nearest
    assert ("brand", "acme") in facts("clip-0002")
    before = data_set_of(artifact).knowledge
    assert before is not None
    assert graph.entity_ids.tolist() == [*before.entity_ids.tolist(), "acme"]
    arrays = carried_arrays(artifact, later, found)
    assert {ids[row] for row in arrays[WITHDRAWN].tolist()} == {"clip-0003", "never met"}
    assert set(arrays) == {"codebook.text", "codebook.visual", WITHDRAWN}
    # The version that follows knows them, and the one after it, though the log was compacted.
    run = retrain(artifact, trained.settings, later, Silence(), tmp_path / "run")
    store = ModelStore(tmp_path / "store")
    next_version = store.open(run.publish(store, 1.0, activate=True))
    row = next_version.array("item_ids").tolist().index("told")
    assert next_version.array("item_embeddings")[row].any()
    after = Log(records={"clip-0003": {}})
    again = carried_arrays(next_version, after, data_set_of(next_version, after))
    assert next_version.array("item_ids")[again[WITHDRAWN]].tolist() == ["never met"]


def test_feature_vectors_that_a_service_was_told_of_are_kept_where_the_model_needs_them(tmp_path: Path) -> None:
    data, _, _, artifact = made("views", tmp_path)
    vector = data.features["text"][2]
    found = data_set_of(
        artifact,
        Log(records={"told": {"features": {"text": vector.tolist(), "visual": [1.0], "smell": [2.0]}}, "odd": {}}),
    )
    assert found.features["text"][-2:].tolist() == [vector.tolist(), [0.0] * len(vector)]
    assert not found.features["visual"][-2:].any()
    assert set(found.features) == set(data.features)
