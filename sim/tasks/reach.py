"""reach/ROBOT: bring the tool to a point in space and keep it there.

Actions are joint-position steps at 20 Hz, with no inverse kinematics inside; the arm starts near its home pose
and the point is uniform in a box in front of it. The hand is rigid here: finger joints would only cost time.
The goal rules load no simulator, so the arm's side draws its targets and judges success by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from ...arrays import constant
from ...errors import UsageError, unknown_name
from ...kinematics import forward_kinematics
from ...robots import FR3, RobotSpec, robot_spec
from ...spec import ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key, State
from .arm_terms import arm_action, arm_obs, arm_readings
from .geometry import distance, uniform_in
from .held_goal import HeldGoal, met, none_held

if TYPE_CHECKING:
    import mujoco

SUCCESS_RADIUS = 0.02  # [m]
SUCCESS_STEPS = 10  # control steps in a row, the last ones of the episode
EPISODE_STEPS = 100
CONTROL_DT, PHYSICS_DT = 0.05, 0.005  # [s]
STEP, LEAD = 0.1, 0.35  # [rad] of a joint target in a control period; before the measured angle
_SCENE = Path(__file__).parent.parent / "assets" / "reach.xml"


@dataclass(frozen=True)
class Arena:
    """What an arm reaches for, and what its dynamics may be."""

    low: tuple[float, float, float]  # [m] corners of the box of targets, base frame
    high: tuple[float, float, float]
    size: float = 1.0  # of the arm, which the camera keeps its distance by
    spread: float = 0.3  # [rad] of the start around home
    friction: float = 0.5  # [N m] most dry friction that randomization adds to a joint
    payload: float = 0.5  # [kg] most that it puts into the hand


ARENAS = {
    "fr3": Arena((0.30, -0.30, 0.15), (0.70, 0.30, 0.55)),
    "ur5e": Arena((0.30, -0.30, 0.10), (0.70, 0.30, 0.50)),
    "xarm7": Arena((0.25, -0.30, 0.10), (0.60, 0.30, 0.50), size=0.9),
    "so101": Arena((0.14, -0.14, 0.04), (0.30, 0.14, 0.20), size=0.45, spread=0.1, friction=0.05, payload=0.05),
    "vx300s": Arena((0.20, -0.25, 0.08), (0.48, 0.25, 0.36), size=0.75, spread=0.2, friction=0.1, payload=0.2),
}


def sample_target(uniforms: Any, arena: Arena) -> Any:
    """Targets (n, 3) [m] in the arm's box, from uniform numbers in (0, 1) of the same shape."""
    return uniform_in(uniforms, arena.low, arena.high)


def reach_spec(robot: RobotSpec = FR3) -> Spec:
    """What a reach policy of this arm sees and does."""
    target = ObsTerm("target_pos", (3,), "goal", "m", frame="base")
    return Spec({"state": (*arm_obs(robot), target)}, (arm_action(robot, STEP, LEAD),), CONTROL_DT, robot=robot.name)


class Reach(HeldGoal):
    """The tasks `reach/ROBOT`; see sim/task.py for the contract."""

    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    success_steps = SUCCESS_STEPS

    def __init__(self, robot: str | RobotSpec = "fr3", mjcf: str = "", arena: Arena | None = None):
        """A task of one of Poise's arms, by name, or of an arm of yours, with its model file and its arena.

        mjcf: another model file of the arm, see sim/arm_file.py.
        """
        if isinstance(robot, str):
            if robot not in ARENAS:
                raise unknown_name("robot of reach", robot, ARENAS)
            robot, arena = robot_spec(robot), arena or ARENAS[robot]
        if arena is None:
            raise UsageError(f"reach/{robot.name} needs an arena: where its targets are")
        self.name = f"reach/{robot.name}"
        self.robot, self.arena, self.mjcf = robot, arena, mjcf or None
        self.spec = reach_spec(robot)
        self.randomization = _randomization(robot.name, arena, own=not mjcf)

    def model(self) -> mujoco.MjSpec:
        """The scene with the arm in it, its hand made rigid as its file draws it."""
        import mujoco

        from ..arm_file import hold_gripper, read_arm

        scene, arm = mujoco.MjSpec.from_file(str(_SCENE)), read_arm(self.robot, self.mjcf)
        hold_gripper(self.robot, arm)
        scene.attach(arm, frame=scene.worldbody.add_frame(), prefix="")
        camera = scene.camera("front")
        camera.pos = self.arena.size * np.asarray(camera.pos)
        return scene

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start near home, at rest, with a new target."""
        robot, bounds, u = self.robot, self.spec.actions[0], key.uniform("start", self.robot.num_joints)
        xp = array_namespace(u)
        qpos = constant(robot.home, u) + self.arena.spread * (2.0 * u - 1.0)
        qpos = xp.minimum(xp.maximum(qpos, constant(bounds.low, u)), constant(bounds.high, u))
        tool_pos, _ = forward_kinematics(robot, qpos)
        memory = {
            "target_pos": sample_target(key.uniform("target", 3), self.arena),
            "tool_pos": tool_pos,
            "held": none_held(qpos),
        }
        return qpos, xp.zeros_like(qpos), memory

    def observe(self, state: State) -> dict[str, Any]:
        return {**arm_readings(self.robot, state), "target_pos": state.memory["target_pos"]}

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row it has been at the target."""
        tool_pos, _ = forward_kinematics(self.robot, state.qpos)
        target_pos = state.memory["target_pos"]
        near = distance(tool_pos, target_pos) <= SUCCESS_RADIUS
        return {"target_pos": target_pos, "tool_pos": tool_pos, "held": met(state.memory, near)}

    def reward(self, state: State, action: Any) -> Any:
        """-2 d + exp(-(d / .05)^2) + .5 exp(-(d / .015)^2) - .01 |a|^2, d [m] from tool to target."""
        xp = array_namespace(action)
        d = distance(state.memory["tool_pos"], state.memory["target_pos"])
        close = xp.exp(-((d / 0.05) ** 2)) + 0.5 * xp.exp(-((d / 0.015) ** 2))
        return close - 2.0 * d - 0.01 * xp.sum(action * action, axis=-1)


def _randomization(robot: str, arena: Arena, own: bool) -> Randomization:
    """own: whether the model is Poise's; anyone else's may lack damping to scale, and names its links otherwise."""
    friction = Term("friction", "joint_friction", "*", range=(0.0, arena.friction), operation="add")
    gain = Term("gain", "actuator_gain", "*", range=(0.7, 1.3))
    ours = (
        Term("link_mass", "link_mass", f"{robot}_link*", range=(0.7, 1.3)),
        Term("hand_mass", "link_mass", "hand", range=(0.7, 1.3)),
        Term("damping", "joint_damping", "*", range=(0.7, 1.3)),
        friction,
        Term("armature", "joint_armature", "*", range=(0.7, 1.3)),
        gain,
        Term("gain_damping", "actuator_damping", "*", range=(0.7, 1.3)),
    )
    theirs = (
        Term("link_mass", "link_mass", "*", range=(0.7, 1.3)),
        Term("damping", "joint_damping", "*", range=(0.0, arena.friction), operation="add"),
        friction,
        gain,
    )
    return Randomization((
        *(ours if own else theirs),
        Term("payload", "payload", "tool", range=(0.0, arena.payload), operation="set"),
        Term("latency", "action_latency", range=(0.0, 0.08), operation="set"),
        Term("joint_pos_noise", "joint_pos_noise", "*", range=(0.0002, 0.0008), operation="set"),
        Term("joint_pos_bias", "joint_pos_bias", "*", distribution="normal", mean=0.0, std=0.002, operation="set"),
        Term("joint_vel_noise", "joint_vel_noise", "*", range=(0.005, 0.015), operation="set"),
    ))  # fmt: skip
