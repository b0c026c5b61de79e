"""D4RL's files, downloaded once: `d4rl:hopper-medium-v2` is an address that open_log takes.

    FOLDER/hopper_medium-v2.hdf5           whole, or not there
    FOLDER/hopper_medium-v2.hdf5.sha256    its checksum, written when it came and compared at every use
    FOLDER/hopper_medium-v2.hdf5.part      what has come so far; .part.from says of which file, and the next try goes on

FOLDER is $D4RL_DATASET_DIR, else ~/.d4rl/datasets, as for d4rl itself, whose downloads serve here and ours there.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import h5py
from tqdm import tqdm

from ..errors import DatasetError
from ..files import replace_durably
from .d4rl_names import entry

TIMEOUT = 30.0  # seconds without a byte
BLOCK = 1 << 20


def folder() -> Path:
    """Where D4RL's files are kept."""
    return Path(os.environ.get("D4RL_DATASET_DIR") or Path.home() / ".d4rl" / "datasets")


def fetch(name: str) -> Path:
    """The file of one data set, downloaded where it is not there yet.

    Raises:
        UsageError: D4RL has no such set.
        DatasetError: it cannot be had, or is not the file that once came.
    """
    url = entry(name)["url"]
    file = folder() / url.rpartition("/")[2]
    if not file.exists():
        try:
            _download(url, file)
        except (OSError, http.client.HTTPException) as error:  # URLError and HTTPError are OSErrors
            raise DatasetError(f"{url} cannot be downloaded: {getattr(error, 'reason', None) or error}. Put the file "
                               f"there by hand: {file}") from None  # fmt: skip
    _verify(file)
    return file


def _verify(file: Path) -> None:
    """Compare the file with its checksum, or write one where there is none."""
    sidecar = file.with_name(f"{file.name}.sha256")
    found = _checksum(file)
    if not sidecar.exists():
        _write_checksum(file, found)
    elif (wanted := sidecar.read_text().split(" ")[0]) != found:
        raise DatasetError(
            f"{file} has the checksum {found[:12]}…, and had {wanted[:12]}… when it came: it is damaged or another "
            f"file. Remove it to download it again, or {sidecar.name} to take it as it is"
        )


def _checksum(file: Path) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _write_checksum(file: Path, checksum: str) -> None:
    """In the form that `sha256sum -c` reads; a folder that cannot be written to goes without."""
    sidecar = file.with_name(f"{file.name}.sha256")
    if os.access(file.parent, os.W_OK):
        replace_durably(sidecar, f"{checksum}  {file.name}\n".encode())


def _download(url: str, file: Path) -> None:
    """Bring the file, going on where an earlier try ended; it takes its name when it is whole."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with open(part, "ab") as out:
        try:
            fcntl.flock(out, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(f"another process is downloading {part}; wait for it") from None
        if file.exists():  # another process was faster
            return
        _receive(url, out, part)
        out.flush()
        os.fsync(out.fileno())
        if not h5py.is_hdf5(part):
            part.unlink()
            raise DatasetError(f"what came from {url} is no HDF5 file, perhaps the page of a proxy. Put the file there "
                               f"by hand: {file}")  # fmt: skip
        _write_checksum(file, _checksum(part))
        os.replace(part, file)
        part.with_suffix(".part.from").unlink(missing_ok=True)


def _receive(url: str, out: Any, part: Path) -> None:
    origin = part.with_suffix(".part.from")
    have, known = out.tell(), origin.read_text().split("\n") if origin.exists() else []
    request = urllib.request.Request(url)
    if have and known[:1] == [url] and known[1:]:
        request.add_header("Range", f"bytes={have}-")
        request.add_header("If-Range", known[1])  # another file by now: it comes whole
    with _opened(request, part, have) as answer:
        resumed = answer.status == 206 and answer.headers.get("Content-Range", "").startswith(f"bytes {have}-")
        if not resumed:
            have = 0
            out.seek(0)
            out.truncate()
        validator = answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""
        origin.write_text("\n".join([url, *([validator] if validator and not validator.startswith("W/") else [])]))
        length = int(answer.headers["Content-Length"]) if "Content-Length" in answer.headers else None
        if length is not None and length > (free := shutil.disk_usage(part.parent).free):
            raise DatasetError(f"{url} needs {length:,} bytes, and {part.parent} has {free:,} free")
        received = _copy(answer, out, length, have, part.name)
    if length is not None and received != length:
        raise DatasetError(f"{url} ended after {have + received:,} of {have + length:,} bytes; the same command goes "
                           "on from there")  # fmt: skip


def _opened(request: urllib.request.Request, part: Path, have: int) -> Any:
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code != 416 or not have:  # 416: nothing comes after what we have
            raise
    os.truncate(part, 0)
    return urllib.request.urlopen(request.full_url, timeout=TIMEOUT)


def _copy(answer: Any, out: Any, length: int | None, have: int, what: str) -> int:
    """Bytes that came; those are in the file even where the connection breaks."""
    received = 0
    total = None if length is None else have + length
    with tqdm(total=total, initial=have, unit="B", unit_scale=True, desc=what, disable=None) as bar:
        while block := answer.read1(BLOCK):
            out.write(block)
            received += len(block)
            bar.update(len(block))
    return received
