"""Which parts a model has, on a data set with some settings: what is varied must be there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from training.data.dataset import DataSet
from training.item_item import resolved_method
from training.settings import TrainingSettings

IsThere = Callable[[DataSet, TrainingSettings], bool]


def is_kdiffe(settings: TrainingSettings) -> bool:
    """Whether the model is KDiffE."""
    return settings.model.kind == "kdiffe"


def has_entities(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether items are aggregated with entities, the data's own or made from features (D1)."""
    has_any = data.knowledge is not None or makes_entities(data, settings)
    return is_kdiffe(settings) and settings.model.knowledge and has_any


def makes_entities(data: DataSet, settings: TrainingSettings) -> bool:
    """Whether entities are made from features (D1)."""
    source = settings.entities.source
    wanted = source == "always" or (source == "auto" and data.knowledge is None)
    return is_kdiffe(settings) and settings.model.knowledge and wanted and bool(data.features)


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


@dataclass(frozen=True)
class Part:
    """A part that a model may not have: settings of it change nothing then.

    Attributes:
        name: what it is called.
        needs: what it comes with.
        is_there: whether a model has it, whatever the value of the setting that is asked about.
    """

    name: str
    needs: str
    is_there: IsThere


def _contrasts_if_weighed(data: DataSet, settings: TrainingSettings) -> bool:
    return contrasts(data, replace(settings, contrast=replace(settings.contrast, weight=1.0)))


def _has_entities_if_wanted(data: DataSet, settings: TrainingSettings) -> bool:
    return has_entities(data, replace(settings, model=replace(settings.model, knowledge=True)))


def _may_make_entities(data: DataSet, settings: TrainingSettings) -> bool:
    return makes_entities(data, replace(settings, entities=replace(settings.entities, source="always")))


def _makes_table(*methods: str) -> IsThere:
    """Whether B is made, and by one of these methods."""

    def is_there(data: DataSet, settings: TrainingSettings) -> bool:
        table = settings.item_item
        return table.is_wanted and (not methods or resolved_method(table, data.n_items) in methods)

    return is_there


_REGRESSION = Part("regression of items", "item_item.method = 'auto', 'ease' or 'local'", _makes_table("ease", "local"))
_SECOND = "a knowledge graph or features, contrast.weight above 0 and contrast.view = 'generated'"
_CONTRAST = "contrast.weight above 0 and a knowledge graph or features, or contrast.view = 'noise'"
_FEATURES = "model.kind = 'kdiffe' and features of the items"
_contrast = Part("contrast", _CONTRAST, contrasts)
_generated = Part("generated graph", _SECOND, generates)
_diffusion = Part("diffusion", f"{_SECOND}, and with diffusion.graph = 'diffusion'", diffuses)
_made = Part("entities from features", f"{_FEATURES}, model.knowledge and entities.source", makes_entities)
_of_diffmm = Part(
    "modality-aware aggregation",
    "model.kind = 'diffmm' and features of the items",
    lambda d, s: not is_kdiffe(s) and bool(d.features),
)

# Sections that no experiment varies: seeds are its own, and the data are read and divided once.
UNVARIED = ("run", "split")
# Settings of a part that a model may not have; a section's name stands for all the rest of its settings.
PARTS: Mapping[str, Part] = {
    "contrast.weight": Part("contrast", _CONTRAST, _contrasts_if_weighed),
    "contrast.temperature": _contrast,
    "contrast.batch_size": _contrast,
    "contrast.view": Part(
        "contrast of KDiffE's",
        "model.kind = 'kdiffe' and contrast.weight above 0",
        lambda _, s: is_kdiffe(s) and s.contrast.weight > 0,
    ),
    "contrast.noise": Part(
        "noise",
        "model.kind = 'kdiffe', contrast.weight above 0 and contrast.view = 'noise'",
        lambda _, s: is_kdiffe(s) and s.contrast.second_view == "noise",
    ),
    "contrast.between": Part(
        "contrast between modalities",
        "model.kind = 'diffmm', features of two modalities and contrast.weight above 0",
        lambda d, s: not is_kdiffe(s) and len(d.features) > 1 and s.contrast.weight > 0,
    ),
    "diffusion.n_kept": _generated,
    "diffusion.rebuild_every": _generated,
    "diffusion.graph": _generated,
    "diffusion": _diffusion,
    "entities.source": Part("entities from features", f"{_FEATURES} and model.knowledge", _may_make_entities),
    "entities": _made,
    "model.knowledge": Part(
        "entities", "model.kind = 'kdiffe' and a knowledge graph or features", _has_entities_if_wanted
    ),
    "model.views": Part("features", _FEATURES, lambda d, s: is_kdiffe(s) and bool(d.features)),
    "multimodal.width": Part(
        "multimodal view",
        f'{_FEATURES}, and with model.views = ["knowledge","multimodal"]',
        lambda d, s: is_kdiffe(s) and "multimodal" in s.model.views and bool(d.features),
    ),
    "multimodal": _of_diffmm,
    "walks": Part("attention matrix S", "model.similarity_weight above 0", lambda _, s: s.model.similarity_weight > 0),
    "item_item.method": Part(
        "item-item table B", "item_item.weight other than 0", lambda _, s: s.item_item.weight != 0
    ),
    "item_item.weight": Part(
        "item-item table B", "item_item.method other than 'none'", lambda _, s: s.item_item.method != "none"
    ),
    "item_item.l2": _REGRESSION,
    "item_item.user_exponent": _REGRESSION,
    "item_item.target_exponent": _REGRESSION,
    "item_item.two_hop_weight": _REGRESSION,
    "item_item.content_gram": _REGRESSION,
    "item_item.n_candidates": Part("regression in neighborhoods", "item_item.method = 'local'", _makes_table("local")),
    "item_item.beta": Part("RP3β", "item_item.method = 'rp3beta'", _makes_table("rp3beta")),
    "item_item": Part(
        "item-item table B", "item_item.method other than 'none' and item_item.weight other than 0", _makes_table()
    ),
}
# The settings that `PARTS` looks at.
DECIDING = (
    "model.kind",
    "model.knowledge",
    "model.views",
    "model.similarity_weight",
    "entities.source",
    "contrast.weight",
    "contrast.view",
    "diffusion.graph",
    "item_item.method",
    "item_item.weight",
    "item_item.exact_items",
)


def missing_part(data: DataSet, settings: TrainingSettings, name: str) -> Part | None:
    """The part of a setting where the model does not have it: every value gives the same model then.

    Args:
        data: the data set.
        settings: everything else.
        name: the setting, dotted.
    """
    part = PARTS.get(name) or PARTS.get(name.partition(".")[0])
    return None if part is None or part.is_there(data, settings) else part
