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


def moving(acceleration: float = 10.0) -> Held:
    held = Held(ONE, np.zeros(1))
    for k in range(1, 11):
        held.answer(np.array([0.5 * acceleration * (k * CYCLE) ** 2]))
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


def missing(waited: float) -> tuple[Held, Motion, Motion]:
    """An answer that the next state does not show; what is held if it is lost, and if it is late."""
    held = moving(5.0)
    lost = held.motion.filled_in(1)
    held.answer(np.array([lost.position[0] - 1.7e-6]))  # jerk of -1700 rad/s^3
    late = held.motion
    assert held.heard(np.float32(lost.position), 1, waited)
    return held, lost, late


@pytest.mark.parametrize("waited", [1e-4, 9e-4])
def test_a_state_that_comes_at_once_was_sent_before_the_answer_came_which_then_counts_late(waited):
    held, lost, late = missing(waited)
    assert held.motion.position == (late if waited < 5e-4 else lost).position
    assert held.middle.position == pytest.approx((lost.position + late.position) / 2, abs=1e-15)


def test_what_is_answered_keeps_the_limits_whether_the_last_answer_is_lost_or_late():
    """By hand, J = -1700: going on at J is 4 J where it was lost and J where it was late; from the middle, 1.5 J each."""
    held, lost, late = missing(1e-4)
    onward = late.position + CYCLE * (late.velocity + CYCLE * (late.acceleration - CYCLE * 1700.0))
    assert not held.leads_to(onward) and held.leads_to(onward, surely=False)
    between = held.middle.filled_in(1).position
    assert held.leads_to(between)
    jerks = [(m.to(between).acceleration[0] - m.acceleration[0]) / CYCLE for m in (lost, late)]
    assert jerks == pytest.approx([-2550.0, 2550.0], abs=1.0)


def test_three_answers_make_one_of_what_may_be_held():
    held, *_ = missing(1e-4)
    told = []
    for _ in range(4):
        held.answer(held.middle.filled_in(1).position)
        told.append(held.heard(np.float32(held.motion.position), 1))
    assert told == [True, True, False, False]


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
