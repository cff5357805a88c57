"""What a report says of a real, small training: every figure by another route."""

from __future__ import annotations

import json
import math
import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from model_store.store import ModelStore
from tests.training.worlds import Recorder, clips, matrix_of, small, without_graph
from training.data.dataset import DataSet, Interactions
from training.data.fingerprint import fingerprint
from training.data.log import Log
from training.export import kernel_embeddings, serving_form
from training.item_item import item_item_table
from training.labels import REPORT_VERSION
from training.observer import Silence
from training.report import (
    data_facts,
    explanation_shares,
    explanations_of,
    machine_facts,
    peak_memory,
    refitted,
    report_of,
    validation,
)
from training.results import settings_digest
from training.runs import retrain, train_on
from training.trained import Trained, train_kdiffe

DATA = clips()
TABLED = small(item_item={"l2": 5.0, "per_row": 6, "weight": 3.0})
MARK = "f" * 64


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train_kdiffe(DATA, TABLED, Silence())


def dense_table(trained: Trained) -> np.ndarray:
    table = item_item_table(trained.table, trained.table_weight)
    dense = np.zeros((DATA.n_items, DATA.n_items))
    for item in range(table.n_rows):
        for entry in range(table.indptr[item], table.indptr[item + 1]):
            dense[item, table.indices[entry]] = table.data[entry]
    return dense


def brute_force(scores: np.ndarray) -> tuple[float, float, float]:
    """Recall@20, NDCG@20 and coverage@5 of the validation split by a plain sort."""
    recalls, gains, shown = [], [], set()
    for user in range(DATA.n_users):
        train = set(DATA.train.item_rows[DATA.train.user_rows == user].tolist())
        truth = set(DATA.valid.item_rows[DATA.valid.user_rows == user].tolist()) - train
        if not truth:
            continue
        candidates = [item for item in range(DATA.n_items) if item not in train]
        top = sorted(candidates, key=lambda v, u=user: (-np.float32(scores[u, v]), v))[:20]
        recalls.append(len(truth & set(top)) / len(truth))
        ideal = sum(1 / math.log2(place + 1) for place in range(1, min(20, len(truth)) + 1))
        gains.append(sum(1 / math.log2(place + 1) for place, v in enumerate(top, 1) if v in truth) / ideal)
        shown |= set(top[:5])
    return float(np.mean(recalls)), float(np.mean(gains)), len(shown) / DATA.n_items


def test_the_validation_is_that_of_a_plain_sort_over_the_served_scores_with_b_and_without(trained: Trained) -> None:
    found = validation(trained, DATA)
    assert found is not None
    z = kernel_embeddings(trained, DATA.n_users).astype(np.float64)
    bare = z[: DATA.n_users] @ z[DATA.n_users :].T
    history = matrix_of(DATA.train, DATA.n_users, DATA.n_items)
    for name, scores in (("served", bare + history @ dense_table(trained)), ("without_table", bare)):
        keys = ("recall@20", "ndcg@20", "coverage@5")
        assert [found[name][key] for key in keys] == pytest.approx(brute_force(scores))
    assert found["served"]["ndcg@20"] == pytest.approx(trained.metrics["ndcg@20"])
    assert found["without_table"]["ndcg@20"] == pytest.approx(trained.fit.best_metrics["ndcg@20"])
    assert found["served"]["ndcg@20"] != found["without_table"]["ndcg@20"]


def test_without_b_there_is_one_evaluation_and_without_a_split_none() -> None:
    bare = train_kdiffe(DATA, small(item_item={"method": "none"}), Silence())
    found = validation(bare, DATA)
    assert found is not None
    assert found["without_table"] is None
    assert report_of(bare, DATA, MARK)["model"]["table_entries"] == 0
    unsplit = replace(DATA, valid=Interactions.empty())
    assert validation(bare, unsplit) is None


def test_shares_of_explanations_are_those_of_the_dense_formula(trained: Trained) -> None:
    """score = α_0 X_u · Z_v + Σ_i ( L̄_ui T_i · Z_v + B_iv ), from dense matrices in double precision."""
    n_users, n_nodes = DATA.n_users, DATA.n_users + DATA.n_items
    adjacency = trained.state.snapshot()
    link, attention = np.zeros((n_nodes, n_nodes)), np.zeros((n_nodes, n_nodes))
    weight = trained.settings.model.similarity_weight
    for node in range(n_nodes):
        for entry in range(adjacency.starts[node], adjacency.starts[node] + adjacency.lengths[node]):
            other = adjacency.neighbors[entry]
            link[node, other] = 1 / math.sqrt(adjacency.lengths[node] * adjacency.lengths[other])
            attention[node, other] = weight * adjacency.similarity[entry] * link[node, other]
    laplacian = link + attention
    base, alpha = trained.base.astype(np.float64), trained.alpha.astype(np.float64)
    t = sum(alpha[level] * (np.linalg.matrix_power(laplacian, level - 1) @ base) for level in range(1, len(alpha)))
    z = alpha[0] * base + laplacian @ t
    z[n_users:] += 0 if trained.constant is None else trained.constant
    table = dense_table(trained)
    history = matrix_of(DATA.train, n_users, DATA.n_items)
    scores = z[:n_users] @ z[n_users:].T + history @ table
    scores[history > 0] = -np.inf
    shares = []
    for user in np.flatnonzero(history.sum(1)):
        seen = np.flatnonzero(history[user])
        for item in np.argsort(-scores[user], kind="stable")[:10]:
            if scores[user, item] == -np.inf:
                continue
            own = alpha[0] * base[user] @ z[n_users + item]
            parts = np.array(
                [
                    [matrix[user, n_users + i] * (t[n_users + i] @ z[n_users + item]) for i in seen]
                    for matrix in (link, attention)
                ]
                + [[table[i, item] for i in seen]]
            )
            whole = abs(own) + np.abs(parts.sum(0)).sum()
            shares.append([abs(own) / whole, *(parts.sum(1) / whole)])
    found = explanations_of(trained, n_users)
    assert found["n_recommendations"] == len(shares)
    assert found["n_users"] == np.count_nonzero(history.sum(1))
    keys = ("self", "link", "attention", "direct")
    assert [found[key] for key in keys] == pytest.approx(np.mean(shares, axis=0).tolist(), rel=1e-3)
    assert 0 <= found["largest_additivity_error"] < 1e-4


def test_a_self_share_is_1_where_nothing_is_propagated_and_there_is_no_b() -> None:
    alone = train_kdiffe(DATA, small(model={"n_layers": 0}, item_item={"method": "none"}), Silence())
    found = explanations_of(alone, DATA.n_users)
    assert (found["self"], found["link"], found["direct"]) == (pytest.approx(1.0), 0.0, 0.0)


def test_at_most_some_users_are_sampled(trained: Trained) -> None:
    table = item_item_table(trained.table, trained.table_weight)
    few = explanation_shares(serving_form(trained, DATA.n_users), trained.state.snapshot(), table, n_users=7, n_items=3)
    assert (few["n_users"], few["n_recommendations"]) == (7, 21)


def test_data_facts_are_counts() -> None:
    facts = data_facts(DATA, MARK)
    graph = DATA.knowledge
    assert graph is not None
    n_pairs = len(DATA.train) + len(DATA.valid) + len(DATA.test)
    assert facts["interactions"] == {"train": len(DATA.train), "valid": len(DATA.valid), "test": len(DATA.test)}
    assert facts["density"] == pytest.approx(n_pairs / (40 * 30))
    assert (facts["n_users"], facts["n_items"], facts["name"]) == (40, 30, DATA.name)
    assert (facts["triplets"], facts["entities"]) == (len(graph.item_rows), len(graph.entity_ids))
    assert facts["modalities"] == {"visual": 64, "text": 48}
    assert facts["items_in_graph"] == len(set(graph.item_rows.tolist()))
    bare = data_facts(replace(without_graph(DATA), features={}), MARK)
    assert (bare["triplets"], bare["modalities"], bare["items_with_features"]) == (0, {}, 0)


def test_machine_facts_name_the_work_and_no_host() -> None:
    facts = machine_facts("cpu", 12.345)
    assert (facts["device"], facts["seconds"]) == ("cpu", 12.3)
    assert not platform.node() or platform.node() not in json.dumps(facts)


def test_the_peak_of_memory_is_at_least_what_is_resident_now(tmp_path: Path) -> None:
    block = np.ones(4 * 2**20)  # 32 MiB
    peak = machine_facts("cpu", 1.0)["peak_memory_bytes"]
    assert block.nbytes < peak < 2**40
    assert block.nbytes < peak_memory(tmp_path / "absent") < 2**40
    told = tmp_path / "status"
    told.write_text("Name:\tpython\nVmPeak:\t9 kB\nVmHWM:\t  12345 kB\n", encoding="utf-8")
    assert peak_memory(told) == 12345 * 1024


def test_a_report_names_the_model_its_settings_and_its_curve(trained: Trained) -> None:
    report = report_of(trained, DATA, MARK)
    assert report["report_version"] == REPORT_VERSION
    model = report["model"]
    assert (model["kind"], model["views"], model["width"]) == ("kdiffe", ["knowledge"], 8)
    assert model["settings_digest"] == settings_digest(trained.settings)
    assert model["table_entries"] == np.count_nonzero(dense_table(trained))
    curve = report["curve"]
    assert (curve["best_epoch"], curve["selected_by"]) == (trained.fit.best_epoch, trained.fit.selected_by)
    assert [epoch["loss"] for epoch in curve["epochs"]] == [epoch.loss for epoch in trained.fit.history]
    by = curve["selected_by"]
    assert by in ("ndcg@20", "ndcg@20 with B")
    best = max(epoch["metrics"][by] for epoch in curve["epochs"])
    assert curve["epochs"][curve["best_epoch"] - 1]["metrics"][by] == best
    json.dumps(report, allow_nan=False)


# ---- runs ------------------------------------------------------------------------------------------------------------


def published_report(root: Path, data: DataSet = DATA, *, refit: bool = False) -> tuple[ModelStore, dict[str, object]]:
    run = train_on(data, TABLED, Silence(), root / "run", refit=refit)
    store = ModelStore(root / "models")
    report = store.open(run.publish(store, 1.5, activate=True)).report()
    assert report is not None
    return store, dict(report)


def test_a_published_version_has_its_report(tmp_path: Path) -> None:
    store, report = published_report(tmp_path)
    valid = store.open().manifest.metrics["valid"]
    assert report["validation"]["served"]["ndcg@20"] == pytest.approx(valid["ndcg@20"])  # type: ignore[index]
    assert report["machine"]["seconds"] == 1.5  # type: ignore[index]
    assert report["data"]["fingerprint"] == fingerprint(DATA)  # type: ignore[index]
    assert "refit" not in report


def test_a_report_is_made_when_a_model_is_published_and_not_before(tmp_path: Path) -> None:
    recorder = Recorder()
    run = train_on(DATA, TABLED, recorder, tmp_path / "run")
    assert "report" not in recorder.phases
    run.publish(ModelStore(tmp_path / "models"), 1.0, activate=True)
    assert recorder.phases[-1] == "report"


def test_a_refit_carries_the_selected_model_s_figures_and_says_what_it_was_fitted_on(tmp_path: Path) -> None:
    _, selected = published_report(tmp_path / "a")
    _, report = published_report(tmp_path / "b", refit=True)
    for part in ("validation", "data"):
        assert report[part] == selected[part]
    losses = [[epoch["loss"] for epoch in found["curve"]["epochs"]] for found in (report, selected)]  # type: ignore[index]
    assert losses[0] == losses[1]
    refit = report["refit"]
    assert refit["data"]["interactions"] == {  # type: ignore[index]
        "train": len(DATA.train) + len(DATA.valid) + len(DATA.test),
        "valid": 0,
        "test": 0,
    }
    assert len(refit["curve"]["epochs"]) == selected["curve"]["best_epoch"]  # type: ignore[index]


@pytest.mark.parametrize("how", ["whole", "absent", "damaged"])
def test_a_retrained_version_carries_its_base_s_figures_where_there_are_some(how: str, tmp_path: Path) -> None:
    store, base = published_report(tmp_path)
    file = tmp_path / "models" / "v0001" / "report.json"
    if how != "whole":
        file.unlink()
    if how == "damaged":
        file.write_text("{", encoding="utf-8")
    recorder = Recorder()
    artifact = store.open("v0001")
    settings = small(item_item={"l2": 5.0, "per_row": 6, "weight": 3.0, "method": "ease"})
    run = retrain(artifact, settings, Log((("new", str(DATA.item_ids[0])),)), recorder, tmp_path / "again")
    report = store.open(run.publish(store, 2.0, activate=True)).report()
    assert report is not None
    assert report["validation"] == (base["validation"] if how == "whole" else None)
    assert report["refit"]["data"]["n_users"] == DATA.n_users + 1
    assert ("report.json" in " ".join(recorder.notes)) == (how == "damaged")


def test_a_refit_of_nothing_selected_describes_itself(trained: Trained) -> None:
    report = refitted({}, trained, DATA, MARK)
    assert (report["validation"], report["curve"]) == (None, None)
    assert report["data"] == report["refit"]["data"] == data_facts(DATA, MARK)
