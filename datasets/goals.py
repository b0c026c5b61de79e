"""Goals in hindsight: what an episode reached later, told as if it had been the aim.

    final       what the last step reached (the usual goal of imitation from demonstrations)
    future      what a step drawn evenly from the row's own to the last one reached (HER, "future")
    geometric   what the step k steps ahead reached, k drawn in proportion to goal_discount^k and at most to the last:
                a discounted future state, as goal-conditioned value learning takes it

HER: Andrychowicz et al. 2017, "Hindsight experience replay", arXiv 1707.01495, sec. 3.3 and 4.5. What a step reached
is `achieved_goal` after its action, or the whole `state` where a file tells no achieved goals. The reward is recomputed
by a function that is handed in, so that datasets know no task; `terminated` stays as recorded.

Legend: B batch, T window.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from torch import Tensor

from ..errors import UsageError

RULES = ("final", "future", "geometric")

# (achieved (..., G) after the action, goal (..., G)) -> reward (...)
GoalReward = Callable[[Tensor, Tensor], Tensor]


def goal_steps(rule: str, rows: np.ndarray, last: np.ndarray, discount: float, rng: np.random.Generator) -> np.ndarray:
    """The steps (B,) whose outcome is the goal of `rows` (B,), whose episodes end with the steps `last` (B,)."""
    if rule == "final":
        return last
    if rule == "future":
        return rows + np.floor(rng.random(len(rows)) * (last - rows + 1)).astype(np.int64)
    if rule == "geometric":
        if not 0.0 < discount < 1.0:
            raise UsageError(f"goal_discount must lie between 0 and 1, not {discount}")
        # P(k) = (1 - d) d^k given k <= last - row, by inverting its distribution
        within = 1.0 - discount ** (last - rows + 1.0)
        ahead = np.floor(np.log1p(-rng.random(len(rows)) * within) / np.log(discount)).astype(np.int64)
        return rows + np.minimum(ahead, last - rows)
    raise UsageError(f"goal can be {', '.join(RULES)} or empty, not {rule!r}")
