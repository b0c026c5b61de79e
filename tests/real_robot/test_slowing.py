"""Speeds near the ends of a joint's range, where a maker limits them."""

from dataclasses import replace

import numpy as np
import pytest

from poise.real_robot.slowing import AHEAD, Slowing
from poise.robots import FR3, UR5E

HOME = np.array(FR3.home)


def test_an_arm_without_such_limits_has_no_bounds():
    lowest, highest = Slowing(UR5E).bounds(np.array(UR5E.home))
    assert (lowest == -np.inf).all() and (highest == np.inf).all()


def test_the_bound_is_the_speed_that_is_legal_where_the_command_ends():
    """By hand for joint 2 at 1.695 rad, measured 0.005 rad further, c = 0.2, d = 2.585: B = 0.212925, D = 0.0918, so v =
    sqrt(0.0453370 - 0.04 + 0.4746060) - 0.212925 = 0.479854 rad/s; it ends at D = 0.0894007, where sqrt(5.17 D) - 0.2 is
    the same."""
    low, high = Slowing(FR3).bounds(np.where(np.arange(7) == 1, 1.7 - AHEAD, HOME))
    assert high[1] == pytest.approx(0.479854, abs=1e-6)
    assert high[1] == pytest.approx(np.sqrt(5.17 * (1.7918 - 1.7 - high[1] * 0.005)) - 0.2, abs=1e-12)
    assert low[1] < -2.5 and (np.abs(high) > 0.4).all()


def test_at_the_end_and_beyond_no_speed_is_left_but_the_way_back_is_free():
    low, high = Slowing(FR3).bounds(np.array(FR3.position_high) + 0.1)
    assert (high == 0.0).all() and (low < -1.0).all()


@pytest.mark.parametrize("joint", range(7))
def test_braking_keeps_the_bound_from_every_speed_that_it_allows(joint):
    slowing, q, v = Slowing(FR3), HOME.copy(), 0.0
    while (fastest := float(slowing.bounds(q)[1][joint])) > 1e-3:
        v = min(FR3.velocity[joint], fastest, v + 0.05)
        p, u = q.copy(), v
        p[joint] += u * FR3.servo_dt
        while u > 0.0:  # brake
            u = max(0.0, u - 10.0 * FR3.servo_dt)
            assert u <= slowing.bounds(p)[1][joint] + 1e-12
            p[joint] += u * FR3.servo_dt
        q[joint] += v * FR3.servo_dt


def test_a_deceleration_beyond_the_limit_of_acceleration_counts_as_that():
    weak = replace(FR3, acceleration=(1.0,) * 7)
    assert (Slowing(weak).bounds(HOME)[1] < Slowing(FR3).bounds(HOME)[1]).all()
