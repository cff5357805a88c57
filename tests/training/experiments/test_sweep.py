from __future__ import annotations

from dataclasses import asdict, replace
from itertools import pairwise

import pytest

from tests.training.worlds import clips, small, without_graph
from training.data.dataset import DataSet
from training.errors import ConfigurationError
from training.experiments.sweep import PARAMETERS, check_effect, overrides_of, parameter_of, sweep, values_of

CLIPS = clips()
BARE = replace(without_graph(CLIPS), features={})

SETTINGS = {
    "q": ["diffusion.n_kept"],
    "walks": ["walks.walk_length", "walks.n_walks"],
    "xi": ["model.similarity_weight"],
    "steps": ["diffusion.n_steps"],
    "tau": ["contrast.temperature"],
    "theta1": ["contrast.weight"],
}


def held(settings: object, name: str) -> object:
    section, _, key = name.partition(".")
    return asdict(settings)[section][key]  # type: ignore[call-overload]


@pytest.mark.parametrize("name", SETTINGS)
def test_a_parameter_s_own_values_are_those_settings_one_after_the_other(name: str) -> None:
    runs = sweep(small(), name, values_of(PARAMETERS[name], None), 1)
    assert list(PARAMETERS) == list(SETTINGS)
    for run, value in zip(runs, PARAMETERS[name].values, strict=True):
        parts = str(value).split("x") if name == "walks" else [str(value)]
        assert [float(str(held(run.settings, s))) for s in SETTINGS[name]] == [float(part) for part in parts]
    assert len({run.base for run in runs}) == 1
    for one, two in pairwise(runs):
        assert one.settings != two.settings


def test_any_setting_can_be_swept_and_a_value_is_what_the_settings_hold() -> None:
    parameter = parameter_of("optimiser.learning_rate", small())
    runs = sweep(small(), "optimiser.learning_rate", values_of(parameter, "1, 0.5,0.5"), 2)
    assert [(run.seed, run.value) for run in runs] == [(0, 1.0), (0, 0.5), (1, 1.0), (1, 0.5)]
    assert all(isinstance(run.value, float) for run in runs)


def test_the_base_is_what_is_held_whatever_the_swept_setting_was() -> None:
    one, two, three = (
        sweep(small(**sections), "xi", [0.5], 1)[0].base
        for sections in ({}, {"model": {"similarity_weight": 2.0}}, {"contrast": {"weight": 0.5}})
    )
    assert one == two != three


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("nope", "1", "choose q, walks, xi"),
        ("model.widht", "1", "--parameter 'model.widht'"),
        ("model", "1", "is a section"),
        ("model.width", None, "has no values of its own"),
        ("walks", "50", "50: expected NxN for walks.walk_length × walks.n_walks"),
        ("xi", "0.5,-1", "model.similarity_weight = -1"),
        ("tau", "warm", "contrast.temperature = 'warm'"),
    ],
)
def test_what_can_t_be_swept_is_told_before_anything_is_trained(name: str, values: str | None, message: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        sweep(small(), name, values_of(parameter_of(name, small()), values), 1)
    assert message in str(error.value)


def test_walks_are_steps_times_walks() -> None:
    assert overrides_of(PARAMETERS["walks"], "50x12") == ["walks.walk_length=50", "walks.n_walks=12"]


@pytest.mark.parametrize(
    ("data", "sections", "idle"),
    [
        (CLIPS, {}, set()),
        (CLIPS, {"contrast": {"weight": 0.0}}, {"q", "steps", "tau", "contrast.view"}),
        (CLIPS, {"contrast": {"view": "noise"}}, {"q", "steps"}),
        (CLIPS, {"diffusion": {"graph": "random"}}, {"steps"}),
        (CLIPS, {"model": {"kind": "diffmm"}, "contrast": {"weight": 0.0}}, {"tau", "contrast.view"}),
        (BARE, {}, {"q", "steps", "tau", "theta1"}),
        (BARE, {"contrast": {"view": "noise"}}, {"q", "steps"}),
        (CLIPS, {"model": {"similarity_weight": 0.0}}, {"walks"}),
        (CLIPS, {"item_item": {"method": "none"}}, {"item_item.weight", "item_item.l2", "item_item.per_row"}),
        (CLIPS, {"item_item": {"method": "rp3beta"}}, {"item_item.l2"}),
        (CLIPS, {"item_item": {"weight": 0.0}}, {"item_item.method", "item_item.l2", "item_item.per_row"}),
    ],
)
def test_a_parameter_of_a_part_that_is_not_there_is_refused(
    data: DataSet, sections: dict[str, dict[str, object]], idle: set[str]
) -> None:
    table = ("item_item.method", "item_item.weight", "item_item.l2", "item_item.per_row")
    for name in (*PARAMETERS, "model.width", "contrast.view", *table):
        if name in idle:
            with pytest.raises(ConfigurationError, match=f"--parameter {name}: on {data.name} this model has no"):
                check_effect(data, small(**sections), name)
        else:
            check_effect(data, small(**sections), name)


@pytest.mark.parametrize("name", ["run.seed", "run.device", "split.leave_out"])
def test_what_a_sweep_does_not_vary_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match=f"--parameter {name}: every value gives the same model"):
        check_effect(CLIPS, small(), name)


def test_each_kind_of_model_is_trained_as_itself() -> None:
    runs = sweep(small(), "model.kind", ["kdiffe", "diffmm"], 1)
    assert [run.model.names[0] for run in runs] == ["kdiffe", "diffmm"]
