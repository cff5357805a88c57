"""Training, measured: epoch time, time to the best validation, peak memory, utilisation.

It needs torch, numpy, scipy and numba alone: configurations are read here and not by
`training.configuration`, whose checks need pydantic.
"""

from __future__ import annotations

import argparse
import ast
import json
import resource
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal, cast, get_args, get_origin, get_type_hints

sys.path.insert(0, str(Path(__file__).parents[1]))

import torch

from training.data.loading import load_data_set
from training.experiments.operations import operations_of
from training.results import machine
from training.settings import TrainingSettings
from training.trained import losses_to_try, train_kdiffe

GIB = 2**30


class Stopwatch:
    """An observer that notes when each epoch of each fit ended, and how long each phase took."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.phases: dict[str, float] = {}
        self.fits: list[list[float]] = []
        self._phase = ""

    def phase(self, name: str, total: int, share: float) -> None:  # noqa: ARG002
        """A phase begins."""
        self._phase = name
        if name == "fitting":
            self.fits.append([])
        self.phases.setdefault(name, 0.0)
        self._mark = time.perf_counter()

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:  # noqa: ARG002
        """Steps are done."""
        now = time.perf_counter()
        self.phases[self._phase] += now - self._mark
        self._mark = now
        if self._phase == "fitting":
            self.fits[-1].append(now - self.began)
            shown = "  ".join(f"{name} {value:.4f}" for name, value in (figures or {}).items())
            print(f"epoch {len(self.fits[-1])}  {shown}", file=sys.stderr)

    def note(self, text: str) -> None:
        """Show it."""
        print(text, file=sys.stderr)


class Utilisation:
    """The GPU's utilisation as nvidia-smi sees it, sampled while the block runs; nothing where there is none."""

    def __init__(self) -> None:
        self.samples: list[float] = []
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Utilisation:
        command = shutil.which("nvidia-smi")
        if command is not None and torch.cuda.is_available():
            query = [command, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits", "-lms", "200"]
            self._process = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            threading.Thread(target=self._read, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait()

    def _read(self) -> None:
        assert self._process is not None and self._process.stdout is not None  # noqa: PT018
        for line in self._process.stdout:
            if line.strip().isdigit():
                self.samples.append(float(line))


def read_settings(config: Path | None, overrides: Sequence[str]) -> TrainingSettings:
    """Settings from a TOML file and `section.key=value` overrides; values must have the default's type."""
    values: dict[str, dict[str, Any]] = {}
    if config is not None:
        values = tomllib.loads(config.read_text(encoding="utf-8"))
    for override in overrides:
        name, _, text = override.partition("=")
        section, _, key = name.partition(".")
        try:
            value = ast.literal_eval({"true": "True", "false": "False"}.get(text, text))
        except (ValueError, SyntaxError):
            value = text
        values.setdefault(section, {})[key] = value
    sections = {f.name: getattr(TrainingSettings(), f.name) for f in fields(TrainingSettings)}
    for section, given in values.items():
        if section not in sections or not is_dataclass(sections[section]):
            sys.exit(f"unknown section {section!r}; there are: {', '.join(sections)}")
        known = {f.name for f in fields(sections[section])}
        if not set(given) <= known:
            sys.exit(f"unknown keys {sorted(set(given) - known)} in [{section}]; there are: {', '.join(sorted(known))}")
        try:
            made = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
            for key, value in made.items():
                check_type(sections[section], section, key, value)
            sections[section] = replace(sections[section], **made)
        except ValueError as error:
            sys.exit(f"[{section}]: {error}")
    return TrainingSettings(**sections)


def check_type(section: Any, name: str, key: str, value: object) -> None:
    """Refuse a value that is no choice, or not of the setting's type; a whole number is a number."""
    kind = get_type_hints(type(section))[key]
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            sys.exit(f"{name}.{key} = {value!r}: choose {', '.join(map(str, get_args(kind)))}")
    elif kind in (bool, int, float, str):
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits:
            sys.exit(f"{name}.{key} = {value!r}: a value of type {kind.__name__} is expected")


def measure(path: Path, settings: TrainingSettings) -> dict[str, Any]:
    """Train one set to its end and tell what it took."""
    data = load_data_set(path, settings.split)
    watch = Stopwatch()
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with Utilisation() as gpu:
        trained = train_kdiffe(data, settings, watch)
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    seconds = [epoch.seconds for epoch in trained.fit.history]
    best = trained.fit.best_epoch
    served = losses_to_try(settings, bool(len(data.valid))).index(cast("Any", trained.settings.loss.kind))
    # ru_maxrss is in KiB, but in bytes on macOS.
    peak = after.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "data": data.name,
        "users": data.n_users,
        "items": data.n_items,
        "interactions": len(data.train),
        "model": settings.model.kind,
        "device": trained.device,
        "fits": len(watch.fits),
        "epochs": len(seconds),
        "epoch_s": {"first": round(seconds[0], 3), "median": round(median(seconds[1:] or seconds), 3)},
        "best_epoch": best,
        "time_to_best_s": round(watch.fits[served][best - 1], 2),
        "total_s": round(wall, 2),
        "phases_s": {name: round(value, 2) for name, value in watch.phases.items()},
        "validation": {name: round(value, 4) for name, value in trained.metrics.items()},
        "validation_without_table": {name: round(value, 4) for name, value in trained.fit.best_metrics.items()},
        "peak_memory_gib": round(peak / GIB, 2),
        "peak_gpu_memory_gib": round(torch.cuda.max_memory_allocated() / GIB, 2) if trained.device == "cuda" else None,
        "cpu_utilisation": round(cpu / wall / (machine()["cores"]), 3),
        "gpu_utilisation_percent": round(sum(gpu.samples) / len(gpu.samples), 1) if gpu.samples else None,
        "diffusion_operations_an_epoch": operations_of(data, settings),
    }


def main() -> None:
    """Measure and print one JSON object a data set, each in a process of its own: peaks don't mix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--config", type=Path, help="a TOML file, such as training/configurations/tiktok.toml")
    parser.add_argument("--set", action="append", default=[], metavar="section.key=value")
    parser.add_argument("--epochs", type=int, help="most epochs, for a quick look")
    parser.add_argument("--precision", choices=("highest", "high", "medium"), default="highest", help="high is tf32")
    options = parser.parse_args()
    if len(options.data) > 1:
        others = [word for word in sys.argv[1:] if word not in {"--data", *map(str, options.data)}]
        for path in options.data:
            subprocess.run([sys.executable, __file__, "--data", str(path), *others], check=True)
        return
    torch.set_float32_matmul_precision(options.precision)
    settings = read_settings(options.config, options.set)
    if options.epochs is not None:
        settings = replace(settings, optimiser=replace(settings.optimiser, max_epochs=options.epochs))
    report = measure(options.data[0], settings)
    print(
        json.dumps({**report, "precision": options.precision, "machine": machine(), "threads": torch.get_num_threads()})
    )


if __name__ == "__main__":
    main()
