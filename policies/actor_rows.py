"""ActorRows: the steps that actor processes hand to a learner, in memory that all of them see.

A row is one step of all worlds, packed into one stretch of bytes so that it goes to a GPU in one copy. An actor writes
the worlds that are its own. A ring of rows holds those on their way: who may write and who may read is settled by bytes
over sockets (actors.py), so nobody ever looks at a row that is being written.

    action         (N, A) float32 or int64      reward         (N,) float32
    terminated, truncated, success, mask        (N,) bool, as in Step
    next_obs.<group>  (N, …)
    version        (N,) int64, of the weights that were acted with
    told           (actors, TOLD) float64, see Told
    obs.<group>    (N, …) what to act on next, where an actor's worlds began anew (Told.began); last in the row, since
                   most rows need not carry it on

Legend: N worlds, A action.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..batch import Step
from ..spec import Spec

ALIGNMENT = 64  # bytes


class Told(NamedTuple):
    """What an actor says with each row."""

    began: float  # 1 where `obs` differs from `next_obs`: an episode ended and another began
    has_success: float  # 1 where the task says whether an episode succeeded
    waited: float  # [s] that the actor has waited for the learner so far
    bad_worlds: float  # worlds that broke so far
    new: float  # 1 where its worlds take no step but begin: in its first row


TOLD = len(Told._fields)


class Row(NamedTuple):
    """One step of all worlds as the learner gets it."""

    action: Tensor  # (N, A)
    step: Step
    version: np.ndarray  # (N,)
    told: np.ndarray  # (actors, TOLD)


class ActorRows:
    """The memory, mapped; rows are numbered for ever and lie in it by their number modulo `slots`."""

    def __init__(self, spec: Spec, num_envs: int, actors: int, slots: int, descriptor: int):
        self.fields, self.later, size = layout(spec, num_envs, actors)
        self.groups, self.slots = tuple(spec.observations), slots
        memory = np.frombuffer(mmap.mmap(descriptor, slots * size), np.uint8).reshape(slots, size)
        self.shares = np.array_split(np.arange(num_envs), actors)
        self._rows = memory
        self._columns = [_views(row, self.fields) for row in memory]

    # ---- the actor's side ----------------------------------------------------------------------

    def begin(self, row: int, actor: int, obs: Mapping[str, Tensor], version: int, told: Told) -> None:
        """Row in which an actor's worlds take no step, but stand where they will step from: all of it is masked."""
        none = torch.zeros(len(self.shares[actor]), dtype=torch.bool)
        step = Step(obs, obs, none.float(), none, ~none, mask=none)
        self.put(row, actor, None, step, version, told._replace(began=1.0, new=1.0))

    def put(self, row: int, actor: int, action: Tensor | None, step: Step, version: int, told: Told) -> None:
        """What an actor's worlds did in a row."""
        columns, share = self._columns[row % self.slots], self.shares[actor]
        mine = slice(int(share[0]), int(share[-1]) + 1)
        columns["action"][mine] = 0 if action is None else action.numpy(force=True)
        for name in ("reward", "terminated", "truncated"):
            columns[name][mine] = getattr(step, name).numpy()
        columns["success"][mine] = False if step.success is None else step.success.numpy()
        columns["mask"][mine] = True if step.mask is None else step.mask.numpy()
        for group in self.groups:
            columns[f"next_obs.{group}"][mine] = step.next_obs[group].numpy()
            if told.began:
                columns[f"obs.{group}"][mine] = step.obs[group].numpy()
        columns["version"][mine] = version
        columns["told"][actor] = told

    # ---- the learner's side --------------------------------------------------------------------

    def take(self, row: int, device: torch.device) -> tuple[Row, Row]:
        """A copy of a row that all actors have written: here, and on the device (the same where that is the CPU)."""
        source = self._columns[row % self.slots]
        began = source["told"][:, Told._fields.index("began")] > 0
        size = self._rows.shape[1] if began.any() else self.later
        raw = torch.empty(size, dtype=torch.uint8, pin_memory=device.type == "cuda")
        raw.numpy()[:] = self._rows[row % self.slots, :size]
        for actor in np.flatnonzero(~began) if began.any() else ():
            mine = self.shares[actor]
            for group in self.groups:
                there = self.fields[f"obs.{group}"].of(raw)
                there.numpy()[mine] = source[f"next_obs.{group}"][mine]
        here = self._row(raw, raw)
        return here, here if device.type == "cpu" else self._row(_uploaded(raw, device), raw)

    def _row(self, raw: Tensor, here: Tensor) -> Row:
        """The tensors of a packed row; `here` are the same bytes on this side, which decide what there is."""
        columns = {name: field.of(raw) for name, field in self.fields.items() if field.end <= len(raw)}
        told = self.fields["told"].of(here).numpy()
        next_obs = {group: columns[f"next_obs.{group}"] for group in self.groups}
        obs = next_obs if len(raw) == self.later else {group: columns[f"obs.{group}"] for group in self.groups}
        masked = not bool(self.fields["mask"].of(here).all())
        succeeds = bool(told[:, Told._fields.index("has_success")].any())
        step = Step(obs, next_obs, columns["reward"], columns["terminated"], columns["truncated"],
                    columns["success"] if succeeds else None, columns["mask"] if masked else None)  # fmt: skip
        return Row(columns["action"], step, self.fields["version"].of(here).numpy(), told)


class Field(NamedTuple):
    """Where an array lies in a row."""

    start: int
    end: int
    shape: tuple[int, ...]
    dtype: str

    def of(self, raw: Tensor) -> Tensor:
        """The array, a view of a packed row."""
        return raw[self.start : self.end].view(getattr(torch, self.dtype)).view(self.shape)


def layout(spec: Spec, num_envs: int, actors: int) -> tuple[dict[str, Field], int, int]:
    """(name -> field, where the fields begin that most rows do without, bytes of a row)."""
    n = (num_envs,)
    obs = {g: ((*n, *spec.obs_shape(g)), terms[0].dtype) for g, terms in spec.observations.items()}
    parts: dict[str, tuple[tuple[int, ...], str]] = {
        "action": ((*n, spec.action_dim), "int64" if spec.discrete else "float32"), "reward": (n, "float32"),
        **{name: (n, "bool") for name in ("terminated", "truncated", "success", "mask")},
        **{f"next_obs.{g}": part for g, part in obs.items()},
        "version": (n, "int64"), "told": ((actors, TOLD), "float64"),
        **{f"obs.{g}": part for g, part in obs.items()},
    }  # fmt: skip
    fields, start, later = {}, 0, 0
    for name, (shape, dtype) in parts.items():
        fields[name] = Field(start, start + math.prod(shape) * np.dtype(dtype).itemsize, shape, dtype)
        start = -(-fields[name].end // ALIGNMENT) * ALIGNMENT
        later = start if name == "told" else later
    return fields, later, start


def _views(row: np.ndarray, fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    return {name: row[f.start : f.end].view(f.dtype).reshape(f.shape) for name, f in fields.items()}


def _uploaded(raw: Tensor, device: torch.device) -> Tensor:
    """A copy on the GPU of bytes in pinned memory, made beside what the GPU computes.

    Torch's allocator lends pinned memory out again only after the copy: as many buffers go round as are on their way.
    """
    now = torch.cuda.current_stream(device)
    with torch.cuda.stream(_copy_stream(device)) as _:
        there = raw.to(device, non_blocking=True)
    now.wait_stream(_copy_stream(device))
    there.record_stream(now)
    return there


_streams: dict[torch.device, torch.cuda.Stream] = {}


def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    if device not in _streams:
        _streams[device] = torch.cuda.Stream(device)
    return _streams[device]
