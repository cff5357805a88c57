"""Diffusion of sparse rows against dense rows: one training step, the reverse process, the graph that is kept."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from training.errors import ConfigurationError, TrainingError
from training.nn.denoiser import guidance_error
from training.row_diffusion import (
    RowDiffusion,
    SparseRows,
    kept_triplets,
    operations,
    perturbed,
    random_thinning,
    seeded_generator,
    start_step,
    strongest_columns,
)
from training.settings import DiffusionSettings

CPU = torch.device("cpu")
GUIDE = 3


def settings(**values: Any) -> DiffusionSettings:
    """A strong schedule, so that noise is seen in every figure."""
    small = {"hidden": 8, "step_width": 4, "batch_size": 4, "noise_scale": 1.0, "noise_min": 0.05, "noise_max": 0.6}
    return DiffusionSettings(**{**small, "learning_rate": 0.01, **values})


def sparse(lists: Sequence[Sequence[int]], n_columns: int) -> SparseRows:
    rows = np.array([row for row, columns in enumerate(lists) for _ in columns], np.int64)
    columns = np.array([column for columns in lists for column in columns], np.int64)
    return SparseRows.from_pairs(rows, columns, len(lists), n_columns)


def random_rows(n: int, n_columns: int, per_row: int = 3, seed: int = 0) -> SparseRows:
    drawn = np.random.default_rng(seed).integers(n_columns, size=(n, per_row))
    return SparseRows.from_pairs(np.repeat(np.arange(n), per_row), drawn.ravel(), n, n_columns)


def dense(rows: SparseRows) -> Tensor:
    made = torch.zeros(rows.n_rows, rows.n_columns, dtype=torch.float64)
    made[rows.rows, rows.columns] = 1
    return made


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def diffusion_of(rows: SparseRows, chosen: DiffusionSettings, seed: int = 1) -> RowDiffusion:
    return RowDiffusion(rows, GUIDE, chosen, torch.Generator().manual_seed(seed), CPU)


def lists_of(rows: SparseRows) -> list[list[int]]:
    return [rows.columns[a:b].tolist() for a, b in zip(rows.indptr[:-1], rows.indptr[1:], strict=True)]


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# Five columns and eight hidden units: R is W_x itself, so the noise of the hidden space is that of whole rows.
FEW = [[0, 1], [2], [], [0, 1, 3], [1, 4], [3, 4], [0], []]


def test_pairs_become_rows_in_order_and_a_repeated_pair_counts_once() -> None:
    rows = SparseRows.from_pairs(np.array([2, 0, 2, 2, 0]), np.array([3, 1, 0, 3, 2]), 4, 5)
    assert lists_of(rows) == [[1, 2], [], [0, 3], []]
    assert (rows.n_rows, rows.n_columns, len(rows)) == (4, 5, 4)
    assert rows.sizes.tolist() == [2, 0, 2, 0]
    assert rows.rows.tolist() == [0, 0, 2, 2]


@pytest.mark.parametrize("with_guidance", [True, False])
def test_an_epoch_is_that_of_dense_rows_with_the_same_draws(with_guidance: bool) -> None:
    """The formulas over whole rows, a loop over the same batches, autograd and Adam."""
    chosen = settings(guide_weight=0.3)
    rows, guide, embeddings = sparse(FEW, 5), drawn(8, GUIDE), drawn(5, GUIDE, seed=1)
    guide[4] = 0
    made = diffusion_of(rows, chosen)
    made.denoiser.double()
    other = diffusion_of(rows, chosen)
    other.denoiser.double()
    made.train_epoch(guide, embeddings if with_guidance else None, generator())  # not from the start: W_out is not 0
    other.load_state_dict(made.state_dict())

    found = made.train_epoch(guide, embeddings if with_guidance else None, generator(7))

    source, densities, denoiser = generator(7), other.diffusion, other.denoiser
    filled, x_0 = [0, 1, 3, 4, 5, 6], dense(rows)
    order = [filled[i] for i in torch.randperm(6, generator=source).tolist()]
    weights = [densities.elbo_weight(t).item() for t in range(1, 11)]
    often = [0.05 + 0.5 * weight / sum(weights) for weight in weights]
    uniform = torch.rand(6, generator=source, dtype=torch.float64).tolist()
    steps = [next(t for t in range(1, 11) if u < sum(often[:t]) or t == 10) for u in uniform]
    mean_size, totals = 11 / 6, [0.0, 0.0]
    for begin in (0, 4):
        batch, of_batch = order[begin : begin + 4], torch.tensor(steps[begin : begin + 4])
        noise = torch.randn(len(batch), 5, generator=source, dtype=torch.float64)
        reconstructed = denoiser(densities.q_sample(x_0[batch], noise, of_batch), of_batch, guide[batch])
        errors = (reconstructed - x_0[batch]).square().sum(1) / mean_size
        factor = [weights[t - 1] / (sum(weights) / 10) / (10 * often[t - 1]) for t in of_batch.tolist()]
        elbo = (torch.tensor(factor) * errors).mean()
        guidance = guidance_error(reconstructed @ embeddings, guide[batch]) if with_guidance else torch.zeros(())
        other.optimiser.zero_grad()
        (elbo + 0.3 * guidance).backward()
        other.optimiser.step()
        totals = [totals[0] + len(batch) * elbo.item(), totals[1] + len(batch) * guidance.item()]
    assert (found.elbo, found.guidance) == pytest.approx((totals[0] / 6, totals[1] / 6), rel=1e-5)
    for name, value in made.denoiser.named_parameters():
        torch.testing.assert_close(value, denoiser.get_parameter(name), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("start", [1, 2, 7, 0])
def test_the_reverse_process_is_that_of_dense_rows_with_the_same_draws(start: int) -> None:
    rows, guide = sparse(FEW, 5), drawn(8, GUIDE)
    made = diffusion_of(rows, settings(start_step=start))
    made.denoiser.double()
    with torch.no_grad():
        made.denoiser.output_weight.copy_(drawn(5, 8, seed=4))
    source, densities, filled = generator(3), made.diffusion, [0, 1, 3, 4, 5, 6]
    first = start or 5
    with torch.no_grad():
        x_t = densities.q_sample(dense(rows)[filled], torch.randn(6, 5, generator=source, dtype=torch.float64), first)
        for t in range(first, 0, -1):
            x_0 = made.denoiser(x_t, torch.tensor([t]), guide[filled])
            x_t = densities.posterior_mean(x_0, x_t, t)
            if t > 1:
                noise = torch.randn(6, 5, generator=source, dtype=torch.float64)
                x_t = x_t + math.sqrt(densities.posterior_variance(t).item()) * noise
    for kept in (1, 3):
        expected: list[list[int]] = [[] for _ in FEW]
        for row, values in zip(filled, x_t.tolist(), strict=True):
            expected[row] = sorted(sorted(range(5), key=lambda column, v=values: -v[column])[:kept])
        assert lists_of(made.reconstruct(guide, generator(3), kept)) == expected


def test_half_of_the_steps_is_where_the_reverse_process_starts_and_never_beyond_the_last() -> None:
    assert start_step(settings()) == 5
    assert start_step(settings(n_steps=1)) == 1
    assert start_step(settings(start_step=3)) == 3
    assert start_step(settings(start_step=99)) == 10


def two_groups(n: int = 40) -> SparseRows:
    """Even rows have columns 0-3, odd ones 4-7, each but one of its four; columns 8-19 are nobody's."""
    return sparse([[c for c in range(4 * (i % 2), 4 * (i % 2) + 4) if c % 4 != i // 2 % 4] for i in range(n)], 20)


def test_it_learns_what_rows_have_in_common() -> None:
    rows = two_groups()
    made = diffusion_of(rows, settings(guided=False, noise_scale=0.1, batch_size=16, learning_rate=0.03, hidden=1))
    losses = [made.train_epoch(None, None, seeded_generator(0, epoch, 0, CPU)).elbo for epoch in range(100)]
    # The column means' error in units of |x_0|: Σ_e p_e (1 - p_e) / 3 with p = 3/8 for each of eight columns.
    means = 8 * (3 / 8) * (5 / 8) / 3
    assert losses[0] == pytest.approx(means, rel=0.3)
    # One hidden unit tells the group and no more: then p = 3/4 for each of the group's four columns.
    assert losses[-1] == pytest.approx(4 * (3 / 4) * (1 / 4) / 3, rel=0.1)
    kept = made.reconstruct(None, generator(), 4)
    assert lists_of(kept) == [list(range(4 * (i % 2), 4 * (i % 2) + 4)) for i in range(40)]


def test_the_guidance_draws_reconstructions_to_the_guide_and_is_off_without_one() -> None:
    rows, embeddings = two_groups(), drawn(20, GUIDE, seed=1).float()
    guide = embeddings[torch.arange(40) % 2 + 8]  # columns that no row has
    drawn_to, alone = (diffusion_of(rows, settings(guide_weight=weight)) for weight in (5.0, 0.0))
    for epoch in range(20):
        with_weight, without = (
            made.train_epoch(guide, embeddings, seeded_generator(0, epoch, 0, CPU)) for made in (drawn_to, alone)
        )
    assert with_weight.guidance < 0.2
    assert without.guidance > with_weight.guidance + 0.2
    unguided = diffusion_of(rows, settings(guided=False))
    assert unguided.train_epoch(guide, embeddings, generator()).guidance == 0
    same, other = (unguided.reconstruct(which, generator(), 2) for which in (guide, None))
    assert lists_of(same) == lists_of(other)


def test_neither_guide_nor_embeddings_get_gradients() -> None:
    guide, embeddings = drawn(8, GUIDE).float().requires_grad_(), drawn(5, GUIDE).float().requires_grad_()
    made = diffusion_of(sparse(FEW, 5), settings())
    made.train_epoch(guide, embeddings, generator())
    made.reconstruct(guide, generator(), 2)
    assert guide.grad is None
    assert embeddings.grad is None


def test_rows_without_ones_get_none_and_never_more_columns_than_there_are() -> None:
    made = diffusion_of(sparse(FEW, 5), settings())
    assert made.reconstruct(drawn(8, GUIDE).float(), generator(), 2).sizes.tolist() == [2, 2, 0, 2, 2, 2, 2, 0]
    assert made.reconstruct(drawn(8, GUIDE).float(), generator(), 9).sizes.tolist() == [5, 5, 0, 5, 5, 5, 5, 0]
    empty = diffusion_of(sparse([[], []], 5), settings())
    assert empty.train_epoch(None, None, generator()).elbo == 0
    assert lists_of(empty.reconstruct(None, generator(), 2)) == [[], []]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_what_is_kept_does_not_depend_on_the_chunk(chunk: int, temperature: float) -> None:
    rows, guide = random_rows(50, 30), drawn(50, GUIDE).float()
    made = diffusion_of(rows, settings(chunk=64, batch_size=16, draw_temperature=temperature))
    made.train_epoch(guide, None, generator())
    expected = lists_of(made.reconstruct(guide, generator(5), 3))
    made.settings = replace(made.settings, chunk=chunk)
    assert lists_of(made.reconstruct(guide, generator(5), 3)) == expected


def test_the_seed_gives_the_same_bits_and_the_global_generator_is_not_touched() -> None:
    rows, guide, before = random_rows(30, 20), drawn(30, GUIDE).float(), torch.get_rng_state()
    runs = []
    for weights, draws in ((1, 0), (1, 0), (1, 9), (2, 0)):
        made = diffusion_of(rows, settings(), weights)
        losses = made.train_epoch(guide, None, seeded_generator(draws, 1, 0, CPU))
        runs.append((losses, lists_of(made.reconstruct(guide, seeded_generator(draws, 1, 1, CPU), 2))))
    assert runs[0] == runs[1]
    assert runs[0][0] != runs[2][0]
    assert runs[0][0] != runs[3][0]
    assert torch.equal(before, torch.get_rng_state())


def test_draws_of_other_epochs_and_purposes_are_other_ones() -> None:
    keys = [(0, 1, 0), (0, 1, 1), (0, 2, 0), (1, 1, 0), (1, 0, 1)]
    firsts = [torch.rand(1, generator=seeded_generator(*key, CPU)).item() for key in keys]
    assert len(set(firsts)) == len(keys)
    assert torch.rand(1, generator=seeded_generator(0, 1, 0, CPU)).item() == firsts[0]


def test_going_on_from_the_state_gives_the_same_bits() -> None:
    rows, guide = random_rows(30, 20), drawn(30, GUIDE).float()
    straight, first, second = (diffusion_of(rows, settings(), seed) for seed in (1, 1, 5))
    for epoch in range(4):
        straight.train_epoch(guide, None, seeded_generator(0, epoch, 0, CPU))
    for epoch in range(2):
        first.train_epoch(guide, None, seeded_generator(0, epoch, 0, CPU))
    second.load_state_dict(first.state_dict())
    first.train_epoch(guide, None, seeded_generator(0, 9, 0, CPU))  # without effect on what was taken over
    for epoch in range(2, 4):
        second.train_epoch(guide, None, seeded_generator(0, epoch, 0, CPU))
    for name, value in straight.denoiser.named_parameters():
        assert torch.equal(value, second.denoiser.get_parameter(name)), name


def test_a_loss_that_is_no_number_is_an_error_that_names_the_learning_rate() -> None:
    made = diffusion_of(random_rows(30, 20), settings(guided=False))
    with torch.no_grad():
        made.denoiser.input_weight[3, 3] = math.nan
    with pytest.raises(TrainingError, match=r"diffusion\.learning_rate"):
        made.train_epoch(None, None, generator())


def test_an_impossible_schedule_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="noise_scale"):
        diffusion_of(sparse(FEW, 5), settings(noise_scale=0.0))


class Largest(TorchDispatchMode):
    """Keeps the largest number of elements that any operation took or gave, backward passes included."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for value in torch.utils._pytree.tree_leaves((args, kwargs, out)):
            if isinstance(value, Tensor):
                self.elements = max(self.elements, value.numel())
        return out


def test_a_training_step_holds_nothing_as_wide_as_the_entities_and_as_long_as_the_batch() -> None:
    n, columns, batch, hidden = 900, 400, 200, 16
    rows, guide = random_rows(n, columns), drawn(n, GUIDE).float()
    made = diffusion_of(rows, settings(hidden=hidden, batch_size=batch, chunk=50))
    with Largest() as seen:
        made.train_epoch(guide, drawn(columns, GUIDE).float(), generator())
    # Weights are E × h; activations b × h; the rows' ones and the guide go to the device as they are.
    assert seen.elements == max(columns * hidden, batch * hidden, len(rows), n * GUIDE)
    assert seen.elements < batch * columns / 10
    with Largest() as seen:
        made.reconstruct(guide, generator(), 2)
    assert seen.elements == max(50 * columns, n * hidden)


def test_the_counted_operations_are_those_that_torch_counts() -> None:
    """torch counts products of matrices alone: Adam, sparse products and triangular solves are the rest."""
    n, columns, hidden, guide_width = 600, 1000, 96, 48
    rows = random_rows(n, columns)
    chosen = settings(hidden=hidden, batch_size=150, start_step=4)
    made = RowDiffusion(rows, guide_width, chosen, generator(), CPU)
    guide, embeddings = (torch.randn(k, guide_width, generator=generator()) for k in (n, columns))
    training, reverse = operations(rows, guide_width, chosen)
    with FlopCounterMode(display=False) as counter:
        made.train_epoch(guide, embeddings, generator())
    assert 0.92 * training < counter.get_total_flops() <= training
    with FlopCounterMode(display=False) as counter:
        made.reconstruct(guide, generator(), 2)
    assert counter.get_total_flops() == pytest.approx(reverse, rel=0.01)


def test_the_counted_operations_of_a_target_without_a_guide_are_those_that_torch_counts() -> None:
    n, columns, hidden, width = 600, 1000, 96, 48
    rows = random_rows(n, columns)
    chosen = settings(hidden=hidden, batch_size=150, start_step=4, guided=False)
    made = RowDiffusion(rows, width, chosen, generator(), CPU)
    target, embeddings = (torch.randn(k, width, generator=generator()) for k in (n, columns))
    training, reverse = operations(rows, width, chosen, has_target=True)
    with FlopCounterMode(display=False) as counter:
        made.train_epoch(None, embeddings, generator(), target)
    assert 0.92 * training < counter.get_total_flops() <= training
    with FlopCounterMode(display=False) as counter:
        made.reconstruct(None, generator(), 2)
    assert counter.get_total_flops() == pytest.approx(reverse, rel=0.01)


def test_tiktok_s_epoch_takes_a_thousandth_of_the_published_code_s_operations() -> None:
    """34,600 rows × 13.4 M weights × 6, and the same rows × 10 reverse steps × 2 (the published code's shapes)."""
    published = 34_600 * 13.4e6 * (6 + 10 * 2)
    assert published == pytest.approx(12e12, rel=0.01)
    rows = random_rows(6710, 1024, per_row=6)
    ours = sum(operations(rows, 64, DiffusionSettings(batch_size=256)))
    assert ours < 13e9
    assert ours < published / 900


def ranked(values: list[float], n_kept: int) -> list[int]:
    return sorted(sorted(range(len(values)), key=lambda column: (-values[column], column))[:n_kept])


@pytest.mark.parametrize("n_kept", [1, 2, 3, 6])
def test_of_equally_strong_columns_the_first_are_kept(n_kept: int) -> None:
    strengths = torch.tensor([[0, 2, 2, 1, 2, 1], [1, 1, 1, 1, 1, 1], [5, 4, 3, 2, 1, 0], [-1, -1, 0, 0, -2, 0]])
    found = strongest_columns(strengths.float(), n_kept)
    assert found.tolist() == [ranked(row, n_kept) for row in strengths.tolist()]


def test_many_ties_are_ranked_as_a_full_sort_ranks_them() -> None:
    strengths = torch.randint(0, 4, (200, 37), generator=generator()).float()
    found = strongest_columns(strengths, 5)
    assert found.tolist() == [ranked(row, 5) for row in strengths.tolist()]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drawn_columns_are_those_of_draws_without_replacement(temperature: float) -> None:
    """20,000 rows of the same strengths; the probability of each pair by both orders; five deviations are allowed."""
    strengths = torch.tensor([0.6, 0.3, 0.1, -5.0, 0.05])
    n = 20_000
    kept = strongest_columns(perturbed(strengths.expand(n, -1), temperature, generator()), 2)
    counts = Counter(map(tuple, kept.tolist()))
    weights = strengths.double().clamp_min(1e-4) ** (1 / temperature)
    odds = (weights / weights.sum()).tolist()
    for a in range(5):
        for b in range(a + 1, 5):
            expected = odds[a] * odds[b] / (1 - odds[a]) + odds[b] * odds[a] / (1 - odds[b])
            assert abs(counts[a, b] - n * expected) <= 5 * math.sqrt(n * expected * (1 - expected)) + 1


def test_a_graph_that_is_drawn_is_another_one_each_time() -> None:
    made = diffusion_of(random_rows(200, 30), settings(draw_temperature=1.0, guided=False))
    graphs = [lists_of(made.reconstruct(None, generator(seed), 3)) for seed in (1, 1, 2)]
    assert graphs[0] == graphs[1] != graphs[2]


def test_a_random_thinning_keeps_of_each_row_q_of_its_own_or_all_it_has() -> None:
    rows = sparse([[0, 1, 2, 3], [5], [], [2, 4]], 6)
    thinned = lists_of(random_thinning(rows, 2, generator()))
    assert [len(columns) for columns in thinned] == [2, 1, 0, 2]
    assert all(
        set(columns) <= set(own) and columns == sorted(columns)
        for columns, own in zip(thinned, lists_of(rows), strict=True)
    )
    assert lists_of(random_thinning(rows, 9, generator())) == lists_of(rows)
    assert lists_of(random_thinning(rows, 2, generator())) == thinned


def test_a_random_thinning_keeps_every_set_of_columns_equally_often() -> None:
    """6,000 rows with the same four columns: six sets of two, 1,000 ± 29 of each; five deviations are 145."""
    thinned = random_thinning(sparse([[1, 3, 4, 8]] * 6000, 9), 2, generator())
    counts = Counter(map(tuple, lists_of(thinned)))
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts.values()) < 145


def triplets(*triples: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    columns = np.array(triples, np.int32).reshape(-1, 3).T
    return columns[0], columns[1], columns[2]


def test_a_pair_of_the_graph_keeps_all_of_its_relations_and_an_added_one_gets_its_entity_s_most_frequent() -> None:
    graph = triplets((0, 0, 0), (0, 2, 0), (1, 2, 0), (1, 1, 1), (2, 0, 1), (2, 2, 3), (0, 2, 3))
    kept = sparse([[0], [0, 3], [0, 1, 2]], 5)
    found = list(zip(*(part.tolist() for part in kept_triplets(kept, *graph)), strict=True))
    assert found == [
        (0, 0, 0),  # both relations of the pair
        (0, 2, 0),
        (1, 2, 0),
        (1, 2, 3),  # added: entity 3 has relation 2 alone
        (2, 0, 1),  # in the graph
        (2, 2, 0),  # added: entity 0 has relation 2 twice and 0 once
        (2, 2, 2),  # added: entity 2 has none, 2 is the graph's most frequent
    ]


def test_of_equally_frequent_relations_the_first_is_taken() -> None:
    graph = triplets((0, 3, 0), (1, 1, 0), (2, 2, 0))
    items, relations, entities = kept_triplets(sparse([[], [], [], [0]], 1), *graph)
    assert (items.tolist(), relations.tolist(), entities.tolist()) == ([3], [1], [0])


def test_triplets_of_random_graphs_are_those_of_a_loop_over_pairs() -> None:
    rng = np.random.default_rng(2)
    for _ in range(30):
        triples = sorted({tuple(t) for t in rng.integers((8, 4, 6), size=(25, 3)).tolist()})
        kept = random_rows(8, 6, per_row=3, seed=int(rng.integers(1000)))
        overall = Counter(relation for _, relation, _ in triples)
        expected = []
        for item, columns in enumerate(lists_of(kept)):
            for entity in columns:
                own = [t for t in triples if t[0] == item and t[2] == entity]
                counts = Counter(relation for _, relation, e in triples if e == entity) or overall
                usual = min(counts, key=lambda relation, c=counts: (-c[relation], relation))
                expected += own or [(item, usual, entity)]
        found = kept_triplets(kept, *triplets(*triples))
        assert list(zip(*(part.tolist() for part in found), strict=True)) == sorted(expected)
        assert {part.dtype for part in found} == {np.dtype(np.int32)}


def test_keeping_nothing_gives_no_triplets() -> None:
    assert [len(part) for part in kept_triplets(sparse([[], []], 3), *triplets((0, 0, 1)))] == [0, 0, 0]
    assert [len(part) for part in kept_triplets(sparse([[], []], 3), *triplets())] == [0, 0, 0]
