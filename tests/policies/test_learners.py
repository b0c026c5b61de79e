"""Every learner keeps the contract."""

import pytest

from conformance_policy import DiscreteDrift, Drift, check_learner
from poise.policies.recipes import RECIPES, recipe

SMALL = {
    "ppo": {"collect_steps": 8, "hidden": (8, 8), "minibatches": 4},
    "sac": {"hidden": (8, 8), "batch_size": 8, "learning_starts": 8, "capacity": 64, "compile": "off"},
}


@pytest.mark.parametrize("normalize_obs", [True, False])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_learner_keeps_the_contract(name, normalize_obs, tmp_path):
    small = SMALL[name.partition("/")[0]]
    chosen = recipe(name, None, {**small, "normalize_obs": normalize_obs})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path)


PPO_VARIANTS = {
    "uneven minibatches": {"minibatches": 3},
    "scaled rewards": {"normalize_returns": True},
    "fixed step size": {"target_kl": 0.0, "objective": "none"},
    "adaptive penalty": {"objective": "adaptive_kl", "entropy_coef": 0.01},
}


@pytest.mark.parametrize("world", [Drift, DiscreteDrift])
@pytest.mark.parametrize("variant", PPO_VARIANTS)
def test_every_kind_of_ppo_keeps_the_contract(variant, world, tmp_path):
    chosen = recipe("ppo", None, {**SMALL["ppo"], **PPO_VARIANTS[variant]})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world)
