"""How long an epoch takes, against the diffusion steps T and against the number of users (Figure 10)."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import mean, median

import numpy as np

from training.data.dataset import DataSet, Interactions
from training.errors import ConfigurationError
from training.experiments.ablation import changed
from training.experiments.operations import operations_of
from training.experiments.parts import diffuses, generates
from training.experiments.sweep import check_effect
from training.observer import Observer
from training.results import Record, Results, digest, machine, now
from training.runs import train_on
from training.settings import TrainingSettings

# The paper's numbers of users on Sports (its Figure 10), and the shares that a smaller set is cut to.
USERS = (5_000, 10_000, 20_000, 30_000)
SHARES = (0.25, 0.5, 0.75)
STEPS = (2, 5, 10, 20, 50, 100)


@dataclass(frozen=True)
class Timing:
    """One measurement to make.

    Attributes:
        parameter: `steps` or `users`.
        value: T, or the number of users.
        settings: what is trained.
        data: on what.
    """

    parameter: str
    value: int
    settings: TrainingSettings
    data: DataSet


def timings(
    data: DataSet, settings: TrainingSettings, steps: Sequence[int] | None, users: Sequence[float] | None
) -> list[Timing]:
    """What to measure: an epoch for each T on all users, and for each number of users with the settings' own T.

    Args:
        data: the data set.
        settings: what is trained.
        steps: values of T; None for `STEPS` where there is a diffusion, empty for none.
        users: numbers of users, or shares of them below 1; None for the paper's numbers that the set has, or shares.
            All users come last.

    Raises:
        ConfigurationError: T out of its bounds or of no effect, or a number of users that the set doesn't have.
    """
    if steps is None:
        steps = STEPS if diffuses(data, settings) else ()
    elif steps:
        check_effect(data, settings, "steps")
    made = [
        Timing("steps", value, changed(settings, [f"diffusion.n_steps={value}"]), data)
        for value in dict.fromkeys(steps)
    ]
    if users is None:
        users = [n for n in USERS if n < data.n_users] if data.n_users > 2 * USERS[0] else SHARES
        users = [*users, data.n_users]
    for number in users:
        count = round(number * data.n_users) if 0 < number < 1 else int(number)
        if not 0 < count <= data.n_users:
            raise ConfigurationError(f"--users: {number:g}: {data.name} has {data.n_users} users.")
        made.append(Timing("users", count, settings, some_users(data, count, settings.run.seed)))
    return made


def some_users(data: DataSet, count: int, seed: int) -> DataSet:
    """The set with `count` users, drawn at random, and their train interactions alone; the catalogue stays whole."""
    if count == data.n_users:
        return replace(data, valid=Interactions.empty(), test=Interactions.empty())
    kept = np.sort(np.random.default_rng(seed).choice(data.n_users, count, replace=False))
    rows = np.full(data.n_users, -1, np.int32)
    rows[kept] = np.arange(count, dtype=np.int32)
    part = data.train.take(rows[data.train.user_rows] >= 0)
    train = Interactions(rows[part.user_rows], part.item_rows, part.timestamps)
    none = Interactions.empty()
    return replace(data, user_ids=data.user_ids[kept], train=train, valid=none, test=none)


def time_epochs(
    timing: Timing, name: str, mark: str, epochs: int, results: Results, observer: Observer, command: str
) -> Record:
    """The usual time of an epoch, the first one left out (it compiles and warms up): see `usual`.

    Nothing is evaluated and no B is made: an epoch is the denoiser's training, the generated graph and the batches.

    Args:
        timing: what to measure.
        name: the model.
        mark: fingerprint of the whole data set.
        epochs: epochs to measure, ≥ 1, after the first; rounded up to whole cycles of generated graphs.
        results: where the record is looked up and goes.
        observer: is told about every phase.
        command: what the user called.
    """
    settings = timing.settings
    model = settings.model.kind
    here = machine()
    blank = Record(
        kind="timing",
        data=name,
        fingerprint=mark,
        model=model,
        parameter=timing.parameter,
        value=timing.value,
        seed=settings.run.seed,
        split="",
        # Where it ran is part of what was measured, and so is how often.
        settings_digest=digest([timing_digest(settings), epochs, here["cpu"], here["cores"], here["gpu"]]),
        machine=here,
        command=command,
    )
    found = results.get(blank.key)
    if found is not None:
        return found
    observer.note(f"{model}, {timing.parameter} = {timing.value}")
    every = settings.diffusion.rebuild_every if generates(timing.data, settings) else 1
    epochs = -(-epochs // every) * every
    settings = replace(
        settings,
        optimiser=replace(settings.optimiser, max_epochs=epochs + 1),
        item_item=replace(settings.item_item, method="none"),
    )
    bare = replace(timing.data, valid=Interactions.empty(), test=Interactions.empty())
    with tempfile.TemporaryDirectory(prefix="kdiffe-") as folder:
        trained = train_on(bare, settings, observer, Path(folder)).trained
    seconds = [epoch.seconds for epoch in trained.fit.history[1:]]
    facts: dict[str, object] = {
        "base": timing_base(timing),
        "epoch_seconds": [round(value, 3) for value in seconds],
        "n_users": bare.n_users,
        "n_items": bare.n_items,
        "n_interactions": len(bare.train),
        "operations": operations_of(bare, settings),
    }
    record = replace(blank, seconds=round(usual(seconds, every), 4), epochs=epochs, facts=facts, at=now())
    results.append([(record, None)])
    return record


def usual(seconds: Sequence[float], every: int) -> float:
    """The mean over a cycle of epochs, one of which generates a graph, of the median of those in the same place.

    Args:
        seconds: of whole cycles.
        every: epochs in a cycle.
    """
    return mean(median(seconds[place::every]) for place in range(every))


def timing_digest(settings: TrainingSettings) -> str:
    """A name for everything that an epoch's time may depend on."""
    held = asdict(settings)
    return digest({name: value for name, value in held.items() if name not in {"run", "split", "item_item"}})


def timing_base(timing: Timing) -> str:
    """A name for what is held while the parameter is varied."""
    settings = timing.settings
    if timing.parameter == "steps":
        settings = replace(settings, diffusion=replace(settings.diffusion, n_steps=1))
    return timing_digest(settings)
