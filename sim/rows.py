"""Arrays of N worlds of which some are meant, in numpy's spelling and in torch's, so that one class serves both.

                     numpy, on the CPU            torch, on a device
    rows             indices (n,)                 a mask (N,) of bool
    arrays "of n"    n rows                       all N rows, of which the mask says which count
    numbers          float64, int64               torch's default dtype (float32), int64
    state            copied where it is saved     handed out as it is, and kept as it is given back

On a device shapes depend on no data, so a step can be recorded as a CUDA graph, and state is what the graph's owner
keeps in place: after each recorded part it takes `state_dict()`, and `load_state_dict` gets its own tensors.

Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

if TYPE_CHECKING:
    import torch


def some(values: Any, rows: Any) -> Any:
    """Of values (N, ...) the rows that are meant: (n, ...)."""
    return values[rows] if isinstance(values, np.ndarray) else values


def replaced(values: Any, rows: Any, new: Any) -> Any:
    """values (N, ...) with the meant rows replaced by new (n, ...) or a number, as a new array."""
    if isinstance(values, np.ndarray):
        result = values.copy()
        result[rows] = new
        return result
    mask = rows.reshape(-1, *[1] * (values.ndim - 1))
    return values.masked_fill(mask, new) if isinstance(new, int | float) else new.to(values.dtype).where(mask, values)


def written(values: Any, rows: Any, new: Any) -> Any:
    """The same in place where it can be: numpy's array itself, a new tensor."""
    if isinstance(values, np.ndarray):
        values[rows] = new
        return values
    return replaced(values, rows, new)


def scattered(whole: Mapping[str, Any], rows: Any, part: Mapping[str, Any], num_envs: int) -> dict[str, Any]:
    """`replaced` for a dict of arrays; where all worlds are replaced, `whole` may lack what is new."""
    if isinstance(rows, np.ndarray):
        if len(rows) == num_envs:
            return {name: np.array(values) for name, values in part.items()}
        return {name: replaced(whole[name], rows, values) for name, values in part.items()}
    return {name: replaced(whole[name], rows, values) if name in whole else values.clone()
            for name, values in part.items()}  # fmt: skip


def space(values: Any) -> Any:
    """The namespace of functions for these arrays: numpy, or torch's in the array API's spelling."""
    return np if isinstance(values, np.ndarray) else array_namespace(values)


def fresh(values: Any) -> Any:
    """A copy to write into."""
    return values.copy() if isinstance(values, np.ndarray) else values.clone()


def integers(values: Any) -> Any:
    """Whole numbers as int64."""
    return values.astype(np.int64) if isinstance(values, np.ndarray) else values.long()


def zeros(shape: tuple[int, ...], device: torch.device | None, dtype: str = "float") -> Any:
    """Zeros of the device's dtype for numbers, or of an integer one such as "int64"; numpy's where there is none."""
    if device is None:
        return np.zeros(shape, dtype)
    import torch

    return torch.zeros(shape, dtype=None if dtype == "float" else getattr(torch, dtype), device=device)


def copied(values: Any) -> Any:
    """What `state_dict` gives: numpy's array again, since steps write into it."""
    return values.copy() if isinstance(values, np.ndarray) else values


def restored(saved: Any, like: Any) -> Any:
    """What `load_state_dict` keeps in place of `like`: a copy of numpy's, on a device the tensor itself."""
    if isinstance(like, np.ndarray):
        return np.array(saved)
    import torch

    return torch.as_tensor(saved, dtype=like.dtype, device=like.device)


def on_device(values: Any, device: torch.device | None) -> Any:
    """A model's numbers or places as an array where the worlds are: to be made once, not in every step."""
    values = np.asarray(values)
    if device is None:
        return values
    import torch

    return torch.tensor(values, dtype=torch.get_default_dtype() if values.dtype.kind == "f" else None, device=device)


class Fixed:
    """A model's array that terms are bound to, as numpy has it, and as a tensor made once for each device."""

    def __init__(self, array: Any):
        self.array = np.asarray(array)
        self._there: dict[Any, Any] = {}

    def __len__(self) -> int:
        return len(self.array)

    def beside(self, values: Any) -> Any:
        """The array where `values` are."""
        if isinstance(values, np.ndarray):
            return self.array
        if values.device not in self._there:
            self._there[values.device] = on_device(self.array, values.device)
        return self._there[values.device]


def columns(places: np.ndarray, device: torch.device | None) -> Any:
    """The same for columns of an array: a slice where they lie side by side, which is faster everywhere."""
    first, count = (int(places[0]), len(places)) if len(places) else (0, 0)
    if np.array_equal(places, first + np.arange(count)):
        return slice(first, first + count)
    return on_device(places, device)
