"""The equations of deep Q-learning against autograd and arithmetic, and the learner's switches."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from poise.batch import Batch, Step
from poise.errors import UsageError
from poise.policies import perceptron
from poise.policies.dqn import DQN, DQNConfig, nature, nature_2013
from poise.policies.dqn_update import (
    centred_rmsprop_,
    dueling,
    dueling_gradient,
    linear_schedule,
    next_value,
    priorities,
    q_loss,
)
from poise.policies.q_network import NATURE, NATURE_2013, QNetwork, count_weights
from poise.policies.recipes import recipe
from poise.spec import ActionTerm, ObsTerm, Spec

CPU = torch.device("cpu")


def vector_spec(dim: int = 4, choices: int = 3) -> Spec:
    return Spec({"state": (ObsTerm("x", (dim,)),)}, (ActionTerm("a", "discrete", n=choices),), 0.1)


def camera_spec(choices: int, size: int = 84, history: int = 4) -> Spec:
    frame = ObsTerm("frame", (size, size, 1), "camera", dtype="uint8", history=history)
    return Spec({"camera": (frame,)}, (ActionTerm("a", "discrete", n=choices),), 0.1)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def random_batch(spec: Spec, rows: int, seed: int = 0, **fields) -> Batch:
    dim = spec.obs_dim("state")
    return Batch({"state": normal(rows, dim, seed=seed)}, torch.arange(rows)[:, None] % spec.choices,
                 normal(rows, seed=seed + 1), {"state": normal(rows, dim, seed=seed + 2)},
                 torch.arange(rows) % 3 == 0, torch.arange(rows) % 3 == 1, **fields)  # fmt: skip


SMALL = DQNConfig(hidden=(8, 8), batch_size=6, capacity=64, learning_starts=8, target_every=3, learning_rate=1e-2)


# ---- the equations -----------------------------------------------------------------------------


def test_the_network_chooses_and_the_target_network_tells_the_value_in_double_q_learning():
    target_q, online_q = torch.tensor([[1.0, 5.0, 2.0]]), torch.tensor([[0.0, 1.0, 3.0]])
    assert next_value(target_q).tolist() == [5.0]
    assert next_value(target_q, online_q).tolist() == [2.0]


def test_the_gradient_of_the_squared_error_is_minus_twice_what_the_paper_of_2013_prints():
    q, action = torch.tensor([[1.0, 2.0], [4.0, -1.0]]), torch.tensor([[1], [0]])
    target = torch.tensor([2.5, 1.0])
    _, d_q, error = q_loss(q, action, target, huber=False)
    printed = torch.zeros(2, 2).scatter_(1, action, error[:, None] / 2)  # E[(y - Q) dQ], batch of two
    torch.testing.assert_close(d_q, -2.0 * printed)
    assert d_q.tolist() == [[0.0, -0.5], [3.0, 0.0]]


@pytest.mark.parametrize("huber", [True, False])
@pytest.mark.parametrize("weighted", [True, False])
def test_the_losses_are_differentiated_as_autograd_does(huber, weighted):
    q, target = (3.0 * normal(40, 3)).requires_grad_(), 3.0 * normal(40, seed=1)
    action, weight = torch.arange(40)[:, None] % 3, normal(40, seed=2).abs() if weighted else None
    loss, d_q, error = q_loss(q, action, target, weight, huber)
    chosen = q.gather(1, action)[:, 0]
    each = torch.nn.functional.smooth_l1_loss(chosen, target, reduction="none") if huber else (target - chosen) ** 2
    expected = (each if weight is None else weight * each).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(d_q, torch.autograd.grad(expected, q)[0])
    assert (error.abs() > 1).any() and (error.abs() < 1).any()
    assert (priorities(error) > error.abs()).all()


def test_hubers_derivative_is_natures_clipped_error():
    q, target = torch.tensor([[0.0], [0.0], [0.0]]), torch.tensor([3.0, 0.25, -7.0])
    _, d_q, _ = q_loss(q, torch.zeros(3, 1, dtype=torch.int64), target)
    torch.testing.assert_close(d_q[:, 0], -torch.tensor([1.0, 0.25, -1.0]) / 3)


def test_a_dueling_head_is_value_plus_centred_advantages_and_differentiated_as_autograd_does():
    out = torch.tensor([[1.0, 2.0, 6.0, 10.0]], requires_grad=True)  # three advantages, then the value
    q = dueling(out)
    assert q.tolist() == [[8.0, 9.0, 13.0]]
    d_q = normal(1, 3)
    torch.testing.assert_close(dueling_gradient(d_q), torch.autograd.grad(q, out, d_q)[0])


def test_a_schedule_is_linear_and_then_stays():
    assert [linear_schedule(s, 1.0, 0.1, 100) for s in (0, 50, 100, 1000)] == [1.0, 0.55, 0.1, 0.1]
    assert linear_schedule(0, 1.0, 0.1, 0) == 0.1


def test_rmsprop_is_natures():
    p, m, s = 1.0, 0.0, 0.0
    tensor, averages = torch.tensor([p]), ([torch.zeros(1)], [torch.zeros(1)])
    for g in (2.0, -1.0, 0.5):
        m, s = 0.95 * m + 0.05 * g, 0.95 * s + 0.05 * g * g
        p -= 0.1 * g / math.sqrt(s - m * m + 0.01)
        centred_rmsprop_([tensor], [torch.tensor([g])], averages, 0.1, 0.01)
    assert tensor.item() == pytest.approx(p, rel=1e-6)


# ---- the networks ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layers, hidden, choices, weights",
    [(NATURE, 512, 4, 1_686_180), (NATURE, 512, 6, 1_687_206), (NATURE, 512, 18, 1_693_362),
     (NATURE_2013, 256, 4, 677_172)],
)  # fmt: skip
def test_the_networks_of_the_papers_have_as_many_weights(layers, hidden, choices, weights):
    network = QNetwork(camera_spec(choices), (hidden,), layers, False, torch.Generator(), CPU, 2)
    assert count_weights(network) == weights


def test_the_recipes_have_the_networks_of_the_papers():
    assert (nature().conv, nature().hidden) == (NATURE, (512,))
    assert (nature_2013().conv, nature_2013().hidden) == (NATURE_2013, (256,))


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize("kind", ["vector", "camera", "both"])
@pytest.mark.parametrize("small", [False, True])
@pytest.mark.parametrize("rows", [5, 9])
def test_a_network_is_differentiated_as_autograd_does(kind, dueling, small, rows, monkeypatch):
    monkeypatch.setattr(perceptron, "SMALL_LAYER", 2**13 if small else 0)
    spec = camera_spec(3, size=12, history=2)
    if kind != "camera":
        spec = replace(vector_spec(), observations={**vector_spec().observations,
                                                    **(spec.observations if kind == "both" else {})})  # fmt: skip
    conv = ((4, 4, 2), (5, 2, 1))
    network = QNetwork(spec, (7, 6), conv, dueling, torch.Generator().manual_seed(1), CPU, 9)
    assert isinstance(network.head, perceptron.SmallPerceptron) == small
    vector = None if kind == "camera" else normal(rows, 4)
    generator = torch.Generator().manual_seed(2)
    image = (
        None if kind == "vector" else torch.randint(0, 256, (rows, 12, 12, 2), generator=generator, dtype=torch.uint8)
    )
    d_q = normal(rows, 3, seed=3)
    with torch.no_grad():
        q, tape = network.recorded(vector, image)
        flat = network.gradient(tape, d_q)
        layers = [p for layer in network.head.layers for p in layer]
        every = [*layers, *(network.encoder.parameters() if network.encoder else [])]
        ours = [g.view_as(p) for g, p in zip(flat.split([p.numel() for p in every]), every, strict=True)]
        ours = [g.clone() for g in ours]
        torch.testing.assert_close(network.greedy(vector, image), q.argmax(1, keepdim=True))
        torch.testing.assert_close(network.values(vector, image), q)

    # the same network, as a reader of the paper would write it
    layers = [p.detach().requires_grad_() for p in layers]
    parts = [] if vector is None else [vector]
    if network.encoder is not None:
        parts.append(network.encoder(image))
    x = torch.cat(parts, 1)
    for w, b in zip(layers[:-2:2], layers[1:-2:2], strict=True):
        x = torch.relu(x @ w + b)
    if dueling:
        advantage = x[:, :6] @ layers[-2][:6, :3] + layers[-1][:3]
        value = x[:, 6:] @ layers[-2][6:, 3:] + layers[-1][3:]
        expected = value + advantage - advantage.mean(1, keepdim=True)
    else:
        expected = x @ layers[-2] + layers[-1]
    torch.testing.assert_close(q, expected.detach())
    every = [*layers, *(network.encoder.parameters() if network.encoder else [])]
    for mine, theirs in zip(ours, torch.autograd.grad(expected, every, d_q), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-6, rtol=1e-4)


def test_the_streams_of_a_dueling_network_stay_apart_and_the_advantages_alone_travel():
    learner = DQN(vector_spec(), replace(SMALL, dueling=True), 1, 0)
    for i in range(5):
        learner.update(random_batch(learner.spec, 6, seed=i))
    last = learner.network.head.layers[-1][0]
    assert (last[8:, :3] == 0).all() and (last[:8, 3] == 0).all() and (last[:8, :3] != 0).all()
    policy = learner.policy()
    assert [tuple(t.shape) for t in policy.tensors.values()] == [(8, 4), (8, 8), (3, 8), (8,), (8,), (3,)]
    x = normal(50, 4)
    best = learner.network.values(x, None).argmax(1)
    assert torch.equal(policy.act({"state": x}, {})[0][:, 0, 0], best)


# ---- the learner -------------------------------------------------------------------------------


def test_an_update_is_one_adam_step_on_the_loss_with_the_target_network_held():
    config = replace(SMALL, double=False, max_grad_norm=None)
    learner = DQN(vector_spec(), config, 1, 0)
    batch = random_batch(learner.spec, 6)
    twin = [p.clone().requires_grad_() for layer in learner.network.head.layers for p in layer]
    learner.target.weights.mul_(1.1)  # so that it matters which network tells the target

    def q(params, x):
        for w, b in zip(params[:-2:2], params[1:-2:2], strict=True):
            x = torch.relu(x @ w + b)
        return x @ params[-2] + params[-1]

    value = learner.target.values(batch.next_obs["state"], None).amax(1)
    y = batch.reward + 0.99 * torch.where(batch.terminated, 0.0, value)
    loss = torch.nn.functional.smooth_l1_loss(q(twin, batch.obs["state"]).gather(1, batch.action)[:, 0], y)
    optimizer = torch.optim.Adam(twin, lr=config.learning_rate)
    loss.backward()
    optimizer.step()
    metrics = learner.update(batch)
    torch.testing.assert_close(metrics["critic/loss"], loss.detach())
    for mine, theirs in zip((p for layer in learner.network.head.layers for p in layer), twin, strict=True):
        torch.testing.assert_close(mine, theirs.detach(), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [{}, {"double": False}, {"loss": "squared", "max_grad_norm": None}, {"max_grad_norm": 1e-3}, {"normalize_obs": True},
     {"target_network": False}, {"prioritized": True}],
)  # fmt: skip
@pytest.mark.parametrize("rows", [6, 4])
def test_the_update_in_numpy_is_the_one_in_torch(change, rows, monkeypatch):
    learners = []
    for small in (True, False):
        monkeypatch.setattr(perceptron, "SMALL_LAYER", 2**13 if small else 0)
        learner = DQN(vector_spec(), replace(SMALL, **change), 1, 0)
        assert learner._small == small
        learners.append(learner)
    for i in range(4):  # so that networks and targets come apart
        fields = {"steps": torch.arange(rows) % 3 + 1, "weight": normal(rows, seed=9).abs()} if i % 2 else {}
        batch = random_batch(learners[0].spec, rows, seed=10 * i, **fields)
        if change.get("normalize_obs"):
            for learner in learners:
                learner.act(batch.obs, {})
        one, other = (learner.update(batch) for learner in learners)
        assert one.keys() == other.keys()
        for name, value in one.items():
            assert value.dtype == other[name].dtype and value.shape == other[name].shape
            torch.testing.assert_close(value, other[name], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(learners[0].network.weights, learners[1].network.weights, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_scaled_down_to_its_bound():
    bounded, free = (
        DQN(vector_spec(), replace(SMALL, max_grad_norm=b, optimizer="rmsprop"), 1, 0) for b in (1e-3, None)
    )
    batch = random_batch(bounded.spec, 6)
    bounded.update(batch), free.update(batch)
    norm = bounded.moments[0][0].norm() / 0.05  # the first average is a twentieth of the gradient
    assert norm.item() == pytest.approx(1e-3, rel=1e-3)
    torch.testing.assert_close(bounded.moments[0][0] / bounded.moments[0][0].norm(),
                               free.moments[0][0] / free.moments[0][0].norm())  # fmt: skip


def test_a_loss_that_is_not_a_number_is_seen_in_the_metrics():
    learner = DQN(vector_spec(), SMALL, 1, 0)
    batch = random_batch(learner.spec, 6)
    batch.reward[2] = math.nan
    assert learner.update(batch)["critic/loss"].isnan()
    assert learner.network.weights.isnan().any()


def test_an_annealed_step_size_is_nothing_at_the_planned_end():
    learner = DQN(vector_spec(), replace(SMALL, anneal=True), 1, 0, planned_steps=100)
    moved = []
    for steps in (0, 50, 100):
        twin = DQN(vector_spec(), replace(SMALL, anneal=True), 1, 0, planned_steps=100)
        twin.steps = steps
        twin.update(random_batch(twin.spec, 6))
        moved.append((twin.network.weights - learner.network.weights).abs().max().item())
    assert moved[0] == pytest.approx(2 * moved[1], rel=1e-3) and moved[2] == 0.0


def test_the_target_network_is_copied_every_so_many_updates():
    learner = DQN(vector_spec(), SMALL, 1, 0)
    same = []
    for i in range(7):
        learner.update(random_batch(learner.spec, 6, seed=i))
        same.append(torch.equal(learner.network.weights, learner.target.weights))
    assert same == [False, False, True, False, False, True, False]


def test_with_tau_the_target_network_follows_slowly():
    learner = DQN(vector_spec(), replace(SMALL, tau=0.25), 1, 0)
    before = learner.target.weights.clone()
    learner.update(random_batch(learner.spec, 6))
    torch.testing.assert_close(learner.target.weights, before + 0.25 * (learner.network.weights - before))


def test_algorithm_1_takes_its_targets_from_the_network_itself():
    learner = DQN(vector_spec(), replace(SMALL, target_network=False, loss="squared", double=False), 1, 0)
    learner.target.weights.fill_(math.nan)  # nobody reads it
    assert all(math.isfinite(v) for v in learner.update(random_batch(learner.spec, 6)).values())


def test_only_termination_cuts_the_bootstrap():
    learner = DQN(vector_spec(), replace(SMALL, double=False), 1, 0)
    batch = random_batch(learner.spec, 6)
    losses = []
    for ended in (batch.terminated, batch.terminated | batch.truncated):
        q = learner.network.values(batch.obs["state"], None).gather(1, batch.action)[:, 0]
        value = learner.network.values(batch.next_obs["state"], None).amax(1)
        y = torch.where(ended, batch.reward, batch.reward + 0.99 * value)
        losses.append(torch.nn.functional.smooth_l1_loss(q, y))
    loss = learner.update(batch)["critic/loss"]
    torch.testing.assert_close(loss, losses[0])
    assert abs(loss - losses[1]) > 1e-3


def test_a_batch_of_n_step_rows_is_discounted_by_its_own_counts():
    config = replace(SMALL, target_network=False, double=False)
    one, other = (DQN(vector_spec(), config, 1, 0) for _ in range(2))
    steps = torch.tensor([3, 1, 2, 3, 3, 1])
    batch = random_batch(one.spec, 6, steps=steps)
    q = one.network.values(batch.next_obs["state"], None).amax(1)
    shifted = replace(batch, steps=None, reward=batch.reward + (0.99**steps - 0.99) * q * ~batch.terminated)
    torch.testing.assert_close(one.update(batch)["critic/loss"], other.update(shifted)["critic/loss"])


def test_priorities_are_the_errors_and_weights_scale_the_loss():
    config = replace(SMALL, prioritized=True, double=False)
    one, other = (DQN(vector_spec(), config, 1, 0) for _ in range(2))
    batch = random_batch(one.spec, 6)
    plain, half = one.update(batch), other.update(replace(batch, weight=torch.full((6,), 0.5)))
    torch.testing.assert_close(half["critic/loss"], 0.5 * plain["critic/loss"])
    torch.testing.assert_close(half["priorities"], plain["priorities"])
    assert (plain["priorities"] > 0).all() and plain["priorities"].shape == (6,)


def test_the_importance_weights_are_whole_at_the_planned_end():
    learner = DQN(vector_spec(), replace(SMALL, prioritized=True, n_step=3), 1, 0, planned_steps=1000)
    assert (learner.request.importance, learner.request.priority) == (0.4, 0.6)
    assert (learner.request.n_step, learner.request.discount) == (3, 0.99)
    learner.steps = 500
    assert learner.request.importance == pytest.approx(0.7)
    learner.steps = 2000
    assert learner.request.importance == 1.0


def test_epsilon_is_one_before_learning_then_falls_over_its_share_of_the_run():
    learner = DQN(vector_spec(), replace(SMALL, epsilon_fraction=0.5, epsilon_end=0.1), 1, 0, planned_steps=1000)
    seen = []
    for steps in (0, 7, 8, 258, 508, 900):
        learner.steps = steps
        seen.append(learner.epsilon)
    assert seen == pytest.approx([1.0, 1.0, 1.0, 0.55, 0.1, 0.1])
    absolute = DQN(vector_spec(), replace(SMALL, epsilon_steps=100, epsilon_end=0.1), 1, 0, planned_steps=1000)
    absolute.steps = 58
    assert absolute.epsilon == pytest.approx(0.55)


def test_actions_are_random_as_often_as_epsilon_says():
    learner = DQN(vector_spec(), replace(SMALL, epsilon_steps=0, epsilon_end=0.3), 1, 0)
    learner.steps = 8
    obs = {"state": normal(1, 4).expand(20_000, 4)}
    action, extras, _ = learner.act(obs, {})
    assert action.shape == (20_000, 1) and action.dtype == torch.int64 and extras == {}
    best = learner.network.values(obs["state"][:1], None).argmax()
    assert (action == best).double().mean().item() == pytest.approx(0.7 + 0.3 / 3, abs=0.02)


def test_rewards_are_scaled_and_bounded_before_they_are_summed():
    learner = DQN(vector_spec(), replace(SMALL, reward_clip=1.0, reward_scale=2.0), 2, 0)
    buffer = learner.make_buffer()
    obs, no = {"state": torch.zeros(2, 4)}, torch.zeros(2, dtype=torch.bool)
    for reward in (5.0, -3.0, 0.5):
        step = Step(obs, obs, torch.tensor([reward, 0.25]), no, no)
        buffer.add(obs, torch.zeros(2, 1, dtype=torch.int64), {}, step)
    batch = buffer.sample(replace(learner.request, batch_size=0), np.random.default_rng(0))
    assert set(batch.reward.tolist()) == {1.0, -1.0, 0.5}
    assert step.reward.tolist() == [0.5, 0.25]


# ---- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change, message",
    [({"learning_rate": math.nan}, "learning_rate = nan"), ({"batch_size": 128, "capacity": 64}, "capacity = 64"),
     ({"epsilon_end": 1.5}, "epsilon_end = 1.5"), ({"tau": 0.0}, "tau = 0.0"), ({"n_step": 0}, "n_step = 0"),
     ({"conv": "[8,4]"}, "conv"), ({"optimizer": "sgd"}, "optimizer"), ({"target_every": 0}, "target_every = 0"),
     ({"capacity": 500, "learning_starts": 600}, "learning_starts = 600"), ({"max_grad_norm": math.inf}, "inf")],
)  # fmt: skip
def test_settings_that_cannot_be_are_refused(change, message):
    with pytest.raises(UsageError, match=message):
        recipe("dqn", None, change)


def test_tasks_that_a_q_network_cannot_serve_are_refused_in_one_line():
    continuous = Spec(vector_spec().observations, (ActionTerm("a", "control", low=(-1.0,), high=(1.0,)),), 0.1)
    two = Spec(vector_spec().observations, (ActionTerm("a", "discrete", n=2), ActionTerm("b", "discrete", n=2)), 0.1)
    cameras = Spec({"left": camera_spec(2).observations["camera"], "right": camera_spec(2).observations["camera"]},
                   camera_spec(2).actions, 0.1)  # fmt: skip
    for spec, config, message in [
        (continuous, SMALL, "continuous; use ppo or sac"), (two, SMALL, "several choices at once"),
        (camera_spec(2), SMALL, "dqn/nature"), (cameras, replace(SMALL, conv=NATURE), "one camera, .* left, right"),
        (camera_spec(2, size=12), replace(SMALL, conv=NATURE), "a kernel of 4 meets a picture of 2 x 2"),
    ]:  # fmt: skip
        with pytest.raises(UsageError, match=message):
            DQN(spec, config, 1, 0)


def test_sequences_are_refused():
    learner = DQN(vector_spec(), SMALL, 1, 0)
    with pytest.raises(UsageError, match="single transitions"):
        learner.update(replace(random_batch(learner.spec, 6), mask=torch.ones(6, dtype=torch.bool)))
