"""Worlds in this process step as Gymnasium's own do."""

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from poise.sim.worlds import Worlds


def test_our_worlds_step_as_gymnasium_s_own_do():
    makers = [lambda: gymnasium.make("CartPole-v1")] * 3
    ours, theirs = Worlds(makers), SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    first = ours.reset(seed=[1, 2, 3])[0], theirs.reset(seed=[1, 2, 3])[0]
    np.testing.assert_array_equal(*first)
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.integers(2, size=3)
        for a, b in zip(ours.step(action)[:4], theirs.step(action)[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        ended = theirs._terminations | theirs._truncations
        if ended.any():
            options = {"reset_mask": ended}
            np.testing.assert_array_equal(ours.reset(seed=[4, 5, 6], options=options)[0],
                                          theirs.reset(seed=[4, 5, 6], options=options)[0])  # fmt: skip
