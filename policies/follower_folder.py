"""A run's folder as a process sees it that does not lead the run: nothing to write to but a checkpoint of its own.

    checkpoint/              the first process's, whose manifest is the run's: it is renamed into place last
    checkpoint/process-1/    the second process's: its own worlds, its own part of the replay, and what it learns with

A follower's checkpoint is complete before the leader's is, and the one before it is kept until the next, so that the
one which belongs to the leader's is there whenever a run is killed.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .checkpoint import has_checkpoint, read_manifest, settle_checkpoint


class FollowerFolder:
    """In the place of a RunFolder."""

    leads = False

    def __init__(self, path: Path, rank: int):
        self.path, self.rank = path, rank

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint" / f"process-{self.rank}"

    def has_checkpoint(self) -> bool:
        """Whether the run has one; this process's part of it is then the newest of its own.

        Raises:
            RunError: that part is not there.
        """
        if not has_checkpoint(self.checkpoint.parent):
            return False
        settle_checkpoint(self.checkpoint, read_manifest(self.checkpoint.parent)["info"]["steps"])
        return True

    def open_metrics(self, size: int, step: int) -> None:
        pass

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        pass

    def metrics_size(self) -> int:
        return 0

    def write_json(self, name: str, data: Any) -> None:
        pass

    def close(self) -> None:
        pass
