"""`kdiffe faithfulness`: whether explanations are faithful to the model (docs/explanations.md)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import numpy as np
import typer
from rich.table import Table

from model_store.artifact import Artifact
from model_store.command import console, write_json
from model_store.store import DEFAULT_ROOT, ModelStore
from training.commands.evaluate import rows_in
from training.commands.options import Config, Data, Device, Json, Overrides, Store
from training.commands.recording import ResultsFile, command_text, settings_given
from training.configuration import settings_from
from training.data.dataset import DataSet
from training.data.fingerprint import fingerprint
from training.data.loading import load_data_set
from training.errors import ConfigurationError
from training.experiments.faithfulness import (
    ORDERS,
    Scene,
    agreement,
    check_counterfactuals,
    draw,
    effect,
    fewer_interactions,
    follow,
    is_fewer,
    other_walks,
    recency_of,
    without_first,
)
from training.experiments.progress import RunBars
from training.experiments.tables import FAITHFULNESS_COLUMNS, RETRAINING_COLUMNS, faithfulness_rows, retraining_rows
from training.export import scene_parts
from training.observer import Observer
from training.results import Record, Results, digest, machine, now, settings_digest
from training.settings import TrainingSettings
from training.trained import train_kdiffe

# Users with at least so many interactions: all whose orders can differ, and those whose explanations choose.
POPULATIONS = (2, 5)
# Counterfactuals are about this list and may name so many interactions.
K, MOST = 20, 10
# Orders whose first interaction is taken away before a retraining.
RETRAINED = ("contribution", "similarity", "random")
FEWER = 0.01


def faithfulness(
    data: Data,
    store: Store = DEFAULT_ROOT,
    version: Annotated[str | None, typer.Option("--version", help="A version; the active one by default.")] = None,
    users: Annotated[int, typer.Option("--users", help="Users drawn for each measurement.", min=2)] = 500,
    retrain: Annotated[
        int, typer.Option("--retrain", help="Users who lose an interaction before a retraining; 0 for none.", min=0)
    ] = 0,
    config: Config = None,
    overrides: Overrides = None,
    device: Device = "auto",
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.", min=0)] = 0,
    results: ResultsFile = None,
    as_json: Json = False,
) -> None:
    """Deletion and insertion curves, POS, DEL and INS, counterfactuals checked, stability; retraining on a sample.

    `--config`, `--set` and `--device` are of the retraining alone.
    """
    artifact = ModelStore(store).open(version)
    settings = settings_from(artifact.manifest.configuration, f"the configuration of {artifact.version}")
    retraining = settings_given(config, overrides, device) if retrain else settings
    loaded = load_data_set(data, settings.split)
    options = {"data": data, "version": version, "users": users, "retrain": retrain or None, "config": config}
    command = command_text("faithfulness", {**options, "set": overrides, "seed": seed or None})
    blank = Record(
        kind="faithfulness",
        data=loaded.name,
        fingerprint=fingerprint(loaded),
        model=artifact.manifest.model,
        parameter="",
        value=None,
        seed=seed,
        split="train",
        settings_digest="",
        machine=machine(),
        command=command,
    )
    with RunBars(console(), "faithfulness") as bars:
        records = _fixed(artifact, loaded, users, seed, bars, blank)
        if retrain:
            records += _retrained(loaded, retraining, retrain, seed, bars, blank)
    Results(results).append([(record, None) for record in records])
    _print(records)
    if as_json:
        rows = [{"parameter": r.parameter, "value": r.value, "metrics": dict(r.metrics)} for r in records]
        write_json({"version": artifact.version, "data": loaded.name, "records": rows})


def _fixed(artifact: Artifact, data: DataSet, count: int, seed: int, bars: RunBars, blank: Record) -> list[Record]:
    """With the version's embeddings: curves of two populations, counterfactuals, stability."""
    of_version = digest([artifact.manifest.arrays[name].sha256 for name in ("form.base", "similarity.data")])
    blank = replace(blank, settings_digest=digest([of_version, count]))
    scene = Scene.of_artifact(artifact)
    rows = rows_in(artifact, data)
    recency = recency_of(data, *rows, artifact.manifest.n_items)
    made: list[Record] = []
    total = len(POPULATIONS) + 2
    for done, least in enumerate(POPULATIONS):
        bars.runs(done, total)
        rng, began = np.random.default_rng([seed, least]), time.monotonic()
        # Who has many interactions takes long: a fifth of the users is enough there.
        wanted = count if least == POPULATIONS[0] else max(count // 5, 2)
        samples = draw(scene, wanted, rng, k=1, least=least)
        if not samples:
            continue
        curves, best = follow(scene, samples, recency, rng, bars)
        seconds = round(time.monotonic() - began, 2)
        for name in ORDERS:
            found = curves[name]
            facts: dict[str, Any] = {
                "least": least,
                "n": len(found.degrees),
                "errors": found.errors(),
                "slices": found.slices(),
                "deletion": np.round(found.deletion.mean(0), 5).tolist(),
                "insertion": np.round(found.insertion.mean(0), 5).tolist(),
                "timed": data.train.timestamps is not None,
            }
            if best is not None:
                facts["best"] = {"n": best.n, "best": best.best, "random": best.random, "ours": best.contribution}
            made.append(_made(blank, f"curves {least}", name, found.means(), facts, seconds))
    bars.runs(len(POPULATIONS), total)
    rng, began = np.random.default_rng([seed, 1]), time.monotonic()
    samples = draw(scene, count, rng, k=K, least=1)
    checked = check_counterfactuals(scene, samples, K, MOST, bars)
    found_some = max(len(checked.sizes), 1)
    shares = {
        "found": len(checked.sizes) / max(checked.asked, 1),
        "none_exists": checked.none_exists / max(checked.asked, 1),
        "valid": checked.valid / found_some,
        "minimal": checked.minimal / found_some,
        "size": float(np.mean(checked.sizes)) if checked.sizes else 0.0,
        "tried": float(np.mean(checked.tried)) if checked.tried else 0.0,
    }
    counts = {"n": checked.asked, "k": K, "most": MOST}
    made.append(_made(blank, "counterfactual", None, shares, counts, round(time.monotonic() - began, 2)))
    bars.runs(len(POPULATIONS) + 1, total)
    rng = np.random.default_rng([seed, 2])
    samples = draw(scene, count, rng, k=K, least=2)
    spared = [sample.user for sample in samples]
    fewer = fewer_interactions(scene, FEWER, spared, rng)
    removed = scene.n_interactions - fewer.n_interactions
    others = {"other walks": other_walks(scene), "fewer interactions": fewer}
    if not is_fewer(scene, fewer, FEWER):
        del others["fewer interactions"]
        bars.note(
            f"Stability beside other users having {FEWER:.0%} fewer interactions is left out: {len(spared)} of "
            f"{int(np.count_nonzero(scene.degrees))} users are looked at, and of the others' interactions only "
            f"{removed} were removed, of {scene.n_interactions} in all. Look at fewer: --users."
        )
    if not samples:
        others.clear()
        bars.note("Stability is left out: nobody that was looked at has two interactions.")
    for name, other in others.items():
        facts = {"n": len(samples), "share": FEWER, "removed": scene.n_interactions - other.n_interactions}
        made.append(_made(blank, "stability", name, agreement(scene, other, samples), facts, 0.0))
    bars.runs(total, total)
    return made


def _retrained(
    data: DataSet, settings: TrainingSettings, count: int, seed: int, bars: RunBars, blank: Record
) -> list[Record]:
    """Train; explain; take one interaction from each of some users, by each order; train again, and look."""
    blank = replace(blank, settings_digest=digest([settings_digest(settings), count]))
    rows = np.arange(data.n_users, dtype=np.int32), np.arange(data.n_items, dtype=np.int32)
    recency = recency_of(data, *rows, data.n_items)
    bars.runs(0, len(RETRAINED) + 1)
    scene = _trained(data, settings, bars)
    samples = draw(scene, count, np.random.default_rng([seed, 3]), k=1, least=2)
    if not samples:
        raise ConfigurationError(f"{data.name}: nobody that was looked at has two interactions to take one from.")
    made = []
    for done, name in enumerate(RETRAINED, 1):
        bars.runs(done, len(RETRAINED) + 1)
        began = time.monotonic()
        less = without_first(data, scene, samples, recency, name, np.random.default_rng([seed, 4]))
        after = _trained(less, settings, bars)
        facts = {"n": len(samples), "epochs": settings.optimiser.max_epochs}
        seconds = round(time.monotonic() - began, 2)
        made.append(_made(blank, "retraining", name, effect(scene, after, samples), facts, seconds))
    bars.runs(len(RETRAINED) + 1, len(RETRAINED) + 1)
    return made


def _trained(data: DataSet, settings: TrainingSettings, observer: Observer) -> Scene:
    return Scene.of(*scene_parts(train_kdiffe(data, settings, observer), data.n_users))


def _made(
    blank: Record,
    parameter: str,
    value: str | None,
    metrics: Mapping[str, float],
    facts: Mapping[str, Any],
    seconds: float,
) -> Record:
    return replace(
        blank, parameter=parameter, value=value, metrics=dict(metrics), facts=dict(facts), seconds=seconds, at=now()
    )


def _print(records: Sequence[Record]) -> None:
    out = console()
    for least in POPULATIONS:
        found = [r for r in records if r.parameter == f"curves {least}"]
        if found:
            title = f"{found[0].data}: {found[0].facts['n']} users with {least} or more interactions"
            shown = [n for n, name in enumerate(FAITHFULNESS_COLUMNS) if n < 3 or "POS@20" in name or "@1 " in name]
            table = Table(*(FAITHFULNESS_COLUMNS[n] for n in shown), title=title)
            for row in faithfulness_rows(found):
                table.add_row(*(row[n] for n in shown))
            out.print(table)
    for record in records:
        if record.parameter in {"counterfactual", "stability"}:
            figures = ", ".join(f"{name} {value:.4g}" for name, value in record.metrics.items())
            out.print(f"{record.parameter}{f', {record.value}' if record.value else ''}: {figures}", highlight=False)
    found = [r for r in records if r.parameter == "retraining"]
    if found:
        table = Table(*RETRAINING_COLUMNS, title=f"{found[0].data}: retrained without one interaction of each user")
        for row in retraining_rows(found):
            table.add_row(*row)
        out.print(table)
