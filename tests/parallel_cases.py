"""Updates that one process makes whole, or two make half each; run as a program it is one of the two.

    python parallel_cases.py RANK MEETING OUT

Every case sees the same data, whoever computes: a process takes its own part. What is drawn inside an update comes
from numbers that are laid down here, so that two halves draw together what the whole does.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch

from poise.batch import Batch
from poise.normalizer import Normalizer
from poise.policies.parallel import ALONE, Group, Processes, pool_of
from poise.policies.ppo import PPO, PPOConfig
from poise.policies.return_normalizer import ReturnNormalizer
from poise.policies.reward_scale import RewardScale
from poise.policies.sac import SAC, SACConfig
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec(
    {"state": (ObsTerm("x", (3,)),)},
    (ActionTerm("u", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),),
    control_dt=0.05,
)
HALVES, N, T, ROWS, ROUNDS = 2, 8, 12, 64, 4

Result = dict[str, torch.Tensor]


def part(values: torch.Tensor, group: Group) -> torch.Tensor:
    """A process's rows of everybody's."""
    return values.chunk(group.size)[group.rank]


@contextlib.contextmanager
def laid_down(group: Group, seed: int, minibatches: int = 1) -> Iterator[None]:
    """Orders and noise such that each half draws its part of what the whole does, minibatch by minibatch."""
    calls = iter(range(1000 * seed, 1000 * (seed + 1)))

    def order(total: int, **_) -> torch.Tensor:
        whole = group.size == 1 and minibatches > 1  # else all rows are in one, and their order is free
        call, rows = next(calls), total // HALVES if whole else total
        halves = [torch.from_numpy(np.random.default_rng([call, k]).permutation(rows)) for k in range(HALVES)]
        if not whole:
            return halves[group.rank]
        parts = [(half + k * rows).chunk(minibatches) for k, half in enumerate(halves)]
        return torch.cat([x for of_both in zip(*parts, strict=True) for x in of_both])

    def noise(shape: tuple[int, int], **_) -> torch.Tensor:
        both = np.random.default_rng(next(calls)).normal(size=(2, group.size * shape[0] // 2, shape[1]))
        return torch.cat([part(half, group) for half in torch.from_numpy(both).float()])  # for s, then for s'

    with mock.patch.object(torch, "randperm", order), mock.patch.object(torch, "randn", noise):
        yield


# ---- PPO ---------------------------------------------------------------------------------------------------------------


def rollout(learner: PPO, seed: int, group: Group, masked: bool) -> Batch:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return part(torch.randn(N, T, *shape, generator=g), group)

    obs, raw = draw(3) * 2.0 + 1.0, draw(2)
    memory = {name: draw(x.shape[-1]) * 0.1 for name, x in learner.initial_state(1).items()}
    terminated, truncated = draw() > 1.5, draw() > 1.7
    mask = draw() > part(torch.linspace(-2.0, 0.0, N), group)[:, None] if masked else None  # more in the first half
    return Batch({"state": obs}, raw.clamp(-1, 1), draw() * 3.0, {"state": obs + 0.1 * draw(3)}, terminated,
                 truncated & ~terminated, mask=mask, extras={"raw_action": raw, **memory})  # fmt: skip


def ppo(group: Group, masked: bool = False, **settings) -> Result:
    config = PPOConfig(collect_steps=T, hidden=(16, 16), epochs=3, normalize_returns=True, **settings)
    learner = PPO(SPEC, config, N // group.size, seed=3, group=group)
    result = {}
    for k in range(ROUNDS):
        batch = rollout(learner, k, group, masked)
        with laid_down(group, k, config.minibatches):
            metrics = learner.update(batch)
        result |= {f"{k}/{name}": value for name, value in metrics.items()}
    assert learner.normalizer is not None and learner.returns is not None
    moments = {"mean": learner.normalizer.mean, "std": learner.normalizer.std32, "scale": learner.returns.scale}
    tensors = {name: x for name, x in learner._tensors().items() if "moment" not in name}
    return {**result, **moments, **tensors, "carry": learner.returns.carry}


# ---- SAC ---------------------------------------------------------------------------------------------------------------


def sac(group: Group, **settings) -> Result:
    config = SACConfig(batch_size=ROWS, hidden=(16, 16), learning_starts=ROWS, capacity=1000, compile="off",
                       normalize_obs=True, learning_rate=1e-3, **settings)  # fmt: skip
    learner = SAC(SPEC, config, N // group.size, seed=3, group=group)
    g = torch.Generator().manual_seed(0)
    result = {}
    for k in range(ROUNDS):
        obs = torch.randn(ROWS, 3, generator=g) * 2.0 + 1.0
        action, reward = torch.rand(ROWS, 2, generator=g) * 2.0 - 1.0, torch.randn(ROWS, generator=g)
        terminated = torch.rand(ROWS, generator=g) > 0.8
        assert learner.normalizer is not None
        learner.normalizer.update(part(obs, group))
        if learner.rewards is not None:
            learner.rewards.update(part(reward[:N], group), part(terminated[:N], group))
        columns = [part(x, group) for x in (obs, action, reward, obs + 0.1, terminated)]
        batch = Batch({"state": columns[0]}, columns[1], columns[2], {"state": columns[3]}, columns[4],
                      torch.zeros_like(columns[4]))  # fmt: skip
        with laid_down(group, k):
            metrics = learner.update(batch)
        # a metric of each half is that of its rows; the loop logs their mean
        result |= {f"{k}/{name}": group.mean(value) for name, value in metrics.items()}
    tensors = {name: x for name, x in learner.core.tensors().items() if "moment" not in name}
    return {**result, **tensors, "mean": learner.normalizer.mean, "std": learner.normalizer.std32}


# ---- what normalizes -------------------------------------------------------------------------------------------------


def normalizers(group: Group) -> Result:
    """Moments of rows far from zero, some of them masked, in one process all of them."""
    plain, returns = Normalizer(3, pool=pool_of(group)), ReturnNormalizer(N // group.size, 0.9, pool=pool_of(group))
    scale = RewardScale(N // group.size, 0.9, 5.0, torch.device("cpu"), group)
    g = torch.Generator().manual_seed(0)
    for _ in range(3):
        x = torch.randn(N, T, 3, generator=g) + 1000.0
        mask = torch.arange(N)[:, None].expand(N, T) < 3  # none of the second half
        plain.update(part(x, group), part(mask, group))
        done = torch.rand(N, T, generator=g) > 0.8
        returns.update(part(x[..., 0], group), part(done, group), part(mask, group))
        scale.update(part(x[:, 0, 0], group), part(done[:, 0], group))
    return {"mean": plain.mean, "var": plain.var, "count": plain.count, "returns": returns.scale,
            "scaled": scale(torch.ones(1)), "carry": returns.carry, "sum": scale._sum}  # fmt: skip


CASES = {
    "ppo, step size by KL": lambda group: ppo(group, minibatches=2, target_kl=0.004, max_learning_rate=0.1),
    "ppo, KL penalty, rows masked": lambda group: ppo(group, masked=True, minibatches=1, objective="adaptive_kl", penalty_kl=3e-4,
                                                      target_kl=0.0, entropy_coef=0.01),
    "ppo, LSTM": lambda group: ppo(group, masked=True, minibatches=1, lstm=8, sequence=6),
    "ppo, LSTM in minibatches": lambda group: ppo(group, minibatches=2, lstm=8, sequence=6),
    "sac": lambda group: sac(group),
    "sac, the general core": lambda group: sac(group, norm="layer", critic="categorical", policy_delay=2, critics=3,
                                               normalize_rewards=True),
    "normalizers": normalizers,
}  # fmt: skip
OWN = ("carry", "sum")  # of each process's worlds


def main(rank: str, meeting: str, out: str) -> None:
    torch.set_num_threads(1)
    group = Processes(int(rank), HALVES, torch.device("cpu"), f"file://{meeting}")
    results = {f"{case}/{name}": value for case, run in CASES.items() for name, value in run(group).items()}
    np.savez(out, **{name: value.detach().numpy() for name, value in results.items()})  # type: ignore[arg-type]
    group.close()


if __name__ == "__main__":
    main(*sys.argv[1:])

__all__ = ["ALONE", "CASES", "HALVES", "OWN"]
