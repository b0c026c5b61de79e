"""Behaviour cloning: its losses and gradients against autograd, and tiny problems with known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from conformance_policy import check_policy
from poise.batch import Batch
from poise.errors import UsageError
from poise.normalizer import Normalizer
from poise.policies.bc import BC, BCConfig, gaussian_nll
from poise.policies.mixture import mixture_nll
from poise.policies.networks import PolicyNetwork
from poise.policies.offline_core import DataFacts
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (3,)),)}, (ActionTerm("a", "unknown", low=(-1.0, -1.0), high=(1.0, 1.0)),), 0.05)
CHOICE = Spec({"state": (ObsTerm("x", (3,)),)}, (ActionTerm("a", "discrete", n=4),), 0.05)


def batch(obs: torch.Tensor, action: torch.Tensor) -> Batch:
    never = torch.zeros(len(obs), dtype=torch.bool)
    return Batch({"state": obs}, action, torch.full((len(obs),), torch.nan), {}, never, never)


def test_a_deterministic_update_is_one_step_of_adam_on_the_mean_squared_error():
    learner = BC(SPEC, BCConfig(hidden=(8,), batch_size=5, anneal=False), DataFacts(), seed=0)
    plain = [p.clone().requires_grad_() for p in learner.actor.params]
    optimizer = torch.optim.Adam(plain, lr=1e-3)
    for _ in range(5):
        obs, action = torch.randn(5, 3), torch.rand(5, 2) * 2 - 1
        hidden = torch.relu(obs @ plain[0][0] + plain[1][0])
        loss = (hidden @ plain[2][0].T + plain[3][0] - action).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert learner.update(batch(obs, action))["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(learner.actor.params, plain, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)


def test_the_gaussian_loss_is_torchs_own_and_so_is_its_derivative():
    out = (3.0 * torch.randn(7, 4, dtype=torch.float64)).requires_grad_()
    action = torch.rand(7, 2, dtype=torch.float64)
    mean, log_std = out.chunk(2, -1)
    expected = -torch.distributions.Normal(mean, log_std.clamp(-5.0, 2.0).exp()).log_prob(action).sum(-1).mean()
    loss, d_out = gaussian_nll(out.detach(), action)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    inside = torch.cat([torch.ones(7, 2, dtype=torch.bool), (log_std > -5.0) & (log_std < 2.0)], -1)
    gradient = torch.autograd.grad(expected, out)[0]
    torch.testing.assert_close(d_out[inside], gradient[inside], rtol=1e-10, atol=1e-12)


def test_a_linear_teacher_is_learned_and_a_held_out_error_says_so():
    rng = torch.Generator().manual_seed(0)
    teacher = torch.tensor([[0.3, -0.2], [0.1, 0.4], [-0.5, 0.2]])
    normalizer = Normalizer(3)
    normalizer.update(torch.randn(1000, 3, generator=rng))
    learner = BC(SPEC, BCConfig(hidden=(32,), batch_size=64), DataFacts(normalizer), seed=1, planned_steps=1500)
    for _ in range(1500):
        obs = torch.randn(64, 3, generator=rng)
        learner.update(batch(obs, (obs @ teacher).clamp(-1, 1)))
    obs = torch.randn(256, 3, generator=rng)
    held_out = batch(obs, (obs @ teacher).clamp(-1, 1))
    assert learner.score(held_out)["action_error"].item() < 0.04
    acted, _ = learner.policy().act({"state": obs}, {})
    assert (acted[:, 0] - held_out.action).abs().mean().item() < 0.04


def test_choices_are_learned_by_cross_entropy():
    rng = torch.Generator().manual_seed(0)
    learner = BC(CHOICE, BCConfig(hidden=(32,), batch_size=64), DataFacts(), seed=1)
    for _ in range(400):
        obs = torch.randn(64, 3, generator=rng)
        learner.update(batch(obs, (obs[:, :1] > 0).long() + 2 * (obs[:, 1:2] > 0).long()))
    obs = torch.randn(256, 3, generator=rng)
    right = (obs[:, :1] > 0).long() + 2 * (obs[:, 1:2] > 0).long()
    assert learner.score(batch(obs, right))["accuracy"].item() > 0.9
    assert np.mean(learner.policy().act({"state": obs}, {})[0][:, 0].numpy() == right.numpy()) > 0.9


def test_gaussian_deviations_follow_the_noise_of_the_demonstrations():
    rng = torch.Generator().manual_seed(0)
    learner = BC(SPEC, BCConfig(head="gaussian", hidden=(32,), batch_size=128), DataFacts(), seed=1, planned_steps=1500)
    for _ in range(1500):
        obs = torch.randn(128, 3, generator=rng)
        learner.update(batch(obs, 0.2 * torch.randn(128, 2, generator=rng)))
    loss = learner.score(batch(torch.randn(512, 3, generator=rng), 0.2 * torch.randn(512, 2, generator=rng)))["loss"]
    entropy = 2 * 0.5 * np.log(2 * np.pi * np.e * 0.04)  # of two Gaussians of deviation 0.2
    assert loss.item() == pytest.approx(entropy, abs=0.1)


def test_the_mixtures_loss_is_torchs_own_and_so_is_its_derivative():
    modes, dims, rows = 3, 2, 7
    out = (2.0 * torch.randn(rows, modes * (2 * dims + 1), dtype=torch.float64)).requires_grad_()
    action = torch.rand(rows, dims, dtype=torch.float64) * 2 - 1
    means, logits, raw = out.split([modes * dims, modes, modes * dims], -1)
    d = torch.distributions
    gaussians = d.Normal(torch.tanh(means.view(rows, modes, dims)), F.softplus(raw.view(rows, modes, dims)) + 1e-4)
    mixture = d.MixtureSameFamily(d.Categorical(logits=logits), d.Independent(gaussians, 1))  # as robomimic has it
    expected = -mixture.log_prob(action).mean()
    loss, d_out = mixture_nll(out.detach(), action, modes, 1e-4)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-12)
    torch.testing.assert_close(d_out, torch.autograd.grad(expected, out)[0], rtol=1e-9, atol=1e-12)


def test_updates_of_the_mixture_are_adams_on_robomimics_loss():
    learner = BC(SPEC, BCConfig(head="gmm", modes=2, hidden=(8,), batch_size=5, anneal=False), DataFacts(), seed=0)
    plain = [p.clone().requires_grad_() for p in learner.actor.params]
    optimizer = torch.optim.Adam(plain, lr=1e-3)
    d = torch.distributions
    for _ in range(5):
        obs, action = torch.randn(5, 3), torch.rand(5, 2) * 2 - 1
        out = torch.relu(obs @ plain[0][0] + plain[1][0]) @ plain[2][0].T + plain[3][0]
        means, logits, raw = out.split([4, 2, 4], -1)
        gaussians = d.Normal(torch.tanh(means.view(5, 2, 2)), F.softplus(raw.view(5, 2, 2)) + 1e-4)
        mixture = d.MixtureSameFamily(d.Categorical(logits=logits), d.Independent(gaussians, 1))
        loss = -mixture.log_prob(action).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert learner.update(batch(obs, action))["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(learner.actor.params, plain, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-5)


def test_a_mixture_keeps_two_ways_apart_where_a_mean_falls_between(tmp_path):
    rng = torch.Generator().manual_seed(0)
    config = BCConfig(head="gmm", modes=2, hidden=(32,), batch_size=128)
    learner = BC(SPEC, config, DataFacts(), seed=1, planned_steps=600)

    def two_ways(rows: int) -> Batch:  # left or right of an obstacle, left in seven cases of ten
        side = torch.where(torch.rand(rows, 1, generator=rng) < 0.7, -0.5, 0.5)
        return batch(torch.randn(rows, 3, generator=rng), side.expand(rows, 2))

    for _ in range(600):
        learner.update(two_ways(128))
    policy = learner.policy()
    acted, _ = policy.act({"state": torch.randn(64, 3, generator=rng)}, {})
    assert (acted + 0.5).abs().max().item() < 0.1, "deployed is the likeliest way, not the mean at -0.2"
    assert learner.score(two_ways(512))["action_error"].item() == pytest.approx(
        0.3, abs=0.06
    )  # 1 in three cases of ten
    check_policy(policy, tmp_path)


# ---- cameras -------------------------------------------------------------------------------------

SEEN = Spec({"camera": (ObsTerm("camera", (24, 24, 3), "camera", dtype="uint8"),), "state": (ObsTerm("x", (3,)),)},
            SPEC.actions, 0.05)  # fmt: skip
SMALL = {"camera": "auto", "conv": ((8, 4, 2), (8, 3, 2)), "image_features": 12, "hidden": (16,), "batch_size": 32}


def pictures(rows: int, rng: torch.Generator) -> Batch:
    """A bright spot, whose place is where to go."""
    place = torch.randint(4, 20, (rows, 2), generator=rng)
    image = torch.zeros(rows, 24, 24, 3, dtype=torch.uint8)
    for i, (y, x) in enumerate(place.tolist()):
        image[i, y - 2 : y + 3, x - 2 : x + 3] = 255
    never = torch.zeros(rows, dtype=torch.bool)
    obs = {"camera": image, "state": torch.randn(rows, 3, generator=rng)}
    return Batch(obs, (place - 12) / 10.0, torch.full((rows,), torch.nan), {}, never, never)


def test_an_update_from_a_camera_is_one_step_of_adam_on_the_whole_network():
    rng = torch.Generator().manual_seed(0)
    learner = BC(SEEN, BCConfig(**SMALL, random_shift=0, anneal=False), DataFacts(), seed=0)
    plain = PolicyNetwork(SEEN, learner.network()).load_tensors_(learner.policy().tensors)
    optimizer = torch.optim.Adam(plain.parameters(), lr=1e-3)
    for _ in range(4):
        b = pictures(32, rng)
        loss = (plain(b.obs["state"], b.obs["camera"])[0] - b.action).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert learner.update(b)["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in plain.tensors().items():
        torch.testing.assert_close(learner.policy().tensors[name], tensor, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("only", [False, True])
def test_what_a_camera_shows_is_imitated_and_the_file_acts_the_same(only, tmp_path):
    rng = torch.Generator().manual_seed(0)
    spec = SEEN.only(("camera",)) if only else SEEN
    learner = BC(spec, BCConfig(**SMALL, random_shift=1), DataFacts(), seed=0, planned_steps=300)
    for _ in range(300):
        learner.update(pictures(32, rng))
    held_out = pictures(128, rng)
    assert learner.score(held_out)["action_error"].item() < 0.2  # 0.43 without looking
    check_policy(learner.policy(), tmp_path)


def test_a_learner_with_a_camera_goes_on_with_the_very_same_numbers():
    one, other = (BC(SEEN, BCConfig(**SMALL), DataFacts(), seed, planned_steps=20) for seed in (1, 2))
    batches = [pictures(32, torch.Generator().manual_seed(i)) for i in range(6)]
    for b in batches[:3]:
        one.update(b)
    other.load_state_dict(one.state_dict())
    for b in batches[3:]:
        assert one.update(b)["policy/loss"].item() == other.update(b)["policy/loss"].item()
    theirs = other.policy().tensors
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in one.policy().tensors.items())


def test_a_camera_that_is_not_there_or_not_named_is_told():
    with pytest.raises(UsageError, match="expected 'wrist', this data has camera; name one"):
        BC(SEEN, BCConfig(camera="wrist"), DataFacts(), seed=0)
    with pytest.raises(UsageError, match="expected one camera, this data has none"):
        BC(SPEC, BCConfig(camera="auto"), DataFacts(), seed=0)
    with pytest.raises(UsageError, match="bc/image learns from cameras"):
        BC(SEEN.only(("camera",)), BCConfig(), DataFacts(), seed=0)


# ---- chunks ----------------------------------------------------------------------------------


def chunks(obs: torch.Tensor, action: torch.Tensor, mask: torch.Tensor) -> Batch:
    never = torch.zeros(len(obs), dtype=torch.bool)
    return Batch({"state": obs}, action, torch.full((len(obs),), torch.nan), {}, never, never, action_mask=mask)


def test_a_chunk_counts_the_actions_that_the_episode_still_has_and_no_more():
    """By hand: two rows of three actions, of which the second row has one; the loss is the mean over four."""
    learner = BC(SPEC, BCConfig(hidden=(8,), chunk=3, anneal=False), DataFacts(), seed=0)
    assert learner.spec.action_horizon == 3 and learner.request.action_horizon == 3 and learner.sizes[-1] == 6
    obs, action = torch.randn(2, 3), torch.rand(2, 3, 2)
    mask = torch.tensor([[True, True, True], [True, False, False]])
    plain = [p.clone().requires_grad_() for p in learner.actor.params]
    out = (torch.relu(obs @ plain[0][0] + plain[1][0]) @ plain[2][0].T + plain[3][0]).unflatten(-1, (3, 2))
    loss = (out - action).square()[mask].mean()
    optimizer = torch.optim.Adam(plain, lr=1e-3)
    loss.backward()
    optimizer.step()
    assert learner.update(chunks(obs, action, mask))["policy/loss"].item() == pytest.approx(loss.item(), rel=1e-5)
    for mine, theirs in zip(learner.actor.params, plain, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-5, atol=1e-6)
    assert learner.score(chunks(obs, action, mask))["action_error"] > 0.0


def test_the_gaussian_loss_of_a_chunk_leaves_out_what_does_not_count():
    out = (3.0 * torch.randn(4, 12, dtype=torch.float64)).requires_grad_()
    action, counts = torch.rand(4, 6, dtype=torch.float64), (torch.rand(4, 6) < 0.6).double()
    mean, log_std = out.chunk(2, -1)
    log_prob = torch.distributions.Normal(mean, log_std.clamp(-5.0, 2.0).exp()).log_prob(action)
    expected = -(log_prob * counts).sum(-1).mean()
    loss, _ = gaussian_nll(out.detach(), action, counts)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)


def test_a_policy_of_chunks_goes_through_its_file(tmp_path):
    learner = BC(SPEC, BCConfig(hidden=(8,), chunk=4), DataFacts(), seed=0)
    policy = learner.policy()
    check_policy(policy, tmp_path)
    action, _ = policy.act({"state": torch.randn(5, 3)}, policy.initial_state(5))
    assert action.shape == (5, 4, 2)


@pytest.mark.parametrize(
    ("spec", "config"), [(SPEC, {"chunk": 0}), (SPEC, {"chunk": 2, "head": "gmm"}), (CHOICE, {"chunk": 2})]
)
def test_chunks_that_cannot_be_are_refused(spec, config):
    with pytest.raises(UsageError, match="chunk"):
        BC(spec, BCConfig(**config), DataFacts(), seed=0)
