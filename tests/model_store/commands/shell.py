from __future__ import annotations

import json
from typing import Any

import pytest

from model_store.command import main
from model_store.store import ModelStore


class Shell:
    """Runs `kdiffe COMMAND ...` on a store."""

    def __init__(self, command: str, store: ModelStore, capsys: pytest.CaptureFixture[str]) -> None:
        self.command, self.store, self.capsys = command, store, capsys

    def __call__(self, *words: str) -> tuple[int, str, str]:
        status = main([self.command, *words, "--store", str(self.store.root)])
        return status, *self.capsys.readouterr()

    def json(self, *words: str) -> dict[str, Any]:
        status, out, _ = self(*words, "--json")
        assert status == 0
        assert out.count("\n") == 1
        value: dict[str, Any] = json.loads(out)
        return value
