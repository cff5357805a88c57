"""Training runs: a data set trained and selected, or a version retrained on its own data and the log."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from model_store.artifact import Artifact
from model_store.errors import DamagedArtifactError
from model_store.store import ModelStore
from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.log import Log
from training.export import carried_arrays, data_set_of, publish
from training.observer import Observer, Part
from training.report import machine_facts, refitted, report_of
from training.selecting import Tables
from training.settings import TrainingSettings
from training.trained import Trained, train_kdiffe, with_everything
from training.trial import on_trial

# A refit takes about this share of a run that selects and refits.
REFIT_SHARE = 0.3
# And this one of a retrain with a trial, which fits two or three times.
TRIED_SHARE = 0.4


@dataclass(frozen=True)
class Run:
    """A finished run: a model, and what its artifact says about it.

    Attributes:
        trained: the model.
        data: the data set that it was fitted on.
        held_out: interactions that were not fitted on and that a refit adds.
        metrics: split → metric → value.
        data_facts: name and fingerprint of the data; the state's id where the log was added.
        training_facts: epochs, whether it is a refit, the version that was retrained.
        extra_arrays: arrays that a retrained version carries on.
        sequence: the log's sequence number that the data reaches.
        report: makes `training.report`'s report, less the machine's part, when the model is published: a run that
            is only compared needs none.
    """

    trained: Trained
    data: DataSet
    held_out: Interactions
    metrics: Mapping[str, Any]
    data_facts: Mapping[str, Any]
    training_facts: Mapping[str, Any]
    extra_arrays: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    sequence: int = 0
    report: Callable[[], Mapping[str, Any]] = dict

    def publish(self, store: ModelStore, seconds: float, *, activate: bool) -> str:
        """Publish the model. Returns the new version's name."""
        return publish(
            self.trained,
            self.data,
            store,
            metrics=self.metrics,
            data_facts=self.data_facts,
            training_facts={**self.training_facts, "seconds": round(seconds, 1)},
            held_out=self.held_out,
            extra_arrays=self.extra_arrays,
            sequence=self.sequence,
            activate=activate,
            report={**self.report(), "machine": machine_facts(self.trained.device, seconds)},
        )


def train_on(
    data: DataSet,
    settings: TrainingSettings,
    observer: Observer,
    folder: Path,
    *,
    resume: bool = False,
    refit: bool = False,
    tables: Tables | None = None,
) -> Run:
    """Train and select on a data set's validation split; then, where asked for, refit on everything.

    Args:
        data: the data set, with its splits.
        settings: everything that training can be told.
        observer: is told about every phase.
        folder: where checkpoints go.
        resume: go on from the folder's checkpoints.
        refit: fit again on all splits, for the selected epochs and with the selected table.
        tables: of this data, where several runs share them.
    """
    _begin(folder, resume)
    mark = fingerprint(data)
    selecting = Part(observer, 1 - REFIT_SHARE) if refit else observer
    trained = train_kdiffe(
        data,
        settings,
        selecting,
        checkpoints=folder / "select",
        resume=resume,
        fingerprint=mark,
        tables=tables,
    )
    metrics: dict[str, Any] = {}
    if trained.metrics:
        metrics = {"valid": dict(trained.metrics), "valid_without_table": dict(trained.fit.best_metrics)}
    report: Callable[[], Mapping[str, Any]] = partial(_selected_report, trained, data, mark, observer)
    held_out = data.valid.concatenate(data.test)
    if refit:
        selected = report()
        observer.note("Refitting on all interactions: the figures are the selected model's, on its validation split.")
        data, held_out = with_everything(data), Interactions.empty()
        trained = train_kdiffe(
            data,
            trained.settings,
            Part(observer, REFIT_SHARE),
            fixed_epochs=trained.fit.best_epoch,
            checkpoints=folder / "refit",
            resume=resume,
            fingerprint=mark,
        )
        report = partial(refitted, selected, trained, data, mark)
    facts = {"epochs": trained.fit.best_epoch, "refit": refit}
    return Run(trained, data, held_out, metrics, {"name": data.name, "fingerprint": mark}, facts, report=report)


def retrain(
    artifact: Artifact,
    settings: TrainingSettings,
    later: Log,
    observer: Observer,
    folder: Path,
    *,
    resume: bool = False,
    sequence: int = 0,
    state_id: str = "",
    trial: bool = False,
    own_settings: TrainingSettings | None = None,
) -> Run:
    """Refit a version on its own data and later interactions, for as many epochs as it was selected with.

    Args:
        artifact: the version.
        settings: its configuration, B's weight and λ resolved.
        later: what the log says since.
        observer: is told about every phase.
        folder: where checkpoints go.
        resume: go on from the folder's checkpoint.
        sequence: the log's sequence number that `later` reaches.
        state_id: name of the state that the number counts in.
        trial: whether the metrics get a `trial` (training/trial.py), which takes another fit or two.
        own_settings: the version's configuration where the settings are another, which is tried beside it.

    Raises:
        ConfigurationError: the settings don't fit the data or the machine.
        DataError: nothing to train on.
    """
    _begin(folder, resume)
    manifest = artifact.manifest
    settings, own_settings = _as_retrained(settings), _as_retrained(own_settings or settings)
    data = data_set_of(artifact, later)
    mark, epochs = fingerprint(data), int(manifest.training["epochs"])
    metrics = {**manifest.metrics, "selected_as": manifest.metrics.get("selected_as", artifact.version)}
    metrics.pop("trial", None)
    if trial:
        trying = Part(observer, 1 - TRIED_SHARE)
        metrics["trial"] = on_trial(
            artifact, data, settings, trying, folder, epochs=epochs, own_settings=own_settings, resume=resume
        )
        observer = Part(observer, TRIED_SHARE)
    trained = train_kdiffe(
        data,
        settings,
        observer,
        fixed_epochs=epochs,
        checkpoints=folder / "refit",
        resume=resume,
        fingerprint=mark,
    )
    return Run(
        trained,
        data,
        Interactions.empty(),
        metrics=metrics,
        data_facts={"name": data.name, "fingerprint": mark, "state_id": state_id},
        training_facts={"epochs": trained.fit.best_epoch, "refit": True, "base": artifact.version},
        extra_arrays=carried_arrays(artifact, later, data),
        sequence=sequence,
        report=partial(refitted, _report_of(artifact, observer), trained, data, mark),
    )


def _begin(folder: Path, resume: bool) -> None:
    """Remove an earlier run's checkpoints unless they are wanted: a later `resume` would find them beside its own."""
    if not resume:
        for part in ("select", "refit", "trial", "before"):
            shutil.rmtree(folder / part, ignore_errors=True)


def _as_retrained(settings: TrainingSettings) -> TrainingSettings:
    """The artifact's graph has the entities that were made from features: none are made once more."""
    if settings.entities.source != "always":
        return settings
    return replace(settings, entities=replace(settings.entities, source="never"))


def _selected_report(trained: Trained, data: DataSet, mark: str, observer: Observer) -> Mapping[str, Any]:
    observer.phase("report", 1, 0.0)
    report = report_of(trained, data, mark)
    observer.advance()
    return report


def _report_of(artifact: Artifact, observer: Observer) -> Mapping[str, Any]:
    """A version's report, empty where it has none or a damaged one: a model can be retrained without."""
    try:
        return artifact.report() or {}
    except DamagedArtifactError as error:
        observer.note(f"The new version's report will have no validation figures: {error}")
        return {}
