"""DeviceReplay: the replay of worlds that live on the learner's device, which the host never waits for.

The same transitions as `Replay`, drawn uniformly, and the same files, so that either reads what the other wrote. What
the host keeps there, counters and which rows are left, lies on the device here, and nothing has a shape that depends
on data, so that adding, and drawing together with an update, can each be one CUDA graph.

    transitions   a ring of T rows of N worlds: action, reward, ends, and the number of the frame that was seen
    frames        a ring of F rows of N worlds, each world with a head of its own. A transition's successor is the frame
                  after its own, which is the next transition's too, but where an episode ended: there the next one
                  begins one frame further on

    add:      head += obs differs from frame[head];   frame[head] = obs;   head += 1;   frame[head] = next_obs
    sample:   u uniform in [0, sum of the worlds' transitions);   which world and step that is, by their running sum

So successors are exact everywhere, and observations are held once, but one more for every end of an episode. F leaves
room for one end in eight steps; where there are more, a world's oldest transitions go a little earlier (`_low`).

Legend: N worlds, T transition rows, F frame rows, B batch, A action, n steps of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..cuda_graph import captured
from ..errors import RunError, UsageError
from ..spec import Spec
from .device_memory import require_room
from .segments import FORMAT, read_tensors, replay_tensors, ring_contents, write_tensors

SPARE = 8  # transitions for one frame more than they need themselves
COLUMNS = ("action", "reward", "terminated", "truncated")


class DeviceReplay:
    """A buffer of about `capacity` transitions on the learner's device; see `Buffer` for the contract."""

    def __init__(
        self,
        spec: Spec,
        num_envs: int,
        capacity: int,
        generator: torch.Generator,
        device: torch.device | str = "cuda",
        capture: bool = True,
    ):
        """generator: the learner's, on `device`, which decides what is drawn, and is saved with the learner.
        capture: whether adding is recorded as a CUDA graph, on a GPU.

        Raises:
            UsageError: a capacity of less than two rows, or of more than the device has memory for.
        """
        if num_envs < 1 or capacity < 2 * num_envs:
            raise UsageError(f"a replay of capacity {capacity} for {num_envs} worlds: expected at least 1 world "
                             f"and at least two rows, that is {2 * num_envs} transitions")  # fmt: skip
        self.num_envs, self.device, self.generator = num_envs, torch.device(device), generator
        self._history = {g: spec.history(g) for g in spec.observations}
        self._reach = max(self._history.values()) - 1  # frames before its own that a stack may need
        self._rows = -(-capacity // num_envs) + self._reach  # T
        self._frames = self._rows + self._reach + 2 + self._rows // SPARE  # F
        self._groups = {
            g: (spec.obs_shape(g), getattr(torch, terms[0].dtype)) for g, terms in spec.observations.items()
        }
        self._columns = {
            "action": ((spec.action_dim,), torch.int64 if spec.discrete else torch.float32),
            "reward": ((), torch.float32), "terminated": ((), torch.bool), "truncated": ((), torch.bool),
        }  # fmt: skip
        if self.device.type == "cuda":
            require_room(self.nbytes, self.device, capacity)
        # rows of transitions (T N, ...) and of frames (F N, ...)
        n = num_envs
        self._of_step = {name: self._zeros(self._rows * n, *s, dtype=d) for name, (s, d) in self._columns.items()}
        self._of_frame = {g: self._zeros(self._frames * n, *s, dtype=d) for g, (s, d) in self._groups.items()}
        self._frame = self._zeros(self._rows * n, dtype=torch.int32)
        self._age = self._zeros(self._rows * n, dtype=torch.int32) if self._reach else None
        self._count = self._zeros(dtype=torch.int64)  # steps ever added
        self._head = self._zeros(n, dtype=torch.int64)  # of every world the frame of its newest successor
        self._low = self._zeros(n, dtype=torch.int64)  # of every world the first step that is left
        self._world = torch.arange(n, device=self.device)
        self._ahead: dict[int, Tensor] = {}
        self._add = captured(self._put, self.device) if capture else self._put
        self._steps = 0  # what `_count` is, for the host
        self._folder: Path | None = None
        self._segments: list[dict[str, Any]] = []  # {"file", "first", "end", "bytes", "crc32"}

    def _zeros(self, *shape: int, dtype: torch.dtype) -> Tensor:
        return torch.zeros(shape, dtype=dtype, device=self.device)

    @property
    def nbytes(self) -> int:
        """Bytes of device memory that it takes, whether filled or not."""

        def of(kinds: Mapping[str, tuple[tuple[int, ...], torch.dtype]]) -> int:
            return sum(int(np.prod(shape)) * dtype.itemsize for shape, dtype in kinds.values())

        per_step = of(self._columns) + (8 if self._reach else 4)
        return self.num_envs * (self._rows * per_step + self._frames * of(self._groups) + 24)

    @property
    def num_rows(self) -> int:
        """Transitions that can be sampled; asks the device."""
        return int((self._count - self._low).sum())

    # ---- adding ------------------------------------------------------------------------------

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        """Store one step of every world; `obs` (N, ...) is what `action` (N, A) answered."""
        if extras:
            raise UsageError(f"a replay keeps transitions alone, not what the learner computed "
                             f"({', '.join(extras)}); a learner with extras uses a rollout")  # fmt: skip
        if step.mask is not None:
            raise UsageError("a replay on a device takes worlds that reset themselves within a step; these mask steps: "
                             "use a Replay, which keeps its books on the host")  # fmt: skip
        seen, next_obs = ([x[g] for g in self._groups] for x in (obs, step.next_obs))
        self._add(action, step.reward, step.terminated, step.truncated, *seen, *next_obs)
        self._steps += 1

    def _put(self, *values: Tensor) -> dict[str, Tensor]:
        """A step as it comes: what a CUDA graph is made of, which wants metrics."""
        self._place(*values)
        return {}

    def _place(self, *values: Tensor) -> None:
        """Columns of a step, observations of every group, then successors, into the rings, all in place."""
        columns, obs = values[: len(COLUMNS)], values[len(COLUMNS) :]
        obs, next_obs = obs[: len(self._groups)], obs[len(self._groups) :]
        place, differs = self._frame_at(self._head, self._world), (self._count == 0).expand(self.num_envs)
        for frames, x in zip(self._of_frame.values(), obs, strict=True):
            other = (frames.index_select(0, place) != x).flatten(1).any(-1)
            differs = differs | other
        at = self._head + differs
        slot = (self._count % self._rows) * self.num_envs + self._world
        if self._age is not None:
            before = ((self._count - 1) % self._rows) * self.num_envs + self._world
            age = torch.where(differs | self._done(before), 0, self._age.index_select(0, before) + 1)
            self._age.index_copy_(0, slot, age)
        for name, value in zip(COLUMNS, columns, strict=True):
            self._of_step[name].index_copy_(0, slot, value)
        self._frame.index_copy_(0, slot, at.int())
        places, after = self._frame_at(at, self._world), self._frame_at(at + 1, self._world)
        for frames, x, successor in zip(self._of_frame.values(), obs, next_obs, strict=True):
            frames.index_copy_(0, places, x)
            frames.index_copy_(0, after, successor)
        self._head.copy_(at + 1)
        self._count.add_(1)
        self._retire()

    def _retire(self) -> None:
        """Steps whose row, or whose frames, were written over are no longer drawn: two a world at most for an add."""
        least = self._count - self._rows  # as a replay counts that has the frames in these very rows
        low = torch.maximum(self._low, torch.where(least > 0, least + self._reach, 0))
        for _ in range(2):
            first = self._frame.index_select(0, self._slot(low, self._world)).long() - self._reach
            low = low + ((first <= self._head - self._frames) & (low < self._count))
        self._low.copy_(low)

    def _done(self, slot: Tensor) -> Tensor:
        return self._of_step["terminated"][slot] | self._of_step["truncated"][slot]

    def _slot(self, step: Tensor, world: Tensor) -> Tensor:
        """Where the transitions of these steps and worlds lie."""
        return (step % self._rows) * self.num_envs + world

    def _frame_at(self, frame: Tensor, world: Tensor) -> Tensor:
        """Where the frames of these numbers and worlds lie."""
        return (frame % self._frames) * self.num_envs + world

    # ---- sampling ----------------------------------------------------------------------------

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Transitions drawn with replacement, or with batch_size 0 all of them, oldest first; `rng` is not used.

        Raises:
            UsageError: more rows asked for than there are, priorities, sequences, goals and the like.
        """
        self.require(request)
        if request.batch_size == 0:
            low = self._low.cpu()
            step = torch.arange(int(low.min()), self._steps)[:, None].expand(-1, self.num_envs)
            left = step >= low
            world = torch.arange(self.num_envs).expand_as(step)[left]
            return self._gather(step[left].to(self.device), world.to(self.device), request.n_step, request.discount)
        return self.draw(request)

    def require(self, request: Sample) -> None:
        """Raise UsageError where `draw` cannot give what is asked for; does not wait for the device."""
        request.refuse_beyond("a replay on a device", "n_step", "discount")
        if request.batch_size > (held := min(self._steps, self._rows - self._reach) * self.num_envs):
            raise UsageError(f"asked for a batch of {request.batch_size}, but the replay holds {held} transitions; "
                             f"collect more before learning (learning_starts)")  # fmt: skip

    def draw(self, request: Sample) -> Batch:
        """A batch by device calls alone, of fixed shapes: what a CUDA graph may hold."""
        counts = self._count - self._low  # (N,)
        ends = counts.cumsum(0)
        uniform = torch.rand(request.batch_size, generator=self.generator, device=self.device, dtype=torch.float64)
        chosen = torch.minimum((uniform * ends[-1]).long(), ends[-1] - 1)  # (B,)
        world = torch.searchsorted(ends, chosen, right=True)
        step = self._low[world] + chosen - (ends[world] - counts[world])
        return self._gather(step, world, request.n_step, request.discount)

    def set_priorities(self, rows: Tensor | None, priorities: Tensor) -> None:
        raise UsageError("a replay on a device draws uniformly; drawing by priority needs the replay on the host")

    def _gather(self, step: Tensor, world: Tensor, n_step: int, discount: float) -> Batch:
        """The batch (B, ...) of these steps and worlds."""
        slot = end = self._slot(step, world)
        steps, reward = None, self._of_step["reward"][slot]
        if n_step > 1:
            steps, reward = self._accumulate(step, world, n_step, discount)
            end = self._slot(step + steps - 1, world)
        obs, next_obs = self._stacks(slot, world, 0), self._stacks(end, world, 1)
        return Batch(obs, self._of_step["action"][slot], reward, next_obs, self._of_step["terminated"][end],
                     self._of_step["truncated"][end], steps=steps, rows=step * self.num_envs + world)  # fmt: skip

    def _accumulate(self, step: Tensor, world: Tensor, n: int, discount: float) -> tuple[Tensor, Tensor]:
        """(effective n, discounted rewards) (B,) of rows of up to n steps."""
        if n not in self._ahead:
            self._ahead[n] = torch.arange(n, device=self.device)[:, None]
        ahead = self._ahead[n]
        places = self._slot(step + ahead, world)  # (n, B)
        frame = self._frame[places]
        goes_on = (frame[1:] == frame[:-1] + 1) & ~self._done(places[:-1]) & (step + ahead[1:] < self._count)
        within = torch.cat([torch.ones_like(goes_on[:1]), goes_on]).cumprod(0)
        # a place beyond the newest may hold anything, NaN too: its factor 0 alone would not do
        reward = torch.where(within > 0, self._of_step["reward"][places], 0.0)
        return within.sum(0), (discount**ahead * reward).sum(0)

    def _stacks(self, slot: Tensor, world: Tensor, after: int) -> dict[str, Tensor]:
        """Observations (B, ...) of every group, stacked, at these transitions or (after = 1) at their successors."""
        frame, result = self._frame[slot].long() + after, {}
        for group, frames in self._of_frame.items():
            stack = []
            for back in range(self._history[group] - 1, -1, -1):
                x = frames[self._frame_at(frame - back, world)]
                if back > 0 and self._age is not None:  # zeros before an episode's first frame
                    known = self._age[slot] + after >= back
                    x = torch.where(known.view(-1, *[1] * (x.ndim - 1)), x, 0)
                stack.append(x)
            result[group] = stack[0] if len(stack) == 1 else torch.cat(stack, -1)
        return result

    # ---- saving and loading ------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows added since the last save as one new file; the manifest that names every file in use."""
        if folder != self._folder:
            self._folder, self._segments = folder, []
        oldest = max(0, self._steps - self._rows)
        first = max(self._segments[-1]["end"] if self._segments else 0, oldest)
        if first < self._steps:
            name = f"replay-{first}-{self._steps}.safetensors"
            written = write_tensors(folder, name, self._segment(first, max(first - 1, oldest)))
            self._segments.append({**written, "first": first, "end": self._steps})
        self._segments = [s for s in self._segments if s["end"] > oldest]
        return {"format": FORMAT, "num_envs": self.num_envs, "rows": self._rows, "steps": self._steps,
                "segments": [dict(s) for s in self._segments]}  # fmt: skip

    def _segment(self, first: int, before: int) -> dict[str, Tensor]:
        """What the rows from step `first` on consist of, as replay.py has it; `before` is the row that led there."""
        step = torch.arange(first, self._steps, device=self.device)[:, None]
        slot = self._slot(step, self._world)  # (steps, N)
        places = self._frame_at(self._frame[slot].long(), self._world)
        age = torch.zeros_like(slot, dtype=torch.int32) if self._age is None else self._age[slot]
        newest = self._frame_at(self._head, self._world)
        return {
            **{f"obs.{g}": frames[places] for g, frames in self._of_frame.items()},
            **{name: column[slot] for name, column in self._of_step.items()},
            "valid": step >= self._low, "age": age,
            **self._elsewhere(torch.arange(before, self._steps - 1, device=self.device)[:, None]),
            **{f"head.{g}": frames[newest] for g, frames in self._of_frame.items()},
        }  # fmt: skip

    def _elsewhere(self, step: Tensor) -> dict[str, Tensor]:
        """The successors that the row after theirs does not show, of steps (S, 1)."""
        now, after = (self._frame[self._slot(s, self._world)].long() for s in (step, step + 1))
        at, world = ((after != now + 1) & (step >= self._low)).nonzero(as_tuple=True)
        places = self._frame_at(now[at, world] + 1, world)
        return {"side.key": step[at, 0] * self.num_envs + world,
                **{f"side.{g}": frames[places] for g, frames in self._of_frame.items()}}  # fmt: skip

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Become the buffer that was saved, by adding its rows again.

        Raises:
            RunError: a segment is missing or damaged, or it comes from a buffer of another shape.
        """
        steps, oldest, segments = ring_contents(folder, manifest, self.num_envs, self._rows)
        for counter in (self._count, self._head, self._low):
            counter.zero_()
        self._count.fill_(oldest)
        self._steps = steps
        lost = torch.full_like(self._low, oldest)  # steps that were no longer drawn when they were saved
        row: dict[str, Tensor] = {}
        for segment in segments:
            row = self._restore(folder, segment, oldest, row, lost)
        if row:
            self._again(row, {g: row[f"head.{g}"] for g in self._groups})
        self._low.copy_(torch.maximum(self._low, lost))
        self._folder, self._segments = folder, segments

    def _restore(self, folder: Path, segment: Mapping[str, Any], oldest: int, row: dict[str, Tensor], lost: Tensor):
        """Add a segment's rows but the last, which is returned, since its successors may stand in the next one."""
        first, end = segment["first"], segment["end"]
        expected = replay_tensors(self.num_envs, self._groups, self._columns, end - first)
        tensors = read_tensors(folder, segment, expected)
        keys, valid = tensors["side.key"], tensors["valid"]
        if bool((valid[:-1] & ~valid[1:]).any()):  # those that were gone already when it was written come first
            raise RunError(f"{folder / segment['file']} has steps that are no transitions, which a replay on a device "
                           f"does not hold; resume with --device cpu")  # fmt: skip
        gone = (first + (~valid).sum(0)).to(self.device)
        lost.copy_(torch.where(gone > first, torch.maximum(lost, gone), lost))
        for step in range(max(first, oldest), end):
            now = {k: tensors[k][step - first] for k in (*(f"obs.{g}" for g in self._groups), *COLUMNS, "age")}
            if row:
                successor = {g: now[f"obs.{g}"].clone() for g in self._groups}
                begin, stop = np.searchsorted(keys.numpy(), [(step - 1) * self.num_envs, step * self.num_envs])
                worlds = keys[begin:stop] % self.num_envs
                for g, x in successor.items():
                    x[worlds] = tensors[f"side.{g}"][begin:stop]
                self._again(row, successor)
            row = {**now, **{f"head.{g}": tensors[f"head.{g}"] for g in self._groups}}
        return row

    def _again(self, row: Mapping[str, Tensor], next_obs: Mapping[str, Tensor]) -> None:
        """Add a row that was saved."""
        values = [row[name] for name in COLUMNS] + [row[f"obs.{g}"] for g in self._groups]
        slot = self._slot(self._count, self._world)
        self._place(*(x.to(self.device) for x in (*values, *(next_obs[g] for g in self._groups))))
        if self._age is not None:
            self._age[slot] = row["age"].to(self.device)
