"""Data-parallel training: what the processes of one run exchange, so that together they compute what one would.

Each process simulates its share of the worlds and learns from its share of every batch; an exchange makes of each
process's mean over its share the mean over all, so that every process takes the very same step:

    gradients                 averaged between the derivative and Adam, all of them in one all-reduce a step
    divergence, losses        averaged beside them: learning rate and penalty follow the KL of the whole batch
    moments of normalizers    pooled (Chan et al. 1979), count, mean and variance of all rows
    weights of rows           sum to one in the mean over the processes, also where one has fewer rows than another

`ALONE` is the group of a run in one process: it gives back what it was given. `Processes` is one over
torch.distributed: gloo between CPUs, and NCCL between GPUs, whose all-reduce a CUDA graph can hold.

Legend: P processes.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor

from ..errors import RunError, UsageError
from ..normalizer import Pool

PATIENCE = timedelta(minutes=30)  # for the slowest process, which may be scoring the policy


class ContactLost(RunError):
    """Another process of the run has ended, or says nothing: what ended it is told elsewhere."""


class Group:
    """One process alone: exchanging changes nothing and costs nothing."""

    rank = 0
    size = 1

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over the processes into each tensor, all in one exchange."""

    def mean(self, values: Tensor) -> Tensor:
        """The mean over the processes."""
        return values

    def largest(self, values: Tensor) -> Tensor:
        """The largest over the processes."""
        return values

    def pooled(self, count: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Count, mean and variance (k,) of all processes' rows, of those of each."""
        return count, mean, var

    def agree_(self, tensors: Sequence[Tensor]) -> None:
        """Put what the first process has into each tensor."""

    def any(self, *flags: bool) -> tuple[bool, ...]:
        """Whether each is true in any process."""
        return flags

    def told(self, value: Any) -> list[Any]:
        """What every process says, as JSON can hold it, in the order of their ranks."""
        return [value]

    def wait(self) -> None:
        """Until every process is here."""

    def close(self) -> None:
        """Leave the others."""


ALONE = Group()


class Processes(Group):
    """The processes of one run, each of which makes the same calls in the same order.

    Raises:
        ContactLost: in any call, when another process is gone.
    """

    def __init__(self, rank: int, size: int, device: torch.device, meet: str):
        """`meet`: where they find each other, a URL of torch.distributed; env:// is what torchrun sets."""
        from torch import distributed

        self.rank, self.size, self._device, self._all = rank, size, device, distributed
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        self._made(lambda: distributed.init_process_group(backend, init_method=meet, rank=rank, world_size=size,
                                                          timeout=PATIENCE))  # fmt: skip

    def mean_(self, tensors: Sequence[Tensor]) -> None:
        one = len(tensors) == 1 and tensors[0].is_contiguous()
        flat = tensors[0] if one else torch.cat([t.reshape(-1) for t in tensors])
        self._made(lambda: self._all.all_reduce(flat))
        flat.div_(self.size)
        if not one:
            parts = flat.split([t.numel() for t in tensors])
            for tensor, part in zip(tensors, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def mean(self, values: Tensor) -> Tensor:
        result = values.clone()
        self.mean_([result])
        return result

    def largest(self, values: Tensor) -> Tensor:
        result = values.clone()
        self._made(lambda: self._all.all_reduce(result, self._all.ReduceOp.MAX))
        return result

    def pooled(self, count: Tensor, mean: Tensor, var: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        mine = torch.stack([count.expand_as(mean), mean, var]).double()
        every = [torch.empty_like(mine) for _ in range(self.size)]
        self._made(lambda: self._all.all_gather(every, mine))
        n, means, variances = torch.stack(every, 1)  # (P, k) each
        share = n / n.sum(0).clamp_min(1.0)
        together = (share * means).sum(0)
        spread = (share * (variances + (means - together).square())).sum(0)
        return n.sum(0), together, spread

    def agree_(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            self._made(lambda tensor=tensor: self._all.broadcast(tensor, 0))

    def any(self, *flags: bool) -> tuple[bool, ...]:
        seen = torch.tensor(flags, dtype=torch.uint8)
        return tuple(bool(flag) for flag in self.largest(seen).tolist())

    def told(self, value: Any) -> list[Any]:
        text = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        self._made(lambda: self._all.all_gather(lengths, torch.tensor([len(text)])))
        longest = max(int(n) for n in lengths)
        texts = [torch.zeros(longest, dtype=torch.uint8) for _ in range(self.size)]
        self._made(lambda: self._all.all_gather(texts, torch.nn.functional.pad(text, (0, longest - len(text)))))
        return [json.loads(bytes(t[: int(n)].tolist())) for t, n in zip(texts, lengths, strict=True)]

    def wait(self) -> None:
        self.any(False)

    def close(self) -> None:
        self._all.destroy_process_group()

    def _made(self, exchange: Callable[[], Any]) -> None:
        try:
            exchange()
        except RuntimeError as error:  # torch's errors of communication are no narrower in gloo
            raise ContactLost(f"process {self.rank} of a run in {self.size} lost contact with the others "
                              f"({str(error).splitlines()[0]}); resume the run") from error  # fmt: skip


def require_same(group: Group, learner: Mapping[str, Any]) -> None:
    """Raise RunError unless every process's networks are the same to the bit, as every step should leave them."""
    if group.size == 1:
        return
    arrays = [t.numpy(force=True).tobytes() for t in learner["networks"].values()]
    prints = group.told([zlib.crc32(data) for data in arrays])
    if any(mine != prints[0] for mine in prints):
        raise RunError(f"the networks of the {group.size} processes are no longer the same, nor are their steps; "
                       f"run them on machines of one kind, and resume from the last checkpoint")  # fmt: skip


def pool_of(group: Group) -> Pool | None:
    """How a normalizer of one of the processes pools its moments; not at all in a process alone."""
    return None if group.size == 1 else group.pooled


def own_part(total: int, size: int, name: str) -> int:
    """The part that each of `size` processes has of a number that all share.

    Raises:
        UsageError: it cannot be shared equally.
    """
    if total % size != 0:
        raise UsageError(f"setting {name} = {total}: expected a multiple of processes = {size}, "
                         f"which share it equally")  # fmt: skip
    return total // size


def even_parts(total: int, parts: int) -> list[int]:
    """`total` rows in exactly `parts` parts, as equal as can be; a process may have fewer rows than another."""
    few, more = divmod(total, parts)
    return [few + 1] * more + [few] * (parts - more)
