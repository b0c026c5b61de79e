"""What one environment step of learning costs, against Stable-Baselines3 at equal hyper-parameters; and one update of
what learns from files, against d3rlpy (`make peers`).

`poise bench learners [--only NAME] [--seconds S]` prints a table; so does this file by itself. Each pair is the whole
loop of either library while it learns: acting, stepping, storing, sampling, updating. One thread, CPU-seconds, short
rounds of both sides in turn in one process, so that a busy or throttled machine slows them alike; a row gives the
median of the rounds' ratios. Each row has a process of its own, where nothing of the rows before it is left.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from poise.errors import UsageError
from poise.policies.episode_statistics import EpisodeStatistics
from poise.policies.learner import restart
from poise.policies.metrics import MetricMeans
from poise.policies.recipes import recipe
from poise.sim.make import make
from poise.tests.benchmarks.offline_sides import d3rlpy_side, fit_side
from poise.tests.benchmarks.row_process import rows_apart

Side = Callable[[int], float]  # makes so many steps and the updates that go with them, gives CPU-milliseconds for one


@dataclass(frozen=True)
class Pair:
    """Our loop, theirs, and what the ratio of their costs should be at most."""

    what: str
    ours: Callable[[], Side]
    theirs: Callable[[], Side]
    against: str
    bar: float
    steps: int  # of one round: a multiple of what either side collects between two updates


def poise_side(algorithm: str, task: str, warm_up: int, settings: Mapping[str, Any]) -> Callable[[], Side]:
    """The training loop of train.py without its folder; `warm_up` steps count for nobody."""

    def make_side() -> Side:
        chosen = recipe(algorithm, None, {"num_envs": 1, **settings})
        env = make(task, 1, 0, threads=1)
        learner = chosen.learner(env.spec, chosen.settings, 1, 0)
        buffer, rng, initial = learner.make_buffer(), np.random.default_rng(0), learner.initial_state(1)
        episodes, metrics = EpisodeStatistics(1), MetricMeans()
        obs, state, steps = env.reset(0), initial, 0

        def run(count: int) -> float:
            nonlocal obs, state, steps
            start, goal = time.process_time(), steps + count
            while steps < goal:
                for _ in range(learner.collect_steps):
                    action, extras, state = learner.act(obs, state)
                    step = env.step(action)
                    buffer.add(obs, action, extras, step)
                    episodes.add(step)
                    if state:
                        state = restart(state, step.ended, initial)
                    obs = step.obs
                    steps += 1
                for _ in range(learner.updates_due(steps)):
                    batch = buffer.sample(learner.request, rng)
                    metrics.add(learner.update(batch))
            return 1000.0 * (time.process_time() - start) / count

        run(warm_up)
        return run

    return make_side


def sb3_side(algorithm: str, id: str, warm_up: int, settings: Mapping[str, Any]) -> Callable[[], Side]:
    """`learn` of Stable-Baselines3, timed from step to step, so that what a call to it sets up stays outside."""

    def make_side() -> Side:
        try:
            import stable_baselines3
            from stable_baselines3.common.callbacks import BaseCallback
        except ImportError:
            raise UsageError("this compares with Stable-Baselines3: pip install 'poise[peers]'") from None

        class Clock(BaseCallback):
            """Stops `learn` after so many steps, before an update that would count for nobody."""

            def __init__(self, last: int) -> None:
                super().__init__()
                self.last, self.times = last, []

            def _on_step(self) -> bool:
                self.times.append(time.process_time())
                return len(self.times) <= self.last

        model = getattr(stable_baselines3, algorithm)("MlpPolicy", id, seed=0, device="cpu", **settings)

        def run(count: int) -> float:
            clock = Clock(count)
            model.learn(count + 1, callback=clock, reset_num_timesteps=False)
            return 1000.0 * (clock.times[count] - clock.times[0]) / count

        run(warm_up)
        return run

    return make_side


# what both sides are told; their other defaults are the same
SAC_SB3 = {
    "learning_starts": 1000,
    "batch_size": 256,
    "buffer_size": 1_000_000,
    "policy_kwargs": {"net_arch": [256, 256]},
}


def sac_pair(precision: str, bar: float) -> Pair:
    """The update compiled, as it is in every run long enough to pay for it."""
    settings = {"learning_starts": 1000, "compile": "on", "precision": precision}
    return Pair(f"sac HalfCheetah-v5, {precision}", poise_side("sac", "gym:HalfCheetah-v5", 1001, settings),
                sb3_side("SAC", "HalfCheetah-v5", 1001, SAC_SB3), "stable-baselines3 SAC", bar, 40)  # fmt: skip


# the defaults of Stable-Baselines3's PPO
PPO_SETTINGS = {
    "collect_steps": 2048, "epochs": 10, "minibatches": 32, "hidden": (64, 64), "activation": "tanh",
    "learning_rate": 3e-4, "target_kl": 0.0, "discount": 0.99, "gae_lambda": 0.95, "clip": 0.2, "value_coef": 0.5,
    "max_grad_norm": 0.5, "log_std": 0.0, "normalize_obs": False,
}  # fmt: skip


def ppo_pair(bar: float) -> Pair:
    return Pair("ppo HalfCheetah-v5", poise_side("ppo", "gym:HalfCheetah-v5", 2048, PPO_SETTINGS),
                sb3_side("PPO", "HalfCheetah-v5", 2048, {}), "stable-baselines3 PPO", bar, 2048)  # fmt: skip


# the defaults of Stable-Baselines3's DQN, but for learning that begins after the warm-up on both sides
DQN_SETTINGS = {
    "hidden": (64, 64), "learning_rate": 1e-4, "batch_size": 32, "capacity": 1_000_000, "learning_starts": 1000,
    "collect_steps": 1, "updates": 1, "target_every": 10_000, "max_grad_norm": 10.0, "loss": "huber", "double": False,
    "discount": 0.99, "epsilon_end": 0.05, "epsilon_steps": 0,
}  # fmt: skip


def dqn_pair(bar: float) -> Pair:
    """One update with every step."""
    theirs = {"learning_starts": 1000, "train_freq": 1, "gradient_steps": 1}
    return Pair("dqn CartPole-v1", poise_side("dqn", "gym:CartPole-v1", 1001, DQN_SETTINGS),
                sb3_side("DQN", "CartPole-v1", 1001, theirs), "stable-baselines3 DQN", bar, 500)  # fmt: skip


def a2c_pair(bar: float) -> Pair:
    """Our defaults are those of Stable-Baselines3's A2C."""
    return Pair("a2c CartPole-v1", poise_side("a2c", "gym:CartPole-v1", 100, {}),
                sb3_side("A2C", "CartPole-v1", 100, {}), "stable-baselines3 A2C", bar, 500)  # fmt: skip


def atari_side(raw: bool, worlds: int = 8) -> Callable[[], Side]:
    """Worlds of Pong under random actions, no learner: ale-py's AtariVectorEnv by itself, or through the adapter."""

    def make_side() -> Side:
        try:
            from ale_py.vector_env import AtariVectorEnv
        except ImportError:
            raise UsageError("this plays Atari games: pip install 'poise[atari]'") from None
        choices = np.random.default_rng(0).integers(0, 6, (1024, worlds))
        actions = torch.from_numpy(choices)[:, :, None]
        if raw:
            env = AtariVectorEnv("pong", worlds, num_threads=1, stack_num=1, reward_clipping=False,
                                 use_fire_reset=False)  # fmt: skip
        else:
            env = make("gym:ALE/Pong-v5", worlds, threads=1)
        env.reset(seed=0)
        made = 0

        def run(count: int) -> float:
            nonlocal made
            start = time.process_time()
            for _ in range(count // worlds):
                env.step(choices[made % 1024] if raw else actions[made % 1024])
                made += 1
            return 1000.0 * (time.process_time() - start) / count

        return run

    return make_side


def atari_pair(share: float) -> Pair:
    """Agent steps per second through the adapter should be at least this share of the raw ones."""
    return Pair("atari Pong-v5, agent steps", atari_side(raw=False), atari_side(raw=True), "ale-py AtariVectorEnv",
                round(1.0 / share, 2), 2048)  # fmt: skip


def fit_pairs() -> list[Pair]:
    """A `step` here is an update: 17 observations, 6 actions, batches of 256, perceptrons 2 x 256 on both sides."""
    sizes, settings = (17, 6), {"hidden": (256, 256), "batch_size": 256}
    cql = {
        "alpha": 5.0,
        "gap": 10.0,
        "policy_learning_rate": 1e-4,
    }  # d3rlpy's; the others are the papers' on both sides
    bars = {"bc": (0.55, {}, 100), "td3_bc": (0.55, {}, 40), "iql": (0.55, {}, 40), "cql": (0.7, cql, 6)}
    return [
        Pair(f"fit {name}, {what}", fit_side(name, {**settings, **own}, sizes, whole),
             d3rlpy_side(name, sizes, 256, whole), "d3rlpy", bar, updates)
        for whole, what in ((True, "batch and update"), (False, "update alone"))
        for name, (bar, own, updates) in bars.items()
    ]  # fmt: skip


PAIRS = (
    sac_pair("fp32", 0.5), sac_pair("bf16", 0.38), ppo_pair(0.33), dqn_pair(0.3), a2c_pair(0.25), atari_pair(0.9),
    *fit_pairs(),
)  # fmt: skip


def rows(seconds: float = 60.0, only: str = "") -> list[dict[str, Any]]:
    """The table, each pair measured for about that many seconds: one dict a line, JSON values only."""
    return rows_apart(__file__, PAIRS, seconds, only)


def _measure(pair: Pair, seconds: float) -> dict[str, Any]:
    ours, theirs = pair.ours(), pair.theirs()
    costs: list[tuple[float, float]] = []
    ours(pair.steps), theirs(pair.steps)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline or len(costs) < 3:
        costs.append((ours(pair.steps), theirs(pair.steps)))
    mine, other = zip(*costs, strict=True)
    ratio = statistics.median(a / b for a, b in costs)
    return {
        "what": pair.what,
        "cpu_ms_per_step": round(statistics.median(mine), 3),
        "min": round(min(mine), 3),
        "against": pair.against,
        "against_cpu_ms_per_step": round(statistics.median(other), 3),
        "against_min": round(min(other), 3),
        "ratio": round(ratio, 3),
        "bar": pair.bar,
        "passed": ratio <= pair.bar,
        "rounds": len(costs),
    }


def _row(what: str, seconds: float) -> None:
    """Print one row as JSON, or what is missing for it."""
    torch.set_num_threads(1)
    try:
        print(json.dumps(next(_measure(pair, seconds) for pair in PAIRS if pair.what == what)))
    except UsageError as error:
        print(error)
        sys.exit(2)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--row"]:
        _row(sys.argv[2], float(sys.argv[3]))
    else:
        for line in rows(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, *sys.argv[2:3]):
            print("  ".join(f"{key}={value}" for key, value in line.items()))
