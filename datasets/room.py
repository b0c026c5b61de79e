"""Room on the disk, taken before HDF5 needs it."""

from __future__ import annotations

import os
from pathlib import Path


def reserve(file: Path, extra: int) -> None:
    """Take `extra` bytes of disk beyond the file's end, or raise OSError while nothing is lost yet.

    HDF5 that meets a full disk half-way can neither write nor close its file; what it leaves unused it gives back.
    """
    descriptor = os.open(file, os.O_RDWR)
    try:
        os.posix_fallocate(descriptor, 0, os.fstat(descriptor).st_size + extra)
    finally:
        os.close(descriptor)
