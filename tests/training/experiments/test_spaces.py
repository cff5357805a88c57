from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.training.worlds import small
from training.configuration import read_settings
from training.errors import ConfigurationError
from training.experiments.spaces import Dimension, read_space, shipped_spaces, to_toml, value_of, with_settings
from training.settings import TrainingSettings

GOOD = """
[fixed]
contrast.weight = 0.5
[[parameter]]
name = "optimiser.learning_rate"
low = 1e-4
high = 1e-2
log = true
[[parameter]]
name = "model.n_layers"
low = 1
high = 3
[[parameter]]
name = "model.views"
choices = [["knowledge"], ["knowledge", "multimodal"]]
"""


def test_a_space_is_bounds_choices_and_what_is_fixed(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(GOOD)
    space = read_space(str(path), small())
    assert space.fixed == {"contrast.weight": 0.5}
    rate, layers, views = space.dimensions
    assert rate == Dimension("optimiser.learning_rate", 1e-4, 1e-2, log=True)
    assert (rate.is_whole, layers.is_whole) == (False, True)
    assert views.choices == (("knowledge",), ("knowledge", "multimodal"))
    assert [rate.holds(value) for value in (1e-4, 1e-2, 0.5)] == [True, True, False]
    assert [views.holds(value) for value in (("knowledge",), ("multimodal",))] == [True, False]


def test_bounds_are_of_their_setting_s_kind(tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text("""
[[parameter]]
name = "model.similarity_weight"
low = 0
high = 1
[[parameter]]
name = "model.n_layers"
low = 1
high = 3
""")
    weight, layers = read_space(str(path), small()).dimensions
    assert (weight.is_whole, layers.is_whole) == (False, True)
    assert [weight.holds(0.7), layers.holds(2), layers.holds(2.5)] == [True, True, False]


@pytest.mark.parametrize("old", ["contrast.weight = 0.5", 'name = "model.n_layers"'], ids=["fixed", "searched"])
@pytest.mark.parametrize("name", ["run.seed", "split.leave_out"])
def test_what_no_trial_can_have_is_no_setting_of_a_space(name: str, old: str, tmp_path: Path) -> None:
    path = tmp_path / "space.toml"
    path.write_text(GOOD.replace(old, f"{name} = 2" if "=" in old and "name" not in old else f'name = "{name}"'))
    with pytest.raises(ConfigurationError, match=f"{name} is no setting of a trial"):
        read_space(str(path), small())


@pytest.mark.parametrize("name", shipped_spaces())
def test_every_shipped_space_fits_the_default_settings(name: str) -> None:
    assert "default" in shipped_spaces()
    assert read_space(name, TrainingSettings()).dimensions


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"model.n_layers"', '"model.n_layer"', "Did you mean model.n_layers?"),
        ('"model.n_layers"', '"modle.n_layers"', "unknown key modle"),
        ('"model.n_layers"', '"n_layers"', "unknown key n_layers"),
        ("high = 3", "high = 99", "model.n_layers = 99"),
        ("high = 3", "high = 1", "low must be below high"),
        ("high = 3", 'high = "3"', "expected low, high"),
        ("low = 1e-4", "low = 0", "above 0 where log is true"),
        ("log = true", "log = true\nchoices = [1]", "expected low, high and at most log, or choices"),
        ('name = "model.views"', "", "it needs a name"),
        ('"multimodal"]', '"taste"]', "model.views"),
        ("contrast.weight = 0.5", "model.n_layers = 2", "model.n_layers stands there twice"),
        ("contrast.weight = 0.5", "contrast.weight = -1", "contrast.weight = -1"),
        ("[fixed]", "[fixd]", "found ['fixd']"),
        ("[fixed]", "[fixed", "not TOML"),
    ],
)
def test_a_space_that_can_t_be_searched_is_told(old: str, new: str, message: str, tmp_path: Path) -> None:
    assert old in GOOD
    path = tmp_path / "space.toml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(ConfigurationError) as error:
        read_space(str(path), small())
    assert message in str(error.value)


def test_a_space_that_is_not_there_names_the_shipped_ones() -> None:
    with pytest.raises(ConfigurationError, match="one of: default"):
        read_space("nope.toml", small())


def test_settings_written_as_toml_are_read_back_the_same(tmp_path: Path) -> None:
    settings = with_settings(
        small(),
        {"model.views": ("knowledge", "multimodal"), "model.readout": "sum", "diffusion.guided": False,
         "loss.l2_weight": 1.5e-7, "split.strategy": "leave_out",
         "item_item.mean_of": [{"weight": 0.25, "l2": 50.0, "content": "relations"}, {"weight": 0.75, "l2": 100.0}]},
    )  # fmt: skip
    path = tmp_path / "best.toml"
    path.write_text(to_toml(settings, ["a comment", "and another"]))
    assert path.read_text().startswith("# a comment\n# and another\n")
    # The seed and the device are the run's, not the configuration's.
    assert read_settings(str(path)) == replace(settings, run=TrainingSettings().run)


def test_a_value_is_read_by_its_dotted_name() -> None:
    assert value_of(small(), "model.width") == 8
