"""Replays: what many candidate models of one arm do under commands that a real one was given.

A command acts from the moment it was sent plus the latency. Over a physics step of h the candidate is driven by the
mean of what acts during it,

    ctrl(t) = (U(t + h - latency) - U(t - latency)) / h,     U the integral of the commands over time,

so that its motion changes smoothly with the latency, which an optimizer needs, and not in whole steps. Where the arm
feeds its command's velocity forward (lead.py), each command leads by the velocity that it came with.

Legend: K candidates, R rows of a recording, T physics steps, n joints.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from ..errors import UsageError
from ..robots import RobotSpec
from .arm_file import hold_gripper, read_arm
from .cpu import compile_physics
from .dynamics import Dynamics
from .engine import FULL_STATE
from .lead import lead
from .models import Models
from .physics_terms import prepare
from .randomization import Randomization
from .whats import WHATS

SETTLE = 0.5  # [s] every candidate stands under the first command before the motion begins
LOST = 1e3  # [rad] the position of a candidate whose physics broke: a bad fit, not an error


@dataclass(frozen=True)
class Motion:
    """One recorded motion, which begins at rest."""

    time: np.ndarray  # (R,) [s] when each row was measured, from 0
    joint_pos: np.ndarray  # (R, n) [rad] measured then
    sent_at: np.ndarray  # (C,) [s] when each command was sent, on the same clock
    command: np.ndarray  # (C, n) [rad]


class Candidates:
    """Models of one arm that differ in the terms of a randomization."""

    def __init__(self, robot: RobotSpec, terms: Randomization, mjcf: str | None = None, physics_dt: float = 0.002,
                 threads: int = 0):  # fmt: skip
        """terms: what differs: physics and `action_latency`.

        Raises:
            UsageError: a term that a motion of the joints cannot tell, or that does not fit the model.
        """
        for term in terms.terms:
            if WHATS[term.what].family != "physics" and term.what != "action_latency":
                raise UsageError(f"term {term.name!r}: {term.what} is not part of an arm's motion; what can be "
                                 "identified is physics and action_latency")  # fmt: skip
        description = read_arm(robot, mjcf)
        hold_gripper(robot, description)
        description.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_CONTACT)  # an arm in the air
        description.option.timestep = physics_dt
        prepare(description, terms)
        self.robot, self.physics_dt = robot, physics_dt
        self.model = compile_physics(description)
        self.dynamics = Dynamics(self.model, terms)
        joints = [self.model.joint(name) for name in robot.joints]
        self._qpos = np.array([int(j.qposadr[0]) for j in joints])
        self._ctrl = np.array([self.model.actuator(name).id for name in robot.joints])
        self._data = [mujoco.MjData(self.model) for _ in range(max(1, threads))]
        self._pool = Rollout(nthread=len(self._data) if len(self._data) > 1 else 0)
        self._rest = mujoco.MjData(self.model)

    def replay(self, motion: Motion, params: Mapping[str, np.ndarray]) -> np.ndarray:
        """Joint positions (K, R, n) [rad] at the motion's rows; params: term -> (K, k)."""
        count = len(next(iter(params.values())))
        dt, settle = self.physics_dt, round(SETTLE / self.physics_dt)
        steps = settle + int(np.ceil(motion.time[-1] / dt - 1e-9)) + 1
        late = sum((params[t.name][:, 0] for t in self.dynamics.latency), np.zeros(count))
        ctrl = np.repeat(self._rest.ctrl[None, None], count, axis=0).repeat(steps, axis=1)  # (K, T, nu)
        ahead = lead(self.robot, self.model, self._ctrl) * _velocity(motion)
        leading = replace(motion, command=motion.command + ahead)
        for k in range(count):
            ctrl[k][:, self._ctrl] = _driven(leading, late[k], dt, steps, settle)
        state = np.empty(mujoco.mj_stateSize(self.model, FULL_STATE))
        self._rest.qpos[self._qpos] = motion.command[0]
        mujoco.mj_getState(self.model, self._rest, state, FULL_STATE)
        states, _ = self._pool.rollout(self._models(params, count), self._data, np.repeat(state[None], count, axis=0),
                                       ctrl, control_spec=int(mujoco.mjtState.mjSTATE_CTRL), nstep=steps)  # fmt: skip
        qpos = np.asarray(states)[:, settle - 1 :, 1 + self._qpos]  # (K, T - settle + 1, n), from time 0 on
        qpos = np.where(np.isfinite(qpos), np.clip(qpos, -LOST, LOST), LOST)
        place = motion.time / dt
        before = np.minimum(place.astype(np.int64), qpos.shape[1] - 2)
        share = (place - before)[None, :, None]
        return (1.0 - share) * qpos[:, before] + share * qpos[:, before + 1]

    def _models(self, params: Mapping[str, np.ndarray], count: int) -> list[mujoco.MjModel]:
        models = [copy.copy(self.model) for _ in range(count)]
        Models(models).give(self.dynamics.fields(params))
        return models

    def close(self) -> None:
        self._pool.close()


def _velocity(motion: Motion) -> np.ndarray:
    """The velocity (C, n) [rad/s] that each command came with: its change over the time since the one before."""
    between = np.diff(motion.sent_at)[:, None]
    return np.vstack([np.zeros(motion.command.shape[1]), np.diff(motion.command, axis=0) / between])


def _driven(motion: Motion, latency: float, dt: float, steps: int, settle: int) -> np.ndarray:
    """The mean command (T, n) of every physics step; the first `settle` of them come before the motion."""
    sent, command = motion.sent_at, motion.command
    integral = np.vstack([np.zeros(command.shape[1]), np.cumsum(command[:-1] * np.diff(sent)[:, None], axis=0)])
    edge = (np.arange(steps + 1) - settle) * dt - latency  # (T + 1,)
    i = np.clip(np.searchsorted(sent, edge, side="right") - 1, 0, len(sent) - 1)
    at_edge = integral[i] + command[i] * (edge - sent[i])[:, None]
    return np.diff(at_edge, axis=0) / dt
