"""Behaviour cloning on real expert files, two trajectories each: at least 95 % of the expert's return."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

from poise.datasets.open_log import open_log
from poise.policies.fit import fit

DATA = Path(__file__).parents[1] / "data" / "cs285"


@pytest.mark.learning
@pytest.mark.parametrize("task", ["HalfCheetah", "Hopper"])
def test_two_trajectories_of_an_expert_are_enough(task):
    file = DATA / f"expert_data_{task}-v4.pkl"
    with open_log(file) as log:
        expert = np.mean([np.sum(e.columns["rewards"][:]) for e in log.episodes])
    began = time.process_time()
    settings = {"steps": 8000, "actions": "clip", "evaluations": 1, "eval_episodes": 10, "threads": 1}
    result = fit("bc", [str(file)], f"{task}-v5", "run", settings=settings)
    seconds = time.process_time() - began
    assert result.eval is not None
    print(f"{task}: {result.eval.return_mean:.0f} of the expert's {expert:.0f}, {seconds:.0f} CPU-seconds")
    assert result.eval.return_mean >= 0.95 * expert and seconds < 60
