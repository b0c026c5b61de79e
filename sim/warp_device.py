"""What Warp needs of a machine, and how a series of launches is recorded once and replayed.

torch and Warp share one stream and one memory: whatever is launched here comes after what torch launched before it.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch

from ..errors import UsageError

_ELSE = "simulate on the CPU instead (engine=cpu)"


def require_warp(device: str | torch.device) -> torch.device:
    """The device, with its index, on which Warp can step worlds; Warp is loaded, and silent.

    Raises:
        UsageError: the extra is not installed, there is no such device, or its driver is too old.
    """
    try:
        wanted = torch.device(device)
    except RuntimeError:
        raise UsageError(f"device should be cpu, cuda or cuda:NUMBER, not {str(device)!r}") from None
    if wanted.type not in ("cpu", "cuda"):
        raise UsageError(f"the GPU engine runs on CUDA devices (and, slowly, on cpu), not on {wanted}; {_ELSE}")
    if wanted.type == "cuda" and not torch.cuda.is_available():
        raise UsageError(f"{wanted} was asked for, and torch finds no CUDA GPU that it can use (nvidia-smi shows what "
                         f"the driver has); {_ELSE}")  # fmt: skip
    if wanted.type == "cuda" and (wanted.index or 0) >= torch.cuda.device_count():
        raise UsageError(f"{wanted} was asked for, and there are {torch.cuda.device_count()} CUDA devices, from cuda:0")
    _load()
    if wanted.type == "cpu":
        return wanted
    return _with_driver(torch.device("cuda", torch.cuda.current_device() if wanted.index is None else wanted.index))


def _load() -> None:
    """Import and start Warp without a word, its native library's lines on stderr included."""
    try:
        import warp as wp
    except ImportError:
        raise UsageError("the GPU engine needs NVIDIA Warp, which is not installed: pip install 'poise[gpu]'") from None
    wp.config.log_level = wp.LOG_ERROR
    with contextlib.nullcontext() if torch.cuda.is_available() else _no_stderr():
        wp.init()
    try:
        import mujoco_warp  # noqa: F401
    except ImportError:
        raise UsageError("the GPU engine needs MuJoCo Warp, which is not installed: pip install 'poise[gpu]'") from None


def _with_driver(device: torch.device) -> torch.device:
    import warp as wp

    if device.index >= wp.get_cuda_device_count():
        raise UsageError(f"the NVIDIA driver is too old for Warp {wp.__version__}, which cannot use {device}: "
                         f"install a newer driver, or {_ELSE}")  # fmt: skip
    return device


@contextlib.contextmanager
def _no_stderr() -> Iterator[None]:
    """Where there is no driver at all, Warp's library says so on stderr, past Python; nobody asked here."""
    kept, nothing = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nothing)


def can_record(device: torch.device) -> bool:
    """Whether launches, and what they allocate, can be recorded here."""
    import warp as wp

    return device.type == "cpu" or wp.is_mempool_enabled(str(device))


@contextlib.contextmanager
def on(device: torch.device) -> Iterator[None]:
    """Launches go to this device, on torch's present stream."""
    import warp as wp

    with wp.ScopedDevice(str(device)):
        if device.type == "cpu":
            yield
            return
        with wp.ScopedStream(wp.stream_from_torch(torch.cuda.current_stream(device))):
            yield


class Recorded:
    """A series of launches with constant buffers, replayed without Python: a CUDA graph, or its like on the CPU."""

    def __init__(self, do: Callable[[], None], device: torch.device):
        """Launch once, which compiles and loads what is needed, and record."""
        self._do, self._device, self._graph = do, device, None
        with on(device):
            do()
        if can_record(device):
            self._graph = self._record()

    def _record(self) -> Any:
        import warp as wp

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        was_on = gc.isenabled()
        gc.disable()  # an array that is freed while launches are recorded would end the recording
        try:
            # on Warp's own stream: the one that torch begins with cannot be recorded
            with wp.ScopedDevice(str(self._device)), wp.ScopedCapture(force_module_load=False) as capture:
                self._do()
        finally:
            if was_on:
                gc.enable()
        return capture.graph

    def __call__(self) -> None:
        if self._graph is None:
            with on(self._device):
                self._do()
            return
        import warp as wp

        cuda = self._device.type == "cuda"
        with wp.ScopedDevice(str(self._device)):
            stream = wp.stream_from_torch(torch.cuda.current_stream(self._device)) if cuda else None
            wp.capture_launch(self._graph, stream=stream)
