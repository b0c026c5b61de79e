"""Checkpoints: tensors and JSON in a folder, complete at every moment or not there at all. No pickle.

    checkpoint/
      manifest.json           renamed into place last; it names every file that belongs to it
      state-<n>.safetensors   the tensors of everything but the replay
      <segments>              what the buffer wrote: append-only, new rows since the last checkpoint

A kill between two writes leaves the previous manifest and all its files as they were; files that no manifest
names are removed at the next save.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ..errors import RunError
from ..files import replace_durably, write_durably

FORMAT = 1
MANIFEST = "manifest.json"
BEFORE = "manifest-before.json"  # of the checkpoint before the newest, where that is kept


def save_checkpoint(
    folder: Path, state: Mapping[str, Any], buffer: Any, info: Mapping[str, Any], keep_before: bool = False
) -> None:
    """Write `state` (nested dicts and lists of tensors, arrays and JSON values), the news of a buffer, and `info`.

    keep_before: the checkpoint before this one stays, for `settle_checkpoint` to choose between the two.

    Raises:
        RunError: the disk refused; the previous checkpoint is untouched.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        number = _next_number(folder)
        tensors: dict[str, np.ndarray] = {}
        tree = _flatten(state, "state", tensors)
        name = f"state-{number}.safetensors"
        write_durably(folder / name, save(tensors))
        manifest = {"format": FORMAT, "number": number, "state": name, "tree": tree,
                    "buffer": {} if buffer is None else buffer.save(folder), "info": dict(info)}  # fmt: skip
        text = named = json.dumps(manifest, allow_nan=False)
        if keep_before and has_checkpoint(folder):
            before = (folder / MANIFEST).read_bytes()
            replace_durably(folder / BEFORE, before)
            named += before.decode()
        replace_durably(folder / MANIFEST, text.encode())
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        what = "no space is left on the disk" if full else error.strerror
        kept = "the previous checkpoint is intact" if has_checkpoint(folder) else "there is no checkpoint yet"
        fix = "free some space" if full else "make the folder writable"
        raise RunError(f"cannot save a checkpoint in {folder}: {what}; {kept}; {fix} and resume") from error
    _remove_unnamed(folder, named)


def has_checkpoint(folder: Path) -> bool:
    """Whether a complete checkpoint is there."""
    return (folder / MANIFEST).exists()


def settle_checkpoint(folder: Path, steps: int) -> None:
    """Make of the two newest checkpoints the one that was saved after `steps` steps the newest.

    Raises:
        RunError: neither was.
    """
    for name in (MANIFEST, BEFORE):
        if (folder / name).exists() and _manifest(folder / name)["info"]["steps"] == steps:
            if name == BEFORE:
                os.replace(folder / BEFORE, folder / MANIFEST)
            return
    raise RunError(f"{folder} holds no checkpoint of step {steps}, at which the run's own was saved; put back what was "
                   f"there, or start the run anew")  # fmt: skip


def load_checkpoint(folder: Path, buffer: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """(state, info) of the newest checkpoint, the buffer filled.

    Raises:
        RunError: no checkpoint, another version, or a file that is missing or damaged.
    """
    manifest = read_manifest(folder)
    with _damage_told(folder):
        tensors = load((folder / manifest["state"]).read_bytes())
        state = _restore(manifest["tree"], tensors)
    if buffer is not None:
        buffer.load(folder, manifest["buffer"])
    return state, manifest["info"]


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the newest checkpoint consists of: files, the state's tree, what the buffer says of itself, info.

    Raises:
        RunError: no checkpoint, another version, or no such document.
    """
    return _manifest(folder / MANIFEST)


def _manifest(path: Path) -> dict[str, Any]:
    with _damage_told(path.parent):
        manifest = json.loads(path.read_text())
        if manifest["format"] != FORMAT:
            raise RunError(f"{path}: format version {manifest['format']!r}; this Poise reads version {FORMAT}")
        return {name: manifest[name] for name in ("state", "tree", "buffer", "info")}


def to_bytes(state: Mapping[str, Any]) -> bytes:
    """What `save_checkpoint` takes as a state, as bytes to send to another process; again no pickle."""
    tensors: dict[str, np.ndarray] = {}
    tree = json.dumps(_flatten(state, "state", tensors)).encode()
    return struct.pack("!Q", len(tree)) + tree + save(tensors)


def from_bytes(data: bytes) -> dict[str, Any]:
    """The state that `to_bytes` was given."""
    (length,) = struct.unpack("!Q", data[:8])
    return _restore(json.loads(data[8 : 8 + length]), load(data[8 + length :]))


@contextlib.contextmanager
def _damage_told(folder: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise RunError(f"nothing to resume from: {Path(error.filename)} does not exist") from None
    except (json.JSONDecodeError, KeyError, TypeError, SafetensorError) as error:
        raise RunError(f"the checkpoint {folder / MANIFEST} is damaged ({error}); start the run anew") from None


def _flatten(value: Any, name: str, tensors: dict[str, np.ndarray]) -> Any:
    """`value` as JSON, its arrays moved to `tensors` and replaced by references."""
    if isinstance(value, torch.Tensor | np.ndarray):
        kind = "torch" if isinstance(value, torch.Tensor) else "numpy"
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else value
        tensors[name] = np.ascontiguousarray(array)  # turns a scalar into one entry, so the shape is kept beside
        return {"$": kind, "name": name, "shape": list(array.shape)}
    if isinstance(value, Mapping):
        return {str(k): _flatten(v, f"{name}/{k}", tensors) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_flatten(v, f"{name}/{i}", tensors) for i, v in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{name}: a checkpoint holds arrays and plain values, not {type(value).__name__}")


def _restore(value: Any, tensors: Mapping[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if "$" in value:
            array = tensors[value["name"]].reshape(value["shape"]).copy()
            return torch.from_numpy(array) if value["$"] == "torch" else array
        return {k: _restore(v, tensors) for k, v in value.items()}
    return [_restore(v, tensors) for v in value] if isinstance(value, list) else value


def _next_number(folder: Path) -> int:
    try:
        return json.loads((folder / MANIFEST).read_text())["number"] + 1
    except FileNotFoundError:
        return 0


def _remove_unnamed(folder: Path, manifest_text: str) -> None:
    for path in folder.iterdir():
        if path.is_file() and path.name not in (MANIFEST, BEFORE) and json.dumps(path.name) not in manifest_text:
            with contextlib.suppress(OSError):
                path.unlink()
