"""How much room contacts and constraints get in Warp, whose buffers are allocated once.

Contacts of all worlds share one buffer, constraints have one a world. What a task needs is looked up by playing its
model for a while in MuJoCo under random commands, from random joint angles: the most that any moment had, and half as
much again for what such play does not come across.

Legend: G pairs of geoms that can touch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch

from ..errors import UsageError
from ..machine import free_memory
from .warp_device import on

_EPISODES, _SECONDS, _MARGIN, _SEED = 32, 1.0, 1.5, 0
_INNER = 5  # steps under one command
_PLANE, _SPHERE, _CYLINDER, _BOX = (int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind}"))
                                    for kind in ("PLANE", "SPHERE", "CYLINDER", "BOX"))  # fmt: skip
_CURVED = [int(getattr(mujoco.mjtGeom, f"mjGEOM_{kind}")) for kind in ("HFIELD", "ELLIPSOID", "MESH", "SDF")]


@dataclass(frozen=True)
class Room:
    """What each world can hold."""

    contacts: int  # on average over the worlds; pairs whose bounding volumes touch need as many
    constraints: int
    convex: int  # pairs that the general convex algorithm looks at, which needs kilobytes for each


def room_for(model: mujoco.MjModel, pairs: np.ndarray, dry: bool, contacts: int | None = None) -> Room:
    """Room for a model whose pairs (G, 2) of geoms can touch.

    dry: whether dry friction may be given to joints that have none by default. contacts: instead of what play finds.
    """
    near, touching, rows, convex = _most(model, pairs)
    rows += model.nv if dry else 0
    if contacts is not None and contacts < 1:
        raise UsageError(f"there must be room for at least one contact, not {contacts}")
    if contacts is None:
        contacts = math.ceil(_MARGIN * max(near, touching)) + 1
        constraints = math.ceil(_MARGIN * rows) + _rows_each(model)
    else:
        constraints = rows + contacts * _rows_each(model)
    return Room(contacts, constraints, min(contacts, math.ceil(_MARGIN * convex) + 1))


def _rows_each(model: mujoco.MjModel) -> int:
    """Constraints of one contact at most."""
    dims = [1, *model.geom_condim.tolist(), *model.pair_dim.tolist()]
    pyramid = model.opt.cone == mujoco.mjtCone.mjCONE_PYRAMIDAL
    return max(max(1, 2 * (dim - 1)) if pyramid else dim for dim in dims)


def _most(model: mujoco.MjModel, pairs: np.ndarray) -> tuple[int, int, int, int]:
    """The most pairs whose bounding spheres touch, contacts, constraints, and such pairs of the convex algorithm."""
    data, rng = mujoco.MjData(model), np.random.default_rng(_SEED)
    general = _general(model, pairs)
    periods = math.ceil(_SECONDS / (_INNER * model.opt.timestep))
    most = np.zeros(4, int)
    for episode in range(_EPISODES):
        mujoco.mj_resetData(model, data)
        if episode:
            _place(model, data, rng)
        for _ in range(periods):
            data.ctrl[:] = _command(model, rng)
            mujoco.mj_step(model, data, _INNER)
            near = _near(model, data, pairs)
            most = np.maximum(most, (near.sum(), data.ncon, data.nefc, (near & general).sum()))
    return tuple(most.tolist())


def _place(model: mujoco.MjModel, data: mujoco.MjData, rng: np.random.Generator) -> None:
    """Joints with limits go anywhere between them."""
    single = model.jnt_limited.astype(bool) & np.isin(model.jnt_type, (mujoco.mjtJoint.mjJNT_HINGE,
                                                                       mujoco.mjtJoint.mjJNT_SLIDE))  # fmt: skip
    data.qpos[model.jnt_qposadr[single]] = rng.uniform(*model.jnt_range[single].T)


def _command(model: mujoco.MjModel, rng: np.random.Generator) -> np.ndarray:
    low, high = np.where(model.actuator_ctrllimited[:, None], model.actuator_ctrlrange, (-1.0, 1.0)).T
    return rng.uniform(low, high)


def _near(model: mujoco.MjModel, data: mujoco.MjData, pairs: np.ndarray) -> np.ndarray:
    """Which pairs (G,) have bounding spheres that touch; a plane's normal takes the place of its sphere."""
    flat_first = np.argsort(model.geom_type[pairs], axis=1, kind="stable")  # planes are the lowest type
    first, second = np.take_along_axis(pairs, flat_first, axis=1).T
    apart = data.geom_xpos[second] - data.geom_xpos[first]
    reach = model.geom_rbound + model.geom_margin
    flat = model.geom_type[first] == _PLANE
    height = (apart * data.geom_xmat[first].reshape(-1, 3, 3)[:, :, 2]).sum(axis=1)
    return np.where(flat, height, np.linalg.norm(apart, axis=1)) <= reach[second] + np.where(flat, 0.0, reach[first])


def _general(model: mujoco.MjModel, pairs: np.ndarray) -> np.ndarray:
    """Which pairs (G,) Warp has no formula of its own for."""
    first, second = np.sort(model.geom_type[pairs], axis=1).T
    curved = np.isin(second, _CURVED) | np.isin(first, _CURVED)
    cylinders = ((second == _CYLINDER) | (first == _CYLINDER)) & (first != _SPHERE)
    return (first != _PLANE) & (curved | cylinders | ((first == _BOX) & (second == _BOX)))


# ---- memory ------------------------------------------------------------------------------------


@contextmanager
def enough_memory(model: mujoco.MjModel, num_envs: int, room: Room, device: torch.device) -> Iterator[None]:
    """Around everything that allocates in the size of N worlds.

    Raises:
        UsageError: there is not enough memory, by what is free beforehand or by what fails.
    """
    needed, free = num_envs * _bytes_each(model, room), free_memory(device)
    if free is not None and needed > free:
        raise _short(num_envs, room, needed, device, f"{_gib(free)} is free")
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error).lower() for words in ("failed to allocate", "out of memory")):
            raise
        raise _short(num_envs, room, needed, device, "it ran out") from None


def data_for(model: mujoco.MjModel, num_envs: int, room: Room, device: torch.device) -> Any:
    """Warp's data for N worlds on the device."""
    import mujoco_warp as mjw

    with on(device):
        return mjw.make_data(model, nworld=num_envs, nconmax=room.contacts, njmax=room.constraints,
                             nccdmax=room.convex)  # fmt: skip


def _bytes_each(model: mujoco.MjModel, room: Room) -> int:
    """Memory of one world more: what stays, the solver's, and that of the convex algorithm."""
    cpu = torch.device("cpu")
    one, two = (_bytes(data_for(model, worlds, room, cpu)) for worlds in (1, 2))
    solver = 24 * room.constraints + 8 * model.nv**2  # Jaref, jv, quad and changed rows; Hessian and its factor
    faces, vertices = 6 + 5 * model.opt.ccd_iterations, 10 + 2 * model.opt.ccd_iterations  # of its polytope
    return two - one + solver + room.convex * (20 * faces + 16 * vertices)


def _bytes(owner: Any) -> int:
    import warp as wp

    parts = [getattr(owner, field.name) for field in dataclasses.fields(owner)]
    return sum(part.capacity if isinstance(part, wp.array) else _bytes(part) if dataclasses.is_dataclass(part) else 0
               for part in parts)  # fmt: skip


def _short(num_envs: int, room: Room, needed: int, device: torch.device, free: str) -> UsageError:
    return UsageError(f"{num_envs} worlds with room for {room.contacts} contacts and {room.constraints} constraints "
                      f"each take about {_gib(needed)} on {device}, and {free}: take fewer worlds (num_envs), or room "
                      "for fewer contacts (contacts)")  # fmt: skip


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB"
