"""KDiffE beside its peers (Table II): every model, every seed, with and without B, and whether the lead is chance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from training.comparison import MODELS, describe
from training.experiments.lab import DRAWN, METRICS, Lab, Run
from training.experiments.pairs import Side, paired_records
from training.results import Record
from training.settings import TrainingSettings
from training.significance import mean_and_spread

# Beside whom KDiffE stands as a peer; the rest are yardsticks that tell what B alone adds.
PEERS = ("popularity", "itemknn", "ease", "lightgcn", "diffmm")
WITHOUT_TABLE = "_without_table"


@dataclass(frozen=True)
class Comparison:
    """What was found on one split.

    Attributes:
        records: model → its records, one a seed.
        significance: KDiffE less each other row, on both metrics; empty where KDiffE or another is missing.
    """

    records: Mapping[str, Sequence[Record]]
    significance: Sequence[Record]

    def best_peer(self, metric: str) -> str | None:
        """The peer with the best mean, None where none was trained."""
        peers = [name for name in PEERS if name in self.records]
        means = {name: mean_and_spread([r.metrics[metric] for r in self.records[name]])[0] for name in peers}
        return max(means, key=lambda name: means[name], default=None)

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Row → {"recall@20", "recall@20_std", "ndcg@20", "ndcg@20_std", "seeds", "seed_values", "chosen", ...}.

        Rows are the models and, for a model with B, `MODEL_without_table`. `seeds` is how many; the spread is the
        sample standard deviation over them, 0 for one. Rows of models carry the means of all other metrics too.
        """
        rows: dict[str, dict[str, Any]] = {}
        for name, records in self.records.items():
            rows[name] = summary(records, [record.metrics for record in records])
            if all(record.without_table for record in records) and not name.endswith("_with_table"):
                rows[name + WITHOUT_TABLE] = summary(records, [record.without_table for record in records])
        return rows


def summary(records: Sequence[Record], figures: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Mean and spread of some records' figures, one for each seed."""
    row: dict[str, Any] = {
        "seeds": len(records),
        "seed_values": [record.seed for record in records],
        "chosen": [describe(record.epochs, record.chosen) for record in records],
        "seconds": [record.seconds for record in records],
    }
    for metric in figures[0]:
        mean, spread = mean_and_spread([one[metric] for one in figures])
        row[metric] = mean
        if metric in METRICS:
            row[f"{metric}_std"] = spread
    return row


def compare(
    names: Sequence[str], n_seeds: int, settings: Mapping[str, TrainingSettings], splits: Sequence[str] = ()
) -> list[Run]:
    """The runs of a comparison: each model, each seed.

    Args:
        names: names from `MODELS`.
        n_seeds: seeds of the models that draw: run.seed, +1, ...
        settings: model → settings; `kdiffe`'s count for who is not named.
        splits: what they are evaluated on: with `drawn` every model has every seed, whose division it is, and runs of
            one division stand together.
    """
    is_drawn = DRAWN in splits
    runs = []
    for name in names:
        model = MODELS[name]
        own = settings.get(name, settings["kdiffe"])
        first = own.run.seed
        # A model that draws nothing is recorded under the first seed.
        seeds = range(first, first + n_seeds) if model.draws or is_drawn else range(1)
        runs += [Run("comparison", model, own, seed) for seed in seeds]
    return sorted(runs, key=lambda run: run.seed) if is_drawn else runs


def comparison_of(lab: Lab, records: Sequence[Record], split: str) -> Comparison:
    """The records of one split put together, with the paired comparisons of KDiffE and every other row."""
    by_model: dict[str, list[Record]] = {}
    for record in records:
        if record.split == split:
            by_model.setdefault(record.model, []).append(record)
    pairs: list[tuple[Side, Side]] = []
    if "kdiffe" in by_model:
        own = Side("kdiffe", by_model["kdiffe"])
        pairs = [(own, Side(name, found)) for name, found in by_model.items() if name != "kdiffe"]
        if all(record.without_table for record in own.records):
            bare = Side("kdiffe" + WITHOUT_TABLE, own.records, without_table=True)
            pairs.append((own, bare))
            # What the rest of KDiffE adds when nobody has B.
            if "lightgcn" in by_model:
                pairs.append((bare, Side("lightgcn", by_model["lightgcn"])))
    return Comparison(by_model, paired_records(lab, "comparison", pairs) if pairs else [])
