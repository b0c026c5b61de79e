"""Learning curves as a picture, from metrics.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

PANELS = (  # title, metrics drawn in it
    ("return per episode", ("train/return", "eval/return")),
    ("success rate", ("train/success", "eval/success")),
    ("critic loss", ("critic/loss",)),
    ("exploration", ("policy/log_std", "policy/entropy", "alpha")),
)


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
    panels = [(title, [n for n in names if n in series]) for title, names in PANELS]
    panels = [(title, names) for title, names in panels if names]
    if not panels:
        return
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, names) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        for name in names:
            marker = "o" if name.startswith("eval/") else None
            axes.plot(*series[name], label=name, marker=marker, markersize=4, linewidth=1.6)
        axes.set_title(title, fontsize=11)
        axes.set_xlabel("environment steps")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8, frameon=False)
        if title == "success rate":
            axes.set_ylim(-0.03, 1.03)
    figure.savefig(out, dpi=130)
