"""Memory of a GPU, asked for before it is taken: a clear line instead of an error from deep inside."""

from __future__ import annotations

import torch

from ..errors import UsageError

SHARE = 0.8  # of what is free; networks, their updates and the worlds want some


def require_room(nbytes: int, device: torch.device, capacity: int) -> None:
    """Raise UsageError unless a replay of so many bytes and transitions fits into what is free on a GPU."""
    free, total = torch.cuda.mem_get_info(device)
    if nbytes <= SHARE * free:
        return
    most = int(capacity * SHARE * free / nbytes)
    raise UsageError(f"a replay of {capacity:,} transitions takes {nbytes / 2**30:.1f} GiB on the GPU, of which "
                     f"{free / 2**30:.1f} of {total / 2**30:.1f} GiB are free; set capacity to {most:,} or less (some "
                     f"memory is left for networks and worlds), or use --device cpu")  # fmt: skip
