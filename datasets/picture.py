"""A picture of a log: how long and how good its episodes are, what the actions do, and what the cameras see.

    lengths | returns | range of every action's number
    actions of one episode over its steps | observations of it
    frames of every camera, from its beginning to its end

Legend: T steps of the episode shown, A action.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DatasetError
from .check import is_picture
from .log import Episode, Log
from .summary import episode_returns

FRAMES = 6  # of a camera
LINES = 12  # curves in one panel
SAMPLES = 20_000  # steps that ranges are taken from


def draw(log: Log, path: str | os.PathLike[str]) -> Path:
    """Draw the log into a picture file, of the kind that the name says (.png, .svg, .pdf).

    Raises:
        DatasetError: there is no step to draw, or the file cannot be written.
    """
    from matplotlib.figure import Figure

    episodes = [e for e in log.episodes if e.steps > 0]
    if not episodes:
        raise DatasetError(f"{log.path} has no step to draw")
    shown = episodes[len(episodes) // 2]
    cameras = [name for name, c in shown.columns.items() if name.startswith("obs/") and is_picture(c)]
    heights = [2.6, 2.6, *[1.5] * len(cameras)]
    figure = Figure(figsize=(11, sum(heights) + 0.6), layout="constrained")
    figure.suptitle(f"{log.path.name}: {len(log.episodes)} episodes, {log.steps:,} steps")
    top, middle, *rows = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    lengths, returns, ranges = top.subplots(1, 3)
    _histogram(lengths, np.array([e.steps for e in episodes]), "steps of an episode")
    _histogram(returns, episode_returns(episodes), "return of an episode")
    _ranges(ranges, episodes)
    left, right = middle.subplots(1, 2)
    _curves(
        left, {"actions": shown.columns["actions"]} if "actions" in shown.columns else {}, f"actions of {shown.name}"
    )
    flat = {
        k: c for k, c in shown.columns.items() if k.startswith("obs/") and k not in cameras and c.dtype.kind in "biuf"
    }
    _curves(right, flat, f"observations of {shown.name}")
    for row, name in zip(rows, cameras, strict=True):
        _frames(row, shown, name)
    try:
        figure.savefig(path, dpi=100)
    except (OSError, ValueError) as error:
        raise DatasetError(f"cannot draw {path}: {error}") from None
    return Path(path)


def _histogram(axes: Any, values: np.ndarray | None, title: str) -> None:
    axes.set_title(title, fontsize=9)
    if values is None or not np.isfinite(values).all():
        _none(axes)
        return
    axes.hist(values, bins=min(30, max(5, len(values) // 2)), color="tab:blue")
    axes.axvline(values.mean(), color="black", linewidth=1)
    axes.set_ylabel("episodes", fontsize=8)
    axes.tick_params(labelsize=8)


def _ranges(axes: Any, episodes: list[Episode]) -> None:
    """A thin bar from the least to the greatest of each number, a thick one over nine tenths of the steps."""
    axes.set_title("range of each action's number", fontsize=9)
    columns = [e.columns["actions"] for e in episodes if "actions" in e.columns]
    if not columns or columns[0].dtype.kind not in "biuf" or len({c.shape[1:] for c in columns}) > 1:
        _none(axes)
        return
    every = max(1, sum(c.shape[0] for c in columns) // SAMPLES)
    values = np.concatenate([np.asarray(c[:])[::every].reshape(-1, int(np.prod(c.shape[1:]))) for c in columns])
    at = np.arange(values.shape[1])
    low, most, much, high = np.percentile(values, [0, 5, 95, 100], axis=0)
    axes.vlines(at, low, high, color="tab:blue", linewidth=1.5)
    axes.vlines(at, most, much, color="tab:blue", linewidth=6)
    for bound in (-1.0, 1.0):
        axes.axhline(bound, color="gray", linewidth=0.8, linestyle=":")
    axes.set_xticks(at[:: max(1, len(at) // 12)])
    axes.tick_params(labelsize=8)


def _curves(axes: Any, columns: dict[str, Any], title: str) -> None:
    axes.set_title(title, fontsize=9)
    drawn = 0
    for name, column in columns.items():
        values = np.asarray(column[:]).reshape(column.shape[0], -1)
        for j in range(values.shape[1]):
            if drawn < LINES:
                label = name.removeprefix("obs/") + (f"[{j}]" if values.shape[1] > 1 else "")
                axes.plot(values[:, j], linewidth=0.9, label=label)
            drawn += 1
    if drawn == 0:
        _none(axes)
        return
    if drawn > LINES:
        axes.set_title(f"{title}, {LINES} of {drawn} numbers", fontsize=9)
    axes.legend(fontsize=6, ncols=2, loc="upper right")
    axes.set_xlabel("step", fontsize=8)
    axes.tick_params(labelsize=8)


def _frames(figure: Any, episode: Episode, name: str) -> None:
    column = episode.columns[name]
    rows = np.linspace(0, episode.steps - 1, FRAMES).astype(int)
    for axes, row in zip(figure.subplots(1, FRAMES), rows.tolist(), strict=True):
        frame = np.asarray(column[row : row + 1])[0]
        axes.imshow(frame[..., 0] if frame.shape[-1] == 1 else frame[..., -3:], cmap="gray")
        axes.set_title(f"{name.removeprefix('obs/')}, step {row}", fontsize=7)
        axes.set_axis_off()


def _none(axes: Any) -> None:
    axes.text(0.5, 0.5, "none in this file", ha="center", va="center", color="gray", transform=axes.transAxes)
    axes.set_xticks([])
    axes.set_yticks([])
