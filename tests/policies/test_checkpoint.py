"""Checkpoints: exact round trip, and complete or absent at whatever write the process dies."""

import json
import os

import numpy as np
import pytest
import torch

from poise.errors import RunError
from poise.policies.checkpoint import load_checkpoint, save_checkpoint


class Buffer:
    """The smallest buffer: one file a save."""

    def __init__(self):
        self.files: list[str] = []

    def save(self, folder):
        name = f"rows-{len(self.files)}.bin"
        (folder / name).write_bytes(b"x" * 10)
        self.files.append(name)
        return {"files": list(self.files)}

    def load(self, folder, manifest):
        self.files = list(manifest["files"])
        assert all((folder / name).exists() for name in self.files)


STATE = {
    "learner": {"w": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(7.0), "rng": torch.arange(4, dtype=torch.uint8)},
    "env": {"qpos": np.linspace(0, 1, 5), "flags": np.array([True, False]), "empty": np.zeros((0, 3)),
            "big": np.array([2**63 + 5], np.uint64)},
    "rng": {"state": 2**100 + 1, "inc": 0.1 + 0.2, "name": "PCG64", "none": None, "list": [1, [2.5, "x"]]},
}  # fmt: skip


def test_a_checkpoint_returns_every_value_to_the_bit(tmp_path):
    save_checkpoint(tmp_path / "c", STATE, Buffer(), {"steps": 5})
    state, info = load_checkpoint(tmp_path / "c", Buffer())
    assert info == {"steps": 5}
    assert state["rng"] == STATE["rng"]
    for group in ("learner", "env"):
        for name, value in STATE[group].items():
            back = state[group][name]
            assert type(back) is type(value) and back.dtype == value.dtype and back.shape == value.shape
            assert (back == value).all()


def test_files_that_no_manifest_names_are_removed(tmp_path):
    buffer = Buffer()
    for _ in range(3):
        save_checkpoint(tmp_path, STATE, buffer, {})
    (tmp_path / "left-over.tmp").write_text("from a kill")
    save_checkpoint(tmp_path, STATE, buffer, {})
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"manifest.json", "state-3.safetensors", *buffer.files}


@pytest.mark.parametrize("call", range(8))
def test_dying_at_any_write_leaves_the_previous_checkpoint_whole(tmp_path, monkeypatch, call):
    save_checkpoint(tmp_path, STATE, Buffer(), {"steps": 1})
    count = iter(range(100))

    def dies(function):
        def wrapped(*args, **kwargs):
            if next(count) == call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, dies(getattr(os, name)))
    second = Buffer()
    second.files = ["rows-0.bin"]
    try:
        save_checkpoint(tmp_path, {"new": torch.ones(2)}, second, {"steps": 2})
        survived = 2
    except KeyboardInterrupt:
        survived = None
    monkeypatch.undo()
    _, info = load_checkpoint(tmp_path, Buffer())
    assert info["steps"] in ((2,) if survived else (1, 2))


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, STATE, Buffer(), {"steps": 1})
    monkeypatch.setattr(os, "fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(RunError, match=r"no space is left on the disk; the previous checkpoint is intact"):
        save_checkpoint(tmp_path, STATE, Buffer(), {"steps": 2})
    monkeypatch.undo()
    assert load_checkpoint(tmp_path, Buffer())[1]["steps"] == 1


def test_a_damaged_or_missing_checkpoint_is_refused(tmp_path):
    with pytest.raises(RunError, match="nothing to resume from"):
        load_checkpoint(tmp_path, Buffer())
    save_checkpoint(tmp_path, STATE, Buffer(), {})
    state = tmp_path / "state-0.safetensors"
    state.write_bytes(state.read_bytes()[:-3])
    with pytest.raises(RunError, match="damaged"):
        load_checkpoint(tmp_path, Buffer())
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 7}))
    with pytest.raises(RunError, match="format version 7"):
        load_checkpoint(tmp_path, Buffer())


def test_an_object_that_is_neither_array_nor_json_is_refused(tmp_path):
    with pytest.raises(TypeError, match="state/learner"):
        save_checkpoint(tmp_path, {"learner": object()}, Buffer(), {})
