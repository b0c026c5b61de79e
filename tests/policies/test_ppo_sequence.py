"""Recurrent PPO: what is remembered when, against networks stepped one by one; cameras and histories; refusals."""

import dataclasses

import numpy as np
import pytest
import torch

from conformance_policy import DiscreteImageDrift, Drift, ImageDrift
from poise.errors import UsageError
from poise.policies.learner import restart
from poise.policies.ppo import PPO, PPOConfig
from poise.policies.returns import gae
from poise.spec import ObsTerm, Spec

N, T = 4, 16  # Drift's worlds; its episodes last seven steps at most
SMALL = PPOConfig(lstm=6, hidden=(8,), activation="tanh", collect_steps=T, epochs=2, minibatches=2,
                  conv=((4, 3, 2),), image_features=5)  # fmt: skip
RNG = np.random.default_rng(0)


def collect(learner, env, obs, state):
    """A rollout as the loop of train.py makes it, and what comes next."""
    buffer = learner.make_buffer()
    for _ in range(learner.collect_steps):
        action, extras, state = learner.act(obs, state)
        step = env.step(action)
        buffer.add(obs, action, extras, step)
        state, obs = restart(state, step.done, learner.initial_state(N)), step.obs
    return buffer.sample(learner.request, RNG), obs, state


def second_rollout(config, world=Drift, seed=0):
    """A learner after an update, and a rollout that begins in the middle of episodes."""
    learner, env = PPO(world.spec, config, N, seed), world()
    batch, obs, state = collect(learner, env, env.reset(0), learner.initial_state(N))
    learner.update(batch)
    batch, _, _ = collect(learner, env, obs, state)
    assert batch.truncated[:, :-1].any() and batch.terminated[:, :-1].any() and not batch.done[:, -1].all()
    return learner, batch


def plainly(learner, batch):
    """Outputs, values and values of true successors (N, T, .), one world and one step after the other."""
    networks, x = learner.networks, learner._normalized
    out, value, next_value = torch.zeros(N, T, 2), torch.zeros(N, T), torch.zeros(N, T)
    with torch.no_grad():
        for n in range(N):
            memory = [tuple(batch.extras[f"{p}.{k}"][n : n + 1, 0] for k in "hc") for p in ("lstm", "critic")]
            for t in range(T):
                obs, after = (x(o["state"][n : n + 1, t]) for o in (batch.obs, batch.next_obs))
                out[n, t], memory[0] = networks.actor(obs, None, memory[0])
                v, memory[1] = networks.critic(obs, None, memory[1])
                value[n, t] = v
                next_value[n, t] = networks.critic(after, None, memory[1])[0]  # what is remembered by then
                if batch.done[n, t]:
                    memory = [(torch.zeros(1, 6), torch.zeros(1, 6))] * 2
    return out, value, next_value


@pytest.mark.parametrize("sequence", [0, 4])
def test_values_and_true_successors_use_what_was_remembered_by_then(sequence):
    learner, batch = second_rollout(dataclasses.replace(SMALL, sequence=sequence))
    out, value, next_value = plainly(learner, batch)
    data, _ = learner._prepare(batch)
    torch.testing.assert_close(data.rows.old, out.flatten(0, 1), atol=1e-5, rtol=0)
    expected = gae(batch.reward, value, next_value, batch.terminated, batch.truncated, 0.95, 0.95)
    torch.testing.assert_close(data.rows.advantage, expected.flatten(), atol=1e-4, rtol=0)
    torch.testing.assert_close(data.rows.value_target, (expected + value).flatten(), atol=1e-4, rtol=0)


@pytest.mark.parametrize("sequence", [0, 4])
def test_sequences_repeat_what_acting_saw_so_the_ratio_is_one_before_the_first_step(sequence):
    learner, batch = second_rollout(dataclasses.replace(SMALL, sequence=sequence))
    out, _, _ = plainly(learner, batch)
    data, _ = learner._prepare(batch)
    again = learner.networks.outputs(data)
    torch.testing.assert_close(again, out.flatten(0, 1), atol=1e-5, rtol=0)
    now, _ = learner.networks.distribution(again, learner.networks.log_std).log_prob(data.rows.action)
    assert (torch.exp(now - data.rows.old_log_prob) - 1).abs().max() < 1e-5
    for part in learner.networks.minibatches(data, 2, learner.generator):  # also in another order
        mean = learner.networks.outputs(part)
        now, _ = learner.networks.distribution(mean, learner.networks.log_std).log_prob(part.rows.action)
        assert (torch.exp(now - part.rows.old_log_prob) - 1).abs().max() < 1e-5


def test_a_step_equals_a_plainly_written_one_and_leaves_out_what_is_no_transition():
    config = dataclasses.replace(SMALL, epochs=1, minibatches=1, entropy_coef=0.01, value_coef=0.5, max_grad_norm=0.7)
    learner, batch = second_rollout(config)
    mask = torch.ones(N, T, dtype=torch.bool)
    mask[1, 3] = mask[3, 10] = False
    batch = dataclasses.replace(batch, mask=mask)
    data, _ = learner._prepare(batch)
    n, keep = learner.networks, mask.flatten()
    actor, critic, log_std = (
        [p.detach().clone() for p in n.actor.parameters()], [p.detach().clone() for p in n.critic.parameters()],
        torch.nn.Parameter(n.log_std.clone()),
    )  # fmt: skip
    mean = n._of_sequence(n.actor, data, ("lstm.h", "lstm.c"))
    value = n._of_sequence(n.critic, data, ("critic.h", "critic.c"))[:, 0]
    policy = torch.distributions.Normal(mean[keep], log_std.exp())
    ratio = (policy.log_prob(data.rows.action[keep]).sum(-1) - data.rows.old_log_prob[keep]).exp()
    a = data.rows.advantage[keep]
    a = (a - a.mean()) / a.std(correction=0)
    loss = -torch.min(ratio * a, ratio.clamp(0.8, 1.2) * a).mean() - 0.01 * policy.entropy().sum(-1).mean()
    error = (value - data.rows.value_target)[keep].square().mean()
    of_actor = [*torch.autograd.grad(loss, [*n.actor.parameters(), log_std], retain_graph=True)]
    of_critic = [*torch.autograd.grad(0.5 * error, list(n.critic.parameters()))]
    leaves = [torch.nn.Parameter(p) for p in [*actor, log_std.detach().clone(), *critic]]
    for leaf, gradient in zip(leaves, [*of_actor, *of_critic], strict=True):
        leaf.grad = gradient.clone()
    norms = [torch.nn.utils.clip_grad_norm_(part, 0.7) for part in (leaves[: len(of_actor)], leaves[len(of_actor) :])]

    moments_before = {id(p): m.clone() for p, m in zip(n.params, n._moments[0], strict=True)}
    (part,) = n.minibatches(data, 1, learner.generator)
    metrics = n.step(part, n.log_std.clone(), learner.rule, learner.rates, True)
    torch.testing.assert_close(metrics, torch.stack([loss, error, *norms]).detach(), atol=1e-5, rtol=1e-4)
    for leaf, (p, m) in zip(leaves, zip(n.params, n._moments[0], strict=True), strict=True):
        torch.testing.assert_close(m, moments_before[id(p)] * 0.9 + 0.1 * leaf.grad, atol=1e-6, rtol=1e-4)


def test_what_stands_in_rows_that_are_no_transition_does_not_matter():
    """Garbage in the last, masked row of every world, behind the end of an episode."""
    a, batch = second_rollout(SMALL)
    b, _ = second_rollout(SMALL)
    end = batch.truncated.clone()
    end[:, -2] = True
    mask = torch.ones(N, T, dtype=torch.bool)
    mask[:, -1] = False
    garbage = torch.Generator().manual_seed(0)

    def spoiled(x):
        x = x.clone()
        x[:, -1] = (torch.randn(x[:, -1].shape, generator=garbage) * 1e3).to(x.dtype)
        return x

    clean = dataclasses.replace(batch, truncated=end, mask=mask)
    dirty = dataclasses.replace(
        clean,
        obs={g: spoiled(x) for g, x in batch.obs.items()},
        next_obs={g: spoiled(x) for g, x in batch.next_obs.items()},
        reward=spoiled(batch.reward),
        extras={**batch.extras, "raw_action": spoiled(batch.extras["raw_action"])},
    )
    first, second = a.update(clean), b.update(dirty)
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-6, rtol=1e-5)
    for x, y in zip(a.networks.params, b.networks.params, strict=True):
        torch.testing.assert_close(x, y, atol=1e-6, rtol=0)


@pytest.mark.parametrize("world", [ImageDrift, DiscreteImageDrift])
def test_frames_are_stacked_as_the_policy_stacks_them_on_zeros_at_an_episode_s_start(world):
    learner, batch = second_rollout(dataclasses.replace(SMALL, lstm=0, normalize_obs=False), world)
    frames, (n, t) = learner._stacked(batch)["camera"], batch.reward.shape
    assert frames.shape == (n, t, 12, 12, 2)
    for i in range(n):
        for j in range(1, t):
            before = batch.obs["camera"][i, j - 1, ..., 0] * ~batch.done[i, j - 1]
            assert torch.equal(frames[i, j, ..., 0], before)
            assert torch.equal(frames[i, j, ..., 1], batch.obs["camera"][i, j, ..., 0])
    # the value of a true successor sees the last frame of the episode before it
    data, _ = learner._prepare(batch)
    i, j = next((i, j) for i in range(n) for j in range(t) if batch.truncated[i, j] and j > 0)
    pair = torch.cat([batch.obs["camera"][i, j], batch.next_obs["camera"][i, j]], -1)[None]
    vector = batch.next_obs["state"][i, j][None] if learner.groups else None
    value = data.rows.value_target - data.rows.advantage
    successor = learner.networks.critic(vector, pair)[0].item()
    delta = batch.reward[i, j] + 0.95 * successor - value.view(n, t)[i, j]
    torch.testing.assert_close(data.rows.advantage.view(n, t)[i, j], delta.detach(), atol=1e-5, rtol=0)


def test_vector_histories_reach_both_networks_and_the_policy():
    spec = Spec({"state": (ObsTerm("x", (4,), history=3),)}, Drift.spec.actions, control_dt=0.1)

    class Remembered(Drift):
        pass

    Remembered.spec = spec
    learner, batch = second_rollout(dataclasses.replace(SMALL, lstm=0), Remembered)
    assert learner._stacked(batch)["state"].shape == (N, T, 12)
    policy, state = learner.policy(), learner.initial_state(N)
    theirs = policy.initial_state(N)
    for t in range(3):
        obs = {"state": batch.obs["state"][:, t]}
        frames = torch.cat([state["history.state"], obs["state"]], -1)
        mean, _ = learner.networks.act(learner._see({"state": frames}, ("state",), {}))
        chunk, theirs = policy.act(obs, theirs)
        _, _, state = learner.act(obs, state)
        torch.testing.assert_close(chunk[:, 0], mean.clamp(-1, 1))


def test_settings_and_tasks_that_do_not_fit_are_refused():
    with pytest.raises(UsageError, match="sequence = 5: expected 0, or a divisor of collect_steps 16"):
        dataclasses.replace(SMALL, sequence=5)
    with pytest.raises(UsageError, match="at most 4: with an LSTM a minibatch holds whole sequences"):
        PPO(Drift.spec, dataclasses.replace(SMALL, minibatches=5), N, seed=0)
    with pytest.raises(UsageError, match="the camera 'camera' needs convolutions"):
        PPO(ImageDrift.spec, dataclasses.replace(SMALL, conv=()), N, seed=0)
    two = Spec({"left": ImageDrift.spec.observations["camera"], "right": ImageDrift.spec.observations["camera"]},
               Drift.spec.actions, control_dt=0.1)  # fmt: skip
    with pytest.raises(UsageError, match="ppo sees one camera; this task has left, right"):
        PPO(two, SMALL, N, seed=0)
