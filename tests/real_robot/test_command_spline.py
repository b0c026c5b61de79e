"""The path through commands: hand-computed values, and inside every limit that the commands keep, whatever comes late."""

import numpy as np
import pytest

from poise.real_robot.command_spline import CommandSpline
from poise.real_robot.supervisor import Supervisor
from poise.robots import FR3

HOME, DT = np.array(FR3.home), FR3.servo_dt


def test_values_by_hand_and_a_delay_of_a_period_and_a_half():
    """A first step d reaches d/6 after its period, 5d/6 after the next, and d after the third."""
    d = 1e-5
    spline = CommandSpline(FR3, HOME)
    reached = []
    for _ in range(4):
        spline.command(HOME + d)
        reached += [(spline.at(u) - HOME)[0] / d for u in (0.5, 1.0)]
    assert reached == pytest.approx([1 / 48, 1 / 6, 1 / 2, 5 / 6, 47 / 48, 1.0, 1.0, 1.0], rel=1e-6)
    line = CommandSpline(FR3, HOME)
    for k in range(1, 200):  # a ramp that has long reached its speed
        line.command(HOME + 0.005 * np.maximum(k - 2, 0) * 0.2 * min(k / 100, 1.0))
    assert (line.point - line.at(1.0))[0] == pytest.approx(1.0 * 0.2 * DT, rel=1e-3)
    assert line.point - line.at(0.5) == pytest.approx(1.5 * 0.2 * DT * np.ones(7), rel=1e-3)


def test_without_commands_it_brakes_and_stands():
    spline = CommandSpline(FR3, HOME)
    for k in range(60):
        spline.command(HOME + 0.5 * 8.0 * (k * DT) ** 2)
    speed = spline.velocity.copy()
    periods = 0
    while not spline.standing:
        spline.command(None)
        periods += 1
    assert periods == pytest.approx(speed[0] / (0.8 * 10.0 * DT), abs=5)
    assert spline.at(0.3) == pytest.approx(spline.point, abs=1e-14)


@pytest.mark.parametrize("seed", range(3))
def test_with_one_command_in_twenty_lost_every_limit_holds_in_millisecond_differences(seed):
    rng, supervisor = np.random.default_rng(seed), Supervisor(FR3)
    supervisor.start(HOME, HOME)
    spline, path, goal = CommandSpline(FR3, HOME), [HOME] * 4, HOME
    for k in range(1500):
        if k % 40 == 0:
            goal = HOME + rng.uniform(-1.0, 1.0, 7)
        asked = supervisor.position + np.clip(goal - supervisor.position, -0.03, 0.03)
        verdict = supervisor.check(asked, k * DT, k * DT)
        if supervisor.fault and supervisor.standing:
            supervisor.clear_fault(supervisor.position, supervisor.position)
        lost = rng.random() < 0.05 or k % 300 > 285
        spline.command(None if lost else verdict.position)
        path += [spline.at(j / 5) for j in range(1, 6)]
    for _ in range(400):  # and what was behind has caught up
        spline.command(supervisor.brake().position)
    assert np.abs(spline.point - supervisor.position).max() < 1e-12
    steps = [np.abs(np.diff(np.array(path), n, axis=0)).max(axis=0) / 1e-3**n for n in (1, 2, 3)]
    assert (steps[0] <= np.array(FR3.velocity)).all()
    assert (steps[1] <= np.array(FR3.acceleration)).all()
    assert (steps[2] <= np.array(FR3.jerk)).all()
    assert steps[0].max() > 0.5 and steps[1].max() > 9.0, "the walk has been near the limits"
