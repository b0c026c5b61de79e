"""Every learner keeps the contract."""

import pytest

from conformance_policy import check_learner
from poise.policies.recipes import RECIPES, recipe

SMALL = {
    "ppo": {"collect_steps": 8, "hidden": (8, 8)},
    "sac": {"hidden": (8, 8), "batch_size": 8, "learning_starts": 8, "capacity": 64, "compile": "off"},
}


@pytest.mark.parametrize("normalize_obs", [True, False])
@pytest.mark.parametrize("name", sorted(RECIPES))
def test_the_learner_keeps_the_contract(name, normalize_obs, tmp_path):
    chosen = recipe(name, None, {**SMALL[name], "normalize_obs": normalize_obs})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path)
