"""What the supervisor's tests share: a judge of what was sent that shares no code with it, and streams of commands."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np

import poise.real_robot.supervisor as module
from poise.real_robot.supervisor import Supervisor
from poise.robots import FR3

HOME, N, DT = np.array(FR3.home), FR3.num_joints, FR3.servo_dt
V, A = np.array(FR3.velocity), np.array(FR3.acceleration)


class Oracle:
    """Judges what was sent; shares no code with the supervisor: differences, and MuJoCo's own kinematics."""

    def __init__(self, robot=FR3):
        assets = Path(module.__file__).parents[1] / "sim/assets"
        self.model, self.robot = mujoco.MjModel.from_xml_path(str(assets / f"{robot.name}.xml")), robot
        self.data = mujoco.MjData(self.model)

    def judge(self, start, sent) -> list[str]:
        """What is wrong with commands (T, n) that began at a standstill at `start` (n,)."""
        sent, robot = np.asarray(sent), self.robot
        n, dt = robot.num_joints, robot.servo_dt
        if sent.shape[1:] != (n,) or sent.dtype != np.float64 or not np.isfinite(sent).all():
            return ["not finite or not of the shape"]
        path = np.vstack([start, start, start, sent])
        v = np.diff(path, axis=0) / dt
        a = np.diff(v, axis=0) / dt
        j = np.diff(a, axis=0) / dt
        wrong = []
        if (sent < np.array(robot.position_low)).any() or (sent > np.array(robot.position_high)).any():
            wrong.append("position")
        for what, values, limit in (("velocity", v, robot.velocity), ("acceleration", a, robot.acceleration),
                                    ("jerk", j, robot.jerk)):  # fmt: skip
            if (np.abs(values) > np.array(limit) * (1 + 1e-6)).any():
                wrong.append(f"{what} {np.max(np.abs(values) / limit)}")
        if robot.slowing:
            low, high, offset, deceleration = np.array(robot.slowing).T
            left = np.where(v[2:] > 0.0, high - sent, sent - low)
            if (np.abs(v[2:]) > np.maximum(np.sqrt(2.0 * deceleration * left) - offset, 0.0) + 1e-6).any():
                wrong.append("velocity near an end")
        for q in sent:
            self.data.qpos[:n] = q
            mujoco.mj_kinematics(self.model, self.data)
            tool = self.data.site("tool").xpos
            if (tool < robot.workspace_low).any() or (tool > robot.workspace_high).any():
                return [*wrong, f"tool at {tool}"]
        return wrong


def started(q=HOME) -> Supervisor:
    supervisor = Supervisor(FR3)
    supervisor.start(np.array(q), np.array(q))
    return supervisor


def drive(supervisor, commands, now=0.0):
    """Verdicts on a stream of fresh commands, one servo period after the other."""
    return [supervisor.check(np.asarray(c), now + k * DT, now + k * DT) for k, c in enumerate(commands)]
