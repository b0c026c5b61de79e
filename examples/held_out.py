"""How well demonstrations are imitated on episodes that were held out: behaviour cloning beside two plain baselines.

    python examples/held_out.py DEMOS.hdf5 [--steps 5000] [--folds 5]

Every fifth episode is held out, five times over. Printed is the mean absolute error of actions, clipped to [-1, 1], of

    linear     least squares on observations, with a small ridge
    nearest    the action of the nearest observation, by normalized distance
    bc         poise fit bc, with its default settings
"""

from __future__ import annotations

import argparse

import numpy as np
import torch

from poise.batch import Sample
from poise.datasets.offline import OfflineDataset
from poise.datasets.open_log import open_log
from poise.normalizer import Normalizer
from poise.policies.bc import BC, BCConfig
from poise.policies.learner import concatenated
from poise.policies.offline_core import DataFacts


def everything(data: OfflineDataset) -> tuple[np.ndarray, np.ndarray]:
    """(S, D) observations and (S, A) actions."""
    blocks = list(data.blocks())
    obs = np.concatenate([concatenated(b.obs, data.spec.vectors).numpy() for b in blocks])
    return obs.astype(np.float64), np.concatenate([b.action.numpy() for b in blocks])


def linear(train: tuple, test: np.ndarray) -> np.ndarray:
    obs, action = train
    x = np.concatenate([obs, np.ones((len(obs), 1))], 1)
    weights = np.linalg.solve(x.T @ x + 1e-3 * np.eye(x.shape[1]), x.T @ action)
    return np.concatenate([test, np.ones((len(test), 1))], 1) @ weights


def nearest(train: tuple, test: np.ndarray) -> np.ndarray:
    obs, action = train
    return np.stack([action[np.argmin(((obs - row) ** 2).sum(1))] for row in test])


def cloned(data: OfflineDataset, obs: np.ndarray, test: np.ndarray, steps: int) -> np.ndarray:
    normalizer = Normalizer(obs.shape[1])
    normalizer.update(torch.from_numpy(obs))
    learner = BC(data.spec, BCConfig(), DataFacts(normalizer), seed=0, planned_steps=steps)
    rng, request = np.random.default_rng(0), Sample(256, imitation=True)
    for _ in range(steps):
        learner.update(data.sample(request, rng))
    groups, start, seen = data.spec.vectors, 0, {}
    for group in groups:
        dim = data.spec.obs_dim(group)
        seen[group] = torch.from_numpy(test[:, start : start + dim]).float()
        start += dim
    return learner.policy().act(seen, {})[0][:, 0].numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    errors: dict[str, list[float]] = {"linear": [], "nearest": [], "bc": []}
    with open_log(options.file) as log:
        for fold in range(options.folds):
            parts = ([e for i, e in enumerate(log.episodes) if (i % options.folds == fold) == held] for held in (0, 1))
            train, held_out = (OfflineDataset([log], episodes=[part], actions="clip") for part in parts)
            (obs, action), (test, truth) = everything(train), everything(held_out)
            mean, std = obs.mean(0), np.where(obs.std(0) > 1e-6, obs.std(0), 1.0)
            scaled = ((obs - mean) / std, action)
            guesses = {
                "linear": linear(scaled, (test - mean) / std),
                "nearest": nearest(scaled, (test - mean) / std),
                "bc": cloned(train, obs, test, options.steps),
            }
            for name, guess in guesses.items():
                errors[name].append(float(np.abs(np.clip(guess, -1, 1) - truth).mean()))
    for name, values in errors.items():
        print(f"{name:<9}{np.mean(values):.4f}  worst fold {max(values):.4f}")


if __name__ == "__main__":
    main()
