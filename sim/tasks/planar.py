"""reach/planar: a two-link arm on a table brings its tool to a red disc that only the camera sees.

The smallest task for policies that see: `reach` with two joints, and the target in no vector. The policy gets an
84 x 84 colour picture from straight above, and of the arm itself what encoders tell; the arm's joints move by position
steps at 20 Hz. `reach/planar-state` is the same task with the target's position in the vector instead of a camera,
to tell a learner that cannot reach from one that cannot see.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

from ...spec import ActionTerm, ObsTerm, Spec
from ..randomization import Randomization
from ..task import Key, State
from .by_camera import FRAME
from .geometry import distance
from .held_goal import HeldGoal, met, none_held

if TYPE_CHECKING:
    import mujoco

UPPER, FORE = 0.30, 0.25  # [m] lengths of the links
TARGET_RADIUS, TARGET_ANGLE = (0.25, 0.50), 1.3  # [m] from the shoulder, [rad] to either side of straight ahead
SUCCESS_RADIUS = 0.06  # [m], that of the disc
SUCCESS_STEPS = 5  # control steps in a row, the last ones of the episode
START_SPREAD = 1.5  # [rad] around the stretched arm
EPISODE_STEPS = 50
CONTROL_DT, PHYSICS_DT = 0.05, 0.01  # [s]
_JOINTS = ("shoulder", "elbow")
_LIMIT = 2.5  # [rad] of both joints
_SCENE = Path(__file__).parent.parent / "assets" / "reach_planar.xml"


def tool_position(joint_pos: Any) -> Any:
    """Where the tool is for joint positions (n, 2): (n, 2) [m] on the table."""
    xp = array_namespace(joint_pos)
    first, both = joint_pos[:, 0], joint_pos[:, 0] + joint_pos[:, 1]
    return xp.stack([UPPER * xp.cos(first) + FORE * xp.cos(both), UPPER * xp.sin(first) + FORE * xp.sin(both)], axis=1)


def sample_target(uniforms: Any) -> Any:
    """Targets (n, 3) [m] on the table, uniform in radius and angle, from uniform numbers (n, 2) in (0, 1)."""
    xp, (low, high) = array_namespace(uniforms), TARGET_RADIUS
    radius, angle = low + (high - low) * uniforms[:, 0], TARGET_ANGLE * (2.0 * uniforms[:, 1] - 1.0)
    return xp.stack([radius * xp.cos(angle), radius * xp.sin(angle), xp.full_like(radius, -0.05)], axis=1)


def planar_spec(camera: bool) -> Spec:
    """What a policy sees and does; `camera` chooses between the picture and the target's position."""
    state = (
        ObsTerm("joint_pos", (2,), "robot", "rad"),
        ObsTerm("joint_vel", (2,), "robot", "rad/s"),
        ObsTerm("tool_pos", (2,), "kinematics", "m", frame="base"),
    )
    target = () if camera else (ObsTerm("target_pos", (2,), "goal", "m", frame="base"),)
    groups: dict[str, tuple[ObsTerm, ...]] = {"state": (*state, *target)}
    if camera:
        groups["camera"] = (ObsTerm("camera", FRAME, "camera", dtype="uint8"),)
    arm = ActionTerm(
        name="arm",
        kind="joint_pos",
        joints=_JOINTS,
        low=(-_LIMIT,) * 2,
        high=(_LIMIT,) * 2,
        scale=(0.3,) * 2,
        reference="measured",
        lead=(0.5,) * 2,
        max_velocity=(4.0,) * 2,
        max_acceleration=(60.0,) * 2,
        unit="rad",
    )
    return Spec(groups, (arm,), CONTROL_DT)


class PlanarReach(HeldGoal):
    """The tasks `reach/planar` and `reach/planar-state`; see sim/task.py for the contract."""

    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    success_steps = SUCCESS_STEPS
    randomization = Randomization()

    def __init__(self, camera: bool = True) -> None:
        self.name = "reach/planar" if camera else "reach/planar-state"
        self.spec = planar_spec(camera)

    def model(self) -> mujoco.MjSpec:
        import mujoco

        return mujoco.MjSpec.from_file(str(_SCENE))

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start at rest, anywhere in front, with a new target."""
        qpos = START_SPREAD * (2.0 * key.uniform("start", 2) - 1.0)
        memory = {
            "target_pos": sample_target(key.uniform("target", 2)),
            "tool_pos": tool_position(qpos),
            "held": none_held(qpos),
        }
        return qpos, array_namespace(qpos).zeros_like(qpos), memory

    def observe(self, state: State) -> dict[str, Any]:
        return {
            "joint_pos": state.qpos,
            "joint_vel": state.qvel,
            "tool_pos": tool_position(state.qpos),
            "target_pos": state.memory["target_pos"][:, :2],
        }

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """The true tool position, and for how many steps in a row it has been over the disc."""
        tool_pos, target_pos = tool_position(state.qpos), state.memory["target_pos"]
        near = distance(tool_pos, target_pos[:, :2]) <= SUCCESS_RADIUS
        return {"target_pos": target_pos, "tool_pos": tool_pos, "held": met(state.memory, near)}

    def reward(self, state: State, action: Any) -> Any:
        """2 exp(-(d / .1)^2) - 3 d - .01 |a|^2, d [m] from the tool to the middle of the disc."""
        xp = array_namespace(action)
        d = distance(state.memory["tool_pos"], state.memory["target_pos"][:, :2])
        return 2.0 * xp.exp(-((d / 0.1) ** 2)) - 3.0 * d - 0.01 * xp.sum(action * action, axis=-1)
