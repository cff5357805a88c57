"""Small worlds for the tests of training: data sets whose right answer is known, and settings that take a moment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.walks import WalkSettings
from training.configuration import settings_from
from training.data.dataset import DataSet, Interactions
from training.data.split import SplitSettings, split
from training.data.synthesis import synthesize
from training.evaluation import Split
from training.fitting import batch_size
from training.models.factory import make_model
from training.models.graph import attention_state
from training.models.knowledge import KnowledgeView
from training.models.recommender import Recommender
from training.sampling import Sampler
from training.settings import TrainingSettings

CPU = torch.device("cpu")


def small(**sections: Mapping[str, Any]) -> TrainingSettings:
    """Settings of a tiny model: every section's values on top of these."""
    values: dict[str, dict[str, Any]] = {
        "model": {"width": 8, "n_layers": 2},
        "walks": {"n_walks": 2, "walk_length": 5},
        "entities": {"n_centroids": 4, "n_nearest": 2},
        "loss": {"kind": "bpr", "n_negatives": 2},
        "optimiser": {"learning_rate": 0.05, "batch_size": 32, "min_batches": 1, "max_epochs": 4, "evaluate_every": 1},
        "item_item": {"l2": 5.0, "per_row": 6},
        "run": {"device": "cpu", "checkpoint_every": 1},
    }
    for section, more in sections.items():
        values[section] = {**values.get(section, {}), **more}
    return settings_from(values, "the test's settings")


def interactions(pairs: list[tuple[int, int]]) -> Interactions:
    """Interactions from pairs of rows."""
    rows = np.array(pairs, np.int32).reshape(-1, 2)
    return Interactions(rows[:, 0].copy(), rows[:, 1].copy())


def ids(prefix: str, count: int) -> NDArray[np.str_]:
    """`u0`, `u1`, ..."""
    return np.array([f"{prefix}{row}" for row in range(count)], np.str_)


def checkerboard(n: int = 16) -> DataSet:
    """Users and items of two groups, by parity: a user has every item of the own group but one, which is valid.

    So the right top-1 of user u is known: the one item of the own group that is not in train.
    """
    train, valid = [], []
    for user in range(n):
        own = [item for item in range(n) if item % 2 == user % 2]
        held_out = own[(user // 2 + 1) % len(own)]
        train += [(user, item) for item in own if item != held_out]
        valid.append((user, held_out))
    return DataSet("checkerboard", ids("u", n), ids("i", n), interactions(train), interactions(valid))


def clips(*, cold: bool = False, seed: int = 3) -> DataSet:
    """A synthetic set with a graph, features, names and all three splits; by time some users and items are cold."""
    data = synthesize(40, 30, seed, mean_interactions=8)
    strategy = "time" if cold else "leave_out"
    return split(data, SplitSettings(strategy=strategy, valid_share=0.2, test_share=0.1))


def without_graph(data: DataSet) -> DataSet:
    """The same set with its features and without a knowledge graph."""
    return replace(data, knowledge=None)


def matrix_of(part: Interactions, n_users: int, n_items: int) -> NDArray[np.float64]:
    """Y, dense."""
    dense = np.zeros((n_users, n_items))
    for user, item in zip(part.user_rows, part.item_rows, strict=True):
        dense[user, item] = 1.0
    return dense


def model_of(data: DataSet, settings: TrainingSettings, seed: int = 0) -> Recommender:
    """The model of the settings without a knowledge graph, on a set's train interactions."""
    settings = replace(settings, run=replace(settings.run, seed=seed))
    walks = WalkSettings(settings.walks.n_walks, settings.walks.walk_length, settings.walks.restart_probability, 0)
    return make_model(data, settings, attention_state(data, data.train, walks, 1), None, CPU)


def knowledge_view(model: Recommender) -> KnowledgeView:
    """The model's main view."""
    view = model.views["knowledge"]
    assert isinstance(view, KnowledgeView)
    return view


def sampler_of(data: DataSet, settings: TrainingSettings, seed: int = 0) -> Sampler:
    """Samples as `train_kdiffe` draws them."""
    shared = batch_size(settings.optimiser, len(data.train)) if settings.loss.kind == "softmax" else None
    return Sampler(data.train, data.n_items, settings.loss.n_negatives, seed, shared)


def valid_split(data: DataSet) -> Split:
    """The validation split, train items masked."""
    return Split.of(data.valid, data.train, data.n_users, data.n_items)


class Recorder:
    """An observer that keeps what it is told, and may stop the work at a step of a phase as Ctrl-C would."""

    def __init__(self, stop_in: str = "", stop_after: int = 0) -> None:
        self.phases: list[str] = []
        self.figures: list[dict[str, float]] = []
        self.notes: list[str] = []
        self._stop_in, self._stop_after, self._steps = stop_in, stop_after, 0

    def phase(self, name: str, total: int, share: float) -> None:
        self.phases.append(name)
        self._steps = 0

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        self.figures.append(dict(figures or {}))
        self._steps += steps
        if self._stop_in and self.phases[-1] == self._stop_in and self._steps >= self._stop_after:
            raise KeyboardInterrupt

    def note(self, text: str) -> None:
        self.notes.append(text)
