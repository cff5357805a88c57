"""Plots of training, as PNG files."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure

from training.fitting import SELECTED_BY, Fit

mpl.use("Agg")


def plot_training(fit: Fit, path: Path) -> None:
    """The training curve: loss by epoch, validation metrics where there are any, the kept epoch marked.

    Args:
        fit: a finished fit.
        path: the PNG to write.
    """
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    losses = figure.subplots()
    epochs = [epoch.epoch for epoch in fit.history]
    losses.plot(epochs, [epoch.loss for epoch in fit.history], color="tab:gray", label="loss")
    losses.set_xlabel("epoch")
    losses.set_ylabel("mean loss of a batch")
    evaluated = [epoch for epoch in fit.history if epoch.metrics]
    lines = list(losses.lines)
    if evaluated:
        metrics = losses.twinx()
        for name, color in (("recall@20", "tab:blue"), (SELECTED_BY, "tab:orange")):
            values = [epoch.metrics[name] for epoch in evaluated]
            metrics.plot([e.epoch for e in evaluated], values, color=color, marker=".", label=f"validation {name}")
        metrics.set_ylabel("validation metric (without B)")
        metrics.set_ylim(bottom=0)
        lines += list(metrics.lines)
        losses.axvline(fit.best_epoch, color="tab:green", linestyle=":")
    losses.legend(lines, [str(line.get_label()) for line in lines], loc="center right")
    losses.set_title(f"kept epoch: {fit.best_epoch}")
    figure.savefig(path, dpi=120)
