"""What can vary: every `what` of a randomization term, with its unit, its target and the values that make sense.

What a number means in a MuJoCo model stands in sim/physics_terms.py.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

_ALL, _SET = ("scale", "add", "set"), ("set",)
WHEN = ("start", "reset", "interval")


@dataclass(frozen=True)
class What:
    """One thing that can vary: what it is attached to, its unit, and which values make sense."""

    family: str  # physics | sensing | actuation | disturbance | appearance
    target: str  # joint | body | actuator | geom | place (a site or body) | observation | light | camera, or ""
    unit: str
    operations: tuple[str, ...] = _ALL
    positive: bool = False  # a value that is set or scaled must stay above zero
    nonnegative: bool = False
    numbers: int = 1  # for each target; 0 where one number is for all of them
    most: float = math.inf  # the highest value
    bounded: bool = False  # a longest value must be known beforehand
    when: tuple[str, ...] = WHEN
    compiled: bool = True  # physics: a model that is compiled already can take it
    lasts: bool = False  # for a duration


WHATS: dict[str, What] = {
    # physics: fields of the model, computed from their defaults
    "link_mass": What("physics", "body", "kg", positive=True),  # inertia scales along
    "body_com": What("physics", "body", "m", ("add",), numbers=3),  # centre of mass, in the body's frame
    "payload": What("physics", "place", "kg", _SET, nonnegative=True, compiled=False),  # a ball at a site or body
    "joint_friction": What("physics", "joint", "N m", nonnegative=True),  # dry friction
    "joint_damping": What("physics", "joint", "N m s/rad", nonnegative=True),
    "joint_armature": What("physics", "joint", "kg m^2", nonnegative=True),
    "joint_stiffness": What("physics", "joint", "N m/rad", nonnegative=True),  # of the joint's own spring
    "joint_limit": What("physics", "joint", "rad", ("scale", "add"), positive=True, numbers=2),  # each end outwards
    "geom_friction": What("physics", "geom", "1", nonnegative=True),  # the sliding coefficient
    "geom_size": What(
        "physics", "geom", "1", ("scale",), positive=True, when=WHEN[:2]
    ),  # a primitive's, at constant mass
    "actuator_gain": What("physics", "actuator", "N m/rad", positive=True),  # kp, and the bias that belongs to it
    "actuator_damping": What("physics", "actuator", "N m s/rad", nonnegative=True),  # kv
    "motor_strength": What("physics", "actuator", "1", ("scale",), positive=True),  # force limits
    "gravity": What("physics", "", "m/s^2", ("scale", "add"), numbers=3),
    "timestep": What("physics", "", "s", ("scale",), positive=True),  # at the same number of physics steps
    # sensing: what is reported of a true state
    "joint_offset": What("sensing", "joint", "rad", _SET),  # true minus reported angle, of readings and commands
    "joint_pos_noise": What("sensing", "joint", "rad", _SET, nonnegative=True),  # deviation of white noise
    "joint_pos_bias": What("sensing", "joint", "rad", _SET),  # constant over an episode
    "joint_vel_noise": What("sensing", "joint", "rad/s", _SET, nonnegative=True),
    "joint_delay": What("sensing", "joint", "s", _SET, nonnegative=True, numbers=0, bounded=True),
    "joint_dropout": What("sensing", "joint", "1", _SET, nonnegative=True, numbers=0, most=1.0),  # chance of each step
    "obs_noise": What("sensing", "observation", "its own", _SET, nonnegative=True),
    "obs_bias": What("sensing", "observation", "its own", _SET),
    "obs_delay": What("sensing", "observation", "s", _SET, nonnegative=True, numbers=0, bounded=True),
    "obs_dropout": What("sensing", "observation", "1", _SET, nonnegative=True, numbers=0, most=1.0),
    # actuation: what becomes of an action or a command
    "action_latency": What("actuation", "", "s", _SET, nonnegative=True, bounded=True),
    "action_noise": What("actuation", "", "1", _SET, nonnegative=True),  # deviation, where actions lie in [-1, 1]
    "action_hold": What("actuation", "", "1", _SET, nonnegative=True, most=1.0),  # chance that a step is skipped
    "backlash": What("actuation", "actuator", "rad", _SET, nonnegative=True),  # width of the slack
    # disturbances: what the world does to the robot now and then
    "push_force": What("disturbance", "body", "N", _SET, nonnegative=True, when=("interval",), lasts=True),
    "push_torque": What("disturbance", "body", "N m", _SET, nonnegative=True, when=("interval",), lasts=True),
    "kick_velocity": What("disturbance", "body", "m/s", _SET, nonnegative=True, when=("interval",)),  # of a free body
    "kick_spin": What("disturbance", "body", "rad/s", _SET, nonnegative=True, when=("interval",)),
    "kick_joint": What("disturbance", "joint", "rad/s", _SET, when=("interval",)),
    # appearance: what cameras see, and physics does not
    "geom_color": What("appearance", "geom", "1", numbers=3, nonnegative=True, when=WHEN[:2]),  # red, green, blue
    "geom_pattern": What(
        "appearance", "geom", "1", _SET, nonnegative=True, most=7.0, when=WHEN[:2]
    ),  # a number of sim/patterns.py
    "light_pos": What("appearance", "light", "m", ("add",), numbers=3, when=WHEN[:2]),
    "light_dir": What("appearance", "light", "1", ("add",), numbers=3, when=WHEN[:2]),
    "light_diffuse": What("appearance", "light", "1", numbers=3, nonnegative=True, when=WHEN[:2]),
    "camera_pos": What("appearance", "camera", "m", ("add",), numbers=3, when=WHEN[:2]),
    "camera_rot": What("appearance", "camera", "rad", ("add",), numbers=3, when=WHEN[:2]),  # about its own axes
    "camera_fovy": What("appearance", "camera", "deg", ("scale", "add"), positive=True, when=WHEN[:2]),
    "distractor": What("appearance", "", "m", _SET, positive=True, when=WHEN[:2]),  # half the size of each
}
