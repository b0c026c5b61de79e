"""Every learner keeps the contract."""

import pytest

from conformance_policy import DiscreteDrift, DiscreteImageDrift, Drift, ImageDrift, check_learner
from poise.policies.recipes import recipe, recipes_of
from poise.policies.run_settings import RunSettings

SMALL = {
    "a2c": {"hidden": (8, 8)},
    "actor_critic": {"hidden": (8,), "episodes": 4, "value_steps": 2},
    "reinforce": {"hidden": (8,), "episodes": 4, "value_steps": 2},
    "dqn": {
        "hidden": (8, 8),
        "batch_size": 8,
        "learning_starts": 8,
        "capacity": 64,
        "target_every": 3,
        "epsilon_steps": 0,
    },
    "ppo": {"collect_steps": 8, "hidden": (8, 8), "minibatches": 4},
    "ppo/lstm": {"collect_steps": 8, "hidden": (8,), "lstm": 6, "sequence": 4, "minibatches": 2},
    "sac": {"hidden": (8, 8), "batch_size": 8, "learning_starts": 8, "capacity": 64, "compile": "off"},
}


@pytest.mark.parametrize("normalize_obs", [True, False])
@pytest.mark.parametrize("name", sorted(recipes_of(RunSettings)))
def test_the_learner_keeps_the_contract(name, normalize_obs, tmp_path):
    small = SMALL.get(name) or SMALL[name.partition("/")[0]]
    chosen = recipe(name, None, {**small, "normalize_obs": normalize_obs})
    world = DiscreteDrift if name.startswith("dqn") else Drift
    # whole episodes, of up to seven steps, make an update of these
    iterations = 24 if name.startswith(("actor_critic", "reinforce")) else 6
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world, iterations)


@pytest.mark.parametrize("change", [{}, {"estimator": "n_step", "discount_weight": True}, {"estimator": "gae"}])
def test_every_kind_of_reinforce_keeps_the_contract_for_choices(change, tmp_path):
    chosen = recipe("reinforce", None, {**SMALL["reinforce"], **change})
    make = lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed)  # noqa: E731
    check_learner(make, tmp_path, DiscreteDrift, 24)


def test_a2c_keeps_the_contract_for_choices(tmp_path):
    chosen = recipe("a2c", None, {**SMALL["a2c"], "entropy_coef": 0.01, "gae_lambda": 0.9})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, DiscreteDrift)


DQN_VARIANTS = {
    "plain": {"double": False, "loss": "squared", "max_grad_norm": None},
    "dueling": {"dueling": True, "optimizer": "rmsprop", "tau": 0.1},
    "algorithm 1": {"target_network": False, "loss": "squared", "epsilon_steps": 20},
    "rainbow": {"dueling": True, "n_step": 3, "prioritized": True, "reward_clip": 1.0},
    "camera": {"conv": "[4,4,2],[4,3,1]"},
    "camera, rainbow": {"conv": "[4,4,2]", "dueling": True, "n_step": 3, "prioritized": True, "optimizer": "rmsprop"},
}


@pytest.mark.parametrize("variant", DQN_VARIANTS)
def test_every_kind_of_dqn_keeps_the_contract(variant, tmp_path):
    chosen = recipe("dqn", None, {**SMALL["dqn"], **DQN_VARIANTS[variant]})
    world = DiscreteImageDrift if "camera" in variant else DiscreteDrift
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world)


PPO_VARIANTS = {
    "uneven minibatches": {"minibatches": 3},
    "scaled rewards": {"normalize_returns": True},
    "fixed step size": {"target_kl": 0.0, "objective": "none"},
    "adaptive penalty": {"objective": "adaptive_kl", "entropy_coef": 0.01},
    "lstm": {"lstm": 6, "normalize_returns": True},
    "lstm, short sequences": {"lstm": 6, "sequence": 4, "objective": "adaptive_kl"},
}

SAC_VARIANTS = {
    "several steps": {"n_step": 3},
    "mean of critics": {"bootstrap": "mean", "updates": 2},
}  # fmt: skip


@pytest.mark.parametrize("variant", SAC_VARIANTS)
def test_every_kind_of_sac_keeps_the_contract(variant, tmp_path):
    chosen = recipe("sac", None, {**SMALL["sac"], **SAC_VARIANTS[variant]})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path)


@pytest.mark.parametrize("world", [DiscreteDrift, ImageDrift, DiscreteImageDrift])
def test_sac_keeps_the_contract_for_choices_and_cameras(world, tmp_path):
    small = {"conv": ((4, 4, 2),), "image_features": 6, "random_shift": 2, "learning_rate": 1e-2}
    chosen = recipe("sac", None, {**SMALL["sac"], **small})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world)


@pytest.mark.parametrize("world", [Drift, DiscreteDrift])
@pytest.mark.parametrize("variant", PPO_VARIANTS)
def test_every_kind_of_ppo_keeps_the_contract(variant, world, tmp_path):
    chosen = recipe("ppo", None, {**SMALL["ppo"], **PPO_VARIANTS[variant]})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world)


@pytest.mark.parametrize("world", [ImageDrift, DiscreteImageDrift])
@pytest.mark.parametrize("lstm", [0, 6])
def test_ppo_with_a_camera_keeps_the_contract(lstm, world, tmp_path):
    chosen = recipe("ppo", None, {**SMALL["ppo"], "conv": ((4, 3, 2), (4, 3, 1)), "image_features": 5, "lstm": lstm})
    check_learner(lambda spec, n, seed: chosen.learner(spec, chosen.settings, n, seed), tmp_path, world)
