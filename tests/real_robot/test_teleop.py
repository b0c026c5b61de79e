"""Teleoperation on simulated time: a source leads, lets go, is stopped; its episodes are demonstrations."""

import numpy as np
import pytest

from poise.datasets.check import check
from poise.datasets.episodes import EpisodeFile
from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.real_robot.demonstrations import STEP, Demonstrations
from poise.real_robot.desk import Desk
from poise.real_robot.robot import Robot
from poise.real_robot.teleop import Aim, PageSource, Teleoperation, period_of
from poise.robots import FR3, ROBOTS, SO101, UR5E


class Script:
    """A source that plays a list of what to do, a row at a time."""

    def __init__(self, script):
        self.script, self.rows, self.told = script, [], []

    def aim(self, row, period):
        self.rows.append(row)
        return self.script(len(self.rows) - 1, row)

    def requests(self):
        asked, self.told = self.told, []
        return asked

    def stopped(self):
        pass


def led(robot, source, rows, record=None):
    teleoperation = Teleoperation(robot, source, record=record)
    teleoperation.run(lambda: len(source.rows) >= rows)
    return teleoperation


def test_the_period_is_whole_servo_periods_and_whole_in_a_step():
    assert period_of(FR3, 0.05) == pytest.approx(0.025) and period_of(UR5E, 0.05) == pytest.approx(0.01)
    assert period_of(SO101, 0.05) == pytest.approx(0.01) and period_of(SO101, 0.01) == pytest.approx(0.01)
    with pytest.raises(UsageError, match="no whole number"):
        period_of(SO101, 0.033)


@pytest.mark.parametrize("name", ROBOTS)
def test_a_source_leads_and_the_arm_stands_where_it_lets_go(name):
    with Robot(f"twin:{name}", in_process=True) as robot:
        period = period_of(robot.spec, 0.05)
        home = np.array(robot.spec.home)
        source = Script(lambda k, row: Aim(home - 0.2 * period * (k + 1)) if k < 30 else None)
        led(robot, source, 60)
        sent = np.array([row["joint_pos_target"] for row in source.rows])
        assert sent[-1] == pytest.approx(home - 0.2 * period * 30, abs=0.02) and np.array_equal(sent[-1], sent[-2])
        assert robot.fault == "" and robot.status()["counts"]["out_of_limit"] == 0


def test_letting_go_brakes_within_two_periods_and_stopping_needs_a_person():
    with Robot("twin:fr3", in_process=True) as robot:
        source = Script(lambda k, row: Aim(np.array(FR3.home) + 0.01 * (k + 1)) if k < 20 else None)
        led(robot, source, 30)
        moving = [row["following"] for row in source.rows]
        assert all(moving[2:20]) and not any(moving[22:])
        robot.stop()
        asked = []

        def ended():
            asked.append(1)
            if len(asked) == 10:
                source.told = ["clear"]
            return len(source.rows) >= 35

        Teleoperation(robot, source).run(ended)
        assert len(asked) > 10 and robot.fault == ""


def test_a_page_drives_the_arm_by_its_desk():
    with Robot("twin:fr3", in_process=True) as robot:
        desk, clock = Desk(FR3, robot.stop), [0.0]
        source = PageSource(FR3, desk, clock=lambda: clock[0])
        desk.hear("a", {"do": "take"}, 0.0)
        desk.hear("a", {"do": "drive", "t": 0.0, "held": False}, 0.0)
        rows = []

        def show(row):
            rows.append(row)
            clock[0] += 0.025
            if len(rows) < 80:
                wish = {"do": "drive", "t": clock[0], "held": True, "linear": [0.1, 0.0, 0.0], "gripper": -1}
                desk.hear("a", wish, clock[0])

        Teleoperation(robot, source, show=show).run(lambda: len(rows) >= 110)
        (x, y, z), _ = forward_kinematics(FR3, np.array(rows[-1]["joint_pos_target"]))
        home, _ = forward_kinematics(FR3, np.array(FR3.home))
        assert x - home[0] == pytest.approx(0.1 * (79 * 0.025 + 0.2), abs=0.03)
        assert [y, z] == pytest.approx(home[1:], abs=5e-3) and rows[-1]["gripper_target"] == pytest.approx(0.0)
        still = next(k for k in range(80, 110) if not rows[k]["following"])
        assert (still - 79) * 0.025 <= 0.2 + 3 * 0.025, "silence lasts as long as the switch does"
        assert robot.status()["counts"]["out_of_limit"] == 0


def test_an_episode_that_was_led_is_a_demonstration(tmp_path):
    path = tmp_path / "led.hdf5"
    with Robot("twin:so101?noise=0.0005", in_process=True) as robot:
        record = Demonstrations(path, SO101, "twin:so101", 0.05, 0.01)
        home = np.array(SO101.home)

        def script(k, row):
            source.told = {5: ["record"], 206: ["success"], 210: ["record"], 250: ["failure"], 255: ["record"],
                           260: ["discard"], 270: ["success"]}.get(k, [])  # fmt: skip
            return Aim(home - 0.3 * np.sin(0.01 * k), 0.2 + 0.002 * k)

        source = Script(script)
        led(robot, source, 300, record)
        record.close()
    with EpisodeFile(path) as file:
        assert file.names == ["demo_0", "demo_1"] and file.filter("success") == ["demo_0"]
        episode = file["demo_0"]
        steps = len(episode["actions"])
        assert steps == 40 and episode["rewards"].tolist() == [0.0] * 39 + [1.0]
        assert episode["terminations"].tolist() == [0] * 39 + [1] and file["demo_1"]["truncations"][-1] == 1
        assert np.diff(episode["t_mono"]) == pytest.approx(0.05)
        slices = file.spec.slices("state")
        target = episode["obs"]["state"][:, slices["joint_pos"]] + episode["obs"]["state"][:, slices["target_error"]]
        np.testing.assert_allclose(np.diff(target, axis=0), STEP * episode["actions"][:-1, :5], atol=1e-5)
        grip = episode["actions"][:, 5]
        assert (np.diff(grip) >= 0).all() and grip[-1] > grip[0]
        assert not episode["verdict"].any()
        np.testing.assert_array_equal(episode["obs"]["state"][1:], episode["next_obs"]["state"][:-1])
    report = check(path)
    assert not report.worst(False), report


def test_a_stop_forgets_the_open_episode(tmp_path):
    with Robot("twin:fr3", in_process=True) as robot:
        record = Demonstrations(tmp_path / "x.hdf5", FR3, "twin:fr3", 0.05, 0.025)

        def script(k, row):
            if k == 5:
                source.told = ["record"]
            if k == 20:
                robot.stop()
            return None

        source = Script(script)
        teleoperation = Teleoperation(robot, source, record=record)
        teleoperation.run(lambda: bool(robot.fault) and not record.open)
        assert record.episodes == 0 and record.steps == 0
        record.close()
