"""After a gap that the robot has filled in: inside the limits, back on the path, and nothing but the path without one."""

import numpy as np

from poise.action import shape_command
from poise.real_robot.command_spline import CommandSpline
from poise.real_robot.resume import CYCLE, Resume
from poise.robots import FR3

HOME = np.array(FR3.home)


def test_without_a_gap_it_is_the_path_to_the_bit_and_a_gap_is_filled_in_by_hand():
    resume, path = Resume(FR3, HOME), HOME + np.arange(1, 6)[:, None] ** 2 * 2e-6
    assert all(np.array_equal(resume.step(q), q) for q in path) and resume.on
    velocity, acceleration = (path[4] - path[3]) / CYCLE, (path[4] - 2 * path[3] + path[2]) / CYCLE**2
    resume.filled_in(2)
    by_hand = path[4] + 2 * velocity * CYCLE + 3 * acceleration * CYCLE**2
    np.testing.assert_allclose(resume.position, by_hand, rtol=0, atol=1e-12)
    assert not resume.on


def test_gaps_of_a_few_cycles_leave_no_limit_and_lead_back():
    rng, goal, position, velocity = np.random.default_rng(0), HOME, HOME, np.zeros(7)
    spline, resume, seen, gap = CommandSpline(FR3, HOME), Resume(FR3, HOME), [HOME] * 4, 0
    hardest = 0.9 * np.array(FR3.acceleration)
    for k in range(1500):
        if k % 40 == 0:
            goal = HOME + rng.uniform(-1.0, 1.0, 7) * (k < 1300)
        position, velocity = shape_command(
            position, velocity, goal, 0.9 * np.array(FR3.velocity), hardest, FR3.servo_dt
        )
        spline.command(position)
        for j in range(1, 6):
            if k < 1300 and gap < 6 and rng.random() < (0.6 if gap else 0.01):
                gap += 1
                continue
            for _ in range(gap):  # what the robot does, and judges with the rest
                resume.filled_in(1)
                seen.append(resume.position)
            seen.append(resume.step(spline.at(j / 5), gap + 1))
            gap = 0
    assert resume.on and np.array_equal(seen[-1], spline.at(1.0))
    steps = [np.abs(np.diff(np.array(seen), n, axis=0)).max(axis=0) / CYCLE**n for n in (1, 2, 3)]
    for step, limit in zip(steps, (FR3.velocity, FR3.acceleration, FR3.jerk), strict=True):
        assert (step <= np.array(limit)).all()


def test_an_answer_that_did_not_arrive_is_seen_in_what_the_robot_followed():
    resume, path = Resume(FR3, HOME), HOME + np.arange(1, 8)[:, None] ** 2 * 2e-6
    for q in path[:6]:
        resume.step(q)
        resume.heard(resume.position.astype(np.float32), 1)
    robot = resume.position.copy(), resume.velocity.copy(), resume.acceleration.copy()
    resume.step(path[6] + 1e-5)  # lost
    filled = robot[0] + (robot[1] + robot[2] * CYCLE) * CYCLE
    resume.heard(filled.astype(np.float32), 1)
    np.testing.assert_allclose(resume.position, filled, rtol=0, atol=1e-12)
    assert not resume.on
