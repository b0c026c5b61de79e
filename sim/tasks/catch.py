"""Catch: a ball falls down a grid, and the paddle at its bottom should be under it; seen as an 84 x 84 picture.

The smallest task that needs a convolutional network, after Osband et al. 2020, "Behaviour suite for reinforcement
learning" (arXiv 1908.03568), whose grid it has: 10 rows, 5 columns, the ball starts in any column at the top, the
paddle in the middle. Nine steps later the ball is at the paddle's row: reward +1 if it is caught, else -1, and 0
before. The best return is +1; actions at random get about -0.6.
"""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

ROWS, COLUMNS = 10, 5
HEIGHT, WIDTH = 84, 84  # [pixels]
_CELL = (8, 16)  # [pixels] height and width of a cell; the grid leaves a border of two
_BORDER = 2


class Catch(gymnasium.Env):
    """Actions: 0 left, 1 stay, 2 right. Observations: (84, 84, 1) uint8; ball and paddle are white."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10, "history": 4}  # noqa: RUF012 (Gymnasium's own form)
    observation_space = spaces.Box(0, 255, (HEIGHT, WIDTH, 1), np.uint8)
    action_space = spaces.Discrete(3)

    def __init__(self, render_mode: str | None = None):
        self.render_mode = render_mode
        self.row, self.ball, self.paddle = 0, 0, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.row, self.ball, self.paddle = 0, int(self.np_random.integers(COLUMNS)), COLUMNS // 2
        return self.frame(), {}

    def step(self, action: Any):
        self.row += 1
        self.paddle = min(max(self.paddle + int(action) - 1, 0), COLUMNS - 1)
        landed = self.row == ROWS - 1
        caught = landed and self.paddle == self.ball
        reward = (1.0 if caught else -1.0) if landed else 0.0
        return self.frame(), reward, landed, False, {"is_success": caught}

    def frame(self) -> np.ndarray:
        """What the policy sees: (84, 84, 1) uint8."""
        pixels = np.zeros((HEIGHT, WIDTH, 1), np.uint8)
        for row, column in ((self.row, self.ball), (ROWS - 1, self.paddle)):
            top, left = _BORDER + row * _CELL[0], _BORDER + column * _CELL[1]
            pixels[top : top + _CELL[0], left : left + _CELL[1]] = 255
        return pixels

    def render(self) -> np.ndarray:
        """The same, large and in three channels."""
        return self.frame().repeat(4, 0).repeat(4, 1).repeat(3, 2)
