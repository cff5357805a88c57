"""One setting through some values (Figures 5-9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.comparison import MODELS
from training.data.dataset import DataSet
from training.errors import ConfigurationError
from training.experiments.ablation import changed
from training.experiments.lab import Run
from training.experiments.parts import UNVARIED, missing_part
from training.results import digest
from training.settings import TrainingSettings

Value = str | int | float


@dataclass(frozen=True)
class Parameter:
    """A parameter of the paper.

    Attributes:
        what: what it is, with the paper's letter.
        settings: the settings that it stands for; a value `AxB` gives one to each.
        values: values to sweep by default. They lie around the values that the paper works with (R = 12, M = 50,
            ξ = .7, T = 10, q = 1, τ = .5 and .7, θ1 = .01) and are ours: the figures' own axes were not at hand.
    """

    what: str
    settings: tuple[str, ...]
    values: tuple[Value, ...]


PARAMETERS: Mapping[str, Parameter] = {
    "q": Parameter("entities kept of an item, q", ("diffusion.n_kept",), (1, 2, 3, 4, 5, 8)),
    "walks": Parameter(
        "steps × walks, M × R",
        ("walks.walk_length", "walks.n_walks"),
        ("10x4", "10x12", "30x12", "50x4", "50x8", "50x12", "50x16", "70x12"),
    ),
    "xi": Parameter("weight of S, ξ", ("model.similarity_weight",), (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 1.0)),
    "steps": Parameter("diffusion steps, T", ("diffusion.n_steps",), (2, 5, 10, 20, 50, 100)),
    "tau": Parameter("temperature, τ", ("contrast.temperature",), (0.1, 0.2, 0.3, 0.5, 0.7, 0.9)),
    "theta1": Parameter("weight of the contrast, θ1", ("contrast.weight",), (0.0, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1)),
}


def parameter_of(name: str, settings: TrainingSettings) -> Parameter:
    """A parameter of the paper, or any other setting by its dotted name.

    Raises:
        ConfigurationError: neither.
    """
    if name in PARAMETERS:
        return PARAMETERS[name]
    value: Any = asdict(settings)
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise ConfigurationError(
                f"--parameter {name!r}: choose {', '.join(PARAMETERS)}, or a setting such as model.width."
            )
        value = value[part]
    if isinstance(value, dict):
        raise ConfigurationError(f"--parameter {name!r} is a section of settings: name one setting of it.")
    return Parameter(name, (name,), ())


def values_of(parameter: Parameter, given: str | None) -> list[Value]:
    """The values to sweep: those that were given, comma-separated, or the parameter's own.

    Raises:
        ConfigurationError: no values, or a value for another number of settings.
    """
    values: list[Value] = list(parameter.values)
    if given is not None:
        values = [_number(text.strip()) for text in given.split(",") if text.strip()]
    if not values:
        raise ConfigurationError(f"--values: {parameter.what} has no values of its own: name some, comma-separated.")
    return list(dict.fromkeys(values))


def overrides_of(parameter: Parameter, value: Value) -> list[str]:
    """The `section.key=value` overrides of a value.

    Raises:
        ConfigurationError: a value for another number of settings.
    """
    if len(parameter.settings) == 1:
        return [f"{parameter.settings[0]}={value}"]
    parts = str(value).split("x")
    if len(parts) != len(parameter.settings):
        raise ConfigurationError(
            f"--values: {value!r}: expected {'x'.join('N' for _ in parameter.settings)} for "
            f"{' × '.join(parameter.settings)}."
        )
    return [f"{name}={part}" for name, part in zip(parameter.settings, parts, strict=True)]


def check_effect(data: DataSet, settings: TrainingSettings, name: str) -> None:
    """Refuse a parameter of a part that the model does not have here: every value would give the same model.

    Raises:
        ConfigurationError: it has no effect.
    """
    swept = parameter_of(name, settings).settings[0]
    if swept.partition(".")[0] in UNVARIED:
        raise ConfigurationError(
            f"--parameter {name}: every value gives the same model, since a sweep divides its data once and has seeds "
            "of its own. Use --seeds, --split drawn, or a command for each value."
        )
    part = missing_part(data, settings, swept)
    if part is not None:
        raise ConfigurationError(
            f"--parameter {name}: on {data.name} this model has no {part.name}, so every value gives the same model. "
            f"It comes with {part.needs}."
        )


def sweep(settings: TrainingSettings, name: str, values: Sequence[Value], n_seeds: int) -> list[Run]:
    """The runs of a sweep; every value is checked before the first is trained.

    Args:
        settings: what is held.
        name: the parameter.
        values: its values.
        n_seeds: seeds: run.seed, +1, ...
    """
    parameter = parameter_of(name, settings)
    base = _held(settings, parameter.settings)
    all_changed = [changed(settings, overrides_of(parameter, value)) for value in values]
    if len(parameter.settings) == 1:  # as the settings hold it: 1 and 1.0 are one value
        values = [_held_value(one, parameter.settings[0]) for one in all_changed]
    return [
        Run("sweep", MODELS[one.model.kind], one, seed, name, value, base)
        for seed in range(settings.run.seed, settings.run.seed + n_seeds)
        for value, one in zip(values, all_changed, strict=True)
    ]


def _held(settings: TrainingSettings, swept: Sequence[str]) -> str:
    """Digest of everything but the swept settings, the seed, the device and the split."""
    sections: dict[str, Any] = asdict(settings)
    held = {f"{section}.{name}": value for section, values in sections.items() for name, value in values.items()}
    return digest({k: v for k, v in held.items() if k not in swept and k.partition(".")[0] not in {"run", "split"}})


def _held_value(settings: TrainingSettings, name: str) -> Value:
    section, _, key = name.partition(".")
    value = asdict(settings)[section][key]
    return value if isinstance(value, str | int | float) else str(value)


def _number(text: str) -> Value:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
