"""The `kdiffe` command: a table of subcommands, each imported when it is called.

The table names modules as text, so the kernel imports neither side and a command's heavy libraries are loaded only by
that command.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.metadata
import json
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import typer
from rich.console import Console
from rich.table import Table

from model_store.errors import KDiffEError, MissingExtraError


class Subcommand(NamedTuple):
    """Where a subcommand lives.

    Attributes:
        target: `module:name` of a function, or of a `typer.Typer` with subcommands of its own.
        extra: the extra that it needs, empty for none.
        help: one line.
    """

    target: str
    extra: str
    help: str


SUBCOMMANDS: Mapping[str, Subcommand] = {
    "demo": Subcommand("service.commands.demo:demo", "service,training", "Make data, train, serve and take a tour."),
    "train": Subcommand("training.commands.train:train", "training", "Train a model and publish it."),
    "evaluate": Subcommand("training.commands.evaluate:evaluate", "training", "Evaluate a published version."),
    "report": Subcommand("training.commands.report:report", "training", "Render versions and experiments as a page."),
    "compare": Subcommand("training.commands.compare:compare", "training", "Train and compare models on one set."),
    "ablate": Subcommand("training.commands.ablate:ablate", "training", "Train a model less one part at a time."),
    "sweep": Subcommand("training.commands.sweep:sweep", "training", "Train a model with each value of a setting."),
    "faithfulness": Subcommand(
        "training.commands.faithfulness:faithfulness", "training", "Measure how faithful explanations are."
    ),
    "timing": Subcommand("training.commands.timing:timing", "training", "Measure how long an epoch takes."),
    "tune": Subcommand("training.commands.tune:tune", "training", "Search settings on the validation split."),
    "results": Subcommand("training.commands.results:results", "training", "Render docs/results.md from records."),
    "convert": Subcommand("training.commands.convert:convert", "training", "Convert a data set between formats."),
    "synthesize": Subcommand("training.commands.synthesize:synthesize", "training", "Make a synthetic data set."),
    "serve": Subcommand("service.commands.serve:serve", "service", "Serve recommendations over HTTP."),
    "trainer": Subcommand("service.commands.trainer:trainer", "service,training", "Run the retrain jobs of services."),
    "import": Subcommand("service.commands.state:import_state", "service", "Take up interactions and items in bulk."),
    "export": Subcommand("service.commands.state:export", "service", "Write the log and records as JSON lines."),
    "state": Subcommand("service.commands.state:app", "service", "Show, back up, restore and compact the state."),
    "keys": Subcommand("service.commands.keys:app", "service", "Make, list, rotate and revoke API keys."),
    "experiment": Subcommand(
        "model_store.commands.experiment:app", "", "Give shares of the users other versions, beside the active one."
    ),
    "models": Subcommand("model_store.commands.models:app", "", "List, show, activate, verify and prune versions."),
}


def load(name: str) -> typer.Typer:
    """Import a subcommand.

    Raises:
        MissingExtraError: a library of its extra is not installed.
    """
    subcommand = SUBCOMMANDS[name]
    module_name, _, attribute = subcommand.target.partition(":")
    try:
        target = getattr(importlib.import_module(module_name), attribute)
    except ModuleNotFoundError as error:
        if not subcommand.extra or (error.name or "").split(".")[0] in {"training", "service", "model_store"}:
            raise
        raise MissingExtraError(
            f"`kdiffe {name}` needs {error.name}, which is not installed: pip install 'kdiffe[{subcommand.extra}]'."
        ) from None
    if isinstance(target, typer.Typer):
        app = target
    else:
        app = typer.Typer(add_completion=False)
        app.command(name, help=subcommand.help)(target)
    # What is not foreseen ends in Python's own traceback: typer's is drawn in boxes, which no log can hold, and some
    # of its releases show local variables, passwords among them.
    app.pretty_exceptions_enable = False
    return app


def write_json(value: Mapping[str, Any]) -> None:
    """Print one JSON object on standard output, on a line of its own (`--json`)."""
    sys.stdout.write(json.dumps(value, allow_nan=False) + "\n")
    sys.stdout.flush()


def console() -> Console:
    """Where progress and tables go: standard error."""
    return Console(stderr=True)


def print_help() -> None:
    """Print the table of subcommands."""
    table = Table.grid(padding=(0, 2))
    for name, subcommand in SUBCOMMANDS.items():
        table.add_row(f"  [bold]{name}[/]", subcommand.help)
    out = Console()
    out.print("Usage: kdiffe COMMAND [OPTIONS]", highlight=False)
    out.print("\nTrain, publish, serve and explain recommendations.\n", highlight=False)
    out.print(table)
    out.print("\n`kdiffe COMMAND --help` tells about each.", highlight=False)


def main(arguments: list[str] | None = None) -> int:
    """Run `kdiffe`. Exit status 1 for an error that the user can mend, 2 for wrong usage, 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in {"-h", "--help"}:
        print_help()
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"kdiffe {importlib.metadata.version('kdiffe')}\n")
        return 0
    name = words[0]
    if name not in SUBCOMMANDS:
        close = difflib.get_close_matches(name, SUBCOMMANDS, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else f" There are: {', '.join(SUBCOMMANDS)}."
        console().print(f"error: no command {name!r}.{hint}", markup=False, highlight=False)
        return 2
    try:
        load(name)(args=words[1:], prog_name=f"kdiffe {name}")
    except KDiffEError as error:
        console().print(
            f"error: {type(error).__name__}: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
        )
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt:
        console().print("interrupted", highlight=False)
        return 130
    return 0
