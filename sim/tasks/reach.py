"""reach/fr3: bring the tool to a point in space and keep it there.

Actions are joint-position steps at 20 Hz, with no inverse kinematics inside; the arm starts near its home pose
and the point is uniform in a box in front of it. The hand is rigid here: finger joints would only cost time.
The goal rules are plain numpy, so the arm's side draws its targets and judges success by the same code.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from ...kinematics import forward_kinematics
from ...observe import add_kinematics
from ...robots import FR3
from ...spec import ActionTerm, ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key, State

if TYPE_CHECKING:
    import mujoco

TARGET_LOW, TARGET_HIGH = (0.30, -0.30, 0.15), (0.70, 0.30, 0.55)  # [m] corners of the box of targets, base frame
SUCCESS_RADIUS = 0.02  # [m]
SUCCESS_STEPS = 10  # control steps in a row, the last ones of the episode
START_SPREAD = 0.3  # [rad] around home
EPISODE_STEPS = 100
CONTROL_DT, PHYSICS_DT = 0.05, 0.005  # [s]
_MARGIN = 0.02  # [rad] between the action's bounds and the joint limits
_SCENE = Path(__file__).parent.parent / "assets" / "reach_fr3.xml"

RANDOMIZATION = Randomization((
    Term("link_mass", "link_mass", "fr3_link*", range=(0.7, 1.3)),
    Term("hand_mass", "link_mass", "hand", range=(0.7, 1.3)),
    Term("damping", "joint_damping", "*", range=(0.7, 1.3)),
    Term("friction", "joint_friction", "*", range=(0.0, 0.5), operation="add"),
    Term("armature", "joint_armature", "*", range=(0.7, 1.3)),
    Term("gain", "actuator_gain", "*", range=(0.7, 1.3)),
    Term("gain_damping", "actuator_damping", "*", range=(0.7, 1.3)),
    Term("payload", "payload", "tool", range=(0.0, 0.5), operation="set"),
    Term("latency", "action_latency", range=(0.0, 0.08), operation="set"),
    Term("joint_pos_noise", "joint_pos_noise", "*", range=(0.0002, 0.0008), operation="set"),
    Term("joint_pos_bias", "joint_pos_bias", "*", distribution="normal", mean=0.0, std=0.002, operation="set"),
    Term("joint_vel_noise", "joint_vel_noise", "*", range=(0.005, 0.015), operation="set"),
))  # fmt: skip


def sample_target(uniforms: Any) -> Any:
    """Targets (n, 3) [m] in the box, from uniform numbers in (0, 1) of the same shape."""
    low, high = np.asarray(TARGET_LOW), np.asarray(TARGET_HIGH)
    return low + (high - low) * uniforms


def reach_spec() -> Spec:
    """What a reach policy sees and does."""
    n = FR3.num_joints
    state = (
        ObsTerm("joint_pos", (n,), "robot", "rad"),
        ObsTerm("joint_vel", (n,), "robot", "rad/s"),
        ObsTerm("target_error", (n,), "robot", "rad"),  # last joint target minus measured position
        ObsTerm("tool_pos", (3,), "kinematics", "m", frame="base"),
        ObsTerm("target_pos", (3,), "goal", "m", frame="base"),
    )
    arm = ActionTerm(
        name="arm",
        kind="joint_pos",
        joints=FR3.joints,
        low=tuple(x + _MARGIN for x in FR3.position_low),
        high=tuple(x - _MARGIN for x in FR3.position_high),
        scale=(0.1,) * n,
        reference="last_target",
        home=FR3.home,
        lead=(0.35,) * n,
        max_velocity=tuple(0.9 * v for v in FR3.velocity),
        max_acceleration=tuple(0.9 * a for a in FR3.acceleration),
        unit="rad",
    )
    return Spec({"state": state}, (arm,), CONTROL_DT, robot="fr3")


class Reach:
    """The task `reach/fr3`; see sim/task.py for the contract."""

    name = "reach/fr3"
    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    randomization = RANDOMIZATION

    def __init__(self) -> None:
        self.spec = reach_spec()

    def model(self) -> mujoco.MjSpec:
        """The scene with the hand made rigid."""
        import mujoco

        spec = mujoco.MjSpec.from_file(str(_SCENE))
        for kind in (spec.keys, spec.equalities, spec.tendons):  # all of them concern the fingers
            for element in list(kind):
                spec.delete(element)
        spec.delete(spec.actuator("gripper"))
        for name in ("finger_joint1", "finger_joint2"):
            spec.delete(spec.joint(name))
        return spec

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start near home, at rest, with a new target."""
        n = FR3.num_joints
        qpos = np.asarray(FR3.home) + START_SPREAD * (2.0 * key.uniform("start", n) - 1.0)
        qpos = np.clip(qpos, self.spec.actions[0].low, self.spec.actions[0].high)
        tool_pos, _ = forward_kinematics(FR3, qpos)
        memory = {
            "target_pos": sample_target(key.uniform("target", 3)),
            "tool_pos": tool_pos,
            "held": np.zeros(len(qpos), np.int64),
        }
        return qpos, np.zeros_like(qpos), memory

    def observe(self, state: State) -> dict[str, Any]:
        """Readings as the arm's control process makes them, from measured joints."""
        readings = {
            "joint_pos": state.qpos,
            "joint_vel": state.qvel,
            "target_error": state.target["arm"] - state.qpos,
            "target_pos": state.memory["target_pos"],
        }
        return add_kinematics(readings, FR3)

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row it has been at the target."""
        tool_pos, _ = forward_kinematics(FR3, state.qpos)
        target_pos, held = state.memory["target_pos"], state.memory["held"]
        near = _distance(tool_pos, target_pos) <= SUCCESS_RADIUS
        return {"target_pos": target_pos, "tool_pos": tool_pos, "held": (held + 1) * near}

    def reward(self, state: State, action: Any) -> Any:
        """-2 d + exp(-(d / .05)^2) + .5 exp(-(d / .015)^2) - .01 |a|^2, d [m] from tool to target."""
        xp = array_namespace(action)
        d = _distance(state.memory["tool_pos"], state.memory["target_pos"])
        close = xp.exp(-((d / 0.05) ** 2)) + 0.5 * xp.exp(-((d / 0.015) ** 2))
        return close - 2.0 * d - 0.01 * xp.sum(action * action, axis=-1)

    def terminated(self, state: State) -> Any:
        """Never: holding still at the target is the task."""
        return state.memory["held"] < 0

    def success(self, state: State) -> Any:
        """The tool has been within SUCCESS_RADIUS at each of the last SUCCESS_STEPS control steps."""
        return state.memory["held"] >= SUCCESS_STEPS


def _distance(a: Any, b: Any) -> Any:
    xp = array_namespace(a)
    return xp.sqrt(xp.sum((a - b) ** 2, axis=-1))
