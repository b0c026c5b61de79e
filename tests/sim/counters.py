"""Environments for tests of the gym: adapter: counters whose every successor is known by hand."""

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

from poise.sim.gymnasium_adapter import GymVecEnv

SLOW, FAST = -1.0, 1.0  # actions: the counter goes up by 1, by 2


class Counter(gymnasium.Env):
    """Counts up from a start below `starts`; 6 or more is the end of the task, and 6 exactly a success."""

    metadata = {"render_modes": [], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)
    observation_space = spaces.Box(-100.0, 100.0, (1,), np.float64)
    action_space = spaces.Box(np.float32([10.0]), np.float32([20.0]))  # 10 is slow, 20 is fast

    def __init__(self, starts: int = 1):
        self.starts = starts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(self.starts))
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 2 if action[0] > 15.0 else 1
        action *= 0.0  # as some simulators do; the record for replaying must not notice
        return self._obs(), float(self.count), self.count >= 6, False, {"is_success": self.count == 6}

    def _obs(self):
        return np.array([self.count], np.float64)


class LeakyCounter(Counter):
    """Its reset forgets to clear something, so that its third episode counts on from the second."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def _obs(self):
        return super()._obs() + (0.25 * self.count if self.episodes > 1 else 0.0)


class Signpost(gymnasium.Env):
    """A Discrete observation from 3 to 5 that goes where a Discrete action from 1 to 2 sends it."""

    observation_space = spaces.Discrete(3, start=3)
    action_space = spaces.Discrete(2, start=1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 3, {}

    def step(self, action):
        return 3 + int(action), float(action), False, False, {}


class Shapes(Counter):
    """Any pair of spaces."""

    def __init__(self, observation, action):
        super().__init__()
        self.observation_space, self.action_space = observation, action


def register():
    """Put them into Gymnasium's registry; `registered` in conftest.py takes them out again."""
    gymnasium.register("PoiseCounter-v0", Counter, max_episode_steps=4)
    gymnasium.register("PoiseRandomCounter-v0", Counter, max_episode_steps=4, kwargs={"starts": 5})
    gymnasium.register("PoiseLeakyCounter-v0", LeakyCounter, max_episode_steps=4)
    gymnasium.register("PoiseSignpost-v0", Signpost)


def worlds(mode, id="PoiseCounter-v0", num_envs=2, wrap=lambda env: env):
    vector = SyncVectorEnv([lambda: gymnasium.make(id)] * num_envs, autoreset_mode=mode)
    return GymVecEnv(wrap(vector), name=id)


def column(tensor):
    return [float(x) for x in tensor.flatten()]


def random_action(env, generator):
    if env.spec.discrete:
        return torch.randint(env.spec.actions[0].n, (env.num_envs, 1), generator=generator)
    return torch.rand(env.num_envs, env.spec.action_dim, generator=generator) * 2 - 1


def assert_same_step(a, b):
    for name in ("reward", "terminated", "truncated"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.obs["state"], b.obs["state"])
    assert torch.equal(a.next_obs["state"], b.next_obs["state"])
