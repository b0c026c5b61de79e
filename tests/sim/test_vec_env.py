"""The conformance check itself: it must notice every way of breaking the contract of VecEnv."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from poise.sim.task_env import TaskEnv
from tests.conformance import check_vec_env

from .two_link import TwoLink


class _Broken:
    """A TaskEnv whose steps go through `spoil(step, env)` on their way out."""

    def __init__(self, num_envs: int, spoil):
        self.env, self.spoil, self.count = TaskEnv(TwoLink(), num_envs, TwoLink.randomization, threads=1), spoil, 0
        self.spec, self.num_envs, self.device = self.env.spec, num_envs, self.env.device
        self.max_episode_steps = self.env.max_episode_steps
        self.buffer = torch.zeros(num_envs)

    def reset(self, seed):
        return self.env.reset(seed)

    def step(self, action):
        self.count += 1
        return self.spoil(self.env.step(action), self)

    def state_dict(self):
        return self.env.state_dict()

    def load_state_dict(self, state):
        return self.env.load_state_dict(state)

    def close(self):
        self.env.close()


def _reused(step, env):
    env.buffer.copy_(step.reward)
    return replace(step, reward=env.buffer)


SPOILED = {
    "gave another trajectory": lambda s, e: replace(s, reward=s.reward + e.count),
    "overwritten by a later step": _reused,
    "next_obs in the middle": lambda s, e: replace(s, next_obs={k: v + 1 for k, v in s.next_obs.items()}),
    "truncated, not terminated": lambda s, e: replace(s, terminated=s.done, truncated=s.truncated & False),
    "no end after": lambda s, e: replace(s, truncated=s.truncated & False, obs=s.next_obs),
    "should end in 5 numbers": lambda s, e: replace(s, obs={k: v[:, 1:] for k, v in s.obs.items()}),
    "the spec says float32": lambda s, e: replace(s, obs={k: v.double() for k, v in s.obs.items()}),
    "is not finite": lambda s, e: replace(s, obs={k: v / 0 for k, v in s.obs.items()}),
    "world 0 alone played differently": lambda s, e: replace(s, reward=s.reward + e.num_envs),
    "depends on what other worlds do": lambda s, e: replace(s, reward=s.reward.sum().expand(e.num_envs).clone()
                                                            if e.num_envs > 1 else s.reward),
}  # fmt: skip


@pytest.mark.parametrize("message", SPOILED)
def test_a_broken_step_is_noticed(message):
    with pytest.raises(Exception, match=message if "depends" not in message else f"{message}|alone played"):
        check_vec_env(lambda n: _Broken(n, SPOILED[message]))


@pytest.mark.parametrize(
    ("change", "message"),
    [({"steps": np.zeros(3, np.int64)}, "went on differently"), ({"bad_worlds": {1, 2}}, "is a set"),
     ({"memory": {3: 0.0}}, "a key that is no string")],
)  # fmt: skip
def test_a_state_that_is_incomplete_or_no_plain_data_is_noticed(change, message):
    class Forgetful(_Broken):
        def state_dict(self):
            return {**super().state_dict(), **change}

    with pytest.raises(AssertionError, match=message):
        check_vec_env(lambda n: Forgetful(n, lambda s, e: s))


def test_a_state_that_goes_on_changing_is_noticed():
    class Live(_Broken):
        live = np.zeros(1)

        def state_dict(self):
            return {**super().state_dict(), "live": self.live}

        def step(self, action):
            self.live += 1
            return super().step(action)

    with pytest.raises(AssertionError, match="a state_dict changed when the env went on"):
        check_vec_env(lambda n: Live(n, lambda s, e: s))


def test_an_env_that_ignores_its_seed_is_noticed():
    class Deaf(_Broken):
        def reset(self, seed):
            return super().reset(0)

    with pytest.raises(AssertionError, match="another seed gave the same trajectory"):
        check_vec_env(lambda n: Deaf(n, lambda s, e: s))
