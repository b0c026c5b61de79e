"""WarpEngine: N worlds of one MuJoCo model stepped together by MuJoCo Warp on a GPU, in memory that torch shares.

What it means is what sim/engine.py means: a control period of S substeps from a zero warm start, so that a row (time,
qpos, qvel, act) alone restores a world; a world that breaks keeps its state from before. Where that engine takes the
indices of some worlds, this one takes a mask (N,), and nothing waits for the device. A control period, what is read
after it, and derived constants are each recorded once as a CUDA graph.

    sim/warp_device.py    what Warp needs of a machine; launches that are recorded and replayed
    sim/warp_fields.py    the model, and fields with a row for every world
    sim/warp_constants.py what is derived from masses
    sim/warp_room.py      how many contacts and constraints get room
    sim/warp_reads.py     MjData fields by name
    sim/warp_kernels.py   kernels of our own

Legend: N worlds, S substeps of a control period, U actuators, B bodies. float32.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .engine import LARGEST
from .warp_constants import Constants
from .warp_device import Recorded, can_record, on, require_warp
from .warp_fields import Fields, suited
from .warp_reads import Reads
from .warp_room import data_for, enough_memory, room_for


class WarpEngine:
    """Worlds on one device; `time`, `qpos`, `qvel` and `extra` are overwritten by the next step."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, num_substeps: int, device: str | torch.device = "cuda",
                 varied: Collection[str] = (), reads: Collection[str] = (), contacts: int | None = None,
                 deterministic: bool = False):  # fmt: skip
        """Worlds at the model's default position.

        varied: fields that `write` will be given. reads: MjData fields that are in `extra` after every step.
        contacts: room for so many a world, on average over the worlds; by default what random play needs.
        deterministic: whether the same steps must give the same bits, which they do on the CPU alone.
        """
        if num_envs < 1 or num_substeps < 1:
            raise UsageError(f"an engine needs at least one world and one substep, got {num_envs} and {num_substeps}")
        self.device = require_warp(device)
        if deterministic and self.device.type == "cuda":
            raise UsageError("worlds on a GPU do not repeat to the bit: MuJoCo Warp 3.11 cannot be compiled in Warp's "
                             "deterministic mode; engine=cpu repeats, and so does device=cpu")  # fmt: skip
        self.num_envs, self.num_substeps = num_envs, num_substeps
        self.model, changed = suited(model)
        one = Fields(self.model, 1, (), self.device)
        self.room = room_for(self.model, one.pairs, "dof_frictionloss" in varied, contacts)
        with enough_memory(self.model, num_envs, self.room, self.device):
            self._fields = Fields(self.model, num_envs, varied, self.device)
            self._build(tuple(reads))
        slow = () if can_record(self.device) else (
            "launches are not recorded as a CUDA graph, since this GPU has no memory pools",)  # fmt: skip
        self.notes = (*changed, *self._fields.notes, *slow)

    def _build(self, reads: tuple[str, ...]) -> None:
        import warp as wp

        self._model, n = self._fields.model, self.num_envs
        self._data = d = data_for(self.model, n, self.room, self.device)
        self.time, self.qpos, self.qvel = (wp.to_torch(array) for array in (d.time, d.qpos, d.qvel))
        self.overflow = wp.to_torch(d.overflow)  # (N,) bits of mujoco_warp's OverflowType, since each world was set
        self._act, self._push = wp.to_torch(d.act), wp.to_torch(d.xfrc_applied)
        self._pushed = False
        self._buffers()
        self._reads = Reads(self.model, self._model, d, reads, self.device)
        self.extra = self._reads.extra
        self._period = Recorded(self._advance, self.device)
        self._begin = Recorded(self._place, self.device)
        self._constants = Constants(self._model, d, self.device) if self._fields.derived else None
        everyone = torch.ones(n, dtype=torch.bool, device=self.device)
        qpos0 = torch.as_tensor(self.model.qpos0, dtype=torch.float32, device=self.device)
        self.set_state(everyone, qpos0.expand(n, -1), torch.zeros_like(self.qvel))

    def _buffers(self) -> None:
        """What is recorded reads and writes these besides Warp's own arrays."""
        import warp as wp

        d = self._data
        with on(self.device):
            self._ctrl_wp: Any = wp.zeros((self.num_substeps, self.num_envs, self.model.nu), dtype=float)
            self._broken_wp = wp.zeros(self.num_envs, dtype=bool)
            self._before = [wp.zeros_like(array) for array in (d.qpos, d.qvel, d.act, d.time)]
        self._mask = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self._new_qpos, self._new_qvel = torch.zeros_like(self.qpos), torch.zeros_like(self.qvel)
        self._new_act = torch.as_tensor(mujoco.MjData(self.model).act, dtype=torch.float32, device=self.device)
        self._ctrl, self.broken = wp.to_torch(self._ctrl_wp), wp.to_torch(self._broken_wp)

    # ---- one control period ------------------------------------------------------------------

    def step(self, ctrl: Tensor, wrench: Tensor | None = None) -> Tensor:
        """Take the substeps of one control period under ctrl (N, S, U); which worlds (N,) broke.

        wrench: force and torque (N, B, 6) on every body, in the world's frame, where anything pushes.

        A world breaks where a number stops being finite or grows beyond reason. It keeps the state from before this
        step, and what it does in the meantime reaches no other world.
        """
        self._ctrl.copy_(ctrl.transpose(0, 1))
        if wrench is not None:
            self._push.copy_(wrench)
        elif self._pushed:
            self._push.zero_()
        self._pushed = wrench is not None
        self._period()
        return self.broken

    def _advance(self) -> None:
        import mujoco_warp as mjw
        import warp as wp

        from .warp_kernels import contain, pass_time

        m, d = self._model, self._data
        qpos, qvel, act, time = self._before
        for kept, array in zip(self._before, (d.qpos, d.qvel, d.act, d.time), strict=True):
            wp.copy(kept, array)
        self._broken_wp.zero_()
        d.qacc_warmstart.zero_()
        for substep in range(self.num_substeps):
            wp.copy(d.ctrl, self._ctrl_wp[substep])
            mjw.step(m, d)
            wp.launch(contain, self.num_envs, inputs=[qpos, qvel, act, LARGEST, d.ctrl, mujoco.mjMAXVAL],
                      outputs=[d.qpos, d.qvel, d.act, d.qacc_warmstart, self._broken_wp])  # fmt: skip
        wp.launch(pass_time, self.num_envs, inputs=[time, m.opt.timestep, float(self.num_substeps), self._broken_wp],
                  outputs=[d.time])  # fmt: skip
        self._reads.collect(self._broken_wp)

    # ---- setting worlds ----------------------------------------------------------------------

    def set_state(self, mask: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        """Place worlds at qpos (N, nq), qvel (N, nv), time zero, and default actuator states, where mask (N,)."""
        self._mask.copy_(mask)
        self._new_qpos.copy_(qpos)
        self._new_qvel.copy_(qvel)
        self._begin()
        if self.extra:
            self._pushed = False

    def _place(self) -> None:
        import warp as wp

        from .warp_kernels import place

        d = self._data
        mask, *new = map(wp.from_torch, (self._mask, self._new_qpos, self._new_qvel, self._new_act))
        wp.launch(place, self.num_envs, inputs=[mask, *new],
                  outputs=[d.qpos, d.qvel, d.act, d.time, d.overflow])  # fmt: skip
        self._reads.look(mask)

    def kick(self, change: Tensor) -> None:
        """Change the velocities of all worlds by (N, nv) at once."""
        self.qvel.add_(change)

    def write(self, fields: Mapping[str, Any], mask: Tensor, wanted: Collection[str] | None = None) -> None:
        """Set model fields, or options "opt.x", to values (N, …) where mask (N,); by default all that are there.

        A world with another time step takes as many steps as the others, so its control period is longer or shorter
        than the commands' clock says.
        """
        if self._fields.write(fields, mask, wanted) and self._constants is not None:
            self._constants.derive(mask)

    # ---- saving ------------------------------------------------------------------------------

    def overflows(self) -> dict[str, int]:
        """What had no room, and in how many worlds since each was set; waits for the device."""
        from mujoco_warp._src.types import OverflowType

        bits = self.overflow.cpu()
        counts = {kind.name.lower(): int(((bits & kind.value) != 0).sum()) for kind in OverflowType}
        return {name: count for name, count in counts.items() if count}

    def state_dict(self) -> dict[str, Any]:
        row = torch.cat([self.time[:, None], self.qpos, self.qvel, self._act], dim=1)
        return {"state": _host(row), "overflow": _host(self.overflow),
                "extra": {name: _host(values) for name, values in self.extra.items()}}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        nq, nv = self.model.nq, self.model.nv
        rows, mine = np.asarray(state["state"], np.float32), (self.num_envs, 1 + nq + nv + self.model.na)
        if rows.shape != mine:
            raise UsageError(f"the saved worlds have shape {rows.shape}, this engine {mine}: "
                             "resume with the same task and number of worlds")  # fmt: skip
        if state["extra"].keys() != self.extra.keys():
            raise UsageError(f"the saved worlds hold the fields {', '.join(state['extra']) or 'none'}, this "
                             f"engine reads {', '.join(self.extra)}: resume with the same task")  # fmt: skip
        parts = np.split(rows, [1, 1 + nq, 1 + nq + nv], axis=1)
        for array, part in zip((self.time[:, None], self.qpos, self.qvel, self._act), parts, strict=True):
            array.copy_(torch.as_tensor(part))
        self.overflow.copy_(torch.as_tensor(state["overflow"]))
        for name, values in self.extra.items():
            values.copy_(torch.as_tensor(state["extra"][name]))

    def close(self) -> None:
        """Nothing runs beside this process: memory goes with the engine."""


def _host(values: Tensor) -> np.ndarray:
    return values.cpu().numpy().copy()
