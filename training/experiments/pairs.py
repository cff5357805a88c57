"""Is the first model better than the others? Paired comparisons over users, as records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from training.experiments.lab import METRICS, WITHOUT, Lab
from training.results import Record, digest, now
from training.significance import Paired, compare_paired, holm


@dataclass(frozen=True)
class Side:
    """One side of a comparison.

    Attributes:
        name: what it is called.
        records: its records, one a seed.
        without_table: whether it is taken with B = 0.
    """

    name: str
    records: Sequence[Record]
    without_table: bool = False


def paired_records(lab: Lab, of: str, pairs: Sequence[tuple[Side, Side]]) -> list[Record]:
    """The first side less the second, on both metrics: one record each, appended to the lab's.

    Holm's adjustment is over all of them together: every pair on both metrics is one family. Pairs whose users' values
    are lost, or of a single user, are left out with a note.

    Args:
        lab: where the records' users are.
        of: what the comparison is part of (`comparison`, `ablation`).
        pairs: the sides.
    """
    found: list[tuple[Side, Side, str, Paired]] = []
    for first, second in pairs:
        for metric in METRICS:
            values = [_values(lab, side, metric) for side in (first, second)]
            if values[0] is None or values[1] is None:
                lab.observer.note(
                    f"{first.name} and {second.name} can't be compared in pairs: the users' values of a run are lost. "
                    "Remove its line from the records to run it again."
                )
                break
            if values[0].shape[-1] < 2:
                lab.observer.note(
                    f"{first.name} and {second.name} can't be compared in pairs: the split has items of one user alone."
                )
                break
            found.append((first, second, metric, compare_paired(values[0], values[1])))
    adjusted = holm([paired.p_t for *_, paired in found])
    made = [
        _record(lab, of, first, second, metric, paired, p, len(found))
        for (first, second, metric, paired), p in zip(found, adjusted, strict=True)
    ]
    fresh = [(record, None) for record in made if not _stands(lab, record)]
    if fresh:
        lab.results.append(fresh)
    return made


def as_one_family(tests: Sequence[Record]) -> list[Record]:
    """Paired comparisons with Holm's adjustment over exactly these: what a table shows may come of several calls."""
    adjusted = holm([test.metrics["p_t"] for test in tests])
    return [replace(test, metrics={**test.metrics, "p_holm": p}) for test, p in zip(tests, adjusted, strict=True)]


def _values(lab: Lab, side: Side, metric: str) -> Any:
    found = lab.values(side.records, metric + WITHOUT if side.without_table else metric)
    return None if found is None else found[1]


def _record(
    lab: Lab, of: str, first: Side, second: Side, metric: str, paired: Paired, p_holm: float, family: int
) -> Record:
    metrics: Mapping[str, float] = {
        "first": paired.first,
        "second": paired.second,
        "difference": paired.difference,
        "low": paired.low,
        "high": paired.high,
        "p_t": paired.p_t,
        "p_wilcoxon": paired.p_wilcoxon,
        "p_holm": p_holm,
    }
    sides = (first, second)
    keys = [[record.key for record in side.records] for side in sides]
    base = first.records[0]
    return Record(
        kind="significance",
        data=base.data,
        fingerprint=base.fingerprint,
        model=first.name,
        parameter=f"{of}: {metric}",
        value=second.name,
        seed=base.seed,
        split=base.split,
        settings_digest=digest([keys, [side.without_table for side in sides]]),
        metrics={name: float(value) for name, value in metrics.items()},
        facts={
            "of": of,
            "metric": metric,
            "base": str(base.facts.get("base", "")),
            "seeds": [[record.seed for record in side.records] for side in sides],
            "runs": [[key[:16] for key in of_side] for of_side in keys],
            "n_users": paired.n_users,
            "n_differ": paired.n_differ,
            "family": family,
            "level": paired.level,
        },
        machine=lab.machine,
        command=lab.command,
        at=now(),
    )


def _stands(lab: Lab, record: Record) -> bool:
    """Whether the same comparison with the same figures is recorded already."""
    old = lab.results.get(record.key)
    if old is None:
        return False
    same = np.allclose([old.metrics[n] for n in record.metrics], list(record.metrics.values()), rtol=0, atol=1e-12)
    return bool(same) and replace(old, metrics={}, at="", machine={}, command="") == replace(
        record, metrics={}, at="", machine={}, command=""
    )
