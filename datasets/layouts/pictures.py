"""Coded pictures and films, decoded when they are asked for, and looked at before their pixels are.

Pictures are decoded by a few threads, films by ffmpeg, a process with threads of its own.

Legend: T frames.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError

WORKERS = min(8, os.cpu_count() or 1)
FEW = 4  # pictures for which threads do not pay
AHEAD = 64  # pictures that are handed out together


def decode(coded: Any, shape: tuple[int, ...], formats: tuple[str, ...], where: str) -> np.ndarray:
    """(height, width, 3) or (height, width) uint8 of one picture's bytes.

    Raises:
        DatasetError: it is of none of the formats, damaged, or of another size.
    """
    from PIL import Image

    data = bytes(coded) if isinstance(coded, bytes | bytearray) else np.asarray(coded, np.uint8).tobytes()
    try:
        with Image.open(io.BytesIO(data), formats=formats) as picture:
            found = (picture.height, picture.width, *((3,) if picture.mode == "RGB" else ()))
            if found != shape:
                raise DatasetError(f"{where} is {found} in mode {picture.mode}, expected {shape}")
            return np.asarray(picture)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where} is no {' or '.join(formats)}: {error}") from None


def decode_all(coded: Sequence[Any] | np.ndarray, shape: tuple[int, ...], formats: tuple[str, ...],
               where: Callable[[int], str]) -> np.ndarray:  # fmt: skip
    """(T, height, width, 3) or (T, height, width) uint8 of the bytes of T pictures, in their order, by worker threads.

    The decoders let go of Python's lock. A worker writes its picture where it belongs, so besides the result there is
    never more than one picture a worker. where: what to call picture i in an error; the first bad one is told.

    Raises:
        DatasetError: a picture is of none of the formats, damaged, or of another size.
    """
    frames = np.empty((len(coded), *shape), np.uint8)

    def put(i: int) -> None:
        frames[i] = decode(coded[i], shape, formats, where(i))

    if len(coded) < FEW:
        for i in range(len(coded)):
            put(i)
        return frames
    with ThreadPoolExecutor(min(WORKERS, len(coded)), "decode") as pool:
        for first in range(0, len(coded), AHEAD):  # few at a time, so that a bad one ends it soon
            for _ in pool.map(put, range(first, min(first + AHEAD, len(coded)))):
                pass
    return frames


def size_of(coded: Any, formats: tuple[str, ...], where: str) -> tuple[int, int, int]:
    """(height, width, 3) of a coloured picture, by its header.

    Raises:
        DatasetError: it is of none of the formats, or has no three colours.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(np.asarray(coded, np.uint8).tobytes()), formats=formats) as picture:
            if picture.mode != "RGB":
                raise DatasetError(f"{where} is a picture in mode {picture.mode}, expected RGB")
            return picture.height, picture.width, 3
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DatasetError(f"{where} is no {' or '.join(formats)}: {error}") from None


def film(file: Path, start: float, fps: float, shape: tuple[int, ...]) -> Callable[[int, int], np.ndarray]:
    """A function (first, stop) -> frames (T, height, width, 3) uint8 of a film that begins at `start` [s] in an mp4."""

    def frames(first: int, stop: int) -> np.ndarray:
        count = stop - first
        if count == 0:
            return np.empty((0, *shape), np.uint8)
        seek = max(0.0, start + (first - 0.5) / fps)  # half a frame early: the next frame is the first
        found, size = _decoded(file, seek, count, (shape[0] + 64) * (shape[1] + 64))
        if size != shape[:2]:
            raise DatasetError(f"{file} is a film of {size[0]} by {size[1]}, expected {shape[0]} by {shape[1]}")
        if len(found) != count * int(np.prod(shape)):
            raise DatasetError(
                f"{file} has {len(found) // int(np.prod(shape))} frames from {seek:.3f} s on, expected {count}"
            )
        return np.frombuffer(found, np.uint8).reshape(count, *shape)

    return frames


def _decoded(file: Path, seek: float, count: int, pixels: int) -> tuple[bytes, tuple[int, int]]:
    """RGB bytes of up to `count` frames, their height and width; opens no other file, decodes nothing larger."""
    from imageio_ffmpeg import get_ffmpeg_exe

    command = [get_ffmpeg_exe(), "-nostdin", "-max_pixels", str(pixels), "-protocol_whitelist", "file", "-f", "mp4",
               "-ss", f"{seek:.6f}", "-i", f"file:{file}", "-an", "-fps_mode", "passthrough", "-frames:v", str(count),
               "-pix_fmt", "rgb24", "-f", "rawvideo", "-"]  # fmt: skip
    try:
        done = subprocess.run(command, capture_output=True, timeout=60 + count)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DatasetError(f"{file} cannot be decoded: {error}") from None
    told = done.stderr.decode(errors="replace")
    size = re.search(r"Video: rawvideo.*?, (\d+)x(\d+)", told)
    if done.returncode or not size:
        raise DatasetError(
            f"{file} cannot be decoded: {told.strip().splitlines()[-1] if told.strip() else 'no frames'}"
        )
    return done.stdout, (int(size[2]), int(size[1]))
