from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import pytest
import torch

from tests.training.worlds import clips, small, without_graph
from training.data.dataset import DataSet
from training.experiments.parts import DECIDING, PARTS, missing_part
from training.experiments.spaces import with_settings
from training.observer import Silence
from training.settings import TrainingSettings
from training.trained import train_kdiffe

CLIPS = clips()
BARE = replace(without_graph(CLIPS), features={})
ONE_MODALITY = replace(CLIPS, features=dict(list(CLIPS.features.items())[:1]))
SECTIONS: dict[str, dict[str, object]] = {"optimiser": {"max_epochs": 2}, "item_item": {"method": "none"}}
# Another value of every setting that a part may be missing for.
OTHER: dict[str, Any] = {
    "contrast.weight": 0.5,
    "contrast.temperature": 0.9,
    "contrast.batch_size": 8,
    "contrast.view": "noise",
    "contrast.noise": 0.5,
    "contrast.between": "main",
    "diffusion.n_kept": 1,
    "diffusion.rebuild_every": 2,
    "diffusion.graph": "random",
    "diffusion.n_steps": 3,
    "diffusion.noise_scale": 0.9,
    "diffusion.learning_rate": 0.1,
    "entities.source": "never",
    "entities.n_centroids": 3,
    "entities.n_nearest": 1,
    "model.knowledge": False,
    "model.views": ["knowledge", "multimodal"],
    "multimodal.width": 5,
    "multimodal.generated_weight": 0.9,
    "multimodal.residual_weight": 0.1,
}


def settings_of(values: dict[str, Any]) -> TrainingSettings:
    return with_settings(small(**SECTIONS), values)


def served(data: DataSet, settings: TrainingSettings) -> torch.Tensor:
    """The vectors that are served of a model."""
    return torch.from_numpy(train_kdiffe(data, settings, Silence()).base)


def those(*beginnings: str) -> set[str]:
    return {name for name in OTHER if name.startswith(beginnings)}


@pytest.mark.parametrize(
    ("data", "values", "idle"),
    [
        (BARE, {}, set(OTHER) - {"contrast.view"}),
        (
            CLIPS,
            {"contrast.weight": 0.0},
            those("diffusion", "entities.n_", "multimodal", "contrast") - {"contrast.weight"},
        ),
        (CLIPS, {"contrast.view": "noise"}, those("diffusion", "entities.n_", "multimodal", "contrast.between")),
        (
            ONE_MODALITY,
            {"model.kind": "diffmm"},
            those("entities", "model", "multimodal.width", "contrast.view", "contrast.noise", "contrast.between"),
        ),
    ],
    ids=["a bare set", "no contrast", "noise", "DiffMM"],
)
def test_a_setting_of_a_part_that_is_not_there_changes_nothing(
    data: DataSet, values: dict[str, Any], idle: set[str]
) -> None:
    settings = settings_of(values)
    assert {name for name in OTHER if missing_part(data, settings, name)} == idle
    changed = settings_of({**values, **{name: OTHER[name] for name in idle}})
    assert torch.equal(served(data, settings), served(data, changed))


def test_a_setting_of_a_part_that_is_there_is_none_of_them() -> None:
    settings = settings_of({})
    before = served(CLIPS, settings)
    for name in ("contrast.weight", "contrast.view", "diffusion.n_kept", "model.views", "model.knowledge"):
        assert missing_part(CLIPS, settings, name) is None
        after = served(CLIPS, with_settings(settings, {name: OTHER[name]}))
        assert after.shape != before.shape or not torch.equal(after, before), name
    assert missing_part(CLIPS, settings_of({"model.views": ["knowledge", "multimodal"]}), "multimodal.width") is None
    assert missing_part(BARE, settings, "loss.kind") is None


def test_the_parts_are_those_of_settings_that_there_are() -> None:
    sections = asdict(TrainingSettings())
    for name in (*PARTS, *DECIDING):
        section, _, key = name.partition(".")
        assert section in sections
        assert not key or key in sections[section]
