"""`kdiffe convert`: a data set from one format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from model_store.command import write_json
from training.data.dataset import DataSet
from training.data.fingerprint import fingerprint
from training.data.formats import READABLE, WRITABLE, detect_format, read_data_set, write_data_set


def convert(
    source: Annotated[Path, typer.Argument(help="The data set: a directory, or a file of CSV or Parquet.")],
    target: Annotated[Path, typer.Argument(help="The directory to write; it must not exist or be empty.")],
    to: Annotated[str, typer.Option("--to", help=f"The format to write: {', '.join(WRITABLE)}.")] = "recbole",
    source_format: Annotated[
        str, typer.Option("--from", help=f"The format to read: auto, {', '.join(READABLE)}.")
    ] = "auto",
    min_rating: Annotated[
        float | None, typer.Option(help="Only interactions with at least this rating; without it every rating counts.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on standard output, as its last line.")
    ] = False,
) -> None:
    """Convert a data set to another format."""
    console = Console(stderr=True)
    notes: list[str] = []
    chosen = detect_format(source) if source_format == "auto" else source_format
    data = read_data_set(source, format=chosen, min_rating=min_rating, note=notes.append)
    write_data_set(data, target, to, note=notes.append)
    for note in notes:
        console.print(f"Note: {note}", markup=False, soft_wrap=True)
    report(console, f"Read {chosen} from {source}, wrote {to} to {target}.", data)
    if as_json:
        summary = {"from": chosen, "to": to, "target": str(target), "notes": notes, **sizes(data)}
        write_json(summary)


def sizes(data: DataSet) -> dict[str, object]:
    """What a data set holds, for a report: counts, modalities and the fingerprint."""
    return {
        "name": data.name,
        "users": data.n_users,
        "items": data.n_items,
        "interactions": {"train": len(data.train), "valid": len(data.valid), "test": len(data.test)},
        "triplets": 0 if data.knowledge is None else len(data.knowledge),
        "features": {modality: values.shape[1] for modality, values in data.features.items()},
        "fingerprint": fingerprint(data),
    }


def report(console: Console, what: str, data: DataSet) -> None:
    """Say on `console` what was done and what the data set holds."""
    console.print(what, markup=False, soft_wrap=True)
    splits = {"train": data.train, "valid": data.valid, "test": data.test}
    counts = ", ".join(f"{len(interactions):,} {split}" for split, interactions in splits.items() if len(interactions))
    console.print(f"{data.n_users:,} users, {data.n_items:,} items; interactions: {counts}.", markup=False)
    if data.knowledge is not None:
        n_entities = len(data.knowledge.entity_ids)
        console.print(f"Knowledge graph: {len(data.knowledge):,} triplets, {n_entities:,} entities.", markup=False)
    if data.features:
        widths = ", ".join(f"{modality} ({values.shape[1]} wide)" for modality, values in data.features.items())
        console.print(f"Features: {widths}.", markup=False)
