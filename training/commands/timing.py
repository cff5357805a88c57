"""`kdiffe timing`: how long an epoch takes."""

from __future__ import annotations

import math
from typing import Annotated

import typer
from rich.table import Table

from model_store.command import console, write_json
from training.commands.options import Config, Data, Device, Json, Overrides
from training.commands.recording import ResultsFile, command_text, settings_given
from training.data.fingerprint import fingerprint
from training.data.loading import load_data_set
from training.errors import ConfigurationError
from training.experiments.progress import RunBars
from training.experiments.tables import TIMING_COLUMNS, timing_rows
from training.experiments.timing import time_epochs, timings
from training.results import Results


def timing(
    data: Data,
    steps: Annotated[
        str | None, typer.Option("--steps", help="Diffusion steps T, comma-separated; `none` for no such measurement.")
    ] = None,
    users: Annotated[
        str | None,
        typer.Option("--users", help="Numbers of users, or shares below 1, comma-separated; `none` for none."),
    ] = None,
    epochs: Annotated[int, typer.Option("--epochs", help="Epochs to measure, after a first one.", min=1)] = 3,
    config: Config = None,
    overrides: Overrides = None,
    device: Device = "auto",
    results: ResultsFile = None,
    as_json: Json = False,
) -> None:
    """Measure an epoch against the diffusion steps and against the number of users; the median of some epochs."""
    settings = settings_given(config, overrides, device)
    of_steps, of_users = _numbers("--steps", steps), _numbers("--users", users)
    whole = None if of_steps is None else [int(value) for value in of_steps]
    if whole is not None and whole != of_steps:
        raise ConfigurationError(f"--steps {steps!r}: whole numbers, comma-separated.")
    options = {"data": data, "steps": steps, "users": users, "epochs": epochs, "config": config, "set": overrides}
    command = command_text("timing", options)
    records_file = Results(results)
    with RunBars(console(), "timing") as bars:
        loaded = load_data_set(data, settings.split)
        todo = timings(loaded, settings, whole, of_users)
        mark = fingerprint(loaded)
        if of_steps is None and not any(one.parameter == "steps" for one in todo):
            bars.note(f"No diffusion on {loaded.name} with these settings: nothing is measured against T.")
        records = []
        bars.runs(0, len(todo))
        for number, one in enumerate(todo, 1):
            records.append(time_epochs(one, loaded.name, mark, epochs, records_file, bars, command))
            bars.runs(number, len(todo))
    table = Table(*TIMING_COLUMNS, title=f"{loaded.name}: an epoch")
    for row in timing_rows(records):
        table.add_row(*row)
    console().print(table)
    if as_json:
        rows = [{"parameter": r.parameter, "value": r.value, "seconds": r.seconds, **r.facts} for r in records]
        write_json({"data": data.name, "machine": records[0].machine if records else {}, "timings": rows})


def _numbers(option: str, given: str | None) -> list[float] | None:
    if given is None:
        return None
    if given == "none":
        return []
    try:
        found = [float(text) for text in given.split(",")]
    except ValueError:
        found = [math.nan]
    if not all(map(math.isfinite, found)):
        raise ConfigurationError(f"{option} {given!r}: numbers, comma-separated, or none.")
    return found
