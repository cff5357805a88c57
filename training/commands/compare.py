"""`kdiffe compare`: KDiffE beside its peers on one data set."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from model_store.command import console, write_json
from training.commands.options import Config, Data, Device, Json, Overrides, check_device, with_option
from training.comparison import MODELS
from training.comparison import compare as compare_models
from training.configuration import read_settings
from training.data.loading import load_data_set
from training.progress import Bars


def compare(
    data: Data,
    models: Annotated[str, typer.Option("--models", help="Comma-separated names.")] = ",".join(MODELS),
    seeds: Annotated[int, typer.Option("--seeds", help="Seeds of each model that draws.", min=1)] = 1,
    config: Config = None,
    overrides: Overrides = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Train every model, select on validation, report Recall@20 and NDCG@20 on the test split."""
    check_device(device)
    chosen = with_option(overrides, "run.device", None if device == "auto" else device)
    settings = read_settings(config, chosen)
    out = console()
    names = list(dict.fromkeys(name.strip() for name in models.split(",") if name.strip()))
    with Bars(out) as bars:
        results = compare_models(load_data_set(data, settings.split), names, seeds, settings, bars)
    table = Table("model", "Recall@20", "±", "NDCG@20", "±", "seeds", "chosen on validation (first seed)")
    for name, row in results.items():
        figures = [f"{row[key]:.4f}" for key in ("recall@20", "recall@20_std", "ndcg@20", "ndcg@20_std")]
        selected = row["chosen"]
        assert isinstance(selected, list)  # noqa: S101
        table.add_row(name, *figures, str(row["seeds"]), str(selected[0]))
    out.print(table)
    if as_json:
        write_json({"data": data.name, "models": results})
