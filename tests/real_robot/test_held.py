"""What a Franka holds after cycles that it has filled in itself, and how answers go on from there."""

from dataclasses import replace

import numpy as np
import pytest

from poise.real_robot.command_spline import CommandSpline
from poise.real_robot.held import CYCLE, Held, Motion
from poise.robots import FR3

HOME = np.array(FR3.home)
ONE = replace(FR3, acceleration=(10.0,), jerk=(5000.0,))


def test_the_robot_keeps_its_acceleration_where_no_answer_comes():
    """By hand, T = 1 ms: v = 1 + 0.01, 1.02, 1.03; q = 1.01e-3 + 1.02e-3 + 1.03e-3."""
    motion = Motion(np.zeros(1), np.ones(1), np.full(1, 10.0)).filled_in(3)
    assert motion.velocity == pytest.approx(1.03) and motion.position == pytest.approx(3.06e-3)
    assert motion.acceleration == 10.0


def moving() -> Held:
    held = Held(ONE, np.zeros(1))
    for k in range(1, 11):
        held.answer(np.array([0.5 * 10.0 * (k * CYCLE) ** 2]))
        assert not held.heard(np.float32(held.motion.position), 1)
    return held


def test_an_answer_that_the_state_shows_has_arrived():
    held = moving()
    held.answer(np.array([6e-4]))
    assert not held.heard(np.array([6e-4]), 1) and held.motion.position == 6e-4


def test_an_answer_that_the_state_does_not_show_was_filled_in():
    held = moving()
    expected = held.motion.filled_in(1)
    held.answer(np.array([6e-4]))
    assert held.heard(np.float32(expected.position), 1)
    assert held.motion.position == expected.position


def test_cycles_that_were_skipped_were_filled_in_after_the_answer_or_with_it():
    for arrived in (True, False):
        held = moving()
        before = held.motion
        held.answer(np.array([6e-4]))
        expected = held.motion.filled_in(2) if arrived else before.filled_in(3)
        assert held.heard(np.float32(expected.position), 3)
        assert held.motion.position == expected.position


def test_a_path_that_is_near_enough_goes_on_and_one_that_is_not_is_left():
    """By hand: it moves at 0.1 rad/s with 10 rad/s^2; 2 um off the path are 2 rad/s^2 and, with its change, 2000 rad/s^3."""
    held = moving()
    on = [held.motion.filled_in(k).position - k * k * 2e-6 for k in (1, 2)]  # 4 rad/s^2 less from now on
    assert held.leads_to(*on)
    assert not held.leads_to(on[0] + 4e-6, on[1])


@pytest.mark.parametrize("cycles", [1, 2, 4, 9])
@pytest.mark.parametrize("asked", [True, False])
def test_a_path_that_goes_on_from_what_is_held_leaves_no_limit(cycles, asked):
    """A joint at full acceleration, turning to full braking as the gap comes: where the old path would be a jump."""
    spline, motion, previous, phase = CommandSpline(FR3, HOME), Motion(HOME, np.zeros(7), np.zeros(7)), None, 0.0
    v = np.cumsum(0.05 * np.concatenate([np.ones(20), -np.ones(20), np.zeros(60)]))
    commands = iter(HOME + np.outer(np.cumsum(v) * 0.005, np.arange(7) == 0))
    worst = np.zeros(3)
    for k in range(480):
        phase += CYCLE
        if k == 105:  # in the segment in which it turns
            motion = motion.filled_in(cycles)
            spline.resume(motion.position, motion.velocity + 0.5 * CYCLE * motion.acceleration, motion.acceleration,
                          next(commands) if asked else None)  # fmt: skip
            phase = CYCLE
        elif phase >= spline.dt - 1e-9:
            spline.command(next(commands))
            phase -= spline.dt
        previous, motion = motion, motion.to(spline.at(phase / spline.dt))
        jerk = (motion.acceleration - previous.acceleration) / CYCLE
        worst = np.maximum(worst, [np.abs(x).max() for x in (motion.velocity, motion.acceleration, jerk)])
    assert worst[0] <= 2.62 and worst[1] <= 10.0 + 1e-6 and worst[2] <= 5000.0
    assert np.abs(motion.position - (HOME + v.sum() * 0.005 * (np.arange(7) == 0))).max() < 1e-6, "it has caught up"
