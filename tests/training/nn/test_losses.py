"""Losses against arithmetic on plain numbers."""

import math

import pytest
import torch

from training.nn.losses import bpr_loss, l2_penalty, sampled_softmax_loss

POSITIVE = [0.5, -1.0]
NEGATIVE = [[0.0, 2.0, 0.5], [-3.0, 1.0, -1.0]]


def scores() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.tensor(POSITIVE, dtype=torch.float64), torch.tensor(NEGATIVE, dtype=torch.float64)


def test_bpr_is_the_mean_of_minus_log_sigmoid_of_the_difference_over_all_pairs() -> None:
    terms = [
        -math.log(1 / (1 + math.exp(-(positive - negative))))
        for positive, row in zip(POSITIVE, NEGATIVE, strict=True)
        for negative in row
    ]
    assert bpr_loss(*scores()).item() == pytest.approx(sum(terms) / 6, rel=1e-12)


def test_equal_scores_cost_log_2() -> None:
    assert bpr_loss(torch.zeros(3), torch.zeros(3, 4)).item() == pytest.approx(math.log(2))


def test_bpr_bears_differences_beyond_the_range_of_exp() -> None:
    assert bpr_loss(torch.tensor([0.0]), torch.tensor([[5000.0]])).item() == 5000.0


def test_the_softmax_s_denominator_holds_the_positive_and_its_negatives() -> None:
    terms = [
        -math.log(math.exp(positive) / (math.exp(positive) + sum(math.exp(negative) for negative in row)))
        for positive, row in zip(POSITIVE, NEGATIVE, strict=True)
    ]
    assert sampled_softmax_loss(*scores()).item() == pytest.approx(sum(terms) / 2, rel=1e-12)


def test_with_equal_scores_the_softmax_costs_the_log_of_how_many_there_are() -> None:
    positive, negative = (torch.full(shape, 900.0, dtype=torch.float64) for shape in ((2,), (2, 7)))
    assert sampled_softmax_loss(positive, negative).item() == pytest.approx(math.log(8))


def test_with_one_negative_softmax_and_bpr_are_the_same_loss() -> None:
    positive, negative = scores()
    torch.testing.assert_close(sampled_softmax_loss(positive, negative[:, :1]), bpr_loss(positive, negative[:, :1]))


def test_the_penalty_is_half_the_squares_a_sample() -> None:
    users = torch.tensor([[1.0, 2.0], [3.0, 0.0]])
    negatives = torch.tensor([[[1.0, 1.0], [0.0, 2.0]], [[1.0, 0.0], [0.0, 0.0]]])
    squares = (1 + 4 + 9) + (1 + 1 + 4 + 1)
    assert l2_penalty(users, negatives).item() == pytest.approx(squares / (2 * 2))
