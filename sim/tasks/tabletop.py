"""What push, lift and pick-place share: an arm above a table with one cube on it, its Spec and its random dynamics.

The policy moves joints, as everywhere: position steps at 20 Hz on the last target, and one number for the gripper
where something is gripped. It sees joints, the tool's pose by forward kinematics, and the cube's pose and goal, which
a camera or a tracking system must tell on a real arm (sources `external` and `goal`). With a camera, the cube's terms
and what is computed from them move to the group `privileged`, which never reaches a policy file: the picture has to
say it.

qpos: the arm's n joints, f finger joints (none where the fingers are closed and rigid), the cube's position and
quaternion.
Legend: N worlds.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from ...arrays import constant
from ...errors import UsageError, unknown_name
from ...kinematics import forward_kinematics, inverse_kinematics
from ...robots import RobotSpec, robot_spec
from ...spec import ActionTerm, ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key, State
from .arm_terms import TOOL_ROT, arm_action, arm_obs, arm_ranges, arm_readings
from .by_camera import groups, lens
from .geometry import distance, uniform_in
from .held_goal import HeldGoal

if TYPE_CHECKING:
    import mujoco

REWARDS = ("dense", "sparse")
EPISODE_STEPS = 75
SUCCESS_STEPS = 5  # control steps in a row, the last ones of the episode
CONTROL_DT, PHYSICS_DT = 0.05, 0.005  # [s]
START_SPREAD = 0.08  # [rad] of every joint around the start
CAMERAS = ("front", "side")
FOVY = 45.0  # [degrees] of scene.py's cameras
# the rotation of a tool that points straight down and closes its fingers across, along the base's y
DOWNWARD = np.array([[1.0, 0.0, 0.0], [0.0, -1.0, 0.0], [0.0, 0.0, -1.0]])
STEP, LEAD = 0.06, 0.25  # [rad] of a joint target in a control period; before the measured angle


@dataclass(frozen=True)
class Bench:
    """Where an arm works on its table, and on what. The tasks' lengths, in rewards too, are multiples of `size`."""

    centre: float  # [m] in front of the base
    size: float  # 1 for an arm that reaches 0.85 m
    half: float  # [m] half the cube's edge
    tip: float  # [m] how far the fingers reach beyond the tool centre point
    shift: float = 0.0  # [m] of closed fingers from it, along the tool's y: where one of them does not move


BENCHES = {
    "fr3": Bench(centre=0.50, size=1.0, half=0.020, tip=0.0095),
    "ur5e": Bench(centre=0.50, size=1.0, half=0.020, tip=0.019),
    "xarm7": Bench(centre=0.43, size=0.9, half=0.020, tip=0.018),
    "so101": Bench(centre=0.19, size=0.45, half=0.0135, tip=0.012, shift=-0.011),
    "vx300s": Bench(centre=0.33, size=0.75, half=0.018, tip=0.018),
}


class Tabletop(HeldGoal, ABC):
    """A task on a table; see sim/task.py for the contract. A task adds goals, rewards and success."""

    kind: ClassVar[str]  # the task's name before the slash
    grips: ClassVar[bool]
    has_goal: ClassVar[bool]  # a place for the cube, as `target_pos` in the memory
    friction: ClassVar[float]  # of the cube at all its contacts
    start: ClassVar[tuple[float, float, float]]  # [m] the tool at the start, from the bench's centre, times its size

    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    success_steps = SUCCESS_STEPS

    def __init__(self, robot: str = "fr3", camera: str = "", mjcf: str = "", reward: str = "dense"):
        """camera: one of CAMERAS gives 84 x 84 pictures instead of the cube's pose; mjcf: another file of the arm;
        reward: dense leads to the goal, sparse is 1 at every step that is a success and 0 at the others."""
        if robot not in BENCHES:
            raise unknown_name("robot", robot, BENCHES)
        if reward not in REWARDS:
            raise unknown_name("reward", reward, REWARDS)
        told = [f"camera={camera}"] * bool(camera) + [f"reward={reward}"] * (reward != "dense")
        self.name = f"{self.kind}/{robot}" + ("?" + "&".join(told) if told else "")
        self.sparse = reward == "sparse"
        self.robot, self.bench, self.mjcf = robot_spec(robot), BENCHES[robot], mjcf or None
        self.spec = self._spec(camera)
        self.randomization = _randomization(self.robot, self.has_goal)
        gripper = self.robot.gripper
        if self.grips and gripper is None:
            raise UsageError(f"{self.name} needs an arm with a gripper, and {robot} has none")
        self._fingers = np.full(len(gripper.joints), gripper.open) if self.grips and gripper else np.zeros(0)
        self.start_pose = start_pose(self.robot, self.place(np.array(self.start)))

    @property
    def lowest(self) -> float:
        """How low commands have to bring the tool [m]: until its fingertips are at the table."""
        return self.bench.tip

    # ---- the world ---------------------------------------------------------------------------

    def model(self) -> mujoco.MjSpec:
        """The arm on its table with the cube, the goal's mark and the cameras."""
        import mujoco

        from ..scene import add_camera, add_cube, arm_scene, close_fingers

        scene = arm_scene(self.robot, self.mjcf)
        if self.grips:
            self._check_fingers(scene)
            scene.option.cone, scene.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0  # no creeping in the grip
        else:
            close_fingers(scene, self.robot)
        c, s = self.bench.centre, self.bench.size
        add_camera(scene, "overview", (c + 0.85 * s, -0.8 * s, 0.7 * s), (0.75 * c, 0.0, 0.22 * s))
        add_camera(scene, "front", (c + 0.62 * s, 0.0, 0.52 * s), (c + 0.02 * s, 0.0, 0.06 * s))
        add_camera(scene, "side", (c + 0.05 * s, -0.62 * s, 0.45 * s), (c, 0.0, 0.06 * s))
        add_cube(scene, self.bench.half, self._mass, self.friction)
        self.add_goal(scene)
        return scene

    def _check_fingers(self, scene: mujoco.MjSpec) -> None:
        """The finger joints are those that qpos is read by."""
        gripper = self.robot.gripper
        assert gripper is not None
        have = [joint.name for joint in scene.joints if joint.name not in self.robot.joints]
        if have != list(gripper.joints):
            raise UsageError(f"{self.mjcf or self.robot.name} has other fingers: {self.name} needs the joints "
                             f"{', '.join(gripper.joints)}; it has {', '.join(have) or 'none'}")  # fmt: skip

    def add_goal(self, scene: mujoco.MjSpec) -> None:
        """Whatever marks the goal in pictures."""

    @property
    def _mass(self) -> float:
        """[kg] of the cube: 0.1 kg at an edge of 4 cm."""
        return 0.1 * (self.bench.half / 0.02) ** 3

    def place(self, point: Any) -> Any:
        """Points (…, 3) [m, base frame] from points in the bench's frame and size."""
        return constant((self.bench.centre, 0.0, 0.0), point) + self.bench.size * point

    def on_table(self, u: Any, low: tuple[float, float], high: tuple[float, float]) -> Any:
        """Centres of cubes (n, 3) [m] on the table, uniform in a rectangle of the bench, from uniforms u (n, 2)."""
        xp, at = array_namespace(u), uniform_in(u, low, high)
        centre = xp.concat([at, xp.zeros_like(at[:, :1])], axis=1)
        return self.place(centre) + constant((0.0, 0.0, self.bench.half), u)

    # ---- an episode --------------------------------------------------------------------------

    def begin(self, key: Key, cube: Any) -> tuple[Any, Any]:
        """qpos and qvel of episodes with the cube's centre at `cube` (n, 3), turned at random, all at rest."""
        xp, u = array_namespace(cube), key.uniform("start", self.robot.num_joints)
        arm = constant(self.start_pose, u) + START_SPREAD * (2.0 * u - 1.0)
        half_yaw = 0.25 * np.pi * (key.uniform("yaw", 1) - 0.5)  # all there are of a cube
        zero = xp.zeros_like(half_yaw)
        fingers = constant(self._fingers, zero) + zero
        qpos = xp.concat([arm, fingers, cube, xp.cos(half_yaw), zero, zero, xp.sin(half_yaw)], axis=1)
        return qpos, xp.zeros_like(qpos[:, 1:])

    def tool(self, qpos: Any) -> Any:
        """Where the tool is: (N, 3) [m]."""
        return forward_kinematics(self.robot, qpos[:, : self.robot.num_joints])[0]

    @staticmethod
    def cube(qpos: Any) -> Any:
        """Where the cube's centre is: (N, 3) [m]."""
        return qpos[:, -7:-4]

    def grip_point(self, cube: Any) -> Any:
        """Where the tool holds the cube: its centre, or as far above it as keeps the fingertips off the table."""
        xp = array_namespace(cube)
        rise = max(0.0, self.bench.tip + 0.006 - self.bench.half)
        return xp.concat([cube[:, :2], cube[:, 2:] + rise], axis=1)

    def closedness(self, qpos: Any) -> Any:
        """0 for open fingers, 1 for fingers that have closed onto something as wide as the cube, or further: (N,)."""
        gripper = self.robot.gripper
        assert gripper is not None
        xp = array_namespace(qpos)
        opening = (qpos[:, self.robot.num_joints] - gripper.closed) / (gripper.open - gripper.closed)
        around = min(2.0 * self.bench.half / gripper.width, 0.9)
        return xp.clip((1.0 - opening) / (1.0 - around), 0.0, 1.0)

    def gripping(self, state: State) -> tuple[Any, Any]:
        """What there is to gain until the cube is held, and n, how well the tool is around the cube: each (N,).

            r = .5 (1 - tanh 5 d) + .25 (1 - n) (1 - c) + n (.5 + .5 c),   n = exp(-(d / .02)^2)

        d from the tool to the grip point, of the bench's size; c: closedness. To be open pays on the way, since fingers
        that are half closed do not fit over the cube and would come to rest on top of it; to be closed, around it.
        """
        d = distance(state.memory["tool_pos"], self.grip_point(self.cube(state.qpos))) / self.bench.size
        xp = array_namespace(d)
        n, c = xp.exp(-((d / 0.02) ** 2)), self.closedness(state.qpos)
        return 0.5 * (1.0 - xp.tanh(5.0 * d)) + 0.25 * (1.0 - n) * (1.0 - c) + n * (0.5 + 0.5 * c), n

    def reward(self, state: State, action: Any) -> Any:
        """What the task's `shaped` gives, or 0 and 1."""
        if not self.sparse:
            return self.shaped(state, action)
        xp, success = array_namespace(action), self.success(state)
        return xp.where(success, 1.0 + 0.0 * action[:, 0], 0.0 * action[:, 0])

    @abstractmethod
    def shaped(self, state: State, action: Any) -> Any:
        """The dense reward, by the task's formula."""
        ...

    def observe(self, state: State) -> dict[str, Any]:
        """Readings of the arm, and of the cube."""
        readings, n, cube = arm_readings(self.robot, state), self.robot.num_joints, self.cube(state.qpos)
        readings["object_pos"], readings["object_rot"] = cube, quat_columns(state.qpos[:, -4:])
        readings["object_from_tool"] = cube - readings["tool_pos"]
        if self.grips:
            readings["gripper_pos"] = state.qpos[:, n : n + 1]
        if "target_pos" in state.memory:
            readings["target_pos"] = state.memory["target_pos"]
            readings["target_from_object"] = readings["target_pos"] - cube
        return readings

    # ---- what the policy sees and does -------------------------------------------------------

    def _spec(self, camera: str) -> Spec:
        own = [*arm_obs(self.robot), TOOL_ROT]
        if self.grips and self.robot.gripper:
            own.insert(3, ObsTerm("gripper_pos", (1,), "robot", self.robot.gripper.unit))
        cube = [
            ObsTerm("object_pos", (3,), "external", "m", frame="base"),
            ObsTerm("object_rot", (6,), "external", "1", frame="base"),
            ObsTerm("object_from_tool", (3,), "external", "m", frame="base"),
        ]
        if self.has_goal:
            own.append(ObsTerm("target_pos", (3,), "goal", "m", frame="base"))
            cube.append(ObsTerm("target_from_object", (3,), "external", "m", frame="base"))
        return Spec(groups(own, cube, camera, CAMERAS, lens(FOVY)), self._actions(), CONTROL_DT, robot=self.robot.name)

    def _actions(self) -> tuple[ActionTerm, ...]:
        robot, arm = self.robot, arm_action(self.robot, STEP, LEAD)
        if not self.grips or robot.gripper is None:
            return (arm,)
        ends = sorted((robot.gripper.closed, robot.gripper.open))
        return arm, ActionTerm("gripper", "control", (robot.gripper.actuator,), (ends[0],), (ends[1],),
                               unit=robot.gripper.unit)  # fmt: skip


@lru_cache(maxsize=32)
def _start_pose(robot: RobotSpec, point: tuple[float, float, float]) -> np.ndarray:
    return inverse_kinematics(robot, np.array(point), DOWNWARD, robot.home)


def start_pose(robot: RobotSpec, point: np.ndarray) -> np.ndarray:
    """Joint angles (n,) with the tool at `point` (3,) [m], pointing down."""
    return _start_pose(robot, (float(point[0]), float(point[1]), float(point[2])))


def quat_columns(quat_wxyz: Any) -> Any:
    """The first two columns of the rotation of unit quaternions (N, 4): (N, 6)."""
    xp = array_namespace(quat_wxyz)
    w, x, y, z = (quat_wxyz[:, i] for i in range(4))
    return xp.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y),
                     2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], axis=1)  # fmt: skip


def _randomization(robot: RobotSpec, has_goal: bool) -> Randomization:
    """What differs between cells: the arm, the cube, and what a camera that finds the cube makes of it."""
    masses, *arm = arm_ranges(robot, latency=0.08, bias=0.002)
    seen = ("object_*", "target_from_object") if has_goal else ("object_*",)
    return Randomization((
        masses,
        Term("object_mass", "link_mass", "object", range=(0.5, 2.0)),
        Term("object_friction", "geom_friction", "object", range=(0.7, 1.3)),
        *arm,
        Term("camera_delay", "obs_delay", seen, range=(0.0, 0.15), operation="set"),
        Term("camera_noise", "obs_noise", seen, range=(0.0, 0.005), operation="set", shared=True),
    ))  # fmt: skip
