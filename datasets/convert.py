"""Converting a log to another layout: written beside its place and renamed last, so that nothing half is ever found."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from ..errors import DatasetError, UsageError
from .file_lock import FileLock
from .log import Log
from .open_log import LAYOUTS, layout, open_log


def convert(source: str | os.PathLike[str], out: str | os.PathLike[str], to: str, *, of: str | None = None,
            filter: str = "") -> list[str]:  # fmt: skip
    """Write the log at `source` as layout `to` at `out`, the episodes of one filter alone where named.

    of: the layout of the source, where it is not to be detected.

    Returns: what the target cannot hold, a line each; the reader's own notes first.

    Raises:
        DatasetError: the source cannot be read, `out` exists, or the disk refuses.
        UsageError: there is no such layout, or it is import only.
    """
    writer = layout(to)
    if not hasattr(writer, "write"):
        can = [name for name in LAYOUTS if hasattr(layout(name), "write")]
        raise UsageError(f"layout {to} is import only; those that can be written: {', '.join(can)}")
    with open_log(source, of) as log, new_path(Path(out)) as hidden:
        chosen = narrowed(log, filter) if filter else log
        _require_equal_lengths(chosen)
        return [*log.notes, *writer.write(hidden, chosen)]


def _require_equal_lengths(log: Log) -> None:
    """Raise DatasetError where a column has other rows than its episode: rows side by side would be of other steps."""
    for episode in log.episodes:
        for name, column in episode.columns.items():
            if column.shape[:1] != (episode.steps,):
                raise DatasetError(f"{log.path}, {episode.name}: {name} is {column.shape}, where there are "
                                   f"{episode.steps} actions; poise data check tells more")  # fmt: skip


def narrowed(log: Log, filter: str) -> Log:
    """The log with the episodes of one filter, and the other filters as far as they are about these."""
    episodes = log.filtered(filter)
    names = {episode.name for episode in episodes}
    kept = {name: tuple(n for n in members if n in names) for name, members in log.filters.items()}
    return replace(log, episodes=episodes, filters={name: members for name, members in kept.items() if members})


@contextmanager
def new_path(path: Path) -> Iterator[Path]:
    """A path of the same name in a hidden folder beside, which becomes `path` at the end of the block.

    Where the block fails, it is gone.

    Raises:
        DatasetError: `path` exists, another process writes it, or the disk refuses.
    """
    folder, lock = path.with_name(f".{path.name}.writing-{os.getpid()}"), None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path)
        if path.exists():
            raise DatasetError(f"{path} exists; choose another name or move it away")
        yield folder / path.name
        os.rename(folder / path.name, path)
    except OSError as error:
        reason = error.strerror or str(error).splitlines()[0]
        raise DatasetError(f"cannot write {path}: {reason}; nothing was left there") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            lock.release()
