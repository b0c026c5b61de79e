"""lift/ROBOT: take the cube from the table and hold it up.

The tool starts above the cube, open, pointing down; the cube lies anywhere in a rectangle, turned at random. What
counts is the cube's height, so a policy has to close the fingers around it, and keep them closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from array_api_compat import array_namespace

from ..task import Key, State
from .held_goal import met, none_held
from .tabletop import Tabletop

# all of the bench's size, which is 1 m for the FR3
LIFT_HEIGHT = 0.10  # above where it lay
CUBE_LOW, CUBE_HIGH = (-0.08, -0.12), (0.08, 0.12)  # from the bench's centre


class Lift(Tabletop):
    """The tasks `lift/ROBOT`."""

    kind, grips, has_goal, friction = "lift", True, False, 1.0
    start = (0.0, 0.0, 0.16)

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start above the table, at rest and open, with the cube somewhere new."""
        qpos, qvel = self.begin(key, self.on_table(key.uniform("cube", 2), CUBE_LOW, CUBE_HIGH))
        return qpos, qvel, {"tool_pos": self.tool(qpos), "held": none_held(qpos)}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row the cube has been high enough."""
        high = self.height(state.qpos) >= LIFT_HEIGHT
        return {"tool_pos": self.tool(state.qpos), "held": met(state.memory, high)}

    def height(self, qpos: Any) -> Any:
        """How high the cube is above where it lay, of the bench's size: (N,)."""
        return (self.cube(qpos)[:, 2] - self.bench.half) / self.bench.size

    def shaped(self, state: State, action: Any) -> Any:
        """r + 1.5 n min(h / .12, 1) + .5 [h >= .1 and n > .1] - .01 |a|^2.

        r and n of `gripping`: 1.5 at most, and 1 around the cube; h >= 0 the cube's height, of the bench's size.
        """
        xp = array_namespace(action)
        (gripping, around), h = self.gripping(state), self.height(state.qpos)
        done = xp.where((h >= LIFT_HEIGHT) & (around > 0.1), 0.5 + 0.0 * h, 0.0 * h)
        return gripping + 1.5 * around * xp.clip(h / 0.12, 0.0, 1.0) + done - 0.01 * xp.sum(action * action, axis=-1)
