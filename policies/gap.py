"""The report on the gap: several ways of training, each with several seeds, on one grid of realities.

Written to a folder: `gap.md` (tables), `gap.png` (heat-maps) and `gap.json` (every score, the grid itself, where the
policies come from), so that a figure can be checked without running anything again.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import UsageError
from .grid import Grid, Group, sweep, table
from .heat_map import draw_heat_maps
from .policy import load_policy


def labelled(names: Sequence[str]) -> dict[str, list[str]]:
    """LABEL=PATH, or a path whose label is the folder it lies in: label -> paths, in order."""
    groups: dict[str, list[str]] = {}
    for name in names:
        label, equals, path = name.partition("=")
        if not equals or "/" in label:
            label, path = Path(name).resolve().parent.name, name
        if not path:
            raise UsageError(f"expected LABEL=POLICY, got {name!r}")
        groups.setdefault(label, []).append(path)
    return groups


def gap(policies: Mapping[str, Sequence[str]], grid: Grid, out: Path | str, task: str | None = None,
        progress: Callable[[int], None] | None = None, threads: int = 0) -> dict[str, Any]:  # fmt: skip
    """Sweep every policy (label -> files, one a seed of training) over `grid` and write the report into `out`.

    The task is `task`, else the grid's, else what the first policy was trained on.

    Raises:
        UsageError: no task is known; the folder cannot be written.
        SpecError: a policy does not fit the task.
    """
    loaded = {label: [load_policy(path) for path in paths] for label, paths in policies.items()}
    first = next(iter(loaded.values()))[0]
    if not (task := task or grid.task or str(first.provenance.get("task") or "")):
        raise UsageError("the grid and the policies do not name a task; name it with --task")
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write the report to {folder}: {error.strerror}") from None
    groups, measure = [], ""
    for label, members in loaded.items():
        sweeps = [sweep(policy, task, grid, progress, threads) for policy in members]
        measure = sweeps[0].measure
        groups.append(Group(label, np.stack([s.scores for s in sweeps])))
    report = {
        "task": task,
        "measure": measure,
        "episodes": grid.episodes,
        "seed": grid.seed,
        "points": math.prod(grid.shape),
        "axes": [{"name": axis.name, "values": list(axis.values)} for axis in grid.axes],
        "groups": [g.to_json() | {"files": list(policies[g.label]), "trained": [_origin(p) for p in loaded[g.label]]}
                   for g in groups],
    }  # fmt: skip
    (folder / "gap.md").write_text(f"# {task}\n\n{table(grid, groups, measure)}\n\n![heat-maps](gap.png)\n")
    (folder / "gap.json").write_text(json.dumps(report, indent=1) + "\n")
    draw_heat_maps(grid, groups, measure, folder / "gap.png")
    return report


def _origin(policy: Any) -> dict[str, Any]:
    return {name: policy.provenance.get(name) for name in ("algorithm", "seed", "steps", "commit")}
