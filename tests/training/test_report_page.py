from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from training.evaluation import LENGTHS
from training.labels import NAMES, SLICE_NAMES
from training.page import Page, Plot, Table, Text, to_html
from training.report_page import Version, report_page
from training.results import Record


def evaluation(start: float) -> dict[str, Any]:
    """An evaluation whose figures are all different: start, start + .0001, ..."""
    keys = [f"{name}@{k}" for name in NAMES for k in LENGTHS]
    figures = {key: start + n / 10_000 for n, key in enumerate(keys)}
    slices = {
        name: {
            "what": f"What {name} is.",
            "n_users": 1000 + n,
            "n_interactions": 2000 + n,
            "metrics": {} if name == "users_over_50" else {"recall@20": start + n / 100, "ndcg@20": start - n / 100},
        }
        for n, name in enumerate(sorted(SLICE_NAMES))
    }
    return {
        **figures,
        "n_users": 1234,
        "n_interactions": 5678,
        "standard_errors": {"recall@20": 0.0123, "ndcg@20": 0.0045},
        "slices": slices,
    }


REPORT: Mapping[str, Any] = {
    "report_version": 1,
    "model": {
        "kind": "kdiffe",
        "settings_digest": "abcdef0123456789",
        "width": 8,
        "views": ["knowledge", "multimodal"],
        "table_weight": 12.5,
        "table_entries": 4321,
        "triplets": 77,
        "entities": 66,
        "relations": 5,
    },
    "data": {
        "name": "clips",
        "fingerprint": "f" * 64,
        "n_users": 2001,
        "n_items": 3002,
        "interactions": {"train": 40_003, "valid": 504, "test": 605},
        "density": 0.0125,
        "triplets": 70,
        "entities": 60,
        "relations": 4,
        "modalities": {"visual": 64, "text": 48},
        "items_in_graph": 2900,
        "items_with_features": 2800,
    },
    "curve": {
        "selected_by": "ndcg@20",
        "best_epoch": 4,
        "epochs": [
            {
                "epoch": n,
                "loss": 2.0 / n,
                "seconds": 0.25 * n,
                "metrics": {"recall@20": n / 10, "ndcg@20": n / 20, "n_users": 9} if n % 2 == 0 else {},
            }
            for n in range(1, 7)
        ],
    },
    "validation": {"masked": ["train"], "served": evaluation(0.3), "without_table": evaluation(0.2)},
    "explanations": {
        "self": 0.256,
        "link": 0.111,
        "attention": 0.022,
        "direct": 0.6,
        "n_users": 256,
        "n_recommendations": 2560,
        "largest_additivity_error": 3.2e-8,
    },
    "machine": {"cpu": "A processor", "device": "cpu", "seconds": 1234.5, "peak_memory_bytes": 3 * 2**29, "gpu": None},
}
SETTINGS = {"model": {"width": 8, "views": ["knowledge"]}, "run": {"seed": 0}}
FIRST = Version("v0001", "2026-01-02T03:04:05Z", SETTINGS, REPORT)


def changed(**parts: Any) -> dict[str, Any]:
    return {**copy.deepcopy(dict(REPORT)), **parts}


def tables(page: Page, title: str) -> list[Table]:
    """The tables of a section."""
    (section,) = [section for section in page.sections if section.title == title]
    return [part for part in section.parts if isinstance(part, Table)]


def row(table: Table, name: str) -> list[str]:
    """The cells of the row of that name."""
    (found,) = [cells for cells in table.rows if cells[0] == name]
    return list(found[1:])


def words(page: Page, title: str) -> str:
    (section,) = [section for section in page.sections if section.title == title]
    return " ".join(part.text for part in section.parts if isinstance(part, Text))


def captions(page: Page) -> list[str]:
    return [part.caption for section in page.sections for part in section.parts if isinstance(part, Plot)]


# ---- versions --------------------------------------------------------------------------------------------------------


def test_every_figure_of_the_validation_stands_in_its_cell_with_b_and_without() -> None:
    page = report_page([FIRST])
    (table,) = tables(page, "Validation")
    assert list(table.columns) == ["", "v0001", "± s.e.", "v0001, B = 0"]
    assert len(table.rows) == len(NAMES) * len(LENGTHS)
    served, bare = REPORT["validation"]["served"], REPORT["validation"]["without_table"]
    assert row(table, "NDCG@20") == [f"{served['ndcg@20']:.4f}", "0.0045", f"{bare['ndcg@20']:.4f}"]
    assert row(table, "Novelty@5, bits") == [f"{served['novelty@5']:.4f}", "–", f"{bare['novelty@5']:.4f}"]
    assert [cells[0] for cells in table.rows][:4] == ["Recall@5", "Recall@10", "Recall@20", "NDCG@5"]
    assert "1,234 users, 5,678 interactions" in words(page, "Validation")


def test_slices_stand_in_their_order_with_sizes_and_figures_and_empty_ones_without() -> None:
    (table,) = tables(report_page([FIRST]), "Slices")
    assert [cells[0] for cells in table.rows] == list(SLICE_NAMES.values())
    number = sorted(SLICE_NAMES).index("users_to_5")
    assert row(table, SLICE_NAMES["users_to_5"]) == [
        f"{1000 + number:,}",
        f"{2000 + number:,}",
        *(f"{start + sign * number / 100:.4f}" for start in (0.3, 0.2) for sign in (1, -1)),
    ]
    assert row(table, SLICE_NAMES["users_over_50"])[2:] == ["–"] * 4
    assert "What items_unseen is." in words(report_page([FIRST]), "Slices")


def test_facts_of_model_data_and_machine_are_those_of_the_report() -> None:
    page = report_page([FIRST])
    (model,) = tables(page, "Model")
    data, machine = tables(page, "Data and machine")
    for table, name, value in (
        (model, "model", "kdiffe"),
        (model, "kept epoch", "4"),
        (model, "self share of explanations", "25.6%"),
        (model, "weight of B", "12.5"),
        (model, "views", "knowledge, multimodal"),
        (model, "settings", "abcdef012345"),
        (data, "users", "2,001"),
        (data, "train interactions", "40,003"),
        (data, "density", "1.250e-02"),
        (data, "modalities", "visual (64), text (48)"),
        (machine, "seconds", "1,234.5"),
        (machine, "peak memory", "1.50 GiB"),
    ):
        assert row(table, name) == [value]
    assert "GPU" not in [cells[0] for cells in machine.rows]  # there was none
    (shares,) = tables(page, "Explanations")
    assert [row(shares, name) for name in ("self", "link", "attention", "direct (B)")] == [
        ["25.6%"],
        ["11.1%"],
        ["2.2%"],
        ["60.0%"],
    ]


def test_the_curve_is_drawn_and_its_evaluated_epochs_are_a_table() -> None:
    page = report_page([FIRST])
    (table,) = tables(page, "Training")
    assert [list(cells) for cells in table.rows] == [
        [str(n), f"{2 / n:.5g}", f"{n / 10:.4f}", f"{n / 20:.4f}", f"{n / 4:.2f}"] for n in (2, 4, 6)
    ]
    (plot,) = [part for section in page.sections for part in section.parts if isinstance(part, Plot)]
    metrics, losses = plot.figure.axes
    assert [line.get_ydata().tolist() for line in metrics.get_lines()[:2]] == [[0.2, 0.4, 0.6], [0.1, 0.2, 0.3]]
    assert list(losses.get_lines()[0].get_ydata()) == [2 / n for n in range(1, 7)]
    assert "epoch 4 was kept" in plot.caption


def test_versions_stand_side_by_side_and_their_differing_settings_are_told() -> None:
    report = changed(validation={"masked": ["train"], "served": evaluation(0.4), "without_table": None})
    second = Version("v0002", "2026-02-03T04:05:06Z", {**SETTINGS, "run": {"seed": 7}}, report)
    page = report_page([FIRST, second])
    (model,) = tables(page, "Model")
    assert list(model.columns) == ["", "v0001", "v0002"]
    served = [version.report["validation"]["served"]["recall@20"] for version in (FIRST, second)]
    assert row(model, "validation Recall@20") == [f"{value:.4f}" for value in served]
    assert row(model, "the same without B, Recall@20")[1] == "–"
    (metrics,) = tables(page, "Validation")
    assert list(metrics.columns) == ["", "v0001", "± s.e.", "v0001, B = 0", "v0002", "± s.e."]
    differing, everything = tables(page, "Settings")
    assert [list(cells) for cells in differing.rows] == [["run.seed", "0", "7"]]
    assert len(everything.rows) == 3
    assert len(captions(page)) == 2
    same = tables(report_page([FIRST, Version("v0003", "", SETTINGS, REPORT)]), "Settings")
    assert len(same) == 1


def test_versions_of_other_data_are_said_not_to_be_comparable() -> None:
    other = Version("v0002", "", SETTINGS, changed(data={**REPORT["data"], "fingerprint": "0" * 64}))
    assert "can't be compared" in words(report_page([FIRST, other]), "Validation")
    same = Version("v0002", "", SETTINGS, REPORT)
    assert "can't be compared" not in words(report_page([FIRST, same]), "Validation")


def test_a_version_without_validation_says_whose_figures_it_carries_or_shows_none() -> None:
    carried = {"data": changed()["data"], "curve": {"selected_by": "ndcg@20", "best_epoch": 3, "epochs": []}}
    retrained = Version("v0002", "", SETTINGS, changed(refit=carried), selected_as="v0001")
    (model,) = tables(report_page([retrained]), "Model")
    assert row(model, "figures are those of") == ["v0001"]
    assert row(model, "epochs of the refit") == ["3"]
    bare = Version("v0003", "", SETTINGS, changed(validation=None, curve=None, explanations={"n_recommendations": 0}))
    titles = [section.title for section in report_page([bare]).sections]
    assert "Validation" not in titles
    assert "Training" not in titles
    assert "v0003" in to_html(report_page([bare]))


# ---- experiments -----------------------------------------------------------------------------------------------------


def record(
    kind: str, recall: float, *, without: float | None = None, seed: int = 0, model: str = "kdiffe", **more: Any
) -> Record:
    """A record whose NDCG@20 is half of its Recall@20."""
    values: dict[str, Any] = {
        "data": "clips",
        "fingerprint": "f" * 64,
        "parameter": "",
        "value": None,
        "split": "test",
        "settings_digest": "d" * 64,
        "epochs": 10,
        "seconds": 2.0,
        **more,
    }
    bare = {} if without is None else {"recall@20": without, "ndcg@20": without / 2}
    metrics = {"recall@20": recall, "ndcg@20": recall / 2}
    return Record(kind=kind, model=model, seed=seed, metrics=metrics, without_table=bare, **values)  # type: ignore[arg-type]


def test_a_comparison_ranks_models_by_the_mean_over_seeds_and_shows_the_spread() -> None:
    records = [
        record("comparison", 0.10, model="popularity", epochs=0),
        record("comparison", 0.20, without=0.15, seed=0),
        record("comparison", 0.26, without=0.17, seed=1),
    ]
    page = report_page([], records)
    assert page.title == "Experiments on clips"
    (table,) = tables(page, "Comparison: clips, test")
    assert [cells[0] for cells in table.rows] == ["kdiffe", "popularity"]
    # Mean .23, and for two values the sample deviation is their distance / √2.
    spreads = [0.06 / math.sqrt(2), 0.03 / math.sqrt(2), 0.02 / math.sqrt(2), 0.01 / math.sqrt(2)]
    means = [0.23, 0.115, 0.16, 0.08]
    cells = [f"{mean:.4f} ± {spread:.4f}" for mean, spread in zip(means, spreads, strict=True)]
    assert row(table, "kdiffe") == [*cells, "2", "10", "2.0"]
    assert row(table, "popularity") == ["0.1000", "0.0500", "–", "–", "1", "–", "2.0"]


def test_a_run_that_was_recorded_again_counts_once_and_the_last_time() -> None:
    (table,) = tables(
        report_page([], [record("comparison", 0.1), record("comparison", 0.2)]), "Comparison: clips, test"
    )
    assert row(table, "kdiffe")[0] == "0.2000"


def test_runs_of_other_settings_splits_or_data_are_never_averaged() -> None:
    records = [
        record("comparison", 0.1),
        record("comparison", 0.3, settings_digest="e" * 64),
        record("comparison", 0.5, split="valid"),
        record("comparison", 0.7, fingerprint="0" * 64),
    ]
    page = report_page([], records)
    found = {section.title: section.parts[1] for section in page.sections}
    other = "Comparison: clips, test (data 00000000, settings dddddddd)"
    assert set(found) == {
        "Comparison: clips, test (data ffffffff, settings dddddddd)",
        other,
        "Comparison: clips, valid",
    }
    mine = found["Comparison: clips, test (data ffffffff, settings dddddddd)"]
    assert isinstance(mine, Table)
    assert {cells[0]: cells[1] for cells in mine.rows} == {
        "kdiffe (dddddddd)": "0.1000",
        "kdiffe (eeeeeeee)": "0.3000",
    }


def test_an_ablation_shows_what_each_part_is_worth_against_the_full_model() -> None:
    varied = {"parameter": "variant", "facts": {"base": "b" * 64}}
    records = [
        record("ablation", 0.20, value="full", **varied),
        record("ablation", 0.16, value="KDiffE_1", settings_digest="1" * 64, **varied),
        record("ablation", 0.22, value="KDiffE_3", settings_digest="3" * 64, **varied),
    ]
    (table,) = tables(report_page([], records), "Ablation: clips, test")
    assert table.columns[5] == "NDCG@20 − full"
    assert {cells[0]: cells[5] for cells in table.rows} == {"full": "–", "KDiffE_1": "-0.0200", "KDiffE_3": "+0.0100"}


def test_a_sweep_is_a_line_over_its_values_in_ascending_order_with_b_and_without() -> None:
    def at(value: float, recall: float, seed: int = 0) -> Record:
        digest = f"{value:064}"
        more = {"parameter": "contrast.temperature", "value": value, "settings_digest": digest}
        return record("sweep", recall, without=recall / 2, seed=seed, **more)

    page = report_page([], [at(0.5, 0.3), at(0.1, 0.1), at(0.1, 0.2, seed=1), at(5.0, 0.25)])
    (section,) = page.sections
    assert section.title == "Sweep of contrast.temperature: clips, test"
    plot, table = section.parts
    assert isinstance(table, Table)
    assert isinstance(plot, Plot)
    assert [cells[0] for cells in table.rows] == ["0.1", "0.5", "5"]
    assert row(table, "0.1")[0] == f"0.1500 ± {0.1 / math.sqrt(2):.4f}"
    recall, ndcg = plot.figure.axes
    assert recall.get_xscale() == "log"  # 50 times
    drawn = [
        line.get_xydata().tolist() for axes in (recall, ndcg) for line in axes.get_lines() if line.get_marker() == "."
    ]
    assert drawn == [
        [pytest.approx([x, y * scale]) for x, y in ((0.1, 0.15), (0.5, 0.3), (5.0, 0.25))]
        for scale in (1, 0.5, 0.5, 0.25)
    ]


def test_values_that_are_texts_keep_the_order_of_their_runs() -> None:
    records = [
        record("sweep", 0.1 * n, parameter="walks", value=value, settings_digest=value * 16)
        for n, value in enumerate(("12x50", "6x25", "24x5"), 1)
    ]
    (table,) = tables(report_page([], records), "Sweep of walks: clips, test")
    assert [cells[0] for cells in table.rows] == ["12x50", "6x25", "24x5"]


def test_timing_is_seconds_over_the_value() -> None:
    records = [
        record("timing", 0.0, parameter="users", value=value, seconds=seconds, settings_digest=str(value))
        for value, seconds in ((1000, 2.0), (500, 1.25))
    ]
    (section,) = report_page([], records).sections
    plot, table = section.parts
    assert section.title == "Time against users: clips, test"
    assert isinstance(table, Table)
    assert isinstance(plot, Plot)
    assert [list(cells) for cells in table.rows] == [["500", "kdiffe", "1.25", "1"], ["1000", "kdiffe", "2", "1"]]
    assert plot.figure.axes[0].get_ylim()[0] == 0


def test_significance_stands_under_the_comparison_that_it_is_of() -> None:
    figures = {"difference": 0.0123, "low": 0.001, "high": 0.02, "p_t": 0.003, "p_wilcoxon": 0.00001, "p_holm": 0.006}
    pair = Record(
        kind="significance",
        data="clips",
        fingerprint="f" * 64,
        model="kdiffe",
        parameter="comparison: ndcg@20",
        value="ease",
        seed=0,
        split="test",
        settings_digest="p" * 64,
        metrics=figures,
        facts={"of": "comparison", "metric": "ndcg@20", "level": 0.95, "base": ""},
    )
    ablation = record("ablation", 0.2, value="full", parameter="variant")
    # Of two calls, each a family of its own then; the table's pairs are one family: Holm's 2 · .003 and 1 · .02.
    later = replace(pair, value="popularity", metrics={**figures, "p_t": 0.02, "p_holm": 0.02})
    page = report_page([], [record("comparison", 0.1), pair, later, ablation])
    _, tested = tables(page, "Comparison: clips, test")
    shown = ["NDCG@20", "+0.0123", "+0.0010 to +0.0200", "< .0001"]
    assert [list(cells) for cells in tested.rows] == [
        ["kdiffe − ease", *shown, "0.0030", "0.0060"],
        ["kdiffe − popularity", *shown, "0.0200", "0.0200"],
    ]
    assert tested.columns[3] == "95% interval"
    assert len(tables(page, "Ablation: clips, test")) == 1


def test_tuning_shows_the_best_trials() -> None:
    records = [
        record("tuning", n / 100, parameter="trial", value=n, chosen={"model.n_layers": n}, settings_digest=str(n))
        for n in range(15)
    ]
    (table,) = tables(report_page([], records), "Tuning: clips, test")
    assert [cells[0] for cells in table.rows][:2] == ["kdiffe, trial 14", "kdiffe, trial 13"]
    assert len(table.rows) == 10
    assert table.caption == "The best 10 of 15."


def test_versions_and_experiments_stand_on_one_page() -> None:
    page = report_page([FIRST], [record("comparison", 0.1)])
    titles = [section.title for section in page.sections]
    assert titles[0] == "Model"
    assert titles[-1] == "Comparison: clips, test"
    assert report_page([], []).sections == []
