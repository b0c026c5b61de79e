"""D4RL's data sets by name: where each lies, what a return scores, after how many steps its task ended.

    normalized score = 100 (return - random) / (expert - random)          Fu et al. 2020, arXiv 2004.07219, eq. 1

The 155 addresses, the 147 pairs of reference returns and the step limits are those of D4RL 1.1 (Apache-2.0), in
d4rl_datasets.json. Eight sets have no reference, and a score of them would be a guess.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from ..errors import UsageError, unknown_name


@cache
def entries() -> Mapping[str, Mapping[str, Any]]:
    """Name -> url, and where known min, max (reference returns) and horizon (steps)."""
    return json.loads((Path(__file__).parent / "d4rl_datasets.json").read_text())


def entry(name: str) -> Mapping[str, Any]:
    """What is known of one data set.

    Raises:
        UsageError: D4RL has no such set.
    """
    if name not in entries():
        raise unknown_name("D4RL data set", name, entries())
    return entries()[name]


def score_reference(files: Sequence[str]) -> str:
    """The data set whose references score what is learned from these files; "" unless all are D4RL's, with one pair.

    A file is D4RL's by its address, `d4rl:hopper-medium-v2`, or by its name, hopper_medium-v2.hdf5 as downloaded or
    hopper-medium-v2.hdf5.
    """
    found = [_set_of(file) for file in files]
    pairs = {(entry(name).get("min"), entry(name).get("max")) for name in found if name}
    return found[0] if all(found) and len(pairs) == 1 and (None, None) not in pairs else ""


def _set_of(file: str) -> str:
    """The data set that a file is by its name, or ""."""
    if file.startswith("d4rl:"):
        return file.removeprefix("d4rl:")
    name = Path(file).name
    if name.removesuffix(".hdf5") in entries():
        return name.removesuffix(".hdf5")
    return next((known for known, e in entries().items() if e["url"].endswith(f"/{name}")), "")


def normalized_score(name: str, episode_return: float) -> float:
    """0 for D4RL's random policy and 100 for its expert.

    Raises:
        UsageError: D4RL has no such set, or no reference returns of it.
    """
    found = entry(name)
    if "min" not in found:
        raise UsageError(f"D4RL gives no reference returns for {name}, so a return has no score there")
    return 100.0 * (episode_return - found["min"]) / (found["max"] - found["min"])
