"""pick-place/ROBOT: take the cube and bring it to a place in the air or on the table, and hold it there.

A third of the goals lie on the table. The cube may stay in the fingers: it has to be at rest at the goal at the end.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

from ...arrays import constant
from ..task import Key, State
from .geometry import distance, uniform_in
from .held_goal import met, none_held
from .lift import CUBE_HIGH, CUBE_LOW
from .tabletop import Tabletop

if TYPE_CHECKING:
    import mujoco

# all of the bench's size, which is 1 m for the FR3
SUCCESS_RADIUS = 0.03  # from the cube's centre to the goal
AT_REST = 0.1  # [1/s] of the cube
TARGET_LOW, TARGET_HIGH = (-0.10, -0.16, 0.0), (0.10, 0.16, 0.20)  # from a cube in the middle of the bench
ON_TABLE = 1 / 3  # of all goals


class PickPlace(Tabletop):
    """The tasks `pick-place/ROBOT`."""

    kind, grips, has_goal, friction = "pick-place", True, True, 1.0
    start = (0.0, 0.0, 0.16)
    max_episode_steps = 100

    def add_goal(self, scene: mujoco.MjSpec) -> None:
        from ..scene import add_target

        add_target(scene, SUCCESS_RADIUS * self.bench.size, flat=False)

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start above the table, at rest and open, with cube and goal somewhere new."""
        qpos, qvel = self.begin(key, self.on_table(key.uniform("cube", 2), CUBE_LOW, CUBE_HIGH))
        target = self.goal(key.uniform("target", 4))
        return qpos, qvel, {"target_pos": target, "tool_pos": self.tool(qpos), "held": none_held(qpos)}

    def goal(self, u: Any) -> Any:
        """Places for the cube's centre (n, 3) [m], from uniform numbers (n, 4) in (0, 1)."""
        xp = array_namespace(u)
        at = uniform_in(u[:, :3], TARGET_LOW, TARGET_HIGH)
        z = xp.where(u[:, 3] < ON_TABLE, 0.0 * at[:, 2], at[:, 2])
        return self.place(xp.stack([at[:, 0], at[:, 1], z], axis=1)) + constant((0.0, 0.0, self.bench.half), u)

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row the cube has rested at the goal."""
        xp, size = array_namespace(state.qvel), self.bench.size
        target, velocity = state.memory["target_pos"], state.qvel[:, -6:-3]
        slow = xp.sqrt(xp.sum(velocity**2, axis=-1)) <= AT_REST * size
        there = (distance(self.cube(state.qpos), target) <= SUCCESS_RADIUS * size) & slow
        return {"target_pos": target, "tool_pos": self.tool(state.qpos), "held": met(state.memory, there)}

    def shaped(self, state: State, action: Any) -> Any:
        """r + n c (1 - tanh 5 g) + exp(-(g / .03)^2) - .01 |a|^2.

        r and n of `gripping`: 1.5 at most, and 1 around the cube; c: closedness; g from the cube to the goal, of the
        bench's size.
        """
        xp = array_namespace(action)
        gripping, around = self.gripping(state)
        g = distance(self.cube(state.qpos), state.memory["target_pos"]) / self.bench.size
        carried = around * self.closedness(state.qpos) * (1.0 - xp.tanh(5.0 * g))
        return gripping + carried + xp.exp(-((g / 0.03) ** 2)) - 0.01 * xp.sum(action * action, axis=-1)
