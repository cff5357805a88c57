"""The full model less one part at a time (Table III). Variants are data: a name and the settings that it changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.comparison import MODELS
from training.configuration import override_values, settings_from
from training.data.dataset import DataSet
from training.errors import ConfigurationError
from training.experiments.lab import Lab, Run, digest_of
from training.experiments.pairs import Side, paired_records
from training.experiments.parts import contrasts, diffuses, has_entities, has_second_view, is_kdiffe
from training.results import Record
from training.settings import TrainingSettings

FULL = "full"
NO_TABLE = "without B"

Applies = Callable[[DataSet, TrainingSettings], bool]


def _is_guided(data: DataSet, settings: TrainingSettings) -> bool:
    # DiffMM's denoisers have no guide: what is left out is the signal in their loss.
    matters = is_kdiffe(settings) or settings.diffusion.guide_weight > 0
    return diffuses(data, settings) and settings.diffusion.guided and matters


@dataclass(frozen=True)
class Variant:
    """A part that is left out.

    Attributes:
        what: what is missing.
        overrides: settings that change.
        applies: whether the part is there at all, on this data with these settings.
    """

    what: str
    overrides: tuple[str, ...]
    applies: Applies


VARIANTS: Mapping[str, Variant] = {
    "KDiffE_1": Variant(
        "no attention matrix S (ξ = 0)", ("model.similarity_weight=0.0",), lambda _, s: s.model.similarity_weight > 0
    ),
    "KDiffE_2": Variant(
        "no guide of the diffusion",
        ("diffusion.guided=false",),
        _is_guided,
    ),
    "KDiffE_3": Variant("no contrast (θ1 = 0), and KDiffE no diffusion", ("contrast.weight=0.0",), contrasts),
    "KDiffE_4": Variant(
        "a random thinning in place of the diffusion",
        ('diffusion.graph="random"',),
        diffuses,
    ),
    "strongest": Variant(
        "the reconstruction's strongest entities instead of drawn ones",
        ("diffusion.draw_temperature=0.0",),
        lambda d, s: diffuses(d, s) and s.diffusion.draw_temperature > 0,
    ),
    "noise": Variant("noise in place of the generated graph", ('contrast.view="noise"',), has_second_view),
    "without knowledge": Variant("no knowledge graph", ("model.knowledge=false",), has_entities),
    "without multimodal": Variant(
        "no multimodal view",
        ('model.views=["knowledge"]',),
        lambda d, s: is_kdiffe(s) and "multimodal" in s.model.views and bool(d.features),
    ),
    "plain readout": Variant(
        "all layers weigh the same (g = 1)",
        ("model.readout_growth=1.0",),
        lambda _, s: s.model.readout_growth != 1 and s.model.n_layers > 0,
    ),
    "fitted without B": Variant(
        "no B, and the epoch is selected without it",
        ("item_item.method=none",),
        lambda _, s: s.item_item.is_wanted,
    ),
}


@dataclass(frozen=True)
class Ablation:
    """What was found on one split.

    Attributes:
        records: variant → its records, one a seed; the full model first.
        significance: the full model less each variant, with B and without, on both metrics.
    """

    records: Mapping[str, Sequence[Record]]
    significance: Sequence[Record]


def changed(settings: TrainingSettings, overrides: Sequence[str]) -> TrainingSettings:
    """Settings with `section.key=value` overrides on top.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong kind or out of its bounds.
    """
    values: dict[str, Any] = asdict(settings)
    return settings_from(override_values(values, overrides), "the settings")


def ablate(
    data: DataSet, settings: TrainingSettings, n_seeds: int, names: Sequence[str] | None = None
) -> tuple[list[Run], list[str]]:
    """The runs of an ablation and the names of the variants that don't apply.

    Args:
        data: the data set.
        settings: the full model's.
        n_seeds: seeds: run.seed, +1, ...
        names: variants to run; None for all that apply.

    Raises:
        ConfigurationError: an unknown variant.
    """
    unknown = [name for name in names or () if name not in VARIANTS]
    if unknown:
        raise ConfigurationError(f"--variants: unknown {unknown}; there are: {', '.join(VARIANTS)}.")
    chosen = [name for name in VARIANTS if names is None or name in names]
    left_out = [name for name in chosen if not VARIANTS[name].applies(data, settings)]
    overrides = {FULL: (), **{name: VARIANTS[name].overrides for name in chosen if name not in left_out}}
    model = MODELS[settings.model.kind]
    base = digest_of(model, settings)
    runs = [
        Run("ablation", model, changed(settings, changes), seed, "variant", name, base)
        for seed in range(settings.run.seed, settings.run.seed + n_seeds)
        for name, changes in overrides.items()
    ]
    return runs, left_out


def ablation_of(lab: Lab, records: Sequence[Record], split: str) -> Ablation:
    """The records of one split put together, with the paired comparisons of the full model and every variant."""
    by_variant: dict[str, list[Record]] = {}
    for record in records:
        if record.split == split:
            by_variant.setdefault(str(record.value), []).append(record)
    full = by_variant[FULL]
    has_table = all(record.without_table for record in full)
    pairs = []
    for name, found in by_variant.items():
        if name != FULL:
            pairs.append((Side(FULL, full), Side(name, found)))
            if has_table and all(record.without_table for record in found):
                pairs.append((Side(f"{FULL}, {NO_TABLE}", full, True), Side(f"{name}, {NO_TABLE}", found, True)))
    if has_table:
        pairs.append((Side(FULL, full), Side(NO_TABLE, full, without_table=True)))
    return Ablation(by_variant, paired_records(lab, "ablation", pairs) if pairs else [])
