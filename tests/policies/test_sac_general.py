"""The general update: equal to the plain one where both can, its switches by hand, and the learner around it."""

import math
from dataclasses import replace

import pytest
import torch

from poise.batch import Batch
from poise.errors import UsageError
from poise.policies import sac_general, sac_update
from poise.policies.learner import restart
from poise.policies.sac import LEFT, NOISE, SAC
from poise.policies.sac_config import SACConfig
from poise.policies.sac_core import General, Plain
from poise.policies.sac_general import Networks, Seen, Transitions, Variant
from poise.policies.stacked_mlp import Workspace
from poise.spec import ActionTerm, ObsTerm, Spec

OBS, ACTIONS, ROWS = 5, 2, 64
MOTORS = ActionTerm("motors", "control", low=(-1.0,) * ACTIONS, high=(1.0,) * ACTIONS)
SPEC = Spec({"state": (ObsTerm("x", (OBS,)),)}, (MOTORS,), control_dt=0.05)
SMALL = {"hidden": (16, 16), "batch_size": ROWS, "learning_starts": ROWS, "capacity": 1000, "compile": "off"}
LARGE = {**SMALL, "norm": "layer", "critic": "categorical", "normalize_rewards": True, "project_weights": True,
         "policy_delay": 2, "noise_hold": 4, "target_std": 0.15}  # fmt: skip
CPU = torch.device("cpu")


def variant(**changes) -> Variant:
    base = {"learning_rate": 1e-3, "tau": 0.01, "target_entropy": -2.0, "choices": 0, "atoms": 0, "v_min": -5.0,
            "v_max": 5.0, "norm": False, "project_weights": False, "mean": False}  # fmt: skip
    return Variant(**{**base, **changes})  # type: ignore[arg-type]


def data(seed: int, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    obs, next_obs = (torch.randn(ROWS, OBS, generator=g).to(dtype) for _ in range(2))
    action, reward = torch.rand(ROWS, ACTIONS, generator=g).to(dtype) * 2 - 1, torch.randn(ROWS, generator=g).to(dtype)
    noise = torch.randn(2 * ROWS, ACTIONS, generator=g).to(dtype)
    return obs, action, reward, next_obs, torch.rand(ROWS, generator=g) < 0.3, noise


def batch(seed: int = 0, **more) -> Batch:
    obs, action, reward, next_obs, terminated, _ = data(seed)
    return Batch({"state": obs}, action, reward, {"state": next_obs}, terminated, torch.zeros(ROWS).bool(), **more)


def as_double(params):
    return [p.double() for p in params]


def test_without_its_switches_it_makes_the_steps_of_the_plain_update():
    rates = sac_update.Rates(1e-3, 0.97, 0.01, -2.0)
    p = sac_update.Networks.draw(OBS, ACTIONS, (24, 16), 0.7, torch.Generator().manual_seed(0), CPU)
    p = sac_update.Networks(*(as_double(x) for x in (p.actor, p.critic, p.target_critic)), p.log_alpha.double(), p.steps,
                            *(tuple(map(as_double, m)) for m in (p.critic_moments, p.actor_moments)))  # fmt: skip

    def theirs(params):  # the last weight lies the other way there
        return [*(t.clone() for t in params[:-2]), params[-2].mT.contiguous().clone(), params[-1].clone()]

    actor, critic = theirs(p.actor), theirs(p.critic)
    n = Networks(actor, critic, [c.clone() for c in critic], None, p.log_alpha.clone(), torch.zeros(()),
                 torch.zeros(()), sac_general.zero_moments(critic),
                 sac_general.zero_moments([*actor, p.log_alpha]))  # fmt: skip
    for seed in range(5):
        obs, action, reward, next_obs, terminated, noise = data(seed, torch.float64)
        with torch.no_grad():
            plain = sac_update.update(p, sac_update.Transitions(obs, action, reward, next_obs, terminated, noise), rates,
                                      Workspace.none(p.actor), Workspace.none(p.critic))  # fmt: skip
            t = Transitions(Seen(obs, None), action, reward, Seen(next_obs, None), terminated,
                            torch.full((ROWS,), 0.97, dtype=torch.float64), noise)  # fmt: skip
            general = sac_general.update(n, t, variant(), True)
    for name in ("actor", "critic", "target_critic"):
        torch.testing.assert_close(getattr(n, name), theirs(getattr(p, name)), rtol=0, atol=1e-9)
    torch.testing.assert_close(n.log_alpha, p.log_alpha)
    for name in ("critic/loss", "critic/q", "policy/loss", "policy/entropy"):
        torch.testing.assert_close(general[name], plain[name])


def test_layer_norms_stand_between_layers_and_relu_as_in_the_policy_file():
    learner = SAC(SPEC, SACConfig(**{**LARGE, "normalize_obs": True}), 4, seed=0)
    learner.act({"state": torch.randn(4, OBS) * 3}, learner.initial_state(4))
    obs = {"state": torch.randn(6, OBS)}
    expected = torch.tanh(learner.core.outputs(learner._normalize(obs["state"]), None)[:, :ACTIONS])
    policy = learner.policy()
    assert policy.network["norm"] == "layer"
    torch.testing.assert_close(policy.act(obs, {})[0][:, 0], expected)


def test_projected_weights_keep_norm_one_in_every_unit_and_gain_and_offset_together_that_of_ones():
    learner = SAC(SPEC, SACConfig(**LARGE), 4, seed=0)
    learner.update(batch())
    n = learner.core.networks
    for params in (n.actor, n.critic):
        for weight in params[::4]:
            torch.testing.assert_close(weight.norm(dim=1), torch.ones(len(weight), weight.shape[2]))
        for gain, offset in zip(params[2:-2:4], params[3:-2:4], strict=True):
            assert offset.abs().max() > 0.0
            both = torch.cat([gain, offset], -1)  # (K, 1, 2 H)
            torch.testing.assert_close(both.norm(dim=-1), torch.full((len(gain), 1), gain.shape[-1] ** 0.5))


def test_the_categorical_target_takes_the_critic_with_the_smaller_mean_and_its_mean_is_the_scalar_target():
    g = torch.Generator().manual_seed(0)
    n = Networks.draw(OBS, 2 * ACTIONS, OBS + ACTIONS, 101, (16,), True, 0.01, None, g, CPU)
    obs, action, reward, next_obs, terminated, noise = data(1)
    t = Transitions(Seen(obs, None), action, 0.1 * reward, Seen(next_obs, None), terminated,
                    torch.full((ROWS,), 0.9), noise)  # fmt: skip
    v = variant(atoms=101, norm=True)
    target = sac_general.critic_target(n, t, next_obs, v)
    torch.testing.assert_close(target.sum(-1), torch.ones(ROWS))
    mean, log_std = sac_general.forward(n.actor, next_obs, True)[0].chunk(2, -1)
    sample = sac_general.tanh_gaussian(mean, log_std, noise[ROWS:])
    q = sac_general.values(sac_general.forward(n.target_critic, torch.cat([next_obs, sample.action], -1), True), v)
    assert (q[0] < q[1]).any() and (q[1] < q[0]).any()
    expected = t.reward + torch.where(terminated, 0.0, 0.9) * (q.amin(0) - 0.01 * sample.log_prob)
    torch.testing.assert_close(target @ torch.linspace(-5, 5, 101), expected, atol=2e-3, rtol=0)


def test_the_mean_of_the_critics_counts_where_asked():
    g = torch.Generator().manual_seed(0)
    n = Networks.draw(OBS, 2 * ACTIONS, OBS + ACTIONS, 1, (16,), False, 0.5, None, g, CPU)
    obs, action, reward, next_obs, terminated, noise = data(1)
    t = Transitions(Seen(obs, None), action, reward, Seen(next_obs, None), terminated, torch.ones(ROWS), noise)
    smaller, mean = (sac_general.critic_target(n, t, next_obs, variant(mean=mean)) for mean in (False, True))
    assert (mean[~terminated] > smaller[~terminated]).all() and torch.equal(mean[terminated], smaller[terminated])


@pytest.mark.parametrize("atoms", [0, 101])
def test_of_five_critics_a_target_takes_the_two_that_were_drawn_and_the_policy_follows_the_mean_of_all(atoms):
    g = torch.Generator().manual_seed(0)
    n = Networks.draw(OBS, 2 * ACTIONS, OBS + ACTIONS, max(1, atoms), (16,), True, 0.5, None, g, CPU, critics=5)
    two = [[p[[3, 1]] for p in params] for params in (n.critic, n.target_critic)]
    fewer = replace(n, critic=two[0], target_critic=two[1])
    obs, action, reward, next_obs, terminated, noise = data(1)
    t = Transitions(Seen(obs, None), action, reward, Seen(next_obs, None), terminated, torch.full((ROWS,), 0.9), noise,
                    torch.tensor([3, 1]))  # fmt: skip
    v = variant(atoms=atoms, norm=True)
    five = replace(v, critics=5)
    torch.testing.assert_close(sac_general.critic_target(n, t, next_obs, five),
                               sac_general.critic_target(fewer, t, next_obs, v))  # fmt: skip
    loss, _ = sac_general.actor_loss(n, t, obs, five)(n.actor)
    mean, log_std = sac_general.forward(n.actor, obs, True)[0].chunk(2, -1)
    sample = sac_general.tanh_gaussian(mean, log_std, noise[:ROWS])
    q = sac_general.values(sac_general.forward(n.critic, torch.cat([obs, sample.action], -1), True), five)
    torch.testing.assert_close(loss, (0.5 * sample.log_prob - q.mean(0)).mean())


def test_which_two_of_many_critics_count_is_drawn_anew_for_every_update_and_resumed():
    learner = SAC(SPEC, SACConfig(**{**LARGE, "critics": 4}), 4, seed=0)
    assert len({tuple(sorted(learner._pair().tolist())) for _ in range(40)}) == 6
    learner.update(batch())
    other = SAC(SPEC, SACConfig(**{**LARGE, "critics": 4}), 4, seed=1)
    other.load_state_dict(learner.state_dict())
    for each in (learner, other):
        each.update(batch(1))
    for a, b in zip(learner.core.tensors().values(), other.core.tensors().values(), strict=True):
        assert torch.equal(a, b)


def test_the_actor_and_the_temperature_wait_for_their_turn():
    learner = SAC(SPEC, SACConfig(**{**LARGE, "policy_delay": 3}), 4, seed=0)
    moved, reported = [], []
    for i in range(6):
        before, critic = learner.core.networks.actor[0].clone(), learner.core.networks.critic[0].clone()
        reported.append(float(learner.update(batch(i))["policy/entropy"]))
        moved.append(not torch.equal(before, learner.core.networks.actor[0]))
        assert not torch.equal(critic, learner.core.networks.critic[0])
    assert moved == [True, False, False, True, False, False]
    assert reported[0] == reported[1] == reported[2] != reported[3]


@pytest.mark.parametrize("settings", [SMALL, LARGE])
def test_n_rewards_are_followed_by_the_discount_to_the_power_of_their_number(settings):
    """ONLINE_RL.md, trap 1: the exponent is how many rewards there are, not how many were asked for."""
    three = SAC(SPEC, SACConfig(**{**settings, "discount": 0.9, "n_step": 3, "normalize_rewards": False}), 1, seed=0)
    assert (three.request.n_step, three.request.discount) == (3, 0.9)
    one = SAC(SPEC, SACConfig(**{**settings, "discount": 0.9**2, "normalize_rewards": False}), 1, seed=0)
    a = three.update(batch(steps=torch.full((ROWS,), 2)))
    torch.testing.assert_close(a, one.update(batch()))
    other = SAC(SPEC, three.config, 1, seed=0).update(batch(steps=torch.full((ROWS,), 3)))
    assert other["critic/loss"] != a["critic/loss"]


def test_updates_to_data_above_one_are_so_many_updates_after_a_step():
    learner = SAC(SPEC, SACConfig(**SMALL, updates=4), 1, seed=0)
    assert [learner.updates_due(steps) for steps in (ROWS - 1, ROWS, ROWS + 1)] == [0, 4, 4]


def test_noise_is_held_by_each_world_and_let_go_with_the_episode():
    learner = SAC(SPEC, SACConfig(**{**SMALL, "noise_hold": 8, "learning_starts": ROWS}), 512, seed=0)
    learner.steps = ROWS
    obs, state = {"state": torch.zeros(512, OBS)}, learner.initial_state(512)
    _, _, first = learner.act(obs, state)
    _, _, second = learner.act(obs, first)
    kept = (first[NOISE] == second[NOISE]).all(-1)
    weights = torch.arange(1, 9.0) ** -2
    assert abs(float(kept.float().mean()) - (1 - float(weights[0] / weights.sum()))) < 0.07
    assert (first[LEFT][kept] >= 1).all() and (first[LEFT][~kept] == 0).all()
    done = torch.ones(512, dtype=torch.bool)
    _, _, third = learner.act(obs, restart(first, done, learner.initial_state(512)))
    assert not (first[NOISE] == third[NOISE]).all(-1).any()


def test_the_entropy_aimed_at():
    assert SACConfig().entropy_target(6, 0) == -6
    assert SACConfig(target_std=0.15).entropy_target(6, 0) == pytest.approx(
        3 * math.log(2 * math.pi * math.e * 0.15**2)
    )
    assert SACConfig(entropy_ratio=0.5).entropy_target(1, 4) == pytest.approx(0.5 * math.log(4))
    assert SACConfig(target_entropy=-1.5).entropy_target(1, 4) == -1.5


def test_the_plain_case_goes_by_hand_and_every_other_by_autograd():
    assert isinstance(SAC(SPEC, SACConfig(**SMALL), 1, seed=0).core, Plain)
    for change in ({"norm": "layer"}, {"critic": "categorical"}, {"bootstrap": "mean"}, {"policy_delay": 2}):
        assert isinstance(SAC(SPEC, SACConfig(**SMALL, **change), 1, seed=0).core, General)


@pytest.mark.parametrize(("name", "value"), [
    ("norm", "batch"), ("critic", "quantile"), ("atoms", 1), ("v_max", -5.0), ("v_min", math.nan), ("n_step", 0),
    ("policy_delay", 0), ("bootstrap", "max"), ("noise_hold", 0), ("target_std", 0.0), ("entropy_ratio", 0.0),
    ("conv", ((0, 8, 4),)), ("conv", ()), ("random_shift", -1), ("image_features", 0), ("project_weights", True),
])  # fmt: skip
def test_refuses_settings_that_cannot_be(name, value):
    with pytest.raises(UsageError, match=f"setting {name} = "):
        SACConfig(**{name: value})


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's own older parts, which its compiler loads
def test_compiled_updates_equal_eager_ones():
    eager = SAC(SPEC, SACConfig(**LARGE), 4, seed=3)
    compiled = SAC(SPEC, SACConfig(**{**LARGE, "compile": "on"}), 4, seed=3)
    for i in range(4):
        eager.update(batch(i)), compiled.update(batch(i))
    a, b = eager.core.tensors(), compiled.core.tensors()
    assert max(float((a[k] - b[k]).abs().max()) for k in a) < 1e-4
