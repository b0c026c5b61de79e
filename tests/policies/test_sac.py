"""SAC: its equations by hand, one update against autograd and torch's Adam, and exact resume."""

import copy
import math
import shutil

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from poise.batch import Batch, Step
from poise.errors import UsageError
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.policies.sac_update import (
    Networks,
    Rates,
    Transitions,
    actor_loss,
    critic_loss,
    soft_target,
    temperature_loss,
    update,
)
from poise.policies.stacked_mlp import Workspace
from poise.spec import ActionTerm, ObsTerm, Spec

OBS, ACTIONS = 5, 2
SMALL = SACConfig(hidden=(16, 16), batch_size=32, learning_starts=32, capacity=1000, compile="off")


def spec(discrete=False) -> Spec:
    motors = ActionTerm("motors", "control", low=(-1.0,) * ACTIONS, high=(1.0,) * ACTIONS)
    choice = ActionTerm("choice", "discrete", n=3)
    return Spec({"state": (ObsTerm("x", (OBS,)),)}, (choice if discrete else motors,), control_dt=0.05)


# ---- the equations by hand -----------------------------------------------------------------------


def test_the_soft_target_bootstraps_through_truncation_and_not_through_termination():
    reward, terminated = torch.tensor([1.0, 2.0]), torch.tensor([False, True])
    next_q, next_log_prob = torch.tensor([[5.0, 7.0], [4.0, 9.0]]), torch.tensor([-1.5, 3.0])
    y = soft_target(reward, terminated, next_q, next_log_prob, torch.tensor(0.2), 0.9)
    assert y.tolist() == pytest.approx([1.0 + 0.9 * (4.0 + 0.2 * 1.5), 2.0])


def test_a_truncated_row_and_the_same_row_untruncated_give_the_same_update():
    results = []
    for truncated in (False, True):
        learner = SAC(spec(), SMALL, 1, seed=0)
        b = random_batch(32)
        results.append(learner.update(Batch(b.obs, b.action, b.reward, b.next_obs, b.terminated,
                                            torch.full((32,), truncated)))["critic/loss"])  # fmt: skip
    assert results[0] == results[1]


def test_losses_and_their_derivatives_by_hand():
    q, y = torch.tensor([[1.0, 2.0], [4.0, 0.0]]), torch.tensor([0.0, 1.0])
    loss, d_q = critic_loss(q, y)
    assert float(loss) == 0.5 * (1 + 1) / 2 + 0.5 * (16 + 1) / 2
    assert d_q.tolist() == [[0.5, 0.5], [2.0, -0.5]]
    loss, d_log_prob, d_q = actor_loss(torch.tensor([-1.0, 3.0]), q, torch.tensor(0.5))
    assert float(loss) == ((-0.5 - 1.0) + (1.5 - 0.0)) / 2
    assert float(d_log_prob) == 0.25 and d_q.tolist() == [[-0.5, 0.0], [0.0, -0.5]]


def test_alpha_rises_when_the_policy_is_too_certain_and_falls_when_it_is_too_random():
    log_alpha = torch.tensor(-1.0)
    for log_prob, direction in ((3.0, -1), (-3.0, 1)):  # gradient descent: alpha moves against the sign
        loss, d_log_alpha = temperature_loss(log_alpha, torch.full((4,), log_prob), target_entropy=-2.0)
        assert np.sign(float(d_log_alpha)) == direction
        assert float(loss) == pytest.approx(-math.exp(-1.0) * (log_prob - 2.0))
    leaf = log_alpha.clone().requires_grad_()
    (-leaf.exp() * (torch.tensor([1.0, 2.0]) - 2.0)).mean().backward()
    assert float(leaf.grad) == pytest.approx(float(temperature_loss(log_alpha, torch.tensor([1.0, 2.0]), -2.0)[1]))


# ---- the exact soft value ------------------------------------------------------------------------


def soft_value(q: torch.Tensor, alpha: float) -> torch.Tensor:
    """V(s) = alpha log sum_a exp(Q(s, a) / alpha): (S,) of q (S, A)."""
    return alpha * torch.logsumexp(q / alpha, dim=1)


def soft_value_iteration(reward, successor, ends, alpha: float, discount: float) -> torch.Tensor:
    """Soft Q (S, A) of a deterministic MDP: the fixed point of r + gamma (1 - ends) V(s')."""
    q = torch.zeros_like(reward)
    for _ in range(3000):
        q = reward + discount * torch.where(ends, 0.0, soft_value(q, alpha)[successor])
    return q


def three_states():
    """State 2 stays where it is; 1 goes on to 2 or ends; 0 goes to 1 or to 2."""
    reward = torch.tensor([[0.3, -0.2], [1.0, 0.5], [0.1, 0.4]], dtype=torch.float64)
    successor = torch.tensor([[1, 2], [2, 0], [2, 2]])
    ends = torch.tensor([[False, False], [False, True], [False, False]])
    return reward, successor, ends


def closed_form(reward, alpha: float, discount: float) -> torch.Tensor:
    v2 = alpha * math.log(math.exp(0.1 / alpha) + math.exp(0.4 / alpha)) / (1 - discount)
    v1 = alpha * math.log(math.exp((1.0 + discount * v2) / alpha) + math.exp(0.5 / alpha))
    bootstrap = torch.tensor([[v1, v2], [v2, 0.0], [v2, v2]], dtype=torch.float64)
    return reward + discount * bootstrap


@pytest.mark.parametrize(("alpha", "discount"), [(0.5, 0.9), (2.0, 0.99), (0.1, 0.5)])
def test_soft_value_iteration_meets_the_closed_form_on_three_states(alpha, discount):
    reward, successor, ends = three_states()
    q = soft_value_iteration(reward, successor, ends, alpha, discount)
    assert (q - closed_form(reward, alpha, discount)).abs().max() < 1e-6


def test_two_states_meet_the_logsumexp_fixed_point_and_adding_the_own_entropy_shifts_it():
    """docs/lecture.md, E21: the entropy of step t is no part of Q(s_t, a_t)."""
    alpha, discount = 0.7, 0.9
    reward = torch.tensor([[1.0, 0.0], [0.2, 0.6]], dtype=torch.float64)
    successor, ends = torch.tensor([[1, 1], [1, 1]]), torch.zeros(2, 2, dtype=torch.bool)
    q = soft_value_iteration(reward, successor, ends, alpha, discount)
    v1 = alpha * math.log(math.exp(0.2 / alpha) + math.exp(0.6 / alpha)) / (1 - discount)
    v0 = alpha * math.log(math.exp(1.0 / alpha) + math.exp(0.0)) + discount * v1
    torch.testing.assert_close(soft_value(q, alpha), torch.tensor([v0, v1], dtype=torch.float64))

    policy = torch.softmax(q / alpha, dim=1)
    entropy = -(policy * policy.log()).sum(1)
    shifted = torch.zeros(2, 2, dtype=torch.float64)  # the value of pi when r + alpha H(s_t) is the reward
    for _ in range(1000):
        shifted = reward + alpha * entropy[:, None] + discount * (policy * shifted).sum(1)[successor]
    torch.testing.assert_close(shifted, q + alpha * entropy[:, None])
    assert (shifted - q).abs().min() > 0.3


@pytest.mark.parametrize(("alpha", "discount"), [(0.5, 0.9), (2.0, 0.99)])
def test_the_critic_target_keeps_the_soft_fixed_point_for_every_next_action(alpha, discount):
    """Under pi = softmax(Q / alpha), Q - alpha log pi is V for each action: the sampled target has no variance."""
    reward, successor, ends = three_states()
    q = closed_form(reward, alpha, discount)
    log_policy = torch.log_softmax(q / alpha, dim=1)
    for next_action in (0, 1):
        next_q, log_prob = q[successor, next_action].flatten(), log_policy[successor, next_action].flatten()
        y = soft_target(reward.flatten(), ends.flatten(), torch.stack([next_q, next_q]), log_prob,
                      torch.tensor(alpha, dtype=torch.float64), discount)  # fmt: skip
        torch.testing.assert_close(y.reshape(3, 2), q)


# ---- one update against autograd and torch's Adam -----------------------------------------------


def as_dtype(n: Networks, dtype: torch.dtype) -> Networks:
    def cast(value):
        if isinstance(value, torch.Tensor):
            return value.to(dtype)
        return type(value)(cast(v) for v in value)

    # the count of steps stays float32, as Adam's fused kernel wants it
    parts = {k: v if k == "steps" else cast(v) for k, v in vars(n).items()}
    return Networks(**parts)


def transitions(rows: int, dtype: torch.dtype, seed: int = 0) -> Transitions:
    g = torch.Generator().manual_seed(seed)
    obs, next_obs = (torch.randn(rows, OBS, generator=g).to(dtype) for _ in range(2))
    action = torch.rand(rows, ACTIONS, generator=g).to(dtype) * 2 - 1
    reward = torch.randn(rows, generator=g).to(dtype)
    terminated = torch.rand(rows, generator=g) < 0.3
    return Transitions(obs, action, reward, next_obs, terminated, torch.randn(2 * rows, ACTIONS, generator=g).to(dtype))


def flat(lists: list[list]) -> list:
    return [x for inner in lists for x in inner]


class Reference:
    """Soft actor-critic as one writes it on a slate: autograd, separate critics, torch.optim.Adam."""

    def __init__(self, n: Networks, rates: Rates):
        self.actor = [p[0].clone().requires_grad_() for p in n.actor]
        self.critics = [[p[k].clone().requires_grad_() for p in n.critic] for k in range(2)]
        self.targets = copy.deepcopy(self.critics)
        self.log_alpha = n.log_alpha.clone().requires_grad_()
        self.rates = rates
        self.adam = {name: torch.optim.Adam(params, lr=rates.learning_rate) for name, params in
                     (("actor", self.actor), ("critic", flat(self.critics)), ("alpha", [self.log_alpha]))}  # fmt: skip

    @staticmethod
    def mlp(params, x):
        (w1, b1), (w2, b2), (w3, b3) = zip(params[::2], params[1::2], strict=True)
        return torch.relu(torch.relu(x @ w1 + b1) @ w2 + b2) @ w3.T + b3

    def sample(self, obs, noise):
        mean, log_std = self.mlp(self.actor, obs).chunk(2, -1)
        log_std = log_std.clamp(-20, 2)
        u = mean + log_std.exp() * noise
        log_prob = torch.distributions.Normal(mean, log_std.exp()).log_prob(u)
        return torch.tanh(u), (log_prob - 2 * (math.log(2) - u - F.softplus(-2 * u))).sum(-1)

    def q(self, critics, obs, action):
        return torch.stack([self.mlp(c, torch.cat([obs, action], -1))[:, 0] for c in critics])

    def descend(self, name, loss):
        self.adam[name].zero_grad()
        loss.backward()
        self.adam[name].step()

    def update(self, b: Transitions) -> None:
        rows, alpha = len(b.obs), self.log_alpha.exp().detach()
        with torch.no_grad():
            next_action, next_log_prob = self.sample(b.next_obs, b.noise[rows:])
            soft_value = self.q(self.targets, b.next_obs, next_action).min(0).values - alpha * next_log_prob
            y = b.reward + self.rates.discount * (1 - b.terminated.to(b.reward.dtype)) * soft_value
        self.descend("critic", sum(0.5 * F.mse_loss(q, y) for q in self.q(self.critics, b.obs, b.action)))
        action, log_prob = self.sample(b.obs, b.noise[:rows])
        self.descend("actor", (alpha * log_prob - self.q(self.critics, b.obs, action).min(0).values).mean())
        self.descend("alpha", (-self.log_alpha.exp() * (log_prob.detach() + self.rates.target_entropy)).mean())
        with torch.no_grad():
            for target, critic in zip(flat(self.targets), flat(self.critics), strict=True):
                target.lerp_(critic, self.rates.tau)

    def distance(self, n: Networks) -> float:
        """The largest difference of any parameter."""
        pairs = [(p[0], r) for p, r in zip(n.actor, self.actor, strict=True)]
        pairs += [(p[k], r) for k in range(2) for p, r in zip(n.critic, self.critics[k], strict=True)]
        pairs += [(p[k], r) for k in range(2) for p, r in zip(n.target_critic, self.targets[k], strict=True)]
        pairs += [(n.log_alpha, self.log_alpha)]
        return max(float((a.reshape(b.shape) - b.detach()).abs().max()) for a, b in pairs)


@pytest.mark.parametrize(("dtype", "updates", "bound"), [(torch.float64, 20, 1e-9), (torch.float32, 1, 1e-6)])
def test_updates_equal_a_plain_autograd_reference(dtype, updates, bound):
    rates = Rates(learning_rate=1e-3, discount=0.97, tau=0.01, target_entropy=-2.0)
    generator = torch.Generator().manual_seed(0)
    n = as_dtype(Networks.draw(OBS, ACTIONS, (24, 16), 0.7, generator, torch.device("cpu")), dtype)
    reference = Reference(n, rates)
    work = [Workspace.kept(n.actor, 128, 64), Workspace.kept(n.critic, 64, 64)]
    for i in range(updates):
        batch = transitions(64, dtype, seed=i)
        reference.update(batch)
        with torch.no_grad():
            update(n, batch, rates, *work)
    assert reference.distance(n) < bound
    assert float((n.log_alpha.exp() - 0.7).abs()) > 1e-4 * updates  # and something did move


# ---- the learner ---------------------------------------------------------------------------------


def random_batch(rows: int, seed: int = 0) -> Batch:
    t = transitions(rows, torch.float32, seed)
    return Batch({"state": t.obs}, t.action, t.reward, {"state": t.next_obs}, t.terminated, torch.zeros(rows).bool())


def test_first_actions_are_uniform_noise_and_later_ones_follow_the_policy():
    learner = SAC(spec(), SMALL, 16, seed=0)
    obs = {"state": torch.randn(16, OBS)}
    first = torch.cat([learner.act(obs, {})[0] for _ in range(2)])  # 32 steps over all worlds
    assert first.abs().max() <= 1 and 0.4 < first.abs().mean() < 0.6
    assert learner.updates_due(31) == 0 and learner.updates_due(32) == 1
    with torch.no_grad():
        learner.core.networks.actor[-1][..., :ACTIONS] = 10.0  # saturate the mean
        learner.core.networks.actor[-1][..., ACTIONS:] = -20.0
    action, extras, state = learner.act(obs, {})
    assert action.min() > 0.999 and extras == {} and state == {}
    assert (learner.policy().act(obs, {})[0] > 0.999).all()


def test_the_policy_is_tanh_of_the_mean_with_the_normalizer_inside():
    learner = SAC(spec(), SACConfig(hidden=(16, 8), batch_size=8, learning_starts=8, normalize_obs=True), 4, seed=1)
    for i in range(5):
        learner.act({"state": 3.0 + torch.randn(4, OBS, generator=torch.Generator().manual_seed(i))}, {})
    obs = {"state": torch.randn(7, OBS) * 2 + 3}
    x = learner._normalize(obs["state"])
    mean = Reference.mlp([p[0] for p in learner.core.networks.actor], x)[:, :ACTIONS]
    torch.testing.assert_close(learner.policy().act(obs, {})[0][:, 0], torch.tanh(mean))
    assert abs(float(learner.normalizer.mean.mean()) - 3) < 0.5


def train(learner: SAC, updates: int, seed: int) -> list[dict]:
    """Act, store and update on made-up worlds; the metrics of every update."""
    rng, g = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    replay, record = learner.make_buffer(), []
    obs = torch.randn(4, OBS, generator=g)
    while len(record) < updates:
        action, extras, _ = learner.act({"state": obs}, {})
        after, done = torch.randn(4, OBS, generator=g), torch.rand(4, generator=g) < 0.1
        step = Step({"state": after}, {"state": after}, action.sum(1) - obs[:, 0], done, ~done & done)
        replay.add({"state": obs}, action, extras, step)
        obs = after
        if replay.num_rows >= 32:
            record.append(learner.update(replay.sample(learner.request, rng)))
    return record


def same(a, b) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


@pytest.mark.parametrize("config", [{}, {"normalize_obs": True}])
def test_a_saved_learner_goes_on_to_the_bit(config):
    config = SACConfig(**{**vars(SMALL), **config})
    learner, fresh = SAC(spec(), config, 4, seed=3), SAC(spec(), config, 4, seed=99)
    train(learner, 20, seed=1)
    saved = learner.state_dict()
    frozen = copy.deepcopy(saved)
    expected = train(learner, 20, seed=2)
    assert same(saved, frozen), "a state_dict changed when the learner went on"
    fresh.load_state_dict(saved)
    found = train(fresh, 20, seed=2)
    assert all(same(a, b) for a, b in zip(found, expected, strict=True))
    assert same(fresh.state_dict(), learner.state_dict())


def test_the_same_seed_learns_the_same_and_global_randomness_is_untouched():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    a, b = SAC(spec(), SMALL, 4, seed=3), SAC(spec(), SMALL, 4, seed=3)
    train(a, 10, seed=1), train(b, 10, seed=1)
    assert same(a.state_dict(), b.state_dict()) and torch.equal(before, torch.get_rng_state())
    assert not same(a.state_dict(), SAC(spec(), SMALL, 4, seed=4).state_dict())


def test_refuses_what_it_cannot_learn_from():
    hidden = Spec({"privileged": (ObsTerm("x", (4,)),)}, spec().actions, control_dt=0.05)
    with pytest.raises(UsageError, match="groups privileged, of which a policy may read neither"):
        SAC(hidden, SMALL, 1, seed=0)
    two = Spec({c: (ObsTerm("x", (9, 9, 3), dtype="uint8"),) for c in ("left", "right")}, spec().actions, 0.05)
    with pytest.raises(UsageError, match="one camera; this task has left, right"):
        SAC(two, SMALL, 1, seed=0)
    both = Spec(spec().observations, (*spec().actions, *spec(discrete=True).actions), control_dt=0.05)
    with pytest.raises(UsageError, match="one discrete action; this task has motors, choice"):
        SAC(both, SMALL, 1, seed=0)
    with pytest.raises(UsageError, match="critic = 'categorical': expected scalar"):
        SAC(spec(discrete=True), SACConfig(critic="categorical"), 1, seed=0)
    b = random_batch(32)
    masked = Batch(b.obs, b.action, b.reward, b.next_obs, b.terminated, b.truncated, mask=torch.ones(32).bool())
    with pytest.raises(UsageError, match="a mask"):
        SAC(spec(), SMALL, 1, seed=0).update(masked)


@pytest.mark.parametrize(("name", "value"), [
    ("learning_rate", math.nan), ("learning_rate", 0.0), ("discount", 1.5), ("tau", 0.0), ("batch_size", 0),
    ("hidden", ()), ("hidden", (16, 0)), ("init_alpha", -1.0), ("target_entropy", math.inf), ("capacity", 10),
    ("learning_starts", 3), ("updates", 0), ("collect_steps", 0), ("compile", "maybe"), ("precision", "fp16"),
])  # fmt: skip
def test_refuses_settings_that_cannot_be(name, value):
    with pytest.raises(UsageError, match=f"setting {name} = "):
        SACConfig(**{name: value})


def test_compiles_only_where_it_pays_and_says_what_is_missing(monkeypatch):
    def compiled(config, planned_steps=0):
        return SAC(spec(), SACConfig(compile=config), 2, seed=0)._compiles(planned_steps)

    monkeypatch.setattr(shutil, "which", lambda name: "/usr/bin/c++")
    assert compiled("auto", 1_000_000) and not compiled("auto", 10_000) and not compiled("auto")
    assert compiled("on") and not compiled("off", 10**9)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert not compiled("auto", 10**9)
    with pytest.raises(UsageError, match=r"C\+\+ compiler.*compile=off"):
        compiled("on")


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore::DeprecationWarning:torch")  # of torch's own older parts, which its compiler loads
def test_compiled_updates_equal_eager_ones_and_go_on_to_the_bit(caplog):
    caplog.set_level("INFO", "poise.sac")
    compiled = SACConfig(**{**vars(SMALL), "compile": "on"})
    a, b = SAC(spec(), SMALL, 4, seed=3), SAC(spec(), compiled, 4, seed=3)
    for i in range(3):
        a.update(random_batch(32, i)), b.update(random_batch(32, i))
    assert [r.message.split(" in ")[0] for r in caplog.records][-1] == "compiled the update of sac"
    eager, other = a.core.tensors(), b.core.tensors()
    assert max(float((eager[k] - other[k]).abs().max()) for k in eager) < 1e-5

    wider = {
        "hidden": (24, 24),
        "batch_size": 40,
        "learning_starts": 40,
    }  # what one learner compiled is none of another's business
    a, d = (SAC(spec(), SACConfig(**{**vars(x), **wider}), 4, seed=3) for x in (SMALL, compiled))
    for i in range(3):
        a.update(random_batch(40, i)), d.update(random_batch(40, i)), b.update(random_batch(32, i))
    eager, other = a.core.tensors(), d.core.tensors()
    assert max(float((eager[k] - other[k]).abs().max()) for k in eager) < 1e-5
    with pytest.raises(UsageError, match="compiled for batches of 40 rows and was given 32"):
        d.update(random_batch(32))

    c = SAC(spec(), compiled, 4, seed=9)
    c.load_state_dict(b.state_dict())
    train(b, 10, seed=2), train(c, 10, seed=2)
    assert same(b.state_dict(), c.state_dict())
