"""GAE against hand arithmetic, against its O(T^2) definition, and on a chain whose values are known."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from poise.policies.returns import gae

F, B = torch.float64, torch.bool


def row(*values, dtype=F):
    return torch.tensor([values], dtype=dtype)


def test_four_steps_by_hand_with_a_termination_a_truncation_and_a_masked_row():
    # discount 0.5, lambda 0.5; step 0 terminates, step 1 runs out of time, step 2 is the simulator resetting itself
    advantage = gae(
        reward=row(1.0, 2.0, 99.0, 4.0),
        value=row(10.0, 20.0, 55.0, 40.0),
        next_value=row(1000.0, 8.0, 77.0, 16.0),
        terminated=row(True, False, False, False, dtype=B),
        truncated=row(False, True, False, False, dtype=B),
        discount=0.5,
        gae_lambda=0.5,
        mask=row(True, True, False, True, dtype=B),
    )
    # 0: 1 - 10, no bootstrap, no trace;  1: 2 + .5 * 8 - 20, trace cut;  2: no transition;  3: 4 + .5 * 16 - 40
    torch.testing.assert_close(advantage, row(-9.0, -14.0, 0.0, -28.0))


def test_three_steps_by_hand_carry_the_trace():
    off = row(False, False, False, dtype=B)
    advantage = gae(row(1.0, 2.0, 3.0), row(1.0, 2.0, 4.0), row(2.0, 4.0, 8.0), off, off, 0.5, 0.5)
    # deltas 1 + 1 - 1 = 1, 2 + 2 - 2 = 2, 3 + 4 - 4 = 3;  A_2 = 3, A_1 = 2 + .25 * 3, A_0 = 1 + .25 * 2.75
    torch.testing.assert_close(advantage, row(1.6875, 2.75, 3.0))


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 4), t=st.integers(1, 9), seed=st.integers(0, 2**31), discount=st.floats(0, 1), lam=st.floats(0, 1)
)
def test_the_recursion_equals_the_sum_of_its_definition(n, t, seed, discount, lam):
    g = torch.Generator().manual_seed(seed)
    reward, value, next_value = torch.randn(3, n, t, dtype=F, generator=g)
    terminated, truncated = torch.rand(2, n, t, generator=g) < 0.2
    mask = torch.rand(n, t, generator=g) < 0.9
    expected = torch.zeros(n, t, dtype=F)
    for i in range(n):
        for start in range(t):
            weight = 1.0
            for k in range(start, t):
                if not mask[i, k]:
                    break
                bootstrap = 0.0 if terminated[i, k] else discount * next_value[i, k]
                expected[i, start] += weight * (reward[i, k] + bootstrap - value[i, k])
                weight *= discount * lam
                if terminated[i, k] or truncated[i, k]:
                    break
    got = gae(reward, value, next_value, terminated, truncated, discount, lam, mask)
    torch.testing.assert_close(got, expected, rtol=1e-6, atol=1e-9)


def test_true_values_of_a_chain_with_a_time_limit_have_zero_advantage():
    """Walk right along 0, 1, 2, … for reward s; the clock stops every 3 steps and puts the walker back to 0.

    The time limit is not part of the task, so V(s) = sum_k discount^k (s + k) = s / (1 - g) + g / (1 - g)^2.
    """
    g = 0.9

    def v(s):
        return s / (1 - g) + g / (1 - g) ** 2

    position = row(0.0, 1.0, 2.0, 0.0, 1.0, 2.0)
    true_successor = row(1.0, 2.0, 3.0, 1.0, 2.0, 3.0)
    reset_successor = row(1.0, 2.0, 0.0, 1.0, 2.0, 0.0)  # what a vector env hands out to act on
    terminated = torch.zeros(1, 6, dtype=B)
    truncated = row(False, False, True, False, False, True, dtype=B)

    right = gae(position, v(position), v(true_successor), terminated, truncated, g, 0.95)
    torch.testing.assert_close(right, torch.zeros(1, 6, dtype=F), atol=1e-9, rtol=0)
    # the two well-known mistakes do not pass: the reset observation as successor, and time-out as termination
    assert gae(position, v(position), v(reset_successor), terminated, truncated, g, 0.95).abs().max() > 10
    assert gae(position, v(position), v(true_successor), truncated, terminated, g, 0.95).abs().max() > 10
