"""`kdiffe evaluate`: full-ranking metrics of a published version."""

from __future__ import annotations

from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from rich.table import Table

from model_store.artifact import Artifact
from model_store.command import console, write_json
from model_store.store import DEFAULT_ROOT, ModelStore
from training.commands.options import Data, Json, Store
from training.configuration import settings_from
from training.data.dataset import DataSet, Interactions
from training.data.loading import load_data_set
from training.errors import ConfigurationError, DataError
from training.evaluation import Split, interaction_matrix
from training.evaluation import evaluate as evaluate_split
from training.item_item import table_matrix
from training.trained import scores_of

SPLITS = ("train", "valid", "test")


def evaluate(
    data: Data,
    store: Store = DEFAULT_ROOT,
    version: Annotated[str | None, typer.Option("--version", help="A version; the active one by default.")] = None,
    split: Annotated[str, typer.Option("--split", help="test or valid.")] = "test",
    mask: Annotated[str, typer.Option("--mask", help="Splits whose items are left out of the ranking.")] = "train",
    as_json: Json = False,
) -> None:
    """Rank all items for every user with items in the split; Recall@20 and NDCG@20."""
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
    loaded = load_data_set(data, settings.split)
    metrics = evaluate_artifact(artifact, loaded, split, masks)
    if as_json:
        write_json({"version": artifact.version, "split": split, "mask": masks, **metrics})
    table = Table("version", "split", "users", "Recall@20", "NDCG@20")
    figures = (f"{metrics['recall@20']:.4f}", f"{metrics['ndcg@20']:.4f}")
    table.add_row(artifact.version, split, str(metrics["n_users"]), *figures)
    console().print(table)


def evaluate_artifact(artifact: Artifact, data: DataSet, split: str, masks: list[str]) -> dict[str, float]:
    """Metrics of an artifact on a split of a data set: user_embeddings · item_embeddings + B, as it is served.

    Raises:
        DataError: the set names users or items that the version doesn't know.
    """
    user_rows = _rows_of("users", data.user_ids, artifact.array("user_ids"), artifact)
    item_rows = _rows_of("items", data.item_ids, artifact.array("item_ids"), artifact)
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
    history = interaction_matrix(Interactions(users, items), n_users, n_items)
    table = table_matrix(artifact.item_item(), n_items)
    embeddings = np.concatenate([artifact.array("user_embeddings"), artifact.array("item_embeddings")])
    scores = scores_of(embeddings, n_users, history, table)
    return evaluate_split(scores, Split.of(rows(parts[split]), hidden, n_users, n_items))


def _rows_of(kind: str, ids: NDArray[np.str_], known: NDArray[np.str_], artifact: Artifact) -> NDArray[np.int32]:
    rows = {str(i): row for row, i in enumerate(known)}
    unknown = [str(i) for i in ids if str(i) not in rows]
    if unknown:
        raise DataError(
            f"{len(unknown)} {kind} of the data set are not in {artifact.version} (the first: {unknown[0]!r}). "
            "Evaluate on the data set that the version was trained on."
        )
    return np.array([rows[str(i)] for i in ids], np.int32)
