"""A replay's files: each holds what came between two saves and is never touched again; a manifest lists them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ..errors import RunError
from ..files import write_durably

FORMAT = 2
Kind = tuple[tuple[int, ...], torch.dtype]


def manifest_contents(folder: Path, manifest: Mapping[str, Any]) -> tuple[int, list[dict[str, Any]]]:
    """(steps, segments) of a manifest, well-formed."""
    try:
        keys = {"file": str, "first": int, "end": int, "bytes": int, "crc32": int}
        return int(manifest["steps"]), [{k: kind(s[k]) for k, kind in keys.items()} for s in manifest["segments"]]
    except (KeyError, TypeError, ValueError) as error:
        raise RunError(f"the replay's manifest in {folder} is damaged ({error!r}); start the run anew") from None


def ring_contents(
    folder: Path, manifest: Mapping[str, Any], num_envs: int, rows: int
) -> tuple[int, int, list[dict[str, Any]]]:
    """(steps, oldest, segments) for a ring of so many rows: steps ever added, the first that is left, files.

    Raises:
        RunError: the manifest is damaged, or that of a buffer of another shape.
    """
    mine = {"format": FORMAT, "num_envs": num_envs, "rows": rows}
    if differs := [f"{k} expected {v}, found {manifest.get(k)}" for k, v in mine.items() if manifest.get(k) != v]:
        raise RunError(f"the replay saved in {folder} does not fit this run: {', '.join(differs)}; "
                       f"resume with the settings that the run was started with")  # fmt: skip
    steps, segments = manifest_contents(folder, manifest)
    oldest = max(0, steps - rows)
    _check_coverage(folder, segments, oldest, steps)
    return steps, oldest, segments


def _check_coverage(folder: Path, segments: list[dict[str, Any]], oldest: int, steps: int) -> None:
    """The files must continue each other, from the oldest row or before to the newest."""
    covered = min(oldest, segments[0]["first"]) if segments else oldest
    for segment in segments:
        if segment["first"] != covered:
            break
        covered = segment["end"]
    if covered != steps:
        raise RunError(f"the replay's manifest in {folder} is damaged: expected files for steps {oldest} to {steps}, "
                       f"found {[(s['first'], s['end']) for s in segments]}; start the run anew")  # fmt: skip


def replay_tensors(
    num_envs: int, groups: Mapping[str, Kind], columns: Mapping[str, Kind], steps: int
) -> dict[str, Kind]:
    """Shape and type of every tensor in a file of so many steps; -1 where it is not known beforehand.

    groups, columns: shape and type of what one world has of each.
    """
    expected = {f"obs.{g}": ((steps, num_envs, *shape), dtype) for g, (shape, dtype) in groups.items()}
    expected |= {name: ((steps, num_envs, *shape), dtype) for name, (shape, dtype) in columns.items()}
    expected |= {f"head.{g}": ((num_envs, *shape), dtype) for g, (shape, dtype) in groups.items()}
    expected |= {f"side.{g}": ((-1, *shape), dtype) for g, (shape, dtype) in groups.items()}
    return {**expected, "valid": ((steps, num_envs), torch.bool), "age": ((steps, num_envs), torch.int32),
            "side.key": ((-1,), torch.int64)}  # fmt: skip


def write_tensors(folder: Path, name: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """A new file, safely on the disk, and what the manifest says of it."""
    data = save({name: t.detach().cpu().contiguous() for name, t in tensors.items()})
    write_durably(folder / name, data)
    return {"file": name, "bytes": len(data), "crc32": zlib.crc32(data)}


def read_tensors(folder: Path, segment: Mapping[str, Any], expected: Mapping[str, Kind]) -> dict[str, Tensor]:
    """The tensors of one file, checked against the manifest and against what this buffer holds."""
    path = folder / segment["file"]
    try:
        data = path.read_bytes()
    except OSError as error:
        raise RunError(f"cannot read {path}, which the checkpoint names: {error.strerror}; "
                       f"the run cannot go on without it") from None  # fmt: skip
    if len(data) != segment["bytes"] or zlib.crc32(data) != segment["crc32"]:
        raise RunError(f"{path} is damaged: expected {segment['bytes']} bytes with checksum {segment['crc32']}, "
                       f"found {len(data)} with {zlib.crc32(data)}; copy it again or start the run anew")  # fmt: skip
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise RunError(f"{path} is damaged ({error}); copy it again or start the run anew") from None
    for name, (shape, dtype) in expected.items():
        found = tensors.get(name)
        fits = found is not None and found.dtype == dtype and len(found.shape) == len(shape) and all(
            want in (-1, have) for want, have in zip(shape, found.shape, strict=True)
        )  # fmt: skip
        if not fits:
            came = "nothing" if found is None else f"{tuple(found.shape)} {found.dtype}"
            raise RunError(f"{path}: {name} should be {shape} {dtype}, found {came}; "
                           f"resume with the task and settings that the run was started with")  # fmt: skip
    return tensors
