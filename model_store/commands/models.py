"""`kdiffe models`: list, show, activate, roll back, verify and prune the versions of a store."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.table import Table

from model_store.command import console, write_json
from model_store.errors import ArtifactError, DamagedArtifactError, StoreError
from model_store.store import DEFAULT_ROOT, ModelStore

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The versions of a model store.")

Store = Annotated[Path, typer.Option("--store", envvar="KDIFFE_STORE", help="Directory of the model store.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Version = Annotated[str, typer.Argument(help="A version, as `kdiffe models list` names it.")]


def store_at(root: Path) -> ModelStore:
    """The store in a directory that is there: a misspelt name is no empty store.

    Raises:
        StoreError: there is no such directory.
    """
    if not root.is_dir():
        raise StoreError(
            f"{root}: there is no such directory. Name the store's (--store DIR, KDIFFE_STORE) or train into a new one."
        )
    return ModelStore(root)


@app.command("list")
def list_versions(store: Store = DEFAULT_ROOT, as_json: Json = False) -> None:
    """List the versions, the oldest first."""
    models = ModelStore(store)
    standing = models.standing()
    active, variants = standing.active, () if standing.experiment is None else standing.experiment.variants
    rows: list[dict[str, object]] = []
    for version in models.versions():
        try:
            manifest = models.open(version).manifest
        except ArtifactError as error:  # the others are still to be listed
            rows.append({"version": version, "active": version == active, "error": f"{type(error).__name__}: {error}"})
            continue
        rows.append(
            {
                "version": version,
                "active": version == active,
                "variants": {variant.name: variant.share for variant in variants if variant.version == version},
                "model": manifest.model,
                "created_at": manifest.created_at,
                "users": manifest.n_users,
                "items": manifest.n_items,
                "sequence": manifest.sequence,
                "metrics": dict(manifest.metrics),
            }
        )
    if as_json:
        write_json({"versions": rows, "active": active})
        return
    out = console()
    if not rows:
        out.print(f"No versions in {store}.")
        return
    # As narrow as can be: a terminal may have 80 columns. What is long breaks between words, and nothing is cut.
    table = Table("version", "", "model", box=SIMPLE_HEAD, padding=0, pad_edge=False, collapse_padding=True)
    table.add_column("created, UTC", no_wrap=True)
    for name in ("users", "items", "sequence"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("validation NDCG@20")
    for row in rows:
        shares = [f"{v.name} {100 * v.share:g} %" for v in variants if v.version == row["version"]]
        state = ", ".join([*(["active"] if row["active"] else []), *shares])
        if "error" in row:
            table.add_row(str(row["version"]), state, "see below")
            continue
        metrics = row["metrics"]
        table.add_row(
            str(row["version"]),
            state,
            str(row["model"]),
            str(row["created_at"])[:16].replace("T", " "),
            str(row["users"]),
            str(row["items"]),
            str(row["sequence"]),
            quality(metrics if isinstance(metrics, dict) else {}),
        )
    out.print(table)
    for row in rows:
        if "error" in row:
            out.print(f"{row['version']}: {row['error']}", markup=False, highlight=False, soft_wrap=True)


def quality(metrics: Mapping[str, Any]) -> str:
    """What is known of a version's NDCG@20; of a retrained one by its trial, for its `valid` is its ancestor's."""
    trial = metrics.get("trial")
    if trial is not None:
        now, before = trial["known"].get("ndcg@20"), trial["before"].get("ndcg@20")
        return "-" if now is None or before is None else f"on trial {now:.4f}, {trial['base']} {before:.4f}"
    ndcg, ancestor = metrics.get("valid", {}).get("ndcg@20"), metrics.get("selected_as")
    if ndcg is None:
        return "-"
    return f"{ndcg:.4f}" if ancestor is None else f"{ancestor}'s {ndcg:.4f}"


@app.command()
def show(
    version: Annotated[str | None, typer.Argument()] = None, store: Store = DEFAULT_ROOT, as_json: Json = False
) -> None:
    """Print a version's manifest as JSON, the active one's where none is named; indented on a terminal."""
    manifest = json.loads(ModelStore(store).open(version).manifest.to_json())
    if as_json or not sys.stdout.isatty():
        write_json(manifest)
    else:
        sys.stdout.write(json.dumps(manifest, indent=2) + "\n")


@app.command()
def activate(version: Version, store: Store = DEFAULT_ROOT, as_json: Json = False) -> None:
    """Make a version the active one, if it is whole; a running service swaps to it."""
    models = ModelStore(store)
    models.open(version).verify()
    models.activate(version)
    _say({"active": version}, as_json, f"{version} is active.")


@app.command()
def rollback(store: Store = DEFAULT_ROOT, as_json: Json = False) -> None:
    """Activate the version that was active before."""
    version = store_at(store).rollback().active
    _say({"active": version}, as_json, f"Rolled back: {version} is active.")


@app.command()
def verify(
    version: Annotated[str | None, typer.Argument(help="A version; all where none is named.")] = None,
    store: Store = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """Compare every file of a version, or of all, with its checksum."""
    models = store_at(store)
    versions = models.versions() if version is None else [version]
    damaged: list[ArtifactError] = []
    for name in versions:
        try:
            models.open(name).verify()
        except ArtifactError as error:  # the others are still to be looked at
            damaged.append(error)
    if damaged:
        if len(damaged) > 1:
            raise DamagedArtifactError(f"{len(damaged)} of {len(versions)} versions: {' '.join(map(str, damaged))}")
        raise damaged[0]
    _say({"verified": versions}, as_json, f"Whole: {', '.join(versions) or 'nothing to verify'}.")


@app.command()
def prune(
    keep: Annotated[int, typer.Option(help="How many of the newest versions stay.", min=0)] = 5,
    store: Store = DEFAULT_ROOT,
    as_json: Json = False,
) -> None:
    """Remove old versions; the active one, the one before it and those of an experiment always stay."""
    removed = store_at(store).prune(keep)
    _say({"removed": removed}, as_json, f"Removed: {', '.join(removed) or 'nothing'}.")


def _say(value: dict[str, object], as_json: bool, sentence: str) -> None:
    if as_json:
        write_json(value)
    else:
        console().print(sentence, highlight=False)
