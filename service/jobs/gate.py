"""The gate: what a new version must show before it takes the place of the active one."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from model_store.artifact import Artifact
from model_store.errors import KDiffEError
from service.explanation.account import explain
from service.index.exact import ExactIndex
from service.live.model import LiveModel
from service.recommendation.recommender import recommend

# Validation metrics that are compared.
METRICS = ("recall@20", "ndcg@20")
# Standard errors by which chance alone makes one of two equal figures the lower one, 19 times out of 20 by less.
CHANCE = 1.64
# Users whose lists are looked at, and how long the lists are.
SAMPLE, LENGTH = 20, 20
# Largest |score - (self + contributions)| of a list's first item, and largest difference of a user's vector from the
# published one, relative to the score or the vector's largest entry, or 1: float32 sums in another order.
ADDITIVITY = PARITY = 1e-3


def objection(candidate: Artifact, active: Artifact | None, margin: float) -> str:
    """Why a version should not be put in force; empty where nothing speaks against it.

    Args:
        candidate: the new version.
        active: the one that it would take the place of, None where there is none.
        margin: by which share of the active one's a validation metric may be lower, beyond what chance makes where the
            figures have standard errors.
    """
    return worse(candidate, active, margin) or broken(candidate)


def worse(candidate: Artifact, active: Artifact | None, margin: float) -> str:
    """By what a version is worse than the active one; empty where it is not, or where there is nothing to compare."""
    if active is None:
        return ""
    compared = _figures(candidate, active)
    if compared is None:
        # A margin of 1 lets everything pass, and spares the trials.
        return "" if margin >= 1 else f"nothing measures it beside {active.version}: its figures are another version's"
    before, now = compared
    for name in METRICS:
        known = before.get(name)
        if known is None:
            continue
        found = now.get(name)
        if found is None:
            return f"it has no validation {name}, {active.version} has {known:.4f}"
        chance = CHANCE * math.hypot(*(of.get("standard_errors", {}).get(name, 0.0) for of in compared))
        # A number that is none fails, too.
        if not found >= known * (1.0 - margin) - chance:
            beyond = f" and by more than chance makes ({chance:.4f})" if chance else ""
            return (
                f"its validation {name} is {found:.4f}, {active.version}'s is {known:.4f}: worse by more than "
                f"{100 * margin:g} %{beyond}"
            )
    return ""


def _figures(candidate: Artifact, active: Artifact) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The active version's figures and the new one's that can be compared; None where there are none.

    A retrained version carries its ancestor's validation figures: its own are those of its trial.
    """
    old, new = active.manifest.metrics, candidate.manifest.metrics
    trial = new.get("trial")
    if trial is not None and trial["base"] == active.version:
        return trial["before"], trial["known"]
    if trial is not None and "trial" in old:
        return old["trial"]["valid"], trial["valid"]
    if "selected_as" in new:
        return None
    return old.get("valid", {}), new.get("valid", {})


def broken(candidate: Artifact) -> str:
    """What fails when a version is loaded, recommends and explains; empty where nothing does."""
    try:
        candidate.verify()
        problem = _unsound(candidate)  # first: compiled functions don't look at shapes
        if problem:
            return problem
        model = LiveModel(candidate, ExactIndex, start=candidate.manifest.sequence, refresh_every=1)
        n_users = len(model.users)
        for row in np.unique(np.linspace(0, n_users - 1, SAMPLE).astype(np.int64)) if n_users else ():
            problem = _broken_list(model, model.users.id_of(int(row)))
            if problem:
                return problem
    except KDiffEError as error:
        return str(error)
    except Exception as error:  # whatever it is that a version makes fail, it must not be served
        return f"{type(error).__name__}: {error}"
    return ""


def _unsound(artifact: Artifact) -> str:
    manifest = artifact.manifest
    n_nodes = manifest.n_users + manifest.n_items
    for name, rows in (
        ("user_embeddings", manifest.n_users),
        ("item_embeddings", manifest.n_items),
        ("neighbor_embeddings", n_nodes),
        ("form.base", n_nodes),
    ):
        array = artifact.array(name)
        if array.shape != (rows, manifest.width):
            return f"{name} has the shape {array.shape}, not {(rows, manifest.width)}"
        if not np.isfinite(array).all():
            return f"{name} holds something that is no number"
    for name, length in (
        ("user_ids", manifest.n_users),
        ("item_ids", manifest.n_items),
        ("node_keys", n_nodes),
        ("graph.indptr", n_nodes + 1),
        ("visited.indptr", n_nodes + 1),
        ("graph.indices", int(artifact.array("graph.indptr")[-1])),
        ("similarity.data", int(artifact.array("graph.indptr")[-1])),
        ("visited.indices", int(artifact.array("visited.indptr")[-1])),
    ):
        if artifact.array(name).shape != (length,):
            return f"{name} has the shape {artifact.array(name).shape}, not {(length,)}"
    return ""


def _broken_list(model: LiveModel, user_id: str) -> str:
    view = model.user(user_id)
    if view is not None:
        published = model.artifact.array("user_embeddings")[view.row]
        allowed = PARITY * max(float(np.abs(published).max(initial=0.0)), 1.0)
        if len(view.seen) and not np.abs(view.vector - published).max(initial=0.0) <= allowed:
            return f"user {user_id!r} has another vector when it is served than the one that was published"
    items = recommend(model, user_id, LENGTH)["items"]
    names = [item["item_id"] for item in items]
    seen = set() if view is None else {model.items.id_of(int(row)) for row in view.seen}
    barred = seen | {model.items.id_of(int(row)) for row in model.metadata.withdrawn}
    wanted = min(LENGTH, len(model.items) - len(barred))
    if len(names) != wanted or len(set(names)) != len(names) or barred & set(names):
        return (
            f"user {user_id!r} is recommended {len(names)} items, with a seen or a withdrawn one, one twice, or other "
            f"than the {wanted} that there are"
        )
    if not all(math.isfinite(item["score"]) for item in items):
        return f"user {user_id!r} is recommended an item whose score is no number"
    if items and items[0]["strategy"] != "popular":
        account = explain(model, user_id, names[0])
        if account["additivity_error"] > ADDITIVITY * max(abs(account["score"]), 1.0):
            return (
                f"the explanation of {names[0]!r} for {user_id!r} misses its score by {account['additivity_error']:g}"
            )
    return ""
