"""The report of a trained version: how good it was found, on what data, by what machine (docs/evaluation.md).

A report is what `report.json` holds: plain JSON, made once, after the fit, beside the artifact that it is about.
`training.report_page` turns it into something to read.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from model_store.adjacency import Adjacency
from model_store.contributions import contributions
from model_store.item_item import ItemItemTable
from model_store.serving_form import ServingForm
from training.data.dataset import DataSet
from training.evaluation import ItemFacts, Split, evaluate_fully, interaction_matrix, scores_of
from training.export import kernel_embeddings, serving_form
from training.fitting import Fit
from training.item_item import item_item_table, table_matrix
from training.labels import REPORT_VERSION
from training.ranking import top_rows
from training.results import machine, settings_digest
from training.trained import Trained

# Recommendations that the shares of explanations are means over: enough that the mean's own error is below .01.
SAMPLED_USERS = 256
SAMPLED_ITEMS = 10


def report_of(trained: Trained, data: DataSet, fingerprint: str) -> dict[str, Any]:
    """The report of a model that was selected on a validation split, or fitted without one.

    Args:
        trained: the model, fitted on `data.train`.
        data: the data set.
        fingerprint: its fingerprint.

    Returns:
        Everything but the machine's part, which `Run.publish` adds when the work is done.
    """
    return {
        "report_version": REPORT_VERSION,
        "model": model_facts(trained),
        "data": data_facts(data, fingerprint),
        "curve": curve(trained.fit),
        "validation": validation(trained, data),
        "explanations": explanations_of(trained, data.n_users),
    }


def refitted(selected: Mapping[str, Any], trained: Trained, data: DataSet, fingerprint: str) -> dict[str, Any]:
    """The report of a refit: the figures stay those of the model that was selected, which the refit can't measure.

    Args:
        selected: the report of the selected model, empty where it has none.
        trained: the refitted model.
        data: what it was fitted on.
        fingerprint: of that data.
    """
    return {
        "report_version": REPORT_VERSION,
        "model": model_facts(trained),
        "data": selected.get("data") or data_facts(data, fingerprint),
        "curve": selected.get("curve"),
        "validation": selected.get("validation"),
        "explanations": explanations_of(trained, data.n_users),
        "refit": {"data": data_facts(data, fingerprint), "curve": curve(trained.fit)},
    }


# ---- parts -----------------------------------------------------------------------------------------------------------


def model_facts(trained: Trained) -> dict[str, Any]:
    """The model's kind, width, views, size of B, the graph that it used and the digest of its settings."""
    knowledge = trained.knowledge
    return {
        "kind": trained.settings.model.kind,
        "settings_digest": settings_digest(trained.settings),
        "width": int(trained.base.shape[1]),
        "views": [view.name for view in trained.views],
        "table_weight": float(trained.table_weight),
        "table_entries": int(trained.table.nnz) if trained.table is not None and trained.table_weight > 0 else 0,
        "triplets": 0 if knowledge is None else len(knowledge),
        "entities": 0 if knowledge is None else len(knowledge.entity_ids),
        "relations": 0 if knowledge is None else len(knowledge.relation_ids),
    }


def data_facts(data: DataSet, fingerprint: str) -> dict[str, Any]:
    """Sizes of a data set. Density is the share of all user-item pairs that interact, in any split."""
    sizes = {"train": len(data.train), "valid": len(data.valid), "test": len(data.test)}
    described = ItemFacts.of(data)
    graph = data.knowledge
    return {
        "name": data.name,
        "fingerprint": fingerprint,
        "n_users": data.n_users,
        "n_items": data.n_items,
        "interactions": sizes,
        "density": sum(sizes.values()) / max(1, data.n_users * data.n_items),
        "triplets": 0 if graph is None else len(graph),
        "entities": 0 if graph is None else len(graph.entity_ids),
        "relations": 0 if graph is None else len(graph.relation_ids),
        "modalities": {name: int(features.shape[1]) for name, features in data.features.items()},
        "items_in_graph": int(described.in_graph.sum()),
        "items_with_features": int(described.with_features.sum()),
    }


def machine_facts(device: str, seconds: float) -> dict[str, Any]:
    """What the work was done with, and what it took.

    Args:
        device: cpu or cuda.
        seconds: the whole run, by the wall clock.

    Returns:
        `training.results.machine` and more. Peak memory is the process's largest resident set since it began, in bytes;
        a GPU's, where one was used, what torch had allocated at most.
    """
    facts = {
        **machine(),
        "threads": torch.get_num_threads(),
        "kdiffe": installed_version("kdiffe"),
        "device": device,
        "seconds": round(seconds, 1),
        "peak_memory_bytes": peak_memory(Path("/proc/self/status")),
    }
    return facts | ({"gpu_peak_memory_bytes": torch.cuda.max_memory_allocated()} if device == "cuda" else {})


def peak_memory(status: Path) -> int:
    """The largest resident set of this process so far, in bytes.

    Linux tells it in `status`. Elsewhere it is getrusage's, which on Linux would be the parent's where that was larger
    when it started this process.
    """
    try:
        for line in status.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def curve(fit: Fit) -> dict[str, Any]:
    """Every epoch of a fit, which one was kept and by which metric."""
    return {
        "selected_by": fit.selected_by,
        "best_epoch": fit.best_epoch,
        "epochs": [asdict(epoch) for epoch in fit.history],
    }


def validation(trained: Trained, data: DataSet) -> dict[str, Any] | None:
    """The validation split in full, as the model is served and without B; None without a validation split.

    Returns:
        {"masked": splits left out of the ranking, "served": `Evaluation.to_json`, "without_table": the same with B = 0,
        None where B = 0 is what is served}.
    """
    split = Split.of(data.valid, data.train, data.n_users, data.n_items)
    if len(split.users) == 0:
        return None
    history = interaction_matrix(data.train, data.n_users, data.n_items)
    embeddings, items = kernel_embeddings(trained, data.n_users), ItemFacts.of(data)
    table = table_matrix(item_item_table(trained.table, trained.table_weight), data.n_items)

    def found(of: Any) -> dict[str, Any]:
        return evaluate_fully(scores_of(embeddings, data.n_users, history, of), split, history, items).to_json()

    return {"masked": ["train"], "served": found(table), "without_table": None if table is None else found(None)}


def explanations_of(trained: Trained, n_users: int) -> dict[str, Any]:
    """How a trained model's recommendations are made up: `explanation_shares` of some of them."""
    table = item_item_table(trained.table, trained.table_weight)
    return explanation_shares(serving_form(trained, n_users), trained.state.snapshot(), table)


def explanation_shares(
    form: ServingForm,
    adjacency: Adjacency,
    table: ItemItemTable,
    *,
    n_users: int = SAMPLED_USERS,
    n_items: int = SAMPLED_ITEMS,
) -> dict[str, Any]:
    """Mean share of each part of an explanation, over the first recommendations of some users.

    A share is relative to |self| + Σ|contributions| (model_store/contributions.py). An explanation that is all self
    explains nothing, so this is how much of a recommendation can be told to a person.

    Args:
        form: the serving form; its nodes are users, then items.
        adjacency: the graph with S.
        table: B.
        n_users: how many users, evenly spaced among those with interactions.
        n_items: how many recommendations of each.

    Returns:
        "self" is the mean of |self|'s share; "link", "attention" and "direct" are means of the sums over the user's
        items, negative parts included. Beside them "n_recommendations", "n_users" and "largest_additivity_error", the
        largest gap to the served score. No means without recommendations.
    """
    graph_items = len(form.base) - form.n_users
    chosen = _evenly(np.flatnonzero(adjacency.lengths[: form.n_users]), n_users)
    neighbor_embeddings = form.neighbor_embeddings(adjacency)
    z = form.embeddings(np.arange(adjacency.n_nodes, dtype=np.int32), adjacency, neighbor_embeddings)
    shares: list[list[float]] = []
    error = 0.0
    for user in chosen.tolist():
        begin, degree = int(adjacency.starts[user]), int(adjacency.lengths[user])
        neighbors = adjacency.neighbors[begin : begin + degree]
        rows = (neighbors - form.n_users).astype(np.int32)
        scores = (z[form.n_users :] @ z[user] + table.accumulate(rows, graph_items)[0]).astype(np.float32)
        scores[rows] = -np.inf
        top = top_rows(scores[None], n_items)[0]
        for item in top[top >= 0].tolist():
            parts = contributions(
                form,
                table,
                user,
                neighbors,
                rows,
                adjacency.similarity[begin : begin + degree],
                adjacency.lengths,
                neighbor_embeddings,
                item,
                z[form.n_users + item],
            )
            whole = parts.magnitude or 1.0
            of_items = (float(part.sum()) / whole for part in (parts.link, parts.attention, parts.direct))
            shares.append([abs(parts.self_term) / whole, *of_items])
            error = max(error, parts.additivity_error(float(scores[item])))
    facts: dict[str, Any] = {"n_users": len(chosen), "n_recommendations": len(shares)}
    if shares:
        means = np.array(shares).mean(0).tolist()
        facts |= dict(zip(("self", "link", "attention", "direct"), means, strict=True))
        facts["largest_additivity_error"] = error
    return facts


def _evenly(rows: NDArray[np.intp], count: int) -> NDArray[np.intp]:
    """At most `count` of some rows, evenly spaced."""
    return rows if len(rows) <= count else rows[np.linspace(0, len(rows) - 1, count).astype(np.intp)]
