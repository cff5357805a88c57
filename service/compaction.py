"""Compaction: how much of the log the versions of the store hold, so that the state need not."""

from __future__ import annotations

from model_store.errors import ArtifactError
from model_store.manifest import Manifest
from model_store.store import ModelStore
from service.state.port import Position, StateStore


def held_by_versions(store: ModelStore, state_id: str) -> dict[str, int]:
    """The sequence number up to which each version of the store holds the log.

    A version from another state, or from before it, holds nothing of it; one that can't be read neither. Whichever is
    activated next, the log from the least of them on is enough.
    """
    held = {}
    for version in store.versions():
        try:
            held[version] = held_of(store.open(version).manifest, state_id)
        except ArtifactError:
            held[version] = 0
    return held


def held_by_every_version(store: ModelStore, state_id: str) -> int:
    """The sequence number up to which all versions hold the log, 0 where there is none."""
    return min(held_by_versions(store, state_id).values(), default=0)


def held_of(manifest: Manifest, state_id: str) -> int:
    """The sequence number up to which a version holds the log of a state; 0 where it is of another one."""
    return manifest.sequence if manifest.data.get("state_id") == state_id else 0


def compact(store: ModelStore, state: StateStore, forget_keys: int = 0) -> Position:
    """Drop from the log what every version of the store holds.

    Args:
        store: the versions; prune the old ones first.
        state: the log.
        forget_keys: see `StateStore.compact`.
    """
    return state.compact(held_by_every_version(store, state.state_id), forget_keys)
