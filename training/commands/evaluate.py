"""`kdiffe evaluate`: full-ranking metrics of a published version, and of its cold start."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table
from scipy import sparse

from model_store.artifact import Artifact
from model_store.command import console, write_json
from model_store.store import DEFAULT_ROOT, ModelStore
from training.commands.options import Data, Json, Store
from training.configuration import settings_from
from training.data.dataset import DataSet, Interactions
from training.data.loading import load_data_set
from training.errors import ConfigurationError, DataError
from training.evaluation import (
    LENGTHS,
    Evaluation,
    ItemFacts,
    ScoreUsers,
    Split,
    evaluate_fully,
    interaction_matrix,
    scores_of,
)
from training.evaluation import evaluate as evaluate_split
from training.item_item import table_matrix
from training.labels import NAMES, SLICE_NAMES

SPLITS = ("train", "valid", "test")


def evaluate(
    data: Data,
    store: Store = DEFAULT_ROOT,
    version: Annotated[str | None, typer.Option("--version", help="A version; the active one by default.")] = None,
    split: Annotated[str, typer.Option("--split", help="test or valid.")] = "test",
    mask: Annotated[str, typer.Option("--mask", help="Splits whose items are left out of the ranking.")] = "train",
    as_json: Json = False,
) -> None:
    """Rank all items for every user with items in the split: all metrics, and those of the cold start."""
    artifact = ModelStore(store).open(version)
    masks = [name.strip() for name in mask.split(",") if name.strip()]
    if split not in {"valid", "test"}:
        raise ConfigurationError(f"--split {split!r}: choose valid or test.")
    if any(name not in SPLITS or name == split for name in masks):
        raise ConfigurationError(f"--mask {mask!r}: name splits other than {split!r}, of: {', '.join(SPLITS)}.")
    if artifact.manifest.training.get("refit"):
        raise ConfigurationError(
            f"{artifact.version} was refitted on all interactions, the {split} split included: its figure would say "
            "nothing. Evaluate the version that it was selected as, or train without --refit."
        )
    settings = settings_from(artifact.manifest.configuration, f"the configuration of {artifact.version}")
    found = evaluate_artifact_fully(artifact, load_data_set(data, settings.split), split, masks).to_json()
    if as_json:
        zeros = {"recall@20": 0.0, "ndcg@20": 0.0}  # a split whose items are all masked has no users
        write_json({"version": artifact.version, "split": split, "mask": masks, **zeros, **found})
    _print(artifact.version, split, found)


def _print(version: str, split: str, found: Mapping[str, Any]) -> None:
    out = console()
    what = f"{version}, {split}: {found['n_users']:,} users, {found['n_interactions']:,} interactions"
    metrics = Table("", *(f"@{k}" for k in LENGTHS), title=what, title_justify="left")
    for name, label in NAMES.items():
        values = [found.get(f"{name}@{k}") for k in LENGTHS]
        metrics.add_row(label, *("–" if value is None else f"{value:.4f}" for value in values))
    out.print(metrics)
    slices = Table("slice", "users", "interactions", "Recall@20", "NDCG@20")
    for name, part in found["slices"].items():
        figures = [part["metrics"].get(key) for key in ("recall@20", "ndcg@20")]
        sizes = (f"{part['n_users']:,}", f"{part['n_interactions']:,}")
        slices.add_row(SLICE_NAMES[name], *sizes, *("–" if f is None else f"{f:.4f}" for f in figures))
    out.print(slices)
    for name in ("items_unseen", "items_unseen_described"):
        out.print(f"{SLICE_NAMES[name]}: {found['slices'][name]['what']}", highlight=False, soft_wrap=True)


def evaluate_artifact(artifact: Artifact, data: DataSet, split: str, masks: list[str]) -> dict[str, float]:
    """Recall@20 and NDCG@20 of an artifact on a split of a data set.

    Raises:
        DataError: the set names users or items that the version doesn't know, has no such split, or the version was
            fitted on some of it.
    """
    case = _case(artifact, data, split, masks)
    return evaluate_split(case.scores, case.split)


def evaluate_artifact_fully(artifact: Artifact, data: DataSet, split: str, masks: list[str]) -> Evaluation:
    """Every metric and slice of an artifact on a split of a data set: Z_u · Z_v + B, as it is served.

    Raises:
        DataError: the set names users or items that the version doesn't know, has no such split, or the version was
            fitted on some of it.
    """
    case = _case(artifact, data, split, masks)
    return evaluate_fully(case.scores, case.split, case.history, case.items)


class _Case(NamedTuple):
    """What an evaluation takes: the served scores, the split, what the version was fitted on and knows."""

    scores: ScoreUsers
    split: Split
    history: sparse.csr_array
    items: ItemFacts


def _case(artifact: Artifact, data: DataSet, split: str, masks: list[str]) -> _Case:
    user_rows, item_rows = rows_in(artifact, data)
    n_users, n_items = artifact.manifest.n_users, artifact.manifest.n_items

    def rows(part: Interactions) -> Interactions:
        return Interactions(user_rows[part.user_rows], item_rows[part.item_rows])

    parts = {"train": data.train, "valid": data.valid, "test": data.test}
    if len(parts[split]) == 0:
        raise DataError(f"{data.name}: it has no {split} split to evaluate on.")
    hidden = Interactions.empty()
    for name in masks:
        hidden = hidden.concatenate(rows(parts[name]))
    users, items = artifact.graph().pairs()
    measured = rows(parts[split])
    fitted = np.isin(
        measured.user_rows * np.int64(n_items) + measured.item_rows, users * np.int64(n_items) + items.astype(np.int64)
    )
    if fitted.any():
        raise DataError(
            f"{data.name}: {artifact.version} was fitted on {int(fitted.sum()):,} of the {split} split's "
            f"{len(fitted):,} interactions: the figure would say nothing. Evaluate on the data set, and splits, that "
            "the version was trained on."
        )
    history = interaction_matrix(Interactions(users, items), n_users, n_items)
    table = table_matrix(artifact.item_item(), n_items)
    embeddings = np.concatenate([artifact.array("user_embeddings"), artifact.array("item_embeddings")])
    scores = scores_of(embeddings, n_users, history, table)
    against = Split.of(measured, hidden, n_users, n_items, history=history)
    return _Case(scores, against, history, ItemFacts.of(data).at(item_rows, n_items))


def rows_in(artifact: Artifact, data: DataSet) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """(I,) and (J,) a version's rows of a data set's users and items.

    Raises:
        DataError: the set names users or items that the version doesn't know.
    """
    return (
        _rows_of("users", data.user_ids, artifact.array("user_ids"), artifact),
        _rows_of("items", data.item_ids, artifact.array("item_ids"), artifact),
    )


def _rows_of(kind: str, ids: NDArray[np.str_], known: NDArray[np.str_], artifact: Artifact) -> NDArray[np.int32]:
    rows = {str(i): row for row, i in enumerate(known)}
    unknown = [str(i) for i in ids if str(i) not in rows]
    if unknown:
        raise DataError(
            f"{len(unknown)} {kind} of the data set are not in {artifact.version} (the first: {unknown[0]!r}). "
            "Evaluate on the data set that the version was trained on."
        )
    return np.array([rows[str(i)] for i in ids], np.int32)
