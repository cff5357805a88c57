"""The state store behind a narrow port: SQLite, and memory for tests."""

from __future__ import annotations

from pathlib import Path

from service.errors import StateError
from service.settings import SQLITE
from service.state.port import StateStore
from service.state.sqlite import SqliteState


def open_state(url: str) -> StateStore:
    """Open the state store that a URL names.

    Raises:
        StateError: it can't be opened.
    """
    if not url.startswith(SQLITE):
        raise StateError(f"{url!r}: this release keeps its state in sqlite:///PATH.")
    return SqliteState(Path(url.removeprefix(SQLITE)))
