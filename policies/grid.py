"""The gap, measured: a policy scored on a grid of realities that training never saw.

    {"task": "push/fr3", "episodes": 50, "seed": 9000,
     "terms": [{"name": "joint noise", "what": "joint_pos_noise", "target": "*", "range": [0.0005, 0.0005],
                "operation": "set"}],
     "axes": [
       {"name": "object mass", "what": "link_mass", "target": "object", "operation": "scale", "values": [0.5, 1, 2, 4]},
       {"name": "latency [s]", "what": "action_latency", "operation": "set", "values": [0, 0.05, 0.1]},
       {"name": "arm", "option": "mjcf", "values": ["", "another_fr3.xml"]}]}

An axis sets one thing that sim/randomization.py can vary to each of its values, or an option of the task ("" leaves
it out); heat-maps average over an axis with `"draw": false`; `terms` hold at every point. Every point plays the same
episodes, so two points differ by their reality alone, and two policies on one grid meet the same worlds.

Legend: P policies of a group (seeds of one training), G points of the grid.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..address import with_option
from ..errors import UsageError, unknown_name
from ..sim.randomization import Randomization, Term
from .evaluate import Acts, evaluate

MOST_POINTS = 1000
_AXIS = ("name", "values", "what", "target", "operation", "option", "draw")
_GRID = ("task", "episodes", "seed", "terms", "axes")


@dataclass(frozen=True)
class Axis:
    """One thing that differs between realities, and the values it takes."""

    name: str
    values: tuple[float | str, ...]
    what: str = ""  # of sim/randomization.py
    target: Sequence[str] = ()
    operation: str = "scale"
    option: str = ""  # of the task's name, instead of `what`
    draw: bool = True  # whether heat-maps have it, or average over it

    def __post_init__(self) -> None:
        where = f"axis {self.name!r} of the grid"
        if not self.values:
            raise UsageError(f"{where} has no values")
        if bool(self.what) == bool(self.option):
            raise UsageError(f"{where} needs either what (and target), to vary the dynamics, or option, of the task")
        if self.what:
            for value in self.values:
                self.term(value)  # which says what is wrong with it

    def term(self, value: Any) -> Term:
        """This axis at one value, as a randomization that draws nothing else."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(f"axis {self.name!r} of the grid: {value!r} is not a number")
        return Term(f"grid/{self.name}", self.what, self.target, range=(value, value), operation=self.operation)


@dataclass(frozen=True)
class Point:
    """One reality."""

    values: tuple[float | str, ...]  # one an axis
    task: str
    randomization: Randomization


@dataclass(frozen=True)
class Grid:
    """A sweep over realities; its points are the product of its axes."""

    axes: tuple[Axis, ...]
    task: str = ""
    episodes: int = 50
    seed: int = 9000
    terms: Randomization = field(default_factory=Randomization)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(axis.values) for axis in self.axes)

    def points(self, task: str) -> list[Point]:
        """Every reality of `task`, the last axis fastest."""
        result = []
        for values in itertools.product(*(axis.values for axis in self.axes)):
            pairs = list(zip(self.axes, values, strict=True))
            terms = tuple(axis.term(value) for axis, value in pairs if axis.what)
            name = task
            for axis, value in pairs:
                if axis.option and value != "":
                    name = with_option(name, axis.option, str(value))
            result.append(Point(values, name, Randomization((*self.terms.terms, *terms))))
        return result

    @staticmethod
    def load(path: str | Path) -> Grid:
        """The grid of a JSON file.

        Raises:
            UsageError: naming the file, the axis and the field that is wrong.
        """
        try:
            return Grid.from_json(json.loads(Path(path).read_text(encoding="utf-8")))
        except OSError as error:
            raise UsageError(f"cannot read the grid {path}: {error.strerror}") from None
        except ValueError as error:  # not JSON, or not text
            if isinstance(error, UsageError):
                raise UsageError(f"{path}: {error}") from None
            raise UsageError(f"the grid {path} is not JSON: {error}") from None

    @staticmethod
    def from_json(data: Any) -> Grid:
        if not isinstance(data, Mapping) or not isinstance(data.get("axes"), list) or not data["axes"]:
            raise UsageError('a grid is a JSON object with "axes", a list of objects; see docs/gap.md')
        _refuse_unknown("the grid", data, _GRID)
        axes = []
        for entry in data["axes"]:
            if not isinstance(entry, Mapping) or not isinstance(entry.get("values"), list) or "name" not in entry:
                raise UsageError(f"an axis of the grid is an object with name and values, not {entry!r}")
            _refuse_unknown(f"axis {entry['name']!r} of the grid", entry, _AXIS)
            axes.append(Axis(**{**entry, "values": tuple(entry["values"])}))
        episodes, seed = data.get("episodes", Grid.episodes), data.get("seed", Grid.seed)
        for name, value, least in (("episodes", episodes, 1), ("seed", seed, 0)):
            if not isinstance(value, int) or value < least:
                raise UsageError(f"{name} of the grid must be a whole number, at least {least}, not {value!r}")
        grid = Grid(tuple(axes), str(data.get("task", "")), episodes, seed,
                    Randomization.from_json({"terms": data.get("terms", [])}))  # fmt: skip
        if math.prod(grid.shape) > MOST_POINTS:
            raise UsageError(f"the grid has {math.prod(grid.shape):,} points, at most {MOST_POINTS:,} are swept")
        return grid


def _refuse_unknown(where: str, entry: Mapping[str, Any], known: Sequence[str]) -> None:
    for name in entry:
        if name not in known:
            raise UsageError(f"{where}: {unknown_name('field', str(name), known)}")


@dataclass(frozen=True)
class Sweep:
    """What one policy scored at every point: its success rate, or its mean return where the task has no success."""

    scores: np.ndarray  # of the grid's shape
    measure: str  # "success rate" or "return"


def sweep(
    policy: Acts, task: str, grid: Grid, progress: Callable[[int], None] | None = None, threads: int = 0
) -> Sweep:
    """Score `policy` at every point of `grid`."""
    results = [
        evaluate(policy, point.task, grid.episodes, grid.seed, point.randomization, progress, threads)
        for point in grid.points(task)
    ]
    rates = [result.success_rate for result in results]
    known = all(rate is not None for rate in rates)
    scores = np.array(rates if known else [result.return_mean for result in results], float)
    return Sweep(scores.reshape(grid.shape), "success rate" if known else "return")


@dataclass(frozen=True)
class Group:
    """The policies of one way of training, one for each seed."""

    label: str
    scores: np.ndarray  # (P, *grid.shape)

    @property
    def mean(self) -> np.ndarray:
        """Of the policies, at every point."""
        return self.scores.mean(0)

    @property
    def per_policy(self) -> np.ndarray:
        """(P,) each policy's mean over the grid."""
        return self.scores.reshape(len(self.scores), -1).mean(1)

    def to_json(self) -> dict[str, Any]:
        each = self.per_policy
        return {
            "label": self.label,
            "policies": len(each),
            "mean": float(each.mean()),
            "worst_policy": float(each.min()),
            "best_policy": float(each.max()),
            "worst_point": float(self.mean.min()),
            "scores": self.scores.tolist(),
        }


def table(grid: Grid, groups: Sequence[Group], measure: str) -> str:
    """The report as Markdown: one line a group, then one line a point."""
    scale, unit = (100.0, " %") if measure == "success rate" else (1.0, "")

    def number(value: float) -> str:
        return f"{scale * value:.1f}"

    points = math.prod(grid.shape)
    lines = [f"{measure}{unit}, {grid.episodes} episodes at each of {points} points, seed {grid.seed}", "",
             "| trained with | policies | mean | worst policy | best policy | worst point |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for group in groups:
        g = group.to_json()
        lines.append(f"| {group.label} | {g['policies']} | {number(g['mean'])} | {number(g['worst_policy'])} | "
                     f"{number(g['best_policy'])} | {number(g['worst_point'])} |")  # fmt: skip
    names = " | ".join(axis.name for axis in grid.axes)
    lines += ["", f"| {names} | {' | '.join(g.label for g in groups)} |", "|---" * (len(grid.axes) + len(groups)) + "|"]
    for index in np.ndindex(*grid.shape):
        values = " | ".join(value_text(axis.values[i]) for axis, i in zip(grid.axes, index, strict=True))
        lines.append(f"| {values} | {' | '.join(number(float(g.mean[index])) for g in groups)} |")
    return "\n".join(lines)


def value_text(value: float | str) -> str:
    """A value of an axis as people read it."""
    return f"{value:g}" if isinstance(value, int | float) else Path(value).name or "its own"
