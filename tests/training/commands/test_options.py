from __future__ import annotations

import pytest

from training.commands.options import check_device, with_option
from training.errors import ConfigurationError


def test_an_option_of_the_command_line_wins_over_the_overrides() -> None:
    assert with_option(["run.seed=1"], "run.seed", 0) == ["run.seed=1", "run.seed=0"]
    assert with_option(["run.seed=1"], "run.seed", None) == ["run.seed=1"]
    assert with_option(None, "run.seed", None) == []


@pytest.mark.parametrize("device", ["auto", "cpu", "cuda"])
def test_a_known_device_is_passed_on(device: str) -> None:
    assert check_device(device) == device


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="'tpu': choose auto, cpu or cuda"):
        check_device("tpu")
