"""Exact arrays: Sutton & Barto's grid, Gymnasium's FrozenLake, and what does not converge."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poise.errors import UsageError
from poise.policies.tabular import (
    NotConvergingError,
    TabularMDP,
    evaluate_policy,
    frozen_lake,
    greedy,
    grid_world,
    q_learning,
    value_iteration,
)

RANDOM_V = [[0, -14, -20, -22], [-14, -18, -20, -20], [-20, -20, -18, -14], [-22, -20, -14, 0]]  # the book's figure 4.1
OPTIMAL_V = [[0, -1, -2, -3], [-1, -2, -3, -2], [-2, -3, -2, -1], [-3, -2, -1, 0]]
OPTIMAL_ACTIONS = [4, 1, 1, 2, 1, 2, 4, 1, 1, 4, 2, 1, 2, 1, 1, 4]


def test_the_random_policy_s_values_are_the_book_s():
    found = evaluate_policy(grid_world(), np.full((16, 4), 0.25))
    np.testing.assert_allclose(found.v.reshape(4, 4), RANDOM_V, atol=1e-6)
    assert found.sweeps == pytest.approx(426, abs=3)


def test_value_iteration_is_at_the_fixed_point_after_four_sweeps():
    found = value_iteration(grid_world())
    np.testing.assert_array_equal(found.v.reshape(4, 4), OPTIMAL_V)
    assert found.sweeps == 4  # the fifth changes nothing
    assert greedy(found.q).sum(-1).tolist() == OPTIMAL_ACTIONS


@pytest.mark.parametrize(("size", "discount", "start"), [
    (4, 1.0, 14 / 17), (4, 0.99, 0.542026), (8, 1.0, 1.0), (8, 0.99, 0.414640)])  # fmt: skip
def test_frozen_lake_s_first_state_is_worth_what_it_should_be(size, discount, start):
    assert value_iteration(frozen_lake(size, discount)).v[0] == pytest.approx(start, abs=1e-6)


def test_the_optimal_policy_s_own_values_are_the_optimal_ones():
    mdp = frozen_lake(4, 0.99)
    best = value_iteration(mdp)
    policy = np.eye(4)[best.q.argmax(-1)]
    np.testing.assert_allclose(evaluate_policy(mdp, policy).v, best.v, atol=1e-8)


@given(st.integers(0, 10**6), st.sampled_from([0.5, 0.9, 0.95]))
def test_value_iteration_contracts_by_the_discount(seed, discount):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(5), (5, 3))
    mdp = TabularMDP(transition, rng.normal(size=(5, 3, 5)), discount, np.array([True, *[False] * 4]))
    best = value_iteration(mdp, 1e-12)
    v = rng.normal(size=5) * ~mdp.terminal
    for _ in range(4):
        q = mdp.backup(v)
        assert np.abs(q - best.q).max() <= discount * np.abs(v - best.v).max() + 1e-9
        v = q.max(-1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_q_learning_finds_an_optimal_action_in_every_state_of_the_grid(seed):
    mdp = grid_world()
    learned = q_learning(mdp, 20_000, seed)
    best = greedy(value_iteration(mdp).q)
    chosen = learned.argmax(-1)
    assert best[np.arange(16), chosen].all()


def test_without_an_end_and_without_discount_it_is_said_that_nothing_settles():
    endless = grid_world(ends=())
    with pytest.raises(NotConvergingError, match=r"still change by 1 after 1000 sweeps: with discount 1 .*0 of 16"):
        value_iteration(endless, max_sweeps=1000)
    assert value_iteration(grid_world(ends=(), discount=0.9)).v == pytest.approx(np.full(16, -10.0))


@pytest.mark.parametrize(("change", "message"), [
    ({"transition": np.full((2, 1, 2), 0.4)}, "state 0, action 0 should be positive and sum to 1; they sum to 0.8"),
    ({"reward": np.zeros((2, 1, 1))}, r"one shape \(S, A, S\)"),
    ({"discount": 1.5}, "discount = 1.5: expected a number from 0 to 1"),
    ({"terminal": np.zeros(3, bool)}, "one truth for each of 2 states"),
    ({"reward": np.full((2, 1, 2), np.nan)}, "finite numbers"),
])  # fmt: skip
def test_what_is_no_mdp_is_refused(change, message):
    good = {"transition": np.full((2, 1, 2), 0.5), "reward": np.zeros((2, 1, 2)), "discount": 0.9,
            "terminal": np.zeros(2, bool)}  # fmt: skip
    with pytest.raises(UsageError, match=message):
        TabularMDP(**{**good, **change})
