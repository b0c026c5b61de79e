"""push/ROBOT: push a cube across the table to a mark, with the closed fingers.

The tool starts on the near side of the cube, the mark lies on the far side: up to 60 degrees off straight ahead.
The fingers are rigid, since nothing is gripped.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

from ..task import Key, State
from .geometry import distance
from .held_goal import met, none_held
from .tabletop import Tabletop

if TYPE_CHECKING:
    import mujoco

# all of the bench's size, which is 1 m for the FR3
SUCCESS_RADIUS = 0.03  # from the cube's centre to the mark's, on the table
CUBE_LOW, CUBE_HIGH = (-0.08, -0.10), (0.0, 0.10)  # from the bench's centre
TARGET_LOW, TARGET_HIGH = (0.07, -0.14), (0.17, 0.14)
_BEHIND = 0.02  # between the cube's edge and the place to push from


class Push(Tabletop):
    """The tasks `push/ROBOT`."""

    kind, grips, has_goal, friction = "push", False, True, 0.5
    start = (-0.16, 0.0, 0.10)

    def add_goal(self, scene: mujoco.MjSpec) -> None:
        from ..scene import add_target

        add_target(scene, SUCCESS_RADIUS * self.bench.size, flat=True)

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start near the side to push from, at rest, with the cube and the mark somewhere new."""
        cube = self.on_table(key.uniform("cube", 2), CUBE_LOW, CUBE_HIGH)
        target = self.on_table(key.uniform("target", 2), TARGET_LOW, TARGET_HIGH)
        qpos, qvel = self.begin(key, cube)
        return qpos, qvel, {"target_pos": target, "tool_pos": self.tool(qpos), "held": none_held(qpos)}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row the cube has been on the mark."""
        target = state.memory["target_pos"]
        there = distance(self.cube(state.qpos), target) <= SUCCESS_RADIUS * self.bench.size
        return {"target_pos": target, "tool_pos": self.tool(state.qpos), "held": met(state.memory, there)}

    def shaped(self, state: State, action: Any) -> Any:
        """.5 (1 - tanh 8 d) + 1 - tanh 6 g + exp(-(g / .03)^2) - .01 |a|^2.

        g from the cube to the mark; d from the tool to the place to push from, which lies .02 behind the cube as seen
        from the mark; both of the bench's size. Where the cube is on the mark (g <= .03), d counts as 0.
        """
        xp, size = array_namespace(action), self.bench.size
        cube, target = self.cube(state.qpos), state.memory["target_pos"]
        g = distance(cube, target) / size
        away = (cube - target) / xp.maximum(size * g, 1e-6 + 0.0 * g)[:, None]
        d = distance(state.memory["tool_pos"], cube + (self.bench.half + _BEHIND * size) * away) / size
        d = xp.where(g <= SUCCESS_RADIUS, 0.0 * d, d)
        near = 0.5 * (1.0 - xp.tanh(8.0 * d))
        return near + 1.0 - xp.tanh(6.0 * g) + xp.exp(-((g / 0.03) ** 2)) - 0.01 * xp.sum(action * action, axis=-1)
