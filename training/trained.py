"""Training KDiffE on a data set, start to end: graph, S, knowledge graph, fit, the item-item table and its weight."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from model_store.attention import AttentionState
from model_store.manifest import View as ViewColumns
from model_store.walks import WalkSettings
from training.data.codebook import entities_from_features, merge
from training.data.dataset import DataSet, Interactions, KnowledgeGraph
from training.errors import ConfigurationError
from training.evaluation import evaluate, scores_of
from training.fitting import WITH_TABLE, Fit, batch_size, fit
from training.item_item import without_selection
from training.models.factory import make_model
from training.models.graph import attention_state
from training.models.view import to_numpy
from training.observer import Observer
from training.sampling import Sampler
from training.selecting import Fitted, Tables, best_served, embeddings_of
from training.settings import TrainingSettings

# Of what a fit writes into its checkpoint: one of another form is refused as another fit's.
CHECKPOINT_FORM = 2


@dataclass(frozen=True)
class Trained:
    """A trained KDiffE, on the CPU, in numpy.

    Attributes:
        settings: the settings, B's kind, λ and weight resolved.
        device: where it was fitted.
        base: X, (I + J, width); zero for users without interactions, whose row is never trained.
        constant: C, (J, width), or None where it is zero.
        alpha: (L + 1, width) readout weights, a column each.
        views: the views as blocks of columns.
        state: the attention state of the interactions that it was fitted on.
        table: (J, J) B before its weight, None where B = 0.
        table_weight: weight of the table.
        knowledge: the knowledge graph that was used, entities from features included, or None.
        encoders: arrays from which the rows of a new item follow (docs/artifact.md).
        codebooks: modality → centroids, for entities made from features.
        fit: epochs and the best one's validation metrics of the graph part (B = 0).
        metrics: validation metrics with B; empty without a validation split.
    """

    settings: TrainingSettings
    device: str
    base: NDArray[np.float32]
    constant: NDArray[np.float32] | None
    alpha: NDArray[np.float32]
    views: tuple[ViewColumns, ...]
    state: AttentionState
    table: sparse.csr_array | None
    table_weight: float
    knowledge: KnowledgeGraph | None
    encoders: Mapping[str, NDArray[Any]]
    codebooks: Mapping[str, NDArray[np.float32]]
    fit: Fit
    metrics: Mapping[str, float]


def choose_device(wanted: str) -> torch.device:
    """The device that the settings ask for.

    Raises:
        ConfigurationError: cuda is asked for and there is none.
    """
    if wanted == "cuda" and not torch.cuda.is_available():
        raise ConfigurationError("run.device = 'cuda', but torch sees no CUDA device: use auto or cpu.")
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def knowledge_of(
    data: DataSet, settings: TrainingSettings
) -> tuple[KnowledgeGraph | None, Mapping[str, NDArray[np.float32]]]:
    """The knowledge graph that the model aggregates over, with entities made from features where asked for (D1).

    Raises:
        ConfigurationError: a relation of the data's graph is called like a modality that entities are made from: a
            version could not tell the two apart.
    """
    if not settings.model.knowledge or settings.model.kind != "kdiffe":
        return None, {}
    entities = settings.entities
    make = entities.source == "always" or (entities.source == "auto" and data.knowledge is None)
    if not make or not data.features:
        return data.knowledge, {}
    taken = sorted(data.features.keys() & set([] if data.knowledge is None else data.knowledge.relation_ids.tolist()))
    if taken:
        raise ConfigurationError(
            f"{data.name}: {taken[0]!r} is both a relation of the knowledge graph and a modality that entities are "
            f"made from. Rename one of them, or leave entities.source = {entities.source!r} away."
        )
    made, codebooks = entities_from_features(
        data.features, n_centroids=entities.n_centroids, n_nearest=entities.n_nearest, seed=settings.run.seed
    )
    return (made if data.knowledge is None else merge(data.knowledge, made)), codebooks


def train_kdiffe(
    data: DataSet,
    settings: TrainingSettings,
    observer: Observer,
    *,
    fixed_epochs: int | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
    tables: Tables | None = None,
) -> Trained:
    """Train KDiffE's main view on the train interactions and select on the validation split.

    Args:
        data: the data set.
        settings: everything that it can be told.
        observer: is told about every phase.
        fixed_epochs: fit so many epochs and select nothing (a refit); B's weight must then be given.
        checkpoints: folder for checkpoints, None for none.
        resume: go on from the folder's checkpoint.
        fingerprint: the data's, for the checkpoint's identity.
        tables: of this data, where several runs share them.

    Raises:
        ConfigurationError: the settings don't fit the data or the machine.
        CheckpointError: the checkpoint can't be used.
    """
    if len(data.train) == 0:
        raise ConfigurationError(f"{data.name}: no train interactions: there is nothing to learn from.")
    run = settings.run
    device = choose_device(run.device)
    threads = os.cpu_count() or 1
    selects = fixed_epochs is None and len(data.valid) > 0

    observer.phase("attention matrix S", 1, 0.02)
    walks = WalkSettings(**asdict(settings.walks), seed=run.seed)
    state = attention_state(data, data.train, walks, threads)
    observer.advance()

    observer.phase("knowledge graph", 1, 0.03)
    knowledge, codebooks = knowledge_of(data, settings)
    observer.advance()

    tables = tables or Tables(data)
    if tables.data is not data:
        raise ValueError("tables are of another data set")
    history, split = tables.history, tables.split
    sample = split.sample()  # epochs are told apart by a part of the users, where there are many
    if not selects:
        without_selection(settings.item_item, data.n_items)  # refused before anything is fitted

    identity = f"{fingerprint} {_order_of(data)}"
    beside = None
    if selects and settings.optimiser.selected_by == "served":
        observer.phase("preliminary item-item table B", 1, 0.05)
        beside = tables.preliminary(settings.item_item)
        observer.advance()
    kinds = losses_to_try(settings, selects)

    def fitted(kind: Literal["softmax", "bpr"]) -> Fitted:
        tried = replace(settings, loss=replace(settings.loss, kind=kind))
        model = make_model(data, tried, state, knowledge, device)

        def validate() -> Mapping[str, float]:
            scores = scores_of(embeddings_of(model), data.n_users, history, None)
            metrics = evaluate(scores, sample)
            return metrics if beside is None else {**metrics, WITH_TABLE: beside.quality(scores)}

        if len(kinds) > 1:
            observer.note(f"Fitting with loss.kind = {kind!r}.")
        done = fit(
            model,
            Sampler(
                data.train,
                data.n_items,
                tried.loss.negatives,
                run.seed,
                batch_size(tried.optimiser, len(data.train)) if kind == "softmax" else None,
                tried.loss.user_exponent,
            ),
            tried,
            observer,
            validate=validate if selects else None,
            epochs=fixed_epochs,
            checkpoints=None if checkpoints is None else checkpoints / kind,
            identity=identity_of(tried, identity, fixed_epochs),
            resume=resume,
            share=0.8 / len(kinds),
        )
        return Fitted(tried, model, done)

    fits = [fitted(kind) for kind in kinds]
    regressions = tables.regressions(settings.item_item)
    found = best_served(fits, regressions, split if selects else None, observer)
    settings, model, table = found.settings, found.model, found.table
    del fits

    with torch.no_grad():
        views = model.view_list()
        bases = [to_numpy(view.base()) for view in views]
        constants = [view.constant() for view in views]
        encoders = {name: array for view in views for name, array in view.encoder().items()}
    ends = np.cumsum([base.shape[1] for base in bases]).tolist()
    begins = [0, *ends[:-1]]
    constant = None
    if any(block is not None for block in constants):
        blocks = [
            np.zeros((data.n_items, base.shape[1]), np.float32) if block is None else to_numpy(block)
            for base, block in zip(bases, constants, strict=True)
        ]
        constant = np.concatenate(blocks, axis=1)
    return Trained(
        settings=settings,
        device=device.type,
        base=np.concatenate(bases, axis=1),
        constant=constant,
        alpha=np.concatenate(
            [
                np.repeat(np.array(view.alpha, np.float32)[:, None], base.shape[1], axis=1)
                for view, base in zip(views, bases, strict=True)
            ],
            axis=1,
        ),
        views=tuple(ViewColumns(view.name, begin, end) for view, begin, end in zip(views, begins, ends, strict=True)),
        state=state,
        table=table,
        table_weight=settings.item_item.weight if table is not None else 0.0,
        knowledge=knowledge if "knowledge.attention" in encoders else None,
        encoders=encoders,
        codebooks=codebooks,
        fit=found.fit,
        metrics=found.metrics,
    )


def losses_to_try(settings: TrainingSettings, selects: bool) -> tuple[Literal["softmax", "bpr"], ...]:
    """The losses that a run fits with. Where auto leaves it open: both, or (15) where nothing can be selected."""
    if settings.loss.kind != "auto":
        return (settings.loss.kind,)
    return ("softmax", "bpr") if selects else ("bpr",)


def identity_of(settings: TrainingSettings, fingerprint: str, fixed_epochs: int | None) -> str:
    """A name for a fit: equal for equal settings, data and seed."""
    content = {"form": CHECKPOINT_FORM, "settings": asdict(settings), "data": fingerprint, "epochs": fixed_epochs}
    return sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _order_of(data: DataSet) -> str:
    """A name for the order of the rows, which the fingerprint leaves out and a checkpoint's tables stand on."""
    digest = sha256()
    names = [] if data.knowledge is None else [data.knowledge.relation_ids, data.knowledge.entity_ids]
    weights = [] if data.train.weights is None else [data.train.weights]
    for array in (data.user_ids, data.item_ids, data.train.user_rows, data.train.item_rows, *names, *weights):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def with_everything(data: DataSet) -> DataSet:
    """The same data with validation and test interactions moved into train: what a refit fits on."""
    everything = data.train.concatenate(data.valid).concatenate(data.test)
    codes = everything.user_rows.astype(np.int64) * data.n_items + everything.item_rows
    everything = everything.take(np.sort(np.unique(codes, return_index=True)[1]))  # a pair of two splits is one
    return replace(data, train=everything, valid=Interactions.empty(), test=Interactions.empty())
