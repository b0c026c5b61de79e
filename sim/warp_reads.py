"""Fields of MjData by name, out of Warp's, in MuJoCo's shapes.

They are what mj_step leaves: from the beginning of the last substep, as in Gymnasium's MuJoCo tasks. What a step does
not compute is computed after it, from the same moment; where an episode begins it is what mj_forward gives.

Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..errors import unknown_name
from .stepping import AFTERWARDS

_DIFFERENT = frozenset({"qLD", "qLU", "qLDiagInv", "history"})  # laid out for Warp's own solver, or not set here


class Reads:
    """`extra`: field -> (N, …), of every world; those of a broken one are from before."""

    def __init__(self, model: mujoco.MjModel, warp_model: Any, warp_data: Any, reads: Collection[str],
                 device: torch.device):  # fmt: skip
        import warp as wp

        self._model, self._data, num_envs = warp_model, warp_data, warp_data.nworld
        shapes = _readable(model, warp_data)
        for name in reads:
            if name not in shapes:
                raise unknown_name("MjData field in a task's reads:", name, shapes)
        self.extra: dict[str, Tensor] = {name: torch.zeros((num_envs, *shapes[name]), device=device) for name in reads}
        flat = {name: wp.to_torch(getattr(warp_data, name)).view(num_envs, -1) for name in reads}
        self._pairs = [(wp.from_torch(flat[name]), wp.from_torch(self.extra[name].view(num_envs, -1)))
                       for name in reads]  # fmt: skip
        self._afterwards = [getattr(warp_data, name) for name in reads if name in AFTERWARDS]

    def collect(self, broken: Any) -> None:
        """Take over what a step has left, of the worlds that did not break; part of what is recorded."""
        import mujoco_warp as mjw

        if self._afterwards and not self._model.sensor_rne_postconstraint:
            mjw.rne_postconstraint(self._model, self._data)
        self._copy(broken, False)

    def look(self, mask: Any) -> None:
        """Take over what mj_forward gives, in the worlds where mask (N,); part of what is recorded."""
        import mujoco_warp as mjw

        if not self._pairs:
            return
        self._data.xfrc_applied.zero_()
        self._data.ctrl.zero_()
        self._data.qacc_warmstart.zero_()
        mjw.forward(self._model, self._data)
        if not self._model.sensor_rne_postconstraint:
            for array in self._afterwards:
                array.zero_()
        self._copy(mask, True)

    def _copy(self, which: Any, wanted: bool) -> None:
        import warp as wp

        from .warp_kernels import copy_some

        for source, target in self._pairs:
            wp.launch(copy_some, source.shape, inputs=[source, which, wanted], outputs=[target])


def _readable(model: mujoco.MjModel, warp_data: Any) -> dict[str, tuple[int, ...]]:
    """Shapes of the arrays of numbers that both have, of constant size, laid out alike."""
    import warp as wp

    host, shapes = mujoco.MjData(model), {}
    for name in dir(host):
        mine, theirs = getattr(host, name, None), getattr(warp_data, name, None)
        if name in _DIFFERENT or not isinstance(theirs, wp.array) or not isinstance(mine, np.ndarray):
            continue
        numbers = mine.dtype == np.float64 and theirs.ndim > 1 and theirs.shape[0] == warp_data.nworld
        if numbers and mine.size and wp.to_torch(theirs).numel() == warp_data.nworld * mine.size:
            shapes[name] = mine.shape
    return shapes
