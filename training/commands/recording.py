"""What the commands of experiments share: the records' option, the command as text, the loop over runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from training.commands.options import check_device, with_option
from training.configuration import read_settings
from training.errors import ConfigurationError
from training.experiments.lab import DRAWN, SPLITS, Lab, Run
from training.experiments.progress import RunBars
from training.experiments.tables import interval, p_value
from training.results import Record
from training.settings import TrainingSettings

ResultsFile = Annotated[
    Path | None,
    typer.Option("--results", help="Append records to this file (JSON lines) and skip the runs that stand in it."),
]
Seeds = Annotated[int, typer.Option("--seeds", help="Seeds: run.seed, +1, ...", min=1)]
SplitName = Annotated[
    str,
    typer.Option(
        "--split",
        help="What is evaluated on: valid, test or both; or drawn, the validation split of another division for each "
        "seed: the set's own for seed 0, for others train and valid drawn anew.",
    ),
]


def settings_given(config: str | None, overrides: list[str] | None, device: str) -> TrainingSettings:
    """The settings that a command's options name.

    Raises:
        ConfigurationError: an unknown device or setting, or a value out of its bounds.
    """
    check_device(device)
    return read_settings(config, with_option(overrides, "run.device", None if device == "auto" else device))


def differences_table(tests: Sequence[Record], title: str, mark: Callable[[Record], str] = lambda _: "") -> Table:
    """Paired tests as a table; `mark` adds a word to a pair."""
    table = Table("paired, over users", "metric", "difference", "95 %", "p (Holm)", title=f"{title}: differences")
    for record in tests:
        cells = (f"{record.metrics['difference']:+.4f}", interval(record), p_value(record.metrics["p_holm"]))
        table.add_row(f"{record.model} - {record.value}{mark(record)}", str(record.facts["metric"]), *cells)
    return table


def splits_of(name: str) -> tuple[str, ...]:
    """The splits that an option names.

    Raises:
        ConfigurationError: no such split.
    """
    if name == "both":
        return SPLITS
    if name not in (*SPLITS, DRAWN):
        raise ConfigurationError(f"--split {name!r}: choose valid, test, both or drawn.")
    return (name,)


def command_text(name: str, options: Mapping[str, object]) -> str:
    """A command as a reader can type it: defaults (None, empty) left out, paths cut to their last part."""
    words = [f"kdiffe {name}"]
    for key, value in options.items():
        several = value if isinstance(value, list | tuple) else [value]
        words += [f"--{key} {_word(one)}" for one in several if one is not None and one != ""]
    return " ".join(words)


def run_all(lab: Lab, runs: Sequence[Run], bars: RunBars) -> list[Record]:
    """All runs, one after the other; what stands in the records is taken from there."""
    records: list[Record] = []
    bars.runs(0, len(runs))
    try:
        for number, run in enumerate(runs, 1):
            records += lab.run(run)
            bars.runs(number, len(runs))
    except KeyboardInterrupt:
        where = lab.results.path
        bars.note(
            f"Interrupted. The same command goes on: finished runs stand in {where}."
            if where is not None
            else "Interrupted. Nothing was kept: with --results FILE the same command would go on."
        )
        raise
    return records


def _word(value: object) -> str:
    text = value.name if isinstance(value, Path) else str(value)
    if isinstance(value, str) and "=" not in text and "/" in text:
        text = Path(text).name
    return f"'{text}'" if any(c in text for c in ' "[]()*') else text
