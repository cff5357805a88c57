from __future__ import annotations

import struct
from pathlib import Path

import pytest

from training.fitting import Epoch, Fit
from training.plots import plot_training

METRICS = {"recall@20": 0.2, "ndcg@20": 0.1, "n_users": 5}
EVALUATED = Fit(2, METRICS, tuple(Epoch(n, 1 / n, 0.1, METRICS if n % 2 == 0 else {}) for n in range(1, 5)))
ZEROS = Fit(1, {}, (Epoch(1, 0.5, 0.1, {"recall@20": 0.0, "ndcg@20": 0.0, "n_users": 0}),))
REFIT = Fit(3, {}, tuple(Epoch(n, 0.5, 0.1) for n in range(1, 4)))


@pytest.mark.parametrize("fit", [EVALUATED, ZEROS, REFIT], ids=["evaluated", "zeros", "refit"])
def test_a_training_curve_is_written_as_a_png(tmp_path: Path, fit: Fit) -> None:
    path = tmp_path / "training.png"
    plot_training(fit, path)
    head = path.read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (8 * 120, 4.5 * 120)
