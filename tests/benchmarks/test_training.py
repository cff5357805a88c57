from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the benchmark trains with torch")

from tests.training.worlds import clips
from training.data.formats import write_data_set

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "training.py"

# Runs a script as if the packages that are not allowed were not installed.
GUARDED = """
import runpy, sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in HIDDEN else self.finder.find_spec(name, path, target)

HIDDEN = set(sys.argv.pop(1).split(","))
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def required(*names: str) -> set[str]:
    """Some distributions and everything that they require, extras left out."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in found:
            continue
        found.add(name)
        try:
            left += [re.split(r"[^\w.-]", line)[0] for line in requires(name) or () if "extra ==" not in line]
        except PackageNotFoundError:
            continue
    return found


def test_it_measures_with_torch_numpy_scipy_and_numba_alone(tmp_path: Path) -> None:
    data = clips()
    write_data_set(data, tmp_path / "clips", "recbole")
    allowed = required("torch", "numpy", "scipy", "numba")
    own = {"model_store", "training", "service"}
    hidden = {
        module
        for module, distributions in packages_distributions().items()
        if module not in own and not {re.sub(r"[-_.]+", "-", d).lower() for d in distributions} & allowed
    }
    assert {"pydantic", "rich", "typer"} <= hidden
    config = tmp_path / "small.toml"
    config.write_text("[model]\nwidth = 8\n[optimiser]\nevaluate_every = 1\n")
    words = [str(SCRIPT), "--data", str(tmp_path / "clips"), "--config", str(config), "--epochs", "2"]
    words += ["--set", "optimiser.min_batches=1", "--set", "item_item.l2=5"]
    command = [sys.executable, "-c", GUARDED, ",".join(sorted(hidden)), *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    for wrong, said in (("loss.kind=sofmax", "choose auto, bpr, softmax"), ("loss.n_negatives=1.5", "of type int")):
        refused = subprocess.run([*command, "--set", wrong], check=False, capture_output=True, text=True, timeout=100)
        assert refused.returncode == 1
        assert said in refused.stderr
    report = json.loads(done.stdout)
    assert (report["users"], report["items"], report["epochs"]) == (data.n_users, data.n_items, 2)
    assert report["best_epoch"] in {1, 2}
    assert 0 < report["time_to_best_s"] <= report["total_s"]
    assert report["epoch_s"]["median"] > 0
    assert report["peak_memory_gib"] > 0
    assert 0 <= report["validation"]["ndcg@20"] <= 1
    assert report["diffusion_operations_an_epoch"]["training"] > 0
