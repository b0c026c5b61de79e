"""Pickled demonstrations: lists of dicts of arrays, one for each episode, read without running them; import only.

[{"observations": (T, O), "actions": (T, A), "rewards": (T,), …}, …]        DAPG, CS285 and many more
"""

from __future__ import annotations

import pickletools
from pathlib import Path

from ...errors import DatasetError
from ..log import Log
from ..plain_pickle import read_pickle
from .paths import episode_of


def recognize(path: Path) -> bool:
    """A pickle: a file that begins as they do."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(2)
        file.seek(0)
        if head[:1] != b"\x80" and path.suffix not in (".pkl", ".pickle"):
            return False
        try:
            return next(pickletools.genops(file), None) is not None
        except Exception:
            return False


def read(path: Path) -> Log:
    """The log of a pickle.

    Raises:
        DatasetError: it is anything but plain arrays, or they are no episodes.
    """
    content = read_pickle(path)
    paths = content if isinstance(content, list) else [content]
    if not paths or not all(isinstance(p, dict) for p in paths):
        raise DatasetError(f"{path} holds a {type(content).__name__}; expected a list of dicts, one for each episode")
    episodes = [episode_of(f"demo_{i}", p, f"{path}, episode {i}") for i, p in enumerate(paths)]
    ends = {name for e in episodes for name in ("dones", "truncations") if name in e.columns}
    note = "its ends do not say whether an episode terminated or ran out of time: say --ends terminated or truncated"
    return Log(path, "pickled", episodes, notes=(note,) if ends == {"dones"} else ())
