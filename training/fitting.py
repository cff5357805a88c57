"""The fit loop: epochs of batches, validation, early stopping, checkpoints and resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
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
# Where B is laid beside the graph part, the epoch is selected by the NDCG@20 of both.
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
class Fit:
    """A finished fit; the model holds the best epoch's parameters.

    Attributes:
        best_epoch: the epoch that was kept.
        best_metrics: the model's own validation metrics there, empty without validation.
        history: every epoch.
    """

    best_epoch: int
    best_metrics: Mapping[str, float]
    history: tuple[Epoch, ...]

    @property
    def selected_by(self) -> str:
        """The validation metric that the epoch was selected by."""
        return WITH_TABLE if WITH_TABLE in self._best else SELECTED_BY

    @property
    def best_value(self) -> float:
        """Its value, 0 without validation."""
        return selected_value(self._best)

    @property
    def _best(self) -> Mapping[str, float]:
        return next((epoch.metrics for epoch in self.history if epoch.epoch == self.best_epoch), {})


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
        model: what is fitted, on its device; ends with the best epoch's parameters.
        sampler: draws an epoch's samples, a pure function of (seed, epoch).
        settings: loss, optimiser, checkpoints.
        observer: is told about every epoch.
        validate: evaluates the model as it is now; None fits a fixed number of epochs.
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
        observer.advance(1, shown | ({"best": selected_value(loop.best_metrics)} if loop.best_metrics else {}))
    return loop.finish()


def selected_value(metrics: Mapping[str, float]) -> float:
    """What an epoch is selected by: NDCG@20 with B where it was measured, else the graph part's; 0 without any."""
    return metrics.get(WITH_TABLE, metrics.get(SELECTED_BY, 0.0))


def batch_size(settings: OptimiserSettings, n_samples: int) -> int:
    """Interactions in a batch: `batch_size`, or fewer where an epoch would have less than `min_batches` batches."""
    return max(1, min(settings.batch_size, -(-n_samples // settings.min_batches)))


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
        self.best_epoch = 0
        self.best_metrics: Mapping[str, float] = {}
        self.best: dict[str, Tensor] = {}
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
                if not self.best_metrics or selected_value(metrics) > selected_value(self.best_metrics):
                    self.best_epoch, self.best_metrics, self.since_best = number, metrics, 0
                    self.best = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
                    made = self.model.generated_for_base()
                    self.best |= {f"{_GENERATED}{name}": value.clone() for name, value in made.items()}
                else:
                    self.since_best += 1
        self.history.append(Epoch(number, loss, seconds, metrics, losses))
        if self.checkpoints is not None and number % self.settings.run.checkpoint_every == 0:
            self.save()
        return self.history[-1]

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
                distinct = (self._distinct(samples.users[batch]), self._distinct(samples.positives[batch]))
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
        """The average's decay at a step: small at first, so that the start is soon forgotten (as TensorFlow's)."""
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
        """Put the best epoch's parameters back; without validation, the average where there is one."""
        kept = self.best or self.average
        if kept:
            parameters = {name: value for name, value in kept.items() if not name.startswith(_GENERATED)}
            self.model.load_state_dict(parameters, strict=False)
            made = {n.removeprefix(_GENERATED): value for n, value in kept.items() if n.startswith(_GENERATED)}
            if made:
                self.model.restore_generated(made)
        best_epoch = self.best_epoch or len(self.history)
        own = {name: value for name, value in self.best_metrics.items() if name != WITH_TABLE}
        return Fit(best_epoch, own, tuple(self.history))

    def save(self) -> None:
        """Write a checkpoint."""
        assert self.checkpoints is not None  # noqa: S101
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best.items()}
        tensors |= {f"average.{name}": value for name, value in self.average.items()}
        tensors |= {f"generated.{name}": value for name, value in self.model.generated().items()}
        for name, parameter in self.model.named_parameters():
            for key, value in self.optimiser.state[parameter].items():
                tensors[f"adam.{name}.{key}"] = value
        progress = {
            "history": [asdict(epoch) for epoch in self.history],
            "best_epoch": self.best_epoch,
            "best_metrics": dict(self.best_metrics),
            "since_best": self.since_best,
        }
        Checkpoint(self.identity, progress, tensors).write(self.checkpoints)

    def restore(self) -> None:
        """Go on from the folder's checkpoint, if it has one."""
        found = Checkpoint.read(self.checkpoints, self.identity) if self.checkpoints is not None else None
        if found is None:
            return
        part = {
            prefix: {
                name.removeprefix(f"{prefix}."): value.to(self.device)
                for name, value in found.tensors.items()
                if name.startswith(f"{prefix}.")
            }
            for prefix in ("model", "best", "average", "generated", "adam")
        }
        self.model.load_state_dict(part["model"])
        self.model.restore_generated(part["generated"])
        self.best = part["best"]
        self.average = {name: part["average"][name] for name in self.average}  # in the parameters' order
        for name, parameter in self.model.named_parameters():
            # Adam keeps its step counter on the CPU whatever the device.
            self.optimiser.state[parameter] = {
                key: value.cpu() if key == "step" else value
                for key in ("step", "exp_avg", "exp_avg_sq")
                if (value := part["adam"].get(f"{name}.{key}")) is not None
            }
        self.history = [Epoch(**epoch) for epoch in found.progress["history"]]
        self.best_epoch = found.progress["best_epoch"]
        self.best_metrics = found.progress["best_metrics"]
        self.since_best = found.progress["since_best"]
