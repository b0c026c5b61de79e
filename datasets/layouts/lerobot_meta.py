"""What a LeRobot data set says of itself: meta/ of the versions 2.0, 2.1 and 3.0.

    meta/info.json       codebase_version, fps, features, data_path, video_path, total_episodes, …
    2.x  meta/episodes.jsonl  tasks.jsonl  episodes_stats.jsonl (2.1)  stats.json (2.0)
    3.0  meta/episodes/*/*.parquet  meta/tasks.parquet  meta/stats.json

Legend: A action.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import DatasetError
from .tables import read_table

FIELD = re.compile(r"\{(\w+)(?::0?(\d+)d)?\}")
LARGEST_TEXT = 1 << 28  # bytes of JSON


@dataclass(frozen=True)
class Meta:
    """What meta/ says, checked as far as it is needed."""

    root: Path
    info: Mapping[str, Any]
    episodes: Mapping[int, Mapping[str, Any]]  # episode_index -> length, tasks, where its rows and films are

    @property
    def old(self) -> bool:
        """Whether every episode has files of its own (2.x)."""
        return str(self.info["codebase_version"]).startswith("v2")

    @property
    def features(self) -> Mapping[str, Mapping[str, Any]]:
        return self.info["features"]

    def data_file(self, index: int) -> Path:
        return self._file("data_path", index, "data", "")

    def film_file(self, index: int, key: str) -> Path:
        return self._file("video_path", index, f"videos/{key}", key)

    def film_start(self, index: int, key: str) -> float:
        """When the episode begins in its film [s]."""
        return float(self.episodes[index].get(f"videos/{key}/from_timestamp", 0.0) or 0.0)

    def _file(self, template: str, index: int, place: str, key: str) -> Path:
        """The file that a template of info.json names, which lies in the data set's folder.

        Raises:
            DatasetError: the template is missing, has an unknown field, or leads out of the folder.
        """
        text, episode = str(self.info.get(template)), self.episodes[index]
        chunk = index // max(1, int(self.info.get("chunks_size", 1000)))
        fields: dict[str, Any] = {"episode_index": index, "video_key": key, "episode_chunk": chunk}
        fields |= {
            name: episode[f"{place}/{name}"] for name in ("chunk_index", "file_index") if f"{place}/{name}" in episode
        }
        try:
            name = FIELD.sub(lambda m: f"{fields[m[1]]:0{int(m[2])}d}" if m[2] else str(fields[m[1]]), text)
        except (KeyError, ValueError) as error:
            raise DatasetError(
                f"{self.root}: {template} {text!r} of meta/info.json has no {error} to fill in"
            ) from None
        root = self.root.resolve()
        if not (file := (root / name).resolve()).is_relative_to(root):
            raise DatasetError(f"{self.root}: {template} {text!r} leads out of the folder, to {file}")
        return file


def read_meta(path: Path) -> Meta:
    """Raises DatasetError where something is missing or of another version."""
    info = read_json(path / "meta/info.json")
    version = str(info.get("codebase_version"))
    if version not in ("v2.0", "v2.1", "v3.0"):
        raise DatasetError(f"{path} is LeRobot {version}; Poise reads v2.0, v2.1 and v3.0")
    features = info.get("features")
    if not isinstance(features, dict) or not all(isinstance(f, dict) and "dtype" in f for f in features.values()):
        raise DatasetError(f"{path}: features of meta/info.json should be a description of each column")
    if not isinstance(fps := info.get("fps"), int | float) or not 0 < fps < np.inf:
        raise DatasetError(f"{path}: fps of meta/info.json is {fps!r}, expected frames per second")
    rows = _lines(path / "meta/episodes.jsonl") if version != "v3.0" else _episode_tables(path)
    try:
        episodes = {int(row["episode_index"]): {**row, "length": int(row["length"])} for row in rows}
    except (KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{path}: meta/episodes should say episode_index and length of each: {error}") from None
    return Meta(path, info, dict(sorted(episodes.items())))


def action_range(meta: Meta, keys: list[str]) -> tuple[np.ndarray, np.ndarray] | None:
    """(low, high) (A,) of some features side by side over all episodes, as the statistics say; None without any."""
    if (meta.root / "meta/episodes_stats.jsonl").is_file():
        found = [row.get("stats", {}) for row in _lines(meta.root / "meta/episodes_stats.jsonl")]
    elif (meta.root / "meta/stats.json").is_file():
        found = [read_json(meta.root / "meta/stats.json")]
    else:
        return None
    ends = []
    try:
        for name in ("min", "max"):
            rows = [np.concatenate([np.asarray(s[key][name], np.float64).reshape(-1) for key in keys]) for s in found]
            ends.append(np.min(rows, 0) if name == "min" else np.max(rows, 0))
    except (KeyError, TypeError, ValueError):
        return None
    return ends[0], ends[1]


def read_json(file: Path) -> dict[str, Any]:
    try:
        if file.stat().st_size > LARGEST_TEXT:
            raise ValueError("it is too large")
        found = json.loads(file.read_text())
        if not isinstance(found, dict):
            raise ValueError("it holds no object")
        return found
    except (OSError, ValueError, RecursionError) as error:
        raise DatasetError(f"{file} cannot be read: {error}") from None


def _lines(file: Path) -> list[dict[str, Any]]:
    """The objects of a file with one a line."""
    try:
        if file.stat().st_size > LARGEST_TEXT:
            raise ValueError("it is too large")
        return [dict(json.loads(line)) for line in file.read_text().splitlines() if line.strip()]
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise DatasetError(f"{file} cannot be read: {error}") from None


def _episode_tables(path: Path) -> list[dict[str, Any]]:
    files = sorted((path / "meta/episodes").glob("*/*.parquet"))
    if not files:
        raise DatasetError(f"{path}: there is no meta/episodes/chunk-000/file-000.parquet, which v3.0 has")
    rows = []
    for file in files:
        rows += read_table(file, lambda name: not name.startswith("stats/")).to_pylist()
    return rows
