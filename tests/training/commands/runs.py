"""`kdiffe` as a test calls it, with settings that take a moment."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from model_store.command import main

SMALL = (
    "model.width=8",
    "walks.n_walks=2",
    "walks.walk_length=5",
    "optimiser.learning_rate=0.05",
    "optimiser.batch_size=64",
    "optimiser.min_batches=1",
    "optimiser.max_epochs=3",
    "optimiser.evaluate_every=1",
    "item_item.l2=5",
    "item_item.per_row=6",
    "split.strategy=leave_out",
    "run.checkpoint_every=1",
)


def sets(*more: str) -> list[str]:
    """`--set` options: the small ones and some more behind them."""
    return [word for override in (*SMALL, *more) for word in ("--set", override)]


class Outcome(NamedTuple):
    """What a call left."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> dict[str, Any]:
        """The last line of standard output."""
        return dict(json.loads(self.out.splitlines()[-1]))


def kdiffe(capsys: pytest.CaptureFixture[str], *words: str | Path) -> Outcome:
    """Call `kdiffe` in this process."""
    capsys.readouterr()
    status = main([str(word) for word in words])
    captured = capsys.readouterr()
    return Outcome(status, captured.out, captured.err)
