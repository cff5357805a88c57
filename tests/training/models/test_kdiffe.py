"""The contrast between the main view and the view over a generated graph, and when the graph is made."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tests.training.models.test_knowledge import triplets, view_with_graph
from tests.training.worlds import CPU, checkerboard, model_of, small
from training.models.kdiffe import KDiffE
from training.nn.aggregation import Triplets
from training.nn.contrast import perturbed
from training.row_diffusion import seeded_generator
from training.settings import ContrastSettings

CONTRAST = ContrastSettings(weight=0.3, temperature=0.5)
SEED = 7


class Given:
    """Ĝ_k as the test gives it; keeps what it was asked."""

    def __init__(self, given: Triplets | None) -> None:
        self.triplets = given
        self.asked: list[tuple[int, tuple[int, ...], tuple[int, ...]]] = []

    def begin_epoch(self, number: int, user_embeddings: Tensor, entity_embeddings: Tensor) -> dict[str, float]:
        assert not user_embeddings.requires_grad
        assert not entity_embeddings.requires_grad
        self.asked.append((number, tuple(user_embeddings.shape), tuple(entity_embeddings.shape)))
        return {"diffusion": 0.25}

    def tensors(self) -> dict[str, Tensor]:
        return {"kept": torch.ones(1)}

    def restore(self, tensors: dict[str, Tensor]) -> None:
        self.asked.append((len(tensors), (), ()))


def model_with(graph: Given | None, contrast: ContrastSettings = CONTRAST) -> KDiffE:
    laplacian = model_of(checkerboard(8), small()).laplacian
    return KDiffE(8, 8, laplacian, [view_with_graph()], graph, contrast, SEED)


def other_graph() -> Triplets:
    items, relations, entities = (np.array(c, np.int32) for c in ((0, 3, 6), (1, 0, 1), (0, 2, 1)))
    return Triplets.from_rows(items, relations, entities, 8, 3, CPU)


def info_nce_by_hand(a: NDArray[np.float64], b: NDArray[np.float64], temperature: float) -> float:
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    terms = []
    for row in range(len(a)):
        cosines = [math.exp(float(a[row] @ other) / temperature) for other in b]
        terms.append(-math.log(cosines[row] / sum(cosines)))
    return sum(terms) / len(terms)


def test_the_loss_gains_theta_1_times_the_contrast_of_the_batch_s_distinct_users_and_items() -> None:
    with_contrast, without = model_with(Given(other_graph())), model_with(None)
    users, positives = torch.tensor([5, 0, 5, 2]), torch.tensor([3, 3, 0, 6])
    negatives = torch.tensor([[1], [2], [7], [4]])
    added = with_contrast.loss(users, positives, negatives, small().loss) - without.loss(
        users, positives, negatives, small().loss
    )
    view = with_contrast.knowledge
    main = with_contrast.embeddings().detach().numpy().astype(np.float64)
    other = with_contrast.propagated(view, view.base_over(other_graph())).detach().numpy().astype(np.float64)
    expected = 0.3 * sum(info_nce_by_hand(main[rows], other[rows], 0.5) for rows in ([0, 2, 5], [8, 11, 14]))
    assert added.item() == pytest.approx(expected, rel=1e-5)


def test_distinct_rows_that_are_given_are_those_that_are_found() -> None:
    model = model_with(Given(other_graph()))
    users, positives = torch.tensor([5, 0, 5, 2]), torch.tensor([3, 3, 0, 6])
    negatives = torch.tensor([[1], [2], [7], [4]])
    given = (torch.tensor([0, 2, 5]), torch.tensor([0, 3, 6]))
    torch.testing.assert_close(
        model.loss(users, positives, negatives, small().loss, given),
        model.loss(users, positives, negatives, small().loss),
    )


def test_the_contrast_of_a_view_with_itself_is_less_than_with_another() -> None:
    rows = torch.arange(8)
    same, other = model_with(Given(triplets())), model_with(Given(other_graph()))
    of = [model.own_loss(model.view_embeddings(), rows, rows).item() for model in (same, other)]
    assert of[0] < of[1]


def test_a_weight_of_0_leaves_the_graph_out_and_nothing_is_made() -> None:
    graph = Given(other_graph())
    model = model_with(graph, replace(CONTRAST, weight=0.0))
    assert model.begin_epoch(1) == {}
    assert not graph.asked
    assert not model.has_own_loss
    assert model.generated() == {}
    model.restore_generated({})
    assert not graph.asked


def test_under_noise_two_copies_of_the_batch_s_nodes_are_contrasted() -> None:
    model = model_with(None, replace(CONTRAST, view="noise", noise=0.4))
    users, items = torch.tensor([0, 2, 5]), torch.tensor([0, 3, 6])
    assert model.has_own_loss
    model.begin_epoch(4)
    found = model.own_loss(model.view_embeddings(), users, items)
    draws = seeded_generator(SEED, 4, 3, CPU)
    expected = 0.0
    for rows in (users, 8 + items):
        nodes = model.embeddings()[rows]
        pair = [perturbed(nodes, 0.4, draws).detach().numpy().astype(np.float64) for _ in range(2)]
        expected += info_nce_by_hand(*pair, 0.5)
    assert found.item() == pytest.approx(0.3 * expected, rel=1e-5)
    # Other noise a batch, the same again in the same epoch of another run.
    assert model.own_loss(model.view_embeddings(), users, items) != found
    model.begin_epoch(4)
    assert model.own_loss(model.view_embeddings(), users, items) == found
    assert model.generated() == {}
    gradient = torch.autograd.grad(found, model.knowledge.item_embeddings)[0]
    assert gradient.abs().sum() > 0


def test_noise_takes_the_place_of_a_graph_where_it_is_asked_for_alone() -> None:
    graph = Given(other_graph())
    assert not model_with(None).has_own_loss
    model = model_with(graph, replace(CONTRAST, view="noise"))
    assert model.begin_epoch(1) == {}
    assert not graph.asked
    assert model.has_own_loss


def test_an_epoch_makes_the_graph_from_the_propagated_users_and_the_entities() -> None:
    graph = Given(other_graph())
    model = model_with(graph)
    assert model.begin_epoch(3) == {"diffusion": 0.25}
    model.restore_generated(model.generated())
    assert graph.asked == [(3, (8, 8), (3, 8)), (1, (), ())]
