"""Bootstrapping on small chains with a time limit, whose exact values a linear solve gives.

A chain of S states: from state s one walks to s + 1 for reward r_s; the last step ends the task. A time limit cuts
episodes short. The value of a state does not know of the limit: what is cut off counts as if it had gone on. With the
exact value function every estimator must return it exactly, wherever it cuts, and every wrong rule must not.
"""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from hypothesis import given
from hypothesis import strategies as st

from poise.batch import Sample
from poise.datasets.replay import Replay
from poise.datasets.rollout import Rollout
from poise.policies.returns import discounted_returns, gae, n_step_returns, td_target
from poise.policies.scan import SHORT, scan_backward, scan_forward
from poise.sim.gymnasium_adapter import GymVecEnv
from poise.sim.worlds import Worlds

STATES, LIMIT, DISCOUNT = 6, 4, 0.9
REWARD = np.array([1.0, -2.0, 3.0, 0.5, -1.0, 4.0])


def exact_values() -> np.ndarray:
    """V = (I - discount P)^-1 r; state 6 is the end, of value 0."""
    step = np.eye(STATES, k=1)
    return np.append(np.linalg.solve(np.eye(STATES) - DISCOUNT * step, REWARD), 0.0)


class Chain(gymnasium.Env):
    """Starts in the state that the seed names; observations are the number of the state, one-hot."""

    observation_space = spaces.Box(0.0, 1.0, (STATES + 1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.state, self.time = int(self.np_random.integers(4)), 0
        return self._obs(), {}

    def step(self, action):
        reward = REWARD[self.state]
        self.state, self.time = self.state + 1, self.time + 1
        ended = self.state == STATES
        return self._obs(), reward, ended, self.time == LIMIT and not ended, {}

    def _obs(self):
        return np.eye(STATES + 1, dtype=np.float32)[self.state]


def worlds(mode) -> GymVecEnv:
    makers = [Chain] * 3
    vector = Worlds(makers) if mode is AutoresetMode.DISABLED else SyncVectorEnv(makers, autoreset_mode=mode)
    return GymVecEnv(vector, name="chain")


def collected(mode, steps: int):
    """(rollout (N, T), replay) of the same steps."""
    env = worlds(mode)
    rollout, replay = Rollout(env.spec, 3, steps), Replay(env.spec, 3, 3 * steps)
    obs, action = env.reset(0), torch.zeros(3, 1, dtype=torch.int64)
    for _ in range(steps):
        step = env.step(action)
        for buffer in (rollout, replay):
            buffer.add(obs, action, {}, step)
        obs = step.obs
    return rollout.sample(Sample(0, length=steps), np.random.default_rng(0)), replay


def value(obs) -> torch.Tensor:
    return obs["state"] @ torch.from_numpy(exact_values()).float()


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize("steps", [1, 3, 4, 7, 23, 40])
def test_with_the_exact_values_every_estimator_returns_them(mode, steps):
    batch, replay = collected(mode, max(steps, 2))
    v, after = value(batch.obs), value(batch.next_obs)
    rest = (batch.reward, after, batch.terminated, batch.truncated, DISCOUNT)
    real = torch.ones_like(v, dtype=torch.bool) if batch.mask is None else batch.mask
    assert real.any() and (mode is not AutoresetMode.NEXT_STEP or steps < 7 or not real.all())
    wanted = torch.where(real, v, 0.0)
    for lam in (0.0, 0.5, 1.0):
        advantage = gae(batch.reward, v, after, batch.terminated, batch.truncated, DISCOUNT, lam, batch.mask)
        torch.testing.assert_close(advantage, torch.zeros_like(v), atol=1e-5, rtol=0)
    torch.testing.assert_close(discounted_returns(*rest, batch.mask), wanted)
    for n in (1, 2, 3, 10):
        torch.testing.assert_close(n_step_returns(*rest, n, batch.mask), wanted)
        rows = replay.sample(Sample(0, n_step=n, discount=DISCOUNT), np.random.default_rng(0))
        y = td_target(rows.reward, rows.terminated, value(rows.next_obs), DISCOUNT, rows.steps)
        torch.testing.assert_close(y, value(rows.obs))


def test_the_wrong_rules_give_other_numbers():
    batch, replay = collected(AutoresetMode.DISABLED, 40)
    v, after = value(batch.obs), value(batch.next_obs)
    cut = batch.truncated & ~batch.terminated
    assert cut.any() and batch.terminated.any()
    # `done` where `terminated` belongs: time limits become ends of the world
    wrong = td_target(batch.reward, batch.done, after, DISCOUNT)
    assert ((wrong - v).abs() > 0.1)[cut].all() and torch.allclose(wrong[~cut], v[~cut], atol=1e-5)
    # the value of the next row, which after an end is another episode's start
    wrong = td_target(batch.reward, batch.terminated, v.roll(-1, 1), DISCOUNT)
    assert ((wrong - v).abs() > 0.1)[cut].any()
    # discount^n where fewer than n steps were made
    rows = replay.sample(Sample(0, n_step=3, discount=DISCOUNT), np.random.default_rng(0))
    assert rows.steps is not None
    short = (rows.steps < 3) & ~rows.terminated
    wrong = td_target(rows.reward, rows.terminated, value(rows.next_obs), DISCOUNT**3)
    assert short.any() and ((wrong - value(rows.obs)).abs() > 0.05)[short].any()


@given(st.integers(1, 3), st.integers(2, 20), st.integers(0, 10**6))
def test_rows_that_are_no_transition_are_inert(n_worlds, length, seed):
    """Whatever stands in masked rows, not a number too, the others get what each stretch between them gets alone."""
    rng = np.random.default_rng(seed)
    x = [torch.from_numpy(rng.normal(size=(n_worlds, length))) for _ in range(3)]
    ends = torch.from_numpy(rng.random((2, n_worlds, length)) < 0.15)
    mask = torch.from_numpy(rng.random((n_worlds, length)) < 0.75)
    junk = [torch.where(mask, a, b) for a, b in zip(x, (torch.nan, torch.inf, torch.nan), strict=True)]
    junk_ends = torch.where(mask, ends, torch.from_numpy(rng.random((2, n_worlds, length)) < 0.5))

    def estimates(reward, value, after, terminated, truncated, mask):
        return [gae(reward, value, after, terminated, truncated, DISCOUNT, 0.8, mask),
                discounted_returns(reward, after, terminated, truncated, DISCOUNT, mask),
                discounted_returns(reward, None, terminated, truncated, DISCOUNT, mask),
                *(n_step_returns(reward, after, terminated, truncated, DISCOUNT, n, mask) for n in (1, 2, 5, 30))]  # fmt: skip

    found = estimates(*junk, *junk_ends, mask)
    for world in range(n_worlds):
        rows = np.flatnonzero(mask[world].numpy())
        for stretch in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(stretch) > 0:
                part = slice(stretch[0], stretch[-1] + 1)
                alone = estimates(*(a[world : world + 1, part] for a in (*x, *ends)), None)
                for a, b in zip(found, alone, strict=True):
                    torch.testing.assert_close(a[world : world + 1, part], b)
    assert all((a[~mask] == 0.0).all() for a in found)


def test_returns_by_hand():
    reward = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    nothing = torch.zeros(1, 4, dtype=torch.bool)
    second = torch.tensor([[False, True, False, False]])
    after = torch.tensor([[10.0, 20.0, 30.0, 40.0]])
    # terminated at 1; the last row is cut: 8 + 0.5 * 40 = 28, 4 + 0.5 * 28 = 18; 2; 1 + 0.5 * 2 = 2
    assert discounted_returns(reward, after, second, nothing, 0.5).tolist() == [[2.0, 2.0, 18.0, 28.0]]
    # truncated at 1: 2 + 0.5 * 20 = 12, 1 + 0.5 * 12 = 7
    assert discounted_returns(reward, after, nothing, second, 0.5).tolist() == [[7.0, 12.0, 18.0, 28.0]]
    assert discounted_returns(reward, None, nothing, second, 0.5).tolist() == [[2.0, 2.0, 8.0, 8.0]]
    # two steps: 1 + .5 (2 + .5 * 20); 2 + .5 (4 + .5 * 30); 4 + .5 * 28; 28
    assert n_step_returns(reward, after, nothing, nothing, 0.5, 2).tolist() == [[7.0, 11.5, 18.0, 28.0]]
    steps = torch.tensor([1, 2, 3])
    y = td_target(torch.ones(3), torch.tensor([False, False, True]), torch.full((3,), 8.0), 0.5, steps)
    assert y.tolist() == [5.0, 3.0, 1.0]


@given(st.integers(1, 3), st.integers(1, 3 * SHORT), st.integers(0, 10**6))
def test_scans_equal_the_loop(rows, length, seed):
    generator = torch.Generator().manual_seed(seed)
    x, carry = torch.randn(2, rows, length, generator=generator, dtype=torch.float64)
    back, forth = x.clone(), x.clone()
    for t in range(length - 2, -1, -1):
        back[:, t] += carry[:, t] * back[:, t + 1]
    for t in range(1, length):
        forth[:, t] += carry[:, t] * forth[:, t - 1]
    torch.testing.assert_close(scan_backward(x, carry), back)
    torch.testing.assert_close(scan_forward(x, carry), forth)
