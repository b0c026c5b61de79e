"""A few faults of every kind on the backends that answer at once; `make faults` runs the whole matrix of faults.py."""

import pytest

from real_robot_faults import PROCESSES, Bench, run_process_fault

QUICK = {
    "twin": ("NaN", "text", "a jump by -3 rad", "one command again and again", "the clock leaps 10 s ahead",
             "no space left for the recording"),
    "xarm7": ("infinity", "collision", "warning"),
    "so101": ("NaN", "overload"),
    "fr3 by a relay": ("delay of 3 ms",),
    "fr3": ("the clock falls 10 s back", "joint_reflex"),
}  # fmt: skip


@pytest.mark.parametrize("backend", QUICK)
def test_a_fault_is_told_stops_the_arm_within_limits_and_can_be_recovered_from(backend):
    bench = Bench(backend)
    try:
        listed = bench.faults()
        assert len(listed) + len(PROCESSES) >= 40 or backend in ("twin", "fr3 by a relay")
        faults = [fault for fault in listed if fault.name in QUICK[backend]]
        assert len(faults) == len(QUICK[backend])
        wrong = {fault.name: outcome[1] for fault in faults if (outcome := bench.run(fault))[1]}
        assert wrong == {}
    finally:
        bench.close()


def test_a_user_who_is_killed_leaves_a_standing_arm():
    assert ("user", "SIGKILL") in PROCESSES
    assert run_process_fault("xarm7", "user", "SIGKILL") == ""
