"""The manifest of an artifact: what it is, what its arrays must look like, and how good it was found to be."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from model_store.errors import DamagedArtifactError, FormatVersionError

# Raised whenever an older reader would misread an artifact; docs/artifact.md has the history.
FORMAT_VERSION = 1
FILE_NAME = "manifest.json"


@dataclass(frozen=True)
class ArrayEntry:
    """What one array's file must be.

    Attributes:
        dtype: numpy's name of the type, with byte order (`<f4`).
        shape: the array's shape.
        bytes: size of the file.
        sha256: checksum of the file.
    """

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    sha256: str


@dataclass(frozen=True)
class View:
    """A block of columns of the embeddings.

    Attributes:
        name: the view (`knowledge`, `multimodal`, ...).
        begin: first column.
        end: one past the last column.
    """

    name: str
    begin: int
    end: int


@dataclass(frozen=True)
class Manifest:
    """What an artifact is.

    Attributes:
        model: name of the model that was trained.
        n_users: I.
        n_items: J.
        width: width of the embeddings, all views together.
        views: the views, as blocks of columns.
        similarity_weight: ξ.
        self_loops: whether L̄ has self-loops.
        walks: settings of the random walks (n_walks, walk_length, restart_probability, seed).
        walk_version: version of the walk's definition (model_store.walks.WALK_VERSION).
        configuration: the training configuration, as it was used.
        metrics: split → metric → value.
        data: name and fingerprint of the data set, number of interactions.
        training: seed, epochs, device, seconds, versions of what trained it.
        sequence: sequence number of the interaction log up to which the data reaches; 0 for data from files alone.
        created_at: ISO 8601, UTC.
        version: the version's name in its store; empty until published.
        format_version: version of the artifact format.
        arrays: name → what its file must be.
    """

    model: str
    n_users: int
    n_items: int
    width: int
    views: tuple[View, ...]
    similarity_weight: float
    self_loops: bool
    walks: Mapping[str, float]
    walk_version: int
    configuration: Mapping[str, Any]
    metrics: Mapping[str, Any]
    data: Mapping[str, Any]
    training: Mapping[str, Any]
    sequence: int
    created_at: str
    version: str = ""
    format_version: int = FORMAT_VERSION
    arrays: Mapping[str, ArrayEntry] = field(default_factory=dict)

    def to_json(self) -> str:
        """The manifest's file content."""
        return json.dumps(asdict(self), indent=2, sort_keys=True, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, source: str) -> Manifest:
        """Read a manifest.

        Args:
            text: the file's content.
            source: the file's name, for errors.

        Raises:
            FormatVersionError: another format version.
            DamagedArtifactError: not a manifest.
        """
        try:
            raw = json.loads(text, parse_constant=_refuse)
        except ValueError as error:
            raise DamagedArtifactError(
                f"{source}: not JSON ({error}). Publish the version again or prune it."
            ) from None
        if not isinstance(raw, dict) or "format_version" not in raw:
            raise DamagedArtifactError(f"{source}: no format_version in it. Publish the version again or prune it.")
        found = raw["format_version"]
        if found != FORMAT_VERSION:
            advice = (
                "update kdiffe"
                if isinstance(found, int) and found > FORMAT_VERSION
                else "train and publish the version again"
            )
            raise FormatVersionError(
                f"{source}: format version {found}, this release reads {FORMAT_VERSION}: {advice}."
            )
        names = {f.name for f in fields(cls)}
        if set(raw) != names:
            odd = sorted(set(raw) ^ names)
            raise DamagedArtifactError(f"{source}: missing or unknown fields {odd}. Publish the version again.")
        try:
            raw["views"] = tuple(View(**view) for view in raw["views"])
            raw["arrays"] = {
                _plain(name): ArrayEntry(str(a["dtype"]), tuple(a["shape"]), int(a["bytes"]), str(a["sha256"]))
                for name, a in raw["arrays"].items()
            }
            for name, kind in _KINDS.items():
                if not isinstance(raw[name], kind) or (kind is int and raw[name] < 0):
                    raise ValueError(f"{name} is {raw[name]!r}")
            for name in ("valid", "trial"):
                if not isinstance(raw["metrics"].get(name, {}), dict):
                    raise ValueError(f"metrics.{name} is {raw['metrics'][name]!r}")
        except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
            raise DamagedArtifactError(f"{source}: malformed ({error!r}). Publish the version again.") from None
        return cls(**raw)


# What a field read from JSON must be; counts are ≥ 0.
_KINDS: Mapping[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("n_users", "n_items", "width", "walk_version", "sequence"), int),
    **dict.fromkeys(("walks", "configuration", "metrics", "data", "training"), dict),
    **dict.fromkeys(("model", "created_at", "version"), str),
    "similarity_weight": (int, float),
    "self_loops": bool,
}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no number of JSON's")


def _plain(name: str) -> str:
    """An array's name, which is its file's: never a way out of the artifact's directory."""
    if "/" in name or "\\" in name or "\0" in name:
        raise ValueError(f"array name {name!r}")
    return name
