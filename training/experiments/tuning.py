"""Searching settings on the validation split: Optuna's TPE over a declared space, resumable, with pruning.

Settings of a space that change nothing on the set, whatever values the others have, are left out of the search: all
trials would be equal.

One validation split is noisy (on tiktok the standard error of Recall@20 is about .005), so a trial may be trained on
several: the set's own, and others drawn anew from its train and validation interactions. The test split is never read.
"""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any, Literal

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import FrozenTrial, Trial, TrialState

from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.split import resplit
from training.errors import ConfigurationError, TrainingError
from training.experiments.lab import METRICS
from training.experiments.locks import claim
from training.experiments.parts import DECIDING, missing_part
from training.experiments.spaces import Dimension, Space, value_of, with_settings
from training.fitting import SELECTED_BY, WITH_TABLE
from training.observer import Observer
from training.results import Record, Results, digest, machine, now, settings_digest
from training.runs import train_on
from training.selecting import Tables
from training.settings import TrainingSettings

Objective = Literal["ndcg@20", "recall@20", "both"]
OBJECTIVES: tuple[Objective, ...] = ("ndcg@20", "recall@20", "both")
PRUNERS = ("median", "halving", "none")

# Trials that are drawn at random before TPE proposes, and that are never pruned (Optuna's defaults are 10 and 5).
STARTUP_TRIALS = 8
# Validations of a trial before it may be pruned: early ones say little under a moving average.
WARMUP = 5


@dataclass(frozen=True)
class Plan:
    """What is searched, and how.

    Attributes:
        data: the data set; its test split is not read.
        base: settings of everything that the space leaves alone, the seed included.
        space: what varies.
        n_splits: validation splits of a trial: the set's own and n - 1 drawn anew.
        objective: a metric, or `both`: √(Recall@20 · NDCG@20), whose relative change is the mean of both.
        pruner: `median`, `halving` or `none`.
    """

    data: DataSet
    base: TrainingSettings
    space: Space
    n_splits: int = 1
    objective: Objective = "ndcg@20"
    pruner: str = "median"


@dataclass(frozen=True)
class Winner:
    """What a study has found.

    Attributes:
        trial: number of the best trial.
        value: its objective.
        values: dotted name → value of the searched settings.
        settings: the settings.
        metrics: mean validation metrics.
        n_trials: finished trials, pruned ones included.
        n_pruned: pruned ones.
    """

    trial: int
    value: float
    values: Mapping[str, Any]
    settings: TrainingSettings
    metrics: Mapping[str, float]
    n_trials: int
    n_pruned: int


class Study:
    """A study in a file: an Optuna journal, or SQLite where the name ends with .sqlite, .sqlite3 or .db."""

    def __init__(self, plan: Plan, path: Path) -> None:
        """Open the study or begin it; one process at a time (see `locked`).

        Raises:
            ConfigurationError: the file can't be used, it is a study of something else, or no setting of the space
                changes anything on the set.
        """
        self.plan, self.path = plan, path
        # Names of settings that are not searched. The identity has them all the same: the space names them.
        self.left_out = idle_settings(plan.data, plan.base, plan.space)
        self._dimensions = [d for d in plan.space.dimensions if d.name not in self.left_out]
        if not self._dimensions:
            raise ConfigurationError(
                f"--space: on {plan.data.name} none of its settings changes anything ({', '.join(self.left_out)}). "
                "Search others: the shipped space `plain` is for sets with neither knowledge graph nor features."
            )
        self._splits: dict[int, Tables] = {}
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.name = f"kdiffe {plan.data.name}"
        self.identity = digest(
            {
                "data": fingerprint(replace(plan.data, test=Interactions.empty())),
                "settings": settings_digest(plan.base),
                "seed": plan.base.run.seed,
                "space": plan.space.to_json(),
                "splits": plan.n_splits,
                "objective": plan.objective,
            }
        )
        try:
            self._study = self._open(0)
            n_before = len(self._study.get_trials(deepcopy=False))
            # A resumed study goes on with other draws than it began with.
            self._study = self._open(n_before)
        except Exception as error:
            raise ConfigurationError(f"--store-file {path}: can't be used ({error!r}). Name another file.") from None
        known = self._study.user_attrs.get("identity")
        if known is None:
            self._study.set_user_attr("identity", self.identity)
        elif known != self.identity:
            raise ConfigurationError(
                f"--store-file {path}: a study of other data, settings, space, splits or objective. Name another file."
            )

    def run(
        self, n_trials: int, observer: Observer, done: Callable[[int, int], None], results: Results, command: str
    ) -> None:
        """Try until the study has `n_trials` finished trials. The first is the base settings, where the space has them.

        Interrupted trials are tried again first.

        Raises:
            TrainingError: no trial could be trained.
        """
        study = self._study
        self._take_up()
        if not study.get_trials(deepcopy=False) and (first := self._base_values()) is not None:
            study.enqueue_trial(first)
        while (finished := len(self._finished())) < n_trials:
            done(finished, n_trials)
            trial = study.ask(self._distributions())
            settings = self._settings_of(trial.params)
            observer.note(f"trial {trial.number}: {_words(self._decoded(trial.params))}")
            began = time.monotonic()
            try:
                metrics, epochs = self._try(trial, settings, observer)
            except optuna.TrialPruned:
                study.tell(trial, state=TrialState.PRUNED)
                observer.note(f"trial {trial.number}: pruned")
                continue
            except KeyboardInterrupt:
                study.tell(trial, state=TrialState.FAIL)
                study.enqueue_trial(trial.params)
                raise
            except TrainingError as error:
                trial.set_user_attr("error", str(error))
                study.tell(trial, state=TrialState.FAIL)
                observer.note(f"trial {trial.number}: {error}")
                continue
            value = objective_of(metrics, self.plan.objective)
            trial.set_user_attr("metrics", dict(metrics))
            study.tell(trial, value)
            best = study.best_trial
            observer.note(f"trial {trial.number}: {value:.4f} (best: {best.value:.4f}, trial {best.number})")
            seconds = time.monotonic() - began
            results.append([(self._record(trial, settings, metrics, value, epochs, seconds, command), None)])
        done(len(self._finished()), n_trials)
        if not any(trial.state == TrialState.COMPLETE for trial in self._finished()):
            errors = [trial.user_attrs["error"] for trial in self._finished() if "error" in trial.user_attrs]
            raise TrainingError(f"No trial could be trained; the last one said: {errors[-1] if errors else 'pruned'}")

    def winner(self) -> Winner | None:
        """The best finished trial, None where there is none yet."""
        finished = self._finished()
        if not any(trial.state == TrialState.COMPLETE for trial in finished):
            return None
        best = self._study.best_trial
        assert best.value is not None  # noqa: S101
        return Winner(
            trial=best.number,
            value=best.value,
            values=self._decoded(best.params),
            settings=self._settings_of(best.params),
            metrics=best.user_attrs["metrics"],
            n_trials=len(finished),
            n_pruned=sum(trial.state == TrialState.PRUNED for trial in finished),
        )

    def _open(self, n_before: int) -> optuna.Study:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        storage: optuna.storages.BaseStorage
        if self.path.suffix in {".sqlite", ".sqlite3", ".db"}:
            storage = optuna.storages.RDBStorage(f"sqlite:///{self.path}")
        else:
            storage = JournalStorage(JournalFileBackend(str(self.path)))
        seed = self.plan.base.run.seed + n_before
        return optuna.create_study(
            storage=storage,
            study_name=self.name,
            direction="maximize",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS),
            pruner=_pruner(self.plan.pruner),
        )

    def _finished(self) -> list[FrozenTrial]:
        """Trials that count: complete, pruned, or failed for a reason of their own."""
        over = (TrialState.COMPLETE, TrialState.PRUNED)
        return [t for t in self._study.get_trials(deepcopy=False) if t.state in over or "error" in t.user_attrs]

    def _take_up(self) -> None:
        """Trials that a killed process left running are tried again."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._study.tell(trial.number, state=TrialState.FAIL)
            if trial.params:
                self._study.enqueue_trial(trial.params)

    def _try(self, trial: Trial, settings: TrainingSettings, observer: Observer) -> tuple[dict[str, float], int]:
        """Mean validation metrics with B over the splits, and the mean number of epochs."""
        found: list[Mapping[str, float]] = []
        epochs: list[int] = []
        for number in range(self.plan.n_splits):
            tables = self._tables(number)
            seeded = replace(settings, run=replace(settings.run, seed=settings.run.seed + number))
            # Only the first split's curve is reported: the curves of others lie elsewhere and can't be compared.
            watching = _Watching(observer, trial) if number == 0 else observer
            with TemporaryDirectory(prefix="kdiffe-") as folder:
                trained = train_on(tables.data, seeded, watching, Path(folder), tables=tables).trained
            found.append(trained.metrics)
            epochs.append(trained.fit.best_epoch)
        return {metric: fmean(one[metric] for one in found) for metric in METRICS}, round(fmean(epochs))

    def _tables(self, number: int) -> Tables:
        """A split and the item-item tables that trials share on it."""
        if number not in self._splits:
            self._splits[number] = Tables(resplit(self.plan.data, number))
        return self._splits[number]

    def _record(
        self,
        trial: Trial,
        settings: TrainingSettings,
        metrics: Mapping[str, float],
        value: float,
        epochs: int,
        seconds: float,
        command: str,
    ) -> Record:
        return Record(
            kind="tuning",
            data=self.plan.data.name,
            fingerprint=fingerprint(self.plan.data),
            model=settings.model.kind,
            parameter="trial",
            value=trial.number,
            seed=settings.run.seed,
            split="valid",
            settings_digest=settings_digest(settings),
            metrics={**metrics, "objective": value},
            seconds=round(seconds, 2),
            epochs=epochs,
            chosen=self._decoded(trial.params),
            facts={"study": self.identity[:16], "splits": self.plan.n_splits, "objective": self.plan.objective},
            machine=machine(),
            command=command,
            at=now(),
        )

    def _distributions(self) -> dict[str, BaseDistribution]:
        return {dimension.name: _distribution(dimension) for dimension in self._dimensions}

    def _base_values(self) -> dict[str, Any] | None:
        """The base settings as a trial, None where they lie outside of the space."""
        values = {d.name: value_of(self.plan.base, d.name) for d in self._dimensions}
        if not all(d.holds(values[d.name]) for d in self._dimensions):
            return None
        return {name: _encoded(value) for name, value in values.items()}

    def _settings_of(self, params: Mapping[str, Any]) -> TrainingSettings:
        return with_settings(self.plan.base, {**self.plan.space.fixed, **self._decoded(params)})

    def _decoded(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """Optuna's values as the settings have them: lists of choices travel as JSON."""
        choices = {d.name: {_encoded(choice): choice for choice in d.choices} for d in self.plan.space.dimensions}
        return {name: choices[name].get(value, value) if choices[name] else value for name, value in params.items()}


class _Watching:
    """Reports a fit's validation figures to a trial, and ends it where the pruner says so."""

    def __init__(self, observer: Observer, trial: Trial) -> None:
        self._observer, self._trial = observer, trial
        self._fitting, self._epoch, self._reports = False, 0, 0

    def phase(self, name: str, total: int, share: float) -> None:
        """Pass it on."""
        self._fitting = name == "fitting"
        self._observer.phase(name, total, share)

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Report an epoch that was validated."""
        self._observer.advance(steps, figures)
        if not self._fitting:
            return
        self._epoch += steps
        if figures and SELECTED_BY in figures:
            self._reports += 1
            self._trial.report(figures.get("best", figures.get(WITH_TABLE, figures[SELECTED_BY])), self._epoch)
            if self._reports > WARMUP and self._trial.should_prune():
                raise optuna.TrialPruned

    def note(self, text: str) -> None:
        """Pass it on."""
        self._observer.note(text)


def idle_settings(data: DataSet, base: TrainingSettings, space: Space) -> list[str]:
    """Names of a space's settings that change nothing on a set, whatever values the space's others have.

    Args:
        data: the data set.
        base: settings of everything that the space leaves alone.
        space: what varies.
    """

    def is_idle(name: str) -> bool:
        others = {d.name: d.ends() for d in space.dimensions if d.name in DECIDING and d.name != name}
        return all(
            missing_part(data, with_settings(base, {**space.fixed, **dict(zip(others, values, strict=True))}), name)
            for values in itertools.product(*others.values())
        )

    return [dimension.name for dimension in space.dimensions if is_idle(dimension.name)]


def objective_of(metrics: Mapping[str, float], objective: Objective) -> float:
    """What is maximised, from mean validation metrics."""
    if objective == "both":
        return float(np.sqrt(metrics["recall@20"] * metrics["ndcg@20"]))
    return float(metrics[objective])


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep a study to one process: a second would take the first one's running trial for a left one.

    Raises:
        ConfigurationError: another process has it, or it can't be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.with_name(f"{path.name}.held").open("w")
    except OSError as error:
        raise ConfigurationError(f"--store-file {path}: can't be written ({error}). Name another file.") from None
    with file:
        claim(file.fileno(), f"--store-file {path}: another kdiffe tune works on it.")
        yield


def _pruner(name: str) -> optuna.pruners.BasePruner:
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS)
    if name == "halving":
        return optuna.pruners.SuccessiveHalvingPruner()
    return optuna.pruners.NopPruner()


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.choices:
        return CategoricalDistribution([_encoded(choice) for choice in dimension.choices])
    assert dimension.low is not None and dimension.high is not None  # noqa: S101, PT018
    if dimension.is_whole:
        return IntDistribution(int(dimension.low), int(dimension.high), log=dimension.log)
    return FloatDistribution(float(dimension.low), float(dimension.high), log=dimension.log)


def _encoded(value: Any) -> Any:
    return json.dumps(value) if isinstance(value, list | tuple) else value


def _words(values: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{name} = {value:.4g}" if isinstance(value, float) else f"{name} = {value}" for name, value in values.items()
    )
