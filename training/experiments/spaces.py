"""Search spaces, declared in TOML, and configurations written as TOML."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from training.configuration import settings_from
from training.errors import ConfigurationError
from training.experiments.parts import UNVARIED
from training.settings import TrainingSettings

_FOLDER = "configurations/spaces"


@dataclass(frozen=True)
class Dimension:
    """One setting of a space: bounds or choices.

    Attributes:
        name: the setting, dotted.
        low: lower bound, included; None with choices.
        high: upper bound, included.
        log: whether the search is over the logarithm.
        choices: values; empty with bounds.
    """

    name: str
    low: float | int | None = None
    high: float | int | None = None
    log: bool = False
    choices: tuple[Any, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether its values are whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def ends(self) -> tuple[Any, ...]:
        """Its choices, or its bounds."""
        return self.choices or (self.low, self.high)

    def holds(self, value: object) -> bool:
        """Whether a value lies in it."""
        if self.choices:
            return value in self.choices
        assert self.low is not None and self.high is not None  # noqa: S101, PT018
        is_number = isinstance(value, int) or (isinstance(value, float) and not self.is_whole)
        return is_number and self.low <= value <= self.high  # type: ignore[operator]


@dataclass(frozen=True)
class Space:
    """What is searched.

    Attributes:
        dimensions: the settings that vary.
        fixed: dotted name → value of settings that all trials share.
    """

    dimensions: tuple[Dimension, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A form to digest."""
        return {"dimensions": [asdict(dimension) for dimension in self.dimensions], "fixed": dict(self.fixed)}


def shipped_spaces() -> list[str]:
    """Names of the spaces that come with the package."""
    folder = files("training") / _FOLDER
    return sorted(entry.name.removesuffix(".toml") for entry in folder.iterdir() if entry.name.endswith(".toml"))


def read_space(source: str, base: TrainingSettings) -> Space:
    """A space from a TOML file or a shipped space's name. Every bound and choice is tried on the base settings.

    Raises:
        ConfigurationError: an unreadable file, an unknown setting, or a value that the setting refuses.
    """
    path = Path(source)
    if not path.is_file() and source in shipped_spaces():
        text = (files("training") / _FOLDER / f"{source}.toml").read_text(encoding="utf-8")
    else:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"--space {source}: can't be read ({error}). Name a TOML file or one of: {', '.join(shipped_spaces())}."
            ) from None
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"--space {source}: not TOML ({error}).") from None
    unknown = set(raw) - {"parameter", "fixed"}
    parameters = raw.get("parameter", [])
    if unknown or not isinstance(parameters, list) or not parameters:
        raise ConfigurationError(
            f"--space {source}: expected [[parameter]] entries and at most a [fixed] table"
            + (f", found {sorted(unknown)}." if unknown else ".")
        )
    dimensions = tuple(_dimension(one, source) for one in parameters)
    names = [dimension.name for dimension in dimensions]
    fixed = _flat(raw.get("fixed", {}))
    twice = sorted({name for name in names if names.count(name) > 1} | (set(names) & set(fixed)))
    if twice:
        raise ConfigurationError(f"--space {source}: {twice[0]} stands there twice.")
    for name in (*names, *fixed):
        if name.partition(".")[0] in UNVARIED:
            raise ConfigurationError(
                f"--space {source}: {name} is no setting of a trial: a study divides its data once and has one seed. "
                "Give it with --set."
            )
    with_settings(base, fixed, f"--space {source}")
    for dimension in dimensions:
        for value in dimension.ends():
            with_settings(base, {**fixed, dimension.name: value}, f"--space {source}")
    return Space(tuple(_of_its_kind(dimension, base) for dimension in dimensions), fixed)


def with_settings(base: TrainingSettings, values: Mapping[str, Any], source: str = "the settings") -> TrainingSettings:
    """Settings with some dotted names' values replaced.

    Raises:
        ConfigurationError: an unknown setting, or a value that it refuses.
    """
    nested: dict[str, Any] = asdict(base)
    for name, value in values.items():
        section, _, key = name.partition(".")
        if not key or not isinstance(nested.get(section), dict) or key not in nested[section]:
            # settings_from names what is near to it.
            settings_from({section: {key: value}} if key else {section: value}, source)
        nested[section][key] = value
    return settings_from(nested, source)


def value_of(settings: TrainingSettings, name: str) -> Any:
    """The value of a dotted name."""
    section, _, key = name.partition(".")
    return asdict(settings)[section][key]


def to_toml(settings: TrainingSettings, comment: Sequence[str]) -> str:
    """The settings that differ from the defaults, as a file that `--config` reads; seed and device are left out."""
    lines = [f"# {line}" for line in comment]
    defaults = asdict(TrainingSettings())
    for section, values in asdict(settings).items():
        if section == "run":
            continue
        changed = {key: value for key, value in values.items() if value != defaults[section][key]}
        if changed:
            lines += ["", f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in changed.items())]
    return "\n".join(lines) + "\n"


def _dimension(raw: object, source: str) -> Dimension:
    where = f"--space {source}: parameter {raw!r}"
    if not isinstance(raw, dict) or not isinstance(raw.get("name"), str):
        raise ConfigurationError(f"{where}: it needs a name.")
    keys = set(raw) - {"name"}
    if keys == {"choices"} and isinstance(raw["choices"], list) and raw["choices"]:
        return Dimension(raw["name"], choices=tuple(_frozen(choice) for choice in raw["choices"]))
    numbers = [raw.get("low"), raw.get("high")]
    if keys - {"log"} != {"low", "high"} or any(isinstance(n, bool) or not isinstance(n, int | float) for n in numbers):
        raise ConfigurationError(f"{where}: expected low, high and at most log, or choices.")
    low, high, log = raw["low"], raw["high"], raw.get("log", False)
    if not low < high or not isinstance(log, bool) or (log and low <= 0):
        raise ConfigurationError(f"{where}: low must be below high, and above 0 where log is true.")
    return Dimension(raw["name"], low, high, log)


def _of_its_kind(dimension: Dimension, base: TrainingSettings) -> Dimension:
    """The dimension with bounds of its setting's kind: TOML's `0` and `1` are whole, a weight between them is not."""
    if dimension.choices or not isinstance(value_of(base, dimension.name), float):
        return dimension
    assert dimension.low is not None and dimension.high is not None  # noqa: S101, PT018
    return replace(dimension, low=float(dimension.low), high=float(dimension.high))


def _flat(raw: object, path: str = "") -> dict[str, Any]:
    if not isinstance(raw, dict):
        return {path: _frozen(raw)}
    return {name: value for key, one in raw.items() for name, value in _flat(one, f"{path}.{key}".lstrip(".")).items()}


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(one) for one in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key} = {_toml(one)}' for key, one in value.items())}}}"
    # JSON's booleans, numbers and strings are TOML's.
    return json.dumps(value, ensure_ascii=False)
