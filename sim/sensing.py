"""Sensors: what the encoders report of the true joint state: late, offset, noisy, and now and then not at all.

    reported = truth of `joint_delay` ago - joint_offset + joint_pos_bias + noise, or what was reported a step before

Everything that is computed from measured joints (kinematics, errors, the reference of a command) sees the same report.

Legend: N worlds, n of them, k joints of a term.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .delay_line import DelayLine
from .dynamics import Dynamics
from .rows import columns, fresh, some, space, zeros
from .white import White

if TYPE_CHECKING:
    import torch

Joints = tuple[Any, Any]  # qpos (N, nq) and qvel (N, nv)
Params = Mapping[str, Any]


class Sensors:
    """Measured positions and velocities of N worlds."""

    def __init__(self, dynamics: Dynamics, num_envs: int, white: White, control_dt: float,
                 device: torch.device | None = None):  # fmt: skip
        self._dt, self._device = control_dt, device
        terms = dynamics.joint_sensing
        self._places = {b.term.name: (columns(b.qpos, device), columns(b.qvel, device)) for b in terms}
        of = {what: [b for b in terms if b.term.what == what] for what in ("joint_delay", "joint_dropout")}
        sign = {"joint_pos_bias": 1.0, "joint_offset": -1.0}
        self._shifts = [(b.term.name, sign[b.term.what]) for b in terms if b.term.what in sign]
        self._noise = [(b.term.name, b.term.what == "joint_pos_noise",
                        white.normal(f"randomization/{b.term.name}/white", len(b.qpos)))
                       for b in terms if b.term.what in ("joint_pos_noise", "joint_vel_noise")]  # fmt: skip
        self._late = {b.term.name: DelayLine(num_envs, 2 * len(b.qpos), b.term.support[1] / control_dt,
                                             interpolate=True, device=device) for b in of["joint_delay"]}  # fmt: skip
        self._dropout = {b.term.name: white.uniform(f"randomization/{b.term.name}/white", 1)
                         for b in of["joint_dropout"]}  # fmt: skip
        self.perfect = not terms

    def begin(self, worlds: Any, qpos: Any, qvel: Any, params: Params) -> Joints:
        """Measured (qpos, qvel) of worlds (n,) whose episode begins at qpos (n, nq), qvel (n, nv); params of all N."""
        for name, line in self._late.items():
            line.begin(worlds, self._beside(name, qpos, qvel))
        steps = zeros((len(worlds),), self._device, "int64")
        return self._disturbed(fresh(qpos), fresh(qvel), steps, params, worlds)

    def measure(self, qpos: Any, qvel: Any, steps: Any, params: Params, last: Joints) -> Joints:
        """Measured (qpos, qvel) of all worlds at control step `steps` (N,); `last` was measured a step before."""
        qpos, qvel = fresh(qpos), fresh(qvel)
        for name, line in self._late.items():
            line.push(self._beside(name, qpos, qvel))
            late = line.read(params[name][:, 0] / self._dt)
            half = late.shape[1] // 2
            at_qpos, at_qvel = self._places[name]
            qpos[:, at_qpos], qvel[:, at_qvel] = late[:, :half], late[:, half:]
        self._disturbed(qpos, qvel, steps, params, None)
        for name, chance in self._dropout.items():
            held, where = chance.at(steps) < params[name], space(qpos).where  # (N, 1)
            for values, before, at in zip((qpos, qvel), last, self._places[name], strict=True):
                values[:, at] = where(held, before[:, at], values[:, at])
        return qpos, qvel

    def _beside(self, name: str, qpos: Any, qvel: Any) -> Any:
        """A term's columns of both, (n, 2 k)."""
        at_qpos, at_qvel = self._places[name]
        return space(qpos).concat([qpos[:, at_qpos], qvel[:, at_qvel]], axis=1)

    def _disturbed(self, qpos: Any, qvel: Any, steps: Any, params: Params, worlds: Any) -> Joints:
        """The same arrays, shifted and with noise."""
        for name, sign in self._shifts:
            qpos[:, self._places[name][0]] += sign * (params[name] if worlds is None else some(params[name], worlds))
        for name, is_pos, white in self._noise:
            std = params[name] if worlds is None else some(params[name], worlds)
            at_qpos, at_qvel = self._places[name]
            if is_pos:
                qpos[:, at_qpos] += white.at(steps, worlds) * std
            else:
                qvel[:, at_qvel] += white.at(steps, worlds) * std
        return qpos, qvel

    def state_dict(self) -> dict[str, Any]:
        return {name: line.state_dict() for name, line in self._late.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, line in self._late.items():
            line.load_state_dict(state[name])
