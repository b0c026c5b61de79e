"""The gym: adapter: a world whose numbers break is contained, counted and reset."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from poise.errors import PoiseError
from poise.sim.gymnasium_adapter import GymVecEnv
from poise.sim.worlds import Worlds

from .counters import SLOW, Counter


class Breaks(Counter):
    """Counts, and goes wrong in the step that should give `when`: in its reward, or in what it shows."""

    def __init__(self, when: int = 3, what: str = "reward"):
        super().__init__()
        self.when, self.what = when, what

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count == self.when:
            return (obs, float("nan"), True, truncated, info) if self.what == "reward" else (
                obs * np.inf, reward, terminated, truncated, info)  # fmt: skip
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("what", ["reward", "obs"])
def test_a_world_that_breaks_is_contained_counted_and_reset_and_the_others_go_on(what):
    env = GymVecEnv(Worlds([lambda: Breaks(what=what), Counter]), name="breaks")
    env.reset(0)
    env.step(torch.full((2, 1), SLOW))
    step = env.step(torch.full((2, 1), SLOW))  # world 0 goes from 1 to what should be 2, then to 3
    while env.bad_worlds == 0:
        before, step = step, env.step(torch.full((2, 1), SLOW))
    assert env.bad_worlds == 1
    assert step.reward.tolist()[0] == 0.0 and step.reward[1] > 0
    assert step.truncated.tolist() == [True, False] and not step.terminated.any()
    assert step.next_obs["state"][0] == before.obs["state"][0], "the successor is the last sound observation"
    assert torch.isfinite(step.obs["state"]).all() and step.obs["state"][0] == 0.0
    assert step.next_obs["state"][1] == before.obs["state"][1] + 1
    again = GymVecEnv(Worlds([lambda: Breaks(what=what), Counter]), name="breaks")
    again.load_state_dict(env.state_dict())
    assert again.bad_worlds == 1


def test_where_nobody_can_reset_a_world_a_broken_reward_is_masked_and_a_broken_observation_refused():
    env = GymVecEnv(SyncVectorEnv([Breaks], autoreset_mode=AutoresetMode.NEXT_STEP), name="breaks")
    env.reset(0)
    masks = [env.step(torch.full((1, 1), SLOW)).mask for _ in range(4)]
    assert env.bad_worlds == 1 and sum(not bool(m.all()) for m in masks) >= 1
    env = GymVecEnv(SyncVectorEnv([lambda: Breaks(what="obs")], autoreset_mode=AutoresetMode.SAME_STEP), name="breaks")
    env.reset(0)
    with pytest.raises(PoiseError, match="world 0 gave an observation that is not finite"):
        for _ in range(4):
            env.step(torch.full((1, 1), SLOW))
