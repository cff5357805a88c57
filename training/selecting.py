"""After the fit: which of the epochs that it kept is served, with which item-item table B, and how much B weighs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from training.data.dataset import DataSet
from training.evaluation import Split, evaluate, interaction_matrix, scores_of
from training.fitting import SELECTED_BY, WITH_TABLE, Fit, Kept, hold
from training.item_item import (
    BesideScores,
    BesideTable,
    Content,
    Regressions,
    item_item_weights,
    ndcg_beside,
    select_weights,
    without_selection,
)
from training.models.recommender import Recommender
from training.observer import Observer
from training.settings import ItemItemSettings, TrainingSettings

# Weights of B that are tried, at most.
_TRIES = 15
# What part of the validation users one of several tables is selected on, and how many of them at most.
_PART, _MOST_OF_PART = 0.6, 2048


@dataclass(frozen=True)
class Fitted:
    """A model that was fitted.

    Attributes:
        settings: with these.
        model: it holds the first of the fit's kept epochs.
        fit: its epochs.
    """

    settings: TrainingSettings
    model: Recommender
    fit: Fit


@dataclass(frozen=True)
class Served:
    """What is served.

    Attributes:
        settings: those of its fit, what they left open of B resolved.
        model: it holds the epoch that is served.
        fit: the fit of that epoch.
        table: (J, J) B before its weight, None where B = 0.
        metrics: validation metrics with B; empty without a validation split.
    """

    settings: TrainingSettings
    model: Recommender
    fit: Fit
    table: sparse.csr_array | None
    metrics: Mapping[str, float]


def best_served(fits: Sequence[Fitted], regressions: Regressions, split: Split | None, observer: Observer) -> Served:
    """Make B beside each epoch that a fit kept, and take what is best with it by validation NDCG@20.

    Args:
        fits: the fits, of one configuration but for the loss.
        regressions: the tables to select from.
        split: the validation split; None where nothing is selected: then B is made as the settings say.
        observer: is told about every weight that is tried.

    Raises:
        ConfigurationError: something of B is left open, and there is nothing to select it on.
    """
    first, history = fits[0], regressions.interactions
    if split is None:
        observer.phase("item-item table B", 1, 0.1)
        chosen = without_selection(first.settings.item_item, history.shape[1])
        table = None if chosen.weight == 0 else item_item_weights(history, chosen, regressions.content)
        observer.advance()
        return Served(_with_weight(first.settings, chosen, chosen.weight), first.model, first.fit, table, {})
    n_contenders = sum(len(fitted.fit.kept) for fitted in fits)
    observer.phase("item-item table B and its weight", n_contenders * _TRIES, 0.1)
    best: Served | None = None
    for fitted in fits:
        # B is selected beside the epoch that was the best with one, and laid beside the fit's other as it is.
        table, chosen = None, regressions.settings
        for place, kept in enumerate(sorted(fitted.fit.kept, key=_with_table, reverse=True)):
            hold(fitted.model, kept.tensors)
            embeddings = embeddings_of(fitted.model)
            if place == 0:
                table, chosen = select_table(embeddings, regressions, split)
            own = evaluate(scores_of(embeddings, history.shape[0], history, None), split)
            of_all_users = replace(kept, metrics={**kept.metrics, **own})
            weight: float = chosen.weight
            metrics: Mapping[str, float] = own
            if table is not None:
                weight, metrics = choose_weight(embeddings, history, table, split, weight, observer)
            if n_contenders > 1:
                observer.note(
                    f"Validation {SELECTED_BY} with B: {metrics[SELECTED_BY]:.4f} (loss.kind = "
                    f"{fitted.settings.loss.kind}, epoch {kept.epoch}, the best by {kept.selected_by})."
                )
            if best is None or metrics[SELECTED_BY] > best.metrics[SELECTED_BY]:
                settings = _with_weight(fitted.settings, chosen, weight)
                fit = fitted.fit.holding(of_all_users)
                best, tensors = Served(settings, fitted.model, fit, table, metrics), kept.tensors
    assert best is not None  # noqa: S101
    if n_contenders > 1:
        observer.note(f"Kept: epoch {best.fit.best_epoch}, loss.kind = {best.settings.loss.kind}.")
    hold(best.model, tensors)
    return best


def _with_table(kept: Kept) -> float:
    """A kept epoch's validation figure beside the preliminary table; its own where there was none."""
    return kept.metrics.get(WITH_TABLE, kept.metrics[SELECTED_BY])


def _with_weight(settings: TrainingSettings, table: ItemItemSettings, weight: float) -> TrainingSettings:
    return replace(settings, item_item=replace(table, weight=max(weight, 0.0)))


class Tables:
    """Tables of one data set's train and validation splits: made once, whatever else runs on them differ in.

    Attributes:
        data: the data set.
        history: (I, J) Y of the train interactions.
        split: the validation split.
        content: features and knowledge graph of the items.
    """

    def __init__(self, data: DataSet) -> None:
        """Make none yet."""
        self.data = data
        self.history = interaction_matrix(data.train, data.n_users, data.n_items)
        self.split = Split.of(data.valid, data.train, data.n_users, data.n_items)
        # Without entities that were made from features, which a retrain's data bring and a first fit's do not.
        self.content = Content(data.n_items, data.features, data.own_knowledge)
        self._regressions: dict[ItemItemSettings, Regressions] = {}
        self._beside_popularity: dict[ItemItemSettings, tuple[sparse.csr_array | None, ItemItemSettings]] = {}
        self._preliminary: dict[ItemItemSettings, BesideTable | None] = {}

    def regressions(self, settings: ItemItemSettings) -> Regressions:
        """The regressions with these settings; the last ones alone are kept, as they are large."""
        if settings not in self._regressions:
            self._regressions = {settings: Regressions(self.history, settings, self.content)}
        return self._regressions[settings]

    def beside_popularity(self, settings: ItemItemSettings) -> tuple[sparse.csr_array | None, ItemItemSettings]:
        """`select_table` beside `popularity_embeddings`; with the last settings alone it is kept."""
        if settings not in self._beside_popularity:
            found = select_table(popularity_embeddings(self.history), self.regressions(settings), self.split)
            self._beside_popularity = {settings: found}
        return self._beside_popularity[settings]

    def preliminary(self, settings: ItemItemSettings) -> BesideTable | None:
        """What an epoch is selected beside: a B that is itself selected beside popularity, as nothing is fitted yet.

        None where B = 0; with the last settings alone it is kept.
        """
        if settings not in self._preliminary:
            table, _ = self.beside_popularity(settings)
            beside = None if table is None else BesideTable(table, self.history, self.split)
            self._preliminary = {settings: beside}
        return self._preliminary[settings]


def popularity_embeddings(history: sparse.csr_array) -> NDArray[np.float32]:
    """(I + J, 1) vectors whose products are the items' log(1 + number of users), alike for all users.

    Args:
        history: (I, J) Y of the training interactions.
    """
    n_users, n_items = history.shape
    popularity = np.log1p(np.bincount(history.indices, minlength=n_items))
    return np.concatenate([np.ones(n_users), popularity]).astype(np.float32)[:, np.newaxis]


def select_table(
    embeddings: NDArray[np.float32], regressions: Regressions, split: Split
) -> tuple[sparse.csr_array | None, ItemItemSettings]:
    """B before its weight, None where B = 0, and the settings that it was made with.

    What the settings leave open is selected on the split, beside the graph part's scores. The kind of table is kept,
    too: a weight means nothing beside one of another kind, which a grown catalogue would get.

    Args:
        embeddings: (I + J, d) Z.
        regressions: the tables to select from.
        split: the validation split.
    """
    if regressions.settings.weight == 0:
        return None, regressions.settings  # made for nothing
    history, n_selections = regressions.interactions, regressions.settings.n_selections
    scores = scores_of(embeddings, history.shape[0], history, None)
    parts = split.parts(n_selections, _PART, _MOST_OF_PART) if n_selections > 1 else []
    return select_weights(
        regressions, BesideScores(scores, history, split), (BesideScores(scores, history, part) for part in parts)
    )


def choose_weight(
    embeddings: NDArray[np.float32],
    history: sparse.csr_array,
    table: sparse.csr_array,
    split: Split,
    fixed: float,
    observer: Observer,
) -> tuple[float, Mapping[str, float]]:
    """The table's weight with the best validation NDCG@20, and the metrics that it gives.

    The grid is in units of the ratio between the spread of Z_u · Z_v and the table's mean entry, so it needs no
    tuning when the embeddings' scale changes.

    Args:
        embeddings: (I + J, d) Z.
        history: (I, J) Y of the training interactions.
        table: (J, J) B.
        split: the validation split.
        fixed: a weight that is given, or -1.
        observer: is told about every weight that is tried.
    """
    n_users = history.shape[0]
    own = scores_of(embeddings, n_users, history, None)

    def metrics_at(weight: float) -> Mapping[str, float]:
        weighted = sparse.csr_array(table * np.float32(weight)) if weight > 0 else None
        return evaluate(scores_of(embeddings, n_users, history, weighted), split)

    if fixed >= 0:
        return fixed, metrics_at(fixed)
    sample = split.users[:: max(1, len(split.users) // 256)]
    spread = float(np.std(embeddings[sample] @ embeddings[n_users:].T)) if len(sample) else 1.0
    unit = max(spread, 1e-6) / max(float(table.data.mean()) if table.nnz else 1.0, 1e-9)
    coarse = [0.0, *(unit * 2.0**p for p in range(-5, 5))]
    found: dict[float, float] = {}

    def try_all(weights: list[float]) -> float:
        new = [weight for weight in weights if weight not in found]
        for weight, value in zip(new, ndcg_beside(own, history, table, split, new), strict=True):
            found[weight] = value
            observer.advance(1, {SELECTED_BY: value})
        return max(found, key=lambda w: (found[w], -w))

    best = try_all(coarse)
    if best > 0:
        best = try_all([best * 2**-0.5, best * 2**0.5])
        best = try_all([best * 2**-0.25, best * 2**0.25])
    return best, metrics_at(best)


def embeddings_of(model: Recommender) -> NDArray[np.float32]:
    """Z as torch computes it, (I + J, d)."""
    with torch.no_grad():
        return np.asarray(model.embeddings().cpu().numpy(), np.float32)
