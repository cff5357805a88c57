"""Readout weights (D4)."""

from __future__ import annotations

import pytest

from training.models.view import readout_weights
from training.settings import ModelSettings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ModelSettings(n_layers=3), [0.25] * 4),
        (ModelSettings(n_layers=2, readout="sum"), [1.0] * 3),
        (ModelSettings(n_layers=3, readout_growth=2.0), [0.25, 0.5, 1.0, 2.0]),
        (ModelSettings(n_layers=2, readout="sum", readout_growth=0.5), [1.0, 0.5, 0.25]),
        (ModelSettings(n_layers=0, readout_growth=3.0), [1.0]),
    ],
)
def test_a_layer_weighs_g_times_the_one_below_it(settings: ModelSettings, expected: list[float]) -> None:
    assert readout_weights(settings) == pytest.approx(expected)
