"""Observers of long work: bars on standard error, and a file that a job's owner reads."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from training.errors import ConfigurationError
from training.observer import Observer


class Bars:
    """A bar for each phase, with the latest figures beside it."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<22}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[figures]}[/]"),
            console=console,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def phase(self, name: str, total: int, share: float) -> None:  # noqa: ARG002
        """A new bar; the one before is filled (early stopping ends a phase before its last step)."""
        if self._task is not None:
            done = self._progress.tasks[-1].completed
            self._progress.update(self._task, total=done)
        self._task = self._progress.add_task(name, total=total, figures="")

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Move the bar."""
        if self._task is None:
            return
        self._progress.advance(self._task, steps)
        if figures:
            shown = "  ".join(f"{name} {value:.4f}" for name, value in figures.items())
            self._progress.update(self._task, figures=shown)

    def note(self, text: str) -> None:
        """A line above the bars."""
        self._console.print(text, highlight=False)


class ProgressFile:
    """Writes {"progress", "phase", ...figures} into a file, replaced whole, at most twice a second."""

    def __init__(self, path: Path, interval: float = 0.5) -> None:
        """Begin the file.

        Args:
            path: the file.
            interval: least seconds between two writes within a phase.

        Raises:
            ConfigurationError: it can't be written.
        """
        self._path = path
        self._interval = interval
        self._written = 0.0
        self._before = 0.0
        self._name, self._total, self._share, self._done = "", 1, 0.0, 0
        self._figures: dict[str, float] = {}
        try:
            self._replace()
        except OSError as error:
            raise ConfigurationError(f"--progress-file {path}: can't be written ({error}). Name another.") from None

    def phase(self, name: str, total: int, share: float) -> None:
        """A phase begins: the one before counts as done."""
        self._before = min(1.0, self._before + self._share)
        self._name, self._total, self._share, self._done = name, max(total, 1), share, 0
        self._write()

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Some steps are done."""
        self._done += steps
        self._figures |= dict(figures or {})
        if self._done >= self._total or time.monotonic() - self._written >= self._interval:
            self._write()

    def note(self, text: str) -> None:
        """Notes are for people."""

    def _write(self) -> None:
        with suppress(OSError):  # what is fitted is worth more than the file that tells of it
            self._replace()
        self._written = time.monotonic()

    def _replace(self) -> None:
        share = self._share * min(1.0, self._done / self._total)
        content = {"progress": round(min(1.0, self._before + share), 4), "phase": self._name, **self._figures}
        aside = self._path.with_name(f".{self._path.name}.new")
        aside.write_text(json.dumps(content), encoding="utf-8")
        aside.replace(self._path)


class Everyone:
    """Tells several observers."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def phase(self, name: str, total: int, share: float) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.phase(name, total, share)

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.advance(steps, figures)

    def note(self, text: str) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.note(text)
