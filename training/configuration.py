"""Reading settings from TOML and `--set key=value`: unknown keys and values out of bounds are refused."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from training.errors import ConfigurationError
from training.settings import TrainingSettings

_ADAPTER = TypeAdapter(TrainingSettings)


def shipped_configurations() -> list[str]:
    """Names of the configurations that come with the package."""
    folder = files("training") / "configurations"
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_settings(source: str | None, overrides: Sequence[str] = ()) -> TrainingSettings:
    """Settings from a TOML file (or a shipped configuration's name) and overrides.

    Args:
        source: path of a TOML file, or the name of a shipped configuration; None for the defaults.
        overrides: `section.key=value` each, values as TOML writes them; plain words count as strings.

    Raises:
        ConfigurationError: an unreadable file, an unknown key, a value of the wrong kind or out of its bounds.
    """
    values: dict[str, Any] = {} if source is None else _read_toml(source)
    return settings_from(override_values(values, overrides), source or "the settings")


def override_values(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Nested values with `section.key=value` overrides on top.

    Raises:
        ConfigurationError: an override that is no `section.key=value`.
    """
    result: dict[str, Any] = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
    for override in overrides:
        _set(result, override)
    return result


def settings_from(values: Mapping[str, Any], source: str) -> TrainingSettings:
    """Settings from nested mappings.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong kind or out of its bounds.
    """
    _refuse_unknown(values, TrainingSettings, (), source)
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if first["type"] == "tuple_type" and isinstance(first["input"], str):
            message = f"a list is expected, each of its words in quotes: {_listed(key, first['input'])}"
        raise ConfigurationError(f"{source}: {key} = {first['input']!r}: {message}.") from None


def _listed(key: str, given: str) -> str:
    """What was perhaps meant, as a list: a shell takes quotes away unless others stand around them."""
    words = [word.strip().strip("\"'") for word in given.strip("[] ").split(",")]
    return f"{key}={json.dumps(words, ensure_ascii=False, separators=(',', ':'))} (in a shell in single quotes)"


def _read_toml(source: str) -> dict[str, Any]:
    path = Path(source)
    shipped = shipped_configurations()
    if not path.is_file() and source in shipped:
        text = (files("training") / "configurations" / f"{source}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"{source}: can't be read ({error}). Name a TOML file or one of: {', '.join(shipped)}."
            ) from None
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{source}: not TOML ({error}).") from None


def _set(values: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts):
        raise ConfigurationError(f"--set {override!r}: expected section.key=value, such as model.width=64.")
    try:
        value = tomllib.loads(f"value = {text.strip()}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    place = values
    for part in parts[:-1]:
        place = place.setdefault(part, {})
        if not isinstance(place, dict):
            raise ConfigurationError(f"--set {override!r}: {part} is no section.")
    place[parts[-1]] = value


def _refuse_unknown(values: Mapping[str, Any], section: type, path: tuple[str, ...], source: str) -> None:
    known = {f.name: f for f in fields(section)}
    for key, value in values.items():
        name = ".".join((*path, key))
        if key not in known:
            close = get_close_matches(key, known, n=1)
            hint = f" Did you mean {'.'.join((*path, close[0]))}?" if close else f" There are: {', '.join(known)}."
            raise ConfigurationError(f"{source}: unknown key {name}.{hint}")
        factory = known[key].default_factory
        if isinstance(factory, type) and is_dataclass(factory):
            if not isinstance(value, Mapping):
                raise ConfigurationError(f"{source}: {name} is a section, not a value ({value!r}).")
            _refuse_unknown(value, factory, (*path, key), source)
