"""`kdiffe results`: docs/results.md from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from model_store.command import console, write_json
from training.commands.options import Json
from training.errors import ResultsError
from training.experiments.rendering import RECORDS, figures_of, read_all, read_serving, render


def results(
    records: Annotated[
        Path, typer.Option("--records", help="Folder of records (*.jsonl, as --results writes them).")
    ] = RECORDS,
    out: Annotated[Path, typer.Option("--out", help="The document to write.")] = Path("docs/results.md"),
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where the document is another.")] = False,
    as_json: Json = False,
) -> None:
    """Render the tables of all records."""
    found = read_all(records)
    wanted = {
        out: render(found, read_serving(records), _named(records)),
        **{out.parent / name: text for name, text in figures_of(found).items()},
    }
    changed = False
    try:
        for path, text in wanted.items():
            old = path.read_text(encoding="utf-8") if path.exists() else ""
            changed |= old != text
            if check and old != text:
                raise ResultsError(
                    f"{path} is not what {records} gives: run `kdiffe results` and commit what it writes."
                )
            if not check:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ResultsError(f"{out}: can't be read or written ({error}).") from None
    console().print(f"{out}: {len(found)} records" + (", up to date" if check else ""), highlight=False)
    if as_json:
        write_json({"records": len(found), "out": str(out), "changed": changed})


def _named(folder: Path) -> Path:
    """A folder as seen from where the command is called, so that it has one name; as given where it is outside."""
    here, there = Path.cwd().resolve(), folder.resolve()
    return there.relative_to(here) if there.is_relative_to(here) else folder
