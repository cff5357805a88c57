"""From a trained model to a published artifact, and from an artifact back to a data set."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model_store.artifact import Artifact, write_artifact
from model_store.assembly import model_arrays
from model_store.attention import AttentionState
from model_store.item_item import ItemItemTable
from model_store.manifest import Manifest
from model_store.serving_form import ServingForm
from model_store.store import ModelStore
from model_store.walks import WALK_VERSION
from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.data.log import Log
from training.data.records import with_records
from training.errors import DataError
from training.item_item import item_item_table
from training.models.factory import uses_features, uses_relations
from training.settings import EntitySettings
from training.trained import Trained

# Prefix of the arrays of the items' feature vectors, kept where the model is made of them.
FEATURES = "features."
CODEBOOK = "codebook."
# Rows of the items that are withdrawn: the service never recommends them.
WITHDRAWN = "withdrawn.item_rows"


def serving_form(trained: Trained, n_users: int) -> ServingForm:
    """X, C, α and ξ."""
    model = trained.settings.model
    return ServingForm(
        trained.base, trained.constant, trained.alpha, model.similarity_weight, model.self_loops, n_users
    )


def scene_parts(trained: Trained, n_users: int) -> tuple[ServingForm, ItemItemTable, AttentionState]:
    """What is served of a trained model that nobody publishes: X, C, α and ξ; B; S."""
    return serving_form(trained, n_users), item_item_table(trained.table, trained.table_weight), trained.state


def kernel_embeddings(trained: Trained, n_users: int) -> NDArray[np.float32]:
    """Z as the service has it, (I + J, d)."""
    form = serving_form(trained, n_users)
    adjacency = trained.state.snapshot()
    nodes = np.arange(adjacency.n_nodes, dtype=np.int32)
    return form.embeddings(nodes, adjacency, form.neighbor_embeddings(adjacency))


def artifact_arrays(trained: Trained, data: DataSet, held_out: Interactions) -> dict[str, NDArray[Any]]:
    """Every array of the artifact (docs/artifact.md)."""
    form = serving_form(trained, data.n_users)
    table = item_item_table(trained.table, trained.table_weight)
    arrays = model_arrays(data.user_ids, data.item_ids, form, trained.state, table)
    if data.item_names is not None:
        arrays["item_names"] = data.item_names
    if uses_features(trained.settings):
        arrays |= {f"{FEATURES}{modality}": vectors for modality, vectors in data.features.items()}
    if len(held_out):
        arrays["held_out.user_rows"] = held_out.user_rows
        arrays["held_out.item_rows"] = held_out.item_rows
    everything = data.train.concatenate(held_out)
    if everything.weights is not None:
        weighed = np.flatnonzero(everything.weights != 1)
        arrays["weighed.user_rows"] = everything.user_rows[weighed]
        arrays["weighed.item_rows"] = everything.item_rows[weighed]
        arrays["weighed.weights"] = everything.weights[weighed]
    for modality, centroids in trained.codebooks.items():
        arrays[f"{CODEBOOK}{modality}"] = centroids
    knowledge = trained.knowledge
    if knowledge is None and uses_relations(trained.settings):
        knowledge = data.knowledge
    arrays |= trained.encoders
    if knowledge is not None:
        counts = np.bincount(knowledge.item_rows, minlength=data.n_items)
        arrays |= {
            "knowledge.indptr": np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            "knowledge.relations": knowledge.relation_rows,
            "knowledge.entities": knowledge.entity_rows,
            "entity_ids": knowledge.entity_ids,
            "relation_ids": knowledge.relation_ids,
        }
    return arrays


def publish(
    trained: Trained,
    data: DataSet,
    store: ModelStore,
    *,
    metrics: Mapping[str, Any],
    data_facts: Mapping[str, Any],
    training_facts: Mapping[str, Any],
    held_out: Interactions,
    extra_arrays: Mapping[str, NDArray[Any]] | None = None,
    sequence: int = 0,
    activate: bool = True,
    report: Mapping[str, Any] | None = None,
) -> str:
    """Write the artifact and publish it. Returns the new version's name.

    Args:
        trained: the model.
        data: the data set that it was fitted on.
        store: where it goes.
        metrics: split → metric → value, as the manifest keeps them.
        data_facts: the data's name and fingerprint, the state's id.
        training_facts: epochs, seconds, whether it is a refit.
        held_out: interactions that were not fitted on and that a refit adds.
        extra_arrays: further arrays (codebooks that a retrained version carries on).
        sequence: the log's sequence number up to which the data reaches.
        activate: whether the new version becomes the active one.
        report: what `report.json` holds (docs/evaluation.md), None for no such file.
    """
    arrays = {**(extra_arrays or {}), **artifact_arrays(trained, data, held_out)}
    settings = trained.settings
    walks = {**asdict(settings.walks), "seed": settings.run.seed}
    manifest = Manifest(
        model=settings.model.kind,
        n_users=data.n_users,
        n_items=data.n_items,
        width=int(trained.base.shape[1]),
        views=trained.views,
        similarity_weight=settings.model.similarity_weight,
        self_loops=settings.model.self_loops,
        walks=walks,
        walk_version=WALK_VERSION,
        configuration=asdict(settings),
        metrics=dict(metrics),
        data={"n_interactions": len(data.train), **data_facts},
        training={
            "seed": settings.run.seed,
            "device": trained.device,
            "python": platform.python_version(),
            "torch": installed_version("torch"),
            "kdiffe": installed_version("kdiffe"),
            "history": [asdict(epoch) for epoch in trained.fit.history],
            **training_facts,
        },
        sequence=sequence,
        created_at=datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
    )

    def write(directory: Path, version: str) -> None:
        write_artifact(directory, replace(manifest, version=version), arrays, report)

    return store.publish(write, activate=activate)


def data_set_of(artifact: Artifact, later: Log | None = None) -> DataSet:
    """The data that a version was made from, everything in train, with what the log says since.

    Args:
        artifact: the version.
        later: the log; unknown ids are appended as new users and items, erased users have no row any more.

    Raises:
        DataError: the artifact holds no interactions and there are none later.
    """
    user_ids = [str(i) for i in artifact.array("user_ids")]
    item_ids = [str(i) for i in artifact.array("item_ids")]
    user_rows, item_rows = artifact.graph().pairs()
    if "held_out.user_rows" in artifact:
        user_rows = np.concatenate([user_rows, artifact.array("held_out.user_rows")])
        item_rows = np.concatenate([item_rows, artifact.array("held_out.item_rows")])
    later = later or Log()
    user_rows, item_rows = _without(later, user_ids, item_ids, user_rows, item_rows)
    user_ids = [user_id for user_id in user_ids if user_id not in later.erased]
    users, items = ({i: row for row, i in enumerate(ids)} for ids in (user_ids, item_ids))
    new = np.array(
        [(users.setdefault(u, len(users)), items.setdefault(i, len(items))) for u, i in later.added], np.int32
    ).reshape(-1, 2)
    for item_id in (*later.records, *sorted(later.withdrawn)):
        items.setdefault(item_id, len(items))
    pairs = np.unique(
        np.stack([np.concatenate([user_rows, new[:, 0]]), np.concatenate([item_rows, new[:, 1]])], 1), axis=0
    ).astype(np.int32)
    if len(pairs) == 0:
        raise DataError(f"{artifact.directory}: no interactions to train on, in the artifact or in the log.")
    weights = _weights_of(artifact, later, users, items, pairs)
    names = None
    if "item_names" in artifact:
        known = [str(name) for name in artifact.array("item_names")]
        names = np.array([*known, *list(items)[len(known) :]], np.str_)
    data = DataSet(
        name=str(artifact.manifest.data.get("name", "artifact")),
        user_ids=np.array(list(users), np.str_),
        item_ids=np.array(list(items), np.str_),
        train=Interactions(pairs[:, 0].copy(), pairs[:, 1].copy(), weights=weights),
        knowledge=_knowledge_of(artifact),
        item_names=names,
        features=_features_of(artifact, len(items)),
        made_relations=frozenset(name.removeprefix(CODEBOOK) for name in _codebooks_of(artifact)),
    )
    if not later.records:
        return data
    codebooks = {name.removeprefix(CODEBOOK): artifact.array(name) for name in _codebooks_of(artifact)}
    entities = artifact.manifest.configuration.get("entities", {})
    return with_records(data, later.records, codebooks, int(entities.get("n_nearest", EntitySettings().n_nearest)))


def carried_arrays(artifact: Artifact, later: Log, data: DataSet) -> dict[str, NDArray[Any]]:
    """Arrays of a version that the one after it keeps: codebooks, and which items are withdrawn.

    Args:
        artifact: the version.
        later: the log.
        data: `data_set_of` the two.
    """
    arrays = {name: artifact.array(name) for name in _codebooks_of(artifact)}
    before = artifact.array("item_ids")[artifact.array(WITHDRAWN)].tolist() if WITHDRAWN in artifact else []
    withdrawn = sorted({*before, *later.withdrawn} - later.records.keys())
    if withdrawn:
        rows = {item_id: row for row, item_id in enumerate(data.item_ids.tolist())}
        arrays[WITHDRAWN] = np.array(sorted(rows[item_id] for item_id in withdrawn), np.int32)
    return arrays


def _codebooks_of(artifact: Artifact) -> list[str]:
    return [name for name in artifact.names() if name.startswith(CODEBOOK)]


def _weights_of(
    artifact: Artifact,
    later: Log,
    users: Mapping[str, int],
    items: Mapping[str, int],
    pairs: NDArray[np.int32],
) -> NDArray[np.float64] | None:
    """(n,) weights of pairs: the log's word, else the version's, else 1. None where all are 1.

    Of a log whose begin was compacted, the version holds what is gone: the heavier of the two counts then.

    Args:
        artifact: the version.
        later: what the log says since.
        users: row of each user id, now.
        items: row of each item id, now.
        pairs: (n, 2) user and item rows, now.
    """
    known: dict[tuple[int, int], float] = {}
    if "weighed.weights" in artifact:
        user_ids, item_ids = artifact.array("user_ids"), artifact.array("item_ids")
        for user, item, weight in zip(
            *(artifact.array(f"weighed.{name}") for name in ("user_rows", "item_rows", "weights")), strict=True
        ):
            user_id = str(user_ids[user])
            row = users.get(user_id)
            if row is not None and user_id not in later.erased:
                known[row, items[str(item_ids[item])]] = float(weight)
    for user_id, item_id in later.added:
        pair = (users[user_id], items[item_id])
        weight = later.weights.get((user_id, item_id), 1.0)
        if not later.is_whole and (user_id, item_id) not in later.ended:
            weight = max(weight, known.get(pair, weight))
        if weight != 1.0 or pair in known:
            known[pair] = weight
    weights = np.array([known.get((user, item), 1.0) for user, item in pairs.tolist()]) if known else np.ones(0)
    return weights if (weights != 1).any() else None


def _without(
    later: Log,
    user_ids: list[str],
    item_ids: list[str],
    user_rows: NDArray[np.int32],
    item_rows: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Interactions less those that the log has ended, their user rows counted without the erased users."""
    erased = np.array([user_id in later.erased for user_id in user_ids], np.bool_)
    rows_of_users, rows_of_items = ({i: row for row, i in enumerate(ids)} for ids in (user_ids, item_ids))
    removed = [
        rows_of_users[user] * len(item_ids) + rows_of_items[item]
        for user, item in later.removed
        if user in rows_of_users and item in rows_of_items
    ]
    keep = ~erased[user_rows] & ~np.isin(user_rows.astype(np.int64) * len(item_ids) + item_rows, removed)
    moved = (np.arange(len(user_ids)) - np.cumsum(erased)).astype(np.int32)
    return moved[user_rows[keep]], item_rows[keep].astype(np.int32)


def _features_of(artifact: Artifact, n_items: int) -> dict[str, NDArray[np.float32]]:
    """Feature vectors of the artifact's items, zeros for later ones."""
    found = {}
    for name in artifact.names():
        if name.startswith(FEATURES):
            known = artifact.array(name)
            found[name.removeprefix(FEATURES)] = np.zeros((n_items, known.shape[1]), np.float32)
            found[name.removeprefix(FEATURES)][: len(known)] = known
    return found


def _knowledge_of(artifact: Artifact) -> KnowledgeGraph | None:
    if "knowledge.indptr" not in artifact:
        return None
    indptr = artifact.array("knowledge.indptr")
    return KnowledgeGraph(
        np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr)),
        np.array(artifact.array("knowledge.relations"), np.int32),
        np.array(artifact.array("knowledge.entities"), np.int32),
        np.array(artifact.array("entity_ids")),
        np.array(artifact.array("relation_ids")),
    )
