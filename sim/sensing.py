"""Sensors: what the encoders report of the true joint state: late, offset, noisy, and now and then not at all.

    reported = truth of `joint_delay` ago - joint_offset + joint_pos_bias + noise, or what was reported a step before

Everything that is computed from measured joints (kinematics, errors, the reference of a command) sees the same report.

Legend: N worlds, n of them, k joints of a term.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .delay_line import DelayLine
from .dynamics import Dynamics
from .white import White

Joints = tuple[np.ndarray, np.ndarray]  # qpos (N, nq) and qvel (N, nv)
Params = Mapping[str, np.ndarray]


class Sensors:
    """Measured positions and velocities of N worlds."""

    def __init__(self, dynamics: Dynamics, num_envs: int, white: White, control_dt: float):
        self._dt = control_dt
        terms = dynamics.joint_sensing
        sign = {"joint_pos_bias": 1.0, "joint_offset": -1.0}
        self._shifts = [(b.term.name, _columns(b.qpos), sign[b.term.what]) for b in terms if b.term.what in sign]
        self._noise = [(b.term.name, _columns(b.qpos if (pos := b.term.what == "joint_pos_noise") else b.qvel), pos,
                        white.normal(f"randomization/{b.term.name}/white", len(b.qpos)))
                       for b in terms if b.term.what in ("joint_pos_noise", "joint_vel_noise")]  # fmt: skip
        self._late = [(b, DelayLine(num_envs, 2 * len(b.qpos), b.term.support[1] / control_dt, interpolate=True))
                      for b in terms if b.term.what == "joint_delay"]  # fmt: skip
        self._dropout = [(b, white.uniform(f"randomization/{b.term.name}/white", 1))
                         for b in terms if b.term.what == "joint_dropout"]  # fmt: skip
        self.perfect = not terms

    def begin(self, worlds: np.ndarray, qpos: np.ndarray, qvel: np.ndarray, params: Params) -> Joints:
        """Measured (qpos, qvel) of worlds (n,) whose episode begins at qpos (n, nq), qvel (n, nv); params of all N."""
        for bound, line in self._late:
            line.begin(worlds, np.concatenate([qpos[:, bound.qpos], qvel[:, bound.qvel]], axis=1))
        return self._disturbed(qpos.copy(), qvel.copy(), np.zeros(len(worlds), np.int64), params, worlds)

    def measure(self, qpos: np.ndarray, qvel: np.ndarray, steps: np.ndarray, params: Params, last: Joints) -> Joints:
        """Measured (qpos, qvel) of all worlds at control step `steps` (N,); `last` was measured a step before."""
        qpos, qvel = qpos.copy(), qvel.copy()
        for bound, line in self._late:
            line.push(np.concatenate([qpos[:, bound.qpos], qvel[:, bound.qvel]], axis=1))
            late = line.read(params[bound.term.name][:, 0] / self._dt)
            qpos[:, bound.qpos], qvel[:, bound.qvel] = np.split(late, 2, axis=1)
        self._disturbed(qpos, qvel, steps, params, None)
        for bound, chance in self._dropout:
            held = np.flatnonzero(chance.at(steps)[:, 0] < params[bound.term.name][:, 0])[:, None]
            qpos[held, bound.qpos] = last[0][held, bound.qpos]
            qvel[held, bound.qvel] = last[1][held, bound.qvel]
        return qpos, qvel

    def _disturbed(self, qpos: np.ndarray, qvel: np.ndarray, steps: np.ndarray, params: Params,
                   worlds: np.ndarray | None) -> Joints:  # fmt: skip
        """The same arrays, shifted and with noise."""
        for name, address, sign in self._shifts:
            qpos[:, address] += sign * (params[name] if worlds is None else params[name][worlds])
        for name, address, is_pos, white in self._noise:
            std = params[name] if worlds is None else params[name][worlds]
            (qpos if is_pos else qvel)[:, address] += white.at(steps, worlds) * std
        return qpos, qvel

    def state_dict(self) -> dict[str, Any]:
        return {bound.term.name: line.state_dict() for bound, line in self._late}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for bound, line in self._late:
            line.load_state_dict(state[bound.term.name])


def _columns(address: np.ndarray) -> np.ndarray | slice:
    """The same columns as a slice where they lie side by side, which numpy reads and writes faster."""
    first, count = int(address[0]), len(address)
    return slice(first, first + count) if np.array_equal(address, first + np.arange(count)) else address
