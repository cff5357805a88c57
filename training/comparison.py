"""KDiffE beside its peers on one data set: the same files, the same evaluation, every choice made on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from scipy import sparse

from training.data.dataset import DataSet
from training.errors import CheckpointError, ConfigurationError
from training.evaluation import ScoreUsers, Split, evaluate, scores_of
from training.export import kernel_embeddings
from training.fitting import SELECTED_BY
from training.item_item import EASE_L2, item_item_table, table_matrix
from training.models.ease import ease
from training.models.itemknn import itemknn
from training.models.popularity import popularity
from training.observer import Observer
from training.runs import train_on
from training.selecting import Tables, choose_weight, popularity_embeddings
from training.settings import (
    ContrastSettings,
    EntitySettings,
    ItemItemSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    TrainingSettings,
)
from training.trained import Trained

# The grid from which item-kNN's setting is selected on validation; EASE's is `EASE_L2`.
ITEMKNN = tuple((n, shrink) for n in (20, 100) for shrink in (0.0, 10.0, 100.0, 1000.0))

# LightGCN (He et al., SIGIR 2020): d = 64, Adam 1e-3, 2 layers, users sampled alike as its code does. A peer gets the
# care that KDiffE gets: on tiktok's validation split (seed 0) its own λ of 1e-4 gives Recall@20 .0934 and NDCG@20
# .0411, 1e-3 .0944/.0407, 1e-2 .1124/.0478. Embeddings start as Xavier's: with a standard deviation of 0.1 it is weaker
# (NDCG@20 .0389 against .0414 with 0.01, λ 1e-4). A patience of 150 epochs stands for a whole run: with 50 it stopped
# after 130 on baby, and what it is after 450 is better.
LIGHTGCN = TrainingSettings(
    model=ModelSettings(width=64, n_layers=2, similarity_weight=0.0, knowledge=False, init_scale=0.0),
    entities=EntitySettings(source="never"),
    contrast=ContrastSettings(weight=0.0),
    loss=LossSettings(kind="bpr", n_negatives=1, l2_weight=1e-2, user_exponent=1.0),
    optimiser=OptimiserSettings(
        learning_rate=1e-3,
        batch_size=2048,
        max_batches=1_000_000,
        average=0.0,
        max_epochs=1000,
        patience=30,
        evaluate_every=5,
        selected_by="graph",
    ),
    item_item=ItemItemSettings(method="none"),
)

# LightGCN with its own λ and interactions sampled alike: what "LightGCN, 2 layers, d = 64, Adam 1e-3, batch 2048, reg
# 1e-4" means in other code, to hold this implementation and evaluation against figures of theirs (decision 0022). Of 5
# seeds on tiktok one had its best epoch 60 epochs after others.
LIGHTGCN_REFERENCE = replace(
    LIGHTGCN,
    loss=replace(LIGHTGCN.loss, l2_weight=1e-4, user_exponent=0.0),
    optimiser=replace(LIGHTGCN.optimiser, min_batches=1),
)


@dataclass(frozen=True)
class Candidate:
    """One trained variant of a model.

    Attributes:
        name: the variant (`lightgcn`, `lightgcn_with_table`).
        scores: its scores.
        without_table: its scores with B = 0, None for a model without B.
        epochs: epochs of the kept model, 0 for a model without.
        chosen: what was selected for it on validation.
        settings: its settings with what was selected filled in, None for a model that has none.
    """

    name: str
    scores: ScoreUsers
    without_table: ScoreUsers | None = None
    epochs: int = 0
    chosen: Mapping[str, Any] | None = None
    settings: TrainingSettings | None = None


@dataclass(frozen=True)
class Task:
    """What a model is trained for.

    Attributes:
        tables: the data set and its splits, with the item-item tables that runs on them share.
        settings: KDiffE's settings; the seed and the device are every model's.
        observer: is told about every phase.
        folder: where checkpoints go; a run that finds its own goes on from it.
    """

    tables: Tables
    settings: TrainingSettings
    observer: Observer
    folder: Path

    @property
    def data(self) -> DataSet:
        """The data set."""
        return self.tables.data

    @property
    def history(self) -> sparse.csr_array:
        """(I, J) Y of the train interactions."""
        return self.tables.history

    @property
    def valid(self) -> Split:
        """The validation split."""
        return self.tables.split


Setting = TypeVar("Setting")


@dataclass(frozen=True)
class Model:
    """A model that can be trained beside the others.

    Attributes:
        train: gives its candidates, in the order of `names`.
        names: the candidates' names.
        draws: whether it depends on the seed.
        settings: what it depends on besides data and seed, for the digest of its records.
        refuses: why it can't be trained on a set, empty where it can.
        named_only: whether it is left out where no models are named.
    """

    train: Callable[[Task], Iterator[Candidate]]
    names: tuple[str, ...]
    draws: bool
    settings: Callable[[TrainingSettings], Mapping[str, Any]]
    refuses: Callable[[DataSet, TrainingSettings], str]
    named_only: bool = False


def as_kind(settings: TrainingSettings, kind: Literal["kdiffe", "diffmm"]) -> TrainingSettings:
    """The settings with another kind of model."""
    return replace(settings, model=replace(settings.model, kind=kind))


def lightgcn_settings(settings: TrainingSettings) -> TrainingSettings:
    """LightGCN's settings: its fit knows no B, which is laid beside it afterwards as KDiffE's settings make it."""
    return replace(LIGHTGCN, run=settings.run, item_item=settings.item_item)


def lightgcn_reference_settings(settings: TrainingSettings) -> TrainingSettings:
    """The settings of LightGCN's reference figures, without B."""
    return replace(LIGHTGCN_REFERENCE, run=settings.run)


# What is selected of the content: its weight in the regression and its share beside it (D10).
_OF_CONTENT = (("α", "content_gram"), ("share", "content_weight"))


def describe(epochs: int, chosen: Mapping[str, Any]) -> str:
    """What was selected, as one short text."""
    parts = [f"{epochs} epochs"] if epochs else []
    if "n_neighbors" in chosen:
        parts.append(f"{chosen['n_neighbors']} neighbors, shrink {chosen['shrink']:g}")
    if chosen.get("table_weight", 0) > 0:
        parts.append(f"B × {chosen['table_weight']:.4g}")
    if chosen.get("mean_of"):
        parts.append(_describe_mean(chosen["mean_of"]))
    if chosen.get("l2", -1) > 0:
        parts.append(f"λ = {chosen['l2']:g}")
    if chosen.get("two_hop_weight", 0) > 0:
        parts.append(f"two hops {chosen['two_hop_weight']:g}")
    if chosen.get("content", "none") not in ("none", "auto"):
        parts.append(f"content {chosen['content']}")
        parts += [f"{sign} = {chosen[key]:g}" for sign, key in _OF_CONTENT if chosen.get(key, 0) > 0]
    return ", ".join(parts)


def _describe_mean(choices: Sequence[Mapping[str, Any]]) -> str:
    """How many tables B is the mean of, their λ and contents."""
    l2s = sorted({choice["l2"] for choice in choices})
    contents = sorted({choice["content"] for choice in choices} - {"none"})
    spread = f"λ = {l2s[0]:g}" + (f" to {l2s[-1]:g}" if len(l2s) > 1 else "")
    return f"mean of {len(choices)} tables, {spread}" + (f", content {' and '.join(contents)}" if contents else "")


def _popularity(task: Task) -> Iterator[Candidate]:
    yield Candidate("popularity", popularity(task.history))


def _itemknn(task: Task) -> Iterator[Candidate]:
    task.observer.phase("itemknn", len(ITEMKNN), 0.0)
    (n_neighbors, shrink), scores = _best(ITEMKNN, lambda setting: itemknn(task.history, setting[0], setting[1]), task)
    yield Candidate("itemknn", scores, chosen={"n_neighbors": n_neighbors, "shrink": shrink})


def _ease(task: Task) -> Iterator[Candidate]:
    task.observer.phase("ease", len(EASE_L2), 0.0)
    l2, scores = _best(EASE_L2, lambda value: ease(task.history, value), task)
    yield Candidate("ease", scores, chosen={"l2": l2})


def _item_item(task: Task) -> Iterator[Candidate]:
    history = task.history
    table, chosen = task.tables.beside_popularity(task.settings.item_item)
    assert table is not None  # noqa: S101  # refused
    embeddings = popularity_embeddings(history)
    weight, _ = choose_weight(embeddings, history, table, task.valid, chosen.weight, task.observer)
    scores = scores_of(embeddings, task.data.n_users, history, sparse.csr_array(table * np.float32(weight)))
    yield Candidate("item_item", scores, chosen=_of_table(chosen, weight))


def _lightgcn(task: Task) -> Iterator[Candidate]:
    settings = lightgcn_settings(task.settings)
    (found,) = train_candidates("lightgcn_with_table", settings, task)
    alone = found.without_table or found.scores
    yield Candidate("lightgcn", alone, epochs=found.epochs, chosen={})
    yield found


def _lightgcn_reference(task: Task) -> Iterator[Candidate]:
    (found,) = train_candidates("lightgcn_reference", lightgcn_reference_settings(task.settings), task)
    yield replace(found, chosen={})


def _kdiffe(task: Task) -> Iterator[Candidate]:
    yield from train_candidates("kdiffe", as_kind(task.settings, "kdiffe"), task)


def _diffmm(task: Task) -> Iterator[Candidate]:
    yield from train_candidates("diffmm", as_kind(task.settings, "diffmm"), task)


def train_candidates(name: str, settings: TrainingSettings, task: Task) -> Iterator[Candidate]:
    """Train settings on a task's data; one candidate, with its scores without B beside it."""
    try:
        trained = train_on(task.data, settings, task.observer, task.folder, resume=True, tables=task.tables).trained
    except CheckpointError as error:
        task.observer.note(f"The checkpoint of an interrupted run can't be used, the run starts afresh: {error}")
        trained = train_on(task.data, settings, task.observer, task.folder, tables=task.tables).trained
    with_table, without = _scores(trained, task)
    chosen = _of_table(trained.settings.item_item, trained.table_weight)
    yield Candidate(name, with_table, without, trained.fit.best_epoch, chosen, trained.settings)


def _of_table(table: ItemItemSettings, weight: float) -> dict[str, Any]:
    """What was selected of B."""
    return {
        "table": table.method,
        "table_weight": weight,
        "l2": table.l2,
        "target_exponent": table.target_exponent,
        "two_hop_weight": table.two_hop_weight,
        "content": table.content,
        "content_gram": table.content_gram,
        "content_weight": table.content_weight,
        "mean_of": [asdict(choice) for choice in table.mean_of],
    }


def _nothing(_: TrainingSettings) -> Mapping[str, Any]:
    return {}


def _always(_data: DataSet, _settings: TrainingSettings) -> str:
    return ""


def _ease_refuses(data: DataSet, settings: TrainingSettings) -> str:
    limit = settings.item_item.ease_limit
    if data.n_items <= limit:
        return ""
    return f"{data.n_items} items are more than item_item.ease_limit = {limit}; its memory grows with J²"


def _item_item_refuses(_: DataSet, settings: TrainingSettings) -> str:
    return "" if settings.item_item.is_wanted else "the settings ask for no B (item_item)"


def _diffmm_refuses(data: DataSet, _: TrainingSettings) -> str:
    return "" if data.features else f"{data.name} has no feature vectors, and DiffMM's modalities are these"


MODELS: Mapping[str, Model] = {
    "popularity": Model(_popularity, ("popularity",), False, _nothing, _always),
    "itemknn": Model(_itemknn, ("itemknn",), False, lambda _: {"grid": ITEMKNN}, _always),
    "ease": Model(_ease, ("ease",), False, lambda _: {"grid": EASE_L2}, _ease_refuses),
    "item_item": Model(
        _item_item,
        ("item_item",),
        False,
        lambda s: {"item_item": asdict(s.item_item)},
        _item_item_refuses,
        named_only=True,
    ),
    "lightgcn": Model(
        _lightgcn, ("lightgcn", "lightgcn_with_table"), True, lambda s: asdict(lightgcn_settings(s)), _always
    ),
    "lightgcn_reference": Model(
        _lightgcn_reference,
        ("lightgcn_reference",),
        True,
        lambda s: asdict(lightgcn_reference_settings(s)),
        _always,
        named_only=True,
    ),
    "diffmm": Model(_diffmm, ("diffmm",), True, lambda s: asdict(as_kind(s, "diffmm")), _diffmm_refuses),
    "kdiffe": Model(_kdiffe, ("kdiffe",), True, lambda s: asdict(as_kind(s, "kdiffe")), _always),
}


def models_for(names: Sequence[str] | None, data: DataSet, settings: TrainingSettings, observer: Observer) -> list[str]:
    """The models to compare: those that were named, each once, or all that can be trained on the set.

    The `named_only` ones must be named.

    Raises:
        ConfigurationError: an unknown name, none at all, or a model that can't be trained on this set.
    """
    if names is None:
        refused = {name: model.refuses(data, settings) for name, model in MODELS.items() if not model.named_only}
        for name, why in refused.items():
            if why:
                observer.note(f"{name} is left out: {why}.")
        return [name for name, why in refused.items() if not why]
    unknown = [name for name in names if name not in MODELS]
    if unknown or not names:
        raise ConfigurationError(f"--models: unknown {unknown}; there are: {', '.join(MODELS)}.")
    for name in names:
        why = MODELS[name].refuses(data, settings)
        if why:
            raise ConfigurationError(f"{name}: {why}. Leave {name} out of --models or change what is named.")
    return list(dict.fromkeys(names))


def _best(grid: Sequence[Setting], make: Callable[[Setting], ScoreUsers], task: Task) -> tuple[Setting, ScoreUsers]:
    """The setting with the best validation NDCG@20, the first of equals."""
    best: tuple[float, Setting, ScoreUsers] | None = None
    for setting in grid:
        scores = make(setting)
        value = evaluate(scores, task.valid)[SELECTED_BY]
        task.observer.advance(1, {SELECTED_BY: value})
        if best is None or value > best[0]:
            best = (value, setting, scores)
    assert best is not None  # noqa: S101
    return best[1], best[2]


def _scores(trained: Trained, task: Task) -> tuple[ScoreUsers, ScoreUsers | None]:
    """The served scores, and those with B = 0 where B is not."""
    n_users, n_items = task.data.n_users, task.data.n_items
    embeddings = kernel_embeddings(trained, n_users)
    without = scores_of(embeddings, n_users, task.history, None)
    table = table_matrix(item_item_table(trained.table, trained.table_weight), n_items)
    if table is None:
        # B was made and got the weight 0, or the settings ask for none: then there is nothing to leave out.
        return without, (None if trained.settings.item_item.method == "none" else without)
    return scores_of(embeddings, n_users, task.history, table), without
