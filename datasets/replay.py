"""Replay: the last transitions of N worlds, each observation held once, exact successors everywhere.

Worlds step together, so storage is a ring of T rows of N worlds. The observation after row t is the one stored in
row t + 1, except

    where an episode ended     the true successor is kept in a side queue, since row t + 1 begins anew
    in the newest row          its successors wait in `_head` until the next row comes

Every transition has a key, step * N + world, that never repeats. It lies in the ring at key modulo T * N, its
successor N further on. Keys grow with time, so the side queue is sorted, is searched by bisection, and loses its
oldest entries together with the rows they belong to.

On disk: one file for what came since the last save, never touched again, and a manifest that lists the files in
use; a file whose rows are all overwritten drops out of it.

    replay-<first step>-<end step>.safetensors
        obs.<group>   (steps, N, dim)      action (steps, N, A)     reward, terminated, truncated, valid (steps, N)
        side.key      (k,)                 side.<group> (k, dim)    head.<group> (N, dim)

Legend: N worlds, T rows, B batch, A action.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import RunError, UsageError
from ..files import write_durably
from ..spec import Spec

FORMAT = 1


class Replay:
    """A buffer of at least `capacity` transitions (rounded up to whole rows of N), sampled uniformly."""

    def __init__(self, spec: Spec, num_envs: int, capacity: int, device: torch.device | str = "cpu"):
        if num_envs < 1 or capacity < 2 * num_envs:
            raise UsageError(f"a replay of capacity {capacity} for {num_envs} worlds: expected at least 1 world "
                             f"and at least two rows, that is {2 * num_envs} transitions")  # fmt: skip
        self.num_envs, self.device = num_envs, torch.device(device)
        self._rows = -(-capacity // num_envs)  # T
        self._groups = {g: (spec.obs_dim(g), getattr(torch, terms[0].dtype)) for g, terms in spec.observations.items()}
        action = torch.int64 if spec.discrete else torch.float32
        shape = (self._rows, num_envs)

        self._obs = {g: self._empty(*shape, dim, dtype=dtype) for g, (dim, dtype) in self._groups.items()}
        self._columns = {
            "action": self._empty(*shape, spec.action_dim, dtype=action),
            "reward": self._empty(*shape, dtype=torch.float32),
            "terminated": self._empty(*shape, dtype=torch.bool),
            "truncated": self._empty(*shape, dtype=torch.bool),
        }
        self._valid = np.zeros(shape, bool)  # False where a step is no transition; on the host, to draw rows there
        self._num_valid = 0
        self._head = {g: self._empty(num_envs, dim, dtype=dtype) for g, (dim, dtype) in self._groups.items()}
        self._head_done = self._empty(num_envs, dtype=torch.bool)
        self._side = _SideQueue(self._groups, self.device)
        self._steps = 0  # rows ever added
        self._folder: Path | None = None  # where the segments lie
        self._segments: list[dict[str, Any]] = []  # {"file", "first", "end", "bytes", "crc32"}

    def _empty(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=self.device)  # memory is taken as rows come

    @property
    def num_rows(self) -> int:
        """Transitions that can be sampled."""
        return self._num_valid

    @property
    def observation_bytes(self) -> int:
        """Bytes held for observations and successors together."""
        return sum(t.nbytes for t in (*self._obs.values(), *self._head.values())) + self._side.nbytes

    # ---- adding ------------------------------------------------------------------------------

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` (N, dim) is what `action` (N, A) answered."""
        if extras:
            raise UsageError(f"a replay keeps transitions alone, not what the learner computed "
                             f"({', '.join(extras)}); a learner with extras uses a rollout")  # fmt: skip
        row = self._steps % self._rows
        if self._steps > 0:
            self._keep_successors(obs)
        if self._steps >= self._rows:
            self._num_valid -= int(self._valid[row].sum())
            self._side.drop_before((self._steps - self._rows + 1) * self.num_envs)
        for group, ring in self._obs.items():
            ring[row] = obs[group]
            self._head[group].copy_(step.next_obs[group])
        self._head_done.copy_(step.terminated | step.truncated)
        for name, value in (("action", action), ("reward", step.reward),
                            ("terminated", step.terminated), ("truncated", step.truncated)):  # fmt: skip
            self._columns[name][row] = value
        self._valid[row] = True if step.mask is None else step.mask.cpu().numpy()
        self._num_valid += int(self._valid[row].sum())
        self._steps += 1

    def _keep_successors(self, obs: Mapping[str, Tensor]) -> None:
        """Put aside the newest row's successors that the row about to come does not show."""
        differs = self._head_done
        for group, head in self._head.items():
            differs = differs | (obs[group].to(self.device) != head).any(-1)
        worlds = differs.nonzero().squeeze(-1)
        if len(worlds) > 0:
            keys = (self._steps - 1) * self.num_envs + worlds.cpu().numpy()
            self._side.append(keys, {g: head[worlds] for g, head in self._head.items()})

    # ---- sampling ----------------------------------------------------------------------------

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Transitions drawn uniformly with replacement, or with batch_size 0 all of them, oldest first.

        Raises:
            UsageError: more rows asked for than there are, or sequences.
        """
        if request.length != 1:
            raise UsageError(f"a replay gives single transitions; asked for sequences of length {request.length}")
        if request.batch_size > self._num_valid:
            raise UsageError(f"asked for a batch of {request.batch_size}, but the replay holds {self._num_valid} "
                             f"transitions; collect more before learning (learning_starts)")  # fmt: skip
        keys = self._draw(request.batch_size, rng) if request.batch_size > 0 else self._all_keys()
        return self._gather(keys)

    def _first_key(self) -> int:
        return max(0, self._steps - self._rows) * self.num_envs

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` keys of valid transitions; those that hit an invalid one are drawn again."""
        low, high = self._first_key(), self._steps * self.num_envs
        keys = rng.integers(low, high, count)
        if self._num_valid < high - low:
            valid = self._valid.reshape(-1)
            while len(bad := np.flatnonzero(~valid[keys % valid.size])) > 0:
                keys[bad] = rng.integers(low, high, len(bad))
        return keys

    def _all_keys(self) -> np.ndarray:
        keys = np.arange(self._first_key(), self._steps * self.num_envs)
        return keys[self._valid.reshape(-1)[keys % self._valid.size]]

    def _gather(self, keys: np.ndarray) -> Batch:
        size = self._valid.size
        at = torch.from_numpy(keys % size).to(self.device)
        after = torch.from_numpy((keys + self.num_envs) % size).to(self.device)
        obs = {g: ring.view(size, -1).index_select(0, at) for g, ring in self._obs.items()}
        next_obs = {g: ring.view(size, -1).index_select(0, after) for g, ring in self._obs.items()}
        for rows, source, index in self._elsewhere(keys):
            for group in next_obs:
                next_obs[group].index_copy_(0, rows, source[group].index_select(0, index))
        column = {n: c.view(size, *c.shape[2:]).index_select(0, at) for n, c in self._columns.items()}
        return Batch(obs, column["action"], column["reward"], next_obs, column["terminated"], column["truncated"],
                     rows=at)  # fmt: skip

    def _elsewhere(self, keys: np.ndarray) -> Iterator[tuple[Tensor, Mapping[str, Tensor], Tensor]]:
        """(rows of the batch, where their successors lie, index there) for those that are not in the ring."""
        newest = (self._steps - 1) * self.num_envs
        if len(rows := np.flatnonzero(keys >= newest)) > 0:
            yield self._to(rows), self._head, self._to(keys[rows] - newest)
        rows, index = self._side.find(keys)
        if len(rows) > 0:
            yield self._to(rows), self._side.obs, self._to(index)

    def _to(self, index: np.ndarray) -> Tensor:
        return torch.from_numpy(index).to(self.device)

    # ---- saving and loading ------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows added since the last save as one new file; the manifest that names every file in use."""
        if folder != self._folder:
            self._folder, self._segments = folder, []
        oldest = max(0, self._steps - self._rows)
        first = max(self._segments[-1]["end"] if self._segments else 0, oldest)
        if first < self._steps:
            self._segments.append(_write(folder, first, self._steps, self._segment(first)))
        self._segments = [s for s in self._segments if s["end"] > oldest]
        return {"format": FORMAT, "num_envs": self.num_envs, "rows": self._rows, "steps": self._steps,
                "segments": [dict(s) for s in self._segments]}  # fmt: skip

    def _segment(self, first: int) -> dict[str, Tensor]:
        """What the rows from step `first` on consist of."""
        rows = torch.arange(first, self._steps, device=self.device) % self._rows
        side = self._side.since((first - 1) * self.num_envs)
        return {
            **{f"obs.{g}": ring.index_select(0, rows) for g, ring in self._obs.items()},
            **{name: column.index_select(0, rows) for name, column in self._columns.items()},
            "valid": torch.from_numpy(self._valid[rows.cpu().numpy()]),
            **{f"side.{g}": t for g, t in side.items()},
            **{f"head.{g}": head for g, head in self._head.items()},
        }

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Become the buffer that was saved.

        Raises:
            RunError: a segment is missing or damaged, or it comes from a buffer of another shape.
        """
        mine = {"format": FORMAT, "num_envs": self.num_envs, "rows": self._rows}
        if differs := [f"{k} expected {v}, found {manifest.get(k)}" for k, v in mine.items() if manifest.get(k) != v]:
            raise RunError(f"the replay saved in {folder} does not fit this run: {', '.join(differs)}; "
                           f"resume with the settings that the run was started with")  # fmt: skip
        steps, segments = _manifest_contents(folder, manifest)
        oldest = max(0, steps - self._rows)
        _check_coverage(folder, segments, oldest, steps)
        self._side = _SideQueue(self._groups, self.device)
        self._valid[:] = False
        for segment in segments:
            self._restore(folder, segment, oldest)
        self._side.drop_before(oldest * self.num_envs)
        self._num_valid = int(self._valid.sum())
        self._steps, self._folder, self._segments = steps, folder, segments
        if steps > 0:
            row = (steps - 1) % self._rows
            self._head_done = self._columns["terminated"][row] | self._columns["truncated"][row]

    def _restore(self, folder: Path, segment: Mapping[str, Any], oldest: int) -> None:
        """Put one segment's rows where they were; those overwritten since are left out."""
        count = segment["end"] - segment["first"]
        tensors = _read(folder, segment, self._expected(count))
        skip = max(0, oldest - segment["first"])
        rows = torch.arange(segment["first"] + skip, segment["end"], device=self.device) % self._rows
        for group, ring in self._obs.items():
            ring[rows] = tensors[f"obs.{group}"][skip:].to(self.device)
            self._head[group].copy_(tensors[f"head.{group}"])
        for name, column in self._columns.items():
            column[rows] = tensors[name][skip:].to(self.device)
        self._valid[rows.cpu().numpy()] = tensors["valid"][skip:].numpy()
        self._side.append(tensors["side.key"].numpy(), {g: tensors[f"side.{g}"].to(self.device) for g in self._groups})

    def _expected(self, steps: int) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape, without the leading axis of the side queue, and type of every tensor in a file of so many steps."""
        expected = {f"obs.{g}": ((steps, *ring.shape[1:]), ring.dtype) for g, ring in self._obs.items()}
        expected |= {name: ((steps, *c.shape[1:]), c.dtype) for name, c in self._columns.items()}
        expected |= {f"head.{g}": (tuple(head.shape), head.dtype) for g, head in self._head.items()}
        expected |= {f"side.{g}": ((-1, dim), dtype) for g, (dim, dtype) in self._groups.items()}
        return {**expected, "valid": ((steps, self.num_envs), torch.bool), "side.key": ((-1,), torch.int64)}


class _SideQueue:
    """Observations by growing key: appended at the end, dropped from the front, found by bisection."""

    def __init__(self, groups: Mapping[str, tuple[int, torch.dtype]], device: torch.device):
        self._keys = np.empty(16, np.int64)
        self.obs = {g: torch.empty(16, dim, dtype=dtype, device=device) for g, (dim, dtype) in groups.items()}
        self._first = self._end = 0

    @property
    def nbytes(self) -> int:
        return self._keys.nbytes + sum(t.nbytes for t in self.obs.values())

    def append(self, keys: np.ndarray, obs: Mapping[str, Tensor]) -> None:
        if self._end + len(keys) > len(self._keys):
            self._make_room(len(keys))
        place = slice(self._end, self._end + len(keys))
        self._keys[place] = keys
        for group, value in obs.items():
            self.obs[group][place] = value
        self._end += len(keys)

    def _make_room(self, count: int) -> None:
        """Move the entries to the front of arrays that leave a quarter free for those to come."""
        used = slice(self._first, self._end)
        size = max(16, (self._end - self._first + count) * 5 // 4)
        keys = np.empty(size, np.int64)
        keys[: self._end - self._first] = self._keys[used]
        for group, old in self.obs.items():
            new = old.new_empty(size, old.shape[1])
            new[: self._end - self._first] = old[used]
            self.obs[group] = new
        self._keys, self._first, self._end = keys, 0, self._end - self._first

    def drop_before(self, key: int) -> None:
        while self._first < self._end and self._keys[self._first] < key:
            self._first += 1

    def find(self, keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(which of `keys` are here, where in `obs` they lie)."""
        held = self._keys[self._first : self._end]
        if len(held) == 0:
            return keys[:0], keys[:0]
        place = np.minimum(np.searchsorted(held, keys), len(held) - 1)
        rows = np.flatnonzero(held[place] == keys)
        return rows, place[rows] + self._first

    def since(self, key: int) -> dict[str, Tensor]:
        """The entries from `key` on, as tensors to save."""
        start = self._first + int(np.searchsorted(self._keys[self._first : self._end], key))
        return {"key": torch.from_numpy(self._keys[start : self._end].copy()),
                **{g: t[start : self._end] for g, t in self.obs.items()}}  # fmt: skip


def _manifest_contents(folder: Path, manifest: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """(steps, segments) of a manifest, well-formed."""
    try:
        keys = {"file": str, "first": int, "end": int, "bytes": int, "crc32": int}
        return int(manifest["steps"]), [{k: kind(s[k]) for k, kind in keys.items()} for s in manifest["segments"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the replay's manifest in {folder} is damaged ({error!r}); start the run anew") from None


def _check_coverage(folder: Path, segments: list[dict[str, Any]], oldest: int, steps: int) -> None:
    """The files must continue each other, from the oldest row or before to the newest."""
    covered = min(oldest, segments[0]["first"]) if segments else oldest
    for segment in segments:
        if segment["first"] != covered:
            break
        covered = segment["end"]
    if covered != steps:
        raise RunError(f"the replay's manifest in {folder} is damaged: expected files for steps {oldest} to {steps}, "
                       f"found {[(s['first'], s['end']) for s in segments]}; start the run anew")  # fmt: skip


def _write(folder: Path, first: int, end: int, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A new file with the rows of steps [first, end), safely on the disk, and its line in the manifest."""
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    path = folder / f"replay-{first}-{end}.safetensors"
    write_durably(path, data)
    return {"file": path.name, "first": first, "end": end, "bytes": len(data), "crc32": zlib.crc32(data)}


def _read(
    folder: Path, segment: Mapping[str, Any], expected: Mapping[str, tuple[tuple[int, ...], torch.dtype]]
) -> dict[str, Tensor]:
    """The tensors of one file, checked against the manifest and against what this buffer holds."""
    path = folder / segment["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}, which the checkpoint names: {error.strerror}; "
                       f"the run cannot go on without it") from None  # fmt: skip
    if len(data) != segment["bytes"] or zlib.crc32(data) != segment["crc32"]:
        raise RunError(f"{path} is damaged: expected {segment['bytes']} bytes with checksum {segment['crc32']}, "
                       f"found {len(data)} with {zlib.crc32(data)}; copy it again or start the run anew")  # fmt: skip
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); copy it again or start the run anew") from None
    for name, (shape, dtype) in expected.items():
        found = tensors.get(name)
        fits = found is not None and found.dtype == dtype and len(found.shape) == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, found.shape, strict=True)
        )  # fmt: skip
        if not fits:
            came = "nothing" if found is None else f"{tuple(found.shape)} {found.dtype}"
            raise RunError(f"{path}: {name} should be {shape} {dtype}, found {came}; "
                           f"resume with the task and settings that the run was started with")  # fmt: skip
    return tensors
