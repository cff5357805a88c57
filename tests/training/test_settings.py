from __future__ import annotations

import math
from dataclasses import FrozenInstanceError

import pytest

from training.settings import ItemItemSettings, ModelSettings, TableSettings, WalkingSettings


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ModelSettings(width=0), "width must be ≥ 1"),
        (lambda: ModelSettings(n_layers=17), "n_layers must be ≤ 16"),
        (lambda: ModelSettings(similarity_weight=math.inf), "similarity_weight must be finite"),
        (lambda: ModelSettings(init_scale=math.nan), "init_scale must be finite"),
        (lambda: WalkingSettings(restart_probability=1.0), "restart_probability must be ≤ 0.999"),
        (lambda: ItemItemSettings(weight=-2.0), "weight must be ≥ 0, or -1"),
        (lambda: ItemItemSettings(weight=-0.3), "weight must be ≥ 0, or -1"),
        (lambda: ItemItemSettings(l2=0.0), "l2 must be ≥ 1e-06, or -1"),
        (lambda: ItemItemSettings(target_exponent=-0.5), "target_exponent must be ≥ 0, or -1"),
        (lambda: ItemItemSettings(content_gram=-0.5), "content_gram must be ≥ 0, or -1"),
        (lambda: TableSettings(l2=0.0), "l2 must be ≥ 1e-06, or -1"),
        (lambda: ModelSettings(views=("multimodal",)), "views must name knowledge"),
    ],
)
def test_settings_made_in_code_are_checked_as_well(make: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()  # type: ignore[operator]


def test_settings_stay_as_they_were_made() -> None:
    with pytest.raises(FrozenInstanceError):
        ModelSettings().width = 3  # type: ignore[misc]
