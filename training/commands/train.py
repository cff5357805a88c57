"""`kdiffe train`: fit a model, select it on the validation split, publish it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from model_store.command import console, write_json
from model_store.store import DEFAULT_ROOT, ModelStore
from training.commands.options import Config, Device, Json, Overrides, Store, check_device, with_option
from training.configuration import override_values, read_settings, settings_from
from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.loading import load_data_set
from training.errors import ConfigurationError, DataError
from training.export import data_set_of, publish
from training.observer import Observer
from training.plots import plot_training
from training.progress import Bars, Everyone, ProgressFile
from training.settings import TrainingSettings
from training.trained import Trained, train_kdiffe, with_everything


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
    as_json: Json = False,
) -> None:
    """Train KDiffE on a data set and publish it as a new version."""
    check_device(device)
    models = ModelStore(store)
    if (data is None) == (base is None):
        raise ConfigurationError("Name either a data set (--data DIR) or a version to retrain (--base VERSION).")
    if resume and run_dir is None:
        raise ConfigurationError("--resume needs the folder of the interrupted run: --run-dir DIR.")
    started = time.monotonic()
    folder = run_dir or Path("runs") / datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    out = console()
    with Bars(out) as bars:
        observer: Observer = Everyone(bars, ProgressFile(progress_file)) if progress_file else bars
        chosen = with_option(
            with_option(overrides, "run.device", None if device == "auto" else device), "run.seed", seed
        )
        if base is not None:
            if config is not None:
                raise ConfigurationError("--config goes with --data: a retrained version keeps its configuration.")
            job = _retrain(models, base, chosen, interactions, observer, folder, resume)
            facts = {"state_id": state_id}
        else:
            assert data is not None  # noqa: S101
            settings = read_settings(config, chosen)
            job = _train(load_data_set(data, settings.split), settings, observer, folder, resume, refit)
            facts = {}
        trained, fitted_on, held_out, metrics, extra, data_facts, training_facts = job
        seconds = time.monotonic() - started
        version = publish(
            trained,
            fitted_on,
            models,
            metrics=metrics,
            data_facts={**data_facts, **facts},
            training_facts={**training_facts, "seconds": round(seconds, 1)},
            held_out=held_out,
            extra_arrays=extra,
            sequence=sequence if base is not None else 0,
            activate=activate,
        )
    valid = metrics.get("valid", {})
    _write_run(folder, trained, metrics, version)
    result = {
        "version": version,
        "recall@20": valid.get("recall@20"),
        "ndcg@20": valid.get("ndcg@20"),
        "metrics": metrics,
        "epochs": trained.fit.best_epoch,
        "table_weight": trained.table_weight,
        "refit": bool(training_facts.get("refit")),
        "seconds": round(seconds, 1),
        "device": trained.device,
        "run_dir": str(folder),
        "store": str(store),
    }
    _print_table(result, trained, metrics)
    if as_json:
        write_json(result)


Job = tuple[Trained, DataSet, Interactions, dict[str, Any], dict[str, Any], dict[str, Any], dict[str, Any]]


def _train(
    data: DataSet, settings: TrainingSettings, observer: Observer, folder: Path, resume: bool, refit: bool
) -> Job:
    mark = fingerprint(data)
    trained = train_kdiffe(data, settings, observer, checkpoints=folder / "select", resume=resume, fingerprint=mark)
    metrics: dict[str, Any] = {}
    if trained.metrics:
        metrics = {"valid": dict(trained.metrics), "valid_without_table": dict(trained.fit.best_metrics)}
    held_out = data.valid.concatenate(data.test)
    facts = {"epochs": trained.fit.best_epoch, "refit": False}
    if refit:
        observer.note("Refitting on all interactions: the figures are the selected model's, on its validation split.")
        data = with_everything(data)
        trained = train_kdiffe(
            data,
            trained.settings,
            observer,
            fixed_epochs=trained.fit.best_epoch,
            checkpoints=folder / "refit",
            resume=resume,
            fingerprint=mark,
        )
        held_out, facts = Interactions.empty(), {"epochs": trained.fit.best_epoch, "refit": True}
    return trained, data, held_out, metrics, {}, {"name": data.name, "fingerprint": mark}, facts


def _retrain(
    models: ModelStore,
    base: str,
    overrides: list[str],
    interactions: Path | None,
    observer: Observer,
    folder: Path,
    resume: bool,
) -> Job:
    """Refit a version on its own data and the log's interactions, for as many epochs as it was selected with."""
    artifact = models.open(base)
    later = _read_log(interactions) if interactions is not None else []
    data = data_set_of(artifact, later)
    manifest = artifact.manifest
    if manifest.model != "kdiffe":
        raise ConfigurationError(f"{base} is a {manifest.model!r} model: this release retrains kdiffe models alone.")
    values = override_values(manifest.configuration, overrides)
    settings = settings_from(values, f"the configuration of {base}")
    mark = fingerprint(data)
    trained = train_kdiffe(
        data,
        settings,
        observer,
        fixed_epochs=int(manifest.training["epochs"]),
        checkpoints=folder / "refit",
        resume=resume,
        fingerprint=mark,
    )
    metrics = {**manifest.metrics, "selected_as": manifest.metrics.get("selected_as", base)}
    codebooks = {name: artifact.array(name) for name in artifact.names() if name.startswith("codebook.")}
    facts = {"epochs": trained.fit.best_epoch, "refit": True, "base": base}
    data_facts = {"name": data.name, "fingerprint": mark}
    return trained, data, Interactions.empty(), metrics, codebooks, data_facts, facts


def _read_log(path: Path) -> list[tuple[str, str]]:
    """(user id, item id) pairs from JSON lines.

    Raises:
        DataError: a line that is no interaction.
    """
    pairs = []
    try:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    continue
                try:
                    raw = json.loads(line)
                    user_id, item_id = raw["user_id"], raw["item_id"]
                    if not isinstance(user_id, str | int) or not isinstance(item_id, str | int):
                        raise TypeError("an id is a text or a whole number")
                    pairs.append((str(user_id), str(item_id)))
                except (ValueError, KeyError, TypeError):
                    raise DataError(
                        f'{path}, line {number}: {line.strip()[:80]!r} is no {{"user_id", "item_id"}} object.'
                    ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({error}).") from None
    return pairs


def _write_run(folder: Path, trained: Trained, metrics: dict[str, Any], version: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    history = [asdict(epoch) for epoch in trained.fit.history]
    content = {
        "version": version,
        "settings": asdict(trained.settings),
        "best_epoch": trained.fit.best_epoch,
        "metrics": metrics,
        "history": history,
    }
    (folder / "run.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    plot_training(trained.fit, folder / "training.png")


def _print_table(result: dict[str, Any], trained: Trained, metrics: dict[str, Any]) -> None:
    out = console()
    table = Table("", "Recall@20", "NDCG@20", title=f"{result['version']}, validation")
    for key, label in (("valid_without_table", "without B"), ("valid", f"with B × {trained.table_weight:.4g}")):
        if key in metrics:
            table.add_row(label, f"{metrics[key]['recall@20']:.4f}", f"{metrics[key]['ndcg@20']:.4f}")
    out.print(table if metrics else "No validation split: nothing to report.")
    out.print(
        f"{result['version']}: {result['epochs']} epochs, {result['seconds']} s on {result['device']}; "
        f"history and curve in {result['run_dir']}",
        highlight=False,
        soft_wrap=True,
    )
