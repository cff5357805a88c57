"""What the loop computes: steps of Adam, selection, patience, checkpoints and resume."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from model_store.walks import WalkSettings
from tests.training.worlds import (
    CPU,
    Recorder,
    checkerboard,
    clips,
    knowledge_view,
    model_of,
    sampler_of,
    small,
    valid_split,
)
from training.data.dataset import DataSet
from training.errors import CheckpointError, TrainingError
from training.evaluation import evaluate, interaction_matrix, scores_of
from training.fitting import SELECTED_BY, WITH_TABLE, Fit, batch_size, fit, hold
from training.models.factory import make_model
from training.models.graph import attention_state
from training.models.recommender import Recommender
from training.observer import Silence
from training.selecting import embeddings_of
from training.settings import OptimiserSettings, TrainingSettings
from training.trained import train_kdiffe

DATA = checkerboard(8)


def run(
    data: DataSet, settings: TrainingSettings, *, seed: int = 0, model: Recommender | None = None, **options: object
) -> tuple[Recommender, Fit]:
    model = model or model_of(data, settings, seed)
    options = {"validate": None, "observer": Silence(), **options}
    observer = options.pop("observer")
    return model, fit(model, sampler_of(data, settings, seed), settings, observer, **options)  # type: ignore[arg-type]


def parameters(model: Recommender) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def assert_same_bits(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def differ(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return any(not torch.equal(a[name], b[name]) for name in a)


def losses(done: Fit) -> list[float]:
    return [epoch.loss for epoch in done.history]


# ---- steps -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpr", "softmax"])
@pytest.mark.parametrize("n_batches", [1, 3])
def test_an_epoch_is_as_many_steps_of_adam_each_on_a_fresh_gradient(kind: str, n_batches: int) -> None:
    size = -(-len(DATA.train) // n_batches)
    rate = 0.01
    optimiser = {"batch_size": size, "learning_rate": rate, "max_epochs": 1, "average": 0.0}
    settings = small(loss={"kind": kind}, optimiser=optimiser)
    model, done = run(DATA, settings)

    # Adam (Kingma and Ba, 2015) with its usual constants; the gradient of each step is taken in a model of its own.
    beta_1, beta_2, epsilon = 0.9, 0.999, 1e-8
    hand = model_of(DATA, settings)
    state = {name: value.double().numpy().copy() for name, value in parameters(hand).items()}
    first = {name: np.zeros_like(value) for name, value in state.items()}
    second = {name: np.zeros_like(value) for name, value in state.items()}
    samples = sampler_of(DATA, settings).epoch(1)
    seen = []
    for step in range(1, n_batches + 1):
        fresh = model_of(DATA, settings)
        fresh.load_state_dict({name: torch.from_numpy(value).float() for name, value in state.items()})
        batch = slice((step - 1) * size, step * size)
        negatives = samples.negatives[step - 1] if kind == "softmax" else samples.negatives[batch]
        arrays = (samples.users[batch], samples.positives[batch], negatives)
        loss = fresh.loss(*(torch.from_numpy(array) for array in arrays), settings.loss)
        seen.append(loss.item())
        names, tensors = zip(*fresh.named_parameters(), strict=True)
        for name, gradient in zip(names, torch.autograd.grad(loss, tensors), strict=True):
            g = gradient.double().numpy()
            first[name] = beta_1 * first[name] + (1 - beta_1) * g
            second[name] = beta_2 * second[name] + (1 - beta_2) * g**2
            unbiased = first[name] / (1 - beta_1**step), second[name] / (1 - beta_2**step)
            state[name] = state[name] - rate * unbiased[0] / (np.sqrt(unbiased[1]) + epsilon)

    for name, value in parameters(model).items():
        np.testing.assert_allclose(value.numpy(), state[name], rtol=0, atol=2e-5, err_msg=name)
    assert done.history[0].loss == pytest.approx(sum(seen) / n_batches, rel=1e-5)


def test_the_kept_parameters_are_the_moving_average_of_every_step_s() -> None:
    size = -(-len(DATA.train) // 3)
    common = {"batch_size": size, "min_batches": 3, "learning_rate": 0.05}
    settings = small(optimiser={**common, "max_epochs": 2, "average": 0.5})
    hand = parameters(model_of(DATA, settings))
    model = model_of(DATA, settings)
    plain = torch.optim.Adam(model.parameters(), lr=0.05)
    step = 0
    for epoch in (1, 2):
        samples = sampler_of(DATA, settings).epoch(epoch)
        for begin in range(0, len(samples.users), size):
            batch = slice(begin, begin + size)
            drawn = samples.negatives[begin // size] if samples.shared else samples.negatives[batch]
            arrays = (samples.users[batch], samples.positives[batch], drawn)
            plain.zero_grad()
            model.loss(*(torch.from_numpy(array) for array in arrays), settings.loss).backward()
            plain.step()
            decay = min(0.5, (1 + step) / (10 + step))
            now = parameters(model)
            hand = {name: decay * hand[name] + (1 - decay) * now[name] for name in hand}
            step += 1
    kept, _ = run(DATA, settings)
    for name, value in parameters(kept).items():
        np.testing.assert_allclose(value.numpy(), hand[name].numpy(), rtol=0, atol=1e-6, err_msg=name)


def test_a_run_with_an_average_that_is_resumed_ends_with_the_same_bits(tmp_path: Path) -> None:
    settings = small(optimiser={"average": 0.9, "max_epochs": 4}, run={"checkpoint_every": 2})
    whole, _ = run(DATA, settings)
    run(DATA, settings, epochs=2, checkpoints=tmp_path, identity="one")
    resumed, done = run(DATA, settings, checkpoints=tmp_path, identity="one", resume=True)
    assert [epoch.epoch for epoch in done.history] == [1, 2, 3, 4]
    assert_same_bits(parameters(whole), parameters(resumed))


def test_batches_shrink_where_an_epoch_would_have_too_few() -> None:
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=4), 1000) == 100
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=4), 120) == 30
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=4), 121) == 31
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=4), 2) == 1
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=4), 0) == 1


def test_batches_grow_where_an_epoch_would_have_too_many() -> None:
    assert batch_size(OptimiserSettings(batch_size=100, max_batches=7), 700) == 100
    assert batch_size(OptimiserSettings(batch_size=100, max_batches=7), 701) == 101
    assert batch_size(OptimiserSettings(batch_size=100, min_batches=30, max_batches=7), 70) == 10  # the most counts


def test_no_more_than_a_part_of_a_large_batch_is_contrasted() -> None:
    settings = small(contrast={"weight": 0.1, "batch_size": 4}, optimiser={"batch_size": 10, "max_epochs": 1})
    data = clips()
    state = attention_state(data, data.train, WalkSettings(n_walks=2, walk_length=5), 1)
    model = make_model(data, settings, state, data.knowledge, CPU)
    asked = []

    def own_loss(of_views: list[Tensor], users: Tensor, items: Tensor) -> Tensor:
        asked.append((users.tolist(), items.tolist()))
        return of_views[0].sum() * 0

    model.own_loss = own_loss  # type: ignore[method-assign, assignment]
    run(data, settings, model=model)
    samples = sampler_of(data, settings).epoch(1)
    parts = [slice(begin, begin + 4) for begin in range(0, len(samples.users), 10)]
    expected = [(sorted(set(samples.users[part])), sorted(set(samples.positives[part]))) for part in parts]
    assert len(expected) > 2
    assert asked == expected


@pytest.mark.parametrize(("kind", "start"), [("softmax", math.nan), ("bpr", 1e19)])
def test_a_loss_that_is_no_finite_number_ends_the_run_with_advice(kind: str, start: float) -> None:
    settings = small(loss={"kind": kind}, optimiser={"learning_rate": 1e-3}, model={"n_layers": 0})
    model = model_of(DATA, settings)
    with torch.no_grad():
        knowledge_view(model).user_embeddings[0] = start
    with pytest.raises(TrainingError, match=r"epoch 1 .*learning_rate"):
        run(DATA, settings, model=model)


# ---- what it learns --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["bpr", "softmax"])
def test_on_the_checkerboard_the_loss_falls_and_the_held_out_item_of_the_own_group_comes_first(kind: str) -> None:
    data = checkerboard(16)
    settings = small(
        loss={"kind": kind, "n_negatives": 4 if kind == "bpr" else 8}, optimiser={"max_epochs": 30, "batch_size": 64}
    )
    model, done = run(data, settings)
    # What is left to a model that knows the groups: nothing for bpr, whose negatives are of the other group but for the
    # held-out item; for softmax the half of the 8 shared negatives that is of the own group, about log(1 + 4).
    assert losses(done)[-1] < (0.3 if kind == "bpr" else 0.5 * (math.log(1 + 8) + math.log(1 + 4)))
    assert losses(done)[-1] < losses(done)[0]
    history = interaction_matrix(data.train, data.n_users, data.n_items)
    metrics = evaluate(scores_of(embeddings_of(model), data.n_users, history, None), valid_split(data), 1)
    assert metrics == {"recall@1": 1.0, "ndcg@1": 1.0, "n_users": 16}


def test_one_seed_gives_one_result_and_another_gives_another() -> None:
    (one, a), (two, b), (other, c) = (run(DATA, small(), seed=seed) for seed in (1, 1, 2))
    assert_same_bits(parameters(one), parameters(two))
    assert losses(a) == losses(b) != losses(c)
    assert differ(parameters(one), parameters(other))


# ---- selection -------------------------------------------------------------------------------------------------------


class Script:
    """A validation that says what it was told, and keeps the parameters that it saw."""

    def __init__(self, values: list[float], served: list[float] | None = None) -> None:
        self.values, self.seen = iter(values), list[dict[str, Tensor]]()
        self.served = None if served is None else iter(served)
        self.model: Recommender | None = None

    def __call__(self) -> Mapping[str, float]:
        assert self.model is not None
        self.seen.append(parameters(self.model))
        beside = {} if self.served is None else {WITH_TABLE: next(self.served)}
        return {SELECTED_BY: next(self.values), "recall@20": 0.0, "n_users": 1, **beside}


def scripted(
    values: list[float], *, served: list[float] | None = None, **optimiser: int
) -> tuple[Recommender, Fit, Script]:
    settings = small(optimiser={"max_epochs": 20, **optimiser})
    script = Script(values, served)
    script.model = model_of(DATA, settings)
    model, done = run(DATA, settings, model=script.model, validate=script)
    return model, done, script


def test_the_best_epoch_s_parameters_are_kept_and_the_first_of_equals_is_the_best() -> None:
    model, done, script = scripted([0.1, 0.4, 0.3, 0.4, 0.2], max_epochs=5)
    assert (done.best_epoch, done.best_metrics[SELECTED_BY]) == (2, 0.4)
    assert_same_bits(parameters(model), script.seen[1])
    assert differ(parameters(model), script.seen[4])
    assert [epoch.metrics[SELECTED_BY] for epoch in done.history] == [0.1, 0.4, 0.3, 0.4, 0.2]


def test_the_best_epoch_beside_a_table_is_kept_too_and_can_be_put_back() -> None:
    model, done, script = scripted([0.1, 0.4, 0.3, 0.2], served=[0.5, 0.3, 0.6, 0.2], max_epochs=4)
    assert [(kept.selected_by, kept.epoch) for kept in done.kept] == [(SELECTED_BY, 2), (WITH_TABLE, 3)]
    assert (done.best_epoch, done.selected_by) == (2, SELECTED_BY)
    assert_same_bits(parameters(model), script.seen[1])
    hold(model, done.kept[1].tensors)
    assert_same_bits(parameters(model), script.seen[2])
    held = done.holding(done.kept[1])
    assert (held.best_epoch, held.selected_by, held.kept) == (3, WITH_TABLE, ())
    assert held.best_metrics == {SELECTED_BY: 0.3, "recall@20": 0.0, "n_users": 1}  # the model's own
    # One epoch that is the best by both is kept once.
    _, same, _ = scripted([0.1, 0.4, 0.3], served=[0.1, 0.4, 0.3], max_epochs=3)
    assert [(kept.selected_by, kept.epoch) for kept in same.kept] == [(SELECTED_BY, 2)]


def test_patience_is_with_the_figure_beside_the_table() -> None:
    _, done, script = scripted([0.1, 0.2, 0.3, 0.4, 0.5], served=[0.1, 0.2, 0.1, 0.1, 0.9], patience=2)
    assert ([kept.epoch for kept in done.kept], len(script.seen)) == ([4, 2], 4)


def test_patience_counts_evaluations_without_a_better_figure() -> None:
    _, done, script = scripted([0.1, 0.2, 0.2, 0.15, 0.1, 0.9], patience=3)
    assert (len(done.history), done.best_epoch, len(script.seen)) == (5, 2, 5)


def test_a_better_figure_starts_patience_anew() -> None:
    _, done, _ = scripted([0.1, 0.0, 0.2, 0.1, 0.1], patience=2)
    assert (len(done.history), done.best_epoch) == (5, 3)


def test_only_every_so_manieth_epoch_is_evaluated_and_always_the_last() -> None:
    _, done, _ = scripted([0.1, 0.2, 0.3], max_epochs=7, evaluate_every=3)
    assert [epoch.epoch for epoch in done.history if epoch.metrics] == [3, 6, 7]
    assert done.best_epoch == 7


def test_without_validation_the_last_of_a_fixed_number_of_epochs_is_kept() -> None:
    model, done = run(DATA, small(), epochs=3)
    assert (done.best_epoch, dict(done.best_metrics), len(done.history)) == (3, {}, 3)
    again, _ = run(DATA, small(optimiser={"max_epochs": 3}))
    assert_same_bits(parameters(model), parameters(again))


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def validation(data: DataSet, model: Recommender) -> Callable[[], Mapping[str, float]]:
    history, split = interaction_matrix(data.train, data.n_users, data.n_items), valid_split(data)
    return lambda: evaluate(scores_of(embeddings_of(model), data.n_users, history, None), split)


RESUMED = small(optimiser={"max_epochs": 7, "learning_rate": 0.02}, run={"checkpoint_every": 2})


@pytest.fixture
def interrupted(tmp_path: Path) -> Iterator[Path]:
    """A run that was stopped after 5 of 7 epochs: its last checkpoint is of epoch 4."""
    model = model_of(DATA, RESUMED)
    with pytest.raises(KeyboardInterrupt):
        run(
            DATA,
            RESUMED,
            model=model,
            observer=Recorder("fitting", 5),
            validate=validation(DATA, model),
            checkpoints=tmp_path,
            identity="this",
        )
    return tmp_path  # type: ignore[return-value]


def test_a_run_that_is_stopped_and_resumed_has_the_bits_of_one_that_ran_through(interrupted: Path) -> None:
    straight = model_of(DATA, RESUMED)
    _, whole = run(DATA, RESUMED, model=straight, validate=validation(DATA, straight))
    # Another start, so that whatever the checkpoint lacked would show.
    resumed = model_of(DATA, RESUMED, seed=99)
    recorder = Recorder()
    _, done = run(
        DATA,
        RESUMED,
        model=resumed,
        observer=recorder,
        validate=validation(DATA, resumed),
        checkpoints=interrupted,
        identity="this",
        resume=True,
    )
    assert_same_bits(parameters(resumed), parameters(straight))
    assert losses(done) == losses(whole)
    assert [dict(epoch.metrics) for epoch in done.history] == [dict(epoch.metrics) for epoch in whole.history]
    assert (done.best_epoch, dict(done.best_metrics)) == (whole.best_epoch, dict(whole.best_metrics))
    assert len(recorder.figures) == 1 + 3  # the 4 epochs of the checkpoint at once, then 5, 6 and 7


def test_a_resumed_run_draws_the_noise_that_one_that_ran_through_draws(tmp_path: Path) -> None:
    settings = small(optimiser={"max_epochs": 3}, contrast={"view": "noise", "weight": 0.1})
    straight, resumed = model_of(DATA, settings), model_of(DATA, settings)
    run(DATA, settings, model=straight)
    with pytest.raises(KeyboardInterrupt):
        run(DATA, settings, model=model_of(DATA, settings), observer=Recorder("fitting", 2), checkpoints=tmp_path)
    run(DATA, settings, model=resumed, checkpoints=tmp_path, resume=True)
    assert_same_bits(parameters(resumed), parameters(straight))


def test_the_best_parameters_and_patience_survive_a_resume(tmp_path: Path) -> None:
    settings = small(optimiser={"max_epochs": 20, "patience": 3})
    script = Script([0.5, 0.1], [0.1, 0.6])
    script.model = model_of(DATA, settings)
    with pytest.raises(KeyboardInterrupt):
        run(
            DATA,
            settings,
            model=script.model,
            observer=Recorder("fitting", 2),
            validate=script,
            checkpoints=tmp_path,
        )
    after = Script([0.2, 0.3, 0.1], [0.2, 0.3, 0.1])
    after.model = model_of(DATA, settings, seed=99)
    _, done = run(DATA, settings, model=after.model, validate=after, checkpoints=tmp_path, resume=True)
    assert (done.best_epoch, len(done.history)) == (1, 5)  # 3 worse after the stop
    assert_same_bits(parameters(after.model), script.seen[0])
    hold(after.model, done.kept[1].tensors)
    assert_same_bits(parameters(after.model), script.seen[1])


def test_without_resume_a_checkpoint_is_left_unread(interrupted: Path) -> None:
    fresh, done = run(DATA, RESUMED, checkpoints=interrupted, identity="this")
    straight, _ = run(DATA, RESUMED)
    assert len(done.history) == 7
    assert_same_bits(parameters(fresh), parameters(straight))


def test_resuming_another_fit_is_refused(interrupted: Path) -> None:
    with pytest.raises(CheckpointError, match="belongs to another run"):
        run(DATA, RESUMED, checkpoints=interrupted, identity="that", resume=True)


def test_resuming_where_nothing_was_saved_starts_from_the_beginning(tmp_path: Path) -> None:
    resumed, done = run(DATA, small(), checkpoints=tmp_path / "none", resume=True)
    straight, _ = run(DATA, small())
    assert len(done.history) == 4
    assert_same_bits(parameters(resumed), parameters(straight))


# ---- the parts of the loss -------------------------------------------------------------------------------------------


def test_the_parts_of_the_loss_add_up_to_it_and_what_is_trained_besides_is_told_beside_them() -> None:
    settings = small(loss={"l2_weight": 0.1}, contrast={"weight": 0.5}, diffusion={"hidden": 4, "step_width": 2})
    data = clips()
    result = train_kdiffe(data, settings, Silence())
    for epoch in result.fit.history:
        assert set(epoch.losses) == {"ranking", "l2", "contrast", "diffusion", "guidance"}
        assert epoch.loss == pytest.approx(sum(epoch.losses[name] for name in ("ranking", "l2", "contrast")))
        assert min(epoch.losses.values()) > 0
    plain = run(DATA, small())[1].history[0]
    assert set(plain.losses) == {"ranking", "l2"}
    assert plain.loss == pytest.approx(sum(plain.losses.values()))


def test_the_best_epoch_s_generated_graphs_come_back_with_its_parameters() -> None:
    data = clips()
    settings = small(model={"kind": "diffmm"}, diffusion={"graph": "random", "n_kept": 1})
    state = attention_state(data, data.train, WalkSettings(2, 5, 0.15, 0), 1)
    model = make_model(data, settings, state, None, CPU)
    seen: list[Tensor] = []

    def validate() -> Mapping[str, float]:
        seen.append(model.embeddings().detach().clone())
        return {SELECTED_BY: 1.0 if len(seen) == 2 else 0.0}

    done = fit(model, sampler_of(data, settings), settings, Silence(), validate=validate)
    assert done.best_epoch == 2
    torch.testing.assert_close(model.embeddings().detach(), seen[1], rtol=0, atol=0)
    assert not torch.equal(seen[1], seen[-1])
