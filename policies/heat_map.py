"""Heat-maps of a grid: the first two axes as rows and columns, one picture for each group of policies.

Where a grid has more axes, their values become further rows of pictures; with one axis a map is one row of cells. An
axis that is not to be drawn is averaged over.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .grid import Grid, Group, value_text


def draw_heat_maps(grid: Grid, groups: Sequence[Group], measure: str, out: Path) -> None:
    """Write a PNG with a column for each group."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.figure import Figure

    rate = measure == "success rate"
    drawn = [axis for axis in grid.axes if axis.draw] or list(grid.axes[:1])
    others = tuple(i for i, axis in enumerate(grid.axes) if axis not in drawn)
    means = [(100.0 if rate else 1.0) * g.mean.mean(others) for g in groups]
    low, high = (0.0, 100.0) if rate else (min(m.min() for m in means), max(m.max() for m in means))
    slices = list(np.ndindex(*means[0].shape[2:]))
    rows, columns = drawn[0], drawn[1] if len(drawn) > 1 else None
    height, width = len(rows.values), len(columns.values) if columns else 1
    size = (max(2.6, 0.62 * width + 1.2) * len(groups) + 0.9, max(1.9, 0.45 * height + 1.1) * len(slices))
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(slices), len(groups), squeeze=False)
    norm = Normalize(low, high)
    for line, rest in zip(panels, slices, strict=True):
        for axes, group, values in zip(line, groups, means, strict=True):
            cells = values[(slice(None), slice(None), *rest)] if columns else values[:, None]  # (rows, columns)
            axes.imshow(cells, cmap="viridis", norm=norm, aspect="auto")
            for (i, j), cell in np.ndenumerate(cells):
                dark = cell < low + 0.6 * (high - low)
                axes.text(j, i, f"{cell:.0f}", ha="center", va="center", color="white" if dark else "black", fontsize=9)
            axes.set_yticks(range(height), [value_text(v) for v in rows.values])
            axes.set_xticks(range(width), [value_text(v) for v in columns.values] if columns else [""])
            axes.set_ylabel(rows.name)
            axes.set_xlabel(columns.name if columns else "")
            there = [f"{axis.name} {value_text(axis.values[k])}" for axis, k in zip(drawn[2:], rest, strict=True)]
            axes.set_title("\n".join([group.label, *there]), fontsize=10)
    figure.colorbar(ScalarMappable(norm, "viridis"), ax=panels, label=f"{measure} [%]" if rate else measure, shrink=0.8)
    figure.savefig(out, dpi=130)
