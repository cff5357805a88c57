"""`kdiffe tune`: search settings on the validation split."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from model_store.command import console, write_json
from training.commands.options import Config, Data, Device, Json, Overrides, check_device, with_option
from training.commands.recording import ResultsFile, command_text
from training.configuration import read_settings
from training.data.loading import load_data_set
from training.errors import ConfigurationError
from training.experiments.progress import RunBars
from training.experiments.spaces import read_space, to_toml
from training.experiments.tuning import OBJECTIVES, PRUNERS, Plan, Study, Winner, locked
from training.results import Results, now


def tune(
    data: Data,
    store_file: Annotated[
        Path, typer.Option("--store-file", help="The study: a journal, or SQLite where it ends with .sqlite or .db.")
    ],
    space: Annotated[
        str, typer.Option("--space", help="TOML file with the space, or a shipped one's name.")
    ] = "default",
    trials: Annotated[int, typer.Option("--trials", help="Finished trials that the study shall have.", min=1)] = 50,
    splits: Annotated[
        int, typer.Option("--splits", help="Validation splits a trial: the set's own and others drawn anew.", min=1)
    ] = 1,
    objective: Annotated[str, typer.Option("--objective", help="ndcg@20, recall@20, or both (√ of their product).")] = (
        "ndcg@20"
    ),
    pruner: Annotated[str, typer.Option("--pruner", help="median, halving or none.")] = "median",
    out: Annotated[
        Path | None, typer.Option("--out", help="Where the winner goes, for --config (default: beside the study).")
    ] = None,
    config: Config = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of the search and of its trainings.")] = None,
    device: Device = "auto",
    results: ResultsFile = None,
    as_json: Json = False,
) -> None:
    """Search; the same command goes on where it was stopped. The winner is written as a configuration."""
    check_device(device)
    if objective not in OBJECTIVES:
        raise ConfigurationError(f"--objective {objective!r}: choose {', '.join(OBJECTIVES)}.")
    if pruner not in PRUNERS:
        raise ConfigurationError(f"--pruner {pruner!r}: choose {', '.join(PRUNERS)}.")
    chosen = with_option(with_option(overrides, "run.device", None if device == "auto" else device), "run.seed", seed)
    settings = read_settings(config, chosen)
    searched = read_space(space, settings)
    winner_file = _winner_file(out, store_file, config, space)
    records_file = Results(results)
    options = {"data": data, "space": space, "trials": trials, "splits": splits, "objective": objective}
    command = command_text(
        "tune",
        {**options, "pruner": pruner, "config": config, "set": overrides, "seed": seed, "store-file": store_file},
    )
    with RunBars(console(), "tuning") as bars, locked(store_file):
        loaded = load_data_set(data, settings.split)
        if not len(loaded.valid):
            raise ConfigurationError(f"{loaded.name}: tuning needs a validation split, and it has none.")
        study = Study(Plan(loaded, settings, searched, splits, objective, pruner), store_file)
        if study.left_out:
            bars.note(f"Not searched, since on {loaded.name} they change nothing: {', '.join(study.left_out)}.")
        try:
            study.run(trials, bars, bars.runs, records_file, command)
        except KeyboardInterrupt:
            bars.note(f"Interrupted. The same command goes on with {store_file}.")
            _write(study.winner(), winner_file, loaded.name, command)
            raise
    winner = study.winner()
    assert winner is not None  # noqa: S101
    _write(winner, winner_file, loaded.name, command)
    table = Table("setting", "value", title=f"trial {winner.trial}: {objective} {winner.value:.4f}")
    for name, value in winner.values.items():
        table.add_row(name, f"{value:.4g}" if isinstance(value, float) else str(value))
    out_console = console()
    out_console.print(table)
    out_console.print(
        f"{winner.n_trials} trials, {winner.n_pruned} pruned. kdiffe train --data {data} --config {winner_file}",
        highlight=False,
        soft_wrap=True,
    )
    if as_json:
        write_json(
            {
                "data": data.name,
                "trial": winner.trial,
                "objective": objective,
                "value": winner.value,
                **winner.metrics,
                "settings": dict(winner.values),
                "left_out": study.left_out,
                "trials": winner.n_trials,
                "pruned": winner.n_pruned,
                "config": str(winner_file),
            }
        )


def _winner_file(out: Path | None, store_file: Path, config: str | None, space: str) -> Path:
    """Where the winner goes: never over what the search is made of, nor over somebody's own file unasked.

    Raises:
        ConfigurationError: it would.
    """
    path = out or store_file.with_suffix(".toml")
    way_out = "Name another file with --out."
    used = {"--store-file": store_file, "--config": Path(config or ""), "--space": Path(space)}
    for option, file in used.items():
        if path.resolve() == file.resolve():
            raise ConfigurationError(f"{option} {file}: the winner would be written over it. {way_out}")
    if out is None and path.is_file():
        try:
            is_own = "\n# kdiffe tune " in path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            is_own = False
        if not is_own:
            raise ConfigurationError(
                f"{path}: the winner would be written over it, and kdiffe tune did not write it. {way_out}"
            )
    return path


def _write(winner: Winner | None, path: Path, name: str, command: str) -> None:
    if winner is None:
        return
    figures = ", ".join(f"{metric} {value:.4f}" for metric, value in winner.metrics.items())
    comment = [
        f"{name}: trial {winner.trial}, the best of {winner.n_trials} ({winner.n_pruned} pruned), {now()[:10]}.",
        f"Validation, mean over the splits, with B: {figures}.",
        command,
    ]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside = path.with_name(f".{path.name}.new")
        aside.write_text(to_toml(winner.settings, comment), encoding="utf-8")
        aside.replace(path)
    except OSError as error:
        raise ConfigurationError(f"--out {path}: can't be written ({error}). Name another file.") from None
