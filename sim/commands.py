"""Commands: from one action a control period to one actuator command a physics step, late by the latency.

joint_pos terms go through the same `joint_pos_target` and `shape_command` as on the arm, and where the arm feeds its
command's velocity forward, so do its servos here (lead.py); `control` terms are held. The delay line works at the
resolution of physics: a world with a latency of d steps sees, at substep t, the command of substep t - d.

Legend: N worlds, n of them, S substeps of a control period, D longest delay in substeps, U actuators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from ..action import action_slices, control_value, joint_pos_target, shape_command
from ..errors import SpecError, unknown_name
from ..robots import RobotSpec
from ..spec import ActionTerm, Spec
from .dynamics import joint_ids
from .lead import lead
from .rows import columns, copied, on_device, replaced, restored, space, written, zeros

if TYPE_CHECKING:
    import torch


@dataclass
class _Servo:
    """A joint_pos term: its place in the action, in qpos and among the actuators, and its path so far."""

    term: ActionTerm
    columns: slice
    address: Any  # qpos columns
    actuators: Any
    lead: Any  # (joints,) [s] lead.py
    max_velocity: Any
    max_acceleration: Any
    position: Any  # (N, joints) the command on its way to the target
    velocity: Any  # (N, joints)


@dataclass
class _Control:
    """A control term, with `control_value` as one multiplication and one addition."""

    columns: slice
    actuators: Any
    middle: Any  # (size,)
    half: Any


class Commands:
    """The command path of N worlds."""

    def __init__(self, spec: Spec, model: mujoco.MjModel, num_envs: int, num_substeps: int, longest_delay: int,
                 device: torch.device | None = None, robot: RobotSpec | None = None):  # fmt: skip
        self._dt = float(model.opt.timestep)
        self._substeps, self._delay, self._device = num_substeps, longest_delay, device
        self._servos: list[_Servo] = []
        self._controls: list[_Control] = []
        self._in_one_launch = device is not None and _kernels_serve(device)
        slices = action_slices(spec)
        for term in spec.actions:
            places = _actuators(model, term)
            actuators = on_device(places, device) if self._in_one_launch else columns(places, device)
            if term.kind == "control":
                middle, one = control_value(term, np.zeros(term.size)), control_value(term, np.ones(term.size))
                self._controls.append(_Control(slices[term.name], actuators, on_device(middle, device),
                                               on_device(one - middle, device)))  # fmt: skip
                continue
            address = columns(model.jnt_qposadr[joint_ids(model, term.joints)], device)
            limits = (on_device(np.array(x), device) for x in (term.max_velocity, term.max_acceleration))
            ahead = on_device(lead(robot, model, places), device)
            still = (zeros((num_envs, len(term.joints)), device) for _ in range(2))
            self._servos.append(_Servo(term, slices[term.name], address, actuators, ahead, *limits, *still))
        _check_all_driven(spec, model)
        self.target: dict[str, Any] = {s.term.name: 1.0 * s.position for s in self._servos}
        self._fresh = zeros((num_envs, num_substeps, model.nu), device)
        self._history = zeros((num_envs, longest_delay, model.nu), device)  # oldest first
        self._rows = on_device(np.arange(num_envs)[:, None], device)
        self._when = on_device(longest_delay + np.arange(num_substeps), device)

    def reset(self, worlds: Any, qpos: Any) -> Any:
        """Start at rest at the measured positions qpos (n, nq), as the arm's control process does.

        Gives the commands (n, U) that were in force until now.
        """
        rest = zeros((len(worlds), self._fresh.shape[-1]), self._device)
        for servo in self._servos:
            here = qpos[:, servo.address]
            self.target[servo.term.name] = replaced(self.target[servo.term.name], worlds, here)
            servo.position = replaced(servo.position, worlds, here)
            servo.velocity = replaced(servo.velocity, worlds, 0.0)
            rest[:, servo.actuators] = here
        for control in self._controls:
            rest[:, control.actuators] = control.middle
        self._history = written(self._history, worlds, rest[:, None])
        return rest

    def step(self, action: Any, measured: Any, delay: Any) -> Any:
        """Commands (N, S, U) of one control period for action (N, A), measured qpos (N, nq) and delay (N,).

        The array is the delay line's own: it is valid until the next step.
        """
        fresh = self._fresh
        for control in self._controls:
            value = control.middle + control.half * action[:, control.columns]
            fresh[:, :, control.actuators] = value[:, None]
        for servo in self._servos:
            self._serve(servo, action, measured)
        if not self._delay:
            return fresh
        line = space(fresh).concat([self._history, fresh], axis=1)  # (N, D + S, U)
        self._history = line[:, self._substeps :]
        return line[self._rows, self._when - delay[:, None]]  # (N, S, U)

    def _serve(self, servo: _Servo, action: Any, measured: Any) -> None:
        term = servo.term
        last = self.target[term.name]
        target = joint_pos_target(term, action[:, servo.columns], measured[:, servo.address], last)
        self.target[term.name] = target
        position, velocity = servo.position, servo.velocity
        if self._in_one_launch:
            from .warp_commands import shaped

            servo.position, servo.velocity = shaped(position, velocity, target, servo.max_velocity,
                                                    servo.max_acceleration, servo.lead, self._dt, self._fresh,
                                                    servo.actuators)  # fmt: skip
            return
        for substep in range(self._substeps):
            position, velocity = shape_command(position, velocity, target, servo.max_velocity,
                                               servo.max_acceleration, self._dt)  # fmt: skip
            self._fresh[:, substep, servo.actuators] = position + servo.lead * velocity
        servo.position, servo.velocity = position, velocity

    def state_dict(self) -> dict[str, Any]:
        return {
            "target": dict(self.target),
            "position": {s.term.name: s.position for s in self._servos},
            "velocity": {s.term.name: s.velocity for s in self._servos},
            "history": copied(self._history),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.target = {name: restored(state["target"][name], mine) for name, mine in self.target.items()}
        for servo in self._servos:
            servo.position = restored(state["position"][servo.term.name], servo.position)
            servo.velocity = restored(state["velocity"][servo.term.name], servo.velocity)
        self._history = restored(state["history"], self._history)


def _kernels_serve(device: torch.device) -> bool:
    import torch

    from ..kernels import serve

    return serve(device, torch.get_default_dtype())


def _actuators(model: mujoco.MjModel, term: ActionTerm) -> np.ndarray:
    """Actuators of a term: those named like its joints, else those acting on them, else (no joints) all."""
    if term.kind not in ("joint_pos", "control"):
        raise SpecError(f"action {term.name!r}: a simulated task takes joint_pos and control terms, not {term.kind!r}")
    if not term.joints:
        if term.size != model.nu:
            raise SpecError(f"action {term.name!r} has {term.size} numbers for {model.nu} actuators; "
                            "name the joints or actuators it drives")  # fmt: skip
        return np.arange(model.nu)
    names = [model.actuator(i).name for i in range(model.nu)]
    acts_on = {model.joint(model.actuator_trnid[i, 0]).name: i for i in range(model.nu)
               if model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT}  # fmt: skip
    found = []
    for joint in term.joints:
        if joint not in names and joint not in acts_on:
            raise unknown_name(f"actuator or driven joint in action {term.name!r}:", joint, {*names, *acts_on})
        found.append(names.index(joint) if joint in names else acts_on[joint])
    return np.array(found)


def _check_all_driven(spec: Spec, model: mujoco.MjModel) -> None:
    driven = [int(i) for term in spec.actions for i in _actuators(model, term)]
    for i in range(model.nu):
        if driven.count(i) != 1:
            raise SpecError(f"actuator {model.actuator(i).name!r} is driven by {driven.count(i)} action terms; "
                            "exactly one must")  # fmt: skip
