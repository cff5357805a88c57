"""A retrain's trial: what data and settings give on interactions that are held back, beside what they gave before.

A retrained version is fitted on all interactions, so nothing is left to measure it by. What is measured instead is a
fit like it, for as many epochs, on all but one interaction of each user; and the same for the version that is
retrained, unless that has been on trial itself. Which interaction is held back follows from the ids alone, so most
users are asked about the same one in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from model_store.artifact import Artifact
from model_store.keys import node_keys
from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.evaluation import Split, UserMetrics, interaction_matrix, rank, scores_of
from training.export import data_set_of, kernel_embeddings
from training.item_item import item_item_table, table_matrix
from training.observer import Observer, Part
from training.settings import TrainingSettings
from training.trained import Trained, train_kdiffe

# Fewest interactions of a user of whom one is held back: two are left to tell what the user likes.
LEAST = 3
# Length of the lists, and what is told of them.
LENGTH = 20
METRICS = (f"recall@{LENGTH}", f"ndcg@{LENGTH}")


def on_trial(
    artifact: Artifact,
    data: DataSet,
    settings: TrainingSettings,
    observer: Observer,
    folder: Path,
    *,
    epochs: int,
    own_settings: TrainingSettings,
    resume: bool = False,
) -> dict[str, Any]:
    """Try what a version is retrained with.

    Args:
        artifact: the version.
        data: what it is retrained on, everything in train.
        settings: what it is retrained with.
        observer: is told about every phase.
        folder: where checkpoints go.
        epochs: for which it is fitted.
        own_settings: what the version itself was fitted with.
        resume: go on from the folder's checkpoints.

    Returns:
        {"base": the version, "before": its figures, "known": figures of the users that these are of, "valid": of all}.
        Figures are {"recall@20", "ndcg@20", "n_users", "standard_errors"}.
    """
    earlier = held_back(data_set_of(artifact))
    before = artifact.manifest.metrics.get("trial", {}).get("valid")
    parts = Part(observer, 1.0 if before is not None else 0.5)
    if before is None:
        observer.note(f"A trial of {artifact.version}, to compare with: one interaction of each user is held back.")
        before = figures(measured(fitted(earlier, own_settings, parts, folder / "before", epochs, resume), earlier))
    observer.note(f"A trial of what {artifact.version} is retrained with: one interaction of each user is held back.")
    held = held_back(data)
    found = measured(fitted(held, settings, parts, folder / "trial", epochs, resume), held)
    known = np.isin(held.user_ids[found.users], earlier.user_ids[earlier.valid.user_rows])
    return {
        "base": artifact.version,
        "before": dict(before),
        "known": figures(found.take(known)),
        "valid": figures(found),
    }


def held_back(data: DataSet) -> DataSet:
    """The data with one train interaction of each user who has enough as validation split, chosen by the ids' keys."""
    users, items = data.train.user_rows, data.train.item_rows
    # Both keys are hashes: their exclusive or orders each user's items at random, whatever else the user has.
    order = np.lexsort((node_keys("item", data.item_ids)[items] ^ node_keys("user", data.user_ids)[users], users))
    counts = np.bincount(users, minlength=data.n_users)
    first = order[(np.cumsum(counts) - counts)[counts >= LEAST]]
    held = np.zeros(len(users), np.bool_)
    held[first] = True
    return replace(data, train=data.train.take(~held), valid=data.train.take(held), test=Interactions.empty())


def fitted(
    held: DataSet, settings: TrainingSettings, observer: Observer, folder: Path, epochs: int, resume: bool
) -> Trained:
    """A fit for a number of epochs that selects nothing: the validation split is not looked at."""
    return train_kdiffe(
        held,
        settings,
        observer,
        fixed_epochs=epochs,
        checkpoints=folder,
        resume=resume,
        fingerprint=fingerprint(held),
    )


def measured(trained: Trained, held: DataSet) -> UserMetrics:
    """What a model gives every user of whom an interaction is held back."""
    split = Split.of(held.valid, held.train, held.n_users, held.n_items)
    history = interaction_matrix(held.train, held.n_users, held.n_items)
    table = table_matrix(item_item_table(trained.table, trained.table_weight), held.n_items)
    scores = scores_of(kernel_embeddings(trained, held.n_users), held.n_users, history, table)
    return UserMetrics.of(rank(scores, split, LENGTH), [LENGTH])


def figures(found: UserMetrics) -> Mapping[str, Any]:
    """The means of some users; {} where there are none."""
    if len(found) == 0:
        return {}
    means, errors = found.means(), found.standard_errors()
    return {
        **{name: means[name] for name in METRICS},
        "n_users": len(found),
        # Of one user nothing is known: any value may come.
        "standard_errors": {name: errors.get(name, 1.0) for name in METRICS},
    }
