"""Actions with noise or skipped, and gears with slack."""

import mujoco
import numpy as np
import pytest

from poise.errors import UsageError
from poise.sim.actuation import ActionFaults, Backlash
from poise.sim.dynamics import Dynamics
from poise.sim.randomization import Randomization, Term
from poise.sim.white import White

from .two_link import XML

MODEL = mujoco.MjModel.from_xml_string(XML)
N = 300


def _execute(term: Term, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Actions asked for and executed, both (steps, N, 2)."""
    white, rows, zero = White(N), np.arange(N), np.zeros(N, int)
    faults = ActionFaults(Randomization((term,)), N, 2, white)
    params = {term.name: term.draw(0, rows, zero, 1)}
    white.prepare(rows, rows, zero, zero)
    asked, executed = np.random.default_rng(0).uniform(-0.5, 0.5, (steps, N, 2)), []
    for t in range(steps):
        white.follow(rows, zero, zero + t)
        executed.append(faults.apply(asked[t], zero + t, params))
    return asked, np.array(executed)


def test_noise_has_the_drawn_deviation_and_stays_within_bounds():
    asked, executed = _execute(Term("t", "action_noise", range=(0.1, 0.1), operation="set"), 60)
    assert (executed - asked).std() == pytest.approx(0.1, abs=0.002)
    asked, executed = _execute(Term("t", "action_noise", range=(2.0, 2.0), operation="set"), 10)
    assert np.abs(executed).max() == 1.0


def test_a_skipped_step_keeps_what_was_executed_before():
    asked, executed = _execute(Term("t", "action_hold", range=(0.4, 0.4), operation="set"), 60)
    held = (executed[1:] == executed[:-1]).all(axis=2)
    assert held.mean() == pytest.approx(0.4, abs=0.02)
    assert np.array_equal(executed[0], asked[0]) and np.array_equal(executed[1:][~held], asked[1:][~held])


def test_an_episode_does_not_begin_with_an_action_of_the_one_before():
    term, one = Term("t", "action_hold", range=(1.0, 1.0), operation="set"), np.ones((1, 2))
    white = White(1)
    faults = ActionFaults(Randomization((term,)), 1, 2, white)
    played = [
        faults.apply(a * one, np.array([t]), {"t": one[:, :1]})[0, 0] for t, a in ((0, 1), (1, 2), (0, 3), (1, 4))
    ]
    assert played == [1, 1, 3, 3]


def test_slack_follows_by_half_its_width_and_forgets_nothing_between_periods():
    """By hand: a command up to 1, then back, in gears with a slack of 0.4."""
    term = Term("t", "backlash", "servo", range=(0.4, 0.4), operation="set")
    backlash = Backlash(MODEL, Randomization((term,)), 1)
    backlash.begin(np.array([0]), np.zeros((1, 2)))
    commands = np.zeros((1, 4, 2))
    commands[0, :, 0], commands[0, :, 1] = (0.1, 0.5, 1.0, 0.9), 7.0
    params = {"t": np.array([[0.4]])}
    out = backlash.apply(commands, params)
    np.testing.assert_allclose(out[0, :, 0], [0.0, 0.3, 0.8, 0.8])
    assert (out[0, :, 1] == 7.0).all() and commands[0, 0, 0] == 0.1
    commands[0, :, 0] = 0.7, 0.6, 0.5, -0.2
    np.testing.assert_allclose(backlash.apply(commands, params)[0, :, 0], [0.8, 0.8, 0.7, 0.0])


def test_slack_of_a_motor_is_refused():
    with pytest.raises(UsageError, match="'t': actuator 'motor' takes no position"):
        Dynamics(MODEL, Randomization((Term("t", "backlash", "*", range=(0, 1), operation="set"),)))
