"""Which data a run learned from: the SHA-256 of a file, or of a folder's files with their names."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import DatasetError

BLOCK = 1 << 20  # bytes read at a time


def sha256(path: Path) -> str:
    """The hash of a file; of a folder, of the names and hashes of all files below it, in order of name.

    Raises:
        DatasetError: there is nothing at `path`, or it cannot be read.
    """
    try:
        return _of_folder(path) if path.is_dir() else _of_file(path)
    except OSError as error:
        raise DatasetError(f"cannot read {path}: {error.strerror}") from None


def _of_file(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def _of_folder(path: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\n{_of_file(file)}\n".encode())
    return digest.hexdigest()
