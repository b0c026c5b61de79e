"""One writer a file: a lock that dies with its process, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from pathlib import Path

from ..errors import DatasetError


class FileLock:
    """Held on `.NAME.lock` beside a file from here until `release`, or until nobody refers to it.

    A killed process leaves the lock's file behind and no lock on it: the next writer takes it over.

    Raises:
        DatasetError: another writer holds it.
        OSError: the folder cannot be written.
    """

    def __init__(self, path: Path):
        self._file = path.with_name(f".{path.name}.lock")
        held = None
        while held is None:
            descriptor = os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                held = descriptor if self._is_there(descriptor) else None  # else its holder has just removed it
            except BlockingIOError:
                raise DatasetError(f"{path} is being written by another process; wait for it, or write "
                                   "to another file") from None  # fmt: skip
            finally:
                if held is None:
                    os.close(descriptor)
        self._release = weakref.finalize(self, _release, self._file, held)

    def release(self) -> None:
        """Let go; safe to call twice."""
        self._release()

    def __enter__(self) -> FileLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _is_there(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(os.fstat(descriptor), os.stat(self._file))
        except FileNotFoundError:
            return False


def _release(file: Path, descriptor: int) -> None:
    with contextlib.suppress(OSError):
        file.unlink()
    os.close(descriptor)
