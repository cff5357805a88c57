"""Training KDiffE on a data set, start to end: graph, S, knowledge graph, fit, the item-item table and its weight."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
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
from training.evaluation import ScoreUsers, Split, evaluate, interaction_matrix
from training.fitting import SELECTED_BY, WITH_TABLE, Fit, batch_size, fit
from training.item_item import (
    BesideScores,
    BesideTable,
    Content,
    item_item_weights,
    preliminary_weights,
    resolved_method,
    select_weights,
    without_selection,
)
from training.models.factory import make_model
from training.models.graph import attention_state
from training.models.recommender import Recommender
from training.models.view import to_numpy
from training.observer import Observer
from training.sampling import Sampler
from training.settings import ItemItemSettings, TrainingSettings


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
    """The knowledge graph that the model aggregates over, with entities made from features where asked for (D1)."""
    if not settings.model.knowledge or settings.model.kind != "kdiffe":
        return None, {}
    entities = settings.entities
    make = entities.source == "always" or (entities.source == "auto" and data.knowledge is None)
    if not make or not data.features:
        return data.knowledge, {}
    made, codebooks = entities_from_features(
        data.features, n_centroids=entities.n_centroids, n_nearest=entities.n_nearest, seed=settings.run.seed
    )
    return (made if data.knowledge is None else merge(data.knowledge, made)), codebooks


def scores_of(
    embeddings: NDArray[np.float32], n_users: int, history: sparse.csr_array, table: sparse.csr_array | None
) -> ScoreUsers:
    """score(u, ·) = Z_u · Z_v + Σ_{i in N(u)} B_iv, chunk by chunk. `table` includes its weight."""
    items = np.ascontiguousarray(embeddings[n_users:].T)

    def score_users(users: NDArray[np.int64]) -> NDArray[np.float32]:
        scores: NDArray[np.float32] = embeddings[users] @ items
        if table is not None:
            reached = (history[users] @ table).tocoo()
            scores[reached.row, reached.col] += reached.data.astype(np.float32)
        return scores

    return score_users


def train_kdiffe(
    data: DataSet,
    settings: TrainingSettings,
    observer: Observer,
    *,
    fixed_epochs: int | None = None,
    checkpoints: Path | None = None,
    resume: bool = False,
    fingerprint: str = "",
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

    history = interaction_matrix(data.train, data.n_users, data.n_items)
    split = Split.of(data.valid, data.train, data.n_users, data.n_items)
    content = Content(data.n_items, data.features, data.knowledge)
    if not selects:
        without_selection(settings.item_item, data.n_items)  # refused before anything is fitted

    identity = f"{fingerprint} {_order_of(data)}"
    beside = beside_table(history, settings, content, split) if selects else None
    kinds = losses_to_try(settings, selects)

    def fitted(kind: Literal["softmax", "bpr"]) -> tuple[TrainingSettings, Recommender, Fit]:
        tried = replace(settings, loss=replace(settings.loss, kind=kind))
        model = make_model(data, tried, state, knowledge, device)

        def validate() -> Mapping[str, float]:
            scores = scores_of(embeddings_of(model), data.n_users, history, None)
            metrics = evaluate(scores, split)
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
        return tried, model, done

    fits = [fitted(kind) for kind in kinds]
    settings, model, done = max(fits, key=lambda found: found[2].best_value)
    if len(kinds) > 1:
        figures = ", ".join(f"{s.loss.kind} {f.best_value:.4f}" for s, _, f in fits)
        observer.note(f"Validation {done.selected_by}: {figures}; kept: {settings.loss.kind}.")
    del fits

    observer.phase("item-item table B", 1, 0.1)
    metrics = done.best_metrics
    bench = split if selects else None
    table, chosen = make_table(history, settings.item_item, content, bench, lambda: embeddings_of(model))
    observer.advance()
    weight = chosen.weight
    if table is not None and selects:
        weight, metrics = choose_weight(model, data, history, table, split, weight, observer)
    resolved = replace(settings, item_item=replace(chosen, weight=max(weight, 0.0)))

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
        settings=resolved,
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
        table_weight=resolved.item_item.weight if table is not None else 0.0,
        knowledge=knowledge if "knowledge.attention" in encoders else None,
        encoders=encoders,
        codebooks=codebooks,
        fit=done,
        metrics=metrics,
    )


def losses_to_try(settings: TrainingSettings, selects: bool) -> tuple[Literal["softmax", "bpr"], ...]:
    """The losses that a run fits with. Where auto leaves it open: both, or (15) where nothing can be selected."""
    if settings.loss.kind != "auto":
        return (settings.loss.kind,)
    return ("softmax", "bpr") if selects else ("bpr",)


def beside_table(
    history: sparse.csr_array, settings: TrainingSettings, content: Content, split: Split
) -> BesideTable | None:
    """What an epoch is selected beside: a preliminary B; None where the graph part alone selects."""
    if settings.optimiser.selected_by == "graph":
        return None
    table = preliminary_weights(history, settings.item_item, content)
    return None if table is None else BesideTable(table, history, split)


def make_table(
    history: sparse.csr_array,
    settings: ItemItemSettings,
    content: Content,
    split: Split | None,
    embeddings: Callable[[], NDArray[np.float32]],
) -> tuple[sparse.csr_array | None, ItemItemSettings]:
    """B before its weight, None where B = 0, and the settings that it was made with.

    What the settings leave open is selected on the split, beside the graph part's scores, where there is one. The kind
    of table is kept, too: a weight means nothing beside one of another kind, which a grown catalogue would get.
    """
    if split is None:
        settings = without_selection(settings, history.shape[1])
        return (None if settings.weight == 0 else item_item_weights(history, settings, content)), settings
    if settings.weight == 0:
        return None, replace(settings, method=resolved_method(settings, history.shape[1]))  # made for nothing
    scores = scores_of(embeddings(), history.shape[0], history, None)
    return select_weights(history, settings, content, BesideScores(scores, history, split))


def embeddings_of(model: Recommender) -> NDArray[np.float32]:
    """Z as torch computes it, (I + J, d)."""
    with torch.no_grad():
        return np.asarray(model.embeddings().cpu().numpy(), np.float32)


def choose_weight(
    model: Recommender,
    data: DataSet,
    history: sparse.csr_array,
    table: sparse.csr_array,
    split: Split,
    fixed: float,
    observer: Observer,
) -> tuple[float, Mapping[str, float]]:
    """The table's weight with the best validation NDCG@20, and the metrics that it gives.

    The grid is in units of the ratio between the spread of Z_u · Z_v and the table's mean entry, so it needs no
    tuning when the embeddings' scale changes.
    """
    embeddings = embeddings_of(model)

    def metrics_at(weight: float) -> Mapping[str, float]:
        weighted = sparse.csr_array(table * np.float32(weight)) if weight > 0 else None
        return evaluate(scores_of(embeddings, data.n_users, history, weighted), split)

    if fixed >= 0:
        return fixed, metrics_at(fixed)
    sample = split.users[:: max(1, len(split.users) // 256)]
    spread = float(np.std(embeddings[sample] @ embeddings[data.n_users :].T)) if len(sample) else 1.0
    unit = max(spread, 1e-6) / max(float(table.data.mean()) if table.nnz else 1.0, 1e-9)
    coarse = [0.0, *(unit * 2.0**p for p in range(-5, 5))]
    observer.phase("weight of B", len(coarse) + 4, 0.05)
    found: dict[float, Mapping[str, float]] = {}

    def try_all(weights: list[float]) -> float:
        for weight in weights:
            if weight not in found:
                found[weight] = metrics_at(weight)
                observer.advance(1, {SELECTED_BY: found[weight][SELECTED_BY]})
        return max(found, key=lambda w: (found[w][SELECTED_BY], -w))

    best = try_all(coarse)
    if best > 0:
        best = try_all([best * 2**-0.5, best * 2**0.5])
        best = try_all([best * 2**-0.25, best * 2**0.25])
    return best, found[best]


def identity_of(settings: TrainingSettings, fingerprint: str, fixed_epochs: int | None) -> str:
    """A name for a fit: equal for equal settings, data and seed."""
    content: dict[str, Any] = {"settings": asdict(settings), "data": fingerprint, "epochs": fixed_epochs}
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
