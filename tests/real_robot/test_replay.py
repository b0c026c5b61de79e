"""A recording on the arm it was made on, on another one, and on one where it cannot be."""

import numpy as np
import pytest

from poise.cli import main
from poise.errors import DatasetError, UsageError
from poise.real_robot.demonstrations import Demonstrations
from poise.real_robot.replay import replay_on
from poise.real_robot.robot import Robot
from poise.robots import FR3

HOME = np.array(FR3.home)


def recorded(path, swing=0.3, address="twin:fr3", start=0.0):
    """Two seconds of a swing, recorded as a demonstration."""
    with Robot(address, in_process=True) as robot:
        robot.move_to(HOME + start)
        record = Demonstrations(path, FR3, address, 0.05, 0.025)
        record.request("record")
        for k, row in enumerate(robot.follow(0.025)):
            record.row(row)
            robot.aim(HOME + start + swing * np.sin(0.04 * k), row["now"] + 0.05, 0.04 * (k > 20))
            if k == 82:
                break
        record.request("success")
        record.close()
    return path


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return recorded(tmp_path_factory.mktemp("replay") / "swing.hdf5", start=0.1)


def test_the_same_arm_repeats_what_it_did(path):
    with Robot("twin:fr3", in_process=True) as robot:
        (done,) = replay_on(path, robot)
        assert done.episode == "demo_0" and done.steps == 41 and done.fault == ""
        assert done.divergence.max() < 0.012 and done.rms < 0.005
        assert robot.read().gripper_pos == pytest.approx(0.04, abs=2e-3)
        counts = robot.status()["counts"]
        assert counts["out_of_limit"] == 0 and counts["rejected"] == 0


def test_another_arm_parts_from_it(path):
    with Robot("twin:fr3?payload=2.5&gain=0.3", in_process=True) as robot:
        (done,) = replay_on(path, robot)
        assert done.divergence.max() > 0.012 and done.fault == ""


def test_it_goes_slowly_to_where_the_episode_began(path):
    with Robot("twin:fr3", in_process=True) as robot:
        robot.move_to(HOME - 0.3, 0.5)
        speeds, command = [], robot._link._loop.driver.write
        last = [robot.read().joint_pos_target]

        def write(target, gripper=None):
            speeds.append(np.abs(target - last[0]).max() / FR3.servo_dt)
            last[0] = target
            command(target, gripper)

        robot._link._loop.driver.write = write
        replay_on(path, robot, speed=0.05)
        way = next(k for k in range(len(speeds)) if np.abs(last[0] - HOME).max() < 9 and k > 400)
        assert max(speeds[:way]) <= 0.05 * 5.26 + 1e-6


def test_a_stop_ends_the_replay(path, monkeypatch):
    with Robot("twin:fr3", in_process=True) as robot:
        count = [0]
        real = robot.aim_along

        def aim_along(points):
            count[0] += 1
            real(points)
            if count[0] == 2:
                robot.stop()

        monkeypatch.setattr(robot, "aim_along", aim_along)
        (done,) = replay_on(path, robot)
        assert "operator" in done.fault and done.steps < 41


def test_what_cannot_be_replayed_is_one_message(path, tmp_path):
    with Robot("twin:ur5e", in_process=True) as robot, pytest.raises(DatasetError, match="a recording of 'fr3'"):
        replay_on(path, robot)
    with Robot("twin:fr3", in_process=True) as robot:
        with pytest.raises(DatasetError, match="no episode demo_9"):
            replay_on(path, robot, ["demo_9"])
        with pytest.raises(UsageError, match="speed is a fraction"):
            replay_on(path, robot, speed=0.0)
        assert np.abs(robot.read().joint_pos_target - HOME).max() < 0.01, "nothing has moved"


def test_the_command_line_replays_on_a_twin(path, capsys):
    assert main(["data", "replay", str(path), "--robot", "twin:fr3", "--json"]) == 0
    out = capsys.readouterr().out
    assert "demo_0" in out and "mrad" in out
    assert main(["data", "replay", str(path), "--robot", "twin:fr3", "--mode", "states"]) == 2
    assert "without --mode" in capsys.readouterr().err
