"""Compiling an update whole: when it pays, and what it says while it does."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..errors import UsageError
from .adam import flushed_denormals

COMPILE_PAYS_AFTER = 100_000  # updates; compiling takes 15-40 s once, and each update then saves some 0.6 ms


def should_compile(wish: str, planned_updates: int, device: torch.device) -> bool:
    """Whether to compile an update: asked for ("on"), or "auto" with a compiler and time to win back the wait."""
    # torch needs a C++ compiler for the CPU; for CUDA it brings its own
    able = device.type != "cpu" or shutil.which("c++") is not None or shutil.which("g++") is not None
    if wish == "on" and not able:
        raise UsageError("setting compile = 'on': needs a C++ compiler, and there is no c++ or g++ on PATH; "
                         "install one (apt install g++), or set compile=off")  # fmt: skip
    return wish == "on" or (wish == "auto" and able and planned_updates >= COMPILE_PAYS_AFTER)


def compiled(update: Callable[..., Any], device: torch.device, name: str) -> Callable[..., Any]:
    """`update` compiled whole at its first call, which reports how long that took.

    Every call must be like the first: the same networks and settings, batches of the same shapes. Torch would look at
    each of some 150 tensors to make sure, in every call, which takes 3 % of an update.
    """
    options: dict[str, Any] = {"guard_filter_fn": lambda guards: [False] * len(guards)}
    if device.type == "cpu":  # a C++ wrapper around the kernels saves Python's share between them, 2 % of an update
        options["cpp_wrapper"] = True
    function = torch.compile(  # pyright: ignore[reportCallIssue]  (torch's stub lacks isolate_recompiles)
        update, fullgraph=True, dynamic=False, isolate_recompiles=True, options=options
    )
    log, first = logging.getLogger(f"poise.{name}"), True

    def call(*arguments: Any) -> dict[str, Tensor]:
        nonlocal first
        if not first:
            with flushed_denormals():
                return function(*arguments)
        first, started = False, time.monotonic()
        log.info("compiling the update of %s, once; --set compile=off avoids the wait", name)
        result = function(*arguments)
        log.info("compiled the update of %s in %.1f s", name, time.monotonic() - started)
        return result

    return call
