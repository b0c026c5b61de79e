"""What drawer and peg share: an arm with rigid fingers, and something that stands on the table at a random place.

The place differs between episodes without differing in the model: the stand has joints x, y and yaw whose armature
and damping are so large that nothing moves it, so its place is part of qpos and of nothing else. (MuJoCo computes
contact forces from masses and armatures; damping alone would leave it soft.) The joints that tell where things are
come last in qpos, the arm's first. The policy moves joints by position steps at 20 Hz, as in every task.

With a camera, what tells of the stand moves to the group `privileged`, which never reaches a policy file: the picture
has to say it. Legend: N worlds, n of them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from ...arrays import constant
from ...errors import unknown_name
from ...kinematics import forward_kinematics
from ...robots import robot_spec
from ...spec import ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key
from .arm_terms import TOOL_ROT, arm_action, arm_obs, arm_ranges
from .by_camera import groups, lens
from .held_goal import HeldGoal
from .tabletop import (
    CAMERAS,
    CONTROL_DT,
    FOVY,
    LEAD,
    PHYSICS_DT,
    START_SPREAD,
    STEP,
    SUCCESS_STEPS,
    start_pose,
)

if TYPE_CHECKING:
    import mujoco

ROBOTS = ("fr3", "ur5e")
EPISODE_STEPS = 100
_HEAVY, _STIFF = 1e3, 1e6  # armature [kg, kg m^2] and damping [N s/m, N m s/rad] of what does not move


class Station(HeldGoal, ABC):
    """A task at a stand; see sim/task.py for the contract. A task adds furniture, terms, reward and success."""

    kind: ClassVar[str]  # the task's name before the slash
    holds: ClassVar[float] = 0.0  # [m] between the rigid fingers
    start: ClassVar[tuple[float, float, float]]  # [m] the tool at the start, base frame
    place: ClassVar[tuple[float, float, float]]  # [m, m, rad] x, y and yaw of the stand, base frame
    spread: ClassVar[tuple[float, float, float]]  # of the same, to either side
    sight: ClassVar[float]  # [m] the largest deviation of positions that a camera finds
    outside: ClassVar[tuple[ObsTerm, ...]]  # what cameras or trackers tell, beside the stand's place

    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    success_steps = SUCCESS_STEPS

    def __init__(self, robot: str = "fr3", camera: str = "", mjcf: str = ""):
        """camera: one of CAMERAS gives 84 x 84 pictures instead of the stand's place; mjcf: another file of the arm."""
        if robot not in ROBOTS:
            raise unknown_name("robot", robot, ROBOTS)
        self.name = f"{self.kind}/{robot}" + (f"?camera={camera}" if camera else "")
        self.robot, self.mjcf = robot_spec(robot), mjcf or None
        self.spec = self._spec(camera)
        arm = arm_ranges(self.robot, latency=0.06, bias=0.001)
        self.randomization = Randomization((*arm, *_camera_terms(self.sight), *self.random_terms()))
        self.start_pose = start_pose(self.robot, np.array(self.start))

    # ---- the world ---------------------------------------------------------------------------

    def model(self) -> mujoco.MjSpec:
        """The arm on its table, the stand and what is on it, and the cameras."""
        from ..scene import add_camera, arm_scene, close_fingers

        scene = arm_scene(self.robot, self.mjcf)
        close_fingers(scene, self.robot, self.holds)
        self.furnish(scene)
        add_camera(scene, "overview", (1.25, -0.95, 0.75), (0.42, 0.0, 0.15))
        add_camera(scene, "front", (0.98, -0.42, 0.48), (0.50, 0.0, 0.06))
        add_camera(scene, "side", (0.42, -0.70, 0.38), (0.48, 0.0, 0.06))
        return scene

    @abstractmethod
    def furnish(self, scene: mujoco.MjSpec) -> None:
        """Put the furniture into the scene."""
        ...

    def random_terms(self) -> tuple[Term, ...]:
        """What differs between episodes beside the arm."""
        return ()

    # ---- an episode --------------------------------------------------------------------------

    def begin(self, key: Key, *more: Any) -> tuple[Any, Any]:
        """qpos and qvel of episodes at rest, the arm near its start and the stand anywhere; `more`: (n, k) each."""
        u = key.uniform("start", self.robot.num_joints)
        xp, arm = array_namespace(u), constant(self.start_pose, u) + START_SPREAD * (2.0 * u - 1.0)
        stand = constant(self.place, u) + constant(self.spread, u) * (2.0 * key.uniform("stand", 3) - 1.0)
        qpos = xp.concat([arm, *self.order(stand, *more)], axis=1)
        return qpos, xp.zeros_like(qpos)

    def order(self, stand: Any, *more: Any) -> tuple[Any, ...]:
        """The joints behind the arm's, in the model's order."""
        return stand, *more

    def tool(self, qpos: Any) -> tuple[Any, Any]:
        """Where the tool is and how it is turned: (N, 3) [m], (N, 3, 3)."""
        return forward_kinematics(self.robot, qpos[:, : self.robot.num_joints])

    # ---- what the policy sees and does -------------------------------------------------------

    def _spec(self, camera: str) -> Spec:
        seen = groups((*arm_obs(self.robot), TOOL_ROT), self.outside, camera, CAMERAS, lens(FOVY))
        return Spec(seen, (arm_action(self.robot, STEP, LEAD),), CONTROL_DT, robot=self.robot.name)


def add_place(scene: mujoco.MjSpec, body: mujoco.MjsBody, axes: dict[str, tuple[float, float, float]]) -> None:
    """Joints BODY_AXIS that nothing moves: sliding ones, and one that turns, called yaw."""
    import mujoco

    for suffix, axis in axes.items():
        kind = mujoco.mjtJoint.mjJNT_HINGE if suffix == "yaw" else mujoco.mjtJoint.mjJNT_SLIDE
        # the scene's own defaults: those of an arm's hand may hold a range
        body.add_joint(scene.default, name=f"{body.name}_{suffix}", type=kind, axis=axis, armature=_HEAVY,
                       damping=(_STIFF, 0.0, 0.0))  # fmt: skip


def add_box(body: mujoco.MjsBody, low: tuple[float, float, float], high: tuple[float, float, float],
            rgba: tuple[float, float, float, float], name: str = "", mass: float = 0.0) -> None:  # fmt: skip
    """A box between two corners [m] that arms touch and furniture does not."""
    import mujoco

    centre, half = np.add(low, high) / 2, np.subtract(high, low) / 2
    body.add_geom(name=name, type=mujoco.mjtGeom.mjGEOM_BOX, pos=centre, size=half, rgba=rgba, mass=mass,
                  contype=1, conaffinity=0)  # fmt: skip


def turn(vector: Any, angle: Any) -> Any:
    """Vectors (N, 3) turned by angles (N,) [rad] about the vertical."""
    xp = array_namespace(vector)
    c, s = xp.cos(angle), xp.sin(angle)
    return xp.stack([c * vector[:, 0] - s * vector[:, 1], s * vector[:, 0] + c * vector[:, 1], vector[:, 2]], axis=1)


def _camera_terms(sight: float) -> tuple[Term, ...]:
    """What something makes of the stand that looks at it."""
    return (
        Term("camera_delay", "obs_delay", "object_*", range=(0.0, 0.1), operation="set"),
        Term("camera_noise", "obs_noise", ("object_pos", "object_from_*"), range=(0.0, sight), operation="set",
             shared=True),
    )  # fmt: skip
