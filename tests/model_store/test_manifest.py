import json
from typing import Any

import pytest

from model_store.errors import ArtifactError, DamagedArtifactError, FormatVersionError
from model_store.manifest import FORMAT_VERSION, ArrayEntry, Manifest, View


def manifest() -> Manifest:
    return Manifest(
        model="kdiffe",
        n_users=3,
        n_items=4,
        width=6,
        views=(View("knowledge", 0, 4), View("multimodal", 4, 6)),
        similarity_weight=0.7,
        self_loops=False,
        walks={"n_walks": 12, "walk_length": 50, "restart_probability": 0.15, "seed": 2**63 - 1},
        walk_version=1,
        configuration={"model": {"layers": 2}},
        metrics={"valid": {"ndcg@20": 0.25}},
        data={"name": "tiny"},
        training={"seed": 1},
        sequence=17,
        created_at="2026-01-01T00:00:00Z",
        version="v0001",
        arrays={"user_ids": ArrayEntry("<U2", (3,), 152, "ab"), "scalar": ArrayEntry("<i8", (), 136, "cd")},
    )


def damaged(**fields: Any) -> str:
    return json.dumps(json.loads(manifest().to_json()) | fields)


def test_a_manifest_goes_to_json_and_back() -> None:
    assert Manifest.from_json(manifest().to_json(), "manifest.json") == manifest()


def test_the_same_manifest_is_the_same_text() -> None:
    assert manifest().to_json() == manifest().to_json()
    assert manifest().to_json().endswith("}\n")


@pytest.mark.parametrize(
    "text", ["", "{", "not json", '{"format_version": 1', "\x00", '{"format_version": NaN}', '{"n_users": -Infinity}']
)
def test_what_is_not_json_is_damage_and_says_what_to_do(text: str) -> None:
    with pytest.raises(DamagedArtifactError, match=r"here: not JSON .*Publish the version again"):
        Manifest.from_json(text, "here")


@pytest.mark.parametrize("text", ["{}", "[]", "7", "null", '"format_version"'])
def test_json_without_a_format_version_is_damage(text: str) -> None:
    with pytest.raises(DamagedArtifactError, match="no format_version"):
        Manifest.from_json(text, "here")


def test_a_newer_format_is_refused_with_the_advice_to_update_even_if_its_fields_are_unknown() -> None:
    text = json.dumps({"format_version": FORMAT_VERSION + 1, "something": "new"})
    with pytest.raises(FormatVersionError, match=rf"format version {FORMAT_VERSION + 1}.*update kdiffe"):
        Manifest.from_json(text, "here")


@pytest.mark.parametrize("version", [0, -1, "1", None, 1.5])
def test_another_format_is_refused_with_the_advice_to_publish_again(version: object) -> None:
    with pytest.raises(FormatVersionError, match="publish the version again"):
        Manifest.from_json(damaged(format_version=version), "here")


def test_a_missing_or_an_unknown_field_is_named() -> None:
    raw = json.loads(manifest().to_json())
    del raw["walks"]
    raw["extra"] = 1
    with pytest.raises(DamagedArtifactError, match=r"\['extra', 'walks'\]"):
        Manifest.from_json(json.dumps(raw), "here")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("views", [{"name": "knowledge"}]),
        ("views", 3),
        ("views", None),
        ("arrays", []),
        ("arrays", {"a": {"dtype": "<f4"}}),
        ("arrays", {"a": {"dtype": "<f4", "shape": 3, "bytes": 1, "sha256": ""}}),
        ("arrays", {"a": {"dtype": "<f4", "shape": [3], "bytes": "many", "sha256": ""}}),
        ("arrays", {"a": 5}),
        ("arrays", {"a\0": {"dtype": "<f4", "shape": [3], "bytes": 1, "sha256": ""}}),
        ("arrays", {"../../secret": {"dtype": "<f4", "shape": [3], "bytes": 1, "sha256": ""}}),
        ("n_users", "three"),
        ("n_items", None),
        ("width", -1),
        ("sequence", 1.5),
        ("walk_version", "1"),
        ("similarity_weight", "0.7"),
        ("self_loops", "no"),
        ("walks", []),
        ("metrics", None),
        ("metrics", {"valid": "good"}),
        ("metrics", {"trial": 3}),
        ("version", None),
    ],
)
def test_a_field_of_another_kind_is_damage_and_names_the_file(field: str, value: object) -> None:
    with pytest.raises(ArtifactError, match="here: malformed"):
        Manifest.from_json(damaged(**{field: value}), "here")
