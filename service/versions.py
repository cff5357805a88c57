"""The store's versions as the service tells and changes them: metrics, reports, activation, rollback."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from model_store.errors import ArtifactError, StoreError
from model_store.errors import UnknownVersionError as NotInStoreError
from model_store.experiment import MAIN, Arm
from model_store.manifest import Manifest
from model_store.store import Change, Standing
from service.errors import (
    NoEarlierVersionError,
    NotReadyError,
    UnknownVersionError,
    UnusableVersionError,
)
from service.live.registry import Registry


class Version(TypedDict):
    """A version of the store; of one that can't be read only the first fields and `error` are known."""

    version: str
    active: bool
    serving: bool
    previous: bool
    variants: Sequence[str]
    model: str | None
    created_at: str | None
    base: str | None
    n_users: int | None
    n_items: int | None
    n_interactions: int | None
    sequence: int | None
    metrics: Mapping[str, Any]
    error: str | None


class VariantTold(TypedDict):
    """A variant of the experiment as this worker serves it; its users get the active version where it is not served."""

    name: str
    version: str
    share: float
    served: bool
    problem: str | None


class ExperimentTold(TypedDict):
    """Which versions shares of the users get, the active one first. `name` is null where everybody gets that one."""

    name: str | None
    variants: Sequence[VariantTold]


class VersionDetail(Version):
    """A version with how it was made and what its report says."""

    data: Mapping[str, Any]
    configuration: Mapping[str, Any]
    training: Mapping[str, Any]
    report: Mapping[str, Any] | None


def versions(registry: Registry) -> list[Version]:
    """Every version, the oldest first."""
    standing = registry.store.standing()
    return [_version(registry, version, standing)[0] for version in registry.store.versions()]


def version(registry: Registry, name: str) -> VersionDetail:
    """One version.

    Raises:
        UnknownVersionError: there is no such version.
        UnusableVersionError: its files can't be read.
    """
    store = registry.store
    _require(registry, name)
    summary, manifest = _version(registry, name, store.standing())
    if manifest is None:
        raise UnusableVersionError(f"Version {name} can't be read: {summary['error']}")
    return {
        **summary,
        "data": dict(manifest.data),
        "configuration": dict(manifest.configuration),
        "training": dict(manifest.training),
        "report": store.open(name).report(),
    }


def activate(registry: Registry, name: str, timeout: float) -> None:
    """Make a version the active one and wait until it is served; one that can't be served is taken back.

    Args:
        registry: the serving side.
        name: the version.
        timeout: seconds to wait.

    Raises:
        UnknownVersionError: there is no such version.
        UnusableVersionError: it can't be served; the version of before stays, or is active again.
    """
    store = registry.store
    _require(registry, name)
    try:
        change = store.activate(name)
    except NotInStoreError:  # pruned meanwhile
        _require(registry, name)
        raise
    except ArtifactError as error:
        raise UnusableVersionError(f"Version {name} can't be activated: {error}") from None
    if change is not None:
        _wait_served(registry, name, change, timeout)


def rollback(registry: Registry, timeout: float) -> str:
    """Activate the version that was active before and wait until it is served. Returns its name.

    Raises:
        NoEarlierVersionError: there is none.
        UnusableVersionError: it can't be served; the version of before is active again.
    """
    store = registry.store
    if store.previous() is None:
        raise NoEarlierVersionError("No version was active before the one that is: GET /admin/models lists them.")
    try:
        change = store.rollback()
    except ArtifactError as error:
        raise UnusableVersionError(f"Version {store.previous()} can't be activated: {error}") from None
    name = str(change.active)
    _wait_served(registry, name, change, timeout)
    return name


def experiment(registry: Registry) -> ExperimentTold:
    """The experiment as this worker serves it."""
    served, wanted = registry.served, registry.store.experiment()
    variants = () if wanted is None else wanted.variants
    told: list[VariantTold] = [
        {
            "name": MAIN,
            "version": served.main.model.version,
            "share": 1.0 if wanted is None else wanted.main_share,
            "served": True,
            "problem": None,
        }
    ]
    for variant in variants:
        model, problem = served.named(variant.name), registry.problem_of(variant.version)
        told.append(
            {
                "name": variant.name,
                "version": variant.version,
                "share": variant.share,
                "served": served.experiment == wanted and model is not None,
                "problem": None if problem is None else problem.message,
            }
        )
    return {"name": None if wanted is None else wanted.name, "variants": told}


def begin_experiment(registry: Registry, name: str, arms: Sequence[Arm], timeout: float) -> None:
    """Give shares of the users versions and wait until all are served; if one can't be, what was before is put back.

    Args:
        registry: the serving side.
        name: of the experiment; the one that runs goes on where it has this name.
        arms: its variants.
        timeout: seconds to wait.

    Raises:
        UnknownVersionError: there is no such version.
        UnusableVersionError: a version can't be served.
    """
    for arm in arms:
        _require(registry, arm.version)
    try:
        change = registry.store.set_experiment(name, arms)
    except (ArtifactError, StoreError) as error:
        raise UnusableVersionError(f"The experiment {name!r} can't begin: {error}") from None
    wanted = change.after.experiment
    try:
        if wanted is not None:
            registry.wait_experiment(wanted, timeout)
    except NotReadyError as error:
        raise UnusableVersionError(f"{error} {_undone(registry, change)}") from None


def _wait_served(registry: Registry, name: str, change: Change, timeout: float) -> None:
    try:
        registry.wait_version(name, timeout)
    except NotReadyError as error:
        raise UnusableVersionError(f"{error} {_undone(registry, change)}") from None


def _undone(registry: Registry, change: Change) -> str:
    """Put back what was before a change that can't be served, and say what is in force now."""
    undone = change.before.active is not None and registry.store.undo(change)
    now = registry.store.standing()
    beside = "" if now.experiment is None else f", beside the experiment {now.experiment.name!r}"
    return f"{now.active} is active {'again' if undone else 'now'}{beside}."


def _require(registry: Registry, name: str) -> None:
    known = registry.store.versions()
    if name not in known:
        raise UnknownVersionError(f"No version {name!r}; there are: {', '.join(known) or 'none'}.")


def _version(registry: Registry, name: str, standing: Standing) -> tuple[Version, Manifest | None]:
    store, manifest, problem = registry.store, None, None
    variants = () if standing.experiment is None else standing.experiment.variants
    try:
        manifest = store.open(name).manifest
    except (ArtifactError, StoreError) as error:  # the others are still to be listed
        problem = str(error)
    base = None if manifest is None else manifest.training.get("base")
    interactions = None if manifest is None else manifest.data.get("n_interactions")
    summary: Version = {
        "version": name,
        "active": name == standing.active,
        "serving": name == registry.serving,
        "previous": name == standing.previous,
        "variants": [variant.name for variant in variants if variant.version == name],
        "model": None if manifest is None else manifest.model,
        "created_at": None if manifest is None else manifest.created_at,
        "base": None if base is None else str(base),
        "n_users": None if manifest is None else manifest.n_users,
        "n_items": None if manifest is None else manifest.n_items,
        "n_interactions": None if interactions is None else int(interactions),
        "sequence": None if manifest is None else manifest.sequence,
        "metrics": {} if manifest is None else dict(manifest.metrics),
        "error": problem,
    }
    return summary, manifest
