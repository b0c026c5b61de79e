"""SteppingEngine: N MuJoCo worlds stepped by `mj_step` in threads, for tasks that read more of MjData than the state.

A thread takes one world after the other: set its row, step its control period, copy the named fields out. mj_step
releases Python's interpreter lock, so threads run side by side. Derived fields (xpos, cvel, …) are left as mj_step
leaves them: they belong to the beginning of the last substep, as in Gymnasium's MuJoCo tasks. What mj_step does not
compute (cacc, cfrc_int, cfrc_ext) is computed after it where a task reads it, from the same moment.

Legend: N worlds, n of them, S substeps of a control period.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import mujoco
import numpy as np

from ..errors import UsageError, unknown_name
from .engine import FULL_STATE, Engine

AFTERWARDS = frozenset({"cacc", "cfrc_int", "cfrc_ext"})  # computed by mj_rnePostConstraint alone
_LARGEST_BLOCK = 8  # worlds that a thread takes at a time: contacts make some worlds slower than others


class SteppingEngine(Engine):
    """Worlds whose MjData fields `reads` are in `extra` after every step; overwritten two steps later."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_substeps: int, threads: int = 0,
                 separate: bool = False, reads: tuple[str, ...] = ()):  # fmt: skip
        super().__init__(model, num_envs, num_substeps, threads, separate)
        self.reads = tuple(reads)
        self._after = bool(AFTERWARDS & set(reads))
        self._threads = [_Thread(data, reads) for data in self._data]
        self._pool = ThreadPoolExecutor(self.threads) if self.threads > 1 else None
        self.extra, self._spare = self._arrays(), self._arrays()  # in turn: fresh memory every step costs page faults
        self._look(np.arange(num_envs))

    def _arrays(self) -> dict[str, np.ndarray]:
        return {name: np.empty((self.num_envs, *view.shape)) for name, view in self._threads[0].views.items()}

    def _advance(self, before: np.ndarray, ctrl: np.ndarray, wrench: np.ndarray | None) -> np.ndarray:
        after, extra = np.empty_like(before), self._spare
        held = (ctrl == ctrl[:, :1]).all(axis=(1, 2)).tolist()  # one command for the whole period: one call of mj_step

        def step(thread: _Thread, worlds: range) -> None:
            data, copies = thread.data, [(extra[name], view) for name, view in thread.views.items()]
            for world in worlds:
                model = self.models[world]
                mujoco.mj_setState(model, data, before[world], FULL_STATE)
                thread.warmstart.fill(0.0)
                if wrench is not None:
                    data.xfrc_applied[:] = wrench[world]
                if held[world]:
                    thread.ctrl[:] = ctrl[world, 0]
                    mujoco.mj_step(model, data, self.num_substeps)
                else:
                    for command in ctrl[world]:
                        thread.ctrl[:] = command
                        mujoco.mj_step(model, data)
                if self._after:
                    mujoco.mj_rnePostConstraint(model, data)
                mujoco.mj_getState(model, data, after[world], FULL_STATE)
                for array, view in copies:
                    array[world] = view

        def block(thread: _Thread, worlds: range) -> None:
            step(thread, worlds)
            if not thread.warned():
                return
            for world in worlds:  # once more, one by one, to know which: nothing of a broken one reaches the next
                step(thread, range(world, world + 1))
                if thread.warned():
                    after[world, 0] = before[world, 0]  # marks it as broken

        self._each(block)
        if wrench is not None:
            for thread in self._threads:
                thread.data.xfrc_applied[:] = 0.0
        self.extra, self._spare = extra, self.extra
        return after

    def step(self, ctrl: np.ndarray, wrench: np.ndarray | None = None) -> np.ndarray | None:
        if (bad := super().step(ctrl, wrench)) is not None:
            for name, values in self.extra.items():
                values[bad] = self._spare[name][bad]  # from before this step
        return bad

    def set_state(self, worlds: np.ndarray, qpos: np.ndarray, qvel: np.ndarray) -> None:
        super().set_state(worlds, qpos, qvel)
        self._look(worlds)

    def _look(self, worlds: np.ndarray) -> None:
        """The fields of worlds as mj_forward gives them, where an episode begins."""
        thread = self._threads[0]
        for world in worlds.tolist():
            mujoco.mj_resetData(self.models[world], thread.data)
            mujoco.mj_setState(self.models[world], thread.data, self.state[world], FULL_STATE)
            mujoco.mj_forward(self.models[world], thread.data)
            for name, view in thread.views.items():
                self.extra[name][world] = view
        mujoco.mj_resetData(self.model, thread.data)

    def _each(self, do: Callable[[_Thread, range], None]) -> None:
        """Call `do` for all worlds, a block at a time, on every thread at once."""
        size = max(1, min(_LARGEST_BLOCK, self.num_envs // (4 * self.threads)))
        blocks = iter([range(i, min(i + size, self.num_envs)) for i in range(0, self.num_envs, size)])

        def work(thread: _Thread) -> None:
            for worlds in blocks:  # the interpreter lock sees to it that nobody gets the same
                do(thread, worlds)

        if self._pool is None:
            work(self._threads[0])
        else:
            list(self._pool.map(work, self._threads))

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "extra": {name: values.copy() for name, values in self.extra.items()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state.get("extra", {}).keys() != self.extra.keys():
            raise UsageError(f"the saved worlds hold the fields {', '.join(state.get('extra', {})) or 'none'}, this "
                             f"engine reads {', '.join(self.extra)}: resume with the same task")  # fmt: skip
        super().load_state_dict(state)
        self.extra = {name: np.array(values) for name, values in state["extra"].items()}

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown()


class _Thread:
    """One thread's MjData with views of what is written and read for every world."""

    def __init__(self, data: mujoco.MjData, reads: tuple[str, ...]):
        self.data, self.views = data, _fields(data, reads)
        self.ctrl, self.warmstart = data.ctrl, data.qacc_warmstart

    def warned(self) -> bool:
        """Whether MuJoCo warned since this was last asked; then everything in the data is made new."""
        if not (warned := bool(self.data.warning.number.any())):
            return False
        mujoco.mj_resetData(self.data.model, self.data)
        return warned


def _fields(data: mujoco.MjData, reads: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Views of the named fields.

    Raises:
        UsageError: MjData has no such array of numbers, with the nearest names.
    """
    views = {}
    for name in reads:
        view = getattr(data, name, None)
        if not _readable(view):
            known = [n for n in dir(data) if not n.startswith("_") and _readable(getattr(data, n, None))]
            raise unknown_name("MjData field in a task's reads:", name, known)
        views[name] = view
    return views


def _readable(view: Any) -> bool:
    """Whether this is an array of numbers of constant size: those of contacts and constraints are empty at first."""
    return isinstance(view, np.ndarray) and view.dtype == np.float64 and view.size > 0
