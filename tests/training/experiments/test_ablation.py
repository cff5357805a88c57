from __future__ import annotations

from dataclasses import asdict, replace

import pytest

from tests.training.experiments.worlds import lab
from tests.training.worlds import clips, small, without_graph
from training.data.dataset import DataSet
from training.errors import ConfigurationError
from training.experiments.ablation import FULL, NO_TABLE, VARIANTS, ablate, ablation_of, changed
from training.experiments.tables import ablation_rows

CLIPS = clips()
BARE = replace(without_graph(CLIPS), features={})
NO_B = "fitted without B"
USUAL = set(VARIANTS) - {"without multimodal", "plain readout", "strongest"}
DIFFMM = {"kind": "diffmm", "views": ["knowledge", "multimodal"]}
BOTH = small(
    model={"views": ["knowledge", "multimodal"], "readout_growth": 1.5},
    contrast={"weight": 0.01},
    diffusion={"draw_temperature": 1.0},
)


def differing(one: object, two: object) -> dict[str, object]:
    """Dotted name → the second's value, where two settings differ."""
    pairs = [(f"{s}.{k}", v, asdict(two)[s][k]) for s, part in asdict(one).items() for k, v in part.items()]  # type: ignore[call-overload]
    return {name: second for name, first, second in pairs if first != second}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("KDiffE_1", {"model.similarity_weight": 0.0}),
        ("KDiffE_2", {"diffusion.guided": False}),
        ("KDiffE_3", {"contrast.weight": 0.0}),
        ("KDiffE_4", {"diffusion.graph": "random"}),
        ("strongest", {"diffusion.draw_temperature": 0.0}),
        ("noise", {"contrast.view": "noise"}),
        ("without knowledge", {"model.knowledge": False}),
        ("without multimodal", {"model.views": ("knowledge",)}),
        ("plain readout", {"model.readout_growth": 1.0}),
        ("fitted without B", {"item_item.method": "none"}),
    ],
)
def test_a_variant_changes_its_own_settings_alone(name: str, expected: dict[str, object]) -> None:
    assert differing(BOTH, changed(BOTH, VARIANTS[name].overrides)) == expected
    runs, _ = ablate(CLIPS, BOTH, 1, [name])
    assert [differing(BOTH, run.settings) for run in runs] == [{}, expected]


@pytest.mark.parametrize(
    ("data", "sections", "there"),
    [
        (
            CLIPS,
            {
                "model": {"views": ["knowledge", "multimodal"], "readout_growth": 1.5},
                "diffusion": {"draw_temperature": 1.0},
            },
            set(VARIANTS),
        ),
        (CLIPS, {}, USUAL),
        (CLIPS, {"contrast": {"weight": 0.0}}, {"KDiffE_1", "without knowledge", NO_B}),
        (CLIPS, {"contrast": {"view": "noise"}}, {"KDiffE_1", "KDiffE_3", "without knowledge", NO_B}),
        (CLIPS, {"diffusion": {"graph": "random"}}, {"KDiffE_1", "KDiffE_3", "noise", "without knowledge", NO_B}),
        (CLIPS, {"model": {"knowledge": False}}, {"KDiffE_1", NO_B}),
        (without_graph(CLIPS), {}, USUAL),  # entities from features
        (without_graph(CLIPS), {"entities": {"source": "never"}}, {"KDiffE_1", NO_B}),
        (BARE, {"item_item": {"method": "none"}}, {"KDiffE_1"}),
        (BARE, {"item_item": {"weight": 0.0}, "contrast": {"view": "noise"}}, {"KDiffE_1", "KDiffE_3"}),
        (BARE, {"model": {"similarity_weight": 0.0}}, {NO_B}),
        # DiffMM generates whatever is contrasted, and has neither entities nor noise nor views to choose.
        (CLIPS, {"model": DIFFMM}, {"KDiffE_1", "KDiffE_2", "KDiffE_3", "KDiffE_4", NO_B}),
        (CLIPS, {"model": DIFFMM, "contrast": {"weight": 0.0}}, {"KDiffE_1", "KDiffE_2", "KDiffE_4", NO_B}),
        (CLIPS, {"model": DIFFMM, "diffusion": {"graph": "random"}}, {"KDiffE_1", "KDiffE_3", NO_B}),
    ],
)
def test_only_variants_whose_part_is_there_are_run(
    data: DataSet, sections: dict[str, dict[str, object]], there: set[str]
) -> None:
    runs, left_out = ablate(data, small(**sections), 2)
    assert [run.value for run in runs].count(FULL) == 2
    assert {run.value for run in runs} == there | {FULL}
    assert set(left_out) == set(VARIANTS) - there
    assert {run.seed for run in runs} == {0, 1}


def test_an_unknown_variant_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown \['KDiffE_9'\]; there are: KDiffE_1"):
        ablate(CLIPS, small(), 1, ["KDiffE_9"])


def test_the_full_model_is_compared_in_pairs_with_each_variant_with_and_without_b() -> None:
    place = lab(data=CLIPS)
    runs, _ = ablate(CLIPS, small(item_item={"weight": 5.0}), 1, ["KDiffE_1"])
    found = ablation_of(place, [r for run in runs for r in place.run(run)], "test")
    assert list(found.records) == [FULL, "KDiffE_1"]
    pairs = {(r.model, r.value): r for r in found.significance if r.facts["metric"] == "recall@20"}
    bare = f"{FULL}, {NO_TABLE}"
    assert set(pairs) == {(FULL, "KDiffE_1"), (bare, f"KDiffE_1, {NO_TABLE}"), (FULL, NO_TABLE)}
    full, variant = (found.records[name][0] for name in (FULL, "KDiffE_1"))
    for (first, second), difference in {
        (FULL, "KDiffE_1"): full.metrics["recall@20"] - variant.metrics["recall@20"],
        (bare, f"KDiffE_1, {NO_TABLE}"): full.without_table["recall@20"] - variant.without_table["recall@20"],
        (FULL, NO_TABLE): full.metrics["recall@20"] - full.without_table["recall@20"],
    }.items():
        assert pairs[first, second].metrics["difference"] == pytest.approx(difference, abs=1e-7)
    rows = ablation_rows(found.records, found.significance)
    assert [row[0] for row in rows] == [FULL, "KDiffE_1", NO_TABLE]
    assert rows[1][2] == f"{variant.metrics['recall@20']:.4f}"
    assert rows[2][2:4] == rows[0][6:8] == [f"{full.without_table[m]:.4f}" for m in ("recall@20", "ndcg@20")]
    assert rows[1][4].startswith(f"{pairs[FULL, 'KDiffE_1'].metrics['difference']:+.4f} [")


def test_a_model_that_was_fitted_without_b_is_compared_once() -> None:
    place = lab(data=CLIPS)
    runs, _ = ablate(CLIPS, small(item_item={"weight": 5.0}), 1, [NO_B])
    found = ablation_of(place, [r for run in runs for r in place.run(run)], "test")
    pairs = {(r.model, r.value) for r in found.significance}
    assert pairs == {(FULL, NO_B), (FULL, NO_TABLE)}
    full, variant, no_table = ablation_rows(found.records, found.significance)
    assert variant[2:4] == [f"{found.records[NO_B][0].metrics[m]:.4f}" for m in ("recall@20", "ndcg@20")]
    assert variant[6:10] == ["–"] * 4
    assert no_table[2:4] == full[6:8]


def test_all_runs_of_an_ablation_name_the_full_model_s_settings() -> None:
    one, two = (ablate(CLIPS, settings, 1)[0] for settings in (small(), small(model={"width": 9})))
    assert len({run.base for run in one}) == 1
    assert {run.base for run in one} != {run.base for run in two}
