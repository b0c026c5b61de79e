"""EmulatedArm: an arm in MuJoCo under its own position controllers, as unlike the training worlds as a real arm is.

It shares the robot's model file with the simulator and nothing else: its own time step and integrator, its own
parameters (model error), sensor noise. The twin and every emulator of a vendor's protocol hold one. With `task` it
stands in that task's scene, with what is there to be gripped or pushed, else over a floor.
Legend: n joints; the gripper counts apart; nq, nv numbers of the scene's state, in the task's own order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ...errors import UsageError, unknown_name
from ...keyed import Stream
from ...robots import ROBOTS, RobotSpec
from ...sim.lead import lead
from ...sim.make import load_task
from ...sim.task import Task
from .command_velocity import CommandVelocity

ASSETS = Path(__file__).resolve().parents[2] / "sim" / "assets"
PHYSICS_DT = 0.001  # [s] training worlds step 0.005 with implicitfast
SETTLE = 1000  # physics steps under the control box's hold before anybody connects


@dataclass(frozen=True)
class ArmOptions:
    """How this arm differs from the model."""

    mass: float = 1.0  # factor on every link's mass and inertia
    damping: float = 1.0  # factor on the joints' damping
    friction: float = 1.0  # factor on joint friction and on contact friction
    friction_loss: float = 0.0  # [N m] dry friction added to every joint
    gain: float = 1.0  # factor on the position controllers' gains
    payload: float = 0.0  # [kg] added to the hand
    noise: float = 0.0  # [rad] standard deviation of measured joint positions
    velocity_noise: float = 0.0  # [rad/s] standard deviation of measured joint velocities
    seed: float = 0  # of the noise
    task: str = ""  # whose scene it stands in, as in lift/fr3; empty: over a floor


RANGES: dict[str, tuple[float, float]] = {
    "mass": (0.2, 5.0),
    "damping": (0.0, 20.0),
    "friction": (0.0, 20.0),
    "friction_loss": (0.0, 20.0),
    "gain": (0.1, 5.0),
    "payload": (0.0, 3.0),
    "noise": (0.0, 0.1),
    "velocity_noise": (0.0, 1.0),
    "seed": (0, 2**31 - 1),
}
WHOLE = ("seed", "realtime")
Options = TypeVar("Options", bound=ArmOptions)


def options_from(
    texts: Mapping[str, str], kind: type[Options], ranges: Mapping[str, tuple[float, float]], what: str
) -> Options:
    """Options of an address or a command line as numbers, each inside its range.

    Raises:
        UsageError: an unknown option, something that is no number, or a number out of range.
    """
    values: dict[str, Any] = {}
    for name, text in texts.items():
        if name == "task":
            values[name] = text
            continue
        if name not in ranges:
            raise unknown_name(f"{what} option", name, (*ranges, "task"))
        low, high = ranges[name]
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high or (name in WHOLE and value != int(value)):
            number = "a whole number" if name in WHOLE else "a number"
            raise UsageError(f"{what} option {name}={text}: expected {number} between {low:g} and {high:g}")
        values[name] = value
    return kind(**values)


def task_at(name: str, robot: RobotSpec) -> Task | None:
    """The task whose scene an arm stands in; None for none.

    Raises:
        UsageError: no such task, or another arm's.
    """
    if not name:
        return None
    task = load_task(name)
    if task.spec.robot != robot.name:
        raise UsageError(f"the scene of {name} is for {task.spec.robot or 'no arm'!r}, this is {robot.name!r}")
    return task


def moves_gripper(task: Task | None) -> bool:
    """Whether an arm in that scene has fingers that move: a task that grips nothing makes them rigid."""
    return task is None or any(term.kind == "control" for term in task.spec.actions)


class EmulatedArm:
    """The arm over a floor or in a scene; before anybody connects, its control box has held it at home for a while."""

    def __init__(self, robot: RobotSpec, options: ArmOptions | None = None):
        import mujoco

        if robot.name not in ROBOTS:
            raise unknown_name("emulated arm", robot.name, ROBOTS)
        self.options = options or ArmOptions()
        task = task_at(self.options.task, robot)
        self.robot = robot if moves_gripper(task) else replace(robot, gripper=None)
        self._mujoco, self.model = mujoco, _build(mujoco, robot, self.options, task)
        self._data: Any = mujoco.MjData(self.model)
        n = robot.num_joints
        first = self.model.joint(robot.joints[0])
        self._qpos, self._qvel = (slice(int(a), int(a) + n) for a in (first.qposadr[0], first.dofadr[0]))
        actuator = self.model.actuator(robot.joints[0]).id
        self._ctrl = slice(actuator, actuator + n)
        self._lead = lead(robot, self.model, np.arange(actuator, actuator + n))
        self._data.qpos[self._qpos], self._data.ctrl[self._ctrl] = robot.home, robot.home
        self._stand(np.array(robot.home))
        mujoco.mj_step(self.model, self._data, nstep=SETTLE)
        self._settled = float(self._data.time)
        self._rng = np.random.default_rng(Stream(int(self.options.seed), "twin/noise").integer(0, 0)[0])

    @property
    def time(self) -> float:
        """Seconds of simulated time since it settled."""
        return float(self._data.time) - self._settled

    def command(self, joint_pos_target: np.ndarray) -> None:
        """The pose (n,) [rad] that the joints' controllers follow from now on."""
        self._command = np.array(joint_pos_target)

    def command_gripper(self, target: float) -> None:
        """The gripper's command [its unit], held to its range."""
        gripper = self.robot.gripper
        if gripper is None:
            raise UsageError(f"{self.robot.name} has no gripper")
        low, high = sorted((gripper.closed, gripper.open))
        self._data.ctrl[self.model.actuator(gripper.actuator).id] = min(max(target, low), high)

    def arrange(self, qpos: np.ndarray) -> None:
        """Put everything but the arm and its fingers where a state (nq,) of the scene has it, at rest.

        Raises:
            UsageError: there is no scene, or its state has another length.
        """
        if not self.options.task or qpos.shape != self._data.qpos.shape or not np.isfinite(qpos).all():
            expected = f"{self.model.nq} finite numbers" if self.options.task else "task=lift/fr3 or the like"
            raise UsageError(f"arranging a scene takes {expected}, got {np.shape(qpos)}")
        own = {*self.robot.joints, *(self.robot.gripper.joints if self.robot.gripper else ())}
        for joint in (self.model.joint(i) for i in range(self.model.njnt)):
            if joint.name not in own:
                q, v = int(joint.qposadr[0]), int(joint.dofadr[0])
                free = joint.type[0] == self._mujoco.mjtJoint.mjJNT_FREE
                self._data.qpos[q : q + (7 if free else 1)] = qpos[q : q + (7 if free else 1)]
                self._data.qvel[v : v + (6 if free else 1)] = 0.0
        self._mujoco.mj_forward(self.model, self._data)

    def place(self, joint_pos: np.ndarray, gripper: float | None = None) -> None:
        """Put the arm (n,) [rad], and its gripper, somewhere at once: what a hand does to an arm without torque."""
        self._data.qpos[self._qpos], self._data.qvel[:] = joint_pos, 0.0
        self._stand(np.array(joint_pos))
        if gripper is not None and self.robot.gripper is not None:
            for joint in self.robot.gripper.joints:
                self._data.joint(joint).qpos[0] = gripper
            self._data.ctrl[self.model.actuator(self.robot.gripper.actuator).id] = gripper

    def advance(self, seconds: float) -> None:
        """Let time pass, in whole milliseconds."""
        steps, most = round(seconds / PHYSICS_DT), round(self._velocity.held / PHYSICS_DT)
        while steps > 0:
            ahead = self._lead * self._velocity.at(self._data.time, self._command)
            self._data.ctrl[self._ctrl] = self._command + ahead
            self._mujoco.mj_step(self.model, self._data, nstep=min(steps, most))
            steps -= most

    def _stand(self, joint_pos: np.ndarray) -> None:
        """Follow (n,) [rad] from now on, at a standstill."""
        self._command, self._velocity = joint_pos, CommandVelocity(joint_pos, self.robot.servo_dt)

    def measure(self) -> tuple[np.ndarray, np.ndarray]:
        """Joint positions [rad] and velocities [rad/s] (n,) as the arm's encoders tell them."""
        joint_pos, joint_vel = self.joint_pos, self.joint_vel
        if self.options.noise:
            joint_pos += self.options.noise * self._rng.standard_normal(len(joint_pos))
        if self.options.velocity_noise:
            joint_vel += self.options.velocity_noise * self._rng.standard_normal(len(joint_vel))
        return joint_pos, joint_vel

    # ---- what is true ------------------------------------------------------------------------

    @property
    def joint_pos(self) -> np.ndarray:
        """(n,) [rad]"""
        return self._data.qpos[self._qpos].copy()

    @property
    def joint_vel(self) -> np.ndarray:
        """(n,) [rad/s]"""
        return self._data.qvel[self._qvel].copy()

    @property
    def joint_effort(self) -> np.ndarray:
        """(n,) torques of the joints' controllers, with what the model adds against gravity [N m]"""
        return (self._data.qfrc_actuator + self._data.qfrc_gravcomp)[self._qvel]

    @property
    def tool_pos(self) -> np.ndarray:
        """(3,) [m, base frame]"""
        self._mujoco.mj_kinematics(self.model, self._data)
        return self._data.site("tool").xpos.copy()

    @property
    def gripper_pos(self) -> float:
        """Of the first finger [the gripper's unit]; NaN where there is none."""
        gripper = self.robot.gripper
        return float(self._data.joint(gripper.joints[0]).qpos[0]) if gripper else math.nan

    def truth(self) -> dict[str, np.ndarray]:
        """joint_pos, joint_vel (n,), tool_pos (3,); in a scene its state too, qpos (nq,) and qvel (nv,)."""
        truth = {"joint_pos": self.joint_pos, "joint_vel": self.joint_vel, "tool_pos": self.tool_pos}
        if self.options.task:
            truth |= {"qpos": self._data.qpos.copy(), "qvel": self._data.qvel.copy()}
        return truth


def _build(mujoco: Any, robot: RobotSpec, o: ArmOptions, task: Task | None) -> Any:
    """The compiled model: the arm over a floor or in a task's scene, with these parameters."""
    if task is None:
        spec = mujoco.MjSpec.from_file(str(ASSETS / f"{robot.name}.xml"))
        spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 0.1])
    else:
        spec = task.model()
    spec.option.timestep, spec.option.integrator = PHYSICS_DT, mujoco.mjtIntegrator.mjINT_IMPLICIT
    model = spec.compile()
    root = model.body_rootid[model.joint(robot.joints[0]).bodyid[0]]
    links = model.body_rootid == root  # not what lies on the table
    model.body_mass[links] *= o.mass
    model.body_inertia[links] *= o.mass
    model.body_gravcomp[links] /= o.mass  # a controller carries the weight that it knows of
    hand = model.body("hand").id
    model.body_gravcomp[hand] *= model.body_mass[hand] / (model.body_mass[hand] + o.payload)
    model.body_mass[hand] += o.payload
    own = links[model.dof_bodyid]
    model.dof_damping[own] *= o.damping
    model.dof_frictionloss[: robot.num_joints] += o.friction_loss
    model.dof_frictionloss[own] *= o.friction
    model.geom_friction *= o.friction
    model.actuator_gainprm[:, 0] *= o.gain
    model.actuator_biasprm[:, 1:3] *= o.gain
    mujoco.mj_setConst(model, mujoco.MjData(model))
    return model
