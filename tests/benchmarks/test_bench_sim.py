"""The benchmark measures what it says: physics alone repeats an env's own periods, and rows are plain data."""

import json

import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.task_env import TaskEnv
from poise.sim.tasks.runners import HalfCheetah

from .bench_sim import PAIRS, Pair, env_side, measure, physics_side, rows


def _pair(what: str) -> Pair:
    return next(pair for pair in PAIRS if pair.what == what)


def test_physics_alone_takes_the_control_periods_of_the_environment(monkeypatch):
    """Its rollouts begin where the env's own steps begin, with the same substeps."""
    begins = []

    class Recording:
        def __init__(self, nthread):
            assert nthread == 0

        def rollout(self, models, data, states, commands, *, nstep, state, **rest):
            begins.append(states.copy())
            assert len(models) == 3 and commands.shape[:2] == (3, nstep) and nstep == 5

    monkeypatch.setattr("tests.benchmarks.bench_sim.Rollout", Recording)
    physics_side("HalfCheetah-v5", 3)(3 * 4)
    task = HalfCheetah()
    env, generator = TaskEnv(task, 3, task.randomization, threads=1), torch.Generator().manual_seed(0)
    env.reset(0)
    for state in begins:
        np.testing.assert_array_equal(state, env.engine.state)
        env.step(torch.rand(3, 6, generator=generator) * 2 - 1)
    assert len(begins) == 4


def test_a_row_is_plain_data_with_rates_a_ratio_and_whether_it_passed():
    for what in ("HalfCheetah-v5, 8 randomized worlds", "HalfCheetah-v5, 8 worlds, SyncVectorEnv",
                 "reach/fr3, drawn every episode"):  # fmt: skip
        row = json.loads(json.dumps(measure(_pair(what), 0.0, share=0.01)))
        assert row["steps_per_second"] > 0 and row["against_steps_per_second"] > 0 and row["rounds"] >= 3
        assert row["passed"] == (row["ratio"] >= row["bar"])


def test_what_is_not_installed_is_a_row_that_says_so():
    def missing():
        raise UsageError("not installed: pip install envpool")

    row = measure(Pair("x", lambda: env_side("HalfCheetah-v5", 1), "EnvPool(8)", missing, None, 8), 0.0)
    assert row["passed"] is None and row["note"] == "not installed: pip install envpool"


def test_names_are_unique_and_an_unknown_one_lists_them():
    names = [pair.what for pair in PAIRS]
    assert len(set(names)) == len(names)
    with pytest.raises(UsageError, match=r"unknown benchmark 'walking'; known: .*Humanoid-v5"):
        rows(0.0, "walking")
