"""Learning curves as a picture, from metrics.jsonl."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path

PANELS = (  # title, metrics (or patterns of them) drawn in it: those that the run has
    ("return in training", ("train/return",)),
    ("evaluation, 95 % interval", ("eval/return", "eval/iqm")),
    ("success rate", ("train/success", "eval/success")),
    ("critic loss", ("critic/loss",)),
    ("values", ("critic/q", "critic/value")),
    ("exploration", ("policy/log_std", "policy/entropy", "alpha", "epsilon")),
    ("adaptive ranges, nats per dimension", ("adr/entropy",)),
    ("adaptive ranges, share of the widest", ("adr/*/width",)),
    ("results on the ranges' bounds", ("adr/boundary",)),
    ("divergence per iteration", ("policy/kl",)),
    ("weight of the penalty on it", ("policy/penalty",)),
)
COLUMNS = 4


def read_metrics(path: Path) -> dict[str, tuple[list[float], list[float]]]:
    """metric -> (environment steps, values)."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for line in path.read_text().splitlines():
        record = json.loads(line)
        for name, value in record.items():
            if name != "step":
                xs, ys = series.setdefault(name, ([], []))
                xs.append(record["step"])
                ys.append(value)
    return series


def draw_curves(metrics: Path, out: Path) -> None:
    """Write a PNG of the panels that the run has metrics for."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    series = read_metrics(metrics)
    panels = [(title, [n for p in names for n in series if fnmatchcase(n, p)]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    if not panels:
        return
    rows, columns = -(-len(panels) // COLUMNS), min(len(panels), COLUMNS)
    figure = Figure(figsize=(4.2 * columns, 3.2 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    for axes, (title, names) in zip(grid, panels, strict=False):
        for name in names:
            marker = "o" if name.startswith("eval/") else None
            axes.plot(*series[name], label=name, marker=marker, markersize=4, linewidth=1.6)
        if "eval/return" in names and {"eval/low", "eval/high"} <= series.keys():
            steps, low = series["eval/low"]
            axes.fill_between(steps, low, series["eval/high"][1], alpha=0.2, linewidth=0)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("environment steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        if title == "success rate":
            axes.set_ylim(-0.03, 1.03)
    figure.savefig(out, dpi=130)
