"""gymnasium-robotics through the gym: adapter: one task of each of its families, with nothing to set."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import UsageError
from poise.keyed import Stream
from poise.sim.gymnasium_adapter import make_gym


@pytest.mark.parametrize(
    ("id", "longest"),
    [
        ("FetchReach-v4?max_episode_steps=6", 16),
        ("AdroitHandPen-v1?max_episode_steps=6", 16),
        ("PointMaze_UMaze-v3?max_episode_steps=6", 16),
        ("AntMaze_UMaze-v5?max_episode_steps=6", 16),
        ("HandReach-v3", 10),
        ("FrankaKitchen-v1", 4),
    ],
)
def test_every_family_keeps_the_contract_of_a_vec_env(id, longest):
    check_vec_env(lambda n: make_gym(id, n), longest)


def test_a_goal_environment_gives_state_goal_and_achieved_goal_and_its_success():
    env, plain = make_gym("PointMaze_UMaze-v3", 1), gymnasium.make("PointMaze_UMaze-v3")
    obs, (expected, _) = env.reset(2), plain.reset(seed=int(Stream(2, "gym/episode").integer(0, 0)[0]))
    assert list(env.spec.observations) == ["state", "goal", "achieved_goal"]
    assert env.spec.vectors == ("state", "goal"), "what a policy reads"
    assert env.spec.observations["goal"][0].source == "goal"
    for group, key in (("state", "observation"), ("goal", "desired_goal"), ("achieved_goal", "achieved_goal")):
        np.testing.assert_array_equal(obs[group][0], np.float32(expected[key]))
    plain.unwrapped.goal = env.first.goal = expected["achieved_goal"].copy()
    step, info = env.step(torch.zeros(1, 2)), plain.step(np.zeros(2, np.float32))[-1]
    assert step.success.tolist() == [True] == [info["success"]]


def test_where_the_observation_hides_the_place_a_policy_sees_it_all_the_same():
    env = make_gym("AntMaze_UMaze-v5", 1)
    obs = env.reset(0)
    assert env.spec.slices("state") == {"achieved_goal": slice(0, 2), "observation": slice(2, 107)}
    assert torch.equal(obs["state"][:, :2], obs["achieved_goal"])


def test_the_goals_of_the_kitchen_are_named_each():
    env = make_gym('FrankaKitchen-v1?tasks_to_complete=["kettle","microwave"]', 1)
    assert env.spec.slices("goal") == {"desired_goal/kettle": slice(0, 7), "desired_goal/microwave": slice(7, 8)}
    env.reset(0)
    assert env.step(torch.zeros(1, 9)).success is None


def test_it_is_silent_in_this_process_and_in_workers():
    code = """
import torch, poise
for name in ("gym:AdroitHandPen-v1", "gym:AntMaze_UMaze-v5?workers=1"):
    env = poise.make(name, 1)
    env.reset(0)
    env.step(torch.zeros(1, env.spec.action_dim))
    env.close()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_the_package_one_line_says_how_to_get_it(monkeypatch):
    for id in ("FrankaKitchen-v1", "AntMaze_UMaze-v5"):
        monkeypatch.delitem(gymnasium.registry, id, raising=False)
        monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)
        with pytest.raises(UsageError, match=r"^[^\n]*pip install 'poise\[robotics\]'$"):
            make_gym(id, 1)
