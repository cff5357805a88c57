"""`kdiffe import`, `kdiffe export` and `kdiffe state`: the state store from the command line.

A service may run meanwhile, but for `restore`: it follows what is imported as it follows other writers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from model_store.admission import external_id
from model_store.command import console, write_json
from model_store.store import ModelStore
from service.compaction import compact as compact_log
from service.compaction import held_by_versions
from service.erasure import versions_holding
from service.errors import InvalidRequestError, StartError
from service.settings import SQLITE, Settings, read_settings
from service.state import open_state
from service.state.lines import export_state, import_lines, read_backup, write_backup
from service.state.port import MOST_WEIGHT, Change, ChangeKind, StateStore

app = typer.Typer(add_completion=False, no_args_is_help=True, help="The state: log, records, weights, jobs.")

Store = Annotated[Path | None, typer.Option("--store", help="Directory of the model store, with its state.")]
State = Annotated[str | None, typer.Option("--state", help="State store: sqlite:///PATH or redis://HOST/DB.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object on standard output.")]
Lines = Annotated[Path, typer.Argument(help="File of JSON lines.")]


def settings_of(store: Path | None, state: str | None) -> Settings:
    """The settings of a command that listens nowhere: an address that would ask for an admin key is passed over."""
    return read_settings(store=store, state=state, host="127.0.0.1")


def _check_text(name: str, value: str) -> None:
    """Refuse what is no id or type, an unset variable of a shell, say.

    Raises:
        StartError: it is none.
    """
    try:
        external_id(value)
    except ValueError as error:
        raise StartError(f"{name} {value!r}: it {error}.") from None


@contextmanager
def opened_state(store: Path | None, state: str | None, *, new: bool = True) -> Iterator[StateStore]:
    """The state that the options or the environment name.

    Args:
        store: model store's directory.
        state: URL.
        new: whether a SQLite file is made where there is none.

    Raises:
        StartError: there is none.
    """
    settings = settings_of(store, state)
    if not new and settings.state_url.startswith(SQLITE) and not Path(settings.state_url[len(SQLITE) :]).is_file():
        raise StartError(f"There is no state at {settings.state_url}: name another --state.")
    found = open_state(settings.state_url, settings.state_secret)
    try:
        yield found
    finally:
        found.close()


def _tell(text: str, result: dict[str, object], as_json: bool) -> None:
    if as_json:
        write_json(result)
    else:
        console().print(text, highlight=False, soft_wrap=True)


def import_state(path: Lines, store: Store = None, state: State = None, as_json: Json = False) -> None:
    """Take up interactions, records, removals and types' weights; lines with an id may be imported again."""
    from service.http.bodies import checked  # FastAPI takes a while
    from service.http.schemas_items import ItemIn
    from service.http.schemas_users import UserIn

    def content_of(kind: ChangeKind, content: Mapping[str, Any]) -> Mapping[str, Any]:
        """What PUT would make of it."""
        try:
            if kind == "item":
                return checked(ItemIn, content).content()
            return checked(UserIn, content).model_dump() if kind == "user" else content
        except InvalidRequestError as error:
            raise ValueError(str(error)) from None

    err = console()
    with opened_state(store, state) as opened, err.status("importing") as status:
        told = import_lines(
            opened,
            path,
            time.time(),
            told=lambda n: status.update(f"importing: {n:,} lines"),
            checked=content_of,
        )
    _tell(
        f"{told.accepted:,} new, {told.duplicates:,} known, {told.types} types; the log ends at {told.sequence}.",
        asdict(told),
        as_json,
    )


def export(path: Lines, store: Store = None, state: State = None, as_json: Json = False) -> None:
    """Write what another state, or `kdiffe train --interactions`, can take up."""
    with opened_state(store, state, new=False) as opened:
        lines = export_state(opened, path)
    _tell(f"{lines:,} lines in {path}.", {"lines": lines, "path": str(path)}, as_json)


@app.command("show")
def show(store: Store = None, state: State = None, as_json: Json = False) -> None:
    """Where the log stands, and what else is known."""
    with opened_state(store, state, new=False) as opened:
        position, types = opened.position(), opened.types()
        counts: dict[str, object] = {
            "users": sum(1 for _ in opened.records("user")),
            "items": sum(1 for _ in opened.records("item")),
        }
    text = (
        f"state {position.state_id}: entries {position.compacted + 1} to {position.last}, records of "
        f"{counts['users']} users and {counts['items']} items"
    )
    weights = "".join(f"\n  {name}: weight {weight:g}" for name, weight in types.items())
    _tell(text + weights, {**asdict(position), **counts, "types": types}, as_json)


@app.command("backup")
def backup(
    path: Annotated[Path, typer.Argument(help="The backup's file.")],
    store: Store = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Write the whole state to a file, while the service runs."""
    with opened_state(store, state, new=False) as opened:
        entries = write_backup(opened.backup(), path)
    _tell(f"{entries:,} entries of the log in {path}.", {"entries": entries, "path": str(path)}, as_json)


@app.command("restore")
def restore(
    path: Annotated[Path, typer.Argument(help="The backup's file.")],
    store: Store = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Put a backup into an empty state, SQLite's or Redis's, whichever it came from. Stop the service first."""
    found = read_backup(path)
    with opened_state(store, state) as opened:
        opened.restore(found)
        position = opened.position()
    _tell(f"state {position.state_id} is back; the log ends at {position.last}.", asdict(position), as_json)


@app.command("compact")
def compact(
    store: Store = None,
    state: State = None,
    forget_keys: Annotated[
        int, typer.Option(min=0, help="Forget idempotency keys of entries up to this sequence number, too.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Drop from the log what every version of the model store holds. `kdiffe models prune` first."""
    with opened_state(store, state, new=False) as opened:
        models = ModelStore(settings_of(store, state).store)
        position = compact_log(models, opened, forget_keys)
        held = held_by_versions(models, opened.state_id)
    # Whoever asks why the log is still long: these would need it if they were activated.
    needing = [version for version, reached in held.items() if reached == position.compacted < position.last]
    why = f" {', '.join(needing)} may need the rest: retrain, then prune." if needing else ""
    told = f"The log begins at {position.compacted + 1} and ends at {position.last}.{why}"
    _tell(told, {**asdict(position), "needed_by": needing}, as_json)


@app.command("weigh")
def weigh(
    interaction_type: Annotated[str, typer.Argument(help="A type of interaction.")],
    weight: Annotated[float, typer.Argument(min=0.0, help="How often the loss samples it, beside 1.")],
    store: Store = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Give a type of interaction a weight; it counts from the next training on."""
    _check_text("TYPE", interaction_type)
    if not weight <= MOST_WEIGHT:  # not a number neither
        raise StartError(f"WEIGHT {weight:g}: a weight is a number between 0 and {MOST_WEIGHT:g}.")
    with opened_state(store, state) as opened:
        opened.set_type(interaction_type, weight)
        types = opened.types()
    _tell(f"{interaction_type}: weight {weight:g}.", {"types": types}, as_json)


@app.command("erase")
def erase(
    user_id: Annotated[str, typer.Argument(help="A user's external id.")],
    store: Store = None,
    state: State = None,
    as_json: Json = False,
) -> None:
    """Erase a user: from the log at once, from served models within a second, from artifacts with the next version."""
    settings = settings_of(store, state)
    _check_text("USER_ID", user_id)
    with opened_state(store, state, new=False) as opened:
        sequence = opened.append([Change("erasure", user_id, timestamp=time.time())]).sequence
    versions = versions_holding(ModelStore(settings.store), user_id)
    held = f"Versions that hold the user until they are pruned: {', '.join(versions)}." if versions else ""
    text = f"{user_id} is erased (entry {sequence}). {held}".strip()
    _tell(text, {"user_id": user_id, "sequence": sequence, "versions": versions}, as_json)
