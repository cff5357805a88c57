"""Where experiments run: each run is looked up in the records, trained if it is not there, evaluated, recorded."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.comparison import Candidate, Model, Task
from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.split import resplit
from training.errors import ConfigurationError, ResultsError
from training.evaluation import Evaluation, ItemFacts, Split, evaluate_fully
from training.experiments.locks import claim
from training.observer import Observer
from training.results import Kind, Record, Results, UserValues, digest, machine, now
from training.selecting import Tables
from training.settings import TrainingSettings

# What papers report, what models are compared by, and what is kept of each user.
METRICS = ("recall@20", "ndcg@20")
WITHOUT = " without B"
SPLITS = ("valid", "test")
# The validation split of a division of its own for each seed (`resplit`): told apart by the seed alone.
DRAWN = "drawn"


@dataclass(frozen=True)
class Run:
    """One run of an experiment.

    Attributes:
        kind: what it is part of.
        model: what is trained.
        settings: with these.
        seed: and this seed.
        parameter: what is varied, empty for nothing.
        value: its value.
        base: digest of the settings that are varied, empty where nothing is.
    """

    kind: Kind
    model: Model
    settings: TrainingSettings
    seed: int
    parameter: str = ""
    value: str | float | int | None = None
    base: str = ""

    @property
    def label(self) -> str:
        """What it is, for the user."""
        varied = f", {self.parameter} = {self.value}" if self.parameter else ""
        return f"{self.model.names[0]}{varied}, seed {self.seed}"


@dataclass(frozen=True)
class _Division:
    """A division of the interactions into splits.

    Attributes:
        tables: of it.
        splits: name → what runs are evaluated on.
    """

    tables: Tables
    splits: Mapping[str, Split]


class Lab:
    """A data set, its splits prepared once, and the records."""

    def __init__(
        self, data: DataSet, results: Results, observer: Observer, *, splits: Sequence[str], command: str
    ) -> None:
        """Prepare.

        Args:
            data: the data set.
            results: where records are looked up and go.
            observer: is told about every phase.
            splits: what runs are evaluated on, `valid` or `test` or both; or `drawn` alone: a run is trained on the
                division whose number is its seed, and evaluated on that division's validation split.
            command: what the user called, for the records.

        Raises:
            ConfigurationError: the set has no such split, or nothing to select on.
        """
        self.data, self.results, self.observer, self.command = data, results, observer, command
        parts = {"valid": data.valid, "test": data.test, DRAWN: data.valid}
        for name in dict.fromkeys(("valid", *splits)):
            if name not in parts or (name == DRAWN and len(splits) > 1):
                raise ConfigurationError(f"--split {name!r}: choose valid, test, both or drawn.")
            if not len(parts[name]):
                raise ConfigurationError(f"{data.name}: an experiment needs a {name} split, and it has none.")
        if not len(data.train):
            raise ConfigurationError(f"{data.name}: no train interactions: there is nothing to learn from.")
        self.fingerprint = fingerprint(data)
        self.machine = machine()
        self.splits = tuple(splits)
        self._divisions: dict[int, _Division] = {}
        self._items = ItemFacts.of(data)

    def run(self, run: Run) -> list[Record]:
        """A run's records: one for each of the model's candidates and each split.

        Nothing is trained where all of them are there. A run that was interrupted goes on from its checkpoint.
        """
        blanks = [self._blank(run, name, split) for name in run.model.names for split in self.splits]
        found = [self.results.get(blank.key) for blank in blanks]
        there = [record for record in found if record is not None]
        if len(there) == len(blanks):
            return self._of_base(there, run.base)
        if run.kind != "comparison" and (same := self._compared(run, blanks)):
            self.results.append(same)
            return [record for record, _ in same]
        self.observer.note(run.label)
        with self._folder(blanks[0].key) as folder:
            began = time.monotonic()
            seeded = replace(run.settings, run=replace(run.settings.run, seed=run.seed))
            task = Task(self._division(run.seed).tables, seeded, self.observer, folder)
            candidates = list(run.model.train(task))
            seconds = time.monotonic() - began
            made = [
                self._record(blank, candidate, run, seconds)
                for blank, candidate in zip(blanks, (c for c in candidates for _ in self.splits), strict=True)
            ]
            self.results.append(made)
        return [record for record, _ in made]

    def values(self, records: Sequence[Record], metric: str) -> tuple[NDArray[np.str_], NDArray[np.float32]] | None:
        """(n,) user ids and (s, n) the users' values in s records, None where one of them is lost."""
        found = [self.results.users(record.key) for record in records]
        kept = [users for users in found if users is not None and metric in users.values]
        if not kept or len(kept) < len(found):
            return None
        # An item that stands twice can leave a user of one division without anything to find.
        ids = reduce(np.intersect1d, [users.user_ids for users in kept])
        return ids, np.stack([users.values[metric][np.isin(users.user_ids, ids)] for users in kept])

    def _of_base(self, records: Sequence[Record], base: str) -> list[Record]:
        """Records that stand, as part of what is varied now: less a part, a run is the same whatever the part was."""
        made = [record if record.facts["base"] == base else _with_base(record, base) for record in records]
        fresh = [(new, None) for new, old in zip(made, records, strict=True) if new is not old]
        if fresh:
            self.results.append(fresh)
        return made

    def _compared(self, run: Run, blanks: Sequence[Record]) -> list[tuple[Record, UserValues]]:
        """The records of a comparison that trained exactly this (the full model of an ablation), as this run's."""
        made = []
        for blank in blanks:
            found = self.results.get(replace(blank, kind="comparison", parameter="", value=None).key)
            users = None if found is None else self.results.users(found.key)
            if found is None or users is None:
                return []
            of_kind = replace(found, kind=blank.kind, parameter=blank.parameter, value=blank.value)
            made.append((_with_base(of_kind, run.base), users))
        return made

    def _blank(self, run: Run, name: str, split: str) -> Record:
        return Record(
            kind=run.kind,
            data=self.data.name,
            fingerprint=self.fingerprint,
            model=name,
            parameter=run.parameter,
            value=run.value,
            seed=run.seed,
            split=split,
            settings_digest=digest_of(run.model, run.settings),
            machine=self.machine,
            command=self.command,
        )

    def _record(self, blank: Record, candidate: Candidate, run: Run, seconds: float) -> tuple[Record, UserValues]:
        division = self._division(run.seed)
        split, history = division.splits[blank.split], division.tables.history
        found = evaluate_fully(candidate.scores, split, history, self._items)
        values = {metric: found.users.values[metric] for metric in METRICS}
        without: dict[str, float] = {}
        if candidate.without_table is not None:
            bare = found
            if candidate.without_table is not candidate.scores:
                bare = evaluate_fully(candidate.without_table, split, history, self._items)
            without = {metric: bare.users.means().get(metric, 0.0) for metric in METRICS}
            values |= {metric + WITHOUT: bare.users.values[metric] for metric in METRICS}
        facts: dict[str, Any] = {"base": run.base, "slices": slices_of(found), "n_users": len(found.users)}
        record = replace(
            blank,
            metrics={**found.users.means(), **found.lists},
            without_table=without,
            seconds=round(seconds, 2),
            epochs=candidate.epochs,
            chosen=dict(candidate.chosen or {}),
            facts=facts,
            at=now(),
        )
        return record, UserValues.of(self.data.user_ids[found.users.users], values)

    @contextmanager
    def _folder(self, key: str) -> Iterator[Path]:
        """Where a run keeps its checkpoint: beside the records while it is unfinished, else nowhere for long.

        Raises:
            ConfigurationError: another process is at the same run.
            ResultsError: it can't be made.
        """
        kept = self.results.folder(key)
        if kept is None:
            with tempfile.TemporaryDirectory(prefix="kdiffe-") as name:
                yield Path(name)
            return
        with _own(kept, self.results.path):
            yield kept
            shutil.rmtree(kept, ignore_errors=True)
        with suppress(OSError):  # another process's run has its folder there
            kept.parent.rmdir()

    def _division(self, seed: int) -> _Division:
        """What a run of a seed is trained and evaluated on; the last one alone is kept, as its tables are large."""
        number = seed if DRAWN in self.splits else 0
        if number not in self._divisions:
            data = resplit(self.data, number) if DRAWN in self.splits else self.data
            tables = Tables(data)
            splits = {name: self._split(data.test) if name == "test" else tables.split for name in self.splits}
            self._divisions = {number: _Division(tables, splits)}
        return self._divisions[number]

    def _split(self, part: Interactions) -> Split:
        return Split.of(part, self.data.train, self.data.n_users, self.data.n_items)


@contextmanager
def _own(folder: Path, results: Path | None) -> Iterator[None]:
    """Keep a run's folder to one process."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise ResultsError(f"--results {results}: {folder} can't be made ({error}).") from None
    try:
        claim(descriptor, f"--results {results}: another kdiffe is at this run. Wait for it, or name another file.")
        yield
    finally:
        os.close(descriptor)


def _with_base(record: Record, base: str) -> Record:
    return replace(record, facts={**record.facts, "base": base})


def digest_of(model: Model, settings: TrainingSettings) -> str:
    """The digest of what a model depends on besides data and seed."""
    return digest({name: value for name, value in model.settings(settings).items() if name not in {"run", "split"}})


def slices_of(found: Evaluation) -> Mapping[str, Any]:
    """Name → {"n_users", "recall@20", "ndcg@20"} of the slices that hold users."""
    return {
        name: {"n_users": len(part.users), **{m: v for m, v in part.users.means().items() if m in METRICS}}
        for name, part in found.slices.items()
        if len(part.users)
    }
