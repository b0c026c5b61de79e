"""rsl_rl's PPO on the same worlds: the loop of its OnPolicyRunner without logger and files.

Its wheels (rsl-rl-lib, tensordict, pyvers) are not in Poise's environment: where they cannot be imported, `available`
says so. Legend: N worlds, T steps of a rollout.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from poise.batch import Step

WHEELS = "rsl-rl-lib==5.5.1 tensordict==0.15.3 pyvers==0.2.3"


def available() -> str:
    """ "" where rsl_rl is here, or what is missing."""
    for name in ("rsl_rl", "tensordict"):
        if importlib.util.find_spec(name) is None:
            return f"{name} is not here; bring {WHEELS} along (pip install --no-deps)"
    return ""


class RslRl:
    """rsl_rl's PPO of given sizes."""

    def __init__(self, obs_dim: int, action_dim: int, num_envs: int, steps: int, settings: Any, device: torch.device):
        """settings: a PPOConfig, of which the same numbers are taken."""
        from rsl_rl.algorithms import PPO  # pyright: ignore[reportMissingImports]
        from tensordict import TensorDict  # pyright: ignore[reportMissingImports]

        self._dict, self._steps = TensorDict, steps
        network = {"class_name": "rsl_rl.models:MLPModel", "hidden_dims": list(settings.hidden),
                   "activation": settings.activation, "obs_normalization": settings.normalize_obs}  # fmt: skip
        noise = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": 1.0}
        config = {
            "num_steps_per_env": steps, "multi_gpu": None, "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
            "algorithm": {
                "class_name": "rsl_rl.algorithms:PPO", "num_learning_epochs": settings.epochs,
                "num_mini_batches": settings.minibatches, "gamma": settings.discount, "lam": settings.gae_lambda,
                "learning_rate": settings.learning_rate, "clip_param": settings.clip,
                "desired_kl": settings.target_kl or None, "schedule": "adaptive" if settings.target_kl else "fixed",
            },
            "actor": {**network, "distribution_cfg": noise}, "critic": network,
        }  # fmt: skip
        with contextlib.redirect_stdout(io.StringIO()):  # it prints its networks
            worlds = SimpleNamespace(num_envs=num_envs, num_actions=action_dim)
            self.algorithm = PPO.construct_algorithm(self._seen(torch.zeros(num_envs, obs_dim, device=device)), worlds,
                                                     config, str(device))  # fmt: skip
        self.algorithm.train_mode()

    def _seen(self, obs: Tensor) -> Any:
        return self._dict({"policy": obs}, batch_size=len(obs))

    def collect(self, obs: Tensor, step: Callable[[Tensor], Step]) -> Tensor:
        """A rollout from `obs` (N, D); the observations to go on from."""
        with torch.inference_mode():
            for _ in range(self._steps):
                action = self.algorithm.act(self._seen(obs))
                result = step(action.clamp(-1.0, 1.0))
                obs = result.obs["state"]
                self.algorithm.process_env_step(self._seen(obs), result.reward, result.done,
                                                {"time_outs": result.truncated})  # fmt: skip
            self.algorithm.compute_returns(self._seen(obs))
        return obs

    def update(self) -> None:
        """All epochs over the rollout, which its storage keeps until the next overwrites it."""
        self.algorithm.update()
