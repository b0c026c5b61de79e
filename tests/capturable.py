"""only_capturable: what runs inside it could run inside a CUDA graph, as far as a machine without a GPU can tell.

    step(…)                     # once before, as graphs are recorded after warm-ups: constants are made here
    with only_capturable():
        step(…)                 # AssertionError at the first operation that a recording would refuse or freeze

It refuses what asks the device for a value (item, bool, nonzero, masks as indices, …), what hands data to the host
(numpy, tolist, cpu), and fresh tensors from the host's numbers (torch.tensor, as_tensor of an array, a list as an
index). Numbers that a kernel takes as they are pass: `2.0 * x`, `x[i] = 0.5`, torch.full.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

_aten = torch.ops.aten
_ASKS = {
    _aten._local_scalar_dense, _aten.is_nonzero, _aten.equal, _aten.allclose, _aten.nonzero, _aten.masked_select,
    _aten._unique, _aten._unique2, _aten.unique_consecutive, _aten.unique_dim, _aten.unique_dim_consecutive,
    _aten.bincount, _aten.argwhere,
}  # fmt: skip
_INDEXES = {_aten.index, _aten.index_put, _aten.index_put_, _aten._index_put_impl_, _aten._unsafe_index}
_LEAVES = {Tensor.cpu, Tensor.numpy, Tensor.tolist, Tensor.item, Tensor.__array__, Tensor.__bool__, Tensor.__float__,
           Tensor.__int__, Tensor.__index__}  # fmt: skip
_FRESH = {torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor}


class NotCapturable(TorchDispatchMode):
    """Refuses the operators that a CUDA graph cannot record."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # or torch loads its compiler for this, which takes seconds

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        packet, kwargs = func.overloadpacket, kwargs or {}
        if packet in _ASKS or (func is _aten.repeat_interleave.Tensor and kwargs.get("output_size") is None):
            raise AssertionError(f"{func} asks the device for a value, or for a shape that depends on data")
        if packet in _INDEXES and any(isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]):
            raise AssertionError(f"{func} with a mask as an index: its shape depends on data; use torch.where")
        if packet is _aten.lift_fresh and args[0].ndim:  # a number by itself is written by a kernel: x[i] = 0.5
            raise AssertionError(f"a fresh tensor from the host's numbers {args[0]}: poise.arrays.constant keeps them")
        if packet is _aten._to_copy and kwargs.get("device", args[0].device) != args[0].device:
            raise AssertionError(f"a copy from {args[0].device} to {kwargs['device']}")
        return func(*args, **kwargs)


class _NotCarrying(TorchFunctionMode):
    """Refuses the calls that carry numbers from the device to the host or back, which on a CPU need no operator."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in _LEAVES:
            raise AssertionError(f"Tensor.{func.__name__} hands the device's numbers to the host, which waits for them")
        if func in _FRESH and not isinstance(args[-1], Tensor):
            raise AssertionError(f"{func.__name__} makes a tensor from the host's {args[-1]!r}: poise.arrays.constant "
                                 "keeps what was made once")  # fmt: skip
        return func(*args, **(kwargs or {}))


@contextmanager
def only_capturable() -> Iterator[None]:
    """Refuse, until the end of the block, what a CUDA graph could not record; see the module."""
    with NotCapturable(), _NotCarrying():
        yield
