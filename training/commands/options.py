"""Options that several subcommands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.errors import ConfigurationError

Data = Annotated[Path, typer.Option("--data", help="Directory (or file) of the data set.")]
Store = Annotated[Path, typer.Option("--store", envvar="KDIFFE_STORE", help="Directory of the model store.")]
Config = Annotated[
    str | None, typer.Option("--config", help="TOML file with settings, or the name of a shipped configuration.")
]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="A setting: section.key=value. May be given many times.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line of standard output.")]


def with_option(overrides: list[str] | None, key: str, value: object) -> list[str]:
    """The overrides with an option of the command line behind them: the option wins."""
    return [*(overrides or []), *([] if value is None else [f"{key}={value}"])]


def check_device(device: str) -> str:
    """A device's name.

    Raises:
        ConfigurationError: no such device.
    """
    if device not in {"auto", "cpu", "cuda"}:
        raise ConfigurationError(f"--device {device!r}: choose auto, cpu or cuda.")
    return device
