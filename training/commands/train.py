"""`kdiffe train`: fit a model, select it on the validation split, publish it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from model_store.command import console, write_json
from model_store.store import DEFAULT_ROOT, ModelStore
from training.checkpoint import FILE_NAME as CHECKPOINT
from training.commands.options import Config, Device, Json, Overrides, Store, check_device, with_option
from training.configuration import override_values, read_settings, settings_from
from training.data.loading import load_data_set
from training.data.log import Log, read_log
from training.errors import ConfigurationError
from training.observer import Observer
from training.plots import plot_training
from training.progress import Bars, Everyone, ProgressFile
from training.runs import Run, retrain, train_on


def train(
    data: Annotated[Path | None, typer.Option("--data", help="Directory (or file) of the data set.")] = None,
    store: Store = DEFAULT_ROOT,
    config: Config = None,
    overrides: Overrides = None,
    device: Device = "auto",
    seed: Annotated[int | None, typer.Option("--seed", help="Seed of everything that is drawn.")] = None,
    refit: Annotated[
        bool, typer.Option("--refit", help="For production: fit again on all splits for the selected epochs.")
    ] = False,
    run_dir: Annotated[
        Path | None, typer.Option("--run-dir", help="Folder for checkpoints, history and plot (default: runs/…).")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in --run-dir.")] = False,
    activate: Annotated[bool, typer.Option(help="Whether the new version becomes the active one.")] = True,
    base: Annotated[
        str | None, typer.Option("--base", help="Instead of --data: retrain this version on its own data.")
    ] = None,
    interactions: Annotated[
        Path | None, typer.Option("--interactions", help="With --base: JSON lines of later interactions to add.")
    ] = None,
    sequence: Annotated[
        int, typer.Option("--sequence", help="With --base: the log's sequence number that the lines reach.", min=0)
    ] = 0,
    state_id: Annotated[
        str, typer.Option("--state-id", help="With --base: name of the state that --sequence counts in.")
    ] = "",
    progress_file: Annotated[
        Path | None, typer.Option("--progress-file", help="Keep the progress as JSON in this file.")
    ] = None,
    trial: Annotated[
        bool,
        typer.Option("--trial", help="With --base: measure it on held back interactions, by a fit or two more."),
    ] = False,
    as_json: Json = False,
) -> None:
    """Train KDiffE on a data set and publish it as a new version."""
    check_device(device)
    models = ModelStore(store)
    if (data is None) == (base is None):
        raise ConfigurationError("Name either a data set (--data DIR) or a version to retrain (--base VERSION).")
    if base is not None and config is not None:
        raise ConfigurationError("--config goes with --data: a retrained version keeps its configuration.")
    if trial and base is None:
        raise ConfigurationError("--trial goes with --base: a data set's validation split measures what it trains.")
    if resume and run_dir is None:
        raise ConfigurationError("--resume needs the folder of the interrupted run: --run-dir DIR.")
    if base is None and (interactions is not None or sequence or state_id):
        raise ConfigurationError(
            "--interactions, --sequence and --state-id go with --base: a data set is trained as its files are."
        )
    started = time.monotonic()
    folder = _own_folder() if run_dir is None else run_dir
    _make(folder)
    models.check_writable()
    chosen = with_option(with_option(overrides, "run.device", None if device == "auto" else device), "run.seed", seed)
    with Bars(console()) as bars:
        observer: Observer = Everyone(bars, ProgressFile(progress_file)) if progress_file else bars
        if resume and not any(folder.glob(f"**/{CHECKPOINT}")):
            observer.note(f"There is no checkpoint in {folder}: training begins from the start.")
        try:
            if base is not None:
                artifact = models.open(base)
                source = f"the configuration of {base}"
                # The device is the machine's, not the version's: a service without a GPU retrains what a GPU trained.
                own, settings = (
                    settings_from(override_values(artifact.manifest.configuration, overriding), source)
                    for overriding in ([f"run.device={device}"], ["run.device=auto", *chosen])
                )
                later = Log() if interactions is None else read_log(interactions)
                run = retrain(
                    artifact,
                    settings,
                    later,
                    observer,
                    folder,
                    resume=resume,
                    sequence=sequence,
                    state_id=state_id,
                    trial=trial,
                    own_settings=own,
                )
            else:
                assert data is not None  # noqa: S101
                settings = read_settings(config, chosen)
                loaded = load_data_set(data, settings.split)
                run = train_on(loaded, settings, observer, folder, resume=resume, refit=refit)
        except KeyboardInterrupt:
            observer.note(f"Interrupted. The same command with --run-dir {folder} --resume goes on from a checkpoint.")
            raise
        seconds = time.monotonic() - started
        version = run.publish(models, seconds, activate=activate)
    try:
        _write_history(folder, run, version)
    except OSError as error:  # the version is published all the same
        console().print(f"{folder}: history and curve can't be written ({error}).", highlight=False)
    valid = run.metrics.get("valid", {})
    result = {
        "version": version,
        "recall@20": valid.get("recall@20"),
        "ndcg@20": valid.get("ndcg@20"),
        "metrics": dict(run.metrics),
        "epochs": run.trained.fit.best_epoch,
        "table_weight": run.trained.table_weight,
        "refit": run.training_facts["refit"],
        "seconds": round(seconds, 1),
        "device": run.trained.device,
        "run_dir": str(folder),
        "store": str(store),
    }
    _print_table(result, run)
    if as_json:
        write_json(result)


def _own_folder() -> Path:
    """A folder named by the time, which no other run has.

    Raises:
        ConfigurationError: it can't be made.
    """
    folder = named = Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(2):
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            folder = named.with_name(f"{named.name}-{number}")
        except OSError as error:
            raise ConfigurationError(f"{folder}: can't be made ({error}). Name another one: --run-dir DIR.") from None
        else:
            break
    return folder


def _make(folder: Path) -> None:
    """Make the run's folder before anything long begins.

    Raises:
        ConfigurationError: it can't be made or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise ConfigurationError(f"--run-dir {folder}: can't be written ({error}). Name another folder.") from None


def _write_history(folder: Path, run: Run, version: str) -> None:
    content = {
        "version": version,
        "settings": asdict(run.trained.settings),
        "best_epoch": run.trained.fit.best_epoch,
        "metrics": dict(run.metrics),
        "history": [asdict(epoch) for epoch in run.trained.fit.history],
    }
    (folder / "run.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_training(run.trained.fit, folder / "training.png")


def _print_table(result: Mapping[str, Any], run: Run) -> None:
    out = console()
    table = Table("", "Recall@20", "NDCG@20", title=f"{result['version']}, validation")
    weight = f"with B × {run.trained.table_weight:.4g}"
    for key, label in (("valid_without_table", "without B"), ("valid", weight)):
        if key in run.metrics:
            figures = run.metrics[key]
            table.add_row(label, f"{figures['recall@20']:.4f}", f"{figures['ndcg@20']:.4f}")
    out.print(table if run.metrics else "No validation split: nothing to report.")
    out.print(
        f"{result['version']}: {result['epochs']} epochs, {result['seconds']} s on {result['device']}; "
        f"history and curve in {result['run_dir']}",
        highlight=False,
        soft_wrap=True,
    )
