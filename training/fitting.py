"""The fit loop: epochs of batches, validation, early stopping, checkpoints and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.checkpoint import Checkpoint
from training.errors import TrainingError
from training.models.recommender import Recommender
from training.observer import Observer
from training.sampling import Sampler
from training.settings import OptimiserSettings, TrainingSettings

SELECTED_BY = "ndcg@20"
# The NDCG@20 of the graph part with B beside it.
WITH_TABLE = "ndcg@20 with B"

# Prefix, in the best epoch's tensors, of what X is made from besides parameters. (A state_dict has no such names: a
# module's name has no space.)
_GENERATED = "made by the model "


@dataclass(frozen=True)
class Epoch:
    """What an epoch left behind.

    Attributes:
        epoch: its number, from 1.
        loss: mean loss over its batches.
        seconds: how long its batches took.
        metrics: validation metrics, empty where the epoch was not evaluated.
        losses: the loss's parts as they enter it (ranking, l2, contrast), means over the batches, and those of what the
            model trains besides (diffusion, guidance).
    """

    epoch: int
    loss: float
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    losses: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Kept:
    """An epoch that was kept: the best one by a validation metric.

    Attributes:
        selected_by: the metric; where one epoch is the best by several, the first of them.
        epoch: its number.
        metrics: its validation metrics.
        tensors: name → what `hold` puts back into the model.
    """

    selected_by: str
    epoch: int
    metrics: Mapping[str, float]
    tensors: Mapping[str, Tensor]

    @property
    def own_metrics(self) -> dict[str, float]:
        """The model's own, without a table beside it."""
        return {name: value for name, value in self.metrics.items() if name != WITH_TABLE}


@dataclass(frozen=True)
class Fit:
    """A finished fit.

    Attributes:
        best_epoch: the epoch whose parameters the model holds.
        best_metrics: the model's own validation metrics there, empty without validation.
        history: every epoch.
        selected_by: the validation metric that the epoch was selected by.
        kept: the best epochs, by the model's own metric first; empty without validation.
    """

    best_epoch: int
    best_metrics: Mapping[str, float]
    history: tuple[Epoch, ...]
    selected_by: str = SELECTED_BY
    kept: tuple[Kept, ...] = field(default=(), repr=False)

    def holding(self, kept: Kept) -> Fit:
        """The fit of a model that holds this one of the kept epochs (see `hold`); the others are let go."""
        return Fit(kept.epoch, kept.own_metrics, self.history, kept.selected_by)


def hold(model: Recommender, kept: Mapping[str, Tensor]) -> None:
    """Put parameters, and what X is made from besides, back into a model."""
    parameters = {name: value for name, value in kept.items() if not name.startswith(_GENERATED)}
    model.load_state_dict(parameters, strict=False)
    made = {name.removeprefix(_GENERATED): value for name, value in kept.items() if name.startswith(_GENERATED)}
    if made:
        model.restore_generated(made)


def fit(
    model: Recommender,
    sampler: Sampler,
    settings: TrainingSettings,
    observer: Observer,
    *,
    validate: Callable[[], Mapping[str, float]] | None,
    epochs: int | None = None,
    checkpoints: Path | None = None,
    identity: str = "",
    resume: bool = False,
    share: float = 0.8,
) -> Fit:
    """Fit a model.

    Args:
        model: what is fitted, on its device; ends with the parameters of the first of the kept epochs.
        sampler: draws an epoch's samples, a pure function of (seed, epoch).
        settings: loss, optimiser, checkpoints.
        observer: is told about every epoch.
        validate: evaluates the model as it is now, `SELECTED_BY` and where it likes `WITH_TABLE` among the metrics: the
            best epoch by each is kept, and patience is with the latter where it is there; None fits a fixed number of
            epochs.
        epochs: how many epochs at most; `optimiser.max_epochs` where None.
        checkpoints: folder for checkpoints, None for none.
        identity: what the fit is of, for the checkpoint.
        resume: go on from the folder's checkpoint.
        share: the fit's share of the observer's whole work.

    Raises:
        CheckpointError: the checkpoint can't be read or is of another fit.
        TrainingError: the loss is no finite number.
    """
    loop = _Loop(model, sampler, settings, validate, checkpoints, identity)
    if resume:
        loop.restore()
    most = epochs or settings.optimiser.max_epochs
    observer.phase("fitting", most, share)
    if loop.history:
        observer.advance(len(loop.history))
    while len(loop.history) < most and not loop.is_exhausted:
        epoch = loop.step()
        shown = {"loss": epoch.loss, **{k: v for k, v in epoch.metrics.items() if k != "n_users"}}
        observer.advance(1, shown | ({"best": loop.best_value} if loop.best else {}))
    return loop.finish()


def batch_size(settings: OptimiserSettings, n_samples: int) -> int:
    """Interactions in a batch: `batch_size`, fewer for `min_batches` an epoch, more for at most `max_batches`."""
    fewest = -(-n_samples // settings.max_batches)
    most = -(-n_samples // settings.min_batches)
    return max(1, fewest, min(settings.batch_size, most))


class _Loop:
    """The state of a fit between two epochs."""

    def __init__(
        self,
        model: Recommender,
        sampler: Sampler,
        settings: TrainingSettings,
        validate: Callable[[], Mapping[str, float]] | None,
        checkpoints: Path | None,
        identity: str,
    ) -> None:
        self.model, self.sampler, self.settings = model, sampler, settings
        self.validate, self.checkpoints, self.identity = validate, checkpoints, identity
        self.optimiser = torch.optim.Adam(model.parameters(), lr=settings.optimiser.learning_rate)
        self.device = next(model.parameters()).device
        self.history: list[Epoch] = []
        self.best: dict[str, Kept] = {}  # by metric
        # The parameters' moving average (Polyak): an early stop picks from it instead of from single steps' noise.
        self.average = (
            {name: value.detach().clone() for name, value in model.named_parameters()}
            if (settings.optimiser.average > 0)
            else {}
        )
        self.since_best = 0

    @property
    def is_exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.validate is not None and self.since_best >= self.settings.optimiser.patience

    @property
    def best_value(self) -> float:
        """The best figure so far, of what is served where that is evaluated."""
        metric = WITH_TABLE if WITH_TABLE in self.best else SELECTED_BY
        return self.best[metric].metrics[metric]

    def step(self) -> Epoch:
        """One epoch."""
        number = len(self.history) + 1
        started = time.perf_counter()
        loss, losses = self._train(number)
        seconds = time.perf_counter() - started
        metrics: Mapping[str, float] = {}
        optimiser = self.settings.optimiser
        if self.validate is not None and (number % optimiser.evaluate_every == 0 or number == optimiser.max_epochs):
            with self._averaged():
                metrics = self.validate()
                self._keep(number, metrics)
        self.history.append(Epoch(number, loss, seconds, metrics, losses))
        if self.checkpoints is not None and number % self.settings.run.checkpoint_every == 0:
            self.save()
        return self.history[-1]

    def _keep(self, number: int, metrics: Mapping[str, float]) -> None:
        """Keep the epoch for each metric that it is the best by."""
        better = [
            name
            for name in (SELECTED_BY, WITH_TABLE)
            if name in metrics and (name not in self.best or metrics[name] > self.best[name].metrics[name])
        ]
        served = WITH_TABLE if WITH_TABLE in metrics else SELECTED_BY
        self.since_best = 0 if served in better else self.since_best + 1
        if not better:
            return
        tensors = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        made = self.model.generated_for_base()
        tensors |= {f"{_GENERATED}{name}": value.clone() for name, value in made.items()}
        self.best |= {name: Kept(name, number, metrics, tensors) for name in better}

    def _train(self, number: int) -> tuple[float, dict[str, float]]:
        """The batches of an epoch; returns the mean loss and its parts. Nothing in the loop waits for the device."""
        before = self.model.begin_epoch(number)
        samples = self.sampler.epoch(number)
        users, positives, negatives = (
            torch.from_numpy(array).to(self.device) for array in (samples.users, samples.positives, samples.negatives)
        )
        totals: dict[str, Tensor] = {}
        size = batch_size(self.settings.optimiser, len(self.sampler))
        n_batches = 0
        for begin in range(0, len(users), size):
            batch = slice(begin, begin + size)
            drawn = negatives[n_batches] if samples.shared else negatives[batch]
            distinct = None
            if self.model.has_own_loss:  # found on the CPU, where it costs no wait
                contrasted = slice(begin, min(begin + size, begin + self.settings.contrast.batch_size))
                distinct = (self._distinct(samples.users[contrasted]), self._distinct(samples.positives[contrasted]))
            parts = self.model.loss_parts(users[batch], positives[batch], drawn, self.settings.loss, distinct)
            self.optimiser.zero_grad(set_to_none=True)
            torch.stack(list(parts.values())).sum().backward()  # type: ignore[no-untyped-call]
            self.optimiser.step()
            if self.average:
                parameters = [parameter.detach() for parameter in self.model.parameters()]
                torch._foreach_lerp_(list(self.average.values()), parameters, 1 - self._decay(number, n_batches))
            for name, part in parts.items():
                totals[name] = totals[name] + part.detach() if name in totals else part.detach()
            n_batches += 1
        means = {name: float(total) / n_batches for name, total in totals.items()}
        mean = sum(means.values())
        if not math.isfinite(mean):
            raise TrainingError(f"The loss of epoch {number} is {mean}: lower optimiser.learning_rate.")
        return mean, {**means, **before}

    def _distinct(self, rows: NDArray[np.int64]) -> Tensor:
        return torch.from_numpy(np.unique(rows)).to(self.device, non_blocking=True)

    def _decay(self, number: int, n_batches: int) -> float:
        """The average's decay at a step: small at first, so that the start is soon forgotten.

        TensorFlow's rule, (1 + n) / (10 + n) at most, but for `min_batches` steps an epoch whatever there were: an
        epoch of more ends with a longer memory than the next one begins with.
        """
        steps = (number - 1) * self.settings.optimiser.min_batches + n_batches
        return min(self.settings.optimiser.average, (1 + steps) / (10 + steps))

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the averaged parameters; its own come back."""
        if not self.average:
            yield
            return
        own = {name: value.detach().clone() for name, value in self.model.named_parameters()}
        self.model.load_state_dict(self.average, strict=False)
        try:
            yield
        finally:
            self.model.load_state_dict(own, strict=False)

    def finish(self) -> Fit:
        """Put the first kept epoch's parameters back; without validation, the average where there is one."""
        kept = tuple({found.epoch: found for found in reversed(self.best.values())}.values())[::-1]
        history = tuple(self.history)
        if not kept:
            hold(self.model, self.average)
            return Fit(len(history), {}, history)
        hold(self.model, kept[0].tensors)
        return replace(Fit(0, {}, history).holding(kept[0]), kept=kept)

    def save(self) -> None:
        """Write a checkpoint."""
        assert self.checkpoints is not None  # noqa: S101
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        for kept in self.best.values():  # an epoch that is the best by several metrics is written once
            tensors |= {f"{_prefix_of(kept.epoch)}.{name}": value for name, value in kept.tensors.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"generated.{name}": value for name, value in self.model.generated().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        progress = {
            "history": [asdict(epoch) for epoch in self.history],
            "best": {m: {"epoch": kept.epoch, "metrics": dict(kept.metrics)} for m, kept in self.best.items()},
            "since_best": self.since_best,
        }
        Checkpoint(self.identity, progress, tensors).write(self.checkpoints)

    def restore(self) -> None:
        """Go on from the folder's checkpoint, if it has one."""
        found = Checkpoint.read(self.checkpoints, self.identity) if self.checkpoints is not None else None
        if found is None:
            return
        kept_epochs = {kept["epoch"] for kept in found.progress["best"].values()}
        part = {
            prefix: {
                name.removeprefix(f"{prefix}."): value.to(self.device)
                for name, value in found.tensors.items()
                if name.startswith(f"{prefix}.")
            }
            for prefix in ("model", "average", "generated", "adam", *(_prefix_of(e) for e in kept_epochs))
        }
        self.model.load_state_dict(part["model"])
        self.model.restore_generated(part["generated"])
        self.best = {
            metric: Kept(metric, kept["epoch"], kept["metrics"], part[_prefix_of(kept["epoch"])])
            for metric, kept in found.progress["best"].items()
        }
        self.average = {name: part["average"][name] for name in self.average}  # in the parameters' order
        for name, parameter in self.model.named_parameters():
            # Adam keeps its step counter on the CPU whatever the device.
            self.optimiser.state[parameter] = {
                key: value.cpu() if key == "step" else value
                for key in ("step", "exp_avg", "exp_avg_sq")
                if (value := part["adam"].get(f"{name}.{key}")) is not None
            }
        self.history = [Epoch(**epoch) for epoch in found.progress["history"]]
        self.since_best = found.progress["since_best"]


def _prefix_of(epoch: int) -> str:
    """Of the tensors of an epoch that is kept, in a checkpoint."""
    return f"epoch {epoch}"
