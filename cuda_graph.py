"""A whole update as one CUDA graph: recorded once, then replayed with a single launch.

An update of small networks is hundreds of kernels of a few microseconds each, and the host cannot launch them as fast
as they finish. A graph launches all of them at once. The rules (torch.cuda.CUDAGraph): the same memory in every
replay, so inputs are copied into buffers that stay; no decision that the host takes on data; randomness only from
generators that the graph knows; some runs before recording, on a stream of their own, so that libraries have set up
their workspaces.

Not measured on a GPU: there was none. On a CPU `captured` gives the function back as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

Metrics = dict[str, Tensor]
Function = Callable[..., Metrics]  # of tensors, in place on everything else it touches

WARM_UPS = 3  # real updates, made before recording as everything else would make them

_inside: list[object] = []  # the recording, or the warm-up for one, that is under way: what it calls is a part of it


def captured(function: Function, device: torch.device, generators: Sequence[torch.Generator] = ()) -> Function:
    """`function` recorded as a CUDA graph at its fourth call; the function itself on another device.

    generators: those that it draws from inside.
    """
    return Captured(function, generators) if device.type == "cuda" else function


class Captured:
    """Calls a function of tensors a few times, then records it, then replays the recording."""

    def __init__(self, function: Function, generators: Sequence[torch.Generator] = ()):
        self._function, self._generators = function, generators
        self._calls = 0
        self._stream: torch.cuda.Stream | None = None
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: list[Tensor] = []
        self._metrics: Metrics = {}

    def __call__(self, *inputs: Tensor) -> Metrics:
        """What the function returns for these inputs, which must keep their shapes from call to call."""
        if _inside:
            return self._function(*inputs)
        if self._calls < WARM_UPS:
            self._calls += 1
            return self._aside(*inputs)
        if self._graph is None:
            self._record(inputs)
        assert self._graph is not None
        for kept, given in zip(self._inputs, inputs, strict=True):
            kept.copy_(given)
        self._graph.replay()
        return {name: value.clone() for name, value in self._metrics.items()}  # the next replay writes there again

    def _aside(self, *inputs: Tensor) -> Metrics:
        """The function on a stream of its own, as capturing asks of the runs before it."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream), _as_one(self):
            metrics = self._function(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        return metrics

    def _record(self, inputs: Sequence[Tensor]) -> None:
        """Record the function; recording runs nothing, so the first replay is the update that was asked for."""
        self._inputs = [given.clone() for given in inputs]
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        # where processes train together, a thread of NCCL's asks after its events meanwhile, which is no part of this
        mode = "thread_local" if torch.distributed.is_initialized() else "global"
        with torch.cuda.graph(graph, capture_error_mode=mode), _as_one(self):
            self._metrics = self._function(*self._inputs)
        self._graph = graph


@contextmanager
def _as_one(graph: Captured) -> Iterator[None]:
    """Inside, captured functions are called as they are: a recording holds no other."""
    _inside.append(graph)
    try:
        yield
    finally:
        _inside.pop()
