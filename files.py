"""Writing files so that a crash, a kill or a full disk leaves the old contents or the new, never half of one.

Both functions let OSError through: the caller knows what the file means and says what to do.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def write_durably(path: Path, data: bytes) -> None:
    """Write a new file whose bytes are on the disk when this returns; what fails leaves no file behind."""
    try:
        with open(path, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        with contextlib.suppress(OSError):
            path.unlink()
        raise


def replace_durably(path: Path, data: bytes) -> None:
    """Put `data` in the place of the file at `path` in one step; what fails leaves the old file as it was."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    write_durably(temporary, data)
    try:
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY)  # the new name is on the disk only with its folder
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
