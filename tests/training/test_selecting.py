from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from tests.training.worlds import Recorder, checkerboard, clips, matrix_of, model_of, small, valid_split
from training.evaluation import interaction_matrix
from training.fitting import SELECTED_BY, WITH_TABLE, Fit, Kept
from training.item_item import Content, Regressions
from training.observer import Silence
from training.selecting import Fitted, Tables, best_served, choose_weight, embeddings_of
from training.settings import TrainingSettings
from training.trained import train_kdiffe

DATA = clips(cold=True)

# ---- B's weight ------------------------------------------------------------------------------------------------------


def test_the_chosen_weight_has_the_best_validation_figure_of_those_tried() -> None:
    data = checkerboard(16)
    settings = small()
    embeddings = embeddings_of(model_of(data, settings))
    history = interaction_matrix(data.train, data.n_users, data.n_items)
    table = train_kdiffe(data, settings, Silence()).table
    assert table is not None
    recorder = Recorder()
    weight, metrics = choose_weight(embeddings, history, table, valid_split(data), -1.0, recorder)
    tried = [figures[SELECTED_BY] for figures in recorder.figures]
    assert metrics[SELECTED_BY] == max(tried)
    # An untrained model knows nothing; the table alone puts the own group first.
    assert weight > 0
    assert metrics["recall@20"] == 1.0
    dense = weight * table.toarray()
    reached = matrix_of(data.train, 16, 16) @ dense
    first = np.where(matrix_of(data.train, 16, 16) > 0, -np.inf, reached).argmax(1)
    assert first.tolist() == data.valid.item_rows.tolist()


# ---- which epoch is served -------------------------------------------------------------------------------------------


def kept_of(settings: TrainingSettings, seed: int, epoch: int, figure: float) -> Kept:
    """An untrained model's parameters as an epoch that a fit kept."""
    tensors = {name: value.clone() for name, value in model_of(DATA, settings, seed=seed).state_dict().items()}
    return Kept(SELECTED_BY, epoch, {SELECTED_BY: figure, "recall@20": 0.0}, tensors)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_all_kept_epochs_the_one_that_is_best_with_b_is_served(order: tuple[int, ...]) -> None:
    # Nothing of B but its weight is open, so that it is the same table beside each.
    settings = small(item_item={"l2": 5.0, "target_exponent": 1.0, "content": "none"})
    history = interaction_matrix(DATA.train, DATA.n_users, DATA.n_items)
    content = Content(DATA.n_items, DATA.features, DATA.knowledge)
    kept = [kept_of(settings, seed, seed + 1, 0.1 * seed) for seed in range(3)]

    def served(candidates: list[Kept]) -> tuple[int, Mapping[str, float], np.ndarray]:  # type: ignore[type-arg]
        fit = Fit(candidates[0].epoch, candidates[0].own_metrics, (), kept=tuple(candidates))
        fitted = Fitted(settings, model_of(DATA, settings, seed=9), fit)
        found = best_served([fitted], Regressions(history, settings.item_item, content), valid_split(DATA), Silence())
        return found.fit.best_epoch, found.metrics, embeddings_of(found.model)

    alone = [served([candidate]) for candidate in kept]
    figures = [metrics[SELECTED_BY] for _, metrics, _ in alone]
    assert len(set(figures)) == 3
    best = int(np.argmax(figures))
    epoch, metrics, embeddings = served([kept[place] for place in order])
    assert (epoch, metrics) == alone[best][:2]
    np.testing.assert_array_equal(embeddings, alone[best][2])


def test_epochs_are_kept_by_the_graph_part_and_beside_a_preliminary_table_unless_one_is_asked_for() -> None:
    told = Recorder()
    result = train_kdiffe(DATA, small(optimiser={"selected_by": "served", "max_epochs": 12}, run={"seed": 5}), told)
    epochs = [epoch.metrics for epoch in result.fit.history if epoch.metrics]
    figures = {name: [metrics[name] for metrics in epochs] for name in (SELECTED_BY, WITH_TABLE)}
    best = {name: 1 + int(np.argmax(values)) for name, values in figures.items()}
    assert best[SELECTED_BY] != best[WITH_TABLE]  # else nothing would be shown
    assert result.fit.best_epoch in best.values()
    assert sum(note.startswith("Validation ndcg@20 with B") for note in told.notes) == 2
    assert dict(result.fit.best_metrics)[SELECTED_BY] == figures[SELECTED_BY][result.fit.best_epoch - 1]
    for settings in (small(optimiser={"selected_by": "graph"}), small(item_item={"weight": 0.0})):
        fit = train_kdiffe(DATA, settings, Silence()).fit
        assert fit.selected_by == SELECTED_BY
        assert all(WITH_TABLE not in epoch.metrics for epoch in fit.history)


def test_a_given_weight_of_b_is_what_every_epoch_is_judged_with() -> None:
    given = replace(small(), item_item=replace(small().item_item, weight=3.0))
    result = train_kdiffe(DATA, given, Silence())
    assert result.settings.item_item.weight == 3.0


# ---- shared by runs --------------------------------------------------------------------------------------------------


def test_runs_that_share_their_tables_find_what_each_finds_alone_and_make_a_table_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[tuple[float, str, float]] = []
    making = Regressions._make

    def counted(self: Any, l2: float, source: str, content_gram: float) -> Any:
        made.append((l2, source, content_gram))
        return making(self, l2, source, content_gram)

    monkeypatch.setattr(Regressions, "_make", counted)
    other = small(run={"seed": 4})
    alone = [train_kdiffe(DATA, settings, Silence()) for settings in (small(), other)]
    by_runs_alone = len(made)
    made.clear()
    tables = Tables(DATA)
    shared = [train_kdiffe(DATA, settings, Silence(), tables=tables) for settings in (small(), other)]
    assert len(set(made)) == len(made) < by_runs_alone
    for one, same in zip(alone, shared, strict=True):
        np.testing.assert_array_equal(one.base, same.base)
        assert (one.settings, one.metrics) == (same.settings, same.metrics)
        assert one.table is not None
        assert same.table is not None
        assert (one.table != same.table).nnz == 0

    # Other settings of B are other tables; those of before are let go.
    wider = small(item_item={"per_row": 3})
    made.clear()
    assert train_kdiffe(DATA, wider, Silence(), tables=tables).metrics == train_kdiffe(DATA, wider, Silence()).metrics
    assert tables.regressions(wider.item_item).settings.per_row == 3


def test_tables_of_another_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match="another data set"):
        train_kdiffe(DATA, small(), Silence(), tables=Tables(checkerboard(8)))
