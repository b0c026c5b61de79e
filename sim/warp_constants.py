"""What MuJoCo derives from masses, inertias and armatures (mj_setConst), on the device, of the worlds where a mask is.

mujoco_warp.set_const solves for one row of one Jacobian at a time, which is hundreds of launches for all worlds, and in
a large batch some world begins anew at every step. Here each constant is one launch, which passes by the other worlds.

What depends on geometry alone (lengths of tendons, anchors of welds) stays: no field that can vary changes it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .warp_device import Recorded, on

FIELDS = ("body_subtreemass", "dof_invweight0", "body_invweight0", "tendon_invweight0", "actuator_acc0")


class Constants:
    """Derives FIELDS and stat.meaninertia, which have a row for every world."""

    def __init__(self, warp_model: Any, warp_data: Any, device: torch.device):
        import warp as wp

        self._model, self._data, n, nv = warp_model, warp_data, warp_data.nworld, warp_model.nv
        with on(device):
            self._qpos = wp.clone(warp_data.qpos)
            self._qpos0 = wp.from_torch(wp.to_torch(warp_model.qpos0).expand(n, -1).contiguous())
            self._x, self._scratch = wp.zeros((nv, nv, n), dtype=float), wp.zeros((warp_model.nu, nv, n), dtype=float)
        self._mask = torch.zeros(n, dtype=torch.bool, device=device)
        self._mask_wp = wp.from_torch(self._mask)
        self._derive = Recorded(self._launch, device)

    def derive(self, mask: Tensor) -> None:
        """Of the worlds where mask (N,); what a step computes beside the state is afterwards that of qpos0."""
        self._mask.copy_(mask)
        self._derive()

    def _launch(self) -> None:
        import warp as wp

        from . import warp_constant_kernels as kernels

        m, d, mask = self._model, self._data, self._mask_wp
        wp.launch(kernels.sum_masses, d.nworld, [mask, m.body_parentid, m.body_mass], [m.body_subtreemass])
        wp.copy(self._qpos, d.qpos)
        wp.copy(d.qpos, self._qpos0)
        self._position()
        wp.copy(d.qpos, self._qpos)
        wp.launch(kernels.factor, d.nworld, [mask, m.M_rownnz, m.M_rowadr, m.M_colind, d.M],
                  [self._x, m.stat.meaninertia])  # fmt: skip
        wp.launch(kernels.weigh_dofs, (d.nworld, m.nv), [mask, self._x, m.dof_jntid, m.jnt_type, m.jnt_dofadr],
                  [m.dof_invweight0])  # fmt: skip
        wp.launch(kernels.weigh_bodies, (d.nworld, m.nbody),
                  [mask, self._x, m.body_weldid, m.body_rootid, m.body_isdofancestor, d.xipos, d.subtree_com, d.cdof],
                  [m.body_invweight0])  # fmt: skip
        wp.launch(kernels.weigh_tendons, (d.nworld, m.ntendon),
                  [mask, self._x, m.ten_J_rownnz, m.ten_J_rowadr, m.ten_J_colind, d.ten_J],
                  [m.tendon_invweight0])  # fmt: skip
        wp.launch(kernels.accelerate, (d.nworld, m.nu),
                  [mask, self._x, d.moment_rownnz, d.moment_rowadr, d.moment_colind, d.actuator_moment, self._scratch],
                  [m.actuator_acc0])  # fmt: skip

    def _position(self) -> None:
        """The mass matrix and the Jacobians where the joints are now."""
        import mujoco_warp as mjw
        from mujoco_warp._src.smooth import tendon_armature

        m, d = self._model, self._data
        mjw.kinematics(m, d)
        mjw.com_pos(m, d)
        mjw.tendon(m, d)
        mjw.crb(m, d)
        tendon_armature(m, d)
        mjw.transmission(m, d)
