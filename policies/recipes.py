"""Recipes: a name, a learner, and the settings that are known to work, as functions in one dict.

Precedence: recipe < the task's changes < --config FILE < --set key=value.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..address import without_workers
from ..errors import UsageError, unknown_name
from ..robots import ROBOTS
from .run_settings import FitSettings, LoopSettings, RunSettings
from .settings import with_changes


@dataclass(frozen=True)
class Recipe:
    """An algorithm with its settings, ready to train."""

    learner: Callable[..., Any]
    settings: Any
    run: LoopSettings  # RunSettings of what trains in simulation, FitSettings of what learns from files


def a2c() -> Recipe:
    """Actor-critic, online: a gradient step every few steps (Mnih 2016)."""
    from .a2c import A2C, A2CConfig

    return Recipe(A2C, A2CConfig(), RunSettings(num_envs=1))


def reinforce() -> Recipe:
    """REINFORCE on whole episodes: reward to go less a learned baseline (Williams 1992)."""
    from .reinforce import Reinforce, ReinforceConfig

    return Recipe(Reinforce, ReinforceConfig(), RunSettings(num_envs=16))


def _rung(**settings: Any) -> Recipe:
    chosen = reinforce()
    return replace(chosen, settings=replace(chosen.settings, **settings))


def reinforce_total() -> Recipe:
    """REINFORCE at its plainest: every action is credited with the whole episode's return."""
    return _rung(estimator="total", discount=1.0, baseline="none")


def reinforce_to_go() -> Recipe:
    """REINFORCE with the rewards that still follow an action, undiscounted, no baseline."""
    return _rung(discount=1.0, baseline="none")


def reinforce_discount() -> Recipe:
    """REINFORCE with discounted rewards to go, no baseline."""
    return _rung(baseline="none")


def reinforce_mean() -> Recipe:
    """REINFORCE with discounted rewards to go less their mean: a constant baseline."""
    return _rung(baseline="mean")


def actor_critic() -> Recipe:
    """Actor-critic on whole episodes: advantages by GAE (Schulman 2015)."""
    return _rung(estimator="gae")


def bc() -> Recipe:
    """Behaviour cloning: do as the demonstrations do (Pomerleau 1988)."""
    from .bc import BC, BCConfig

    return Recipe(BC, BCConfig(), FitSettings(steps=20_000))


def bc_gaussian() -> Recipe:
    """Behaviour cloning by likelihood, of a Gaussian whose deviation depends on the observation."""
    chosen = bc()
    return replace(chosen, settings=replace(chosen.settings, head="gaussian"))


def bc_gmm() -> Recipe:
    """Behaviour cloning by likelihood of a mixture of Gaussians, as robomimic has it (Mandlekar 2021)."""
    chosen = bc()
    settings = replace(chosen.settings, head="gmm", hidden=(1024, 1024), learning_rate=1e-4, anneal=False,
                       batch_size=100, normalize_obs=False)  # fmt: skip
    return replace(chosen, settings=settings, run=FitSettings(steps=200_000))


def bc_image() -> Recipe:
    """Behaviour cloning from a camera and what vectors there are, with pictures shifted at random."""
    chosen = bc()
    return replace(chosen, settings=replace(chosen.settings, camera="auto", batch_size=64))


def td3_bc() -> Recipe:
    """TD3 with behaviour cloning, from files (Fujimoto 2021)."""
    from .td3_bc import TD3BC, TD3BCConfig

    return Recipe(TD3BC, TD3BCConfig(), FitSettings())


def iql() -> Recipe:
    """Implicit Q-learning from files, with the settings for locomotion (Kostrikov 2021)."""
    from .iql import IQL, IQLConfig

    return Recipe(IQL, IQLConfig(), FitSettings())


def iql_antmaze() -> Recipe:
    """Implicit Q-learning for long mazes with rewards of 0 and 1."""
    chosen = iql()
    changes = {"expectile": 0.9, "temperature": 10.0, "scale_rewards": False, "reward_shift": -1.0}
    return replace(chosen, settings=replace(chosen.settings, **changes))


def iql_adroit() -> Recipe:
    """Implicit Q-learning for the hand of Adroit: little data, of people, and dropout in the actor."""
    chosen = iql()
    return replace(chosen, settings=replace(chosen.settings, temperature=0.5, dropout=0.1, scale_rewards=False))


def cql() -> Recipe:
    """Conservative Q-learning from files, with the settings for locomotion (Kumar 2020)."""
    from .cql import CQL, CQLConfig

    return Recipe(CQL, CQLConfig(), FitSettings())


def cql_antmaze() -> Recipe:
    """Conservative Q-learning for long mazes with rewards of 0 and 1."""
    chosen = cql()
    changes: dict[str, Any] = {
        "alpha": 5.0, "gap": 0.8, "clip_diff": 200.0, "max_backup": True, "reward_scale": 10.0, "reward_shift": -5.0,
        "hidden": (256,) * 5, "policy_learning_rate": 1e-4, "normalize_obs": False,
    }  # fmt: skip
    return replace(chosen, settings=replace(chosen.settings, **changes))


def dqn() -> Recipe:
    """Deep Q-learning on vectors, double (Mnih 2015, van Hasselt 2016)."""
    from .dqn import DQN, DQNConfig

    return Recipe(DQN, DQNConfig(), RunSettings(num_envs=1))


def dqn_nature() -> Recipe:
    """Deep Q-learning from pixels as Nature has it (Mnih 2015)."""
    from .dqn import DQN, nature

    return Recipe(DQN, nature(), RunSettings(num_envs=1, steps=50_000_000))


def dqn_2013() -> Recipe:
    """Deep Q-learning from pixels by Algorithm 1 as printed: replay, no target network (Mnih 2013)."""
    from .dqn import DQN, nature_2013

    return Recipe(DQN, nature_2013(), RunSettings(num_envs=1, steps=10_000_000))


def ppo() -> Recipe:
    """Proximal policy optimization with clipping (Schulman 2017)."""
    from .ppo import PPO, PPOConfig

    return Recipe(PPO, PPOConfig(), RunSettings(num_envs=64))


def ppo_mujoco() -> Recipe:
    """PPO on Gymnasium's MuJoCo tasks, as the paper has it (table 3), with scaled observations and rewards."""
    from .ppo import PPO, PPOConfig

    settings = PPOConfig(
        collect_steps=2048, epochs=10, minibatches=32, learning_rate=3e-4, target_kl=0.0, discount=0.99,
        gae_lambda=0.95, hidden=(64, 64), activation="tanh", log_std=0.0, value_coef=0.5, max_grad_norm=0.5,
        normalize_returns=True,
    )  # fmt: skip
    return Recipe(PPO, settings, RunSettings(num_envs=1))


def ppo_kl() -> Recipe:
    """PPO with a KL penalty that adapts (Schulman 2017, section 4); otherwise as ppo/mujoco."""
    chosen = ppo_mujoco()
    return replace(chosen, settings=replace(chosen.settings, objective="adaptive_kl", penalty_kl=0.01))


def ppo_fixed_kl() -> Recipe:
    """PPO with a KL penalty of fixed weight 1; otherwise as ppo/mujoco."""
    chosen = ppo_mujoco()
    return replace(chosen, settings=replace(chosen.settings, objective="fixed_kl", penalty=1.0))


def ppo_lstm() -> Recipe:
    """PPO with an LSTM, for tasks whose observations do not say everything."""
    from .ppo import PPO, PPOConfig

    settings = PPOConfig(
        lstm=64, sequence=16, hidden=(64,), activation="tanh", collect_steps=64, epochs=4, minibatches=4,
        discount=0.99, max_learning_rate=1e-3, normalize_returns=True,
    )  # fmt: skip
    return Recipe(PPO, settings, RunSettings(num_envs=32, steps=150_000))


def sac() -> Recipe:
    """Soft actor-critic with automatic temperature (Haarnoja 2018)."""
    from .sac import SAC
    from .sac_config import SACConfig

    return Recipe(SAC, SACConfig(), RunSettings(num_envs=1))


def sac_large() -> Recipe:
    """SAC for few environment steps, in the manner of FlashSAC (arXiv 2604.04539)."""
    from .sac import SAC
    from .sac_config import SACConfig

    settings = SACConfig(
        norm="layer", critic="categorical", project_weights=True, normalize_obs=True, normalize_rewards=True,
        policy_delay=2, tau=0.01, init_alpha=0.01, target_std=0.15, noise_hold=16,
    )  # fmt: skip
    return Recipe(SAC, settings, RunSettings(num_envs=1))


def sac_massive() -> Recipe:
    """SAC on a thousand worlds and more on a GPU: large batches, few updates for a step (FastSAC, arXiv 2512.01996)."""
    from .sac import SAC
    from .sac_config import SACConfig

    settings = SACConfig(
        hidden=(512, 256, 128), norm="layer", critic="categorical", project_weights=True, normalize_obs=True,
        normalize_rewards=True, bootstrap="mean", policy_delay=2, beta_2=0.95, tau=0.01, discount=0.97, init_alpha=0.01,
        target_std=0.15, noise_hold=16, batch_size=4096, updates=4, capacity=5_000_000, learning_starts=32_768,
    )  # fmt: skip
    return Recipe(SAC, settings, RunSettings(num_envs=1024, steps=20_000_000))


def sac_demos() -> Recipe:
    """SAC with demonstrations, --demos FILE: half of every batch, layer norm (RLPD, arXiv 2302.02948)."""
    from .sac import SAC
    from .sac_config import SACConfig

    settings = SACConfig(
        norm="layer", normalize_obs=True, hidden=(128, 128), discount=0.97, learning_rate=5e-4, tau=0.01, updates=16,
        policy_delay=2, learning_starts=5_000, init_alpha=0.01, target_std=0.15,
    )  # fmt: skip
    return Recipe(SAC, settings, RunSettings(num_envs=64, steps=100_000))


def sac_pixels() -> Recipe:
    """SAC on a camera, with pictures shifted at random (DrQ, arXiv 2004.13649)."""
    from .sac import SAC
    from .sac_config import SACConfig

    settings = SACConfig(
        norm="layer", normalize_obs=True, hidden=(256, 256), batch_size=128, capacity=50_000, learning_rate=5e-4,
        tau=0.01, init_alpha=0.1, learning_starts=1_000,
    )  # fmt: skip
    return Recipe(SAC, settings, RunSettings(num_envs=16))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "a2c": a2c,
    "actor_critic": actor_critic,
    "bc": bc,
    "bc/gaussian": bc_gaussian,
    "bc/gmm": bc_gmm,
    "bc/image": bc_image,
    "cql": cql,
    "cql/antmaze": cql_antmaze,
    "dqn": dqn,
    "dqn/2013": dqn_2013,
    "dqn/nature": dqn_nature,
    "iql": iql,
    "iql/adroit": iql_adroit,
    "iql/antmaze": iql_antmaze,
    "ppo": ppo,
    "ppo/mujoco": ppo_mujoco,
    "ppo/kl": ppo_kl,
    "ppo/fixed_kl": ppo_fixed_kl,
    "ppo/lstm": ppo_lstm,
    "reinforce": reinforce,
    "reinforce/discount": reinforce_discount,
    "reinforce/mean": reinforce_mean,
    "reinforce/to_go": reinforce_to_go,
    "reinforce/total": reinforce_total,
    "sac": sac,
    "sac/demos": sac_demos,
    "sac/large": sac_large,
    "sac/massive": sac_massive,
    "sac/pixels": sac_pixels,
    "td3_bc": td3_bc,
}

# what a task needs otherwise than the recipe has it: (recipe, task) -> settings of the run and the algorithm
TASK_CHANGES: dict[tuple[str, str], Mapping[str, Any]] = {
    # values near 100 would make every fall an outlier, which Huber's loss hardly learns from: hence reward_scale
    ("dqn", "gym:CartPole-v1"): {
        "steps": 50_000,
        "hidden": (64, 64),
        "learning_rate": 2.3e-3,
        "anneal": True,
        "batch_size": 64,
        "capacity": 50_000,
        "n_step": 3,
        "tau": 0.01,
        "reward_scale": 0.1,
    },
    ("dqn", "gym:LunarLander-v3"): {
        "num_envs": 4,
        "steps": 150_000,
        "hidden": (256, 256),
        "anneal": True,
        "capacity": 150_000,
        "updates": 4,
        "n_step": 3,
        "tau": 0.005,
        "epsilon_fraction": 0.25,
        "epsilon_end": 0.02,
        "evaluations": 15,
        "reward_scale": 0.05,  # a landing or a crash is 100
    },
    ("dqn/nature", "gym:poise/Catch-v0"): {
        "steps": 40_000,
        "optimizer": "adam",
        "capacity": 40_000,
        "learning_starts": 1_000,
        "target_every": 250,
        "epsilon_steps": 8_000,
        "epsilon_end": 0.05,
        "eval_episodes": 50,
    },
    ("ppo", "reach/fr3"): {
        "num_envs": 256,
        "steps": 600_000,
        "epochs": 8,
        "minibatches": 8,
        "discount": 0.97,
        "final_log_std": -3.0,
    },
    # reaches, but hovers a centimetre off the target under latency: docs/results.md says how well
    ("sac", "reach/fr3"): {
        "num_envs": 64,
        "steps": 150_000,
        "discount": 0.9,
        "learning_rate": 5e-4,
        "tau": 0.01,
        "updates": 16,
        "learning_starts": 6_400,
        "normalize_obs": True,
    },
    # the worst return of the random phase is far below those that matter later, and would set the scale of rewards for
    # good: hence ends that the task's reward, at most 1.5 a step, gives. 25,000 updates are few: hence larger steps
    ("sac/large", "reach/fr3"): {
        "num_envs": 64,
        "steps": 100_000,
        "discount": 0.9,
        "learning_rate": 1e-3,
        "updates": 16,
        "learning_starts": 6_400,
        "noise_hold": 1,
        "normalize_rewards": False,
        "v_min": -10.0,
        "v_max": 16.0,
        "init_alpha": 0.1,
        "project_weights": False,
    },
    # 200 steps of the simulator cost a second: two updates for each, and few episodes of 500 steps to score
    ("sac", "robosuite:Lift/Panda"): {
        "num_envs": 4,
        "steps": 40_000,
        "discount": 0.98,
        "learning_rate": 5e-4,
        "tau": 0.01,
        "updates": 8,
        "learning_starts": 2_000,
        "capacity": 100_000,
        "init_alpha": 0.05,
        "normalize_obs": True,
        "norm": "layer",
        "evaluations": 5,
        "eval_episodes": 4,
    },
    ("sac/pixels", "reach/planar"): {
        "steps": 40_000,
        "discount": 0.9,
        "updates": 4,
    },
    ("sac", "gym:CartPole-v1"): {
        "steps": 20_000,
        "learning_rate": 1e-3,
        "learning_starts": 500,
        "capacity": 20_000,
        "hidden": (64, 64),
        "entropy_ratio": 0.5,
        "init_alpha": 0.1,
        "tau": 0.01,
    },
    ("sac", "gym:Pendulum-v1"): {
        "steps": 10_000,
        "learning_rate": 1e-3,
        "learning_starts": 500,
        "capacity": 10_000,
    },
}

# the other arms reach with the settings of the FR3
TASK_CHANGES.update({(name, f"reach/{robot}"): change for (name, task), change in TASK_CHANGES.items()
                     if task == "reach/fr3" for robot in ROBOTS})  # fmt: skip


def recipe(name: str, task: str | None = None, *changes: Mapping[str, Any]) -> Recipe:
    """The recipe `name` with the changes of `task`, then each of `changes`, applied in order.

    Raises:
        UsageError: an unknown recipe or setting, with its neighbours, or a value that cannot be.
    """
    if name not in RECIPES:
        raise unknown_name("algorithm", name, RECIPES)
    result = RECIPES[name]()
    for change in (TASK_CHANGES.get((name, _plain(task or "")), {}), *changes):
        result = _changed(result, change, name)
    return result


def recipes_of(kind: type[LoopSettings]) -> dict[str, Callable[[], Recipe]]:
    """The recipes whose runs have such settings: RunSettings of poise train, FitSettings of poise fit."""
    return {name: make for name, make in RECIPES.items() if isinstance(make().run, kind)}


def training_recipe(name: str, task: str | None, *changes: Mapping[str, Any]) -> Recipe:
    """The recipe of what trains in simulation; UsageError for one that learns from files."""
    chosen = recipe(name, task, *changes)
    if not isinstance(chosen.run, RunSettings):
        raise UsageError(f"{name} learns from demonstration files: poise fit {name} --data FILE")
    return chosen


def fitting_recipe(name: str, task: str | None, *changes: Mapping[str, Any]) -> Recipe:
    """The recipe of what learns from files; UsageError for one that trains in simulation."""
    chosen = recipe(name, task, *changes)
    if not isinstance(chosen.run, FitSettings):
        raise UsageError(f"{name} learns in simulation: poise train {name} --task TASK. "
                         f"From files learn {', '.join(recipes_of(FitSettings))}")  # fmt: skip
    return chosen


def _plain(task: str) -> str:
    """The name that settings are kept under: without where worlds are stepped, and without a native task's options."""
    task, _ = without_workers(task)
    return task if ":" in task else task.partition("?")[0]


def _changed(old: Recipe, change: Mapping[str, Any], name: str) -> Recipe:
    run_names, names = vars(old.run), vars(old.settings)
    for key in change:
        if key not in run_names and key not in names:
            raise unknown_name(f"setting of {name}", key, [*run_names, *names])
    run = with_changes(old.run, {k: v for k, v in change.items() if k in run_names}, name)
    settings = with_changes(old.settings, {k: v for k, v in change.items() if k in names}, name)
    return Recipe(old.learner, settings, run)
