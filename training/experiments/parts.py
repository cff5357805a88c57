"""Which parts a model has, on a data set with some settings: what is varied must be there."""

from __future__ import annotations

from training.data.dataset import DataSet
from training.settings import TrainingSettings


def is_kdiffe(settings: TrainingSettings) -> bool:
    """Whether the model is KDiffE."""
    return settings.model.kind == "kdiffe"


def has_entities(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether items are aggregated with entities, the data's own or made from features (D1)."""
    makes = settings.entities.source == "always" or (settings.entities.source == "auto" and data.knowledge is None)
    has_any = data.knowledge is not None or (makes and bool(data.features))
    return is_kdiffe(settings) and settings.model.knowledge and has_any


def has_second_view(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether KDiffE contrasts its main view with one over a generated graph."""
    return has_entities(data, settings) and settings.contrast.second_view == "generated"


def generates(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether graphs are generated, by the diffusion or a random thinning; DiffMM's are whatever is contrasted."""
    return has_second_view(data, settings) if is_kdiffe(settings) else bool(data.features)


def diffuses(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether the diffusion generates them."""
    return generates(data, settings) and settings.diffusion.graph == "diffusion"


def contrasts(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether there is a contrast."""
    if is_kdiffe(settings):
        return has_second_view(data, settings) or settings.contrast.second_view == "noise"
    return bool(data.features) and settings.contrast.weight > 0
