"""`kdiffe synthesize`: a made-up data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_store.command import write_json
from training.commands.convert import report, sizes
from training.data.formats import WRITABLE, write_data_set
from training.data.synthesis import synthesize as make_up


def synthesize(
    target: Annotated[Path, typer.Argument(help="The directory to write; it must not exist or be empty.")],
    users: Annotated[int, typer.Option(min=1, help="Number of users.")] = 600,
    items: Annotated[int, typer.Option(min=1, help="Number of items.")] = 400,
    seed: Annotated[int, typer.Option(min=0, help="The same seed and sizes give the same set.")] = 0,
    to: Annotated[str, typer.Option("--format", help=f"The format to write: {', '.join(WRITABLE)}.")] = "recbole",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, as its last line.")
    ] = False,
) -> None:
    """Make up a data set of clips, with a graph, features and titles, and write it without a split."""
    console = Console(stderr=True)
    notes: list[str] = []
    data = make_up(users, items, seed)
    write_data_set(data, target, to, note=notes.append)
    for note in notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    report(console, f"Wrote {to} to {target}.", data)
    if as_json:
        write_json({"format": to, "target": str(target), "notes": notes, **sizes(data)})
