"""CpuEngine: N MuJoCo worlds stepped by `mujoco.rollout`, whose persistent threads are MuJoCo's own.

One call sets every world's row, takes the substeps of one control period and gives the last row back; it gives
nothing else of MjData, so tasks that `read` more are stepped by sim/stepping.py.

Legend: N worlds, S substeps of a control period.
"""

from __future__ import annotations

import mujoco
import numpy as np
from mujoco.rollout import Rollout

from .engine import Engine

_CTRL, _WRENCH = int(mujoco.mjtState.mjSTATE_CTRL), int(mujoco.mjtState.mjSTATE_XFRC_APPLIED)


def compile_physics(spec: mujoco.MjSpec) -> mujoco.MjModel:
    """The model of a fresh spec without its textures, which a copy a world would multiply.

    A number that is not finite stops a world instead of silently resetting it (MuJoCo's autoreset).
    """
    for material in spec.materials:
        for i in range(len(material.textures)):
            material.textures[i] = ""
    for texture in list(spec.textures):
        spec.delete(texture)
    spec.option.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_AUTORESET)
    return spec.compile()


class CpuEngine(Engine):
    """Worlds whose positions and velocities are all that a task reads."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_substeps: int, threads: int = 0,
                 separate: bool = False):  # fmt: skip
        super().__init__(model, num_envs, num_substeps, threads, separate)
        self._pool = Rollout(nthread=self.threads if self.threads > 1 else 0)
        self._trace = np.empty((num_envs, num_substeps, len(self._default)))

    def _advance(self, before: np.ndarray, ctrl: np.ndarray, wrench: np.ndarray | None) -> np.ndarray:
        """A rollout; it stops early where MuJoCo warns, which the time shows."""
        control, control_spec = ctrl, _CTRL
        if wrench is not None:
            held = np.repeat(wrench.reshape(self.num_envs, 1, -1), self.num_substeps, axis=1)
            control, control_spec = np.concatenate([ctrl, held], axis=2), _CTRL | _WRENCH
        self._pool.rollout(self.models, self._data, before, control, control_spec=control_spec, skip_checks=True,
                           nstep=self.num_substeps, state=self._trace)  # fmt: skip
        return self._trace[:, -1].copy()

    def close(self) -> None:
        self._pool.close()
