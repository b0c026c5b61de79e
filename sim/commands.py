"""Commands: from one action a control period to one actuator command a physics step, late by the latency.

joint_pos terms go through the same `joint_pos_target` and `shape_command` as on the arm, `control` terms are
held. The delay line works at the resolution of physics: a world with a latency of d steps sees, at substep t,
the command of substep t - d.

Legend: N worlds, n of them, S substeps of a control period, D longest delay in substeps, U actuators.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from ..action import action_slices, control_value, joint_pos_target, shape_command
from ..errors import SpecError, unknown_name
from ..spec import ActionTerm, Spec
from .dynamics import joint_ids
from .rows import replaced


@dataclass
class _Servo:
    """A joint_pos term: its place in the action, in qpos and among the actuators, and its path so far."""

    term: ActionTerm
    columns: slice
    address: np.ndarray  # qpos columns
    actuators: np.ndarray
    max_velocity: np.ndarray
    max_acceleration: np.ndarray
    position: np.ndarray  # (N, joints) the command on its way to the target
    velocity: np.ndarray  # (N, joints)


@dataclass
class _Control:
    """A control term, with `control_value` as one multiplication and one addition."""

    columns: slice
    actuators: np.ndarray | slice  # a slice where it drives all of them in the model's order
    middle: np.ndarray
    half: np.ndarray


class Commands:
    """The command path of N worlds."""

    def __init__(self, spec: Spec, model: mujoco.MjModel, num_envs: int, num_substeps: int, longest_delay: int):
        self._dt = float(model.opt.timestep)
        self._substeps, self._delay = num_substeps, longest_delay
        self._servos: list[_Servo] = []
        self._controls: list[_Control] = []
        columns = action_slices(spec)
        for term in spec.actions:
            actuators = _actuators(model, term)
            if term.kind == "control":
                middle, one = control_value(term, np.zeros(term.size)), control_value(term, np.ones(term.size))
                whole = np.array_equal(actuators, np.arange(model.nu))
                self._controls.append(_Control(columns[term.name], slice(None) if whole else actuators,
                                               middle, one - middle))  # fmt: skip
                continue
            address = model.jnt_qposadr[joint_ids(model, term.joints)]
            zeros = np.zeros((num_envs, len(term.joints)))
            self._servos.append(_Servo(term, columns[term.name], address, actuators, np.array(term.max_velocity),
                                       np.array(term.max_acceleration), zeros, zeros.copy()))  # fmt: skip
        _check_all_driven(spec, model)
        self.target: dict[str, np.ndarray] = {s.term.name: s.position.copy() for s in self._servos}
        self._fresh = np.zeros((num_envs, num_substeps, model.nu))
        self._history = np.zeros((num_envs, longest_delay, model.nu))  # oldest first
        self._rows = np.arange(num_envs)[:, None]
        self._when = longest_delay + np.arange(num_substeps)

    def reset(self, worlds: np.ndarray, qpos: np.ndarray) -> np.ndarray:
        """Start at rest at the measured positions qpos (n, nq), as the arm's control process does.

        Gives the commands (n, U) that were in force until now.
        """
        rest = np.zeros((len(worlds), self._fresh.shape[-1]))
        for servo in self._servos:
            here = qpos[:, servo.address]
            self.target[servo.term.name] = replaced(self.target[servo.term.name], worlds, here)
            servo.position = replaced(servo.position, worlds, here)
            servo.velocity = replaced(servo.velocity, worlds, 0.0)
            rest[:, servo.actuators] = here
        for control in self._controls:
            rest[:, control.actuators] = control.middle
        self._history[worlds] = rest[:, None]
        return rest

    def step(self, action: np.ndarray, measured: np.ndarray, delay: np.ndarray) -> np.ndarray:
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
        line = np.concatenate([self._history, fresh], axis=1)  # (N, D + S, U)
        self._history = line[:, self._substeps :]
        return line[self._rows, self._when - delay[:, None]]  # (N, S, U)

    def _serve(self, servo: _Servo, action: np.ndarray, measured: np.ndarray) -> None:
        term = servo.term
        last = self.target[term.name]
        target = joint_pos_target(term, action[:, servo.columns], measured[:, servo.address], last)
        self.target[term.name] = target
        position, velocity = servo.position, servo.velocity
        for substep in range(self._substeps):
            position, velocity = shape_command(position, velocity, target, servo.max_velocity,
                                               servo.max_acceleration, self._dt)  # fmt: skip
            self._fresh[:, substep, servo.actuators] = position
        servo.position, servo.velocity = position, velocity

    def state_dict(self) -> dict[str, Any]:
        return {
            "target": dict(self.target),
            "position": {s.term.name: s.position for s in self._servos},
            "velocity": {s.term.name: s.velocity for s in self._servos},
            "history": self._history.copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.target = {k: np.array(v) for k, v in state["target"].items()}
        for servo in self._servos:
            servo.position = np.array(state["position"][servo.term.name])
            servo.velocity = np.array(state["velocity"][servo.term.name])
        self._history = np.array(state["history"])


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
