"""The store's versions as the service tells and changes them: metrics, reports, activation, rollback."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from model_store.errors import ArtifactError, StoreError
from model_store.errors import UnknownVersionError as NotInStoreError
from model_store.manifest import Manifest
from model_store.store import Canary
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
    model: str | None
    created_at: str | None
    base: str | None
    n_users: int | None
    n_items: int | None
    n_interactions: int | None
    sequence: int | None
    metrics: Mapping[str, Any]
    error: str | None


class VersionDetail(Version):
    """A version with how it was made and what its report says."""

    data: Mapping[str, Any]
    configuration: Mapping[str, Any]
    training: Mapping[str, Any]
    report: Mapping[str, Any] | None


def versions(registry: Registry) -> list[Version]:
    """Every version, the oldest first."""
    store = registry.store
    active, previous = store.active(), store.previous()
    return [_version(registry, version, active, previous)[0] for version in store.versions()]


def version(registry: Registry, name: str) -> VersionDetail:
    """One version.

    Raises:
        UnknownVersionError: there is no such version.
        UnusableVersionError: its files can't be read.
    """
    store = registry.store
    _require(registry, name)
    summary, manifest = _version(registry, name, store.active(), store.previous())
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
    before = store.active()
    try:
        store.activate(name)
    except NotInStoreError:  # pruned meanwhile
        _require(registry, name)
        raise
    except ArtifactError as error:
        raise UnusableVersionError(f"Version {name} can't be activated: {error}") from None
    _wait_served(registry, name, before, timeout)


def rollback(registry: Registry, timeout: float) -> str:
    """Activate the version that was active before and wait until it is served. Returns its name.

    Raises:
        NoEarlierVersionError: there is none.
        UnusableVersionError: it can't be served; the version of before is active again.
    """
    store = registry.store
    if store.previous() is None:
        raise NoEarlierVersionError("No version was active before the one that is: GET /admin/models lists them.")
    before = store.active()
    try:
        name = store.rollback()
    except ArtifactError as error:
        raise UnusableVersionError(f"Version {store.previous()} can't be activated: {error}") from None
    _wait_served(registry, name, before, timeout)
    return name


def begin_canary(registry: Registry, name: str, share: float, timeout: float) -> None:
    """Give a share of the users a version and wait until it is served; one that can't be served is taken back.

    Args:
        registry: the serving side.
        name: the version.
        share: of the users, above 0 and below 1.
        timeout: seconds to wait.

    Raises:
        UnknownVersionError: there is no such version.
        UnusableVersionError: it is the active one, or it can't be served.
    """
    _require(registry, name)
    try:
        registry.store.set_canary(Canary(name, share))
    except (ArtifactError, StoreError) as error:
        raise UnusableVersionError(f"Version {name} can't be a canary: {error}") from None
    try:
        registry.wait_canary(name, timeout)
    except NotReadyError as error:
        registry.store.set_canary(None)
        raise UnusableVersionError(f"{error} Everybody gets the active version.") from None


def _wait_served(registry: Registry, name: str, before: str | None, timeout: float) -> None:
    try:
        registry.wait_version(name, timeout)
    except NotReadyError as error:
        if before is not None and before != name:
            registry.store.activate(before, instead_of=name)
        raise UnusableVersionError(f"{error} {before or 'No version'} is active again.") from None


def _require(registry: Registry, name: str) -> None:
    known = registry.store.versions()
    if name not in known:
        raise UnknownVersionError(f"No version {name!r}; there are: {', '.join(known) or 'none'}.")


def _version(
    registry: Registry, name: str, active: str | None, previous: str | None
) -> tuple[Version, Manifest | None]:
    manifest, problem = None, None
    try:
        manifest = registry.store.open(name).manifest
    except (ArtifactError, StoreError) as error:  # the others are still to be listed
        problem = str(error)
    base = None if manifest is None else manifest.training.get("base")
    interactions = None if manifest is None else manifest.data.get("n_interactions")
    summary: Version = {
        "version": name,
        "active": name == active,
        "serving": name == registry.serving,
        "previous": name == previous,
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
