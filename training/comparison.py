"""KDiffE beside its peers on one data set: the same files, the same evaluation, every choice made on validation."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from scipy import sparse

from training.data.dataset import DataSet
from training.errors import ConfigurationError
from training.evaluation import ScoreUsers, Split, evaluate, interaction_matrix
from training.export import kernel_embeddings
from training.fitting import SELECTED_BY
from training.item_item import EASE_L2, item_item_table, table_matrix
from training.models.ease import ease
from training.models.itemknn import itemknn
from training.models.popularity import popularity
from training.observer import Observer
from training.settings import (
    EntitySettings,
    ItemItemSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    TrainingSettings,
)
from training.trained import Trained, scores_of, train_kdiffe

# The grid from which item-kNN's setting is selected on validation; EASE's is `EASE_L2`.
ITEMKNN = tuple((n, shrink) for n in (20, 100) for shrink in (0.0, 10.0, 100.0, 1000.0))

# LightGCN (He et al., SIGIR 2020): d = 64, Adam 1e-3, λ 1e-4, 2 layers. Embeddings start as Xavier's: started with a
# standard deviation of 0.1 it is weaker on tiktok's validation split (NDCG@20 .0389, against .0414 with 0.01).
LIGHTGCN = TrainingSettings(
    model=ModelSettings(width=64, n_layers=2, similarity_weight=0.0, knowledge=False, init_scale=0.0),
    entities=EntitySettings(source="never"),
    loss=LossSettings(kind="bpr", n_negatives=1, l2_weight=1e-4),
    optimiser=OptimiserSettings(
        learning_rate=1e-3, batch_size=2048, average=0.0, max_epochs=1000, patience=10, evaluate_every=5
    ),
    item_item=ItemItemSettings(method="none"),
)


@dataclass(frozen=True)
class Candidate:
    """One trained variant of a model.

    Attributes:
        name: the variant (`kdiffe`, `kdiffe_without_table`).
        scores: its scores.
        chosen: what was selected for it, for the reader.
    """

    name: str
    scores: ScoreUsers
    chosen: str


@dataclass(frozen=True)
class Task:
    """What a model is trained for.

    Attributes:
        data: the data set.
        history: (I, J) Y of the train interactions.
        valid: the validation split.
        settings: KDiffE's settings; the seed and the device are every model's.
        observer: is told about every phase.
    """

    data: DataSet
    history: sparse.csr_array
    valid: Split
    settings: TrainingSettings
    observer: Observer


Setting = TypeVar("Setting")
Train = Callable[[Task], Iterator[Candidate]]


def _popularity(task: Task) -> Iterator[Candidate]:
    yield Candidate("popularity", popularity(task.history), "")


def _itemknn(task: Task) -> Iterator[Candidate]:
    task.observer.phase("itemknn", len(ITEMKNN), 0.0)
    (n_neighbors, shrink), scores = _best(ITEMKNN, lambda setting: itemknn(task.history, setting[0], setting[1]), task)
    yield Candidate("itemknn", scores, f"{n_neighbors} neighbors, shrink {shrink:g}")


def _ease(task: Task) -> Iterator[Candidate]:
    limit = task.settings.item_item.ease_limit
    if task.data.n_items > limit:
        raise ConfigurationError(
            f"ease: {task.data.n_items} items are more than item_item.ease_limit = {limit}; its memory grows with J². "
            "Leave ease out of --models or raise the limit."
        )
    task.observer.phase("ease", len(EASE_L2), 0.0)
    l2, scores = _best(EASE_L2, lambda value: ease(task.history, value), task)
    yield Candidate("ease", scores, f"λ = {l2:g}")


def _lightgcn(task: Task) -> Iterator[Candidate]:
    trained = train_kdiffe(task.data, replace(LIGHTGCN, run=task.settings.run), task.observer)
    yield Candidate("lightgcn", _scores(trained, task, 0.0), f"{trained.fit.best_epoch} epochs")


def _kdiffe(task: Task) -> Iterator[Candidate]:
    trained = train_kdiffe(task.data, task.settings, task.observer)
    chosen = f"{trained.fit.best_epoch} epochs"
    weight = trained.table_weight
    yield Candidate("kdiffe", _scores(trained, task, weight), f"{chosen}, B × {weight:.4g}")
    if weight > 0:
        yield Candidate("kdiffe_without_table", _scores(trained, task, 0.0), chosen)


MODELS: Mapping[str, Train] = {
    "popularity": _popularity,
    "itemknn": _itemknn,
    "ease": _ease,
    "lightgcn": _lightgcn,
    "kdiffe": _kdiffe,
}
# One seed tells all about these.
DETERMINISTIC = frozenset({"popularity", "itemknn", "ease"})


def compare(
    data: DataSet, models: Sequence[str], n_seeds: int, settings: TrainingSettings, observer: Observer
) -> dict[str, dict[str, object]]:
    """Train each model for each seed and evaluate it on the test split, train items masked.

    Args:
        data: a data set with validation and test splits.
        models: names from `MODELS`.
        n_seeds: seeds of the models that draw: settings.run.seed, +1, ...
        settings: KDiffE's settings.
        observer: is told about every phase.

    Returns:
        name → {"recall@20", "recall@20_std", "ndcg@20", "ndcg@20_std", "seeds", "seed_values", "chosen"}; `seeds` is
        how many, and the spread is the sample standard deviation over them, 0 for one.

    Raises:
        ConfigurationError: an unknown model, or a set without validation or test split.
    """
    unknown = [name for name in models if name not in MODELS]
    if unknown or not models:
        raise ConfigurationError(f"--models: unknown {unknown}; there are: {', '.join(MODELS)}.")
    if not len(data.valid) or not len(data.test):
        raise ConfigurationError(f"{data.name}: comparing needs a validation and a test split.")
    history = interaction_matrix(data.train, data.n_users, data.n_items)
    valid, test = (Split.of(part, data.train, data.n_users, data.n_items) for part in (data.valid, data.test))
    results: dict[str, list[tuple[int, str, Mapping[str, float]]]] = {}
    for name in models:
        seeds = 1 if name in DETERMINISTIC else n_seeds
        for offset in range(seeds):
            seed = settings.run.seed + offset
            observer.note(f"{name}, seed {seed}")
            seeded = replace(settings, run=replace(settings.run, seed=seed))
            for candidate in MODELS[name](Task(data, history, valid, seeded, observer)):
                metrics = evaluate(candidate.scores, test)
                results.setdefault(candidate.name, []).append((seed, candidate.chosen, metrics))
    return {name: _summary(runs) for name, runs in results.items()}


def _summary(runs: Sequence[tuple[int, str, Mapping[str, float]]]) -> dict[str, object]:
    summary: dict[str, object] = {
        "seeds": len(runs),
        "seed_values": [seed for seed, _, _ in runs],
        "chosen": [chosen for _, chosen, _ in runs],
    }
    for metric in ("recall@20", "ndcg@20"):
        values = np.array([metrics[metric] for _, _, metrics in runs])
        summary[metric] = float(values.mean())
        summary[f"{metric}_std"] = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return summary


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


def _scores(trained: Trained, task: Task, weight: float) -> ScoreUsers:
    n_users, n_items = task.data.n_users, task.data.n_items
    table = table_matrix(item_item_table(trained.table, weight), n_items)
    return scores_of(kernel_embeddings(trained, n_users), n_users, task.history, table)
