"""valve/claw: three fingers turn a valve to an angle and leave it there.

The plan of D'Claw's turning tasks (Ahn et al. 2019, "ROBEL", arXiv:1909.11639): nine joints that move by position
steps at 20 Hz, a valve with three prongs, dry friction that holds it where it is left, and its angle told as cosine
and sine. The valve starts anywhere within a third of a turn, which is every distinct place of its prongs among the
fingers, and has to turn by 30 to 90 degrees either way: where no finger stands behind a prong, one has to be lifted
over it. The model and its units are in sim/assets/claw.xml.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from array_api_compat import array_namespace

from ...arrays import constant
from ...spec import ActionTerm, ObsTerm, Spec
from ..randomization import Randomization, Term
from ..task import Key, State
from .by_camera import groups
from .geometry import cos_sin
from .held_goal import HeldGoal, met, none_held

if TYPE_CHECKING:
    import mujoco

NUM_JOINTS = 9
JOINTS = tuple(f"finger{finger}_joint{joint}" for finger in (1, 2, 3) for joint in (1, 2, 3))
HOME = (0.0, -0.45, 1.65) * 3  # [rad] the tips above the prongs
START_SPREAD = 0.1  # [rad] around home
VALVE_START = math.pi / 3  # [rad] to either side
TURN = (math.pi / 6, math.pi / 2)  # [rad] the least and the most that the valve has to turn, either way
SUCCESS_ANGLE = math.radians(10)  # [rad]
SUCCESS_STEPS = 5  # control steps in a row, the last ones of the episode
EPISODE_STEPS = 100
CONTROL_DT, PHYSICS_DT = 0.05, 0.005  # [s]
CAMERAS = ("close", "front")
_TARGET_RADIUS, _TARGET_HEIGHT = 0.09, 0.035  # [m] of the mark that shows where the red prong should point
_MAX_VELOCITY = 0.9 * 77 * 2 * math.pi / 60  # [rad/s] XM430-W210-R without load, at 12 V
_SCENE = Path(__file__).parent.parent / "assets" / "claw.xml"

RANDOMIZATION = Randomization((
    Term("valve_friction", "joint_friction", "valve", range=(0.5, 1.5)),
    Term("valve_damping", "joint_damping", "valve", range=(0.5, 2.0)),
    Term("grip", "geom_friction", ("finger*_tip", "prong*", "hub"), range=(0.7, 1.3), shared=True),
    Term("damping", "joint_damping", "finger*", range=(0.7, 1.3)),
    Term("friction", "joint_friction", "finger*", range=(0.5, 2.0)),
    Term("armature", "joint_armature", "finger*", range=(0.7, 1.3)),
    Term("gain", "actuator_gain", "*", range=(0.8, 1.2)),
    Term("gain_damping", "actuator_damping", "*", range=(0.8, 1.2)),
    Term("latency", "action_latency", range=(0.0, 0.04), operation="set"),
    Term("joint_pos_noise", "joint_pos_noise", "*", range=(0.001, 0.003), operation="set"),
    Term("joint_pos_bias", "joint_pos_bias", "*", distribution="normal", mean=0.0, std=0.01, operation="set"),
    Term("joint_vel_noise", "joint_vel_noise", "finger*", range=(0.02, 0.05), operation="set"),
))  # fmt: skip


def sample_angles(uniforms: Any) -> tuple[Any, Any]:
    """Where valves start and where they should stand, each (n,) [rad], from uniform numbers (n, 2) in (0, 1)."""
    xp, start = array_namespace(uniforms), VALVE_START * (2.0 * uniforms[:, 0] - 1.0)
    signed = 2.0 * uniforms[:, 1] - 1.0
    turn = TURN[0] + (TURN[1] - TURN[0]) * xp.abs(signed)
    return start, start + xp.where(signed < 0, -turn, turn)


def valve_spec(camera: str = "") -> Spec:
    """What a policy sees and does; with a camera, the picture has to say where valve and mark are."""
    n = NUM_JOINTS
    own = (
        ObsTerm("joint_pos", (n,), "robot", "rad"),
        ObsTerm("joint_vel", (n,), "robot", "rad/s"),
        ObsTerm("target_error", (n,), "robot", "rad"),  # last joint target minus measured position
    )
    valve = (
        ObsTerm("valve_angle", (2,), "external", "cos, sin"),
        ObsTerm("goal_error", (2,), "goal", "cos, sin"),  # of the angle that the valve still has to turn
    )
    claw = ActionTerm(
        name="claw",
        kind="joint_pos",
        joints=JOINTS,
        low=(-0.75, -1.15, -0.1) * 3,
        high=(0.75, 0.75, 1.95) * 3,
        scale=(0.1,) * n,
        reference="last_target",
        home=HOME,
        lead=(0.25,) * n,
        max_velocity=(_MAX_VELOCITY,) * n,
        max_acceleration=(60.0,) * n,
        unit="rad",
    )
    return Spec(groups(own, valve, camera, CAMERAS), (claw,), CONTROL_DT, robot="claw")


class Valve(HeldGoal):
    """The task `valve/claw`; see sim/task.py for the contract."""

    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    success_steps = SUCCESS_STEPS
    randomization = RANDOMIZATION

    def __init__(self, camera: str = "") -> None:
        """camera: one of CAMERAS gives 84 x 84 pictures instead of the valve's angle and what remains to turn."""
        self.name = "valve/claw" + (f"?camera={camera}" if camera else "")
        self.spec = valve_spec(camera)

    def model(self) -> mujoco.MjSpec:
        import mujoco

        return mujoco.MjSpec.from_file(str(_SCENE))

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start at rest with the fingers near home, above the valve, and a new angle to turn it to."""
        u = key.uniform("start", NUM_JOINTS)
        xp, fingers = array_namespace(u), constant(HOME, u) + START_SPREAD * (2.0 * u - 1.0)
        start, goal = sample_angles(key.uniform("valve", 2))
        mark = (_TARGET_RADIUS * xp.cos(goal), _TARGET_RADIUS * xp.sin(goal), xp.full_like(goal, _TARGET_HEIGHT))
        qpos = xp.concat([fingers, start[:, None]], axis=1)
        memory = {"goal": goal, "target_pos": xp.stack(mark, axis=1), "held": none_held(goal)}
        return qpos, xp.zeros_like(qpos), memory

    def observe(self, state: State) -> dict[str, Any]:
        """Readings from the measured joints; something else measures the valve."""
        fingers, valve = state.qpos[:, :NUM_JOINTS], state.qpos[:, NUM_JOINTS]
        return {
            "joint_pos": fingers,
            "joint_vel": state.qvel[:, :NUM_JOINTS],
            "target_error": state.target["claw"] - fingers,
            "valve_angle": cos_sin(valve),
            "goal_error": cos_sin(state.memory["goal"] - valve),
        }

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """For how many steps in a row the valve has stood at its angle."""
        xp = array_namespace(state.qpos)
        near = xp.abs(angle_error(state)) <= SUCCESS_ANGLE
        return {**state.memory, "held": met(state.memory, near)}

    def reward(self, state: State, action: Any) -> Any:
        """exp(-(e / .2)^2) + .5 exp(-(e / .07)^2) - |e| - .005 |a|^2, e [rad] still to turn.

        Nothing holds the fingers at home: a cost of leaving it is the first thing that a learner would save.
        """
        xp = array_namespace(action)
        e = angle_error(state)
        close = xp.exp(-((e / 0.2) ** 2)) + 0.5 * xp.exp(-((e / 0.07) ** 2))
        return close - xp.abs(e) - 0.005 * xp.sum(action**2, axis=-1)


def angle_error(state: State) -> Any:
    """The angle (N,) [rad] that valves still have to turn, in [-pi, pi)."""
    xp = array_namespace(state.qpos)
    return xp.remainder(state.memory["goal"] - state.qpos[:, NUM_JOINTS] + math.pi, 2.0 * math.pi) - math.pi
