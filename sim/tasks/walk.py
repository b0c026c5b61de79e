"""walk/quad: a robot of four legs follows a velocity, as it is told anew halfway through.

The task of Rudin et al. 2021, "Learning to walk in minutes using massively parallel deep reinforcement learning"
(arXiv 2109.11978), on flat ground: the same nine rewards, with the weights of its code (legged_gym), the same readings
but for the height scan, joints that move around a standing pose at 50 Hz, shoves. An episode ends early where the robot
falls. The model and its units are in sim/assets/quad.xml.

What touches the ground is told by where it is, since the ground is flat: a foot whose centre is no higher than its
radius. So the task reads positions and velocities alone, on every engine.

qpos: the trunk's position and quaternion, then hip, thigh and knee of the legs front left, front right, hind left,
hind right; qvel: the trunk's velocity in the world's frame, its spin in its own, the joints'.
Legend: N worlds, n of them.
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
from .geometry import quat_matrix, uniform_in

if TYPE_CHECKING:
    import mujoco

LEGS = ("front_left", "front_right", "hind_left", "hind_right")
JOINTS = tuple(f"{leg}_{joint}" for leg in LEGS for joint in ("hip", "thigh", "knee"))
HOME = (0.0, 0.9, -1.8) * 4  # [rad] standing
HEIGHT = 0.285  # [m] of the trunk's middle above the ground, standing on straight feet
GAIN, GAIN_DAMPING, TORQUE = 60.0, 1.5, (24.0, 24.0, 36.0) * 4  # [N m/rad], [N m s/rad], [N m] of the model's servos
COMMAND_LOW, COMMAND_HIGH = (-1.0, -0.5, -1.0), (1.0, 0.5, 1.0)  # forward, to the left [m/s]; turning left [rad/s]
STILL = 0.2  # [m/s] a slower command is to stand, or to turn on the spot
EPISODE_STEPS = 1000
CONTROL_DT, PHYSICS_DT = 0.02, 0.005  # [s]
SECOND_COMMAND = 10.0  # [s] when it is told
FALLEN_HEIGHT, FALLEN_UPRIGHT = 0.15, 0.5  # [m] of the trunk's middle; cosine of its tilt
SUCCESS_ERROR = 0.25  # [m/s]
ERROR_TIME = 1.0  # [s] over which the error of the velocity is averaged
TRACKING = 0.25  # [m^2/s^2, rad^2/s^2] a squared error of this size earns 1 / e
_STRIDE = 0.5  # [s] in the air that a step is paid from
_SPREAD = 0.1  # [rad] of the start around home
_START_SPEED = 0.3  # [m/s, rad/s] to every side
HIPS = ((0.19, 0.05, 0.0), (0.19, -0.05, 0.0), (-0.19, 0.05, 0.0), (-0.19, -0.05, 0.0))  # [m] in the trunk
OUT = (0.08, -0.08, 0.08, -0.08)  # [m] from hip to thigh, along y
LINK = 0.213  # [m] of thigh and of shank
_FOOT, _KNEE = 0.021, 0.024  # [m] a foot, a knee whose middle is no higher touches the ground
_SCENE = Path(__file__).parent.parent / "assets" / "quad.xml"

RANDOMIZATION = Randomization((
    Term("trunk_mass", "link_mass", "trunk", range=(0.8, 1.3)),
    Term("leg_mass", "link_mass", ("*_hip", "*_thigh", "*_shank"), range=(0.8, 1.2)),
    Term("trunk_com", "body_com", "trunk", range=(-0.03, 0.03), operation="add"),
    Term("grip", "geom_friction", "*_foot", range=(0.5, 1.5), shared=True),
    Term("damping", "joint_damping", JOINTS, range=(0.5, 2.0)),
    Term("friction", "joint_friction", JOINTS, range=(0.5, 2.0)),
    Term("armature", "joint_armature", JOINTS, range=(0.7, 1.3)),
    Term("gain", "actuator_gain", "*", range=(0.8, 1.2)),
    Term("gain_damping", "actuator_damping", "*", range=(0.8, 1.2)),
    Term("latency", "action_latency", range=(0.0, 0.02), operation="set"),
    Term("shove", "kick_velocity", "trunk", range=(0.0, 1.0), operation="set", when="interval", interval=(5.0, 15.0)),
    Term("joint_pos_noise", "joint_pos_noise", JOINTS, range=(0.002, 0.01), operation="set"),
    Term("joint_pos_bias", "joint_pos_bias", JOINTS, distribution="normal", mean=0.0, std=0.01, operation="set"),
    Term("joint_vel_noise", "joint_vel_noise", JOINTS, range=(0.1, 0.5), operation="set"),
    Term("velocity_noise", "obs_noise", "base_vel", range=(0.0, 0.1), operation="set", shared=True),
    Term("gyro_noise", "obs_noise", "base_spin", range=(0.0, 0.2), operation="set", shared=True),
    Term("gravity_noise", "obs_noise", "gravity", range=(0.0, 0.05), operation="set", shared=True),
))  # fmt: skip


def walk_spec() -> Spec:
    """What a policy sees and does."""
    n = len(JOINTS)
    seen = (
        ObsTerm("base_vel", (3,), "external", "m/s", frame="base"),  # what estimates it is not part of a robot
        ObsTerm("base_spin", (3,), "robot", "rad/s", frame="base"),
        ObsTerm("gravity", (3,), "robot", "1", frame="base"),  # where down is
        ObsTerm("command", (3,), "goal", "m/s, rad/s", frame="base"),
        ObsTerm("joint_pos", (n,), "robot", "rad"),  # from home
        ObsTerm("joint_vel", (n,), "robot", "rad/s"),
        ObsTerm("last_action", (n,), "robot", "1"),
    )
    legs = ActionTerm(
        name="legs",
        kind="joint_pos",
        joints=JOINTS,
        low=(-0.78, -0.58, -2.68) * 4,
        high=(0.78, 2.38, -0.92) * 4,
        scale=(0.3, 0.6, 0.6) * 4,
        reference="home",
        home=HOME,
        lead=(1.0,) * n,
        max_velocity=(30.0,) * n,
        max_acceleration=(3000.0,) * n,
        unit="rad",
    )
    return Spec({"state": seen}, (legs,), CONTROL_DT, robot="quad")


class Walk:
    """The task `walk/quad`; see sim/task.py for the contract."""

    name = "walk/quad"
    physics_dt = PHYSICS_DT
    max_episode_steps = EPISODE_STEPS
    randomization = RANDOMIZATION
    spec = walk_spec()

    def model(self) -> mujoco.MjSpec:
        import mujoco

        return mujoco.MjSpec.from_file(str(_SCENE))

    def reset(self, key: Key, params: Mapping[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
        """Start near standing, turned anywhere, with a little speed, and two commands for the episode's halves."""
        joints, base = key.uniform("start", len(JOINTS)), key.uniform("base", 7)
        xp, half_yaw = array_namespace(joints), math.pi * base[:, :1]
        zero = xp.zeros_like(half_yaw)
        joint_pos = constant(HOME, joints) + _SPREAD * (2.0 * joints - 1.0)
        high = zero + (HEIGHT + 0.01)
        qpos = xp.concat([zero, zero, high, xp.cos(half_yaw), zero, zero, xp.sin(half_yaw), joint_pos], axis=1)
        qvel = xp.concat([_START_SPEED * (2.0 * base[:, 1:] - 1.0), xp.zeros_like(joints)], axis=1)
        first, second = (sample_command(key.uniform(name, 3)) for name in ("command", "second_command"))
        memory = {
            "command": first,
            "second": second,
            "action": xp.zeros_like(joints),
            "joint_vel": xp.zeros_like(joints),
            "air": xp.zeros_like(joints[:, ::3]),
            **{name: xp.zeros_like(zero[:, 0]) for name in ("strides", "change", "acceleration")},
            "error": xp.ones_like(zero[:, 0]),
        }
        return qpos, qvel, memory

    def observe(self, state: State) -> dict[str, Any]:
        rotation = quat_matrix(state.qpos[:, 3:7])
        return {
            "base_vel": _inside(rotation, state.qvel[:, :3]),
            "base_spin": state.qvel[:, 3:6],
            "gravity": -rotation[:, 2],
            "command": state.memory["command"],
            "joint_pos": state.qpos[:, 7:] - constant(HOME, state.qpos),
            "joint_vel": state.qvel[:, 6:],
            "last_action": state.memory["action"],
        }

    def advance(self, state: State, action: Any) -> dict[str, Any]:
        """What the reward compares with the step before, and for how long [s] each foot has been in the air."""
        xp, memory, joint_vel = array_namespace(action), state.memory, state.qvel[:, 6:]
        touches = foot_heights(state.qpos) <= _FOOT
        air = memory["air"]
        landed = xp.astype(touches & (air > 0.0), air.dtype)
        moving = xp.astype(_length(memory["command"][:, :2]) > 0.1, air.dtype)
        off = _length(self.velocity(state)[:, :2] - memory["command"][:, :2])
        later = state.time[:, None] >= SECOND_COMMAND
        return {
            "command": xp.where(later, memory["second"], memory["command"]),
            "second": memory["second"],
            "action": action + 0.0,
            "joint_vel": joint_vel + 0.0,
            "air": (air + CONTROL_DT) * xp.astype(~touches, air.dtype),
            "strides": moving * xp.sum((air - _STRIDE) * landed, axis=1),
            "change": xp.sum((action - memory["action"]) ** 2, axis=1),
            "acceleration": xp.sum(((joint_vel - memory["joint_vel"]) / CONTROL_DT) ** 2, axis=1),
            "error": memory["error"] + CONTROL_DT / ERROR_TIME * (off - memory["error"]),
        }

    def velocity(self, state: State) -> Any:
        """Of the trunk in its own frame: (N, 3) [m/s]."""
        return _inside(quat_matrix(state.qpos[:, 3:7]), state.qvel[:, :3])

    def reward(self, state: State, action: Any) -> Any:
        """max(0, e(v* - v) + .5 e(w* - w) + Σ (t - .5) - 2 v_z^2 - .05 |w_xy|^2 - 2.5e-7 |q''|^2 - 1e-5 |τ|^2
        - .01 |a - a'|^2 - c)

        e(x) = exp(-|x|^2 / .25) of the velocity in the plane [m/s] and of the turning [rad/s]; t [s] the time in the
        air of a foot that lands, where the command is not to stand; q'' [rad/s^2] and τ [N m] of the joints, τ by the
        servos' law; a' the action before; c how many knees are on the ground. (Table 3 of the paper.)
        """
        xp, memory, spin, velocity = array_namespace(action), state.memory, state.qvel[:, 3:6], self.velocity(state)
        command = memory["command"]
        along = xp.exp(-xp.sum((command[:, :2] - velocity[:, :2]) ** 2, axis=1) / TRACKING)
        turn = xp.exp(-((command[:, 2] - spin[:, 2]) ** 2) / TRACKING)
        knees = xp.sum(xp.astype(knee_heights(state.qpos) <= _KNEE, along.dtype), axis=1)
        unsteady = 2.0 * velocity[:, 2] ** 2 + 0.05 * xp.sum(spin[:, :2] ** 2, axis=1)
        effort = 2.5e-7 * memory["acceleration"] + 1e-5 * xp.sum(torques(state) ** 2, axis=1) + 0.01 * memory["change"]
        total = along + 0.5 * turn + memory["strides"] - unsteady - effort - knees
        return xp.maximum(total, 0.0 * total)

    def terminated(self, state: State) -> Any:
        """The robot has fallen: its trunk is low, or far from upright."""
        x, y = state.qpos[:, 4], state.qpos[:, 5]
        upright = 1.0 - 2.0 * (x * x + y * y)
        return (state.qpos[:, 2] < FALLEN_HEIGHT) | (upright < FALLEN_UPRIGHT)

    def success(self, state: State) -> Any:
        """It stands, and has lately followed its command: the mean error of the velocity is SUCCESS_ERROR at most."""
        return (state.memory["error"] <= SUCCESS_ERROR) & ~self.terminated(state)


def sample_command(u: Any) -> Any:
    """Velocities to follow (n, 3), from uniform numbers in (0, 1) of the same shape; slow ones are to stand."""
    xp, command = array_namespace(u), uniform_in(u, COMMAND_LOW, COMMAND_HIGH)
    moves = xp.astype(_length(command[:, :2]) >= STILL, u.dtype)[:, None]
    return xp.concat([moves * command[:, :2], command[:, 2:]], axis=1)


def torques(state: State) -> Any:
    """What the servos exert by their law, without the gains' randomization: (N, 12) [N m]."""
    xp, most = array_namespace(state.qpos), constant(TORQUE, state.qpos)
    wanted = GAIN * (state.target["legs"] - state.qpos[:, 7:]) - GAIN_DAMPING * state.qvel[:, 6:]
    return xp.minimum(xp.maximum(wanted, -most), most)


def foot_heights(qpos: Any) -> Any:
    """Of the feet's middles above the ground: (N, 4) [m]."""
    xp = array_namespace(qpos)
    thigh, knee = qpos[:, 8::3], qpos[:, 9::3]
    return _heights(qpos, -LINK * (xp.sin(thigh) + xp.sin(thigh + knee)),
                    -LINK * (xp.cos(thigh) + xp.cos(thigh + knee)))  # fmt: skip


def knee_heights(qpos: Any) -> Any:
    """Of the knees' middles above the ground: (N, 4) [m]."""
    xp, thigh = array_namespace(qpos), qpos[:, 8::3]
    return _heights(qpos, -LINK * xp.sin(thigh), -LINK * xp.cos(thigh))


def _heights(qpos: Any, x: Any, z: Any) -> Any:
    """Heights (N, 4) of points of the legs whose x and z (N, 4) are given in the plane that the thigh turns in."""
    xp, hip, out = array_namespace(qpos), qpos[:, 7::3], constant(OUT, qpos)
    cos, sin = xp.cos(hip), xp.sin(hip)
    point = xp.stack([x, out * cos - z * sin, out * sin + z * cos], axis=2) + constant(HIPS, qpos)  # in the trunk
    upward = quat_matrix(qpos[:, 3:7])[:, 2]
    return qpos[:, 2:3] + xp.sum(upward[:, None, :] * point, axis=2)


def _inside(rotation: Any, vector: Any) -> Any:
    """Vectors (N, 3) of the world in the frame whose rotation (N, 3, 3) is given."""
    return array_namespace(vector).sum(rotation * vector[:, :, None], axis=1)


def _length(vector: Any) -> Any:
    xp = array_namespace(vector)
    return xp.sqrt(xp.sum(vector * vector, axis=-1))
