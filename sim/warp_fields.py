"""A MuJoCo model in Warp whose named fields have a row for every world, and for what is derived from them.

    model, notes = suited(model)                       without what Warp has no twin of
    fields = Fields(model, num_envs, varied, device)
    fields.write({"body_mass": (N, bodies)}, mask)     rows of the worlds where the mask is

Legend: N worlds.
"""

from __future__ import annotations

import copy
import dataclasses
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError, unknown_name
from .models import DERIVED
from .warp_constants import FIELDS
from .warp_device import Recorded, on

# MuJoCo's compiler marks frames that coincide, to compute them once, and its midphase holds boxes of the default; what
# breaks such a flag writes it too (sim/physics_terms.py). Warp composes every frame and has no midphase
UNNEEDED = frozenset({"body_sameframe", "geom_sameframe", "site_sameframe", "opt.disableflags"})


def suited(model: mujoco.MjModel) -> tuple[mujoco.MjModel, tuple[str, ...]]:
    """A copy of a model that Warp can take, and what had to be changed, in sentences."""
    model, notes = copy.copy(model), []
    # stops a world at a number that is not finite, where MuJoCo would reset it silently; here `contain` does that
    model.opt.disableflags &= ~int(mujoco.mjtDisableBit.mjDSBL_AUTORESET | mujoco.mjtDisableBit.mjDSBL_MIDPHASE)
    if model.opt.solver == mujoco.mjtSolver.mjSOL_PGS:
        model.opt.solver = mujoco.mjtSolver.mjSOL_NEWTON
        notes.append("the constraint solver is Newton, since Warp has no PGS, which the model asks for")
    if model.opt.noslip_iterations:
        model.opt.noslip_iterations = 0
        notes.append("contacts may slip a little, since Warp has no noslip solver, which the model asks for")
    return model, tuple(notes)


class Fields:
    """The model on the device, with views of the fields that differ between worlds."""

    def __init__(self, model: mujoco.MjModel, num_envs: int, varied: Collection[str], device: torch.device):
        self._device, self._num_envs = device, num_envs
        names = [name for name in varied if name not in UNNEEDED]
        self.derived = not DERIVED.isdisjoint(names)
        known = _batched(model)
        for name in names:
            if name not in known:
                raise unknown_name("field that worlds can differ in:", name, known)
        constants = [name for name in FIELDS if self.derived and getattr(model, name).size]
        fields = [name for name in names if not name.startswith("opt.")]
        self.model, self.notes = _put(model, {name: num_envs for name in {*fields, *constants}}, device)
        self.pairs = self.model.nxn_geom_pair_filtered.numpy()  # of geoms that can touch
        self.views: dict[str, Tensor] = {name: self._view(model, name) for name in names}
        if self.derived:
            self._repeat(self.model.stat, "meaninertia")
        self._new = {name: torch.empty_like(view) for name, view in self.views.items()}
        self._mask = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self._copies: dict[tuple[str, ...], Recorded] = {}  # of fields that are written together

    def _view(self, model: mujoco.MjModel, name: str) -> Tensor:
        import warp as wp

        owner, _, option = name.rpartition(".")
        if owner:
            array, default = self._repeat(self.model.opt, option), getattr(model.opt, option)
        else:
            array, default = getattr(self.model, name), getattr(model, name)
        return wp.to_torch(array).view(self._num_envs, *np.shape(default))

    def _repeat(self, owner: Any, name: str) -> Any:
        """Give an array that all worlds share a row for each."""
        import warp as wp

        one = getattr(owner, name)
        values = np.repeat(one.numpy(), self._num_envs, axis=0)
        setattr(owner, name, wp.array(values, dtype=one.dtype, device=str(self._device)))
        return getattr(owner, name)

    def write(self, fields: Mapping[str, Any], mask: Tensor, wanted: Collection[str] | None = None) -> bool:
        """Set fields to values (N, …) in the worlds where mask (N,); whether constants must be derived anew."""
        names = tuple(name for name in fields if (wanted is None or name in wanted) and name not in UNNEEDED)
        for name in names:
            if name not in self.views:
                raise UsageError(f"cannot write {name}, which all worlds share: name it in `varied` when the engine is "
                                 "made")  # fmt: skip
        if names:
            self._mask.copy_(mask)
            given = [torch.as_tensor(fields[name], dtype=torch.float32, device=self._device) for name in names]
            torch._foreach_copy_([self._new[name] for name in names], given)  # pyright: ignore[reportPrivateImportUsage]
            self._copy(names)
        return not DERIVED.isdisjoint(names)

    def _copy(self, names: tuple[str, ...]) -> None:
        """Take the new values over where the mask is: one launch a field, recorded together."""
        import warp as wp

        from .warp_kernels import copy_some

        if names not in self._copies:
            mask, n = wp.from_torch(self._mask), self._num_envs
            pairs = [[wp.from_torch(of[name].view(n, -1)) for of in (self._new, self.views)] for name in names]

            def copy() -> None:
                for new, view in pairs:
                    wp.launch(copy_some, new.shape, inputs=[new, mask, True], outputs=[view])

            self._copies[names] = Recorded(copy, self._device)
        self._copies[names]()


def _batched(model: mujoco.MjModel) -> list[str]:
    """Fields of MjModel, of real numbers, that can have a row for every world in Warp."""
    import mujoco_warp as mjw

    def names(kind: Any, owner: Any) -> list[str]:
        rows = [f.name for f in dataclasses.fields(kind) if getattr(f.type, "shape", (0,))[:1] == ("*",)]
        return [name for name in rows if np.asarray(getattr(owner, name, 0)).dtype.kind == "f"]

    return [*names(mjw.Model, model), *(f"opt.{name}" for name in names(mjw.Option, model.opt))]


def _put(model: mujoco.MjModel, batch_sizes: dict[str, int], device: torch.device) -> tuple[Any, tuple[str, ...]]:
    """The model on the device, and what Warp has to say about it."""
    import mujoco_warp as mjw
    import warp as wp

    try:
        with on(device), warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            put = mjw.put_model(model, batch_sizes=batch_sizes)
    except (NotImplementedError, ValueError) as error:
        raise UsageError(f"the GPU engine cannot step this model: {error}; simulate it with engine=cpu") from None
    put.opt.warn_overflow = False  # read from `overflow`, not printed from within kernels
    if device.type == "cuda" and not wp.is_conditional_graph_supported():
        put.opt.graph_conditional = False
        return put, ("the constraint solver always takes all its iterations, since the driver is older than CUDA 12.4; "
                     "a newer one lets it end early",)  # fmt: skip
    return put, tuple(" ".join(str(warning.message).split()) for warning in said)
