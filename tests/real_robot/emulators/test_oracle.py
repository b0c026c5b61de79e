"""The oracle against commands worked out by hand, and the side line that tells what it saw."""

import numpy as np
import pytest

from poise.errors import NotConnectedError, RobotError
from poise.real_robot.emulators.arm import ArmOptions, EmulatedArm
from poise.real_robot.emulators.oracle import Oracle
from poise.real_robot.emulators.side_line import SideLine, SideServer
from poise.robots import FR3, SO101

HOME, DT = np.array(FR3.home), FR3.servo_dt


def moved(joint: int, by: float) -> np.ndarray:
    command = HOME.copy()
    command[joint] += by
    return command


@pytest.mark.parametrize(("rule", "commands"), [
    ("acceleration", [moved(0, 10.0 * DT**2 * 1.001)]),
    ("velocity", [moved(0, x) for x in np.cumsum(np.minimum(10.0 * DT * np.arange(1, 60), 2.621) * DT)]),
    ("position", [moved(1, 2.6)]),
    ("velocity", [moved(1, x) for x in np.cumsum(np.concatenate([np.arange(1, 40), np.full(300, 40)]) * 10.0 * DT**2)]),
    ("not finite", [moved(2, np.nan)]),
    ("not finite", [HOME[:6]]),
])  # fmt: skip
def test_each_limit_counts_and_is_told(rule, commands):
    oracle = Oracle(FR3, HOME)
    for command in commands:
        oracle.arrived(command)
    assert oracle.out_of_limit >= 1 and rule in oracle.told[0]
    assert oracle.counters() == {"arrived": len(commands), "out_of_limit": oracle.out_of_limit}


def test_a_motion_at_the_limits_counts_nothing_and_ticks_widen_them_by_what_rounding_can_do():
    tick = 2 * np.pi / 4096
    speed = np.minimum(10.0 * SO101.servo_dt * np.arange(1, 40), 1.0)
    path = np.array(SO101.home) + np.outer(np.cumsum(speed) * SO101.servo_dt, [1, 0, 0, 0, 0])
    exact, rounded, strict = (Oracle(SO101, SO101.home, tick=t) for t in (0.0, tick, 0.0))
    home = np.round(np.array(SO101.home) / tick) * tick
    rounded.restart(home)
    strict.restart(home)
    for command in path:
        exact.arrived(command)
        on_ticks = np.round(command / tick) * tick
        rounded.arrived(on_ticks)
        strict.arrived(on_ticks)
    assert exact.out_of_limit == rounded.out_of_limit == 0 and strict.out_of_limit > 0


@pytest.mark.parametrize(("acceleration", "counts"), [(9.9, False), (10.9, True), (20.0, True)])
def test_means_over_many_periods_see_through_the_rounding_to_ticks(acceleration, counts):
    """10.9 rad/s^2 is 0.0011 rad in a period, less than the 0.0015 rad of a tick: only a longer stride can tell."""
    tick, dt = 2 * np.pi / 4096, SO101.servo_dt
    home = np.round(np.array(SO101.home) / tick) * tick
    oracle = Oracle(SO101, home, tick=tick)
    speed = np.concatenate([np.linspace(0, acceleration, 4)[1:], np.full(30, acceleration)]).cumsum() * dt
    for by in np.cumsum(speed) * dt:
        oracle.arrived(np.round((home + by * np.eye(5)[0]) / tick) * tick)
    assert (oracle.out_of_limit > 0) == counts, oracle.told
    assert not counts or "acceleration, mean over" in oracle.told[0]


def test_its_own_way_to_standstill_brakes_at_the_limit():
    oracle = Oracle(FR3, HOME)
    for k in range(1, 21):
        oracle.arrived(moved(0, 0.5 * k * (k + 1) * 10.0 * DT**2))
    path = oracle.braking()
    speed = np.diff(path[:, 0]) / DT
    assert speed[-1] == pytest.approx(0.0, abs=10.0 * DT + 1e-6) and (np.diff(speed) < 0).all()
    assert len(path) in (20, 21)  # the last by what rounding has left


def test_an_emulated_arm_stands_at_home_follows_and_moves_its_gripper():
    arm = EmulatedArm(FR3, ArmOptions(noise=0.001))
    assert arm.time == 0.0 and np.abs(arm.joint_pos - HOME).max() < 0.02 and arm.gripper_pos < 0.001
    measured, _ = arm.measure()
    assert 0.0 < np.abs(measured - arm.joint_pos).max() < 0.01
    arm.command(moved(0, 0.1))
    arm.command_gripper(1.0)  # beyond its range
    arm.advance(1.0)
    assert arm.time == pytest.approx(1.0)
    assert arm.joint_pos[0] - HOME[0] == pytest.approx(0.1, abs=0.01) and arm.gripper_pos == pytest.approx(
        0.04, abs=1e-3
    )
    assert np.abs(arm.joint_effort).max() > 1.0, "it holds itself up"


def test_the_side_line_answers_refuses_and_notices_that_the_emulator_is_gone():
    def answer(request):
        if request["do"] == "counters":
            return {"arrived": 3, "out_of_limit": np.int64(1)}
        raise RobotError("no such thing")

    server = SideServer(answer)
    line = SideLine(server.address)
    assert line.counters() == {"arrived": 3, "out_of_limit": 1}
    with pytest.raises(RobotError, match="no such thing"):
        line.inject("anything")
    line.close()
    server.close()
    with pytest.raises(NotConnectedError, match="does not answer"):
        line.counters()
