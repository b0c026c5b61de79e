"""The benchmark measures what it says: its HalfCheetah is Gymnasium's, and its rows are plain data."""

import json

import gymnasium
import numpy as np
import torch

from poise.sim.task_env import TaskEnv

from .bench_sim import HalfCheetah, rows


def test_the_benchmark_task_is_gymnasiums_half_cheetah():
    env, theirs = TaskEnv(HalfCheetah(), 1, threads=1), gymnasium.make("HalfCheetah-v5")
    theirs.reset(seed=0)
    env.reset(0)
    theirs.unwrapped.set_state(env.state.qpos[0].copy(), env.state.qvel[0].copy())
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32):
        step = env.step(torch.from_numpy(action[None]))
        obs, reward, *_ = theirs.step(action)
        np.testing.assert_allclose(step.obs["state"][0], obs, atol=1e-4)
        np.testing.assert_allclose(step.reward[0], reward, atol=1e-4)
    theirs.close()


def test_rows_are_plain_data_with_rates_and_ratios():
    table = json.loads(json.dumps(rows(0.0, share=0.01)))
    assert [row["what"] for row in table][:2] == ["engine 64", "engine 8"]
    assert all(row["steps_per_cpu_second"] > 0 for row in table)
    assert all({"against", "ratio", "bar", "passed"} <= set(row) for row in table[:3])
