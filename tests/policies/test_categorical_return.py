"""C51's projection by hand, and the loss that follows from it."""

import math

import pytest
import torch

from poise.policies.categorical_return import cross_entropy, project


def test_a_value_between_two_atoms_counts_for_both_and_one_beyond_the_end_for_the_end():
    p = torch.eye(3)[[0, 0, 0, 0]]
    values = torch.tensor([[0.25, 0, 0], [-1.0, 0, 0], [1.0, 0, 0], [7.0, 0, 0]])
    expected = [[0.0, 0.75, 0.25], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 0.0, 1.0]]
    assert project(p, values, -1.0, 1.0).tolist() == expected


def test_projecting_keeps_all_probability_and_inside_the_ends_the_mean():
    g = torch.Generator().manual_seed(0)
    p, values = torch.rand(20, 51, generator=g).softmax(-1), torch.rand(20, 51, generator=g) * 8 - 4
    result = project(p, values, -5.0, 5.0)
    torch.testing.assert_close(result.sum(-1), torch.ones(20))
    torch.testing.assert_close(result @ torch.linspace(-5, 5, 51), (p * values).sum(-1))


def test_atoms_that_do_not_move_project_onto_themselves():
    p = torch.rand(5, 11).softmax(-1)
    torch.testing.assert_close(project(p, torch.linspace(-2, 2, 11).expand(5, -1), -2.0, 2.0), p)


def test_cross_entropy_is_least_at_the_target():
    target, logits = torch.tensor([[0.25, 0.75]]), torch.tensor([[[0.0, math.log(3.0)]], [[0.0, 0.0]]])
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    assert cross_entropy(target, logits)[:, 0].tolist() == pytest.approx([entropy, math.log(2.0)])


def test_a_value_that_is_not_finite_shows():
    assert not torch.isfinite(project(torch.eye(3), torch.tensor([[math.nan, 0, 0]] * 3), -1.0, 1.0)).all()
