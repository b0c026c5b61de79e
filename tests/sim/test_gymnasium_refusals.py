"""The gym: adapter: actions, names, spaces and declarations that do not fit are refused with a reason."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorWrapper

from poise.errors import PoiseError, SpecError, UsageError
from poise.sim.gymnasium_adapter import make_gym

from .counters import SLOW, Counter, Shapes, worlds

pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(2), r"shape \(2, 1\), got \(2,\)"),
        (torch.tensor([[0.0], [1.5]]), r"\[-1, 1\]; world 1 was given 1.5 at index 0"),
        (torch.tensor([[float("nan")], [0.0]]), "world 0 was given nan"),
    ],
)
def test_an_action_that_does_not_fit_is_refused(action, message):
    env = make_gym("PoiseCounter-v0", 2)
    env.reset(0)
    with pytest.raises(SpecError, match=message):
        env.step(action)


@pytest.mark.parametrize("action", [torch.tensor([[2]]), torch.tensor([[-1]]), torch.tensor([[0.5]])])
def test_a_choice_that_does_not_exist_is_refused(action):
    env = make_gym("PoiseSignpost-v0", 1)
    env.reset(0)
    with pytest.raises(SpecError, match="whole numbers from 0 to 1"):
        env.step(action)


def test_stepping_before_reset_is_refused():
    with pytest.raises(PoiseError, match="call reset first"):
        make_gym("PoiseCounter-v0", 1).step(torch.zeros(1, 1))


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("HalfChetah-v5", "did you mean HalfCheetah-v5"),
        ("CartPole-v7", "did you mean CartPole-v1"),
        ("FetchReach-v4", r"pip install 'poise\[robotics\]'"),
        ("zoo/Lion-v0", "install the package that provides zoo/.*gym:MODULE:zoo/Lion-v0"),
        ("Qqqqqqq-v0", "gym:MODULE:Qqqqqqq-v0"),
        ("no_such_module:Lion-v0", "No module named 'no_such_module'"),
        ("not an id", "Malformed"),
    ],
)
def test_an_unknown_id_says_what_to_do(id, message, monkeypatch):
    gymnasium.registry.pop("FetchReach-v4", None)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as where it is not installed
    with pytest.raises(UsageError, match=message):
        make_gym(id, 1)


def test_no_worlds_are_refused():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        make_gym("PoiseCounter-v0", 0)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (
            spaces.Dict(a=spaces.Tuple([Counter.observation_space])),
            Counter.action_space,
            r"observation space Tuple\(Box.* not supported",
        ),
        (spaces.Box(0, 255, (4, 8, 8, 3), np.uint8), Counter.action_space, r"\(4, 8, 8, 3\).* not supported"),
        (Counter.observation_space, spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (Counter.observation_space, spaces.Box(-1, np.inf, (2,)), "unbounded"),
        (Counter.observation_space, spaces.Box(0, 1, (2, 2)), r"action space Box\(0.0, 1.0, \(2, 2\)"),
        (Counter.observation_space, spaces.MultiDiscrete([2, 2]), r"action space MultiDiscrete\(\[2 2\]\)"),
        (Counter.observation_space, spaces.Discrete(1), "leaves no choice"),
    ],
)
def test_spaces_that_are_not_supported_are_named(observation, action, message):
    gymnasium.register("PoiseShapes-v0", Shapes, kwargs={"observation": observation, "action": action})
    with pytest.raises(UsageError, match=message):
        make_gym("PoiseShapes-v0", 1)


class Declares(VectorWrapper):
    """A VectorEnv whose metadata says something else than it does."""

    def __init__(self, env, mode):
        super().__init__(env)
        self.metadata = {"autoreset_mode": mode}


def test_a_vector_env_must_declare_how_it_resets():
    with pytest.raises(UsageError, match=r"autoreset_mode.*found None"):
        worlds(AutoresetMode.DISABLED, wrap=lambda env: Declares(env, None))


@pytest.mark.parametrize(
    ("does", "says"),
    [(AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP), (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)],
)
def test_a_false_declaration_is_found_out_at_the_first_end(does, says):
    env = worlds(does, wrap=lambda env: Declares(env, says))
    env.reset(0)
    with pytest.raises(PoiseError, match=f"declares auto-reset mode {says.name}.*correct its metadata"):
        for _ in range(4):
            env.step(torch.full((2, 1), SLOW))
