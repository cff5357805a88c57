"""`kdiffe experiment`: begin, show and end an experiment of a store. Services that serve the store follow it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import typer
from rich.table import Table

from model_store.command import console, write_json
from model_store.commands.models import Json, Store, store_at
from model_store.errors import StoreError
from model_store.experiment import MAIN, Arm
from model_store.store import DEFAULT_ROOT, ModelStore, Standing

app = typer.Typer(
    add_completion=False, no_args_is_help=True, help="Versions for shares of the users, beside the active one."
)

ARM = re.compile(r"([^=]+)=(.+):([^:]+)")


def arm_of(text: str) -> Arm:
    """A variant as the command line words it: NAME=VERSION:SHARE.

    Raises:
        StoreError: it is none.
    """
    found = ARM.fullmatch(text)
    try:
        if found is not None:
            return Arm(found[1], found[2], float(found[3]))
    except ValueError:  # no number
        pass
    raise StoreError(f"{text!r} is no variant: write NAME=VERSION:SHARE, as in b=v0007:0.05.")


@app.command()
def begin(
    name: Annotated[str, typer.Argument(help="Its name. Another name deals the users anew.")],
    variant: Annotated[
        list[str], typer.Option(help="NAME=VERSION:SHARE, as in b=v0007:0.05; may be given again. SHARE is 0 to 1.")
    ],
    store: Store = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """Give shares of the users other versions, if these are whole; in the place of the experiment that runs."""
    models = ModelStore(store)
    arms = [arm_of(text) for text in variant]
    for version in dict.fromkeys(arm.version for arm in arms):
        models.open(version).verify()
    models.set_experiment(name, arms)
    _say(models.standing(), as_json)


@app.command()
def show(store: Store = DEFAULT_ROOT, as_json: Json = False) -> None:
    """Show what runs. Whether a service serves it: GET /admin/experiment, or its console."""
    _say(ModelStore(store).standing(), as_json)


@app.command()
def end(store: Store = DEFAULT_ROOT, as_json: Json = False) -> None:
    """Give everybody the active version."""
    models = store_at(store)
    models.end_experiment()
    _say(models.standing(), as_json)


def _say(standing: Standing, as_json: bool) -> None:
    experiment = standing.experiment
    rows: list[dict[str, Any]] = [
        {"name": MAIN, "version": standing.active, "share": 1.0 if experiment is None else experiment.main_share}
    ]
    if experiment is not None:
        rows += [{"name": v.name, "version": v.version, "share": v.share} for v in experiment.variants]
    if as_json:
        write_json({"name": None if experiment is None else experiment.name, "variants": rows})
        return
    if experiment is None:
        console().print(f"No experiment runs: everybody gets {standing.active or 'no version'}.", highlight=False)
        return
    table = Table("variant", "version", "share of the users", title=f"Experiment {experiment.name}")
    for row in rows:
        table.add_row(row["name"], row["version"], f"{100 * row['share']:g} %")
    console().print(table)
