"""Discrete SAC: exact expectations, the soft fixed point of two states, and CartPole."""

import math

import pytest
import torch

import poise
from poise.batch import Batch
from poise.policies import sac_discrete
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec({"state": (ObsTerm("x", (2,)),)}, (ActionTerm("choice", "discrete", n=2),), control_dt=0.05)
# both actions of state 0 lead to state 1, which stays where it is
REWARD = torch.tensor([[1.0, 0.0], [0.2, 0.6]], dtype=torch.float64)


def closed_form(alpha: float, discount: float) -> torch.Tensor:
    """Soft Q (2, 2) of the two states: V(s) = alpha log sum_a exp(Q(s, a) / alpha)."""
    v1 = alpha * math.log(math.exp(0.2 / alpha) + math.exp(0.6 / alpha)) / (1 - discount)
    return REWARD + discount * v1


def test_the_soft_value_is_an_expectation_over_actions_by_hand():
    q, logits = torch.tensor([[1.0, 3.0]]), torch.tensor([[0.0, math.log(3.0)]])  # pi = 1/4, 3/4
    expected = 0.25 * (1.0 - 0.5 * math.log(0.25)) + 0.75 * (3.0 - 0.5 * math.log(0.75))
    assert sac_discrete.soft_value(q, logits, torch.tensor(0.5)).tolist() == pytest.approx([expected])
    assert float(sac_discrete.policy_loss(q, logits, torch.tensor(0.5))) == pytest.approx(-expected)
    assert sac_discrete.entropy(logits).tolist() == pytest.approx([-0.25 * math.log(0.25) - 0.75 * math.log(0.75)])
    assert sac_discrete.chosen(torch.tensor([[[1.0, 2.0]], [[3.0, 4.0]]]), torch.tensor([[1]])).tolist() == [
        [2.0],
        [4.0],
    ]


@pytest.mark.parametrize(("alpha", "discount"), [(0.7, 0.9), (0.1, 0.5), (2.0, 0.99)])
def test_backups_under_the_softmax_policy_end_at_the_closed_form(alpha, discount):
    q = torch.zeros(2, 2, dtype=torch.float64)
    for _ in range(3000):
        value = sac_discrete.soft_value(q, q / alpha, torch.tensor(alpha, dtype=torch.float64))
        q = REWARD + discount * value[1]
    assert (q - closed_form(alpha, discount)).abs().max() < 1e-6


def test_descending_the_policy_loss_leads_to_the_softmax_of_q_over_alpha():
    q, alpha = torch.tensor([[1.0, 0.3, -0.5]]), torch.tensor(0.4)
    logits = torch.zeros(1, 3, requires_grad=True)
    descent = torch.optim.Adam([logits], lr=0.05)
    for _ in range(500):
        descent.zero_grad()
        sac_discrete.policy_loss(q, logits, alpha).backward()
        descent.step()
    torch.testing.assert_close(torch.softmax(logits.detach(), -1), torch.softmax(q / alpha, -1), atol=1e-3, rtol=0)


def test_the_learner_meets_the_soft_fixed_point_of_two_states():
    """Values and policy of the networks, at the temperature that keeps the entropy where it was asked to be."""
    config = SACConfig(hidden=(32,), learning_rate=3e-3, discount=0.8, tau=0.05, batch_size=64, learning_starts=64,
                       entropy_ratio=0.8)  # fmt: skip
    learner, g = SAC(SPEC, config, 1, seed=0), torch.Generator().manual_seed(0)
    states = torch.eye(2)
    for _ in range(1500):
        s, a = torch.randint(2, (64,), generator=g), torch.randint(2, (64,), generator=g)
        none = torch.zeros(64, dtype=torch.bool)
        learner.update(Batch({"state": states[s]}, a[:, None], REWARD[s, a].float(), {"state": states[torch.ones_like(s)]},
                             none, none))  # fmt: skip
    n = learner.core.networks
    alpha = float(n.log_alpha.exp())
    q = learner.core.networks.critic
    found = torch.relu(states @ q[0] + q[1]) @ q[2] + q[3]  # (2, states, actions)
    torch.testing.assert_close(found.mean(0), closed_form(alpha, 0.8).float(), atol=0.05, rtol=0)
    pi = torch.softmax(learner.core.outputs(states, None), -1)
    torch.testing.assert_close(pi, torch.softmax(closed_form(alpha, 0.8).float() / alpha, -1), atol=0.02, rtol=0)
    assert abs(float(sac_discrete.entropy(pi.log()).mean()) - 0.8 * math.log(2)) < 0.02


def test_choices_follow_the_logits_and_are_even_before_learning_begins():
    learner = SAC(SPEC, SACConfig(hidden=(8,), batch_size=8, learning_starts=2000), 2000, seed=0)
    obs = {"state": torch.zeros(2000, 2)}
    action, extras, state = learner.act(obs, {})
    assert action.shape == (2000, 1) and action.dtype == torch.int64 and extras == {} and state == {}
    assert abs(float(action.float().mean()) - 0.5) < 0.05
    learner.core.networks.actor[-1][..., :] = torch.tensor([0.0, math.log(9.0)])
    learner.core.networks.actor[-2].zero_()
    assert abs(float(learner.act(obs, {})[0].float().mean()) - 0.9) < 0.03
    assert (learner.policy().act(obs, {})[0] == 1).all()


@pytest.mark.learning
@pytest.mark.parametrize("seed", [0, 1])
def test_cartpole_in_20_000_steps(seed, tmp_path):
    settings = {"seed": seed, "threads": 1, "evaluations": 5}
    result = poise.train("sac", "gym:CartPole-v1", tmp_path / "run", settings=settings)
    best = poise.evaluate(
        poise.load_policy(result.run_dir / "best.safetensors"), "gym:CartPole-v1", 20, seed=1000 + seed
    )
    print(seed, best)
    assert best.return_mean >= 200, best  # a random policy balances for 22 steps
