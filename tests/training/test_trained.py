from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from tests.training.worlds import Recorder, clips, matrix_of, small, valid_split, without_graph
from training.configuration import settings_from
from training.data.assembly import knowledge_graph
from training.data.dataset import DataSet, Interactions
from training.errors import CheckpointError, ConfigurationError
from training.evaluation import evaluate, interaction_matrix, scores_of
from training.export import kernel_embeddings
from training.item_item import EASE_L2, Content, item_item_table, item_item_weights
from training.observer import Silence
from training.settings import TrainingSettings
from training.trained import (
    Trained,
    choose_device,
    identity_of,
    knowledge_of,
    train_kdiffe,
    with_everything,
)

DATA = clips(cold=True)


def train(data: DataSet = DATA, settings: TrainingSettings | None = None, **options: object) -> Trained:
    return train_kdiffe(data, settings or small(), Silence(), **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train()


def parts(result: Trained) -> list[np.ndarray]:  # type: ignore[type-arg]
    found = [result.base, result.alpha, result.state.to_arrays()["similarity.data"], np.array(result.table_weight)]
    return [*found, *(result.encoders[name] for name in sorted(result.encoders))]


def same(a: Trained, b: Trained) -> bool:
    return all(np.array_equal(one, other) for one, other in zip(parts(a), parts(b), strict=True))


# ---- one seed, one result --------------------------------------------------------------------------------------------


def test_one_seed_gives_one_result_and_another_gives_another(trained: Trained) -> None:
    again, other = train(), train(settings=small(run={"seed": 1}))
    assert same(trained, again)
    assert dict(again.metrics) == dict(trained.metrics)
    assert not same(trained, other)
    assert not np.array_equal(trained.base, other.base)


def test_a_run_that_is_stopped_and_resumed_gives_the_same_bits(tmp_path: Path, trained: Trained) -> None:
    options: dict[str, object] = {"checkpoints": tmp_path, "fingerprint": "mark"}
    with pytest.raises(KeyboardInterrupt):
        train_kdiffe(DATA, small(), Recorder("fitting", 2), **options)  # type: ignore[arg-type]
    assert same(train(resume=True, **options), trained)


@pytest.mark.parametrize(
    ("settings", "mark"),
    [(small(model={"width": 9}), "mark"), (small(run={"seed": 5}), "mark"), (small(), "another mark")],
    ids=["settings", "seed", "data"],
)
def test_resuming_with_other_settings_or_data_is_refused(tmp_path: Path, settings: TrainingSettings, mark: str) -> None:
    train(checkpoints=tmp_path, fingerprint="mark")
    with pytest.raises(CheckpointError, match="belongs to another run"):
        train(settings=settings, checkpoints=tmp_path, fingerprint=mark, resume=True)


def test_resuming_on_the_same_data_in_another_order_of_rows_is_refused(tmp_path: Path) -> None:
    # The fingerprint is the same for any order of rows, the checkpoint's tables are not.
    train(checkpoints=tmp_path, fingerprint="mark")
    turned = np.arange(DATA.n_users, dtype=np.int32)[::-1]

    def rows(part: Interactions) -> Interactions:
        return replace(part, user_rows=turned[part.user_rows])

    other = replace(
        DATA,
        user_ids=DATA.user_ids[::-1],
        train=rows(DATA.train),
        valid=rows(DATA.valid),
        test=rows(DATA.test),
    )
    with pytest.raises(CheckpointError, match="belongs to another run"):
        train(other, checkpoints=tmp_path, fingerprint="mark", resume=True)


def test_a_fit_s_identity_is_its_settings_data_and_epochs() -> None:
    names = {
        identity_of(small(), "a", None),
        identity_of(small(), "b", None),
        identity_of(small(), "a", 3),
        identity_of(small(loss={"l2_weight": 0.5}), "a", None),
    }
    assert len(names) == 4
    assert identity_of(small(), "a", None) in names


# ---- what comes out --------------------------------------------------------------------------------------------------


def test_users_without_train_interactions_have_zero_x_and_nobody_else_has(trained: Trained) -> None:
    cold = np.bincount(DATA.train.user_rows, minlength=DATA.n_users) == 0
    assert 0 < cold.sum() < DATA.n_users
    np.testing.assert_array_equal(~trained.base[: DATA.n_users].any(1), cold)


def test_the_reported_metrics_are_those_of_the_form_that_is_served(trained: Trained) -> None:
    # Users without train interactions are in this validation split: torch must see them as the service will.
    assert np.setdiff1d(DATA.valid.user_rows, DATA.train.user_rows).size > 0
    embeddings = kernel_embeddings(trained, DATA.n_users).astype(np.float64)
    scores = embeddings[: DATA.n_users] @ embeddings[DATA.n_users :].T
    split = valid_split(DATA)
    without = evaluate(lambda users: scores[users].astype(np.float32), split)
    assert without == pytest.approx(dict(trained.fit.best_metrics), abs=1e-9)
    assert trained.table is not None
    history = matrix_of(DATA.train, DATA.n_users, DATA.n_items)
    scores = scores + history @ (trained.table_weight * trained.table.toarray())
    assert evaluate(lambda users: scores[users].astype(np.float32), split) == pytest.approx(
        dict(trained.metrics), abs=1e-9
    )


def test_scores_are_inner_products_plus_the_rows_of_the_table(trained: Trained) -> None:
    rng = np.random.default_rng(0)
    embeddings = rng.standard_normal((5, 3)).astype(np.float32)
    history = interaction_matrix(Interactions(np.array([0, 0], np.int32), np.array([1, 2], np.int32)), 2, 3)
    table = item_item_table(trained.table, 1.0)
    assert table.n_rows == DATA.n_items
    b = np.array([[0, 1, 0], [0, 0, 2], [3, 4, 0]], np.float64)
    found = scores_of(embeddings, 2, history, type(history)(b))(np.array([1, 0]))
    expected = embeddings[:2].astype(np.float64) @ embeddings[2:].T.astype(np.float64)
    expected[0] += b[1] + b[2]
    np.testing.assert_allclose(found, expected[[1, 0]], rtol=1e-5, atol=1e-6)


def test_without_a_validation_split_the_last_epoch_is_kept_and_nothing_is_reported() -> None:
    result = train(with_everything(DATA), small(item_item={"weight": 2.0}))
    assert result.fit.best_epoch == 4
    assert not result.metrics
    assert result.table_weight == 2.0


def test_a_pair_that_stands_in_two_splits_is_one_interaction_of_everything() -> None:
    twice = replace(DATA, test=DATA.test.concatenate(DATA.valid))
    pairs = {
        (int(u), int(v))
        for part in (DATA.train, DATA.valid, DATA.test)
        for u, v in zip(part.user_rows, part.item_rows, strict=True)
    }
    assert len(with_everything(twice).train) == len(pairs)


def test_a_refit_fits_all_splits_for_a_fixed_number_of_epochs() -> None:
    everything = with_everything(DATA)
    pairs = {
        (int(u), int(v))
        for part in (DATA.train, DATA.valid, DATA.test)
        for u, v in zip(part.user_rows, part.item_rows, strict=True)
    }
    assert len(everything.valid) == len(everything.test) == 0
    result = train(everything, small(item_item={"weight": 0.0}), fixed_epochs=2)
    assert len(result.fit.history) == 2
    assert result.table is None  # a table of weight 0 is not made
    assert result.state.degrees[: DATA.n_users].sum() == len(pairs)
    assert result.base[: DATA.n_users].any(1).all()  # nobody is cold any more


def test_no_train_interactions_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="no train interactions"):
        train(replace(DATA, train=Interactions.empty()))


def test_cuda_where_there_is_none_is_refused_and_auto_takes_what_there_is() -> None:
    import torch

    if torch.cuda.is_available():
        assert choose_device("auto").type == choose_device("cuda").type == "cuda"
    else:
        assert choose_device("auto").type == "cpu"
        with pytest.raises(ConfigurationError, match="use auto or cpu"):
            choose_device("cuda")
    assert choose_device("cpu").type == "cpu"


# ---- B's weight ------------------------------------------------------------------------------------------------------


def test_a_weight_that_only_validation_can_choose_is_refused_before_anything_is_fitted() -> None:
    recorder = Recorder()
    with pytest.raises(ConfigurationError, match=r"item_item\.weight"):
        train_kdiffe(with_everything(DATA), small(), recorder)
    assert "fitting" not in recorder.phases


def test_a_given_weight_is_taken_as_it_is() -> None:
    assert train(settings=small(item_item={"weight": 3.0})).table_weight == 3.0
    without = train(settings=small(item_item={"weight": 0.0}))
    assert without.table_weight == 0.0
    assert dict(without.metrics) == dict(without.fit.best_metrics)


def test_a_lambda_that_was_selected_stands_in_the_settings_and_a_refit_takes_it() -> None:
    chosen = train(settings=small(item_item={"l2": -1.0, "n_selections": 1}))
    assert chosen.settings.item_item.l2 in EASE_L2
    assert chosen.settings.item_item.mean_of == ()
    assert chosen.settings.item_item.weight == chosen.table_weight
    refitted = train(with_everything(DATA), chosen.settings, fixed_epochs=1)
    assert refitted.settings == chosen.settings


def test_the_tables_that_b_is_the_mean_of_stand_in_the_settings_and_a_refit_takes_them() -> None:
    chosen = train(settings=small(item_item={"l2": -1.0}))
    table = chosen.settings.item_item
    assert len(table.mean_of) > 1
    assert {choice.l2 for choice in table.mean_of} <= set(EASE_L2)
    assert sum(choice.weight for choice in table.mean_of) == pytest.approx(1.0)
    assert table.weight == chosen.table_weight > 0
    assert settings_from(json.loads(json.dumps(asdict(chosen.settings))), "a manifest") == chosen.settings
    assert chosen.table is not None
    history = interaction_matrix(DATA.train, DATA.n_users, DATA.n_items)
    again = item_item_weights(history, table, Content(DATA.n_items, DATA.features, DATA.knowledge))
    assert again is not None
    np.testing.assert_array_equal(again.toarray(), chosen.table.toarray())
    refitted = train(with_everything(DATA), chosen.settings, fixed_epochs=1)
    assert refitted.settings == chosen.settings


def test_a_catalogue_that_outgrows_the_limit_keeps_the_kind_of_table_that_its_weight_was_selected_for() -> None:
    chosen = train(settings=small(item_item={"method": "auto", "ease_limit": DATA.n_items, "content": "none"}))
    assert chosen.settings.item_item.method == "ease"
    grown = replace(DATA, item_ids=np.append(DATA.item_ids, "one-more"), item_names=None)
    refitted = train(grown, chosen.settings, fixed_epochs=1)
    assert chosen.table is not None
    assert refitted.table is not None
    table = refitted.table.toarray()[: DATA.n_items, : DATA.n_items]
    np.testing.assert_allclose(table, chosen.table.toarray(), rtol=1e-4, atol=1e-6)


def test_without_a_table_there_is_no_weight() -> None:
    result = train(settings=small(item_item={"method": "none"}))
    assert result.table is None
    assert result.table_weight == 0.0
    assert result.settings.item_item.weight == 0.0


# ---- entities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "entities", "relations"),
    [
        (DATA, "auto", {"genre", "creator", "keyword"}),
        (DATA, "always", {"genre", "creator", "keyword", "visual", "text"}),
        (DATA, "never", {"genre", "creator", "keyword"}),
        (without_graph(DATA), "auto", {"visual", "text"}),
        (without_graph(DATA), "never", set()),
        (replace(without_graph(DATA), features={}), "always", set()),
    ],
)
def test_features_become_entities_where_asked_for(data: DataSet, entities: str, relations: set[str]) -> None:
    graph, codebooks = knowledge_of(data, small(entities={"source": entities}))
    assert (set() if graph is None else set(graph.relation_ids.tolist())) == relations
    assert set(codebooks) == relations & {"visual", "text"}


def test_without_knowledge_items_are_not_aggregated() -> None:
    settings = small(model={"knowledge": False})
    assert knowledge_of(DATA, settings) == (None, {})
    result = train(settings=settings)
    assert result.knowledge is None
    assert result.encoders == {}
    lengths = np.linalg.norm(result.base[DATA.n_users :], axis=1)
    assert not np.allclose(lengths, 1, atol=1e-3)  # (2) would have made every length 1


def test_a_relation_that_is_called_like_a_modality_and_entities_from_features_are_refused() -> None:
    modality = next(iter(DATA.features))
    graph = knowledge_graph(np.array([0, 1], np.int32), [modality, "genre"], ["x", "y"])
    data = replace(DATA, knowledge=graph)
    with pytest.raises(ConfigurationError, match=f"{modality!r} is both a relation"):
        knowledge_of(data, small(entities={"source": "always"}))
    assert knowledge_of(data, small(entities={"source": "auto"})) == (graph, {})


def test_shared_negatives_train_as_well() -> None:
    result = train(settings=small(loss={"kind": "softmax", "n_negatives": 16}))
    metrics: Mapping[str, float] = result.metrics
    assert 0 <= metrics["ndcg@20"] <= 1
    assert np.isfinite(result.base).all()


# ---- the loss --------------------------------------------------------------------------------------------------------


def auto(**loss: object) -> TrainingSettings:
    return small(loss={"kind": "auto", "n_negatives": 0, **loss})


def test_auto_keeps_the_loss_that_validation_prefers() -> None:
    told = Recorder()
    found = train_kdiffe(DATA, auto(), told)
    single = {kind: train(settings=auto(kind=kind)) for kind in ("softmax", "bpr")}
    reached = {kind: result.metrics["ndcg@20"] for kind, result in single.items()}
    assert reached["softmax"] != reached["bpr"]
    best = max(reached, key=reached.__getitem__)
    assert found.settings.loss.kind == best
    assert same(found, single[best])
    assert told.notes[-1].endswith(f"loss.kind = {best}.")


def test_auto_without_a_validation_split_is_bpr() -> None:
    settings = replace(auto(), item_item=replace(small().item_item, weight=0.0))
    found = train(replace(DATA, valid=Interactions.empty()), settings)
    assert found.settings.loss.kind == "bpr"


class SecondFitStops(Recorder):
    """Stops the second fit after two epochs."""

    def advance(self, steps: int = 1, figures: Mapping[str, float] | None = None) -> None:
        super().advance(steps, figures)
        if self.phases.count("fitting") == 2 and self._steps == 2:
            raise KeyboardInterrupt


def test_an_interrupted_second_fit_goes_on_and_the_first_is_not_made_again(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_kdiffe(DATA, auto(), SecondFitStops(), checkpoints=tmp_path)
    told = Recorder()
    resumed = train_kdiffe(DATA, auto(), told, checkpoints=tmp_path, resume=True)
    assert same(resumed, train(settings=auto()))
    # All of the first fit's epochs and two of the second's came from the checkpoints.
    assert sum("loss" in figures for figures in told.figures) == 2
