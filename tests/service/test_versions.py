from __future__ import annotations

import json

import pytest

from model_store.store import ModelStore
from service import versions
from service.errors import NoEarlierVersionError, UnknownVersionError, UnusableVersionError
from service.index.exact import ExactIndex
from service.live.registry import Registry
from service.state.memory import MemoryState
from tests.support.artifacts import World, publish_world


@pytest.fixture
def registry(tmp_path):
    publish_world(tmp_path)
    publish_world(tmp_path, World(seed=1), activate=False)
    registry = Registry(ModelStore(tmp_path), MemoryState(), ExactIndex, refresh_every=10, version_interval=0.02)
    registry.start()
    assert registry.wait_ready(60)
    yield registry
    registry.stop()


def flags(registry):
    return [(v["version"], v["active"], v["serving"], v["previous"]) for v in versions.versions(registry)]


def test_a_version_is_activated_and_rolled_back_and_served_when_it_is_said(registry):
    assert flags(registry) == [("v0001", True, True, False), ("v0002", False, False, False)]
    versions.activate(registry, "v0002", 60)
    assert flags(registry) == [("v0001", False, False, True), ("v0002", True, True, False)]
    assert versions.rollback(registry, 60) == "v0001"
    assert flags(registry) == [("v0001", True, True, False), ("v0002", False, False, False)]
    with pytest.raises(NoEarlierVersionError, match="GET /admin/models"):
        versions.rollback(registry, 60)


def test_what_is_told_of_a_version_is_its_manifest(registry):
    first = versions.versions(registry)[0]
    manifest = registry.store.open("v0001").manifest
    assert (first["model"], first["n_users"], first["n_items"]) == ("kdiffe", 30, 40)
    assert (first["created_at"], first["sequence"], first["base"]) == ("2026-01-01T00:00:00Z", 0, None)
    assert first["n_interactions"] == manifest.data["n_interactions"]


def test_a_version_s_report_is_the_file_beside_it(registry):
    assert versions.version(registry, "v0001")["report"] is None
    report = {"report_version": 1, "curve": {"epochs": [{"epoch": 1, "loss": 0.5, "seconds": 1.0, "metrics": {}}]}}
    (registry.store.root / "v0001" / "report.json").write_text(json.dumps(report))
    assert versions.version(registry, "v0001")["report"] == report


@pytest.mark.parametrize("name", ["v0009", "", "..", "../v0001", ".lock"])
def test_a_version_that_is_not_there_is_told(registry, name):
    for ask in (lambda: versions.version(registry, name), lambda: versions.activate(registry, name, 60)):
        with pytest.raises(UnknownVersionError, match="there are: v0001, v0002"):
            ask()


def test_a_damaged_version_is_listed_with_its_error_and_is_not_activated(registry):
    (registry.store.root / "v0002" / "form.base.npy").write_bytes(b"short")
    second = versions.versions(registry)[1]
    assert "form.base.npy" in (second["error"] or "")
    assert second["model"] is None
    for ask in (
        lambda: versions.version(registry, "v0002"),
        lambda: versions.activate(registry, "v0002", 60),
    ):
        with pytest.raises(UnusableVersionError, match=r"form\.base\.npy"):
            ask()
    assert (registry.store.active(), registry.serving) == ("v0001", "v0001")


def test_a_version_that_can_not_be_loaded_is_taken_back(registry):
    # The right size, another content: the checksum is compared when it is loaded.
    path = registry.store.root / "v0002" / "form.base.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(UnusableVersionError, match="v0001 is active again"):
        versions.activate(registry, "v0002", 60)
    assert (registry.store.active(), registry.serving) == ("v0001", "v0001")
    # As if it had never been: a roll back does not bring it back.
    with pytest.raises(NoEarlierVersionError):
        versions.rollback(registry, 60)
