"""Formulas (1) and (2) against a plain double loop over the triplets, their gradients against dense autograd."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.training.worlds import CPU
from training.nn.aggregation import Triplets, _WeightedSum, aggregate, attention, attention_logits

# Item 1 has none, item 0 has entity 2 under both relations, item 3 has one alone; not in order.
GRAPH = [(3, 0, 1), (0, 1, 2), (0, 0, 2), (2, 1, 0), (0, 0, 1), (2, 0, 3), (2, 1, 3), (2, 0, 1)]
N_ITEMS, N_ENTITIES, N_RELATIONS, WIDTH = 5, 6, 2, 4
SORTED = sorted(GRAPH)


def triplets() -> Triplets:
    items, relations, entities = (np.array(column, np.int32) for column in zip(*GRAPH, strict=True))
    return Triplets.from_rows(items, relations, entities, N_ITEMS, N_ENTITIES, CPU)


def tables(seed: int = 0, grad: bool = False) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """z_e, z_j, W, r in double precision."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((N_ENTITIES, WIDTH), (N_ITEMS, WIDTH), (WIDTH, 2 * WIDTH), (N_RELATIONS, WIDTH))
    made = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    entities, items, weight, relations = (value.requires_grad_(grad) for value in made)
    return entities, items, weight, relations


def looped_logit(entities: Tensor, items: Tensor, weight: Tensor, relations: Tensor, triplet: tuple) -> float:  # type: ignore[type-arg]
    """σ( r ᵀ W [z_e ‖ z_j] ) entry by entry."""
    item, relation, entity = triplet
    both = [*entities[entity].tolist(), *items[item].tolist()]
    product = [sum(weight[row, column].item() * both[column] for column in range(2 * WIDTH)) for row in range(WIDTH)]
    value = sum(relations[relation, row].item() * product[row] for row in range(WIDTH))
    return value if value > 0 else 0.2 * value


def test_triplets_are_sorted_by_item_and_again_by_entity() -> None:
    t = triplets()
    assert list(zip(t.items.tolist(), t.relations.tolist(), t.entities.tolist(), strict=True)) == SORTED
    for item in range(N_ITEMS):
        there = range(int(t.indptr[item]), int(t.indptr[item + 1]))
        assert [SORTED[p][0] for p in there] == [item] * sum(head == item for head, _, _ in GRAPH)
    for entity in range(N_ENTITIES):
        there = t.by_entity[int(t.entity_indptr[entity]) : int(t.entity_indptr[entity + 1])]
        assert [SORTED[p][2] for p in there] == [entity] * sum(tail == entity for _, _, tail in GRAPH)


def test_a_logit_is_the_relation_times_w_times_both_embeddings_through_leaky_relu() -> None:
    values = tables()
    found = attention_logits(*values, triplets())
    expected = [looped_logit(*values, triplet) for triplet in SORTED]
    assert min(expected) < 0 < max(expected)  # both sides of the non-linearity
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12)


def test_attention_is_the_softmax_over_the_triplets_of_an_item() -> None:
    values = tables(1)
    found = attention(attention_logits(*values, triplets()), triplets())
    for position, triplet in enumerate(SORTED):
        mates = [math.exp(looped_logit(*values, other)) for other in SORTED if other[0] == triplet[0]]
        expected = math.exp(looped_logit(*values, triplet)) / sum(mates)
        assert found[position].item() == pytest.approx(expected, rel=1e-12)


def test_attention_bears_logits_beyond_the_range_of_exp() -> None:
    t = triplets()
    logits = torch.tensor([2000.0 if head == 0 else -2000.0 for head, _, _ in SORTED], dtype=torch.float64)
    counts = [sum(other[0] == head for other in SORTED) for head, _, _ in SORTED]
    np.testing.assert_allclose(attention(logits, t).numpy(), [1 / count for count in counts], rtol=1e-12)


def test_aggregation_adds_the_weighted_entities_and_scales_to_length_1() -> None:
    entities, items, weight, relations = tables(2)
    t = triplets()
    weights = attention(attention_logits(entities, items, weight, relations, t), t)
    found = aggregate(items, entities, weights, t)
    for item in range(N_ITEMS):
        total = items[item].numpy().copy()
        for position, (head, _, entity) in enumerate(SORTED):
            if head == item:
                total += weights[position].item() * entities[entity].numpy()
        np.testing.assert_allclose(found[item].numpy(), total / math.sqrt((total**2).sum()), rtol=1e-12)


def test_an_item_without_triplets_is_its_own_direction() -> None:
    entities, items, _, _ = tables(3)
    weights = torch.full((len(SORTED),), 0.25, dtype=torch.float64)
    found = aggregate(items, entities, weights, triplets())
    for item in (1, 4):
        np.testing.assert_allclose(found[item].numpy(), items[item] / items[item].norm(), rtol=1e-12)


def test_the_gradients_of_the_weighted_sum_are_those_of_finite_differences() -> None:
    t = triplets()
    generator = torch.Generator().manual_seed(4)
    weights = torch.rand(len(SORTED), generator=generator, dtype=torch.float64, requires_grad=True)
    entities = torch.randn(N_ENTITIES, WIDTH, generator=generator, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w, e: _WeightedSum.apply(w, e, t), (weights, entities))  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("objective", ["projection", "sum"])
def test_the_gradients_of_formulas_1_and_2_are_those_of_dense_autograd(objective: str) -> None:
    t = triplets()
    direction = torch.randn(N_ITEMS, WIDTH, generator=torch.Generator().manual_seed(9), dtype=torch.float64)

    def value(output: Tensor) -> Tensor:
        # The gradient of a plain sum comes in as an expanded scalar, without memory of its own.
        return (output * direction).sum() if objective == "projection" else output.sum()

    ours = tables(5, grad=True)
    value(aggregate(ours[1], ours[0], attention(attention_logits(*ours, t), t), t)).backward()  # type: ignore[no-untyped-call]

    entities, items, weight, relations = dense = tables(5, grad=True)
    rows = []
    for item in range(N_ITEMS):
        mine = [(relation, entity) for head, relation, entity in SORTED if head == item]
        total = items[item]
        if mine:
            logits = torch.stack(
                [relations[r] @ weight @ torch.cat([entities[e], items[item]]) for r, e in mine],
            )
            shares = torch.softmax(torch.nn.functional.leaky_relu(logits, 0.2), 0)
            for share, (_, entity) in zip(shares, mine, strict=True):
                total = total + share * entities[entity]
        rows.append(total / total.norm())
    value(torch.stack(rows)).backward()  # type: ignore[no-untyped-call]

    for found, expected in zip(ours, dense, strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-10, atol=1e-12)
    assert ours[0].grad is not None
    assert ours[0].grad[5].abs().sum() == 0  # no triplet names entity 5
