"""What a checkpoint costs with a million transitions in replay: wall seconds, and the share of training time.

A run saves at most every `checkpoint_seconds` (30), and never so often that saving takes over 4 % of its time. Here
the replay is full, and between two checkpoints come the transitions that SAC collects in 30 s at 10 ms a step.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from poise.batch import Step
from poise.policies.checkpoint import load_checkpoint, save_checkpoint
from poise.policies.run_settings import RunSettings
from poise.policies.sac import SAC, SACConfig
from poise.spec import ActionTerm, ObsTerm, Spec

TRANSITIONS, OBS, ACTIONS, WORLDS = 1_000_000, 17, 6, 8  # HalfCheetah's sizes
STEP_SECONDS = 0.01  # one environment step and update of SAC on one core
EPISODE = 1000


def rows(checkpoints: int = 5) -> list[dict[str, Any]]:
    """First checkpoint, those after it, and resuming."""
    spec = Spec({"state": (ObsTerm("x", (OBS,)),)},
                (ActionTerm("u", "control", low=(-1.0,) * ACTIONS, high=(1.0,) * ACTIONS),), 0.05)  # fmt: skip
    learner = SAC(spec, SACConfig(capacity=TRANSITIONS, compile="off"), WORLDS, 0)
    buffer, fill = learner.make_buffer(), _Filler(WORLDS)
    fill(buffer, TRANSITIONS // WORLDS + 10)
    interval = RunSettings().checkpoint_seconds
    news = int(interval / STEP_SECONDS) // WORLDS
    with tempfile.TemporaryDirectory() as folder:
        first = _timed(lambda: _save(Path(folder), learner, buffer))
        later = []
        for _ in range(checkpoints):
            fill(buffer, news)
            later.append(_timed(lambda: _save(Path(folder), learner, buffer)))
        size = sum(p.stat().st_size for p in Path(folder).iterdir())
        load = _timed(lambda: load_checkpoint(Path(folder), learner.make_buffer()))
    later.sort()
    return [
        {"row": "first checkpoint, 1M transitions", "seconds": first, "MB": size / 1e6},
        {"row": f"each after {interval:g} s of training", "seconds": later[len(later) // 2],
         "worst": later[-1], "share": later[-1] / interval, "bar": "<= 0.05"},
        {"row": "reading it back", "seconds": load},
    ]  # fmt: skip


class _Filler:
    """Adds rows of random numbers with episodes of 1000 steps."""

    def __init__(self, worlds: int):
        self._worlds, self._t = worlds, 0
        self._obs = torch.randn(worlds, OBS)

    def __call__(self, buffer: Any, steps: int) -> None:
        action, reward, never = torch.zeros(self._worlds, ACTIONS), torch.zeros(self._worlds), torch.zeros(self._worlds)
        for _ in range(steps):
            self._t += 1
            after = self._obs + 1.0
            ends = torch.full((self._worlds,), self._t % EPISODE == 0)
            following = torch.where(ends[:, None], after - 5.0, after)
            step = Step({"state": following}, {"state": after}, reward, never.bool(), ends)
            buffer.add({"state": self._obs}, action, {}, step)
            self._obs = following


def _save(folder: Path, learner: SAC, buffer: Any) -> None:
    save_checkpoint(folder, {"learner": learner.state_dict()}, buffer, {})


def _timed(work: Any) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


if __name__ == "__main__":
    for row in rows():
        print(row)
