"""The ramp to standstill: by hand, and against the oracle."""

import numpy as np
import pytest

from poise.real_robot.emulators.oracle import Oracle
from poise.real_robot.ramp import ramp
from poise.robots import SO101


def test_from_rest_there_is_nothing_to_do_and_from_a_speed_it_is_what_one_computes():
    zero, one = np.zeros(1), np.ones(1)
    assert list(ramp(zero, zero, zero, 10 * one, 1000 * one, 0.01)) == []
    # 0.25 rad/s at 10 rad/s^2 and 10 ms: 0.15, 0.05, 0 -> positions 1.5, 2, 2 mrad
    path = [float(p[0]) for p in ramp(zero, 0.25 * one, zero, 10 * one, 1000 * one, 0.01)]
    assert path == pytest.approx([0.0015, 0.002, 0.002], abs=1e-9)
    # while it still accelerates the jerk allows one period of coasting first
    path = [float(p[0]) for p in ramp(zero, 0.25 * one, 10 * one, 10 * one, 1000 * one, 0.01)]
    assert path == pytest.approx([0.0025, 0.004, 0.0045, 0.0045], abs=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_oracle_finds_nothing_without_any_tolerance_for_ticks(sign):
    dt, a = SO101.servo_dt, 10.0 * (1 - 1e-9)
    oracle = Oracle(SO101, np.zeros(5))
    position, velocity = np.zeros(5), np.zeros(5)
    for _ in range(15):
        velocity = velocity + sign * a * dt * np.array([1.0, 0.5, 0.1, 0.77, 0.0])
        position = position + velocity * dt
        oracle.arrived(position)
    for pose in ramp(oracle.position, oracle.velocity, oracle.acceleration, np.array(SO101.acceleration), np.array(SO101.jerk), dt):  # fmt: skip
        oracle.arrived(pose)
    oracle.arrived(oracle.position)
    assert oracle.told == [] and np.abs(oracle.velocity).max() == 0
