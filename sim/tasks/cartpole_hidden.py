"""CartPole with the velocities hidden: a policy has to remember to know how fast the cart and the pole move.

The observation is [cart position, pole angle]; everything else is Gymnasium's CartPole-v1, 500 steps at most.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.classic_control.cartpole import CartPoleEnv

_SEEN = [0, 2]  # of [x, velocity of x, angle, velocity of the angle]


class CartPoleHidden(CartPoleEnv):
    """Actions: 0 pushes left, 1 right. Observations: [x, angle] float32."""

    def __init__(self, render_mode: str | None = None):
        super().__init__(render_mode=render_mode)
        whole = self.observation_space
        assert isinstance(whole, spaces.Box)
        self.observation_space = spaces.Box(whole.low[_SEEN], whole.high[_SEEN], dtype=np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        obs, info = super().reset(seed=seed, options=options)
        return obs[_SEEN], info

    def step(self, action: Any):
        obs, *outcome = super().step(action)
        return obs[_SEEN], *outcome
