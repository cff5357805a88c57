from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from model_store.artifact import REQUIRED, write_artifact
from model_store.errors import (
    ArtifactError,
    DamagedArtifactError,
    NoActiveVersionError,
    StoreBusyError,
    StoreError,
    UnknownVersionError,
)
from model_store.experiment import Arm, Experiment
from model_store.store import ModelStore, _State
from tests.model_store.test_manifest import manifest

ROOT = Path(__file__).parents[2]


def small(mark: int = 0) -> Callable[[Path, str], None]:
    """Writes an artifact of arrays that mean nothing but are whole."""

    def write(directory: Path, version: str) -> None:
        arrays = {name: np.full(1000, mark, np.float32) for name in REQUIRED}
        write_artifact(directory, replace(manifest(), version=version), arrays)

    return write


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    return ModelStore(tmp_path / "models")


def other_process(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code` with this module's helpers."""
    start = "import sys; from tests.model_store.test_store import *\n"
    return subprocess.Popen(
        [sys.executable, "-c", start + code, *map(str, arguments)], cwd=ROOT, text=True, stdout=subprocess.PIPE
    )


def waited(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=60)
    return out


def leftovers(store: ModelStore) -> list[str]:
    return sorted(path.name for path in store.root.glob(".incoming-*"))


# ---- publishing ------------------------------------------------------------------------------------------------------


def test_versions_are_numbered_and_the_newest_is_active_where_asked(store: ModelStore) -> None:
    assert store.versions() == []
    assert store.active() is None
    assert store.publish(small()) == "v0001"
    assert store.publish(small(), activate=False) == "v0002"
    assert store.versions() == ["v0001", "v0002"]
    assert store.active() == "v0001"
    assert store.open().version == "v0001"
    assert store.open("v0002").version == "v0002"


def test_opening_without_an_active_version_says_how_to_get_one(store: ModelStore) -> None:
    with pytest.raises(NoActiveVersionError, match=r"kdiffe train --store .*kdiffe models activate"):
        store.open()
    assert not store.root.exists()  # looking makes nothing


@pytest.mark.parametrize(
    "name", ["../x", "..", ".", "/etc", "v0001/..", "v0001/", "a\\b", ".incoming-x", ".lock", "v9999", "\0", "v0001\n"]
)
def test_a_name_that_is_no_version_is_unknown_and_leads_nowhere(store: ModelStore, name: str) -> None:
    store.publish(small())
    shutil.copytree(store.root / "v0001", store.root.parent / "x")
    shutil.copytree(store.root / "v0001", store.root / ".incoming-x")
    with pytest.raises(UnknownVersionError, match="there are: v0001"):
        store.open(name)
    with pytest.raises(UnknownVersionError):
        store.activate(name)
    assert store.active() == "v0001"


def test_a_writer_that_fails_leaves_the_store_as_it_was(store: ModelStore) -> None:
    store.publish(small())

    def fails(directory: Path, version: str) -> None:
        small()(directory, version)
        raise RuntimeError("out of ideas")

    with pytest.raises(RuntimeError, match="out of ideas"):
        store.publish(fails)

    def writes_half(directory: Path, version: str) -> None:
        small()(directory, version)
        (directory / "form.base.npy").unlink()

    with pytest.raises(DamagedArtifactError, match=r"form.base.npy: missing"):
        store.publish(writes_half)

    def no_space(directory: Path, version: str) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="No space left"):
        store.publish(no_space)
    assert (store.versions(), store.active(), leftovers(store)) == (["v0001"], "v0001", [])


def test_a_version_is_not_to_be_seen_before_it_is_whole(store: ModelStore) -> None:
    store.publish(small())
    seen: list[list[str]] = []

    def write(directory: Path, version: str) -> None:
        small()(directory, version)
        seen.append(ModelStore(store.root).versions())

    store.publish(write)
    assert seen == [["v0001"]]


def test_a_writing_process_that_is_killed_leaves_the_store_whole(store: ModelStore) -> None:
    store.publish(small())
    process = other_process(
        """
def write(directory, version):
    small()(directory, version)          # all but the rename
    print("written", flush=True)
    time.sleep(60)
ModelStore(Path(sys.argv[1])).publish(write)
""",
        store.root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    assert len(leftovers(store)) == 1
    process.send_signal(signal.SIGKILL)
    waited(process)
    assert (store.versions(), store.active()) == (["v0001"], "v0001")
    store.open().verify()
    # The next publish takes another number and clears away what the dead process left.
    assert store.publish(small()) == "v0003"
    assert leftovers(store) == []
    assert store.versions() == ["v0001", "v0003"]


def test_killed_at_any_moment_a_publisher_leaves_only_whole_versions(store: ModelStore) -> None:
    rng = np.random.default_rng(0)
    for _ in range(3):
        process = other_process(
            """
print("go", flush=True)
for mark in range(1000):
    ModelStore(Path(sys.argv[1])).publish(small(mark))
""",
            store.root,
        )
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(float(rng.uniform(0.05, 0.25)))
        process.send_signal(signal.SIGKILL)
        waited(process)
        for version in store.versions():
            artifact = store.open(version)
            artifact.verify()
            assert artifact.version == version
        if store.versions():
            assert store.active() in store.versions()
    newest = store.publish(small())
    assert store.versions()[-1] == newest == store.active()
    assert leftovers(store) == []


def test_two_processes_publish_at_once(store: ModelStore) -> None:
    code = """
store = ModelStore(Path(sys.argv[1]))
print(*[store.publish(small(int(sys.argv[2]))) for _ in range(6)])
"""
    processes = [other_process(code, store.root, mark) for mark in (1, 2)]
    named = [waited(process).split() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(named[0] + named[1]) == [f"v{n:04d}" for n in range(1, 13)]
    assert store.versions() == sorted(named[0] + named[1])
    for mark, versions in enumerate(named, start=1):
        for version in versions:
            store.open(version).verify()
            assert store.open(version).array("form.base")[0] == mark
    assert store.active() in {named[0][-1], named[1][-1]}


def test_a_version_that_is_being_written_is_not_cleared_away_whatever_its_process_id_says(store: ModelStore) -> None:
    # As from another container: the id in the directory's name says nothing here. The writer forks and its parent ends.
    process = other_process(
        """
def write(directory, version):
    if os.fork():
        os._exit(0)
    small(7)(directory, version)
    print("written", flush=True)
    time.sleep(1)
print(ModelStore(Path(sys.argv[1])).publish(write))
""",
        store.root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "written\n"
    process.wait(timeout=60)  # the parent; the child holds the pipe
    assert store.publish(small()) == "v0002"
    assert waited(process) == "v0001\n"
    assert store.open("v0001").array("form.base")[0] == 7


def test_a_lock_that_is_held_is_waited_for_and_then_reported(store: ModelStore) -> None:
    store.publish(small())
    with store._changing(), pytest.raises(StoreBusyError, match="another process"), store._changing(patience=0.1):
        pass


def test_a_version_that_is_written_is_not_thrown_away_because_the_store_is_held_for_long(store: ModelStore) -> None:
    class Hasty(ModelStore):
        """Waits for moments where the store waits for seconds."""

        def _changing(self, patience: float = 0.1) -> AbstractContextManager[_State]:
            return super()._changing(patience)

    held = threading.Event()

    def hold() -> None:
        with store._changing():
            held.set()
            time.sleep(1.0)

    holder = threading.Thread(target=hold)

    def write(directory: Path, version: str) -> None:
        small()(directory, version)
        holder.start()
        assert held.wait(10)

    assert Hasty(store.root).publish(write) == "v0001"
    holder.join()
    assert (store.versions(), store.active()) == (["v0001"], "v0001")


def test_a_root_that_cannot_be_a_directory_is_an_error_of_the_store(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="can't be written"):
        ModelStore(tmp_path / "file").publish(small())
    with pytest.raises(StoreError, match="can't be written"):
        ModelStore(tmp_path / "file").check_writable()
    assert ModelStore(tmp_path / "file").versions() == []


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can grow meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_is_an_error_of_the_store_before_anything_long_and_leaves_nothing_behind(store: ModelStore) -> None:
    for _ in range(2):
        store.publish(small())
    before = sorted(path.name for path in store.root.iterdir())
    for change in (
        store.check_writable,
        partial(store.publish, small()),
        partial(store.activate, "v0001"),
        store.rollback,
        partial(store.set_experiment, "x", [Arm("b", "v0001", 0.5)]),
    ):
        with full_disk(), pytest.raises(StoreError, match="can't be written"):
            change()
    assert sorted(path.name for path in store.root.iterdir()) == before
    assert (store.active(), store.experiment()) == ("v0002", None)
    store.check_writable()
    assert sorted(path.name for path in store.root.iterdir()) == before


def test_a_name_that_no_file_can_have_is_an_unknown_version(store: ModelStore) -> None:
    for name in ("v" * 300, ""):
        with pytest.raises(UnknownVersionError, match="No version"):
            store.open(name)


# ---- activating, rolling back, pruning -------------------------------------------------------------------------------


def test_rolling_back_twice_goes_back_two_steps_and_then_there_is_nothing_left(store: ModelStore) -> None:
    for _ in range(3):
        store.publish(small())
    assert store.previous() == "v0002"
    assert [store.rollback().active, store.active()] == ["v0002", "v0002"]
    assert [store.rollback().active, store.active()] == ["v0001", "v0001"]
    assert store.previous() is None
    with pytest.raises(StoreError, match="no earlier active version"):
        store.rollback()
    assert store.active() == "v0001"


def test_a_rollback_goes_to_the_version_that_was_active_before_not_to_the_number_before(store: ModelStore) -> None:
    for _ in range(3):
        store.publish(small())
    store.activate("v0001")  # 1, 2, 3, 1
    store.activate("v0001")  # again: nothing changes
    assert store.rollback().active == "v0003"
    assert store.rollback().active == "v0002"


def test_a_rollback_skips_versions_that_are_gone(store: ModelStore) -> None:
    for _ in range(3):
        store.publish(small())
    shutil.rmtree(store.root / "v0002")
    assert store.rollback().active == "v0001"


def test_a_state_that_was_half_written_by_a_killed_process_is_cleared_away(store: ModelStore) -> None:
    store.publish(small())
    left = store.root / ".versions.json-0badcafe"
    left.write_text('{"next"', encoding="utf-8")
    store.publish(small())
    assert not left.exists()
    assert (store.active(), store.previous()) == ("v0002", "v0001")


def test_a_version_is_activated_instead_of_another_only_while_that_one_is_active(store: ModelStore) -> None:
    for _ in range(3):
        store.publish(small())
    assert not store.activate("v0001", instead_of="v0002")
    assert store.active() == "v0003"
    assert store.activate("v0001", instead_of="v0003")
    assert store.active() == "v0001"


def test_a_damaged_version_is_not_activated_and_not_rolled_back_to(store: ModelStore) -> None:
    for _ in range(2):
        store.publish(small())
    path = store.root / "v0001" / "form.base.npy"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ArtifactError):
        store.activate("v0001")
    with pytest.raises(ArtifactError):
        store.rollback()
    assert store.active() == "v0002"


@pytest.mark.parametrize(
    ("keep", "kept"),
    [(0, [2, 5]), (3, [2, 4, 5, 6]), (99, [1, 2, 3, 4, 5, 6])],
)
def test_pruning_keeps_the_newest_the_active_and_the_one_before(store: ModelStore, keep: int, kept: list[int]) -> None:
    for n in range(6):
        store.publish(small(), activate=n < 5)
    store.activate("v0002")  # the one before is v0005
    removed = store.prune(keep)
    assert store.versions() == [f"v{n:04d}" for n in kept]
    assert sorted(removed + store.versions()) == [f"v{n:04d}" for n in range(1, 7)]
    assert (store.active(), store.previous()) == ("v0002", "v0005")
    assert store.rollback().active == "v0005"


def test_pruning_keeps_what_stands_in_for_damaged_versions(store: ModelStore) -> None:
    for _ in range(4):
        store.publish(small())
    for version in ("v0003", "v0004"):
        path = store.root / version / "form.base.npy"
        path.write_bytes(path.read_bytes()[:100])
    assert store.prune(0) == ["v0001"]
    assert store.versions() == ["v0002", "v0003", "v0004"]


def test_numbers_of_pruned_versions_are_not_given_again(store: ModelStore) -> None:
    for _ in range(3):
        store.publish(small())
    store.activate("v0001")
    store.activate("v0002")
    assert store.prune(0) == ["v0003"]
    assert store.publish(small()) == "v0004"


def test_pruning_a_negative_number_is_refused(store: ModelStore) -> None:
    with pytest.raises(StoreError, match="≥ 0"):
        store.prune(-1)


def test_what_is_pruned_is_deleted_while_others_change_the_store(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        store.publish(small())
    delete, seen = shutil.rmtree, []

    def slow(path: Path, **options: bool) -> None:
        if "removed" in path.name and not seen:
            seen.append(store.versions())
            with ModelStore(store.root)._changing(patience=0.0):
                pass
            # Who publishes meanwhile clears away what a crash has left, and nothing that is being deleted.
            assert ModelStore(store.root).publish(small()) == "v0005"
            assert len(leftovers(store)) == 2
        delete(path, **options)

    monkeypatch.setattr(shutil, "rmtree", slow)
    assert store.prune(1) == ["v0001", "v0002"]
    assert seen == [["v0003", "v0004"]]
    assert (store.versions(), leftovers(store)) == (["v0003", "v0004", "v0005"], [])


def test_a_pruning_that_is_killed_leaves_no_version_by_half_and_the_next_publish_clears_up(store: ModelStore) -> None:
    for _ in range(4):
        store.publish(small())
    process = other_process(
        """
def stuck(path, **options):
    (path / "form.base.npy").unlink()
    print("deleting", flush=True)
    time.sleep(60)
shutil.rmtree = stuck
ModelStore(Path(sys.argv[1])).prune(1)
""",
        store.root,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "deleting\n"
    assert store.rollback().active == "v0003"  # the store is not held
    process.send_signal(signal.SIGKILL)
    waited(process)
    assert (store.versions(), len(leftovers(store))) == (["v0003", "v0004"], 2)
    assert store.publish(small()) == "v0005"
    assert leftovers(store) == []
    for version in store.versions():
        store.open(version).verify()


def test_what_can_not_be_deleted_is_told_and_is_no_version_any_more(
    store: ModelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        store.publish(small())

    def fails(path: Path, **_options: bool) -> None:
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", fails)
        with pytest.raises(StoreError, match=r"Permission denied.*next publish deletes"):
            store.prune(0)
    assert (store.versions(), len(leftovers(store))) == (["v0002", "v0003"], 1)
    store.publish(small())
    assert leftovers(store) == []


def test_a_version_is_discarded_where_nobody_uses_it(store: ModelStore) -> None:
    for n in range(5):
        store.publish(small(), activate=n < 3)  # v0003 is active, v0001 and v0002 were
    store.set_experiment("x", [Arm("a", "v0004", 0.1)])
    for used in ("v0001", "v0002", "v0003", "v0004"):
        assert not store.discard(used)
    for unknown in ("v0009", "../models", ".lock", ""):
        assert not store.discard(unknown)
    assert store.discard("v0005")
    assert not store.discard("v0005")
    assert (store.versions(), leftovers(store)) == (["v0001", "v0002", "v0003", "v0004"], [])
    assert store.publish(small()) == "v0006"


def test_version_ten_thousand_is_newer_than_the_one_before_it(store: ModelStore) -> None:
    store.publish(small())
    state = json.loads((store.root / "versions.json").read_text())
    (store.root / "versions.json").write_text(json.dumps(state | {"next": 9999}))
    assert [store.publish(small(), activate=False) for _ in range(2)] == ["v9999", "v10000"]
    assert store.versions() == ["v0001", "v9999", "v10000"]
    assert store.prune(1) == ["v9999"]


# ---- versions.json ---------------------------------------------------------------------------------------------------


def test_when_versions_json_is_lost_no_number_on_disk_is_given_again_and_order_is_kept(store: ModelStore) -> None:
    for _ in range(4):
        store.publish(small())
    store.prune(1)  # v0003 (before) and v0004 (active) are left
    (store.root / "versions.json").unlink()
    assert store.versions() == ["v0003", "v0004"]
    assert store.active() is None
    with pytest.raises(NoActiveVersionError):
        store.open()
    store.activate("v0004")
    assert store.publish(small(), activate=False) == "v0005"
    assert store.versions() == ["v0003", "v0004", "v0005"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"{}",
        b'{"next": "x", "active": null, "history": []}',
        b'{"next": Infinity, "active": null, "history": []}',
        b'{"next": 2, "active": 5, "history": []}',
        b'{"next": 2, "active": null, "history": "v0001"}',
        b'{"next": 2, "active": null, "history": [1]}',
        b'{"next": 2, "active": "v0001", "history": [], "experiment": []}',
        b'{"next": 2, "active": "v0001", "history": [], "experiment": {"name": "x", "variants": [{"name": "a"}]}}',
    ],
)
def test_a_damaged_versions_json_is_an_error_that_says_what_to_do_and_doing_it_helps(
    store: ModelStore, content: bytes
) -> None:
    store.publish(small())
    path = store.root / "versions.json"
    path.write_bytes(content)
    for action in (store.active, store.open, store.rollback, lambda: store.publish(small()), lambda: store.prune(0)):
        with pytest.raises(StoreError, match=r"versions.json: can't be read .*Remove it and activate a version"):
            action()
    assert store.versions() == ["v0001"]
    path.unlink()
    store.activate("v0001")
    store.open().verify()


def test_an_active_version_that_is_gone_is_unknown(store: ModelStore) -> None:
    store.publish(small())
    shutil.rmtree(store.root / "v0001")
    with pytest.raises(UnknownVersionError, match="there are: none"):
        store.open()


def test_what_else_lies_in_the_root_is_no_version(store: ModelStore) -> None:
    store.publish(small())
    (store.root / "notes.txt").write_text("")
    (store.root / "v0002").mkdir()
    assert store.versions() == ["v0001"]
    assert os.path.lexists(store.root / ".lock")


# ---- experiments -----------------------------------------------------------------------------------------------------


def with_versions(store: ModelStore, n: int) -> None:
    for number in range(n):
        store.publish(small(number), activate=number == 0)


def test_an_experiment_stands_beside_the_active_version_until_the_next_activation(store: ModelStore) -> None:
    with_versions(store, 3)
    assert store.experiment() is None
    begun = store.set_experiment("x", [Arm("a", "v0002", 0.1), Arm("same", "v0001", 0.1)])
    assert store.experiment() == begun.after.experiment
    assert store.experiment() == ModelStore(store.root).experiment()  # every process reads the same
    assert store.active() == "v0001"
    store.publish(small(3), activate=False)
    assert store.experiment() == begun.after.experiment
    store.set_experiment("x", [Arm("a", "v0002", 0.3), Arm("b", "v0003", 0.1)])
    changed = store.experiment()
    assert changed is not None
    assert [(v.name, v.version, v.share) for v in changed.variants] == [("a", "v0002", 0.3), ("b", "v0003", 0.1)]
    assert changed.variants[0].slots[0][0] == 0  # what it held it keeps
    store.activate("v0002")
    assert store.experiment() is None
    store.set_experiment("x", [Arm("a", "v0001", 0.5)])
    store.rollback()
    assert store.experiment() is None
    store.set_experiment("x", [Arm("a", "v0002", 0.5)])
    store.end_experiment()
    assert store.experiment() is None
    store.set_experiment("x", [Arm("a", "v0002", 0.5)])
    store.publish(small(4))
    assert store.experiment() is None


def test_pruning_keeps_an_experiment_s_versions_and_what_is_gone_none_the_less_is_no_variant(store: ModelStore) -> None:
    with_versions(store, 5)
    store.set_experiment("x", [Arm("a", "v0002", 0.1), Arm("b", "v0003", 0.0)])
    assert store.prune(0) == ["v0004", "v0005"]
    shutil.rmtree(store.root / "v0002")
    left = store.experiment()
    assert left is not None
    assert [variant.name for variant in left.variants] == ["b"]


def test_an_experiment_that_can_not_be_changes_nothing(store: ModelStore) -> None:
    with pytest.raises(UnknownVersionError):
        store.set_experiment("x", [Arm("a", "v0001", 0.1)])
    store.publish(small(), activate=False)
    with pytest.raises(StoreError, match="needs an active version"):
        store.set_experiment("x", [Arm("a", "v0001", 0.1)])
    store.activate("v0001")
    store.publish(small(1), activate=False)
    path = store.root / "v0002" / "form.base.npy"
    path.write_bytes(path.read_bytes()[:100])
    for arm, error in (
        (Arm("a", "v0009", 0.5), UnknownVersionError),
        (Arm("a", "", 0.5), UnknownVersionError),
        (Arm("a", "v0002", 0.5), ArtifactError),
        (Arm("main", "v0001", 0.5), StoreError),
        (Arm("a", "v0001", 1.5), StoreError),
    ):
        with pytest.raises(error):
            store.set_experiment("x", [arm])
    assert store.experiment() is None


def test_what_puts_a_version_in_force_by_itself_leaves_an_experiment_alone(store: ModelStore) -> None:
    with_versions(store, 3)
    store.set_experiment("x", [Arm("a", "v0002", 0.1)])
    assert store.activate("v0003", instead_of="v0001") is None
    assert (store.active(), store.experiment() is None) == ("v0001", False)


def test_a_change_is_undone_with_its_history_and_its_experiment(store: ModelStore) -> None:
    with_versions(store, 4)
    store.activate("v0002")
    store.set_experiment("x", [Arm("a", "v0003", 0.1)])

    def standing() -> tuple[str | None, str | None, Experiment | None]:
        return store.active(), store.previous(), store.experiment()

    before = standing()
    for change in (
        lambda: store.activate("v0004"),
        store.rollback,
        lambda: store.set_experiment("y", [Arm("b", "v0004", 0.2)]),
    ):
        done = change()
        assert done is not None
        assert standing() != before
        number = store.publish(small(9), activate=False)
        assert store.undo(done)
        assert standing() == before
        assert not store.undo(done)  # once
        assert store.publish(small(9), activate=False) > number  # numbers go on


def test_a_change_is_not_undone_where_something_else_is_in_force_since(store: ModelStore) -> None:
    with_versions(store, 3)
    activated = store.activate("v0002")
    assert activated is not None
    store.activate("v0003")
    assert not store.undo(activated)
    assert store.active() == "v0003"
    first = store.set_experiment("x", [Arm("a", "v0001", 0.1)])
    second = store.set_experiment("x", [Arm("a", "v0002", 0.1)])
    assert not store.undo(first)
    assert store.experiment() == second.after.experiment
    activated = store.activate("v0001")
    assert activated is not None
    store.prune(0)
    shutil.rmtree(store.root / "v0003")
    assert not store.undo(activated)  # there is nothing left to go back to
    assert store.active() == "v0001"
