"""Engine: what the CPU engines share: N worlds as rows of numbers, a model each where they differ, containment.

The state of a world is one row (mjSTATE_FULLPHYSICS: time, qpos, qvel, act). The solver's warm start is zero at
the beginning of every control period, so a row alone restores a world to the bit, whichever thread or MjData steps
it, and results do not depend on the number of threads.

    sim/cpu.py         CpuEngine: mujoco.rollout, for tasks that need positions and velocities alone
    sim/stepping.py    SteppingEngine: mj_step in threads, for tasks that read more of MjData

Legend: N worlds, n of them, S substeps of a control period.
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np

from ..errors import UsageError
from ..machine import cores
from .models import Models

FULL_STATE = int(mujoco.mjtState.mjSTATE_FULLPHYSICS)
LARGEST = 1e6  # no joint position [rad, m] or velocity of a working simulation is beyond this


class Engine(ABC):
    """N worlds of one model, stepped together."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_substeps: int, threads: int = 0,
                 separate: bool = False):  # fmt: skip
        """Worlds at the model's default position.

        separate: give each world its own model, so that `write` can make them differ.
        threads: 0 takes every core this process may use.
        """
        threads = min(threads or cores(), num_envs)
        if threads < 1:
            raise UsageError(f"an engine needs at least one world and one thread, got {num_envs} and {threads}")
        self.model, self.num_envs, self.num_substeps, self.threads = model, num_envs, num_substeps, threads
        self.models = [copy.copy(model) for _ in range(num_envs)] if separate else [model] * num_envs
        self.separate = separate
        self.extra: Mapping[str, np.ndarray] = {}  # MjData fields that a task reads, each (N, …)
        self._data = [mujoco.MjData(model) for _ in range(threads)]
        self._written = Models(self.models)

        nq, nv = model.nq, model.nv
        self._qpos, self._qvel = slice(1, 1 + nq), slice(1 + nq, 1 + nq + nv)
        self._period = np.full(num_envs, num_substeps * model.opt.timestep)  # (N,) [s]
        self._default = np.empty(mujoco.mj_stateSize(model, FULL_STATE))
        mujoco.mj_getState(model, self._data[0], self._default, FULL_STATE)
        self.state = np.repeat(self._default[None], num_envs, axis=0)  # (N, state); a new array after every step

    @property
    def time(self) -> np.ndarray:
        """(N,) [s] since each world was set."""
        return self.state[:, 0]

    @property
    def qpos(self) -> np.ndarray:
        """(N, nq)"""
        return self.state[:, self._qpos]

    @property
    def qvel(self) -> np.ndarray:
        """(N, nv)"""
        return self.state[:, self._qvel]

    def step(self, ctrl: np.ndarray, wrench: np.ndarray | None = None) -> np.ndarray | None:
        """Take the substeps of one control period under ctrl (N, S, nu); the worlds that broke, or None.

        wrench: force and torque (N, bodies, 6) on every body, in the world's frame, where anything pushes.

        A world breaks where a number stops being finite or grows beyond reason, or where MuJoCo warns. It keeps the
        state from before this step.
        """
        before = self.state
        self.state = after = self._advance(before, ctrl, wrench)  # (N, state)
        elapsed = after[:, 0] - before[:, 0]
        short = np.vdot(self._period, self._period) - np.vdot(elapsed, elapsed)
        # of so many numbers vdot would take BLAS's threads, which then spin for longer than they save
        if np.einsum("ns,ns->", after, after) < LARGEST**2 and abs(short) < 1e-9:  # False for NaN too; all is well
            return None
        fine = (np.abs(after) < LARGEST).all(axis=1) & (np.abs(elapsed - self._period) < 1e-6)
        if fine.all():
            return None
        bad = np.flatnonzero(~fine)
        after[bad] = before[bad]
        return bad

    @abstractmethod
    def _advance(self, before: np.ndarray, ctrl: np.ndarray, wrench: np.ndarray | None) -> np.ndarray:
        """Rows (N, state) after one control period, as a new array; the time shows where MuJoCo warned."""
        ...

    def set_state(self, worlds: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Place worlds (n,) at qpos (n, nq), qvel (n, nv), time zero, and default actuator states."""
        self.state[worlds] = self._default
        self.state[worlds, self._qpos] = qpos
        self.state[worlds, self._qvel] = qvel

    def kick(self, change: np.ndarray) -> None:
        """Change the velocities of all worlds by (N, nv) at once; what was handed out before stays as it was."""
        self.state = self.state.copy()
        self.state[:, self._qvel] += change

    def write(self, fields: Mapping[str, np.ndarray], worlds: np.ndarray,
              wanted: Collection[str] | None = None) -> None:  # fmt: skip
        """Set model fields, or options "opt.x", to values (n, …) in the given worlds; by default all that are there.

        A world with another time step takes as many steps as the others, so its control period is longer or shorter
        than the commands' clock says.
        """
        if not self.separate:
            raise UsageError(f"cannot write {', '.join(fields)}: the worlds share one model; build the engine with "
                             "separate=True")  # fmt: skip
        self._written.give(fields, worlds, wanted)
        if "opt.timestep" in fields:
            self._period[worlds] = self.num_substeps * fields["opt.timestep"]

    def state_dict(self) -> dict[str, Any]:
        return {"state": self.state.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        rows = np.asarray(state["state"], np.float64)
        if rows.shape != self.state.shape:
            raise UsageError(f"the saved worlds have shape {rows.shape}, this engine {self.state.shape}: "
                             "resume with the same task and number of worlds")  # fmt: skip
        self.state = rows.copy()

    @abstractmethod
    def close(self) -> None:
        """Stop the threads."""
        ...
