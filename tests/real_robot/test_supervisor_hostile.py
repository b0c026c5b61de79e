"""Whatever comes in, what the supervisor lets out is legal: generated and seeded commands without sense."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from command_judge import DT, HOME, Oracle, started

from poise.real_robot.self_collision import SelfCollision
from poise.real_robot.supervisor import Supervisor
from poise.robots import ROBOTS

EXTREMES = [0.0, -0.0, 5e-324, 1e-300, 1e-12, 1e-9, 1e-6, 1e-3, 0.05, 1.0, 3.0, 1e3, 1e12, 1e300, 1.797e308]
numbers = st.one_of(st.floats(), st.sampled_from([s * x for x in EXTREMES for s in (1.0, -1.0)]),
                    st.floats(-3.1, 3.1))  # fmt: skip
vectors = st.one_of(
    st.lists(numbers, min_size=7, max_size=7).map(lambda x: np.array(x)),
    st.lists(st.floats(-0.02, 0.02), min_size=7, max_size=7).map(lambda x: ("step", np.array(x))),
    st.lists(numbers, max_size=9).map(lambda x: np.array(x)),
    st.sampled_from([None, "x", 3.0, [1.0], np.float64(1.0), np.zeros((7, 7)), np.zeros(7, np.float32)]),
)
ages = st.one_of(st.just(0.0), st.just(0.0), st.just(0.0), st.floats())


@hypothesis.settings(max_examples=150, deadline=None, derandomize=True)
@hypothesis.given(st.lists(st.tuples(vectors, ages, st.integers(1, 12)), max_size=30))
def test_whatever_comes_in_what_goes_out_is_legal(inputs):
    supervisor, sent, k = started(), [], 0
    for command, age, repeat in inputs:
        for _ in range(repeat):
            asked = supervisor.position + command[1] if isinstance(command, tuple) else command
            k += 1
            verdict = supervisor.check(asked, k * DT, k * DT - age)
            sent.append(verdict.position)
        if supervisor.fault and supervisor.standing:
            supervisor.clear_fault(supervisor.position, supervisor.position)
    assert Oracle().judge(HOME, sent or [HOME]) == []


def hostile(rng, supervisor):
    """A batch of commands that somebody broken or malicious might send."""
    robot = supervisor.robot
    low, high = np.array(robot.position_low), np.array(robot.position_high)
    N, DT = robot.num_joints, robot.servo_dt
    kind, length = rng.integers(14), int(rng.integers(1, 60))
    q = supervisor.position.copy()
    if kind == 0:  # jumps of either sign, held
        return [q + rng.normal(size=N) * 10.0 ** rng.uniform(-4, 2)] * length
    if kind == 1:  # alternating extremes
        return [low if k % 2 else high for k in range(length)]
    if kind == 2:  # a random pose, alternating with here
        return [rng.uniform(low, high) if k % 2 else q for k in range(length)]
    if kind == 3:  # one bad number among good ones
        bad = [np.nan, np.inf, -np.inf][rng.integers(3)]
        return [*[q] * int(rng.integers(3)), np.where(np.arange(N) == rng.integers(N), bad, q)]
    if kind == 4:  # the wrong kind of thing
        things = [None, "joint", [], q.tolist(), q[:-1], np.append(q, 0), q[None], q.astype(int), q.astype(complex)]
        return [things[rng.integers(len(things))]]
    if kind == 5:  # huge
        return [rng.choice([-1, 1], N) * 10.0 ** rng.uniform(0, 308, N) for _ in range(length)]
    if kind == 6:  # tiny
        return [q + rng.choice([-1, 1], N) * 10.0 ** rng.uniform(-320, -6, N) for _ in range(length)]
    if kind == 7:  # at the limits, exactly
        return [np.where(rng.random(N) < 0.5, low, high)] * length
    if kind == 8:  # one joint into its end
        return [np.where(np.arange(N) == rng.integers(N), rng.choice([-9.0, 9.0]), q)] * length
    if kind == 9:  # white noise around here
        return list(q + rng.normal(size=(length, N)) * 10.0 ** rng.uniform(-5, 0))
    v = rng.uniform(-1, 1, N) * robot.velocity * 10.0 ** rng.uniform(-2, 0.1)
    if kind in (10, 11):  # fast straight lines, some of them into a wall
        return [q + np.minimum(k * 0.05, 1.0) * v * DT * k for k in range(3 * length)]
    if kind == 12:  # float32, rounded
        return [(q + k * v * DT).astype(np.float32) for k in range(length)]
    t = np.arange(3 * length)[:, None] * DT  # a smooth oscillation that may be too fast
    return list(q + v * np.sin(t * rng.uniform(1, 40, N)) * 0.2)


def battery(robot, count: int, seed: int, collision=None):
    """That many hostile commands: what was sent (T, n), verdicts by code, by rule, and how many at speed."""
    rng, supervisor, k = np.random.default_rng(seed), Supervisor(robot, collision=collision), 0
    home, dt = np.array(robot.home), robot.servo_dt
    supervisor.start(home, home)
    sent, codes, rules, fast = [], np.zeros(3, int), {}, 0
    while k < count:
        for asked in hostile(rng, supervisor):
            k += 1
            late = rng.choice([1.0, np.nan, -5.0]) if rng.random() < 0.002 else 0.0
            verdict = supervisor.check(asked, k * dt, k * dt - late)
            sent.append(verdict.sent)
            codes[verdict.code] += 1
            rules[verdict.rule] = rules.get(verdict.rule, 0) + 1
            fast += np.abs(verdict.velocity).max() > 1.0
        if supervisor.fault:
            while not supervisor.standing:
                k += 1
                sent.append(supervisor.check(home, k * dt, k * dt).sent)
            supervisor.clear_fault(supervisor.position, supervisor.position)
    return sent, codes, rules, fast


@pytest.mark.parametrize("name", ROBOTS)
def test_twenty_thousand_hostile_commands_to_each_arm_leave_no_trace(name):
    robot = ROBOTS[name]
    sent, codes, rules, fast = battery(robot, 20_000, 20261123)
    assert Oracle(robot).judge(np.array(robot.home), sent) == []
    assert set(rules) >= {"", "shape", "finite", "stale", "start", "position", "acceleration", "workspace", "stopped"}
    assert (codes > 1_000).all() and fast > 2_000, "the battery reaches every verdict, and does so at speed"


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.parametrize("name", ROBOTS)
def test_a_million_hostile_commands_leave_no_trace(name):
    robot = ROBOTS[name]
    for seed in range(5):
        sent, codes, _, _ = battery(robot, 200_000, seed, SelfCollision(robot) if seed == 0 else None)
        assert Oracle(robot).judge(np.array(robot.home), sent) == [], seed
        assert (codes > 8_000).all()
