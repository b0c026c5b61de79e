"""peg/ROBOT: put a square peg into a square hole that is 4 mm wider, and leave it there.

The peg is held rigidly: it is part of the hand, but sits up to 5 mm off its middle, differently in every episode; its
place in the hand is two joints that nothing moves, as the block's place on the table is three (see station.py). So a
policy cannot lose it, and contact with the hole's rim pushes the arm as a peg in a hard grip would. The tool starts
above the table, pointing down; the block stands anywhere in a rectangle, turned by up to 17 degrees.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

from ...spec import ObsTerm
from ..randomization import Term
from ..task import Key, State
from .arm_terms import arm_readings
from .geometry import cos_sin, distance
from .held_goal import met, none_held
from .station import Station, add_box, add_place, turn

if TYPE_CHECKING:
    import mujoco

DEPTH = 0.04  # [m] of the peg's tip below the block's top
PEG, CLEARANCE = 0.010, 0.002  # [m] half the peg's edge; between peg and hole on every side
LENGTH = 0.075  # [m] from the tool centre point to the tip
OFFSET = 0.005  # [m] of the peg from the hand's middle, to either side, along both axes
HEIGHT, _OUTER = 0.06, 0.05  # [m] of the block; half its edge
HOLE = PEG + CLEARANCE  # [m] half the hole's edge
_BLOCK, _PEG = (0.30, 0.42, 0.62, 1.0), (0.92, 0.55, 0.12, 1.0)


class Peg(Station):
    """The tasks `peg/ROBOT`; qpos: the arm's joints, the peg's x and y in the hand, the block's x, y and yaw."""

    kind = "peg"
    holds = 2.0 * PEG
    start = (0.47, 0.0, 0.24)
    place, spread = (0.50, 0.0, 0.0), (0.07, 0.12, 0.3)
    sight = 0.001
    outside = (
        ObsTerm("object_pos", (3,), "external", "m", frame="base"),  # of the middle of the hole, at the block's top
        ObsTerm("object_yaw", (2,), "external", "cos, sin", frame="base"),
        ObsTerm("object_from_tip", (3,), "external", "m", frame="base"),  # the same from the peg's tip
    )

    def furnish(self, scene: mujoco.MjSpec) -> None:
        """A peg in the hand, and a block with a hole of four walls."""
        import mujoco

        tool = next(site for site in scene.sites if site.name == "tool")
        peg = tool.parent.add_body(name="peg", pos=tool.pos, quat=tool.quat)
        add_place(scene, peg, {"x": (1, 0, 0), "y": (0, 1, 0)})
        peg.add_geom(scene.default, name="peg", type=mujoco.mjtGeom.mjGEOM_BOX, pos=(0.0, 0.0, 0.5 * LENGTH - 0.005),
                     size=(PEG, PEG, 0.5 * LENGTH + 0.005), mass=0.05, rgba=_PEG, contype=0, conaffinity=1,
                     friction=(0.3, 0.005, 0.0001))  # fmt: skip
        block = scene.worldbody.add_body(name="block")
        add_place(scene, block, {"x": (1, 0, 0), "y": (0, 1, 0), "yaw": (0, 0, 1)})
        for name, low, high in (
            ("west", (-_OUTER, -_OUTER), (-HOLE, _OUTER)),
            ("east", (HOLE, -_OUTER), (_OUTER, _OUTER)),
            ("south", (-HOLE, -_OUTER), (HOLE, -HOLE)),
            ("north", (-HOLE, HOLE), (HOLE, _OUTER)),
        ):
            add_box(block, (*low, 0.001), (*high, HEIGHT), _BLOCK, f"block_{name}", mass=0.5)  # fmt: skip

    def random_terms(self) -> tuple[Term, ...]:
        return (Term("peg_friction", "geom_friction", ("peg", "block_*"), range=(0.5, 1.5), shared=True),)

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start above the table, at rest, with the block somewhere new and the peg held anew."""
        qpos, qvel = self.begin(key, OFFSET * (2.0 * key.uniform("peg", 2) - 1.0))
        return qpos, qvel, {"tip": self.from_hole(qpos), "held": none_held(qpos)}

    def order(self, stand: Any, *more: Any) -> tuple[Any, ...]:
        return *more, stand

    def tip(self, qpos: Any) -> Any:
        """Where the middle of the peg's tip is: (N, 3) [m]."""
        n = self.robot.num_joints
        position, rotation = self.tool(qpos)
        x, y = qpos[:, n : n + 1], qpos[:, n + 1 : n + 2]
        return position + x * rotation[:, :, 0] + y * rotation[:, :, 1] + LENGTH * rotation[:, :, 2]

    @staticmethod
    def hole(qpos: Any) -> Any:
        """Where the middle of the hole is, at the block's top: (N, 3) [m]."""
        xp = array_namespace(qpos)
        return xp.stack([qpos[:, -3], qpos[:, -2], HEIGHT + 0.0 * qpos[:, -1]], axis=1)

    def from_hole(self, qpos: Any) -> Any:
        """The tip in the hole's frame, (N, 3) [m]: below 0 where it is in."""
        return turn(self.tip(qpos) - self.hole(qpos), -qpos[:, -1])

    def observe(self, state: State) -> dict[str, Any]:
        hole = self.hole(state.qpos)
        return {
            **arm_readings(self.robot, state),
            "object_pos": hole,
            "object_yaw": cos_sin(state.qpos[:, -1]),
            "object_from_tip": hole - self.tip(state.qpos),
        }

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tip in the hole's frame, and for how many steps in a row it has been deep in the hole."""
        tip = self.from_hole(state.qpos)
        return {"tip": tip, "held": met(state.memory, _inside(tip) & (tip[:, 2] <= -DEPTH))}

    def reward(self, state: State, action: Any) -> Any:
        """.5 (1 - tanh 5 d) + .5 exp(-(r / .01)^2 - (h / .04)^2) + 2 [in] min(-z / .04, 1) + .5 [success] - .01 |a|^2.

        (x, y, z) [m] the tip in the hole's frame, r = |(x, y)|, h = max(z, 0), d from the tip to DEPTH below the hole's
        middle; [in]: it is within the hole's walls.
        """
        xp = array_namespace(action)
        tip = state.memory["tip"]
        z, r = tip[:, 2], xp.sqrt(xp.sum(tip[:, :2] ** 2, axis=-1))
        d = distance(tip, xp.concat([0.0 * tip[:, :2], 0.0 * tip[:, 2:] - DEPTH], axis=1))
        over = xp.exp(-((r / 0.01) ** 2) - (xp.clip(z, 0.0, 1.0) / 0.04) ** 2)
        within = xp.where(_inside(tip), 2.0 * xp.clip(-z / DEPTH, 0.0, 1.0), 0.0 * z)
        done = xp.where(_inside(tip) & (z <= -DEPTH), 0.5 + 0.0 * z, 0.0 * z)
        effort = 0.01 * xp.sum(action * action, axis=-1)
        return 0.5 * (1.0 - xp.tanh(5.0 * d)) + 0.5 * over + within + done - effort


def _inside(tip: Any) -> Any:
    """Within the hole's walls, seen from above: (N,) bool."""
    xp = array_namespace(tip)
    return (xp.abs(tip[:, 0]) <= HOLE) & (xp.abs(tip[:, 1]) <= HOLE)
