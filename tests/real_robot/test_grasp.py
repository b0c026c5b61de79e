"""Grasping through the whole stack: a scripted expert's actions, the control loop, drivers, wires, and a cube."""

import json
import os

import numpy as np
import pytest

from poise.cli import main
from poise.datasets.episodes import EpisodeFile
from poise.errors import SpecError, UsageError
from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, write_policy
from poise.real_robot.deploy import _episode, _key, deploy
from poise.real_robot.drivers import driver_at
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.external import External
from poise.real_robot.replay import replay_on
from poise.real_robot.robot import Robot
from poise.robots import FR3
from poise.sim.experts.expert import expert
from poise.sim.make import load_task
from poise.sim.task import State


class ExpertRunner:
    """A scripted expert where a policy is expected: it looks at the scene's true state, as experts do."""

    def __init__(self, task, driver, memory):
        self.spec, self._driver, self._memory = task.spec.for_policy_file(), driver, memory
        self._expert, self._where = expert(task), self.spec.slices("state")
        self.obs = []

    def initial_state(self, n):
        return {}

    def act(self, obs, state):
        truth, seen = self._driver.truth(), obs["state"][0].astype(float)
        self.obs.append(seen)
        target = seen[self._where["joint_pos"]] + seen[self._where["target_error"]]
        now = np.array([0.05 * (len(self.obs) - 1)])
        return self._expert.act(State(now, truth["qpos"][None], truth["qvel"][None], {"arm": target[None]}, {},
                                      self._memory))[:, None], state  # fmt: skip


def grasped(name, address, episode=0):
    """One episode of the task on the arm at an address: result, what the expert saw, counts of verdicts."""
    task, driver, key = load_task(name), driver_at(address), _key(0, episode)
    with Robot(driver) as arm:
        runner = ExpertRunner(task, driver, task.reset(key, {})[2])
        result = _episode(arm, runner, runner.spec, task, key, True, {"task": name}, None)
        return result, runner, arm.status()["counts"]


ERROR = "&latency=0.02&mass=1.1&damping=1.1&gain=0.9"


@pytest.mark.parametrize(("task", "address"), [("lift/fr3", f"twin:fr3?task=lift/fr3{ERROR}"),
                                               ("lift/ur5e", "twin:ur5e?task=lift/ur5e"),
                                               ("drawer/fr3", "twin:fr3?task=drawer/fr3")])  # fmt: skip
def test_an_expert_s_actions_do_on_the_twin_what_they_do_in_simulation(task, address):
    result, runner, counts = grasped(task, address)
    assert result["success"]
    assert counts["out_of_limit"] == counts["rejected"] == counts["clipped"] == 0
    cube, tool = (np.array(runner.obs)[:, runner._where[name]] for name in ("object_pos", "tool_pos"))
    np.testing.assert_allclose(np.array(runner.obs)[:, runner._where["object_from_tool"]], cube - tool, atol=1e-6)


@pytest.mark.parametrize(("arm", "task", "more"), [("xarm7", "lift/xarm7", "&gripper=1"), ("so101", "lift/so101", ""),
                                                   ("vx300s", "pick-place/vx300s", ""), ("ur5e", "push/ur5e", "")])  # fmt: skip
def test_it_does_over_its_vendor_s_wire(arm, task, more):
    place = {"host": "127.0.43.1"} if arm in ("xarm7", "ur5e") else {}
    with start_emulator(arm, virtual=True, task=task, **place) as device:
        result, runner, counts = grasped(task, device.address + more)
        assert result["success"] and counts["rejected"] == 0
        assert device.side_line.ask("counters")["told"] == []
        if more or arm != "ur5e":
            fingers = np.array(runner.obs)[:, runner._where["gripper_pos"]]
            assert np.ptp(fingers) > 0.3 * abs(driver_at(device.address + more).robot.gripper.open)


def written(path, spec, task):
    """A policy that does nothing but hold the gripper half open."""
    network = {"kind": "mlp", "groups": ["state"], "hidden": [4], "activation": "elu", "head": "tanh"}
    tensors = {k: np.zeros(s, np.float32) for k, s in expected_tensors(spec, network).items()}
    write_policy(path, PolicyFile(spec, "x", network, tensors, {"task": task}))
    return str(path)


@pytest.fixture(scope="module")
def still(tmp_path_factory):
    path = tmp_path_factory.mktemp("grasp") / "still.safetensors"
    return written(path, load_task("lift/fr3").spec.for_policy_file(), "lift/fr3")


def test_a_deployment_records_the_whole_action_and_replays_it(still, tmp_path, capsys):
    out = str(tmp_path / "out.hdf5")
    assert main(["deploy", still, "--robot", "twin:fr3", "--episodes", "2", "--record", out, "--json"]) == 0
    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert summary["robot"] == "twin:fr3?task=lift/fr3" and summary["success_rate"] == 0.0
    assert summary["out_of_limit"] == summary["rejected"] == 0
    assert main(["data", "check", out]) == 0
    with EpisodeFile(out) as file:
        episode, where = file["demo_1"], file.spec.slices("state")
        assert episode["actions"].shape == (75, 8) and (episode["actions"] == 0.0).all()
        assert episode["gripper_target"].tolist() == pytest.approx([0.02] * 75)
        seen = episode["obs"]["state"]
        assert seen[0, where["gripper_pos"]] == pytest.approx(0.04, abs=2e-3), "it starts open"
        assert seen[-1, where["gripper_pos"]] == pytest.approx(0.02, abs=2e-3)
        start = load_task("lift/fr3").reset(_key(0, 1), {})[0][0]
        np.testing.assert_allclose(seen[0, where["object_pos"]], start[-7:-4], atol=2e-3)
    with Robot("twin:fr3", in_process=True) as robot:
        (done,) = replay_on(out, robot, ["demo_1"])
        assert done.fault == "" and done.divergence.max() < 0.01
        assert robot.read().gripper_pos == pytest.approx(0.02, abs=2e-3)


def test_what_nobody_tells_or_allows_is_refused_before_anything_moves(still):
    with pytest.raises(SpecError, match="state/object_pos: not available here"):
        deploy(still, "franka:127.0.0.1")
    with pytest.raises(SpecError, match=r"works down to 0.0095 m.*keep the tool above 0.04 m.*add lowest=0.0095"):
        deploy(still, f"ros2:fr3?gripper=g&emulator=127.0.0.1:{os.getpid()}")
    with pytest.raises(SpecError, match="the policy moves a gripper, and this fr3 has none"):
        deploy(still, "twin:fr3?task=drawer/fr3")
    with pytest.raises(SpecError, match="the scene of this arm has a state of 11 numbers, expected the 16"):
        External(load_task("lift/fr3"), {"joint_pos": np.zeros(7), "qpos": np.zeros(11)}, {})
    with pytest.raises(
        SpecError, match=r"which nobody tells here; a twin with its scene does: twin:fr3\?task=lift/fr3"
    ):
        External(load_task("lift/fr3?camera=front"), {}, {})
    with pytest.raises(UsageError, match="the scene of lift/so101 is for 'so101', this is 'fr3'"):
        driver_at("twin:fr3?task=lift/so101")
    with pytest.raises(UsageError, match="lowest=deep: expected a height"):
        driver_at("twin:fr3?lowest=deep")
    with Robot("twin:fr3", in_process=True) as robot, pytest.raises(UsageError, match="arranging a scene takes task="):
        robot.arrange(np.zeros(16))


def test_lowest_moves_the_floor_of_the_box_and_nothing_else():
    low = driver_at("twin:fr3?lowest=0.01").robot
    assert low.workspace_low == (*FR3.workspace_low[:2], pytest.approx(-0.01)) and low.joints == FR3.joints
