"""REINFORCE: credit by hand, the gradient against autograd and against an MDP that can be enumerated."""

import numpy as np
import pytest
import torch

from poise.batch import Batch, Sample, Step
from poise.datasets.episode_buffer import EpisodeBuffer
from poise.errors import UsageError
from poise.policies.distributions import categorical_log_prob_gradient
from poise.policies.recipes import recipe
from poise.policies.reinforce import Reinforce, ReinforceConfig, credit
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (2,)),)}, (ActionTerm("choice", "discrete", n=3),), control_dt=0.1)
ARM = Spec({"state": (ObsTerm("x", (2,)),)},
           (ActionTerm("push", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),), control_dt=0.1)  # fmt: skip


def episodes(reward, ends: str) -> Batch:
    """Episodes (M, T) of these rewards; `ends` says for each: "t" terminated, "u" truncated; NaN marks padding."""
    reward = torch.tensor(reward)
    mask = torch.isfinite(reward)
    last = torch.zeros_like(mask)
    for i, n in enumerate(mask.sum(1).tolist()):
        last[i, n - 1] = True
    terminated = last & torch.tensor([[e == "t"] for e in ends])
    obs = {"state": torch.zeros(*reward.shape, 2)}
    return Batch(obs, torch.zeros(*reward.shape, 1, dtype=torch.int64), reward.nan_to_num(), obs, terminated,
                 last & ~terminated, mask=mask)  # fmt: skip


NAN = float("nan")
TWO = episodes([[1.0, 2.0, 4.0], [8.0, 16.0, NAN]], "tu")
VALUE, NEXT = torch.tensor([[1.0, 1.0, 1.0], [2.0, 2.0, 99.0]]), torch.tensor([[1.0, 1.0, 77.0], [2.0, 32.0, 99.0]])


@pytest.mark.parametrize(("settings", "expected"), [
    ({"estimator": "total", "baseline": "none"}, [[3.0, 3.0, 3.0], [16.0, 16.0, 0.0]]),
    ({"estimator": "to_go", "baseline": "none"}, [[3.0, 4.0, 4.0], [16.0, 16.0, 0.0]]),
    ({"estimator": "to_go", "baseline": "none", "discount_weight": True}, [[3.0, 2.0, 1.0], [16.0, 8.0, 0.0]]),
    # the mean of the five rows, 43 / 5
    ({"estimator": "to_go", "baseline": "mean"}, [[-5.6, -4.6, -4.6], [7.4, 7.4, 0.0]]),
    # with a critic, what is cut off counts: 16 + 32 / 2 = 32 and 8 + 32 / 2 = 24
    ({"estimator": "to_go", "baseline": "value"}, [[2.0, 3.0, 3.0], [22.0, 30.0, 0.0]]),
    ({"estimator": "n_step", "n_step": 1, "baseline": "value"}, [[0.5, 1.5, 3.0], [7.0, 30.0, 0.0]]),
    ({"estimator": "n_step", "n_step": 2, "baseline": "value"}, [[1.25, 3.0, 3.0], [22.0, 30.0, 0.0]]),
    # deltas .5, 1.5, 3 and 7, 30; discount lambda = 1/4
    ({"estimator": "gae", "gae_lambda": 0.5, "baseline": "value"}, [[1.0625, 2.25, 3.0], [14.5, 30.0, 0.0]]),
])  # fmt: skip
def test_what_an_action_is_credited_with_by_hand(settings, expected):
    config = ReinforceConfig(discount=0.5, **settings)
    values = (VALUE, NEXT) if config.baseline == "value" else (None, None)
    assert TWO.mask is not None
    psi, _ = credit(TWO, *values, config, TWO.mask)
    torch.testing.assert_close(psi, torch.tensor(expected))


@pytest.mark.parametrize("spec", [SPEC, ARM])
def test_the_gradient_equals_autograd_s(spec):
    learner = Reinforce(spec, ReinforceConfig(hidden=(5, 4)), 1, 0)
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(7, 2, generator=generator), torch.randn(7, generator=generator)
    action = torch.randint(3, (7,), generator=generator) if spec.discrete else torch.randn(7, 2, generator=generator)
    found, _ = learner.gradient(x, action, weight)
    leaves = [p.clone().requires_grad_() for p in (*learner.actor, learner.log_std)]
    h = torch.tanh(x @ leaves[0][0] + leaves[1][0])
    h = torch.tanh(h @ leaves[2][0] + leaves[3][0])
    out = h @ leaves[4][0].T + leaves[5][0]
    if spec.discrete:
        log_prob = torch.distributions.Categorical(logits=out).log_prob(action)
    else:
        log_prob = torch.distributions.Normal(out, leaves[6].exp()).log_prob(action).sum(-1)
    wanted = torch.autograd.grad((weight * log_prob).sum(), leaves, allow_unused=True)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, torch.zeros_like(a) if b is None else b, atol=1e-6, rtol=1e-5)


def test_only_the_discount_weight_makes_the_estimate_exact():
    """A 2-state, 2-action, 3-step MDP: the estimator's mean over 100,000 episodes against the enumerated gradient."""
    steps, discount, count = 3, 0.6, 100_000
    generator = torch.Generator().manual_seed(0)
    move = torch.tensor([[[0.9, 0.1], [0.2, 0.8]], [[0.5, 0.5], [0.1, 0.9]]])  # (S, A, S)
    paid = torch.tensor([[1.0, 0.0], [-1.0, 2.0]])  # (S, A)
    theta = torch.tensor([[0.3, -0.2], [0.1, 0.6]], requires_grad=True)
    v = torch.zeros(2)
    for _ in range(steps):
        v = (torch.softmax(theta, -1) * (paid + discount * move @ v)).sum(-1)
    (exact,) = torch.autograd.grad(v[0], theta)  # every episode starts in state 0

    state, rows = torch.zeros(count, dtype=torch.int64), []
    for _ in range(steps):
        action = torch.multinomial(torch.softmax(theta.detach(), -1)[state], 1, generator=generator)[:, 0]
        rows.append((state, action, paid[state, action]))
        state = torch.multinomial(move[state, action], 1, generator=generator)[:, 0]
    states, actions, rewards = (torch.stack(x, 1) for x in zip(*rows, strict=True))
    batch = episodes(rewards.tolist(), "u" * count)
    assert batch.mask is not None
    for weighted, exactly in ((True, True), (False, False)):
        config = ReinforceConfig(discount=discount, baseline="none", discount_weight=weighted)
        psi, _ = credit(batch, None, None, config, batch.mask)
        d = categorical_log_prob_gradient(actions.flatten(), theta.detach()[states.flatten()], psi.flatten() / count)
        estimate = torch.zeros(2, 2).index_add_(0, states.flatten(), d)
        error = ((estimate - exact).norm() / exact.norm()).item()
        assert (error < 0.02) == exactly and (exactly or error > 0.1), error


def test_one_update_climbs_and_the_critic_descends():
    learner = Reinforce(SPEC, ReinforceConfig(episodes=2, value_steps=50), 1, 0)
    before = [p.clone() for p in learner.actor]
    batch = episodes([[1.0, 2.0, 4.0], [8.0, 16.0, NAN]], "tt")
    first = learner.update(batch)
    assert not all(torch.equal(a, b) for a, b in zip(before, learner.actor, strict=True))
    assert learner.update(batch)["critic/loss"] < first["critic/loss"]
    assert first["batch/return"].item() == pytest.approx((7.0 + 24.0) / 2)


# ---- whole episodes ----------------------------------------------------------------------------


def play(buffer: EpisodeBuffer, ends: list[str], clock: list[int]) -> None:
    """Steps of two worlds: "." goes on, "t" terminated, "u" truncated, "m" no transition."""
    for end in ends:
        clock[0] += 1
        x = torch.tensor([[float(clock[0]), w] for w in range(2)])
        kind = [torch.tensor([e == k for e in end]) for k in "tum"]
        buffer.add({"state": x}, torch.zeros(2, 1, dtype=torch.int64), {},
                   Step({"state": x}, {"state": x + 0.5}, x[:, 0], kind[0], kind[1], mask=~kind[2]))  # fmt: skip


def test_every_world_contributes_the_same_number_of_episodes_of_the_present_policy(tmp_path):
    buffer, clock = EpisodeBuffer(SPEC, 2, 1), [0]
    play(buffer, ["t.", "t.", "t."], clock)
    assert not buffer.ready, "three short ones of world 0 do not make up for one of world 1"
    manifest = buffer.save(tmp_path)
    restored = EpisodeBuffer(SPEC, 2, 1)
    restored.load(tmp_path, manifest)
    batches = []
    for b, time in ((buffer, [*clock]), (restored, [*clock])):
        play(b, [".u"], time)
        assert b.ready
        batches.append(b.sample(Sample(0), np.random.default_rng(0)))
    for batch in batches:
        assert batch.mask is not None
        assert batch.mask.tolist() == [[True, False, False, False], [True] * 4]
        assert batch.reward.tolist() == [[1.0, 0.0, 0.0, 0.0], [1.0, 2.0, 3.0, 4.0]]
        assert batch.next_obs["state"][1, 3].tolist() == [4.5, 1.5] and batch.truncated[1, 3]
    # world 0's open episode began under the old policy: it is passed over
    play(buffer, ["t.", ".t", "t."], [4])
    batch = buffer.sample(Sample(0), np.random.default_rng(0))
    assert batch.reward.tolist() == [[6.0, 7.0], [5.0, 6.0]]


def test_a_step_that_a_simulator_used_to_reset_begins_an_episode_and_is_none_itself():
    buffer, clock = EpisodeBuffer(SPEC, 2, 2), [0]
    play(buffer, ["tt", "mm", "..", "tt"], clock)
    batch = buffer.sample(Sample(0), np.random.default_rng(0))
    assert batch.reward.tolist() == [[1.0, 0.0], [3.0, 4.0], [1.0, 0.0], [3.0, 4.0]]


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match="episodes = 6: expected a multiple of the 4 worlds"):
        Reinforce(SPEC, ReinforceConfig(episodes=6), 4, 0)
    with pytest.raises(UsageError, match=r"baseline = 'none': expected value, since estimator gae bootstraps"):
        recipe("reinforce", None, {"estimator": "gae", "baseline": "none"})
    with pytest.raises(UsageError, match=r"learning_rate = nan"):
        recipe("reinforce", None, {"learning_rate": "nan"})
    buffer = EpisodeBuffer(SPEC, 2, 1)
    with pytest.raises(UsageError, match="0 of 2 episodes are complete"):
        buffer.sample(Sample(0), np.random.default_rng(0))
    seen = Spec({"camera": (ObsTerm("pixels", (8, 8, 3), dtype="uint8"),)}, SPEC.actions, 0.1)
    with pytest.raises(UsageError, match="reinforce reads flat observations; this task has camera"):
        Reinforce(seen, ReinforceConfig(), 1, 0)
