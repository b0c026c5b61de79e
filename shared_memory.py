"""Memory that several processes share: a file without a name (memfd), passed on by its descriptor.

It goes when its last user does, however that ends. With Python's own shared memory (3.11) a process that dies takes the
name away from everybody else.
"""

from __future__ import annotations

import os
import platform
import tempfile

ORDERED = platform.machine() in ("x86_64", "AMD64", "i686")  # whether another process sees stores in their order


def shared_memory(size: int, name: str) -> int:
    """A descriptor of so many bytes, all zero; pass it on by `pass_fds` of subprocess, or `os.dup`.

    Every page is there from the beginning, and none can be cut off: nobody meets a fault in memory that is shared.

    Raises:
        OSError: there is not so much.
    """
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
        os.ftruncate(descriptor, size)
        return descriptor
    import fcntl

    descriptor = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.posix_fallocate(descriptor, 0, size)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
