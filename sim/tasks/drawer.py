"""drawer/ROBOT: hook the closed fingers behind a drawer's handle and pull it open.

The tool starts above the table, pointing down; the cabinet stands somewhere in front of the arm, turned by up to 14
degrees. The fingers fit between handle and drawer from above, so nothing has to be gripped. Dry friction and damping
hold the drawer; it has to be open by OPEN at the end.
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

OPEN = 0.15  # [m]
TRAVEL = 0.22  # [m]
HANDLE = (-0.06, 0.0, 0.10)  # [m] the middle of its bar, the drawer closed, in the stand's frame: x into the cabinet
BEHIND = 0.0285  # [m] from the bar's middle to the middle of the gap behind it
BELOW = 0.014  # [m] the tool below the bar where it hooks
_BAR, _WIDTH = 0.009, 0.065  # [m] radius and half length of the bar
_WOOD, _FRONT, _STEEL = (0.78, 0.66, 0.50, 1.0), (0.93, 0.91, 0.86, 1.0), (0.25, 0.27, 0.30, 1.0)


class Drawer(Station):
    """The tasks `drawer/ROBOT`; qpos: the arm's joints, the cabinet's x, y and yaw, how far the drawer is open."""

    kind = "drawer"
    start = (0.46, 0.0, 0.24)
    place, spread = (0.60, 0.0, 0.0), (0.03, 0.10, 0.25)
    sight = 0.003
    outside = (
        ObsTerm("object_pos", (3,), "external", "m", frame="base"),  # of the handle
        ObsTerm("object_yaw", (2,), "external", "cos, sin", frame="base"),
        ObsTerm("object_from_tool", (3,), "external", "m", frame="base"),
        ObsTerm("drawer_pos", (1,), "external", "m"),
    )

    def furnish(self, scene: mujoco.MjSpec) -> None:
        """A cabinet with one drawer and a bar as its handle; the mark is where the handle should come to."""
        import mujoco

        from ..scene import add_target

        stand = scene.worldbody.add_body(name="cabinet")
        add_place(scene, stand, {"x": (1, 0, 0), "y": (0, 1, 0), "yaw": (0, 0, 1)})
        for low, high in (
            ((0.0, -0.112, 0.002), (0.24, -0.102, 0.110)),
            ((0.0, 0.102, 0.002), (0.24, 0.112, 0.110)),
            ((0.0, -0.112, 0.110), (0.24, 0.112, 0.118)),
            ((0.23, -0.102, 0.002), (0.24, 0.102, 0.110)),
        ):
            add_box(stand, low, high, _WOOD, mass=1.0)  # fmt: skip
        drawer = stand.add_body(name="drawer")
        drawer.add_joint(name="drawer", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=(-1, 0, 0), range=(0.0, TRAVEL),
                         damping=(8.0, 0.0, 0.0), frictionloss=4.0)  # fmt: skip
        add_box(drawer, (-0.012, -0.108, 0.008), (-0.001, 0.108, 0.112), _FRONT, "drawer_front", mass=1.5)
        for low, high in (
            ((0.0, -0.098, 0.012), (0.21, -0.092, 0.08)),
            ((0.0, 0.092, 0.012), (0.21, 0.098, 0.08)),
            ((0.0, -0.092, 0.012), (0.21, 0.092, 0.018)),
        ):
            add_box(drawer, low, high, _FRONT, mass=0.5)  # fmt: skip
        x, _, z = HANDLE
        for name, start, end in (("handle", (x, -_WIDTH, z), (x, _WIDTH, z)),
                                 ("handle_left", (x, _WIDTH, z), (-0.012, _WIDTH, z)),
                                 ("handle_right", (x, -_WIDTH, z), (-0.012, -_WIDTH, z))):  # fmt: skip
            # stiff, or hard pulling would draw the fingers through it
            drawer.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_CAPSULE, fromto=(*start, *end), size=(_BAR, 0, 0),
                            rgba=_STEEL, mass=0.05, contype=1, conaffinity=0, priority=1, solref=(0.01, 1.0),
                            solimp=(0.95, 0.99, 0.001, 0.5, 2.0))  # fmt: skip
        add_target(scene, 0.012, flat=False)

    def random_terms(self) -> tuple[Term, ...]:
        return (
            Term("drawer_friction", "joint_friction", "drawer", range=(0.3, 2.0)),
            Term("drawer_damping", "joint_damping", "drawer", range=(0.5, 2.0)),
            Term("grip", "geom_friction", "handle*", range=(0.5, 1.5), shared=True),
        )

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start above the table, at rest, with the cabinet somewhere new and the drawer closed."""
        qpos, qvel = self.begin(key)
        xp = array_namespace(qpos)
        opened = xp.concat([qpos[:, :-1], xp.full_like(qpos[:, -1:], OPEN)], axis=1)
        memory = {"target_pos": self.handle(opened), "tool_pos": self.tool(qpos)[0], "held": none_held(qpos)}
        return qpos, qvel, memory

    def order(self, stand: Any, *more: Any) -> tuple[Any, ...]:
        return stand, *more, array_namespace(stand).zeros_like(stand[:, :1])  # the drawer, closed

    @staticmethod
    def handle(qpos: Any) -> Any:
        """Where the middle of the bar is: (N, 3) [m]."""
        return _at(qpos, HANDLE)

    @staticmethod
    def hook(qpos: Any) -> Any:
        """Where the tool hooks behind the bar: (N, 3) [m]."""
        return _at(qpos, (HANDLE[0] + BEHIND, 0.0, HANDLE[2] - BELOW))

    def observe(self, state: State) -> dict[str, Any]:
        readings = arm_readings(self.robot, state)
        handle = self.handle(state.qpos)
        return {
            **readings,
            "object_pos": handle,
            "object_yaw": cos_sin(state.qpos[:, -2]),
            "object_from_tool": handle - readings["tool_pos"],
            "drawer_pos": state.qpos[:, -1:],
        }

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row the drawer has been open."""
        opened = state.qpos[:, -1] >= OPEN
        return {**state.memory, "tool_pos": self.tool(state.qpos)[0], "held": met(state.memory, opened)}

    def reward(self, state: State, action: Any) -> Any:
        """.5 (1 - tanh 5 d) + 2 min(o / .15, 1) + .5 [o >= .15] - .01 |a|^2.

        d [m] from the tool to where it hooks; o [m] how far the drawer is open.
        """
        xp = array_namespace(action)
        d = distance(state.memory["tool_pos"], self.hook(state.qpos))
        o = state.qpos[:, -1]
        done = xp.where(o >= OPEN, 0.5 + 0.0 * o, 0.0 * o)
        pull = 2.0 * xp.clip(o / OPEN, 0.0, 1.0) + done
        return 0.5 * (1.0 - xp.tanh(5.0 * d)) + pull - 0.01 * xp.sum(action * action, axis=-1)


def _at(qpos: Any, point: tuple[float, float, float]) -> Any:
    """A point of the drawer, given in the stand's frame with the drawer closed: (N, 3) [m]."""
    xp = array_namespace(qpos)
    x, y, yaw, opened = (qpos[:, i] for i in (-4, -3, -2, -1))
    zero = 0.0 * x
    offset = xp.stack([point[0] - opened, point[1] + zero, point[2] + zero], axis=1)
    return turn(offset, yaw) + xp.stack([x, y, zero], axis=1)
