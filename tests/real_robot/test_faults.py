"""A few faults of every kind on every backend; `make faults` runs the whole matrix (real_robot_faults.py)."""

import numpy as np
import pytest

from faults.backends import BACKENDS
from faults.bench import Bench
from faults.franka_relay import COMMAND, Judge
from faults.processes import process_faults, run_process_fault

QUICK = {
    "twin": ("NaN", "text", "a jump by -3 rad", "one command again and again", "the clock leaps 10 s ahead",
             "outwards until something says no"),
    "xarm7": ("infinity", "collision", "warning", "byte by byte", "reset"),
    "ur5e": ("protective_stop", "lumps of 20 ms"),
    "so101": ("overload", "folded until something says no", "bits turned in one answer of twenty"),
    "vx300s": ("overheating", "the port goes away"),
    "fr3": ("the clock falls 10 s back", "joint_reflex", "delay of 3 ms"),
}  # fmt: skip


@pytest.mark.parametrize("backend", QUICK)
def test_a_fault_is_told_stops_the_arm_within_limits_and_can_be_recovered_from(backend):
    with Bench(backend) as bench:
        listed = bench.faults()
        assert len(listed) + len(process_faults(backend)) >= 40
        faults = [fault for fault in listed if fault.name in QUICK[backend]]
        assert len({fault.name for fault in faults}) == len(QUICK[backend])
        wrong = {fault.name: outcome[1] for fault in faults if (outcome := bench.run(fault))[1]}
        assert wrong == {}


@pytest.mark.parametrize(("backend", "who", "what"), [("xarm7", "user", "SIGKILL"), ("twin", "recorder", "disk full")])
def test_a_process_that_is_gone_or_fails_leaves_an_arm_that_can_go_on(backend, who, what):
    assert (who, what) in process_faults(backend) and "ros2" in BACKENDS
    assert run_process_fault(backend, who, what)[1] == ""


def test_the_relay_of_datagrams_judges_commands_by_divided_differences():
    """By hand, the first joint on q = 4 t^3, whose jerk of 24 rad/s^3 and acceleration of 24 t are small: nothing is out
    of limits, though every third cycle got no answer; a jump by 1e-3 rad is: 1 rad/s after one cycle
    is an acceleration of 1000 rad/s^2."""
    judge = Judge()
    for number in (k for k in range(100, 200) if k % 3):
        t = (number - 100) * 1e-3
        judge.judge(COMMAND.pack(number, 4.0 * t**3, *np.zeros(6)))
    assert (judge.sent, judge.out_of_limit) == (67, 0)
    judge.judge(COMMAND.pack(200, 4.0 * 0.1**3 + 1e-3, *np.zeros(6)))
    assert judge.out_of_limit == 1 and judge.told.startswith("difference 2")
