"""HDF5 files of anybody: only what stands in the file itself is read, and nothing larger than the file can hold.

A link may point out of its folder, an external or virtual array may show another file's bytes, a group may hold itself,
and a few bytes may claim to be a terabyte. Each is refused by name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError

DEPTH, ENTRIES = 32, 4_000_000
DEFLATED = 1100  # deflate cannot shrink further than 1032 times


class Stored:
    """An array of an open file, which is looked up anew whenever rows of it are asked for.

    HDF5 spends 20 kB on every array that stays open, and a file of demonstrations holds ten for each episode.
    """

    def __init__(self, array: Any):
        self.shape, self.dtype, self.size = array.shape, array.dtype, array.size
        self._file, self._name = array.file, array.name.encode()

    @property
    def array(self) -> Any:
        """The h5py.Dataset."""
        return h5py.Dataset(h5py.h5d.open(self._file.id, self._name))

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        return self.array[rows]


class Texts:
    """An array of texts of any length, as str, where h5py gives bytes."""

    def __init__(self, array: Any):
        self.shape, self.dtype, self.size, self._stored = array.shape, np.dtype(object), array.size, Stored(array)

    def __getitem__(self, rows: Any, /) -> Any:
        return self._stored.array.asstr(errors="surrogateescape")[rows]


def open_hdf5(path: Path) -> Any:
    """The file, open for reading.

    Raises:
        DatasetError: it is none, or is incomplete.
    """
    if not path.is_file():
        raise DatasetError(f"no such file: {path}")
    try:
        return h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} is no complete HDF5 file: {error}") from None


def shallow_names(path: Path) -> dict[str, str]:
    """What stands at the root of an HDF5 file, each "dataset", "group" or "link"; nothing for other files."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return {}
    try:
        with h5py.File(path, "r") as h5:
            return {name: _kind(h5, name) for name in h5}
    except (OSError, RuntimeError, KeyError):
        return {}


def _kind(group: Any, name: str) -> str:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return "link"
    return {h5py.Dataset: "dataset", h5py.Group: "group"}.get(group.get(name, getclass=True), "type")


def datasets_of(group: Any, path: Path) -> dict[str, Any]:
    """Every array below a group by its path, once it has been looked at.

    Raises:
        DatasetError: something in there is a link, shows another file, holds itself, or claims more than it can hold.
    """
    found: dict[str, Any] = {}
    try:
        _walk(group, path, "", found, set())
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from None
    return found


def _walk(group: Any, path: Path, prefix: str, found: dict[str, Any], seen: set[int]) -> None:
    address = h5py.h5o.get_info(group.id).addr
    if address in seen or prefix.count("/") > DEPTH:
        raise DatasetError(f"{path}: the group {prefix or '/'} holds itself, stands twice, or lies too deep")
    seen.add(address)
    for name in group:
        place = f"{prefix}{name}"
        kind = _kind(group, name)
        if kind in ("link", "type") or len(found) >= ENTRIES:
            raise DatasetError(f"{path}: {place} is a {kind}, and Poise reads arrays and groups of the file itself, "
                               f"up to {ENTRIES} of them")  # fmt: skip
        item = group[name]
        if kind == "group":
            _walk(item, path, f"{place}/", found, seen)
        else:
            check_dataset(item, path, place)
            found[place] = (
                Texts(item) if h5py.check_string_dtype(item.dtype) and item.dtype.kind == "O" else Stored(item)
            )


def check_dataset(array: Any, path: Path, name: str) -> None:
    """Refuse an array of another file, of types that are no numbers or texts, or larger than its bytes can be."""
    if array.is_virtual or array.external:
        raise DatasetError(f"{path}: {name} shows the bytes of other files, which Poise does not follow")
    kind = array.dtype.kind
    text = h5py.check_string_dtype(array.dtype) is not None
    if kind not in "biufcS" and not text and h5py.check_vlen_dtype(array.dtype) != np.uint8:  # coded pictures
        raise DatasetError(f"{path}: {name} is of type {array.dtype}; Poise reads numbers and texts")
    stored = array.id.get_storage_size()
    if array.shape is None or (array.nbytes > 0 and stored == 0):
        raise DatasetError(f"{path}: {name} was never written")
    if array.nbytes > DEFLATED * stored + (1 << 16):
        raise DatasetError(f"{path}: {name} of shape {array.shape} would be {array.nbytes:,} bytes out of {stored:,}")


def attributes_of(item: Any, path: Path) -> dict[str, Any]:
    """The attributes of a group or array.

    Raises:
        DatasetError: one is damaged or of a type that is no number or text.
    """
    found: dict[str, Any] = {}
    try:
        for name in item.attrs:
            value = item.attrs[name]
            dtype = getattr(value, "dtype", None)
            texts = dtype is not None and dtype.kind == "O" and all(isinstance(v, str) for v in value.reshape(-1))
            if isinstance(value, h5py.Empty) or not (dtype is None or dtype.kind in "biufcSU" or texts):
                raise DatasetError(f"{path}: the attribute {name!r} of {item.name} is neither number nor text")
            found[name] = value
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError) as error:
        raise DatasetError(f"{path}: the attributes of {item.name} are damaged: {error}") from None
    return found
