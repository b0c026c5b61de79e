"""Scripted experts: they solve their tasks, through the same actions and limits as a policy."""

import json
import sys

import numpy as np
import pytest

from poise.action import joint_pos_target
from poise.cli import main
from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.policies.evaluate import evaluate
from poise.policies.expert_policy import ExpertPolicy
from poise.policies.view_player import Player
from poise.robots import ROBOTS
from poise.sim.experts import tool_motion
from poise.sim.experts.expert import expert
from poise.sim.experts.tool_motion import ToolMotion, cube_yaw, turned_down
from poise.sim.tasks.push import Push
from poise.sim.tasks.tabletop import DOWNWARD

TASK = Push()


EVERY = ["push/fr3", "push/ur5e", "push/so101", *(f"lift/{robot}" for robot in ROBOTS), "pick-place/fr3", "reach/ur5e"]


@pytest.mark.parametrize("name", EVERY)
def test_an_expert_succeeds(name):
    score = evaluate(ExpertPolicy(name), name, episodes=8, seed=5, threads=1)
    assert score.success_rate is not None and score.success_rate >= 0.8


def test_an_expert_copes_with_the_default_randomization():
    score = evaluate(ExpertPolicy("lift/fr3"), "lift/fr3", episodes=10, randomize="default", threads=1)
    assert score.success_rate is not None and score.success_rate >= 0.9


def test_actions_of_a_motion_bring_the_tool_where_it_should_be():
    term = TASK.spec.actions[0]
    motion = ToolMotion(TASK.robot, term, TASK.start_pose)
    goals = np.array([[0.5, 0.1, 0.1], [0.6, -0.2, 0.2]])
    rotation = turned_down(DOWNWARD, np.array([0.3, -0.4]))
    target = np.tile(TASK.start_pose, (2, 1))
    for _ in range(60):
        action = motion.actions(target, goals, rotation, 0.03)
        assert np.abs(action).max() <= 1.0
        before = forward_kinematics(TASK.robot, target)[0]
        target = joint_pos_target(term, action, target, target)
        assert np.linalg.norm(forward_kinematics(TASK.robot, target)[0] - before, axis=1).max() < 0.04
    resting = np.array([q - motion._sag(q) for q in target])  # where gravity lets the arm hang
    position, turned = forward_kinematics(TASK.robot, resting)
    np.testing.assert_allclose(position, goals, atol=1e-3)
    np.testing.assert_allclose(turned, rotation, atol=2e-2)


def test_the_yaw_of_a_cube_is_within_an_eighth_of_a_turn():
    for degrees, wanted in ((0, 0), (30, 30), (44, 44), (46, -44), (90, 0), (200, 20), (-100, -10)):
        half = np.radians(degrees) / 2
        quat = np.array([[np.cos(half), 0, 0, np.sin(half)]])
        assert np.degrees(cube_yaw(quat))[0] == pytest.approx(wanted, abs=1e-9)


def test_a_task_without_an_expert_is_refused_with_those_that_have_one():
    with pytest.raises(UsageError, match=r"no scripted expert of reach/planar.*lift/"):
        expert("reach/planar")


def test_without_mink_one_line_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "mink", None)
    with pytest.raises(UsageError, match=r"pip install 'poise\[experts\]'"):
        tool_motion.require_mink()


def test_poise_eval_takes_the_word_expert(capsys):
    assert main(["eval", "expert", "--task", "lift/fr3", "--episodes", "4", "--json"]) == 0
    score = json.loads(capsys.readouterr().out.splitlines()[-1])["eval"]
    assert score["episodes"] == 4 and score["success_rate"] >= 0.75
    assert main(["eval", "expert"]) == 2 and "an expert needs its task" in capsys.readouterr().err


def test_an_expert_can_be_watched_in_the_viewer():
    player = Player("lift/fr3", ExpertPolicy("lift/fr3"), seed=3, randomize="none")
    while not player.ended:
        player.step(player.policy_action())
    assert player.results[0][2]
    player.close()
