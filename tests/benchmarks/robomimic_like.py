"""A sequence dataset of the robomimic kind: one sample a call, put together by `torch.utils.data.DataLoader`.

Written from robomimic 0.3.0's description of its SequenceDataset: a window of `length` steps from a step on, the last
repeated beyond the episode's end, with a mask that says where; every episode's arrays in memory (`cache` "low_dim": the
flat ones), or every window put together beforehand ("all", its fastest).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import h5py
import numpy as np
from torch.utils.data import DataLoader, Dataset


class SequenceDataset(Dataset):
    def __init__(self, path: str, obs_keys: Sequence[str], length: int, cache: str):
        self._length, self._keys = length, tuple(obs_keys)
        with h5py.File(path) as h5:
            data: Any = h5["data"]
            names = sorted(data, key=lambda name: int(name[5:]))
            self._episodes = {
                name: {"actions": data[name]["actions"][()].astype("float32"),
                       **{f"obs/{k}": data[name]["obs"][k][()] for k in obs_keys}} for name in names}  # fmt: skip
        self._lengths = {name: len(episode["actions"]) for name, episode in self._episodes.items()}
        self._where = [(name, t) for name in names for t in range(self._lengths[name])]
        self._windows = None
        if cache == "all":
            self._windows = [self._window(i) for i in range(len(self))]
            self._episodes = {}

    def __len__(self) -> int:
        return len(self._where)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._window(index) if self._windows is None else self._windows[index]

    def _window(self, index: int) -> dict[str, Any]:
        name, start = self._where[index]
        window = self._sequence(name, start, ("actions",))
        window["obs"] = {k.removeprefix("obs/"): v for k, v in
                         self._sequence(name, start, tuple(f"obs/{k}" for k in self._keys)).items()}  # fmt: skip
        return window

    def _sequence(self, name: str, start: int, keys: Sequence[str]) -> dict[str, Any]:
        stop = min(self._lengths[name], start + self._length)
        pad = start + self._length - stop
        sequence = {}
        for key in keys:
            rows = self._episodes[name][key][start:stop]
            sequence[key] = np.concatenate([rows, np.repeat(rows[-1:], pad, axis=0)]) if pad else rows.copy()
        mask = np.array([1] * (stop - start) + [0] * pad)
        sequence["pad_mask"] = mask[:, None].astype(bool)
        return sequence


def robomimic_itself(path: str, obs_keys: Sequence[str], images: Sequence[str], length: int) -> Dataset:
    """robomimic 0.3.0's own, its fastest cache."""
    import robomimic.utils.obs_utils as obs_utils  # pyright: ignore[reportMissingImports]
    from robomimic.utils.dataset import (  # pyright: ignore[reportMissingImports]
        SequenceDataset as Robomimic,
    )

    flat = [k for k in obs_keys if k not in images]
    obs_utils.initialize_obs_utils_with_obs_specs([{"obs": {"low_dim": flat, "rgb": list(images)}}])
    return Robomimic(hdf5_path=path, obs_keys=tuple(obs_keys), dataset_keys=("actions",), seq_length=length,
                     pad_seq_length=True, get_pad_mask=True, hdf5_cache_mode="all", load_next_obs=False)  # fmt: skip


def batches(dataset: Dataset, batch_size: int) -> Iterator[Any]:
    """Batches without end, as a training loop takes them: shuffled, default collate."""
    loader = DataLoader(dataset, batch_size=batch_size, shuffle=True, drop_last=True, num_workers=0)
    while True:
        yield from loader
