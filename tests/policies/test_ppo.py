"""PPO: each formula against hand arithmetic or torch.distributions, the update against a plain one, exact resume."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from poise.batch import Batch, Step
from poise.errors import UsageError
from poise.policies.networks import linear_layers
from poise.policies.ppo import PPO, PPOConfig, adapt_learning_rate, clip_objective, entropy, kl, log_prob, standardize
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec(
    {"state": (ObsTerm("x", (3,)),)}, (ActionTerm("u", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), control_dt=0.05
)
N, T = 6, 8
SMALL = PPOConfig(hidden=(16, 16), collect_steps=T, epochs=3, minibatches=2)
RNG = np.random.default_rng(0)


class Walk:
    """N points that drift with the action, rewarded near 0; an episode lasts 5 steps and ends early far right."""

    def __init__(self):
        self.generator = torch.Generator().manual_seed(0)
        self.x, self.age = torch.randn(N, 3, generator=self.generator), torch.arange(N) % 5

    def step(self, action):
        true = self.x + 0.3 * torch.cat([action, action[:, :1]], dim=1)
        self.age = self.age + 1
        terminated, truncated = true[:, 0] > 1.5, self.age >= 5
        done = terminated | truncated
        self.age = torch.where(done, 0, self.age)
        self.x = torch.where(done[:, None], torch.randn(N, 3, generator=self.generator), true)
        return Step({"state": self.x}, {"state": true}, -true.square().sum(1), terminated, truncated)


def collect(learner, env):
    buffer = learner.make_buffer()
    obs = {"state": env.x}
    for _ in range(learner.collect_steps):
        action, extras, _ = learner.act(obs, {})
        step = env.step(action)
        buffer.add(obs, action, extras, step)
        obs = step.obs
    return buffer.sample(learner.request, RNG)


def parameters(learner):
    return torch.cat([p.detach().flatten() for p in learner.networks.parameters()])


# ---- formulas ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "expected"),
    [
        (1.1, 2.0, 2.2),  # inside: the plain objective
        (0.9, -2.0, -1.8),
        (1.5, 2.0, 2.4),  # better than clipped: no more to gain above 1 + eps
        (0.5, -2.0, -1.6),  # likewise below 1 - eps
        (0.5, 2.0, 1.0),  # the wrong way: the full price
        (1.5, -2.0, -3.0),
    ],
)
def test_clip_objective_by_hand_inside_and_outside_for_both_signs(ratio, advantage, expected):
    r = torch.tensor([ratio], requires_grad=True)
    objective = clip_objective(r, torch.tensor([advantage]), clip=0.2)
    torch.testing.assert_close(objective, torch.tensor([expected]))
    objective.sum().backward()
    gains_nothing_more = (ratio > 1.2 and advantage > 0) or (ratio < 0.8 and advantage < 0)
    assert r.grad is not None and r.grad.item() == (0.0 if gains_nothing_more else advantage)


def test_gaussian_formulas_equal_torch_distributions():
    g = torch.Generator().manual_seed(3)
    old_mean, mean, x = torch.randn(3, 10, 4, dtype=torch.float64, generator=g)
    old_log_std, log_std = torch.randn(2, 4, dtype=torch.float64, generator=g)
    old = torch.distributions.Normal(old_mean, old_log_std.exp())
    new = torch.distributions.Normal(mean, log_std.exp())
    divergence = torch.distributions.kl_divergence(old, new).sum(-1)
    torch.testing.assert_close(kl(old_mean, old_log_std, mean, log_std), divergence)
    torch.testing.assert_close(log_prob(x, mean, log_std), new.log_prob(x).sum(-1))
    torch.testing.assert_close(entropy(log_std), new.entropy().sum(-1)[0])


@pytest.mark.parametrize(
    ("kl_over_target", "factor"), [(0.49, 1.5), (0.5, 1.0), (1.0, 1.0), (2.0, 1.0), (2.1, 1 / 1.5)]
)
def test_the_learning_rate_grows_below_half_the_target_kl_and_shrinks_above_twice(kl_over_target, factor):
    rate = adapt_learning_rate(torch.tensor(1e-3), torch.tensor(kl_over_target * 0.25), 0.25, 1e-5, 1e-2)
    torch.testing.assert_close(rate, torch.tensor(1e-3 * factor))


def test_the_learning_rate_stays_within_its_bounds():
    rate = torch.tensor(1e-3)
    assert adapt_learning_rate(rate, torch.tensor(0.0), 0.01, 1e-5, 1.2e-3).item() == pytest.approx(1.2e-3)
    assert adapt_learning_rate(rate, torch.tensor(9.0), 0.01, 9e-4, 1e-2).item() == pytest.approx(9e-4)


def test_standardized_advantages_survive_a_single_row_and_equal_ones():
    assert torch.equal(standardize(torch.tensor([3.0])), torch.zeros(1))
    assert torch.equal(standardize(torch.full((5,), 2.0)), torch.zeros(5))
    x = standardize(torch.randn(100, generator=torch.Generator().manual_seed(0)))
    torch.testing.assert_close(x.mean(), torch.tensor(0.0), atol=1e-6, rtol=0)
    torch.testing.assert_close(x.std(correction=0), torch.tensor(1.0))


# ---- acting and updating -----------------------------------------------------------------------------------------


def test_the_world_gets_the_clipped_action_and_the_ratio_the_raw_one():
    learner = PPO(SPEC, dataclasses.replace(SMALL, log_std=1.0), N, seed=0)
    action, extras, state = learner.act({"state": torch.zeros(N, 3)}, {})
    assert (extras["raw_action"].abs() > 1).any() and action.abs().max() <= 1
    assert torch.equal(action, extras["raw_action"].clamp(-1, 1))
    expected = torch.distributions.Normal(extras["mean"], math.exp(1.0)).log_prob(extras["raw_action"]).sum(-1)
    torch.testing.assert_close(extras["log_prob"], expected)
    assert state == {}


@pytest.mark.parametrize("normalize_obs", [True, False])
def test_before_the_first_gradient_step_the_ratio_is_one_in_every_update(normalize_obs):
    learner, env = PPO(SPEC, dataclasses.replace(SMALL, normalize_obs=normalize_obs), N, seed=0), Walk()
    for _ in range(3):  # the normalizer moves at the end of each update and must not come between act and update
        batch = collect(learner, env)
        rows, _ = learner._prepare(batch)
        now = log_prob(rows["raw_action"], learner.networks.actor(rows["obs"]), learner.networks.log_std)
        assert (torch.exp(now - rows["log_prob"]) - 1).abs().max() < 1e-5
        learner.update(batch)


def test_advantages_bootstrap_from_true_successors_with_few_extra_values():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    learner.update(collect(learner, env))
    batch = collect(learner, env)
    assert batch.terminated.any() and batch.truncated.any()
    rows, _ = learner._prepare(batch)
    with torch.no_grad():
        value = learner.networks.value(learner._normalize(batch.obs["state"]))
        next_value = learner.networks.value(learner._normalize(batch.next_obs["state"]))  # all of them, plainly
        expected = torch.zeros(N, T)
        for t in reversed(range(T)):
            delta = batch.reward[:, t] + 0.95 * next_value[:, t] * ~batch.terminated[:, t] - value[:, t]
            after = expected[:, t + 1] * ~batch.done[:, t] if t + 1 < T else 0.0
            expected[:, t] = delta + 0.95 * 0.95 * after
    torch.testing.assert_close(rows["advantage"], expected.flatten(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows["value_target"], (expected + value).flatten(), atol=1e-5, rtol=1e-5)


def test_one_epoch_of_one_minibatch_equals_a_plainly_written_update():
    config = dataclasses.replace(SMALL, epochs=1, minibatches=1, entropy_coef=0.01, value_coef=0.5, max_grad_norm=0.7)
    learner, twin, env = PPO(SPEC, config, N, seed=4), PPO(SPEC, config, N, seed=4), Walk()
    batch = collect(learner, env)

    nets, x = twin.networks, twin._normalize(batch.obs["state"].flatten(0, 1))
    rows, _ = twin._prepare(batch)
    advantage, target = rows["advantage"], rows["value_target"]
    policy = torch.distributions.Normal(nets.actor(x), nets.log_std.exp())
    ratio = (
        policy.log_prob(batch.extras["raw_action"].flatten(0, 1)).sum(-1) - batch.extras["log_prob"].flatten()
    ).exp()
    a = (advantage - advantage.mean()) / advantage.std(correction=0)
    objective = torch.min(ratio * a, torch.clamp(ratio, 0.8, 1.2) * a).mean()
    value_error = (nets.critic(x)[:, 0] - target).pow(2).mean()
    loss = -objective + 0.5 * value_error - 0.01 * policy.entropy().sum(-1).mean()
    loss.backward()
    torch.nn.utils.clip_grad_norm_([nets.log_std, *nets.actor.parameters()], 0.7)
    torch.nn.utils.clip_grad_norm_(nets.critic.parameters(), 0.7)
    torch.optim.Adam(nets.parameters(), lr=1e-3, eps=1e-5).step()

    metrics = learner.update(batch)
    torch.testing.assert_close(parameters(learner), parameters(twin), atol=1e-6, rtol=0)
    torch.testing.assert_close(metrics["policy/loss"], -objective.detach(), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(metrics["critic/loss"], value_error.detach(), atol=1e-6, rtol=1e-5)
    assert metrics["policy/clip_fraction"] == 0


def test_updating_makes_good_actions_likelier_and_leaves_finite_scalar_metrics():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    batch = collect(learner, env)
    rows, _ = learner._prepare(batch)
    metrics = learner.update(batch)
    now = log_prob(rows["raw_action"], learner.networks.actor(rows["obs"]), learner.networks.log_std)
    assert ((now - rows["log_prob"]) * standardize(rows["advantage"])).mean() > 0
    assert set(metrics) == {
        "policy/loss", "policy/kl", "policy/clip_fraction", "policy/entropy", "policy/log_std", "policy/grad_norm",
        "critic/loss", "critic/explained_variance", "critic/grad_norm", "learning_rate",
    }  # fmt: skip
    assert all(value.shape == () and torch.isfinite(value) for value in metrics.values())


def test_a_reward_that_is_not_a_number_shows_in_the_metrics():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    batch = collect(learner, env)
    batch.reward[2, 3] = math.nan
    metrics = learner.update(batch)
    assert not torch.isfinite(metrics["critic/loss"]) and not torch.isfinite(metrics["critic/grad_norm"])


def masked_twin(batch, generator):
    """The batch with one more row per world that is no transition: garbage behind mask False."""

    def widen(x):
        garbage = torch.randn(N, 1, *x.shape[2:], generator=generator).mul(1e3).to(x.dtype)
        return torch.cat([x, garbage], dim=1)

    done = batch.truncated.clone()
    done[:, -1] = True  # a simulator resets itself after an episode's end
    plain = dataclasses.replace(batch, truncated=done)
    mask = torch.ones(N, T + 1, dtype=torch.bool)
    mask[:, -1] = False
    wide = {f.name: getattr(plain, f.name) for f in dataclasses.fields(Batch)}
    wide = {k: {n: widen(x) for n, x in v.items()} if isinstance(v, dict) else None if v is None else widen(v)
            for k, v in wide.items()}  # fmt: skip
    return plain, Batch(**{**wide, "mask": mask})


def test_masked_rows_change_nothing_neither_the_networks_nor_the_normalizer():
    a, b, env = PPO(SPEC, SMALL, N, seed=0), PPO(SPEC, SMALL, N, seed=0), Walk()
    batch = collect(a, env)
    b.generator.set_state(a.generator.get_state())
    plain, masked = masked_twin(batch, torch.Generator().manual_seed(0))
    a.update(plain)
    b.update(masked)
    torch.testing.assert_close(parameters(a), parameters(b), atol=1e-6, rtol=0)
    assert a.normalizer is not None and b.normalizer is not None
    assert torch.equal(a.normalizer.mean, b.normalizer.mean) and torch.equal(a.normalizer.var, b.normalizer.var)
    assert a.normalizer.count == b.normalizer.count == N * T


def test_annealing_lowers_the_step_size_linearly_to_the_planned_end():
    config = dataclasses.replace(SMALL, target_kl=0.0, anneal=1.0)
    learner, env = PPO(SPEC, config, N, seed=0, planned_steps=4 * N * T), Walk()
    rates = [learner.update(collect(learner, env))["learning_rate"].item() for _ in range(4)]
    assert rates == pytest.approx([1e-3, 0.75e-3, 0.5e-3, 0.25e-3])


def test_scheduled_noise_shrinks_linearly_to_the_planned_end_and_stays_one_within_a_rollout():
    config = dataclasses.replace(SMALL, log_std=-0.5, final_log_std=-2.5)
    learner, env = PPO(SPEC, config, N, seed=0, planned_steps=4 * N * T), Walk()
    seen = []
    for _ in range(5):
        batch = collect(learner, env)
        rows, _ = learner._prepare(batch)
        now = log_prob(rows["raw_action"], learner.networks.actor(rows["obs"]), learner.networks.log_std)
        assert (torch.exp(now - rows["log_prob"]) - 1).abs().max() < 1e-5
        seen.append(learner.update(batch)["policy/log_std"].item())
    assert seen == pytest.approx([-1.0, -1.5, -2.0, -2.5, -2.5])


def test_the_policy_is_the_clipped_mean_and_does_not_follow_later_updates():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    learner.update(collect(learner, env))
    with torch.no_grad():
        linear_layers(learner.networks.actor)[-1].bias.add_(torch.tensor([5.0, 0.1]))
    obs = {"state": torch.randn(4, 3, generator=torch.Generator().manual_seed(0))}
    policy = learner.policy()
    chunk, _ = policy.act(obs, policy.initial_state(4))
    _, extras, _ = learner.act(obs, {})
    assert chunk.shape == (4, 1, 2)
    torch.testing.assert_close(chunk[:, 0], extras["mean"].clamp(-1, 1))
    assert (chunk[:, 0, 0] == 1).all()
    learner.update(collect(learner, env))
    assert torch.equal(policy.act(obs, {})[0], chunk)


# ---- resume and refusals -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("updates_before", [0, 2])
def test_a_restored_learner_goes_on_to_the_bit(updates_before):
    config = dataclasses.replace(SMALL, anneal=0.5)
    learner, env = PPO(SPEC, config, N, seed=0, planned_steps=400), Walk()
    for _ in range(updates_before):
        learner.update(collect(learner, env))
    restored = PPO(SPEC, config, N, seed=99, planned_steps=400)
    state = learner.state_dict()
    _leaves_are_plain(state)
    restored.load_state_dict(state)
    for _ in range(2):
        batch = collect(learner, env)
        again, extras, _ = restored.act({"state": batch.obs["state"][:, 0]}, {})
        assert torch.equal(extras["raw_action"], batch.extras["raw_action"][:, 0])
        assert torch.equal(again, batch.action[:, 0])
        restored.generator.set_state(learner.generator.get_state())
        first, second = learner.update(batch), restored.update(batch)
        assert all(torch.equal(first[name], second[name]) for name in first)
        assert torch.equal(parameters(learner), parameters(restored))


def _leaves_are_plain(value):
    if isinstance(value, dict):
        assert all(isinstance(k, str) for k in value)
        for v in value.values():
            _leaves_are_plain(v)
    else:
        assert isinstance(value, torch.Tensor | int | float | str)


def test_the_same_seed_gives_the_same_learner_and_no_global_randomness_is_used():
    torch.manual_seed(0)
    a, b = PPO(SPEC, SMALL, N, seed=5), PPO(SPEC, SMALL, N, seed=5)
    before = torch.get_rng_state()
    b.update(collect(b, Walk()))
    assert torch.equal(torch.get_rng_state(), before)
    a.update(collect(a, Walk()))
    assert torch.equal(parameters(a), parameters(b))
    assert not torch.equal(parameters(PPO(SPEC, SMALL, N, seed=6)), parameters(PPO(SPEC, SMALL, N, seed=5)))


def test_discrete_actions_and_tasks_without_a_state_group_are_refused_plainly():
    discrete = Spec(SPEC.observations, (ActionTerm("button", "discrete", n=3),), 0.05)
    with pytest.raises(UsageError, match="continuous actions, and this task has discrete ones"):
        PPO(discrete, SMALL, N, seed=0)
    with pytest.raises(UsageError, match="group 'state'; this task has pixels"):
        PPO(Spec({"pixels": SPEC.observations["state"]}, SPEC.actions, 0.05), SMALL, N, seed=0)
    with pytest.raises(UsageError, match=r"anneal = 0\.5"):
        PPO(SPEC, dataclasses.replace(SMALL, anneal=0.5), N, seed=0)


@pytest.mark.parametrize(
    "bad",
    [{"learning_rate": math.nan}, {"learning_rate": 0.0}, {"learning_rate": 1e-2}, {"discount": 1.5}, {"clip": -0.1},
     {"gae_lambda": -0.1}, {"minibatches": 0}, {"epochs": 0}, {"collect_steps": 1}, {"hidden": ()}, {"log_std": 9.0},
     {"final_log_std": math.nan}, {"target_kl": -1.0}, {"max_grad_norm": 0.0}, {"value_coef": math.inf}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_name_value_and_range(bad):
    ((name, value),) = bad.items()
    with pytest.raises(UsageError) as error:
        PPOConfig(**bad)
    assert f"setting {name} = {value!r}: expected " in str(error.value)


# ---- learning ----------------------------------------------------------------------------------------------------


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_inverted_pendulum_is_solved_in_75k_steps(seed):
    """Mean return of the last 10 training episodes at least 950 of 1000 (`make learning`; 15 s a seed)."""
    from poise.sim.gymnasium_adapter import make_gym

    config = PPOConfig(collect_steps=128, discount=0.99, learning_rate=3e-4, target_kl=0.01, hidden=(64, 64),
                       activation="tanh", log_std=0.0, epochs=10, minibatches=8)  # fmt: skip
    env = make_gym("InvertedPendulum-v5", 8, seed)
    learner = PPO(env.spec, config, 8, seed)
    buffer, obs, returns, finished = learner.make_buffer(), env.reset(seed), torch.zeros(8), []
    for _ in range(75_000 // (128 * 8)):
        for _ in range(128):
            action, extras, _ = learner.act(obs, {})
            step = env.step(action)
            buffer.add(obs, action, extras, step)
            obs = step.obs
            returns += step.reward if step.mask is None else step.reward * step.mask
            finished += returns[step.done].tolist()
            returns[step.done] = 0.0
        learner.update(buffer.sample(learner.request, RNG))
    env.close()
    assert np.mean(finished[-10:]) >= 950
