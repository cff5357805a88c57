"""The versioned store: a directory of artifacts, one of them active.

ROOT/v0001/manifest.json …    a published version; a directory appears whole, by one rename
ROOT/versions.json            numbers, the active version, the ones before it, the experiment; replaced by rename
ROOT/.lock                    held while the store is changed
ROOT/.incoming-…              a version being written or removed; left over only by a crash, removed by the next publish
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from uuid import uuid4

from model_store.artifact import Artifact
from model_store.errors import (
    ArtifactError,
    NoActiveVersionError,
    StoreBusyError,
    StoreError,
    UnknownVersionError,
)
from model_store.experiment import Arm, Experiment

DEFAULT_ROOT = Path("model_store/artifacts")
_STATE = "versions.json"
_INCOMING = ".incoming-"
_NUMBERED = re.compile(r"v[0-9]{4,}")
# Seconds for which the store's lock, which is held for moments, is waited for: by who may try again, and by who would
# lose what took long to make.
_PATIENCE, _LONG_PATIENCE = 10.0, 600.0


@dataclass(frozen=True)
class _State:
    """What `versions.json` holds.

    Attributes:
        next: number of the next version; never given twice, pruned versions included.
        active: the active version.
        history: versions that were active before, the latest last.
        experiment: versions that shares of the users get.
    """

    next: int = 1
    active: str | None = None
    history: tuple[str, ...] = ()
    experiment: Experiment | None = None

    @property
    def tried(self) -> tuple[str, ...]:
        """The experiment's versions."""
        return () if self.experiment is None else tuple(variant.version for variant in self.experiment.variants)


@dataclass(frozen=True)
class Standing:
    """What is in force at one moment.

    Attributes:
        active: the active version, None where nothing has been activated.
        previous: what a rollback would activate, None where there is nothing.
        experiment: versions that shares of the users get beside the active one, None where all get that one.
    """

    active: str | None
    previous: str | None
    experiment: Experiment | None


@dataclass(frozen=True)
class Change:
    """What was put in force, and how it was before: `undo` takes it.

    Attributes:
        before: the state that it changed.
        after: the state that it made.
    """

    before: _State
    after: _State

    @property
    def active(self) -> str | None:
        """The active version since."""
        return self.after.active


class ModelStore:
    """Versions of a model on disk."""

    def __init__(self, root: Path) -> None:
        self.root = root

    # ---- reading -------------------------------------------------------------------------------------------------

    def versions(self) -> list[str]:
        """Published versions, the oldest first."""
        if not self.root.is_dir():
            return []
        found = [path.name for path in self.root.iterdir() if path.is_dir() and not path.name.startswith(".")]
        # The shorter name first: v9999 comes before v10000.
        return sorted((name for name in found if self._exists(name)), key=lambda name: (len(name), name))

    def standing(self) -> Standing:
        """What is in force now."""
        state = self._read_state()
        previous = next(iter(self._earlier(state)), None)
        experiment = state.experiment
        if experiment is not None:
            experiment = experiment.without(v.version for v in experiment.variants if not self._exists(v.version))
        return Standing(state.active, previous, experiment)

    def active(self) -> str | None:
        """The active version's name, None where nothing has been activated."""
        return self._read_state().active

    def previous(self) -> str | None:
        """The version that a rollback would activate, None where there is none."""
        return self.standing().previous

    def earlier(self) -> list[str]:
        """Versions that were active before the active one and are still there, the latest first."""
        return list(self._earlier(self._read_state()))

    def servable(self) -> list[str]:
        """The active version and the earlier ones: services serve the first that can be."""
        state = self._read_state()
        return [*([] if state.active is None else [state.active]), *self._earlier(state)]

    def experiment(self) -> Experiment | None:
        """The versions that shares of the users get beside the active one, None where all get that one."""
        return self.standing().experiment

    def open(self, version: str | None = None) -> Artifact:
        """Open a version, the active one where none is named.

        Raises:
            NoActiveVersionError: none is named and none is active.
            UnknownVersionError: no such version.
            ArtifactError: the version can't be used.
        """
        name = self.active() if version is None else version
        if name is None:
            raise NoActiveVersionError(
                f"No version is active in {self.root}. Train one (kdiffe train --store {self.root}) or activate one "
                f"(kdiffe models activate VERSION --store {self.root})."
            )
        self._require(name)
        return Artifact(self.root / name)

    # ---- changing ------------------------------------------------------------------------------------------------

    def check_writable(self) -> None:
        """Refuse a store that could not be published to, before anything long begins.

        Raises:
            StoreError: the store can't be written, or its state can't be read.
        """
        with self._changing(), self._aside() as path:
            try:
                path.write_bytes(b"x")
            except OSError as error:
                raise StoreError(f"{self.root}: can't be written ({error}).") from None

    def publish(self, write: Callable[[Path, str], None], *, activate: bool = True) -> str:
        """Add a version: written aside, checked, then renamed into place.

        Args:
            write: writes the artifact (`write_artifact`) into the given directory, for the given version.
            activate: whether the new version becomes the active one.

        Returns:
            The new version's name.

        Raises:
            ArtifactError: what was written is not a whole artifact.
            StoreError: the store can't be written.
        """
        with self._changing() as state:
            # Beyond every version that there is, even where versions.json was lost.
            number = max([state.next, *(int(v[1:]) + 1 for v in self.versions() if _NUMBERED.fullmatch(v))])
            version = f"v{number:04d}"
            self._write_state(replace(state, next=number + 1))
            leftovers = self._leftovers()
            incoming = self.root / f"{_INCOMING}{version}-{os.getpid()}-{uuid4().hex[:8]}"
            try:
                incoming.mkdir()
                claim = _claimed(incoming)
            except OSError as error:
                raise StoreError(f"{self.root}: version {version} can't be written ({error}).") from error
        # Deleting and writing may take long: they are done without the lock.
        try:
            for path in leftovers:
                shutil.rmtree(path, ignore_errors=True)
            write(incoming, version)
            Artifact(incoming)
            _sync(incoming)
            with self._changing(_LONG_PATIENCE) as state:
                incoming.rename(self.root / version)
                _sync(self.root)
                if activate:
                    self._write_state(_activated(state, version))
        except OSError as error:
            raise StoreError(f"{self.root}: version {version} can't be written ({error}).") from error
        finally:
            shutil.rmtree(incoming, ignore_errors=True)
            os.close(claim)
        return version

    def activate(self, version: str, *, instead_of: str | None = None) -> Change | None:
        """Make a version the active one, for everybody. It is opened first: a damaged one is refused.

        Args:
            version: its name.
            instead_of: only where this one is active and no experiment runs; whatever is in force where None.

        Returns:
            What has changed, None where something else was in force than `instead_of`.

        Raises:
            UnknownVersionError: no such version.
            ArtifactError: the version can't be used.
        """
        self.open(version)
        with self._changing() as state:
            self._require(version)
            if instead_of is not None and (state.active != instead_of or state.experiment is not None):
                return None
            return self._change(state, _activated(state, version))

    def rollback(self) -> Change:
        """Activate the version that was active before, for everybody.

        Raises:
            StoreError: there is none.
        """
        with self._changing() as state:
            previous = self.previous()
            if previous is None:
                raise StoreError(f"{self.root}: no earlier active version to roll back to. See kdiffe models list.")
            Artifact(self.root / previous)
            kept = tuple(v for v in state.history if v != previous)
            return self._change(state, _State(state.next, previous, kept))

    def set_experiment(self, name: str, arms: Sequence[Arm]) -> Change:
        """Give shares of the users versions beside the active one, until the next activation.

        Args:
            name: of the experiment; where the one that runs has this name, as few users are moved as can be.
            arms: its variants; the active version may be one of theirs, to be compared with itself.

        Raises:
            UnknownVersionError: no such version.
            ArtifactError: a version can't be used.
            StoreError: no version is active, or the arms can't be.
        """
        for arm in arms:
            self._require(arm.version)
            self.open(arm.version)
        with self._changing() as state:
            if state.active is None:
                raise StoreError(f"{self.root}: an experiment needs an active version. See kdiffe models activate.")
            for arm in arms:
                self._require(arm.version)
            try:
                experiment = Experiment.dealt(name, arms, state.experiment)
            except ValueError as error:
                raise StoreError(str(error)) from None
            return self._change(state, replace(state, experiment=experiment))

    def end_experiment(self) -> None:
        """Give everybody the active version; nothing happens where no experiment runs."""
        with self._changing() as state:
            self._write_state(replace(state, experiment=None))

    def undo(self, change: Change) -> bool:
        """Put back what was in force before a change that could not be served, its history and experiment with it.

        Returns:
            Whether it was put back: it is not where something else was put in force since.
        """
        before, after = change.before, change.after
        with self._changing() as state:
            if state.active != after.active or (before.active == after.active and state.experiment != after.experiment):
                return False
            if before.active is not None and not self._exists(before.active):  # pruned since
                return False
            self._write_state(replace(before, next=state.next))
        return True

    def prune(self, keep: int) -> list[str]:
        """Remove all but the newest `keep` versions; the active one, the one before it and the experiment's stay.

        So does the latest that was active and is whole: services stand in with it where the active one is damaged.

        Returns:
            The removed versions.
        """
        if keep < 0:
            raise StoreError(f"keep must be ≥ 0, not {keep}.")
        # Without the lock, as every file is read; None where no version is.
        whole = next(filter(self._is_whole, self.servable()), None)

        def old(state: _State) -> list[str]:
            versions = self.versions()
            kept = {state.active, self.previous(), whole, *state.tried, *versions[max(len(versions) - keep, 0) :]}
            return [version for version in versions if version not in kept]

        return self._remove(old, _PATIENCE)

    def discard(self, version: str) -> bool:
        """Remove a version that should not have been made; one that is or was in force, or is tried out, stays.

        Returns:
            Whether it was removed.
        """

        def unused(state: _State) -> list[str]:
            used = {state.active, *state.history, *state.tried}
            return [version] if version in self.versions() and version not in used else []

        return bool(self._remove(unused, _LONG_PATIENCE))

    # ---- inside --------------------------------------------------------------------------------------------------

    def _is_whole(self, version: str) -> bool:
        """Whether a version's files are what its manifest says."""
        try:
            self.open(version).verify()
        except (ArtifactError, StoreError):
            return False
        return True

    def _remove(self, choose: Callable[[_State], list[str]], patience: float) -> list[str]:
        """Remove the versions that are chosen while the store's lock is held; they are deleted without it."""
        asides: list[Path] = []
        with ExitStack() as claims:
            try:
                with self._changing(patience) as state:
                    removed = choose(state)
                    for version in removed:
                        # Renamed away first, so that a crash leaves no half of a version; claimed until it is deleted,
                        # so that a publish clears away only what a crash has left.
                        claims.callback(os.close, _claimed(self.root / version))
                        asides.append(self.root / f"{_INCOMING}removed-{version}-{uuid4().hex[:8]}")
                        (self.root / version).rename(asides[-1])
                    _sync(self.root)
                for aside in asides:
                    shutil.rmtree(aside)
            except OSError as error:
                raise StoreError(
                    f"{self.root}: old versions can't be deleted ({error}). What is left of them in {_INCOMING}… the "
                    "next publish deletes."
                ) from error
        return removed

    def _earlier(self, state: _State) -> Iterator[str]:
        return (v for v in reversed(state.history) if v != state.active and self._exists(v))

    def _exists(self, version: str) -> bool:
        try:
            return (self.root / version / "manifest.json").is_file()
        except OSError:  # a longer name than a file can have
            return False

    def _require(self, version: str) -> None:
        plain = version and not version.startswith(".") and "/" not in version and "\\" not in version
        if not plain or not self._exists(version):
            known = ", ".join(self.versions()) or "none"
            raise UnknownVersionError(f"No version {version!r} in {self.root}; there are: {known}.")

    def _read_state(self) -> _State:
        path = self.root / _STATE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            active, history, experiment = raw["active"], raw["history"], raw.get("experiment")
            names = [*history, *([] if active is None else [active])]
            if not isinstance(history, list) or not all(isinstance(name, str) for name in names):
                raise TypeError(f"active is {active!r}, history {history!r}")
            tried = None if experiment is None else Experiment.parse(experiment)
            return _State(int(raw["next"]), active, tuple(history), tried)
        except FileNotFoundError:
            return _State()
        except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
            raise StoreError(
                f"{path}: can't be read ({error!r}). Remove it and activate a version: kdiffe models activate VERSION."
            ) from None

    def _change(self, before: _State, after: _State) -> Change:
        self._write_state(after)
        return Change(before, after)

    def _write_state(self, state: _State) -> None:
        path = self.root / _STATE
        with self._aside() as aside:
            try:
                with aside.open("w", encoding="utf-8") as file:
                    json.dump(asdict(state), file, indent=2)
                    file.flush()
                    os.fsync(file.fileno())
                aside.replace(path)
                _sync(self.root)
            except OSError as error:
                raise StoreError(f"{path}: can't be written ({error}).") from None

    @contextmanager
    def _aside(self) -> Iterator[Path]:
        """Name of a file beside the state's; whatever stands there in the end goes."""
        path = self.root / f".{_STATE}-{uuid4().hex[:8]}"
        try:
            yield path
        finally:
            with suppress(OSError):
                path.unlink(missing_ok=True)

    @contextmanager
    def _changing(self, patience: float = _PATIENCE) -> Iterator[_State]:
        """Hold the store's lock; gives the state as it is."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = (self.root / ".lock").open("w")
        except OSError as error:
            raise StoreError(f"{self.root}: can't be written ({error}).") from None
        with lock:
            deadline = time.monotonic() + patience
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise StoreBusyError(
                            f"{self.root}: another process has been changing the store for {patience:.0f} s. Try again."
                        ) from None
                    time.sleep(0.05)
            yield self._read_state()

    def _leftovers(self) -> list[Path]:
        """What writers that no longer run left behind of versions; the lock is held, so that none begins meanwhile."""
        # The state is written under the lock: what lies aside was left by one that was killed.
        for path in self.root.glob(f".{_STATE}-*"):
            path.unlink(missing_ok=True)
        return [path for path in self.root.glob(f"{_INCOMING}*") if not _is_claimed(path)]


def _activated(state: _State, version: str) -> _State:
    history = tuple(v for v in state.history if v != version)
    if state.active is not None and state.active != version:
        history = (*(v for v in history if v != state.active), state.active)
    return _State(state.next, version, history)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _claimed(directory: Path) -> int:
    """Hold a lock on a directory that is being written, for as long as the descriptor that is returned stays open.

    The kernel lets go of it when the process dies. A process id would not do: another container has its own.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    with suppress(OSError):  # a file system without locks on directories: _is_claimed can't lock either, and keeps it
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return descriptor


def _is_claimed(directory: Path) -> bool:
    """Whether a writer holds a directory, or whether that can't be known."""
    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(descriptor)
    return False
