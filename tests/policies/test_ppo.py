"""PPO: the update against a plain one, what is collected and kept, exact resume, refusals."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from poise.batch import Batch, Step
from poise.errors import UsageError
from poise.policies.networks import linear_layers, mlp
from poise.policies.ppo import PPO, PPOConfig
from poise.policies.ppo_losses import standardize
from poise.policies.ppo_update import Seen
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
    return learner.networks.flat.clone()


def log_prob_now(learner, data):
    """Log density of the actions in `data` under the present actor."""
    mean = learner.networks.outputs(data)
    return torch.distributions.Normal(mean, learner.networks.log_std.exp()).log_prob(data.rows.action).sum(-1)


def seen(learner, x):
    """Vectors (B, D) as the networks read them."""
    return Seen(learner._normalized(x), None, {})


# ---- acting and updating -----------------------------------------------------------------------------------------


def test_the_world_gets_the_clipped_action_and_the_ratio_the_raw_one():
    learner = PPO(SPEC, dataclasses.replace(SMALL, log_std=1.0), N, seed=0)
    action, extras, state = learner.act({"state": torch.zeros(N, 3)}, {})
    assert (extras["raw_action"].abs() > 1).any() and action.abs().max() <= 1
    assert torch.equal(action, extras["raw_action"].clamp(-1, 1))
    assert set(extras) == {"raw_action"} and state == {}


@pytest.mark.parametrize("normalize_obs", [True, False])
def test_before_the_first_gradient_step_the_ratio_is_one_in_every_update(normalize_obs):
    learner, env = PPO(SPEC, dataclasses.replace(SMALL, normalize_obs=normalize_obs), N, seed=0), Walk()
    for _ in range(3):  # the normalizer moves at the end of each update and must not come between act and update
        drawn_from, act = [], learner.networks.act
        learner.networks.act = lambda x, act=act, seen=drawn_from: seen.append(act(x)) or seen[-1]
        batch = collect(learner, env)
        learner.networks.act = act
        data, _ = learner._prepare(batch)
        rows = data.rows
        mean = torch.stack([out for out, _ in drawn_from], 1).flatten(0, 1)  # of the policy that acted, when it did
        acted = torch.distributions.Normal(mean, learner.networks.log_std.exp()).log_prob(rows.action).sum(-1)
        assert (torch.exp(acted - rows.old_log_prob) - 1).abs().max() < 1e-5
        assert (torch.exp(log_prob_now(learner, data) - data.rows.old_log_prob) - 1).abs().max() < 1e-5
        learner.update(batch)


def test_advantages_bootstrap_from_true_successors_with_few_extra_values():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    learner.update(collect(learner, env))
    env.x[:2, 0] = 2.0  # so far right that whatever they do ends their episodes
    batch = collect(learner, env)
    assert batch.terminated.any() and batch.truncated.any()
    rows = learner._prepare(batch)[0].rows
    value, next_value = (  # all of them, plainly
        learner.networks.values(seen(learner, x["state"].flatten(0, 1))).view(N, T) for x in (batch.obs, batch.next_obs)
    )
    expected = torch.zeros(N, T)
    for t in reversed(range(T)):
        delta = batch.reward[:, t] + 0.95 * next_value[:, t] * ~batch.terminated[:, t] - value[:, t]
        after = expected[:, t + 1] * ~batch.done[:, t] if t + 1 < T else 0.0
        expected[:, t] = delta + 0.95 * 0.95 * after
    torch.testing.assert_close(rows.advantage, expected.flatten(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(rows.value_target, (expected + value).flatten(), atol=1e-5, rtol=1e-5)


def modules(learner):
    """The actor and the critic as torch modules with the same weights, and the noise as a parameter."""
    n, config = learner.networks, learner.config
    result = []
    for k, (inputs, outputs) in enumerate([(n.actor_inputs, n.params[-1].shape[-1]), (n.critic_inputs, 1)]):
        network = mlp([inputs, *config.hidden, outputs], config.activation)
        layers = linear_layers(network)
        with torch.no_grad():
            for i, layer in enumerate(layers):
                weight = n.params[2 * i][k] if i == len(layers) - 1 else n.params[2 * i][k].T
                layer.weight.copy_(weight[: layer.out_features, : layer.in_features])
                layer.bias.copy_(n.params[2 * i + 1][k, 0, : layer.out_features])
        result.append(network)
    return *result, torch.nn.Parameter(n.log_std.clone())


@pytest.mark.parametrize("activation", ["tanh", "elu", "relu"])
@pytest.mark.parametrize("objective", ["clip", "adaptive_kl", "fixed_kl", "none"])
def test_one_epoch_of_one_minibatch_equals_a_plainly_written_update(objective, activation):
    config = dataclasses.replace(
        SMALL, epochs=1, minibatches=1, entropy_coef=0.01, value_coef=0.5, max_grad_norm=0.7, penalty=3.0,
        objective=objective, activation=activation,
    )  # fmt: skip
    learner, twin, env = PPO(SPEC, config, N, seed=4), PPO(SPEC, config, N, seed=4), Walk()
    batch = collect(learner, env)
    data, _ = twin._prepare(batch)
    x, rows = data.x, data.rows
    old = torch.distributions.Normal(rows.old + 0.3, twin.networks.log_std.exp() * 1.1)  # as if it had moved
    old_log_prob = old.log_prob(rows.action).sum(-1)
    rows = rows._replace(old=rows.old + 0.3, old_log_prob=old_log_prob)

    actor, critic, log_std = modules(twin)
    policy = torch.distributions.Normal(actor(x), log_std.exp())
    ratio = (policy.log_prob(rows.action).sum(-1) - old_log_prob).exp()
    advantage = (rows.advantage - rows.advantage.mean()) / rows.advantage.std(correction=0)
    divergence = torch.distributions.kl_divergence(old, policy).sum(-1).mean()
    if objective == "clip":
        gain = torch.min(ratio * advantage, torch.clamp(ratio, 0.8, 1.2) * advantage).mean()
    else:
        gain = (ratio * advantage).mean() - (0.0 if objective == "none" else 3.0 * divergence)
    policy_loss = -gain - 0.01 * policy.entropy().sum(-1).mean()
    critic_loss = (critic(x)[:, 0] - rows.value_target).pow(2).mean()
    (policy_loss + 0.5 * critic_loss).backward()
    actor_norm = torch.nn.utils.clip_grad_norm_([log_std, *actor.parameters()], 0.7)
    critic_norm = torch.nn.utils.clip_grad_norm_(critic.parameters(), 0.7)
    torch.optim.Adam([log_std, *actor.parameters(), *critic.parameters()], lr=1e-3, eps=1e-5).step()

    part, *none = learner.networks.minibatches(data._replace(rows=rows), 1, learner.generator)
    old_log_std = learner.networks.log_std + math.log(1.1)
    metrics = learner.networks.step(part, old_log_std, learner.rule, learner.rates, True)
    expected = [policy_loss, critic_loss, actor_norm, critic_norm]
    assert not none
    torch.testing.assert_close(metrics, torch.stack([x.detach() for x in expected]), atol=1e-6, rtol=1e-5)
    stepped_actor, stepped_critic, stepped_log_std = modules(learner)
    for ours, theirs in [(stepped_actor, actor), (stepped_critic, critic)]:
        for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, atol=1e-6, rtol=0)
    torch.testing.assert_close(stepped_log_std, log_std, atol=1e-6, rtol=0)


def test_the_critic_alone_reads_what_only_training_knows():
    spec = Spec({**SPEC.observations, "privileged": (ObsTerm("mass", (2,)),)}, SPEC.actions, 0.05)
    learner, g = PPO(spec, dataclasses.replace(SMALL, epochs=4), N, seed=0), torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(*shape, generator=g)

    batch = Batch(
        obs={"state": drawn(N, T, 3), "privileged": drawn(N, T, 2)}, action=drawn(N, T, 2).clamp(-1, 1),
        reward=drawn(N, T), next_obs={"state": drawn(N, T, 3), "privileged": drawn(N, T, 2)},
        terminated=drawn(N, T) > 1, truncated=drawn(N, T) > 1, extras={"raw_action": drawn(N, T, 2)},
    )  # fmt: skip
    actor, critic, _ = modules(learner)  # networks of 3 and of 5 inputs
    x = torch.cat([batch.obs["state"], batch.obs["privileged"]], -1).flatten(0, 1)
    out, value, _ = learner.networks.evaluate(Seen(x, None, {}))
    torch.testing.assert_close(out, actor(x[:, :3]).detach())
    torch.testing.assert_close(value, critic(x)[:, 0].detach())
    torch.testing.assert_close(learner.networks.values(Seen(x, None, {})), value)

    metrics = learner.update(batch)
    assert all(torch.isfinite(value) for value in metrics.values())
    assert (learner.networks.params[0][0, 3:] == 0).all() and (learner.networks.params[0][1, 3:] != 0).all()
    policy = learner.policy()
    assert "privileged" not in policy.spec.observations and policy.network["groups"] == ["state"]
    assert policy.tensors["actor.0.weight"].shape == (16, 3) and policy.tensors["normalizer.mean"].shape == (3,)
    mean, _ = learner.networks.act(seen(learner, batch.obs["state"][:, 0]))
    acted, _ = policy.act({"state": batch.obs["state"][:, 0]}, {})
    torch.testing.assert_close(acted[:, 0], mean.clamp(-1, 1))


def test_scaled_rewards_leave_the_buffer_and_the_reported_values_in_the_task_s_units():
    plain, scaled = (
        PPO(SPEC, dataclasses.replace(SMALL, normalize_returns=on), N, seed=0) for on in (False, True)
    )  # fmt: skip
    batch = collect(plain, Walk())
    big = dataclasses.replace(batch, reward=batch.reward * 50.0)
    raw = big.reward.clone()
    unscaled, _ = plain._prepare(big)
    data, metrics = scaled._prepare(big)
    scale = metrics["reward/scale"].item()
    assert torch.equal(big.reward, raw) and scale > 10.0
    assert scaled.returns is not None
    torch.testing.assert_close(scaled.returns(raw), (raw / scale).clamp(-10, 10))
    assert data.rows.value_target.abs().max() < 10.0 < unscaled.rows.value_target.abs().max()
    value = scaled.networks.values(seen(scaled, big.obs["state"].flatten(0, 1)))
    torch.testing.assert_close(metrics["critic/value"], value.mean() * scale)


def test_the_adaptive_penalty_follows_the_divergence_of_the_whole_update():
    config = dataclasses.replace(SMALL, objective="adaptive_kl", target_kl=0.0, penalty=2.0)
    learner, env = PPO(SPEC, config, N, seed=0), Walk()
    for _ in range(6):
        before, batch = learner.rates.penalty.item(), collect(learner, env)
        data, _ = learner._prepare(batch)
        old = torch.distributions.Normal(data.rows.old, learner.networks.log_std.exp())
        metrics = learner.update(batch)
        new = torch.distributions.Normal(learner.networks.outputs(data), learner.networks.log_std.exp())
        divergence = torch.distributions.kl_divergence(old, new).sum(-1).mean()
        torch.testing.assert_close(metrics["policy/kl"], divergence, atol=1e-6, rtol=1e-4)
        assert metrics["policy/penalty"] == before  # the new one serves the next update
        factor = 0.5 if divergence < 0.01 / 1.5 else 2.0 if divergence > 0.015 else 1.0
        assert learner.rates.penalty.item() == before * factor


def test_updating_makes_good_actions_likelier_and_leaves_finite_scalar_metrics():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    batch = collect(learner, env)
    data, _ = learner._prepare(batch)
    metrics = learner.update(batch)
    gained = log_prob_now(learner, data) - data.rows.old_log_prob
    assert (gained * standardize(data.rows.advantage)).mean() > 0
    assert set(metrics) == {
        "policy/loss", "policy/kl", "policy/clip_fraction", "policy/entropy", "policy/log_std", "policy/grad_norm",
        "critic/loss", "critic/explained_variance", "critic/value", "critic/grad_norm", "learning_rate",
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
        data, _ = learner._prepare(batch)
        assert (torch.exp(log_prob_now(learner, data) - data.rows.old_log_prob) - 1).abs().max() < 1e-5
        seen.append(learner.update(batch)["policy/log_std"].item())
    assert seen == pytest.approx([-1.0, -1.5, -2.0, -2.5, -2.5])


def test_the_policy_is_the_clipped_mean_and_does_not_follow_later_updates():
    learner, env = PPO(SPEC, SMALL, N, seed=0), Walk()
    learner.update(collect(learner, env))
    learner.networks.params[-1][0, 0] += torch.tensor([5.0, 0.1])
    obs = {"state": torch.randn(4, 3, generator=torch.Generator().manual_seed(0))}
    policy = learner.policy()
    chunk, _ = policy.act(obs, policy.initial_state(4))
    mean, _ = learner.networks.act(seen(learner, obs["state"]))
    assert chunk.shape == (4, 1, 2)
    torch.testing.assert_close(chunk[:, 0], mean.clamp(-1, 1))
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


def test_a_learner_saved_in_the_middle_of_a_rollout_draws_the_same_noise():
    learner, restored = PPO(SPEC, SMALL, N, seed=0), PPO(SPEC, SMALL, N, seed=1)
    obs = {"state": torch.ones(N, 3)}
    learner.act(obs, {})
    restored.load_state_dict(learner.state_dict())
    for _ in range(2 * T):  # also beyond what was drawn
        assert torch.equal(learner.act(obs, {})[1]["raw_action"], restored.act(obs, {})[1]["raw_action"])


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu"])
@pytest.mark.parametrize("rows", [1, 500])
def test_acting_equals_the_batched_pass_whichever_library_multiplies(rows, activation):
    learner = PPO(SPEC, dataclasses.replace(SMALL, activation=activation), N, seed=0)
    learner.update(collect(learner, Walk()))  # the weights have moved since the networks were made
    x = seen(learner, torch.randn(rows, 3, generator=torch.Generator().manual_seed(0)))
    kept = x.vector.clone()
    out, _ = learner.networks.act(x)
    torch.testing.assert_close(out, learner.networks.evaluate(x)[0], atol=1e-6, rtol=1e-5)
    assert torch.equal(x.vector, kept)


def test_the_same_seed_gives_the_same_learner_and_no_global_randomness_is_used():
    torch.manual_seed(0)
    a, b = PPO(SPEC, SMALL, N, seed=5), PPO(SPEC, SMALL, N, seed=5)
    before = torch.get_rng_state()
    b.update(collect(b, Walk()))
    assert torch.equal(torch.get_rng_state(), before)
    a.update(collect(a, Walk()))
    assert torch.equal(parameters(a), parameters(b))
    assert not torch.equal(parameters(PPO(SPEC, SMALL, N, seed=6)), parameters(PPO(SPEC, SMALL, N, seed=5)))


def test_tasks_that_it_cannot_learn_and_schedules_without_an_end_are_refused_plainly():
    two = Spec(SPEC.observations, (ActionTerm("walk", "discrete", n=3), ActionTerm("jump", "discrete", n=2)), 0.05)
    with pytest.raises(UsageError, match=r"wants several at once: walk \(discrete\), jump \(discrete\)"):
        PPO(two, SMALL, N, seed=0)
    with pytest.raises(UsageError, match="flat observation groups and a camera; this task has only privileged"):
        PPO(Spec({"privileged": SPEC.observations["state"]}, SPEC.actions, 0.05), SMALL, N, seed=0)
    with pytest.raises(UsageError, match="minibatches = 25: expected at most 24"):
        PPO(SPEC, dataclasses.replace(SMALL, minibatches=25), N, seed=0)
    with pytest.raises(UsageError, match=r"anneal = 0\.5"):
        PPO(SPEC, dataclasses.replace(SMALL, anneal=0.5), N, seed=0)


@pytest.mark.parametrize(
    "bad",
    [{"learning_rate": math.nan}, {"learning_rate": 0.0}, {"learning_rate": 1e-2}, {"discount": 1.5}, {"clip": -0.1},
     {"gae_lambda": -0.1}, {"minibatches": 0}, {"epochs": 0}, {"collect_steps": 1}, {"hidden": ()}, {"log_std": 9.0},
     {"final_log_std": math.nan}, {"target_kl": -1.0}, {"max_grad_norm": 0.0}, {"value_coef": math.inf},
     {"penalty": math.nan}, {"penalty_kl": 0.0}, {"objective": "trpo"}],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused_with_name_value_and_range(bad):
    ((name, value),) = bad.items()
    with pytest.raises(UsageError) as error:
        PPOConfig(**bad)
    assert f"setting {name} = {value!r}: expected " in str(error.value)
