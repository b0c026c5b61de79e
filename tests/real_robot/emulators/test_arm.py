"""The emulated arm's servos: which follow a moving command late, and which feed its velocity forward."""

import numpy as np
import pytest

from poise.real_robot.emulators.arm import PHYSICS_DT, EmulatedArm
from poise.real_robot.emulators.command_velocity import CommandVelocity
from poise.robots import FR3, UR5E, RobotSpec

SPEED = 0.2  # [rad/s]


def _behind(robot: RobotSpec) -> float:
    """Seconds that the last joint is behind a command which has moved for a second at SPEED."""
    arm, command = EmulatedArm(robot), np.array(robot.home)
    for _ in range(round(1.0 / robot.servo_dt)):
        command[-1] += SPEED * robot.servo_dt
        arm.command(command)
        arm.advance(robot.servo_dt)
    return (command - arm.joint_pos)[-1] / SPEED


def test_an_arm_without_feed_forward_is_late_by_damping_over_stiffness():
    model = EmulatedArm(UR5E).model
    lag = model.actuator_biasprm[5, 2] / model.actuator_biasprm[5, 1]
    assert lag > 0.05 and _behind(UR5E) == pytest.approx(lag, abs=0.01)


def test_an_fr3_is_not():
    assert _behind(FR3) == pytest.approx(0.0, abs=0.005)


def test_it_stands_where_the_commands_stop():
    arm, command = EmulatedArm(FR3), np.array(FR3.home)
    for _ in range(100):
        command[6] += 0.005 * SPEED
        arm.command(command)
        arm.advance(0.005)
    arm.advance(1.0)
    assert np.abs(arm.joint_pos - command)[6] < 2e-3 and np.abs(arm.joint_vel).max() < 1e-3


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([0, 1, 2, 3], [1, 1, 1, 1]),  # in step
        ([0, 1, 1, 3, 4], [1, 1, 1, 1, 1]),  # none in the third period, two in the fourth: held, then over two
        ([0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0]),  # it stops; held for three periods
        ([0, 1, 1, 1, 1, 2], [1, 1, 1, 1, 0, 1]),  # it begins again, within a period
    ],
)
def test_the_velocity_of_commands_is_their_last_change_over_the_time_it_took(times, expected):
    """At SPEED, in periods of 5 ms, the command being the one of times[k] in period k; it begins from a standstill."""
    period = 5 * PHYSICS_DT
    velocity = CommandVelocity(np.array([-SPEED * period]), period)
    for k, (at, share) in enumerate(zip(times, expected, strict=True)):
        got = velocity.at(k * period, np.array([SPEED * period * at]))
        assert got == pytest.approx([SPEED * share], abs=1e-12), k
