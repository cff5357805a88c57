"""Figures of training and of experiments, and how they become PNG files or SVG texts."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.labels import metric_label

if TYPE_CHECKING:
    from training.fitting import Fit

mpl.use("Agg")

# Okabe and Ito's colours (2008), told apart by colour-blind readers; the first two carry most plots.
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6d31", "#6b6b6c")
INK, GRID = "#333334", "#d4d4d5"
# In a page, colours are its own, light or dark; where it names none they stay as they are.
_VARIABLES = {INK: "ink", GRID: "grid", **{color: f"series-{n}" for n, color in enumerate(SERIES, 1)}}

_STYLE: dict[Any, Any] = {
    "text.parse_math": False,  # names of data sets and settings are no formulas
    "font.family": "sans-serif",
    "font.size": 9,
    "svg.fonttype": "none",
    "svg.hashsalt": "kdiffe",
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.titlesize": 9,
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
}


@dataclass(frozen=True)
class Line:
    """A line of a plot.

    Attributes:
        label: its name in the legend.
        x: where its points stand; texts stand side by side in their order.
        y: their heights.
        spread: standard deviations as bars, none where empty.
    """

    label: str
    x: Sequence[float | str]
    y: Sequence[float]
    spread: Sequence[float] = ()


# ---- figures ---------------------------------------------------------------------------------------------------------


def training_figure(curve: Mapping[str, Any], size: tuple[float, float] = (5.2, 4.2)) -> Figure:
    """The validation metrics by epoch above the losses by epoch, the kept epoch marked.

    Args:
        curve: "epochs" (each with "epoch", "loss", "metrics" and, where a model has several, "losses"), "best_epoch",
            "selected_by".
        size: in inches.
    """
    epochs = curve["epochs"]
    evaluated = [epoch for epoch in epochs if epoch["metrics"]]
    losses = [Line("loss", [e["epoch"] for e in epochs], [e["loss"] for e in epochs])]
    for name in dict.fromkeys(name for epoch in epochs for name in epoch.get("losses", {})):
        there = [epoch for epoch in epochs if name in epoch.get("losses", {})]
        losses.append(Line(name, [e["epoch"] for e in there], [e["losses"][name] for e in there]))
    with _drawing():
        figure = Figure(figsize=size, layout="constrained")
        panels = figure.subplots(2 if evaluated else 1, 1, sharex=True, squeeze=False)[:, 0]
        if evaluated:
            names = dict.fromkeys(["recall@20", curve["selected_by"]])
            xs = [epoch["epoch"] for epoch in evaluated]
            _lines(panels[0], [Line(metric_label(n), xs, [e["metrics"][n] for e in evaluated]) for n in names])
            panels[0].set_title("validation, without B", loc="left")
            panels[0].set_ylim(bottom=0)
        _lines(panels[-1], losses, shift=2)
        panels[-1].set_title("mean loss of a batch", loc="left")
        panels[-1].set_xlabel(f"epoch (kept: {curve['best_epoch']})")
        panels[-1].xaxis.get_major_locator().set_params(integer=True)
        for panel in panels:
            panel.axvline(curve["best_epoch"], color=INK, linestyle=":", linewidth=1)
    return figure


def lines_figure(panels: Mapping[str, Sequence[Line]], x_label: str, *, zero: bool = False) -> Figure:
    """Lines over one x, a panel for each title, one below the other; logarithmic where x spans more than 30 times.

    Args:
        panels: title → lines.
        x_label: what x is.
        zero: whether heights begin at 0.
    """
    with _drawing():
        figure = Figure(figsize=(5.2, 0.5 + 1.9 * len(panels)), layout="constrained")
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for panel, (title, lines) in zip(axes, panels.items(), strict=True):
            _lines(panel, lines)
            panel.set_title(title, loc="left")
            if zero:
                panel.set_ylim(bottom=0)
        values = [x for lines in panels.values() for line in lines for x in line.x]
        numbers = [x for x in values if not isinstance(x, str)]
        if len(numbers) == len(values) and numbers and min(numbers) > 0 and max(numbers) > 30 * min(numbers):
            axes[-1].set_xscale("log")
            ticks = sorted(set(numbers))
            axes[-1].set_xticks(ticks, [f"{tick:g}" for tick in ticks])
            axes[-1].minorticks_off()
        axes[-1].set_xlabel(x_label)
    return figure


def bars_figure(panels: Mapping[str, Sequence[tuple[str, float, float]]]) -> Figure:
    """Horizontal bars with their spread, a panel for each title side by side; the first bar stands on top.

    Args:
        panels: title → (label, height, standard deviation); the same labels in each.
    """
    n_bars = max(len(bars) for bars in panels.values())
    with _drawing():
        figure = Figure(figsize=(5.2, 0.7 + 0.28 * n_bars), layout="constrained")
        axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for number, (panel, (title, bars)) in enumerate(zip(axes, panels.items(), strict=True)):
            places = range(len(bars))
            heights, spreads = [bar[1] for bar in bars], [bar[2] for bar in bars]
            errors = spreads if any(spreads) else None
            panel.barh(places, heights, xerr=errors, color=SERIES[number], ecolor=INK, height=0.65)
            panel.set_yticks(places, [bar[0] for bar in bars])
            panel.set_title(title, loc="left")
            panel.grid(visible=False, axis="y")
            panel.locator_params(axis="x", nbins=4)
        axes[0].invert_yaxis()
    return figure


def _lines(panel: Axes, lines: Sequence[Line], shift: int = 0) -> None:
    handles = []
    for number, line in enumerate(lines):
        color = SERIES[(number + shift) % len(SERIES)]
        spread = list(line.spread) if any(line.spread) else None
        marker = "." if len(line.x) <= 60 else ""
        handles.append(
            panel.errorbar(list(line.x), list(line.y), spread, color=color, marker=marker, linewidth=1.4, capsize=2)
        )
    if len(lines) > 1:
        # A leading space: matplotlib leaves out labels that begin with an underscore.
        panel.legend(handles, [f" {line.label}" for line in lines], loc="best")


@contextmanager
def _drawing() -> Iterator[None]:
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)  # a page's font has it
        yield


# ---- files -----------------------------------------------------------------------------------------------------------


def plot_training(fit: Fit, path: Path) -> None:
    """Write a fit's curve as a PNG of 8 × 4.5 inches.

    Args:
        fit: a finished fit.
        path: the PNG to write.
    """
    epochs = [asdict(epoch) for epoch in fit.history]
    curve = {"epochs": epochs, "best_epoch": fit.best_epoch, "selected_by": fit.selected_by}
    figure = training_figure(curve, (8, 4.5))
    with _drawing():
        figure.savefig(path, dpi=120)


def svg(figure: Figure) -> str:
    """A figure as the text of an SVG file: no date, text as text, the same figure the same text."""
    out = io.StringIO()
    with _drawing():
        figure.savefig(out, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    return out.getvalue()


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """A figure as an element of an HTML page: colours are the page's, ids are its own, its width is what there is.

    Args:
        figure: the figure.
        name: prefix of its ids, one of its own within the page; letters, digits and hyphens.
        description: what a reader who can't see it is told; escaped text.
    """
    text = svg(figure)
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for color, variable in _VARIABLES.items():
        text = text.replace(color, f"var(--{variable}, {color})")
    text = re.sub(r"fill: #ffffff(?=[;\"])", "fill: none", text)
    head = re.compile(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>')
    return head.sub(rf'<svg viewBox="\1" role="img" aria-label="{description}">', text, count=1).strip()
