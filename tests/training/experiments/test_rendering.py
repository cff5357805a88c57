from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from training.errors import ResultsError
from training.experiments.rendering import figures_of, markdown, read_all, read_serving, render
from training.results import Record, Results

ROOT = Path(__file__).parents[3]
MACHINE = {"cpu": "abacus", "cores": 2, "memory_gib": 8, "gpu": None, "python": "3", "torch": "9"}


def record(model: str, seed: int, recall: float, **changes: object) -> Record:
    made = Record(
        kind="comparison",
        data="tiktok",
        fingerprint="f",
        model=model,
        parameter="",
        value=None,
        seed=seed,
        split="test",
        settings_digest="d",
        metrics={"recall@20": recall, "ndcg@20": recall / 2},
        facts={"base": "b", "slices": {}},
        machine=MACHINE,
        command=f"kdiffe compare --seeds {seed}",
        at="2026-05-06T00:00:00Z",
    )
    return replace(made, **changes)  # type: ignore[arg-type]


def rows(text: str) -> dict[str, list[str]]:
    """First cell → the other cells of a document's rows, the first row of each."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line.startswith("|"):
            first, *others = [cell.strip() for cell in line.strip("|").split("|")]
            found.setdefault(first, others)
    return found


def test_the_committed_document_is_what_the_committed_records_give() -> None:
    document = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    records = ROOT / "benchmarks" / "results"
    assert document == render(read_all(records), read_serving(records)), "run `kdiffe results`"


def test_the_figures_that_the_document_shows_are_committed() -> None:
    records = read_all(ROOT / "benchmarks" / "results")
    document = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    figures = figures_of(records)
    assert set(re.findall(r"\]\((images/[^)]+)\)", document)) == set(figures)
    for name in figures:  # other versions of the library draw other bytes
        assert "share of the user" in (ROOT / "docs" / name).read_text(encoding="utf-8"), "run `kdiffe results`"


def faithful(order: str, deletion: float, at: str = "2026-05-06T00:00:00Z", digest: str = "d") -> Record:
    names = ["insertion", *(f"{part}@{n}" for part in ("pos", "del", "ins") for n in (1, 5, 20))]
    curve = [1 - n / 20 for n in range(21)]
    facts = {
        "least": 2,
        "n": 9,
        "slices": {
            "2 to 4": {"n": 5, "deletion": deletion + 0.1},
            "20 or more": {"n": 4, "deletion": deletion - 0.1},
        },
        "deletion": curve,
        "insertion": curve[::-1],
        "timed": False,
        "best": {"n": 5, "best": 0.4, "random": 0.55, "ours": 0.41},
    }
    metrics = {"deletion": deletion, **dict.fromkeys(names, 0.5)}
    changes = {"kind": "faithfulness", "parameter": "curves 2", "value": order, "split": "train"}
    return record("kdiffe", 0, 0.1, metrics=metrics, facts=facts, at=at, settings_digest=digest, **changes)


def test_faithfulness_has_a_row_an_order_their_ratios_and_the_newest_run_alone() -> None:
    old = [faithful("contribution", 0.9, digest="old"), faithful("random", 0.9, digest="old")]
    new = [faithful(name, area, "2026-05-07T00:00:00Z") for name, area in (("random", 0.5), ("contribution", 0.2))]
    text = render([*old, *new])
    assert rows(text)["contribution (the explanation)"][0] == "0.200"
    assert rows(text)["random"][0] == "0.500"
    assert text.index("| contribution") < text.index("| random")
    assert "times that of the explanation's order: random 2.50." in text
    assert rows(text)["2 to 4"] == ["5", "0.300", "0.600"]
    assert "the best order has 0.400, the explanation's 0.410, random ones 0.550" in text
    assert "recency is the place in the file" in text
    (name,) = figures_of([*old, *new])
    assert f"]({name})" in text
    assert "0.900" not in text


def test_a_comparison_shows_mean_and_spread_with_and_without_b_and_where_it_was_measured() -> None:
    without = {"recall@20": 0.05, "ndcg@20": 0.02}
    text = render(
        [
            record("kdiffe", 0, 0.10, without_table=without, epochs=7, chosen={"table_weight": 2.0}),
            record("kdiffe", 1, 0.12, without_table=without),
            record("ease", 0, 0.08),
        ]
    )
    found = rows(text)
    # s = √((.01² + .01²)/1) = .0141
    assert found["kdiffe"][:5] == ["0.1100 ± 0.0141", "0.0550 ± 0.0071", "0.0500 ± 0.0000", "0.0200 ± 0.0000", "0, 1"]
    assert found["kdiffe"][6] == "7 epochs, B × 2"
    assert found["ease"][:5] == ["0.0800", "0.0400", "–", "–", "0"]
    assert found["KDiffE as published"][:2] == [".112", ".046"]
    assert "`kdiffe compare --seeds 0`; `kdiffe compare --seeds 1`. 2026-05-06. abacus, 2 cores, 8 GiB, no GPU" in text
    assert text.index("| ease") < text.index("| kdiffe")  # the peers first


def test_of_older_and_newer_settings_the_newer_are_shown() -> None:
    old = record("kdiffe", 0, 0.10)
    new = record("kdiffe", 1, 0.20, settings_digest="e", at="2026-05-07T00:00:00Z")
    assert rows(render([new, old]))["kdiffe"][0] == "0.2000"
    assert rows(render([old, record("ease", 0, 0.3, fingerprint="g", at="2026-05-07")])).keys() >= {"ease"}
    assert "kdiffe" not in rows(render([old, record("ease", 0, 0.3, fingerprint="g", at="2026-05-07")]))


def test_paired_tests_are_shown_only_beside_the_runs_that_they_compare() -> None:
    runs = [record("kdiffe", 0, 0.10), record("ease", 0, 0.08)]
    figures = {"difference": 0.02, "low": 0.01, "high": 0.03, "p_t": 0.0004, "p_holm": 0.0008}
    facts = {"of": "comparison", "metric": "recall@20", "runs": [[run.key[:16]] for run in runs]}
    test = record("kdiffe", 0, 0, kind="significance", value="ease", metrics=figures, facts=facts)
    shown = "+0.0200 [+0.0100, +0.0300], p < .001"
    assert rows(render([*runs, test]))["kdiffe less ease"] == [shown, "–"]
    more = record("kdiffe", 1, 0.2)  # a second seed, which the test has not seen
    assert "kdiffe less ease" not in rows(render([*runs, more, test]))


def test_the_paired_tests_that_are_shown_are_one_family_whatever_calls_they_are_of() -> None:
    runs = [record("kdiffe", 0, 0.10), record("ease", 0, 0.08), record("popularity", 0, 0.08)]
    tests = [
        record(
            "kdiffe",
            0,
            0,
            kind="significance",
            value=other.model,
            metrics={"difference": 0.02, "low": 0.01, "high": 0.03, "p_t": p, "p_holm": p},
            facts={"of": "comparison", "metric": "recall@20", "runs": [[runs[0].key[:16]], [other.key[:16]]]},
        )
        for other, p in zip(runs[1:], (0.02, 0.03), strict=True)
    ]
    shown = rows(render([*runs, *tests]))
    assert [shown[f"kdiffe less {name}"][0][-7:] for name in ("ease", "popularity")] == ["p 0.040", "p 0.040"]


def test_sweeps_stand_in_the_order_of_their_values() -> None:
    runs = [
        record("kdiffe", 0, v / 100, kind="sweep", parameter="q", value=v, at=f"2026-05-{v:02d}T00:00:00Z")
        for v in (10, 9, 2)
    ]
    text = render(runs)
    assert re.findall(r"^\| (\d+) \|", text, flags=re.MULTILINE) == ["2", "9", "10"]
    assert "**Entities kept of an item, q**" in text


def test_time_is_shown_with_its_operations() -> None:
    facts = {
        "base": "b",
        "n_users": 1000,
        "n_interactions": 5000,
        "operations": {"training": 7 * 10**9, "reverse": 3 * 10**9},
    }
    run = record(
        "kdiffe", 0, 0, kind="timing", parameter="steps", value=10, split="", seconds=1.5, metrics={}, facts=facts
    )
    none = replace(run, value=20, facts={**facts, "operations": None})
    lines = [line for line in render([run, none]).splitlines() if line.startswith("| T")]
    assert lines == [
        "| T | 10 | 1.50 | 1,000 | 5,000 | 10.00 G | 7.00 G | 3.00 G |",
        "| T | 20 | 1.50 | 1,000 | 5,000 | – | – | – |",
    ]


def test_tuning_shows_the_best_trials_first() -> None:
    runs = [
        record(
            "kdiffe",
            0,
            v,
            kind="tuning",
            parameter="trial",
            value=number,
            split="valid",
            metrics={"recall@20": v, "ndcg@20": v, "objective": v},
            chosen={"model.width": number},
            facts={"study": "s", "splits": 3},
        )
        for number, v in enumerate([0.1, 0.3, 0.2])
    ]
    text = render(runs)
    assert re.findall(r"model.width = (\d)", text) == ["1", "2", "0"]
    assert "The best of 3 finished trials, means over 3 splits." in text


def test_serving_is_shown_beside_the_bare_route(tmp_path: Path) -> None:
    assert read_serving(tmp_path) is None
    assert "## Serving\n\nNo records yet." in render([])
    read = {"per_cpu_s": 1000.4, "p50_ms": 2.0, "p99_ms": 4.25}
    measured = {
        "users": 1200,
        "items": 30,
        "width": 8,
        "index": "exact",
        "connections": 4,
        "rounds": 2,
        "seconds": 1.5,
        "reads": {"bare": read, "list": {**read, "per_cpu_s": 500.2, "p99_ms": 8.5}},
        "ratios": {"list": {"requests_per_cpu_s_to_ceiling": 0.5, "p99_to_ceiling": 2.0}},
        "interactions": {"requests_per_s": 2345.6, "p50_ms": 1.0, "p99_ms": 3.0},
    }
    (tmp_path / "serving.json").write_text(json.dumps(measured))
    text = render([], read_serving(tmp_path))
    assert rows(text)["bare"] == ["1,000", "–", "2.0", "4.2", "–"]
    assert rows(text)["list"] == ["500", "0.50", "2.0", "8.5", "2.00"]
    assert "1,200 users" in text
    assert "2,346 durable writes a second" in text
    for damaged in ("{", "[]"):
        (tmp_path / "serving.json").write_text(damaged)
        with pytest.raises(ResultsError, match="JSON"):
            read_serving(tmp_path)


def test_records_of_several_files_are_read_together(tmp_path: Path) -> None:
    Results(tmp_path / "a.jsonl").append([(record("ease", 0, 0.1), None)])
    Results(tmp_path / "b.jsonl").append([(record("ease", 0, 0.2), None), (record("kdiffe", 0, 0.3), None)])
    assert [r.metrics["recall@20"] for r in read_all(tmp_path)] == [0.2, 0.3]
    with pytest.raises(ResultsError, match="no such folder"):
        read_all(tmp_path / "gone")


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert markdown(("a",), [["x|y"]]).splitlines()[-1] == "| x\\|y |"
