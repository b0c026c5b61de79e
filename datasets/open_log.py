"""Which layout a file or folder has, and its reader and writer.

A layout is one module of layouts/ with three functions:

    recognize(path) -> bool            whether the path is of this layout: by structure, never by name alone
    read(path) -> Log                  raises DatasetError naming what was expected and what was found
    write(path, log) -> list[str]      what the layout cannot hold, a line each; absent for layouts that are import only

Layouts exclude each other, so that a path has one layout or none; `--layout` decides where a file is ambiguous.
"""

from __future__ import annotations

import importlib
import inspect
import os
from itertools import islice
from pathlib import Path
from types import ModuleType

from ..address import split_options
from ..errors import DatasetError, unknown_name
from .d4rl_names import entry
from .log import Log

PREFIX = "d4rl:"
LAYOUTS: dict[str, str] = {
    "robomimic": "robomimic",
    "robosuite": "robosuite_raw",
    "npz": "npz",
    "pickled": "pickled",
    "d4rl": "d4rl",
    "minari": "minari",
    "lerobot": "lerobot",
    "act": "act",
}  # name -> module of layouts/


def layout(name: str) -> ModuleType:
    """The module of a layout.

    Raises:
        UsageError: there is no such layout.
    """
    if name not in LAYOUTS:
        raise unknown_name("layout", name, LAYOUTS)
    return importlib.import_module(f".layouts.{LAYOUTS[name]}", __package__)


def detect(path: Path) -> str:
    """The name of the one layout that `path` has."""
    if not path.exists():
        raise DatasetError(f"no such file or folder: {path}")
    found = [name for name in LAYOUTS if layout(name).recognize(path)]
    if len(found) != 1:
        what = f"is of several layouts ({', '.join(found)})" if found else "is of no layout that Poise knows"
        expected = "\n".join(f"  {name:<10} {_expected(name)}" for name in found or LAYOUTS)
        raise DatasetError(f"{path} {what}: it is {_found(path)}. Say which with --layout; expected\n{expected}")
    return found[0]


def _expected(name: str) -> str:
    """What a layout is recognized by."""
    return (layout(name).recognize.__doc__ or "").partition("\n")[0].rstrip(".")


def _found(path: Path) -> str:
    """What a path of no layout is, in a few words.

    Raises:
        DatasetError: it is an HDF5 file that cannot be opened.
    """
    if path.is_dir():
        names = sorted(p.name for p in islice(path.iterdir(), 1000))
        return f"a folder of {', '.join(names[:6]) or 'nothing'}{' …' * (len(names) > 6)}"
    if not path.is_file():
        return "neither a file nor a folder"
    from .safe_hdf5 import open_hdf5

    with path.open("rb") as file:
        head = file.read(64)
    if head.startswith(b"version https://git-lfs"):
        return "a pointer of Git LFS in place of the file, which `git lfs pull` fetches"
    if head.startswith(b"\x89HDF\r\n\x1a\n"):
        try:
            with open_hdf5(path) as h5:
                names = [str(name) for name in islice(h5, 7)]
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            raise DatasetError(f"{path} is a damaged HDF5 file: {error}") from None
        return f"an HDF5 file of {', '.join(names[:6]) or 'nothing'}{' …' * (len(names) > 6)}"
    return f"a file of {path.stat().st_size:,} bytes that begins with {head[:16]!r}"


def open_log(path: str | os.PathLike[str], layout_name: str | None = None) -> Log:
    """The log at `path`, of its own layout or of the one told, which may carry options: `d4rl?horizon=1000`.

    `d4rl:NAME` is one of D4RL's data sets, downloaded where it is not there yet (d4rl_download.py).

    Raises:
        DatasetError: it cannot be read, or its layout is not one alone.
        UsageError: there is no such layout or option.
    """
    place, text = located(path), os.fspath(path)
    if (
        place != Path(path) and layout_name is None
    ):  # where its file does not say when time was up, its task's limit does
        horizon = entry(text.removeprefix(PREFIX)).get("horizon")
        layout_name = f"d4rl?horizon={horizon}" if horizon else "d4rl"
    name, options = split_options(layout_name or detect(place))
    read = layout(name).read
    known = list(inspect.signature(read).parameters)[1:]
    if unknown := [option for option in options if option not in known]:
        raise unknown_name(f"option of layout {name}", unknown[0], known)
    return read(place, **options)


def located(path: str | os.PathLike[str]) -> Path:
    """The file or folder that is meant: of `d4rl:NAME` D4RL's file, downloaded where it is not there yet.

    Raises:
        UsageError: D4RL has no such data set.
        DatasetError: it cannot be had.
    """
    text = os.fspath(path)
    if not text.startswith(PREFIX) or os.path.exists(text):
        return Path(text)
    from .d4rl_download import fetch

    return fetch(text.removeprefix(PREFIX))
