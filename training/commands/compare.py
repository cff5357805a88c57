"""`kdiffe compare`: KDiffE beside its peers on one data set."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model_store.command import console, write_json
from training.commands.options import Data, Device, Json
from training.commands.recording import (
    ResultsFile,
    Seeds,
    SplitName,
    command_text,
    differences_table,
    run_all,
    settings_given,
    splits_of,
)
from training.comparison import models_for
from training.configuration import read_settings, shipped_configurations
from training.data.loading import load_data_set
from training.errors import ConfigurationError
from training.experiments.compare import Comparison, comparison_of
from training.experiments.compare import compare as runs_of
from training.experiments.lab import METRICS, Lab
from training.experiments.progress import RunBars
from training.results import Record, Results
from training.settings import TrainingSettings


def compare(
    data: Data,
    models: Annotated[
        str | None,
        typer.Option(
            "--models",
            help="Comma-separated names; if left out, all that fit the set but item_item (B alone) and "
            "lightgcn_reference (LightGCN as its reference figures were measured).",
        ),
    ] = None,
    seeds: Seeds = 3,
    split: SplitName = "test",
    config: Annotated[
        str | None,
        typer.Option("--config", help="KDiffE's settings: a TOML file, or the name of a shipped configuration."),
    ] = None,
    model_config: Annotated[
        list[str] | None,
        typer.Option(
            "--model-config",
            help="DiffMM's own settings: diffmm=FILE; left out, those shipped as CONFIG-diffmm, or else KDiffE's.",
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="A setting of KDiffE's: section.key=value. May be given many times. Peers take split and run; "
            "LightGCN also item_item, for the B beside it; DiffMM all, without --model-config. For the rest LightGCN, "
            "EASE and item-kNN have settings of their own (docs/experiments.md).",
        ),
    ] = None,
    device: Device = "auto",
    results: ResultsFile = None,
    as_json: Json = False,
) -> None:
    """Train every model for every seed, select on validation, report with and without B and test the differences."""
    splits = splits_of(split)
    own = settings_by_model(config, overrides, device, model_config or [])
    settings = own["kdiffe"]
    given = None if models is None else [name.strip() for name in models.split(",") if name.strip()]
    options = {"data": data, "models": models, "seeds": seeds, "split": split, "config": config}
    files = [f"diffmm={Path(one.removeprefix('diffmm=')).name}" for one in model_config or []]
    command = command_text("compare", {**options, "model-config": files, "set": overrides})
    records_file = Results(results)
    with RunBars(console(), "comparison") as bars:
        loaded = load_data_set(data, settings.split)
        lab = Lab(loaded, records_file, bars, splits=splits, command=command)
        runs = runs_of(models_for(given, loaded, settings, bars), seeds, own, splits)
        records = run_all(lab, runs, bars)
        found = {name: comparison_of(lab, records, name) for name in splits}
    for name, comparison in found.items():
        _print(comparison, f"{loaded.name}, {name}")
    if as_json:
        main = splits[-1]
        answers = {name: _answer(comparison) for name, comparison in found.items()}
        write_json({"data": data.name, "split": main, **answers[main], "splits": answers})


def settings_by_model(
    config: str | None, overrides: list[str] | None, device: str, model_config: list[str]
) -> dict[str, TrainingSettings]:
    """Model → its settings: KDiffE's, and DiffMM's where a file names them or some are shipped beside KDiffE's.

    Raises:
        ConfigurationError: an option that is no `diffmm=FILE`, or settings that can't be read.
    """
    settings = settings_given(config, overrides, device)
    found = {"kdiffe": settings}
    if f"{config}-diffmm" in shipped_configurations():
        found["diffmm"] = settings_given(f"{config}-diffmm", overrides, device)
    for one in model_config:
        name, separator, source = one.partition("=")
        if not separator or name != "diffmm" or not source:
            raise ConfigurationError(f"--model-config {one!r}: expected diffmm=FILE.")
        found[name] = replace(read_settings(source), run=settings.run, split=settings.split)
    return found


def _answer(comparison: Comparison) -> dict[str, object]:
    tests = [{"model": r.model, "other": r.value, **r.facts, **r.metrics} for r in comparison.significance]
    peers = {metric: comparison.best_peer(metric) for metric in METRICS}
    return {"models": comparison.to_json(), "best_peer": peers, "significance": tests}


def _print(comparison: Comparison, title: str) -> None:
    out = console()
    table = Table("model", "Recall@20", "±", "NDCG@20", "±", "seeds", "chosen on validation (first seed)", title=title)
    for name, row in comparison.to_json().items():
        figures = [f"{row[key]:.4f}" for key in ("recall@20", "recall@20_std", "ndcg@20", "ndcg@20_std")]
        seeds = ", ".join(map(str, row["seed_values"]))
        table.add_row(name, *figures, seeds, str(row["chosen"][0]))
    out.print(table)
    if not comparison.significance:
        return
    peers = {metric: comparison.best_peer(metric) for metric in METRICS}

    def mark(record: Record) -> str:
        is_best = record.value == peers[str(record.facts["metric"])] and record.model == "kdiffe"
        return " (best peer)" if is_best else ""

    out.print(differences_table(comparison.significance, title, mark))
