"""A few faults of every kind on every backend; `make faults` runs the whole matrix (real_robot_faults.py)."""

import pytest

from faults.backends import BACKENDS
from faults.bench import Bench
from faults.processes import process_faults, run_process_fault

QUICK = {
    "twin": ("NaN", "text", "a jump by -3 rad", "one command again and again", "the clock leaps 10 s ahead",
             "outwards until something says no"),
    "xarm7": ("infinity", "collision", "warning", "byte by byte", "reset"),
    "ur5e": ("protective_stop", "closed"),
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
