"""Every kind of network with every head and history: torch, the file and the numpy runner act alike."""

import numpy as np
import pytest
import torch

from conformance_policy import DiscreteDrift, DiscreteImageDrift, Drift, ImageDrift, check_policy
from poise.policies.network_document import expected_tensors
from poise.policies.policy import Policy
from poise.policies.policy_file import PolicyFile
from poise.policies.runner import Runner
from poise.spec import ActionTerm, ObsTerm, Spec

CONV = {"group": "camera", "layers": [[6, 4, 2], [8, 3, 2]], "activation": "relu"}
KINDS = {  # groups and what a network is made of beside a perceptron
    "mlp": {"groups": ["state", "goal"], "normalizer_clip": 5.0},
    "layer norm": {"groups": ["goal", "state"], "norm": "layer", "activation": "silu"},
    "linear": {"groups": ["state"], "hidden": []},
    "lstm": {"groups": ["state"], "normalizer_clip": 5.0, "lstm": 7, "activation": "tanh"},
    "conv": {"groups": [], "conv": CONV, "activation": "relu"},
    "drq": {"groups": ["state"], "conv": {**CONV, "features": 9}, "norm": "layer"},
    "conv lstm": {"groups": ["state", "goal"], "conv": CONV, "lstm": 6, "hidden": [], "normalizer_clip": 5.0},
}


def spec(head: str, history: int, action_horizon: int = 1) -> Spec:
    groups = {
        "state": (ObsTerm("position", (3,), history=history), ObsTerm("velocity", (2,), history=history)),
        "goal": (ObsTerm("target", (2,)),),
        "camera": (ObsTerm("view", (11, 13, 3), "camera", dtype="uint8", history=history),),
        "unread": (ObsTerm("noise", (4,), history=2),),
        "privileged": (ObsTerm("mass", (1,)),),
    }
    motor = ActionTerm("motor", "control", low=(-1.0,) * 3, high=(1.0,) * 3)
    choice = ActionTerm("choice", "discrete", n=4)
    return Spec(groups, (choice if head == "argmax" else motor,), 0.05, action_horizon)


def random_policy(spec: Spec, network: dict, seed: int = 0) -> PolicyFile:
    """A policy with weights of the size that learning leaves, and what it saw normalized with a mean and deviation."""
    rng = np.random.default_rng(seed)
    shapes = expected_tensors(spec, network)
    tensors = {k: (rng.normal(size=s) / np.prod(s[1:]) ** 0.5).astype(np.float32) for k, s in shapes.items()}
    for name in tensors:
        if name.endswith((".std", "norm.weight")):
            tensors[name] = 0.5 + np.abs(tensors[name])
    return PolicyFile(spec, "example", network, tensors)


@pytest.mark.parametrize("history", [1, 3])
@pytest.mark.parametrize("head", ["tanh", "clip", "argmax", "mixture"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_policy_acts_alike_everywhere(kind, head, history, tmp_path):
    network = {"kind": "mlp", "hidden": [16, 8], "activation": "elu", "head": head, **KINDS[kind]}
    network |= {"modes": 4} if head == "mixture" else {}
    policy = Policy.of(random_policy(spec(head, history), network))
    check_policy(policy, tmp_path)
    state = policy.initial_state(2)
    assert ("lstm.h" in state) == ("lstm" in network)
    read = {
        f"history.{g}"
        for g in ("state", "camera")
        if history > 1 and g in [*network["groups"], *("conv" in network) * ["camera"]]
    }
    assert {name for name in state if name.startswith("history")} == read, "frames are kept of the groups it reads"


@pytest.mark.parametrize("head", ["tanh", "argmax"])
def test_a_chunk_is_the_outputs_one_action_after_the_other(head, tmp_path):
    network = {"kind": "mlp", "groups": ["state"], "hidden": [], "activation": "elu", "head": head}
    file = random_policy(spec(head, 1, action_horizon=3), network)
    check_policy(Policy.of(file), tmp_path)
    obs = np.ones((1, 5), np.float32)
    outputs = (obs @ file.tensors["actor.0.weight"].T + file.tensors["actor.0.bias"]).reshape(3, -1)
    chunk, _ = Runner(file).act({"state": obs}, {})
    expected = np.tanh(outputs) if head == "tanh" else outputs.argmax(1)[:, None]
    np.testing.assert_allclose(chunk[0], expected, atol=1e-6)


def test_a_mixture_acts_by_the_mean_of_its_largest_weight(tmp_path):
    network = {"kind": "mlp", "groups": ["goal"], "hidden": [], "activation": "elu", "head": "mixture", "modes": 2}
    ways = Spec({"goal": (ObsTerm("g", (1,)),)}, (ActionTerm("a", "control", low=(-1.0,) * 3, high=(1.0,) * 3),), 0.1)
    weight = np.zeros((8, 1), np.float32)
    weight[7] = 1.0  # the goal is the logit of the second mean; the first has 0.5
    bias = np.array([0.1, 0.2, 0.3, -1.0, -2.0, -3.0, 0.5, 0.0], np.float32)
    file = PolicyFile(ways, "example", network, {"actor.0.weight": weight, "actor.0.bias": bias})
    for goal, mean in ((0.4, [0.1, 0.2, 0.3]), (0.6, [-1.0, -2.0, -3.0])):
        chunk, _ = Runner(file).act({"goal": np.full((1, 1), goal, np.float32)}, {})
        np.testing.assert_allclose(chunk[0, 0], np.tanh(mean), atol=1e-6)
    check_policy(Policy.of(file), tmp_path)


def test_a_history_is_stacked_oldest_first_from_zeros_and_then_normalized():
    network = {
        "kind": "mlp",
        "groups": ["goal", "state"],
        "hidden": [],
        "activation": "elu",
        "head": "clip",
        "normalizer_clip": 9.0,
    }
    seen = Spec({"goal": (ObsTerm("g", (1,)),), "state": (ObsTerm("x", (1,), history=2),)}, Drift.spec.actions, 0.1)
    weight = np.array([[0.1, 0.0, 0.0], [0.0, 0.01, 0.001]], np.float32)
    tensors = {"actor.0.weight": weight, "actor.0.bias": np.zeros(2, np.float32),
               "normalizer.mean": np.array([1.0, 2.0, 3.0], np.float32), "normalizer.std": np.array([1.0, 0.5, 0.25], np.float32)}  # fmt: skip
    runner = Runner(PolicyFile(seen, "example", network, tensors))
    state = runner.initial_state(1)
    for x, expected in ((4.0, [0.1, -0.04 + 0.004]), (5.0, [0.1, 0.04 + 0.008])):
        chunk, state = runner.act(
            {"goal": np.full((1, 1), 2.0, np.float32), "state": np.full((1, 1), x, np.float32)}, state
        )
        np.testing.assert_allclose(chunk[0, 0], expected, atol=1e-6)


def test_an_lstm_remembers_what_it_was_built_to():
    # c adds up tanh(x) with gates wide open: after three steps of x = 0.5 it holds 3 tanh(0.5)
    network = {"kind": "mlp", "groups": ["state"], "hidden": [], "activation": "elu", "head": "tanh", "lstm": 1}
    seen = Spec({"state": (ObsTerm("x", (1,)),)}, (ActionTerm("a", "control", low=(-1.0,), high=(1.0,)),), 0.1)
    tensors = {"lstm.weight_ih": np.array([[0], [0], [1], [0]], np.float32), "lstm.weight_hh": np.zeros((4, 1), np.float32),
               "lstm.bias": np.array([50, 50, 0, 50], np.float32),
               "actor.0.weight": np.ones((1, 1), np.float32), "actor.0.bias": np.zeros(1, np.float32)}  # fmt: skip
    runner = Runner(PolicyFile(seen, "example", network, tensors))
    state = runner.initial_state(1)
    for step in (1, 2, 3):
        chunk, state = runner.act({"state": np.full((1, 1), 0.5, np.float32)}, state)
        assert state["lstm.c"][0, 0] == pytest.approx(step * np.tanh(0.5), abs=1e-6)
        assert chunk[0, 0, 0] == pytest.approx(np.tanh(np.tanh(step * np.tanh(0.5))), abs=1e-6)


@pytest.mark.parametrize("world", [Drift, DiscreteDrift, ImageDrift, DiscreteImageDrift])
def test_the_worlds_of_the_conformance_suite_show_what_their_spec_says(world):
    env = world()
    obs = env.reset(0)
    env.spec.check(obs)
    assert {g: str(x.dtype) for g, x in obs.items()} == {
        g: f"torch.{terms[0].dtype}" for g, terms in env.spec.observations.items()
    }
    action = torch.zeros(4, env.spec.action_dim, dtype=torch.int64 if env.spec.discrete else torch.float32)
    ended = 0
    for _ in range(20):
        step = env.step(action)
        env.spec.check(step.next_obs)
        ended += int(step.done.sum())
    assert ended >= 8
    if "camera" in obs:
        assert (step.obs["camera"] == 255).flatten(1).any(1).all(), "the spot is always in view"
