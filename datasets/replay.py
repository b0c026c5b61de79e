"""Replay: the last transitions of N worlds, each observation held once, exact successors everywhere.

Worlds step together, so storage is a ring of T rows of N worlds. The observation after row t is the one stored in
row t + 1, except

    where an episode ended     the true successor is kept in a side queue, since row t + 1 begins anew
    in the newest row          its successors wait in `_head` until the next row comes

Every transition has a key, step * N + world, that never repeats. It lies in the ring at key modulo T * N, its
successor N further on. Keys grow with time, so the side queue is sorted, is searched by bisection, and loses its
oldest entries together with the rows they belong to.

What a sample is put together from, at the moment it is asked for:

    stacked frames   a group with history h is h frames along the last axis, oldest first, zeros before an episode's
                     first; rows whose stack would reach into overwritten ones are no longer drawn
    n-step rows      reward = sum_i discount^i r_{t+i} over `steps` <= n rewards, fewer where the episode or the buffer
                     ends; terminated, truncated and next_obs are those of the last of them
    priorities       see priorities.py

On disk: one file for what came since the last save, never touched again, and a manifest that lists the files in
use; a file whose rows are all overwritten drops out of it.

    replay-<first step>-<end step>.safetensors
        obs.<group>   (steps, N, ...)      action (steps, N, A)     reward, terminated, truncated, valid, age (steps, N)
        side.key      (k,)                 side.<group> (k, ...)    head.<group> (N, ...)
    priorities-<save>.safetensors          where rows are drawn by priority; its number is new each time, as the
                                           checkpoint before lives from its own file until the next is complete

Legend: N worlds, T rows, B batch, A action, h history, n steps of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..errors import RunError, UsageError
from ..spec import Spec
from .priorities import Priorities
from .segments import FORMAT, read_tensors, replay_tensors, ring_contents, write_tensors
from .side_queue import SideQueue

GIVEN = ("n_step", "discount", "priority", "importance", "imitation")  # of a Sample
PRIORITIES = {"leaves": ((-1,), torch.float64), "largest": ((2,), torch.float64)}  # in their file


class Replay:
    """A buffer of at least `capacity` transitions (rounded up to whole rows of N), sampled uniformly or by priority."""

    def __init__(self, spec: Spec, num_envs: int, capacity: int, device: torch.device | str = "cpu"):
        if num_envs < 1 or capacity < 2 * num_envs:
            raise UsageError(f"a replay of capacity {capacity} for {num_envs} worlds: expected at least 1 world "
                             f"and at least two rows, that is {2 * num_envs} transitions")  # fmt: skip
        self.num_envs, self.device = num_envs, torch.device(device)
        self._history = {g: spec.history(g) for g in spec.observations}
        self._reach = max(self._history.values()) - 1  # rows before its own that a stack may need
        self._rows = -(-capacity // num_envs) + self._reach  # T
        self._groups = {
            g: (spec.obs_shape(g), getattr(torch, terms[0].dtype)) for g, terms in spec.observations.items()
        }
        action = torch.int64 if spec.discrete else torch.float32
        shape = (self._rows, num_envs)

        self._obs = {g: self._empty(*shape, *frame, dtype=dtype) for g, (frame, dtype) in self._groups.items()}
        self._columns = {
            "action": self._empty(*shape, spec.action_dim, dtype=action),
            "reward": self._empty(*shape, dtype=torch.float32),
            "terminated": self._empty(*shape, dtype=torch.bool),
            "truncated": self._empty(*shape, dtype=torch.bool),
        }
        # the same memory by file name; on the CPU as numpy arrays, which write and take rows in a third of the time
        self._rings = {
            name: t.numpy() if self.device.type == "cpu" else t
            for name, t in ({f"obs.{g}": ring for g, ring in self._obs.items()} | self._columns).items()
        }
        self._flat = {name: ring.reshape(-1, *ring.shape[2:]) for name, ring in self._rings.items()}  # views
        # on the host, since rows are drawn there
        self._valid = np.zeros(shape, bool)  # False where a step is no transition
        self._goes_on = np.zeros(shape, bool)  # the next row is here, and the next transition of the same episode
        self._age = np.zeros(shape, np.int32)  # steps since the episode began
        self._num_valid = 0  # of the rows that may be drawn
        self._low = 0  # the first step whose row may be drawn
        self._head: dict[str, Tensor] = {}
        self._head_goes_on = np.zeros(num_envs, bool)  # the newest row was a transition, and not its episode's last
        self._side = SideQueue(self._groups, self.device)
        self._priorities: Priorities | None = None  # from the first sample that asks for them
        self._steps = 0  # rows ever added
        self._folder: Path | None = None  # where the segments lie
        self._segments: list[dict[str, Any]] = []  # {"file", "first", "end", "bytes", "crc32"}
        self._saves = 0
        self._request: Sample | None = None  # the last that was looked through

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
        """Store one step of every world; `obs` (N, ...) is what `action` (N, A) answered."""
        if extras:
            raise UsageError(f"a replay keeps transitions alone, not what the learner computed "
                             f"({', '.join(extras)}); a learner with extras uses a rollout")  # fmt: skip
        row = self._steps % self._rows
        if self._steps > 0:
            self._keep_successors(obs)
        self._retire(self._first_drawable(self._steps + 1))
        for group in self._groups:
            self._put(f"obs.{group}", row, obs[group])
        # the caller's tensors, which nobody writes into: the next row mostly begins with the very same
        self._head = {group: step.next_obs[group] for group in self._groups}
        for name, value in (("action", action), ("reward", step.reward),
                            ("terminated", step.terminated), ("truncated", step.truncated)):  # fmt: skip
            self._put(name, row, value)
        valid = True if step.mask is None else step.mask.numpy(force=True)
        self._valid[row] = valid
        self._num_valid += self.num_envs if step.mask is None else int(np.count_nonzero(valid))
        done = self._rings["terminated"][row] | self._rings["truncated"][row]
        self._continue(row, valid, done.numpy(force=True) if isinstance(done, Tensor) else done)
        if self._priorities is not None:
            places = np.arange(row * self.num_envs, (row + 1) * self.num_envs)
            self._priorities.admit(places, valid)
        self._steps += 1

    def _put(self, name: str, row: int, value: Tensor) -> None:
        ring = self._rings[name]
        if isinstance(ring, Tensor):
            ring[row] = value
        else:
            ring[row] = value.numpy(force=True)

    def _continue(self, row: int, valid: np.ndarray | bool, done: np.ndarray) -> None:
        """Tie the new row to the one before it, where that was a transition of the same episode."""
        before = row - 1  # in a ring that is not full, the row before the first is none, and nothing goes on from it
        goes_on = self._head_goes_on & valid
        self._goes_on[before], self._goes_on[row] = goes_on, False
        self._head_goes_on = ~done & valid
        if self._reach > 0:
            self._age[row] = np.where(goes_on, self._age[before] + 1, 0)

    def _first_drawable(self, steps: int) -> int:
        """The first step whose row, and what its stack needs, is still there after so many steps."""
        return steps - self._rows + self._reach if steps > self._rows else 0

    def _retire(self, low: int) -> None:
        """Rows before step `low` are no longer drawn."""
        for step in range(self._low, low):
            row = step % self._rows
            self._num_valid -= int(np.count_nonzero(self._valid[row]))
            # the row about to be written is admitted anew in a moment
            if self._priorities is not None and row != self._steps % self._rows:
                self._priorities.remove(np.arange(row * self.num_envs, (row + 1) * self.num_envs))
        if low > self._low:
            self._side.drop_before(low * self.num_envs)
        self._low = low

    def _keep_successors(self, obs: Mapping[str, Tensor]) -> None:
        """Put aside the newest row's successors that the row about to come does not show."""
        if all(obs[group] is head for group, head in self._head.items()):
            return
        differs = torch.from_numpy(~self._head_goes_on)
        for group, head in self._head.items():
            differs = differs | (obs[group] != head).flatten(1).any(-1).cpu()
        worlds = differs.nonzero().squeeze(-1)
        if len(worlds) > 0:
            keys = (self._steps - 1) * self.num_envs + worlds.numpy()
            self._side.append(keys, {g: head[worlds.to(head.device)] for g, head in self._head.items()})

    # ---- sampling ----------------------------------------------------------------------------

    def sample(self, request: Sample, rng: np.random.Generator) -> Batch:
        """Transitions drawn with replacement, or with batch_size 0 all of them, oldest first.

        Raises:
            UsageError: more rows asked for than there are, or sequences, goals and the like.
        """
        if request is not self._request:
            request.refuse_beyond("a replay of single transitions", *GIVEN)
            self._request = request
        if request.batch_size > self._num_valid:
            raise UsageError(f"asked for a batch of {request.batch_size}, but the replay holds {self._num_valid} "
                             f"transitions; collect more before learning (learning_starts)")  # fmt: skip
        weight = None
        if request.batch_size == 0:
            keys = self._all_keys()
        elif request.priority > 0.0:
            keys, weight = self._draw_by_priority(request, rng)
        else:
            keys = self._draw(request.batch_size, rng)
        return self._gather(keys, weight, request.n_step, request.discount)

    def set_priorities(self, rows: Tensor | None, priorities: Tensor) -> None:
        """New priorities (B,) of `Batch.rows`; those of rows that are gone by now are passed over.

        Raises:
            RunError: a priority is not a positive number, so the loss it comes from is none either.
        """
        assert self._priorities is not None and rows is not None, "nothing was drawn by priority yet"
        values = priorities.detach().cpu().double().numpy()
        if not (fine := np.isfinite(values) & (values > 0.0)).all():
            raise RunError(f"priorities must be positive and finite, found {values[~fine][:3].tolist()}; the "
                           f"learner's loss has gone wrong, go on from the last checkpoint with a smaller "
                           f"learning_rate")  # fmt: skip
        keys = rows.numpy()
        alive = keys >= self._low * self.num_envs
        self._priorities.update(keys[alive] % self._valid.size, values[alive])

    def _draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """`count` keys of valid transitions; those that hit an invalid one are drawn again."""
        low, high = self._low * self.num_envs, self._steps * self.num_envs
        keys = rng.integers(low, high, (count,))
        if self._num_valid < high - low:
            valid = self._valid.reshape(-1)
            while len(bad := (~valid.take(keys % valid.size)).nonzero()[0]) > 0:
                keys[bad] = rng.integers(low, high, len(bad))
        return keys

    def _draw_by_priority(self, request: Sample, rng: np.random.Generator) -> tuple[np.ndarray, Tensor]:
        """Keys and importance weights (B,)."""
        if self._priorities is None:
            self._priorities = Priorities(self._valid.size, request.priority)
            self._priorities.admit(self._all_keys() % self._valid.size)
        if self._priorities.exponent != request.priority:
            raise UsageError(f"this replay draws by priority to the power {self._priorities.exponent}, and cannot "
                             f"change to {request.priority}; start the run anew")  # fmt: skip
        places = self._priorities.draw(request.batch_size, rng)
        newest = self._steps * self.num_envs - 1
        weight = self._priorities.weight(places, self._num_valid, request.importance)
        return newest - (newest - places) % self._valid.size, self._to(weight)

    def _all_keys(self) -> np.ndarray:
        keys = np.arange(self._low * self.num_envs, self._steps * self.num_envs)
        return keys[self._valid.reshape(-1)[keys % self._valid.size]]

    # ---- putting a batch together ------------------------------------------------------------

    def _gather(self, keys: np.ndarray, weight: Tensor | None, n_step: int, discount: float) -> Batch:
        last, steps, reward = keys, None, None
        at = end = self._index(keys)
        if n_step > 1:
            last, steps, reward = self._accumulate(keys, n_step, discount)
            end = self._index(last)
        obs, next_obs = {}, self._successors(last)
        for group, history in self._history.items():
            obs[group] = self._take(f"obs.{group}", at) if history == 1 else self._stack(group, keys, history)
            if history > 1:
                # the successor's earlier frames are the last row's newest
                frames = obs[group] if last is keys else self._stack(group, last, history)
                width = self._obs[group].shape[-1]
                next_obs[group] = torch.cat([frames[..., width:], next_obs[group]], -1)
        return Batch(
            obs,
            self._take("action", at),
            self._take("reward", at) if reward is None else reward,
            next_obs,
            self._take("terminated", end),
            self._take("truncated", end),
            steps=steps,
            weight=weight,
            rows=torch.from_numpy(keys),
        )

    def _accumulate(self, keys: np.ndarray, n: int, discount: float) -> tuple[np.ndarray, Tensor, Tensor]:
        """(key of the last transition, effective n, discounted rewards) (B,) of rows of up to n steps."""
        ahead = np.arange(n)[:, None]
        places = (keys + self.num_envs * ahead) % self._valid.size  # (n, B)
        within = np.ones(places.shape, bool)
        np.logical_and.accumulate(self._goes_on.reshape(-1).take(places[:-1]), axis=0, out=within[1:])
        steps = within.sum(0)
        reward = self._take("reward", places if self.device.type == "cpu" else self._to(places.reshape(-1)))
        # a place beyond the newest may hold anything, NaN too: its factor 0 alone would not do
        reward = torch.where(self._to(within), reward.view(n, -1), 0.0)
        factor = self._to((discount**ahead).astype(np.float32))
        return keys + self.num_envs * (steps - 1), self._to(steps), (factor * reward).sum(0)

    def _stack(self, group: str, keys: np.ndarray, history: int) -> Tensor:
        """Observations (B, ...) of a group with the frames before them."""
        age = self._age.reshape(-1).take(keys % self._valid.size)
        stack = []
        for back in range(history - 1, -1, -1):
            frame = self._take(f"obs.{group}", self._index(keys - back * self.num_envs))
            if len(before := (age < back).nonzero()[0]) > 0:
                frame[self._to(before)] = 0
            stack.append(frame)
        return torch.cat(stack, -1)

    def _successors(self, keys: np.ndarray) -> dict[str, Tensor]:
        """The true next frame (B, ...) of every group."""
        after = self._index(keys + self.num_envs)
        result = {g: self._take(f"obs.{g}", after) for g in self._groups}
        for rows, source, index in self._elsewhere(keys):
            for group in result:
                result[group].index_copy_(0, rows, source[group].to(self.device).index_select(0, index))
        return result

    def _index(self, keys: np.ndarray) -> np.ndarray | Tensor:
        """Where the rows of keys lie, for `_take`."""
        places = keys % self._valid.size
        return places if self.device.type == "cpu" else self._to(places)

    def _take(self, name: str, places: Any) -> Tensor:
        flat = self._flat[name]
        return flat.index_select(0, places) if isinstance(flat, Tensor) else torch.from_numpy(flat.take(places, 0))

    def _elsewhere(self, keys: np.ndarray) -> Iterator[tuple[Tensor, Mapping[str, Tensor], Tensor]]:
        """(rows of the batch, where their successors lie, index there) for those that are not in the ring."""
        newest = (self._steps - 1) * self.num_envs
        if len(rows := (keys >= newest).nonzero()[0]) > 0:
            yield self._to(rows), self._head, self._to(keys[rows] - newest)
        rows, index = self._side.find(keys)
        if len(rows) > 0:
            yield self._to(rows), self._side.obs, self._to(index)

    def _to(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    # ---- saving and loading ------------------------------------------------------------------

    def save(self, folder: Path) -> dict[str, Any]:
        """Write the rows added since the last save as one new file; the manifest that names every file in use."""
        if folder != self._folder:
            self._folder, self._segments = folder, []
        oldest = max(0, self._steps - self._rows)
        first = max(self._segments[-1]["end"] if self._segments else 0, oldest)
        if first < self._steps:
            name = f"replay-{first}-{self._steps}.safetensors"
            written = write_tensors(folder, name, self._segment(first))
            self._segments.append({**written, "first": first, "end": self._steps})
        self._segments = [s for s in self._segments if s["end"] > oldest]
        manifest = {"format": FORMAT, "num_envs": self.num_envs, "rows": self._rows, "steps": self._steps,
                    "segments": [dict(s) for s in self._segments]}  # fmt: skip
        if self._priorities is not None:
            state = {name: torch.from_numpy(array) for name, array in self._priorities.state_dict().items()}
            self._saves += 1
            written = write_tensors(folder, f"priorities-{self._saves}.safetensors", state)
            manifest["priorities"] = {**written, "number": self._saves}
        return manifest

    def _segment(self, first: int) -> dict[str, Tensor]:
        """What the rows from step `first` on consist of."""
        rows = np.arange(first, self._steps) % self._rows
        index = self._to(rows)
        side = self._side.since((first - 1) * self.num_envs)
        return {
            **{f"obs.{g}": ring.index_select(0, index) for g, ring in self._obs.items()},
            **{name: column.index_select(0, index) for name, column in self._columns.items()},
            "valid": torch.from_numpy(self._valid[rows]),
            "age": torch.from_numpy(self._age[rows]),
            **{f"side.{g}": t for g, t in side.items()},
            **{f"head.{g}": head for g, head in self._head.items()},
        }

    def load(self, folder: Path, manifest: Mapping[str, Any]) -> None:
        """Become the buffer that was saved.

        Raises:
            RunError: a segment is missing or damaged, or it comes from a buffer of another shape.
        """
        steps, oldest, segments = ring_contents(folder, manifest, self.num_envs, self._rows)
        self._side = SideQueue(self._groups, self.device)
        self._valid[:] = self._goes_on[:] = False
        for segment in segments:
            self._restore(folder, segment, oldest)
        self._low = self._first_drawable(steps)
        self._side.drop_before(self._low * self.num_envs)
        drawable = np.arange(self._low, steps) % self._rows
        self._num_valid = int(np.count_nonzero(self._valid[drawable]))
        self._steps, self._folder, self._segments = steps, folder, segments
        self._tie_rows(oldest)
        self._priorities = None
        if (named := manifest.get("priorities")) is not None:
            self._saves = int(named["number"])
            state = read_tensors(folder, named, PRIORITIES)
            self._priorities = Priorities.restored({name: t.numpy() for name, t in state.items()})

    def _restore(self, folder: Path, segment: Mapping[str, Any], oldest: int) -> None:
        """Put one segment's rows where they were; those overwritten since are left out."""
        count = segment["end"] - segment["first"]
        columns = {name: (c.shape[2:], c.dtype) for name, c in self._columns.items()}
        tensors = read_tensors(folder, segment, replay_tensors(self.num_envs, self._groups, columns, count))
        skip = max(0, oldest - segment["first"])
        rows = np.arange(segment["first"] + skip, segment["end"]) % self._rows
        index = self._to(rows)
        for group, ring in self._obs.items():
            ring[index] = tensors[f"obs.{group}"][skip:].to(self.device)
            self._head[group] = tensors[f"head.{group}"].to(self.device)
        for name, column in self._columns.items():
            column[index] = tensors[name][skip:].to(self.device)
        self._valid[rows], self._age[rows] = tensors["valid"][skip:].numpy(), tensors["age"][skip:].numpy()
        self._side.append(tensors["side.key"].numpy(), {g: tensors[f"side.{g}"].to(self.device) for g in self._groups})

    def _tie_rows(self, oldest: int) -> None:
        """What `_continue` noted when the rows came."""
        done = (self._columns["terminated"] | self._columns["truncated"]).numpy(force=True)
        rows = np.arange(oldest, self._steps) % self._rows
        now, after = rows[:-1], rows[1:]
        self._goes_on[now] = self._valid[now] & self._valid[after] & ~done[now]
        self._head_goes_on = self._valid[rows[-1]] & ~done[rows[-1]] if len(rows) > 0 else np.zeros(self.num_envs, bool)
