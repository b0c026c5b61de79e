"""Randomization: what differs between episodes, as a list of terms, and the numbers drawn from it.

A term says what varies, on which joints or bodies, and how it is drawn. Each term has its own keyed stream
(seed, term, world, episode), so adding one never reshuffles the others and any episode can be drawn alone
(in contrast to one generator in sequence). The engine applies draws to default values, never to earlier draws.

    {"terms": [
      {"name": "mass", "what": "link_mass", "target": "fr3_link*", "distribution": "uniform",
       "range": [0.7, 1.3], "operation": "scale"},
      {"name": "latency", "what": "action_latency", "distribution": "uniform", "range": [0.0, 0.08], "operation": "set"}
    ]}

What can vary is listed in sim/whats.py; what it means in a MuJoCo model stands in sim/physics_terms.py.
"""

from __future__ import annotations

import fnmatch
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_torch_array

from ..errors import UsageError, unknown_name
from ..keyed import Stream, normals, uniforms
from .whats import WHATS, What

DISTRIBUTIONS = ("uniform", "loguniform", "normal", "integer")


@dataclass(frozen=True)
class Term:
    """One line of a randomization."""

    name: str
    what: str
    target: Sequence[str] = ()  # names or patterns such as "fr3_joint*"
    distribution: str = "uniform"
    range: tuple[float, float] | None = None  # lowest and highest value; a normal draw is clipped to it
    mean: float | None = None  # normal only
    std: float | None = None  # normal only
    operation: str = "scale"  # what the drawn number does to the default value
    shared: bool = False  # one number for all targets instead of one each
    when: str = "reset"  # start: once a world; reset: for every episode; interval: also within episodes
    interval: tuple[float, float] | None = None  # [s] shortest and longest time between two draws
    duration: float | None = None  # [s] of a push
    count: int | None = None  # of distractors
    box: tuple[tuple[float, ...], tuple[float, ...]] | None = None  # [m] lowest and highest corner of where they are

    def __post_init__(self) -> None:
        target = (self.target,) if isinstance(self.target, str) else tuple(self.target)
        object.__setattr__(self, "target", tuple(t for t in target if t))
        for field in ("range", "interval", "box"):
            if (pair := getattr(self, field)) is not None:
                object.__setattr__(self, field, tuple(tuple(x) if isinstance(x, list) else x for x in pair))
        self._check_names()
        self._check_numbers()
        self._check_support()
        self._check_times()
        self._check_place()

    @property
    def support(self) -> tuple[float, float]:
        """The lowest and highest number that can be drawn."""
        if self.range is not None:
            return float(self.range[0]), float(self.range[1])
        return (-math.inf, math.inf) if self.std else (self.mean or 0.0, self.mean or 0.0)

    def draw(self, seed: int, worlds: Any, episodes: Any, size: int, draws: Any = 0) -> Any:
        """Numbers for the given episodes: (len(worlds), size); `draws` counts those within an episode.

        A tensor where worlds are one.
        """
        return self.drawn(uniforms([self.request(seed, worlds, episodes, size, draws)])[0], size)

    def request(
        self, seed: int, worlds: Any, episodes: Any, size: int, draws: Any
    ) -> tuple[Stream, Any, Any, int, Any]:
        """What `keyed.uniforms` gives the numbers for, which `drawn` takes."""
        count = 1 if self.shared else size
        count += count % 2 if self.distribution == "normal" else 0
        episodes = 0 if self.when == "start" else episodes
        return Stream(seed, f"randomization/{self.name}"), worlds, episodes, count, draws

    def drawn(self, u: Any, size: int) -> Any:
        """Numbers (n, size) of this term's distribution, from uniform ones."""
        xp = np if isinstance(u, np.ndarray) else array_namespace(u)
        if self.distribution == "normal":
            assert self.mean is not None and self.std is not None
            drawn = self.mean + self.std * normals(u)[:, : 1 if self.shared else size]
            drawn = drawn if self.range is None else drawn.clip(*self.range)
        else:
            low, high = self.support
            if self.distribution == "uniform":
                drawn = low + (high - low) * u
            elif self.distribution == "loguniform":
                drawn = low * (high / low) ** u
            else:  # in float32 the product can be rounded up to the next integer
                drawn = low + xp.floor(u * (high - low + 1.0)).clip(0.0, high - low)
        return xp.broadcast_to(drawn, (len(drawn), size)) if self.shared else drawn

    def _check_names(self) -> None:
        where = f"randomization term {self.name!r}"
        if not isinstance(self.name, str) or not self.name:
            raise UsageError(f"a randomization term needs a name (a non-empty string), not {self.name!r}")
        what = WHATS.get(self.what, What("", "", ""))
        known = {"what": WHATS, "distribution": DISTRIBUTIONS, "operation": what.operations, "when": what.when}
        for field, names in known.items():
            if getattr(self, field) not in names:
                raise UsageError(f"{where}: {unknown_name(field, str(getattr(self, field)), names)}")
        if not all(isinstance(t, str) for t in self.target):
            raise UsageError(f"{where}: target must be names or patterns, not {list(self.target)}")
        if WHATS[self.what].target and not self.target:
            raise UsageError(f"{where}: {self.what} needs a target, the name or pattern of a "
                             f"{WHATS[self.what].target}")  # fmt: skip
        if not WHATS[self.what].target and self.target:
            raise UsageError(f"{where}: {self.what} takes no target, got {', '.join(self.target)}")

    def _check_numbers(self) -> None:
        where = f"randomization term {self.name!r}"
        normal = self.distribution == "normal"
        if normal and (self.mean is None or self.std is None):
            raise UsageError(f"{where}: a normal distribution needs mean and std (and may have a range to clip to)")
        if not normal and (self.range is None or self.mean is not None or self.std is not None):
            raise UsageError(
                f"{where}: a {self.distribution} distribution needs a range [low, high], and no mean or std"
            )
        for field in ("range", "mean", "std"):
            value = getattr(self, field)
            numbers = value if field == "range" and value is not None else () if value is None else (value,)
            if not all(isinstance(x, int | float) and math.isfinite(x) for x in numbers):
                raise UsageError(f"{where}: {field} must be finite numbers, not {value!r}")
        if self.range is not None and len(self.range) != 2:
            raise UsageError(f"{where}: range must be [low, high], not {list(self.range)}")
        if self.range is not None and self.range[0] > self.range[1]:
            raise UsageError(f"{where}: the range [{self.range[0]:g}, {self.range[1]:g}] is empty: low is above high")
        if self.std is not None and self.std < 0:
            raise UsageError(f"{where}: std must not be negative, got {self.std:g}")
        if self.distribution == "loguniform" and self.support[0] <= 0:
            raise UsageError(f"{where}: a loguniform range must lie above zero, got low = {self.support[0]:g}")
        if self.distribution == "integer" and any(x != int(x) for x in self.support):
            raise UsageError(f"{where}: an integer range must have whole ends, got {list(self.support)}")

    def _check_times(self) -> None:
        where = f"randomization term {self.name!r}"
        if (self.when == "interval") != (self.interval is not None):
            raise UsageError(
                f"{where}: an interval [shortest, longest] in seconds goes with when = interval, and with nothing "
                f"else; here when is {self.when} and interval {_plain(self.interval)}"
            )
        pair = self.interval or (1.0, 1.0)
        if len(pair) != 2 or not all(isinstance(x, int | float) for x in pair) or not 0 < pair[0] <= pair[1] < math.inf:
            raise UsageError(f"{where}: interval must be [shortest, longest] in seconds above zero, not {list(pair)}")
        if WHATS[self.what].lasts != (self.duration is not None):
            raise UsageError(f"{where}: a duration in seconds goes with a push, and with nothing else")
        if self.duration is not None and not (isinstance(self.duration, int | float) and 0 < self.duration < math.inf):
            raise UsageError(f"{where}: duration must be a number of seconds above zero, not {self.duration!r}")

    def _check_place(self) -> None:
        where, is_distractor = f"randomization term {self.name!r}", self.what == "distractor"
        if not (self.count is not None) == (self.box is not None) == is_distractor:
            raise UsageError(f"{where}: count and box go with distractors, both, and with nothing else")
        if self.box is None:
            return
        if not isinstance(self.count, int) or not 1 <= self.count <= 100:
            raise UsageError(f"{where}: count must be a whole number from 1 to 100, not {self.count!r}")
        box = np.array([list(corner) for corner in self.box if isinstance(corner, tuple)], dtype=object)
        numbers = box.shape == (2, 3) and all(isinstance(x, int | float) and math.isfinite(x) for x in box.ravel())
        if not numbers or (box[0] > box[1]).any():
            raise UsageError(f"{where}: box must be [[x, y, z], [x, y, z]], the lowest corner first, not {self.box!r}")

    def _check_support(self) -> None:
        where = f"randomization term {self.name!r}"
        what, (low, high) = WHATS[self.what], self.support
        wrong = (low < 0 and (what.positive or what.nonnegative)) or (low == 0 and what.positive)
        if wrong and self.operation in ("scale", "set"):
            bound = "above zero" if what.positive else "at least zero"
            hint = "; give the normal distribution a range to clip to" if math.isinf(low) else ""
            raise UsageError(f"{where}: {self.operation} of {self.what} must be {bound}, "
                             f"but {low:g} can be drawn{hint}")  # fmt: skip
        if what.bounded and not math.isfinite(high):
            raise UsageError(f"{where}: {self.what} needs a longest value; give the distribution a range")
        if high > what.most:
            raise UsageError(f"{where}: {self.what} is at most {what.most:g}, but {high:g} can be drawn")


@dataclass(frozen=True)
class Randomization:
    """All terms of a task or file. Frozen; equality is by value."""

    terms: tuple[Term, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "terms", tuple(self.terms))
        names = [t.name for t in self.terms]
        for name in names:
            if names.count(name) > 1:
                raise UsageError(f"randomization term {name!r} appears {names.count(name)} times; every name once")

    def draw(self, seed: int, worlds: Any, episodes: Any, sizes: Mapping[str, int],
             draws: Mapping[str, Any] | None = None) -> dict[str, Any]:  # fmt: skip
        """Numbers of every term for the given episodes: name -> (n, sizes[name]); draws as in `Term.draw`, by name."""
        draws = draws or {}
        if not is_torch_array(worlds):
            worlds, episodes = np.atleast_1d(worlds), np.atleast_1d(episodes)
        together = uniforms(
            [t.request(seed, worlds, episodes, sizes[t.name], draws.get(t.name, 0)) for t in self.terms]
        )
        return {t.name: t.drawn(u, sizes[t.name]) for t, u in zip(self.terms, together, strict=True)}

    @staticmethod
    def load(path: str | Path) -> Randomization:
        """The randomization in a JSON file.

        Raises:
            UsageError: naming the file, the term and the field that is wrong.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise UsageError(f"cannot read the randomization file {path}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise UsageError(f"the randomization file {path} is not a text file") from None
        try:
            return Randomization.from_json(json.loads(text))
        except json.JSONDecodeError as error:
            raise UsageError(f"the randomization file {path} is not JSON: {error}") from None
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    def to_json(self) -> dict[str, Any]:
        """Plain data, for provenance; `from_json` gives an equal randomization back."""
        return {"terms": [{f.name: _plain(getattr(t, f.name)) for f in fields(Term) if getattr(t, f.name) is not None}
                          for t in self.terms]}  # fmt: skip

    @staticmethod
    def from_json(data: Any) -> Randomization:
        """The randomization of `to_json`'s data."""
        if not isinstance(data, Mapping) or not {"terms"} <= set(data) <= {"terms", "adr"}:
            raise UsageError('a randomization is a JSON object {"terms": [ ... ]}, with "adr" beside it or not')
        if not isinstance(data["terms"], list):
            raise UsageError('"terms" of a randomization is a list [ ... ] with one object a term')
        terms = Randomization(tuple(_term(entry) for entry in data["terms"]))
        if "adr" not in data:
            return terms
        from .adr import adaptive

        return adaptive(terms, data["adr"])


def match(term: Term, names: Sequence[str]) -> list[int]:
    """Indices of the names that the term's patterns choose, each once, in the model's order.

    Raises:
        UsageError: a pattern matches nothing, with near names or the whole list.
    """
    chosen: set[int] = set()
    for pattern in term.target:
        hits = [i for i, name in enumerate(names) if name and fnmatch.fnmatchcase(name, pattern)]
        if not hits:
            error = unknown_name(WHATS[term.what].target, pattern, [n for n in names if n])
            raise UsageError(f"randomization term {term.name!r}: {error}")
        chosen.update(hits)
    return sorted(chosen)


def _term(entry: Any) -> Term:
    if not isinstance(entry, Mapping):
        raise UsageError(f"a randomization term is a JSON object, not {entry!r}")
    where = f"randomization term {entry.get('name', '?')!r}"
    known = [f.name for f in fields(Term)]
    for field in entry:
        if field not in known:
            raise UsageError(f"{where}: {unknown_name('field', str(field), known)}")
    for field in ("name", "what"):
        if field not in entry:
            raise UsageError(f"{where}: the field {field!r} is missing")
    for field in ("range", "interval", "box"):
        if entry.get(field) is not None and not isinstance(entry[field], list | tuple):
            raise UsageError(f"{where}: {field} must be [low, high], not {entry[field]!r}")
    try:
        return Term(**entry)
    except TypeError as error:
        raise UsageError(f"{where}: a field has the wrong form ({error})") from None


def _plain(value: Any) -> Any:
    return [_plain(x) for x in value] if isinstance(value, tuple) else value
