"""SAC on a camera: who teaches the encoder, what is shifted, and what the policy file holds."""

import copy

import pytest
import torch

from poise.batch import Batch
from poise.errors import UsageError
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.spec import ActionTerm, ObsTerm, Spec

MOTORS = ActionTerm("motors", "control", low=(-1.0,) * 2, high=(1.0,) * 2)
SPEC = Spec(
    {"state": (ObsTerm("x", (3,)),), "camera": (ObsTerm("picture", (16, 16, 3), "camera", dtype="uint8"),)},
    (MOTORS,),
    control_dt=0.05,
)
CONFIG = SACConfig(hidden=(16,), batch_size=8, learning_starts=8, capacity=64, conv=((4, 4, 2), (6, 3, 1)),
                   image_features=5, norm="layer", random_shift=2)  # fmt: skip


def batch(seed: int = 0) -> Batch:
    g = torch.Generator().manual_seed(seed)

    def obs():
        picture = torch.randint(0, 256, (8, 16, 16, 3), generator=g, dtype=torch.uint8)
        return {"state": torch.randn(8, 3, generator=g), "camera": picture}

    none = torch.zeros(8, dtype=torch.bool)
    return Batch(obs(), torch.rand(8, 2, generator=g) * 2 - 1, torch.randn(8, generator=g), obs(), none, none)


def eyes(learner: SAC) -> list[torch.Tensor]:
    return [p.clone() for p in learner.core.networks.eyes]


def test_the_critics_alone_teach_the_encoder():
    with_actor, without = SAC(SPEC, CONFIG, 1, seed=0), SAC(SPEC, CONFIG, 1, seed=0)
    without.updates, without.config = 1, SACConfig(**{**vars(CONFIG), "policy_delay": 2})  # not the actor's turn
    before, actor = eyes(with_actor), with_actor.core.networks.actor[0].clone()
    with_actor.update(batch()), without.update(batch())
    assert not torch.equal(actor, with_actor.core.networks.actor[0])
    for old, a, b in zip(before, eyes(with_actor), eyes(without), strict=True):
        assert torch.equal(a, b) and not torch.equal(old, a)


def test_the_gradient_of_the_encoder_is_that_of_the_critics_loss():
    """With a step of Adam so small that it is the sign of the gradient times the step size."""
    learner = SAC(SPEC, SACConfig(**{**vars(CONFIG), "random_shift": 0}), 1, seed=0)
    n = copy.deepcopy(learner.core.networks)
    b = batch()
    noise = torch.randn(16, 2, generator=copy.deepcopy(learner.generator).set_state(learner.generator.get_state()))
    learner.update(b)
    with torch.enable_grad():

        def critics(params, features, action):
            h = torch.cat([features, action], -1).expand(2, -1, -1)
            h = torch.baddbmm(params[1], h, params[0])
            h = torch.relu(torch.nn.functional.layer_norm(h, (16,)) * params[2] + params[3])
            return torch.baddbmm(params[5], h, params[4])[..., 0]

        def see(obs):
            return torch.cat([obs["state"], n.encoder(obs["camera"])], -1)

        with torch.no_grad():
            after = see(b.next_obs)
            h = torch.relu(torch.nn.functional.layer_norm(after @ n.actor[0][0] + n.actor[1][0], (16,)))
            mean, log_std = (h @ n.actor[4][0] + n.actor[5][0]).chunk(2, -1)
            u = mean + log_std.exp() * noise[8:]
            log_prob = (
                torch.distributions.Normal(mean, log_std.exp()).log_prob(u) - torch.log1p(-(u.tanh() ** 2))
            ).sum(-1)
            y = b.reward + 0.99 * (critics(n.target_critic, after, u.tanh()).amin(0) - log_prob)
        loss = 0.5 * (critics(n.critic, see(b.obs), b.action) - y).square().mean(1).sum()
        gradient = torch.autograd.grad(loss, list(n.encoder.parameters()))
    for old, new, g in zip(n.encoder.parameters(), learner.core.networks.eyes, gradient, strict=True):
        clear = g.abs() > 1e-5
        assert clear.any()
        torch.testing.assert_close((old - new)[clear], 3e-4 * g.sign()[clear], rtol=1e-2, atol=1e-6)


def test_the_policy_sees_pictures_as_they_are():
    learner = SAC(SPEC, CONFIG, 1, seed=0)
    policy, obs = learner.policy(), batch().obs
    assert policy.network["conv"] == {"group": "camera", "layers": [[4, 4, 2], [6, 3, 1]], "activation": "relu",
                                      "features": 5}  # fmt: skip
    outputs = learner.core.outputs(obs["state"], obs["camera"])
    torch.testing.assert_close(policy.act(obs, {})[0][:, 0], torch.tanh(outputs[:, :2]))


def test_every_update_shifts_anew_and_resumes_with_the_same_shifts():
    one, two = SAC(SPEC, CONFIG, 1, seed=0), SAC(SPEC, CONFIG, 1, seed=1)
    first, second = one._see(batch().obs).image, one._see(batch().obs).image
    assert first is not None and second is not None and not torch.equal(first, second)
    two.load_state_dict(one.state_dict())
    assert torch.equal(one._see(batch().obs).image, two._see(batch().obs).image)  # type: ignore[arg-type]


def test_refuses_to_compile_and_layers_that_do_not_fit_the_picture():
    with pytest.raises(UsageError, match="compile = 'on': expected auto or off for a task with a camera"):
        SAC(SPEC, SACConfig(compile="on"), 1, seed=0)
    with pytest.raises(UsageError, match="conv"):
        SAC(SPEC, SACConfig(conv=((8, 8, 4), (8, 8, 4))), 1, seed=0)
