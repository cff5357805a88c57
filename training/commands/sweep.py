"""`kdiffe sweep`: one setting through some values."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from model_store.command import console, write_json
from training.commands.options import Config, Data, Device, Json, Overrides
from training.commands.recording import ResultsFile, Seeds, SplitName, command_text, run_all, settings_given, splits_of
from training.data.loading import load_data_set
from training.experiments.compare import summary
from training.experiments.lab import Lab
from training.experiments.progress import RunBars
from training.experiments.sweep import PARAMETERS, check_effect, parameter_of, values_of
from training.experiments.sweep import sweep as runs_of
from training.experiments.tables import SWEEP_COLUMNS, sweep_rows
from training.results import Record, Results


def sweep(
    data: Data,
    parameter: Annotated[str, typer.Option("--parameter", help=f"{', '.join(PARAMETERS)}, or a setting: section.key.")],
    values: Annotated[
        str | None, typer.Option("--values", help="Comma-separated values; walks takes STEPSxWALKS, such as 50x12.")
    ] = None,
    seeds: Seeds = 1,
    split: SplitName = "valid",
    config: Config = None,
    overrides: Overrides = None,
    device: Device = "auto",
    results: ResultsFile = None,
    as_json: Json = False,
) -> None:
    """Train the model with each value of one setting; report each with and without B."""
    splits = splits_of(split)
    settings = settings_given(config, overrides, device)
    runs = runs_of(settings, parameter, values_of(parameter_of(parameter, settings), values), seeds)
    options = {"data": data, "parameter": parameter, "values": values, "seeds": seeds, "split": split}
    command = command_text("sweep", {**options, "config": config, "set": overrides})
    records_file = Results(results)
    with RunBars(console(), f"sweep of {parameter}") as bars:
        loaded = load_data_set(data, settings.split)
        check_effect(loaded, settings, parameter)
        lab = Lab(loaded, records_file, bars, splits=splits, command=command)
        records = run_all(lab, runs, bars)
    out = console()
    by_split: dict[str, list[Record]] = {name: [r for r in records if r.split == name] for name in splits}
    for name, found in by_split.items():
        table = Table(parameter, *SWEEP_COLUMNS, title=f"{lab.data.name}, {name}")
        for row in sweep_rows(found):
            table.add_row(*row)
        out.print(table)
    if as_json:
        answers = {name: _answer(found) for name, found in by_split.items()}
        main = splits[-1]
        write_json(
            {"data": data.name, "parameter": parameter, "split": main, "values": answers[main], "splits": answers}
        )


def _answer(records: list[Record]) -> list[dict[str, object]]:
    by_value: dict[object, list[Record]] = {}
    for record in records:
        by_value.setdefault(record.value, []).append(record)
    rows = []
    for value, found in by_value.items():
        row = summary(found, [record.metrics for record in found])
        if all(record.without_table for record in found):
            row["without_table"] = summary(found, [record.without_table for record in found])
        rows.append({"value": value, **row})
    return rows
