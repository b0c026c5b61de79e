"""Kernels of Warp in place of long series of torch's operations: when they serve, and how one is launched.

A step of many worlds on a GPU is bound by how many launches it takes, and a recorded graph by how many it replays.
torch and Warp share memory and a stream, so a launch here is as one of torch's, and is recorded with them.

    keyed_warp.py          keyed random numbers
    kinematics_warp.py     the tool's pose
    sim/warp_commands.py   commands on their way to a target
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def serve(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether the GPU engine has loaded Warp, and the numbers are of the kind that kernels take."""
    return "warp" in sys.modules and dtype == torch.float32 and device.type in ("cpu", "cuda")


def launch(kernel: Any, shape: tuple[int, ...], inputs: Sequence[Any], outputs: Sequence[Tensor]) -> None:
    """One thread for each index of `shape`; inputs are numbers, and tensors on the device of the outputs."""
    import warp as wp

    wp.init()  # does nothing where it was done
    device = outputs[0].device
    where: dict[str, Any] = {"device": str(device)}
    if device.type == "cuda":
        where["stream"] = wp.stream_from_torch(torch.cuda.current_stream(device))
    given = [wp.from_torch(x, requires_grad=False) if isinstance(x, Tensor) else x for x in inputs]
    wp.launch(kernel, shape, inputs=given, outputs=[wp.from_torch(x) for x in outputs], **where)
