"""The twin: an arm in MuJoCo behind the Driver protocol, as unlike the training worlds as a real arm is.

It shares the robot's model file with the simulator and nothing else: its own time step and integrator, its own
parameters (model error), a delay of commands in milliseconds, sensor noise. It also judges what arrives, as a
vendor's control box does: `counters()["out_of_limit"]` counts commands beyond the published limits, by code that
the supervisor does not share.

Simulated time: `write` advances the clock by servo_dt and returns; with `realtime` it waits for the wall clock.
MuJoCo is imported when the twin is opened, not before.
"""

from __future__ import annotations

import math
import time
from collections import deque
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import NotConnectedError, UsageError, unknown_name
from ..keyed import Stream
from ..robots import ROBOTS, RobotSpec
from .driver import Reading

ASSETS = Path(__file__).resolve().parent.parent / "sim" / "assets"
PHYSICS_DT = 0.001  # [s] training worlds step 0.005 with implicitfast
SETTLE = 1000  # physics steps under the control box's hold before anybody connects
TOLERANCE = 1e-6  # relative, of the limits that commands are judged by


@dataclass(frozen=True)
class TwinOptions:
    """How this arm differs from the model."""

    latency: float = 0.0  # [s] from `write` to the joints' controllers, in whole milliseconds
    mass: float = 1.0  # factor on every link's mass and inertia
    damping: float = 1.0  # factor on the joints' damping
    friction: float = 1.0  # factor on joint friction and on contact friction
    friction_loss: float = 0.0  # [N m] dry friction added to every joint
    gain: float = 1.0  # factor on the position controllers' gains
    payload: float = 0.0  # [kg] added to the hand
    noise: float = 0.0  # [rad] standard deviation of measured joint positions
    velocity_noise: float = 0.0  # [rad/s] standard deviation of measured joint velocities
    seed: float = 0  # of the noise
    realtime: float = 0  # 1: keep pace with the wall clock


RANGES: dict[str, tuple[float, float]] = {
    "latency": (0.0, 0.5),
    "mass": (0.2, 5.0),
    "damping": (0.0, 20.0),
    "friction": (0.0, 20.0),
    "friction_loss": (0.0, 20.0),
    "gain": (0.1, 5.0),
    "payload": (0.0, 3.0),
    "noise": (0.0, 0.1),
    "velocity_noise": (0.0, 1.0),
    "seed": (0, 2**31 - 1),
    "realtime": (0, 1),
}
WHOLE = ("seed", "realtime")


def options_from(texts: dict[str, str]) -> TwinOptions:
    """The options of an address.

    Raises:
        UsageError: an unknown option, something that is no number, or a number out of range.
    """
    values: dict[str, float] = {}
    for name, text in texts.items():
        if name not in RANGES:
            raise unknown_name("twin option", name, RANGES)
        low, high = RANGES[name]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (name in WHOLE and value != int(value)):
            kind = "a whole number" if name in WHOLE else "a number"
            raise UsageError(f"twin option {name}={text}: expected {kind} between {low:g} and {high:g}")
        values[name] = value
    if (ms := values.get("latency", 0.0) * 1000) and abs(ms - round(ms)) > 1e-6:
        raise UsageError(f"twin option latency={texts['latency']}: expected whole milliseconds, as in latency=0.04")
    return TwinOptions(**values)


class Twin:
    """An emulated arm. Before anybody connects, its control box has held it at home for a while."""

    def __init__(self, robot: RobotSpec, options: TwinOptions | None = None):
        if robot.name not in ROBOTS:
            raise unknown_name("twin", robot.name, ROBOTS)
        self.robot, self.options = robot, options or TwinOptions()
        self.realtime = bool(self.options.realtime)
        self._data: Any = None

    # ---- Driver ------------------------------------------------------------------------------

    def open(self) -> None:
        import mujoco

        self._mujoco, self._model = mujoco, self._build(mujoco)
        self._data = mujoco.MjData(self._model)
        n = self.robot.num_joints
        first = self._model.joint(self.robot.joints[0])
        self._qpos, self._qvel = (slice(int(a), int(a) + n) for a in (first.qposadr[0], first.dofadr[0]))
        actuator = self._model.actuator(self.robot.joints[0]).id
        self._ctrl = slice(actuator, actuator + n)
        home = np.array(self.robot.home)
        self._data.qpos[self._qpos], self._data.ctrl[self._ctrl] = home, home
        mujoco.mj_step(self._model, self._data, nstep=SETTLE)
        per_tick = round(self.robot.servo_dt / PHYSICS_DT)
        ticks, self._late = divmod(round(self.options.latency / PHYSICS_DT), per_tick)
        self._per_tick = per_tick
        self._underway = deque(
            [home] * (ticks + 2), maxlen=ticks + 2
        )  # oldest first; [1] takes over after `late` steps
        self._judge = _Judge(self.robot, home)
        self._ticks, self._due = 0, time.monotonic()
        self._rng = np.random.default_rng(Stream(int(self.options.seed), "twin/noise").integer(0, 0)[0])

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._ticks * self.robot.servo_dt

    def read(self) -> Reading:
        data, o = self._open_data(), self.options
        joint_pos, joint_vel = data.qpos[self._qpos].copy(), data.qvel[self._qvel].copy()
        if o.noise:
            joint_pos += o.noise * self._rng.standard_normal(len(joint_pos))
        if o.velocity_noise:
            joint_vel += o.velocity_noise * self._rng.standard_normal(len(joint_vel))
        stamp = self._ticks * self.robot.servo_dt
        return Reading(self.now(), stamp, joint_pos, joint_vel, self._underway[-1].copy())

    def write(self, joint_pos_target: np.ndarray) -> None:
        data = self._open_data()
        usable = self._judge.arrived(joint_pos_target)
        self._underway.append(np.array(joint_pos_target, np.float64) if usable else self._underway[-1])
        if self._late:
            data.ctrl[self._ctrl] = self._underway[0]
            self._mujoco.mj_step(self._model, data, nstep=self._late)
        data.ctrl[self._ctrl] = self._underway[1]
        self._mujoco.mj_step(self._model, data, nstep=self._per_tick - self._late)
        self._ticks += 1
        if self.realtime:
            self._due = max(self._due + self.robot.servo_dt, time.monotonic() - self.robot.servo_dt)
            time.sleep(max(0.0, self._due - time.monotonic()))

    def brake(self) -> None:
        """The control box's own ramp to standstill, under the acceleration limit from the last command."""
        self._open_data()
        dt = self.robot.servo_dt
        step = np.array(self.robot.acceleration) * dt * (1.0 - 1e-9)
        position, velocity = self._judge.position, self._judge.velocity
        while velocity.any():
            velocity = np.sign(velocity) * np.maximum(np.abs(velocity) - step, 0.0)
            velocity[np.abs(velocity) < 1e-9] = 0.0
            position = position + velocity * dt
            self.write(position)

    def clear_fault(self) -> None:
        """The twin has no fault of its own to release."""

    def truth(self) -> dict[str, np.ndarray]:
        data = self._open_data()
        self._mujoco.mj_kinematics(self._model, data)
        joint_pos, joint_vel = data.qpos[self._qpos].copy(), data.qvel[self._qvel].copy()
        return {"joint_pos": joint_pos, "joint_vel": joint_vel, "tool_pos": data.site("tool").xpos.copy()}

    def counters(self) -> dict[str, int]:
        self._open_data()
        return {"arrived": self._judge.arrivals, "out_of_limit": self._judge.out_of_limit}

    def close(self) -> None:
        if self._data is not None:
            self.brake()
            self._data = None

    # ---- the inside --------------------------------------------------------------------------

    def _open_data(self) -> Any:
        if self._data is None:
            raise NotConnectedError(f"twin:{self.robot.name} is not open; call open() first")
        return self._data

    def _build(self, mujoco: Any) -> Any:
        """The compiled model: the arm over a floor, with this twin's parameters."""
        o = self.options
        spec = mujoco.MjSpec.from_file(str(ASSETS / f"{self.robot.name}.xml"))
        spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 0.1])
        spec.option.timestep, spec.option.integrator = PHYSICS_DT, mujoco.mjtIntegrator.mjINT_IMPLICIT
        model = spec.compile()
        model.body_mass *= o.mass
        model.body_inertia *= o.mass
        model.body_mass[model.body("hand").id] += o.payload
        model.dof_damping *= o.damping
        model.dof_frictionloss[: self.robot.num_joints] += o.friction_loss
        model.dof_frictionloss *= o.friction
        model.geom_friction *= o.friction
        model.actuator_gainprm[:, 0] *= o.gain
        model.actuator_biasprm[:, 1:3] *= o.gain
        mujoco.mj_setConst(model, mujoco.MjData(model))
        return model


class _Judge:
    """Counts commands beyond the published limits, from differences between the commands as they arrive."""

    def __init__(self, robot: RobotSpec, held: np.ndarray):
        self.position, self.velocity = held, np.zeros_like(held)
        self.arrivals = self.out_of_limit = 0
        self._dt = robot.servo_dt
        slack = 1.0 + TOLERANCE
        span = np.subtract(robot.position_high, robot.position_low) * TOLERANCE
        self._low, self._high = robot.position_low - span, robot.position_high + span
        self._fastest, self._hardest = np.multiply(robot.velocity, slack), np.multiply(robot.acceleration, slack)

    def arrived(self, command: Any) -> bool:
        """Judge one command; whether it is something that an arm can follow at all."""
        self.arrivals += 1
        if np.shape(command) != self.position.shape or not np.isfinite(command).all():
            self.out_of_limit += 1
            return False
        velocity = (command - self.position) / self._dt
        acceleration = (velocity - self.velocity) / self._dt
        legal = (
            (np.abs(acceleration) <= self._hardest).all()
            and (np.abs(velocity) <= self._fastest).all()
            and (command >= self._low).all()
            and (command <= self._high).all()
        )
        self.out_of_limit += not legal
        self.position, self.velocity = np.array(command, np.float64), velocity
        return True


assert set(RANGES) == {f.name for f in fields(TwinOptions)}
