"""HDF5 files of anybody: only what stands in the file itself is read, and nothing larger than the file can hold.

A link may point out of its folder, an external or virtual array may show another file's bytes, a group may hold itself,
and a few bytes may claim to be a terabyte. Each is refused by name.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError
from .hdf5_chunks import check_chunks

DEPTH, ENTRIES = 32, 4_000_000
METADATA = 1 << 18  # bytes of HDF5's cache of headers, which take 5 MB of memory; by itself it grows to 32 MB, and 200
DEFLATED = 1100  # deflate cannot shrink further than 1032 times


class Stored:
    """An array of an open file, which is looked up anew whenever rows of it are asked for.

    HDF5 spends 20 kB on every array that stays open, and a file of demonstrations holds ten for each episode.
    """

    __slots__ = ("_checked", "_file", "_name", "dtype", "shape", "size")

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype, file: Any, name: bytes):
        """file: the low-level identifier of the open file, one for all its arrays."""
        self.shape, self.dtype, self.size = shape, dtype, math.prod(shape)
        self._file, self._name, self._checked = file, name, False

    @property
    def array(self) -> Any:
        """The h5py.Dataset.

        Raises:
            DatasetError: the file has been closed.
        """
        if not self._file.valid:
            raise DatasetError(f"{self._name.decode(errors='replace')} is asked for, but its file has been closed")
        return h5py.Dataset(h5py.h5d.open(self._file, self._name))

    @property
    def filename(self) -> str:
        return os.fsdecode(h5py.h5f.get_name(self._file))

    def __getitem__(self, rows: Any, /) -> np.ndarray:
        return self.read(lambda array: array[rows])

    def read(self, take: Callable[[Any], Any]) -> Any:
        """What `take` makes of the h5py.Dataset.

        Raises:
            DatasetError: the file is damaged there, or a chunk inflates to more than it should.
        """
        array = self.array
        where = f"{self.filename}: {self._name.decode(errors='replace')}"
        try:
            if not self._checked:
                check_chunks(array.id, where)
                self._checked = True
            return take(array)
        except (OSError, RuntimeError, KeyError, UnicodeError, MemoryError) as error:
            raise DatasetError(f"{where} cannot be read, the file is damaged: {error}") from None


class Texts:
    """An array of texts of any length, as str, where h5py gives bytes."""

    def __init__(self, stored: Stored):
        self.shape, self.dtype, self.size, self._stored = stored.shape, np.dtype(object), stored.size, stored

    def __getitem__(self, rows: Any, /) -> Any:
        return self._stored.read(lambda array: array.asstr(errors="surrogateescape")[rows])


def open_hdf5(path: Path) -> Any:
    """The file, open for reading.

    Raises:
        DatasetError: it is none, or is incomplete.
    """
    if not path.is_file():
        raise DatasetError(f"no such file: {path}")
    require_walkable(path)
    try:
        file = h5py.File(path, "r")
    except (OSError, RuntimeError) as error:
        raise DatasetError(f"{path} is no complete HDF5 file: {error}") from None
    config = file.id.get_mdc_config()
    config.min_size = config.initial_size = config.max_size = METADATA
    file.id.set_mdc_config(config)
    return file


def shallow_names(path: Path) -> dict[str, str]:
    """What stands at the root of an HDF5 file, each "dataset", "group" or "link"; nothing for other files."""
    if not path.is_file() or not h5py.is_hdf5(path):
        return {}
    require_walkable(path)
    try:
        with h5py.File(path, "r") as h5:
            return {name: _kind(h5, name) for name in h5}
    except (OSError, RuntimeError, KeyError, ValueError):
        return {}


def _kind(group: Any, name: str) -> str:
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        return "link"
    return {h5py.Dataset: "dataset", h5py.Group: "group"}.get(group.get(name, getclass=True), "type")


_walked: dict[Path, tuple[int, ...]] = {}  # what stood there when it was last walked over


def require_walkable(path: Path) -> None:
    """Walk over the names in a file, in a process of its own: there are damages at which the HDF5 library itself dies.

    Raises:
        DatasetError: it died.
    """
    stat = path.stat()
    now = (stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size)
    if _walked.get(path) == now:
        return
    with h5py._objects.phil:  # so that no other thread is inside the library at the fork
        child = os.fork()
    if child == 0:
        try:
            with contextlib.suppress(BaseException):
                identifier = h5py.h5f.open(os.fsencode(path), h5py.h5f.ACC_RDONLY)
                _touch(identifier, set())
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        raise DatasetError(f"{path} is damaged so badly that the HDF5 library dies of it "
                           f"({signal.Signals(os.WTERMSIG(status)).name})")  # fmt: skip
    _walked[path] = now


def _touch(group: Any, seen: set[int]) -> None:
    """Open everything below a group that is not a link."""
    address = h5py.h5o.get_info(group).addr
    if address in seen or len(seen) > ENTRIES:
        return
    seen.add(address)
    for link in list(group):
        if group.links.get_info(link).type == h5py.h5l.TYPE_HARD:
            item = h5py.h5o.open(group, link)
            if isinstance(item, h5py.h5g.GroupID):
                _touch(item, seen)


def datasets_of(group: Any, path: Path) -> dict[str, Any]:
    """Every array below a group by its path, once it has been looked at.

    Raises:
        DatasetError: something in there is a link, shows another file, holds itself, or claims more than it can hold.
    """
    found: dict[str, Any] = {}
    try:
        root = group.name.encode("utf-8", "surrogateescape").rstrip(b"/") + b"/"
        _walk(group.id, group.file.id, path, root, "", found, set())
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged: {error}") from None
    return found


def _walk(group: Any, file: Any, path: Path, root: bytes, prefix: str, found: dict[str, Any], seen: set[int]) -> None:
    """The arrays below a group; by h5py's low level, which costs a third where there are many."""
    address = h5py.h5o.get_info(group).addr
    if address in seen or prefix.count("/") > DEPTH:
        raise DatasetError(f"{path}: the group {prefix or '/'} holds itself, stands twice, or lies too deep")
    seen.add(address)
    for link in list(group):
        name = link.decode("utf-8", "surrogateescape")
        place = f"{prefix}{name}"
        hard = group.links.get_info(link).type == h5py.h5l.TYPE_HARD
        item = h5py.h5o.open(group, link) if hard else None
        if isinstance(item, h5py.h5g.GroupID) and len(found) < ENTRIES:
            _walk(item, file, path, root, f"{place}/", found, seen)
        elif isinstance(item, h5py.h5d.DatasetID) and len(found) < ENTRIES:
            shape, dtype = check_dataset(item, path, place)
            stored = Stored(shape, dtype, file, root + place.encode("utf-8", "surrogateescape"))
            text = stored.dtype.kind == "O" and h5py.check_string_dtype(stored.dtype)
            found[place] = Texts(stored) if text else stored
        else:
            raise DatasetError(f"{path}: {place} is a {'type' if hard else 'link'}, and Poise reads arrays and groups "
                               f"of the file itself, up to {ENTRIES} of them")  # fmt: skip


def check_dataset(array: Any, path: Path, name: str) -> tuple[tuple[int, ...], np.dtype]:
    """(shape, type) of an array, by its low-level identifier.

    Raises:
        DatasetError: it shows another file, is of no numbers or texts, or claims more than its bytes can be.
    """
    properties = array.get_create_plist()
    if properties.get_layout() == h5py.h5d.VIRTUAL or properties.get_external_count() > 0:
        raise DatasetError(f"{path}: {name} shows the bytes of other files, which Poise does not follow")
    kind = array.get_type()
    if isinstance(kind, h5py.h5t.TypeVlenID) and kind.encode()[3] & 0x0F != 0:  # HDF5 itself crashes where it reads it
        raise DatasetError(f"{path}: {name} is of a damaged type")
    dtype = array.dtype
    text = h5py.check_string_dtype(dtype) is not None
    if dtype.kind not in "biufcS" and not text and h5py.check_vlen_dtype(dtype) != np.uint8:  # coded pictures
        raise DatasetError(f"{path}: {name} is of type {dtype}; Poise reads numbers and texts")
    space, stored = array.get_space(), array.get_storage_size()
    nbytes = space.get_simple_extent_npoints() * dtype.itemsize
    if space.get_simple_extent_type() == h5py.h5s.NULL or (nbytes > 0 and stored == 0):
        raise DatasetError(f"{path}: {name} was never written")
    if nbytes > DEFLATED * stored + (1 << 16):
        raise DatasetError(f"{path}: {name} of shape {array.shape} would be {nbytes:,} bytes out of {stored:,}")
    return array.shape, dtype


def attributes_of(item: Any, path: Path) -> dict[str, Any]:
    """The attributes of a group or array.

    Raises:
        DatasetError: one is damaged or of a type that is no number or text.
    """
    found: dict[str, Any] = {}
    try:
        for name in item.attrs:
            if isinstance(item.attrs.get_id(name).get_type(), h5py.h5t.TypeVlenID):
                raise DatasetError(f"{path}: the attribute {name!r} of {item.name} is a list of lists of any length")
            value = item.attrs[name]
            dtype = getattr(value, "dtype", None)
            texts = dtype is not None and dtype.kind == "O" and all(isinstance(v, str) for v in value.reshape(-1))
            if isinstance(value, h5py.Empty) or not (dtype is None or dtype.kind in "biufcSU" or texts):
                raise DatasetError(f"{path}: the attribute {name!r} of {item.name} is neither number nor text")
            found[name] = value
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, UnicodeError, MemoryError) as error:
        raise DatasetError(f"{path}: the attributes of {item.name} are damaged: {error}") from None
    return found
