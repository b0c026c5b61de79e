"""Identification: known parameters come back with honest deviations, and what a motion cannot tell is said."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from poise.errors import UsageError
from poise.robots import FR3
from poise.sim.identify import identify
from poise.sim.motion_replay import Candidates, Motion, _driven
from poise.sim.randomization import Randomization, Term

PAYLOAD = Term("payload", "payload", "hand", range=(0.0, 1.0), operation="set")
DAMPING = Term("damping", "joint_damping", "fr3_joint*", range=(0.2, 4.0), shared=True)
LATENCY = Term("latency", "action_latency", range=(0.0, 0.08), operation="set")


def moved(terms: Randomization, params: dict[str, float], noise: float = 0.0, physics_dt: float = 0.002) -> Motion:
    """A motion of the FR3 with these parameters, commanded every 5 ms and measured every 10."""
    time, sent_at = np.arange(0.0, 2.0, 0.01), np.arange(0.0, 2.0, FR3.servo_dt)
    wave = 0.3 * np.sin(2.0 * np.pi * sent_at) * np.minimum(1.0, 2.0 * sent_at)
    command = np.array(FR3.home) + wave[:, None] * np.array([1.0, -0.5, 1.0, 0.5, 1.0, -1.0, 1.0])
    candidates = Candidates(FR3, terms, physics_dt=physics_dt)
    drawn = {t.name: np.full((1, candidates.dynamics.sizes[t.name]), params[t.name]) for t in terms.terms}
    still = np.zeros((len(time), FR3.num_joints))
    joint_pos = candidates.replay(Motion(time, still, sent_at, command), drawn)[0]
    noisy = joint_pos + noise * np.random.default_rng(0).standard_normal(joint_pos.shape)
    return Motion(time, noisy, sent_at, command)


def test_a_physics_step_is_driven_by_the_mean_of_the_commands_that_act_during_it():
    """Commands 0, 1, 3 at 0, 10 and 20 ms, steps of 4 ms."""
    motion = Motion(
        np.array([0.0, 0.03]), np.zeros((2, 1)), np.array([0.0, 0.01, 0.02]), np.array([[0.0], [1.0], [3.0]])
    )
    on_time = _driven(motion, 0.0, 0.004, 7, 1)[:, 0]
    assert on_time == pytest.approx([0, 0, 0, 0.5, 1, 1, 3])  # the first step comes before the motion
    late = _driven(motion, 0.003, 0.004, 8, 1)[:, 0]
    assert late == pytest.approx([0, 0, 0, 0, 0.75, 1, 1.5, 3])


def test_what_made_a_motion_is_found_again():
    terms = Randomization((PAYLOAD, DAMPING, LATENCY))
    truth = {"payload": 0.4, "damping": 2.0, "latency": 0.0233}
    found = identify(FR3, [moved(terms, truth)], terms, physics_dt=0.002)
    for p in found.parameters:
        assert p.estimate == pytest.approx(truth[p.name], rel=1e-3)
    assert found.rms < 1e-6 < 1e-3 < found.rms_before and not found.warnings


def test_deviations_are_those_of_the_noise():
    """Over many noises, estimates scatter as their deviation says; the ranges found cover the truth."""
    terms = Randomization((LATENCY,))
    motion, errors = moved(terms, {"latency": 0.03}, physics_dt=0.005), []
    for seed in range(12):
        noise = 0.002 * np.random.default_rng(seed).standard_normal(motion.joint_pos.shape)
        noisy = Motion(motion.time, motion.joint_pos + noise, motion.sent_at, motion.command)
        (p,) = identify(FR3, [noisy], terms, physics_dt=0.005).parameters
        errors.append((p.estimate - 0.03) / p.std)
    assert 0.5 < np.std(errors) < 1.6 and np.abs(errors).max() < 4.0, errors


def test_what_is_not_shared_is_a_number_for_each_target_and_the_result_is_a_file():
    terms = Randomization((Term("gain", "actuator_gain", ("fr3_joint2", "fr3_joint4"), "loguniform", (0.5, 2.0)),))
    motion = moved(terms, {"gain": 1.25}, noise=1e-4)
    found = identify(FR3, [motion], terms, physics_dt=0.002)
    assert [p.name for p in found.parameters] == ["gain/fr3_joint2", "gain/fr3_joint4"]
    ranges = Randomization.from_json(json.loads(json.dumps(found.randomization().to_json())))
    assert ranges == found.randomization() and ranges.terms[1].target == ("fr3_joint4",)
    for p, term in zip(found.parameters, ranges.terms, strict=True):
        assert p.estimate == pytest.approx(1.25, rel=0.01) and term.range is not None
        low, high = p.estimate * math.exp(-2 * p.std), p.estimate * math.exp(2 * p.std)
        assert term.range == pytest.approx((low, high))
    assert json.loads(json.dumps(found.to_json()))["parameters"][0]["name"] == "gain/fr3_joint2"


def test_what_a_motion_cannot_tell_is_said():
    fixed = Term("base", "link_mass", "fr3_link0", range=(0.5, 2.0))  # bolted down: its mass moves nothing
    early = Term("latency", "action_latency", range=(0.0, 0.01), operation="set")
    twice = Term("also", "payload", "fr3_link7", range=(0.0, 1.0), operation="set")
    motion = moved(Randomization((PAYLOAD, LATENCY)), {"payload": 0.4, "latency": 0.02}, noise=5e-4)
    found = identify(FR3, [motion], Randomization((fixed, early)), physics_dt=0.002)
    assert found.warnings == (
        "base cannot be told from this motion: two deviations to either side span its range",
        "latency = 0.01 lies at an end of its range [0, 0.01]: widen it",
    )
    assert found.parameters[0].interval == (0.5, 2.0)
    found = identify(FR3, [motion], Randomization((PAYLOAD, twice, LATENCY)), physics_dt=0.002)
    assert any("payload and also can hardly be told apart" in line for line in found.warnings), found.warnings


def test_a_motion_in_which_the_arm_touched_something_is_named():
    terms = Randomization((LATENCY,))
    motion = moved(terms, {"latency": 0.03}, noise=1e-4)
    held = motion.joint_pos.copy()
    held[100:, 1] = held[100, 1]  # it met a wall half-way
    blocked = Motion(motion.time, held, motion.sent_at, motion.command)
    (warning, *_) = identify(FR3, [motion, blocked, motion], terms, physics_dt=0.002).warnings
    assert warning.startswith("motion 1 leaves ") and "did the arm touch something?" in warning


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Term("noise", "joint_pos_noise", "*", range=(0.0, 1.0), operation="set"), "is not part of an arm's motion"),
        (Term("com", "body_com", "hand", range=(-0.1, 0.1), operation="add"), "is 3 numbers a target"),
        (Term("whole", "joint_damping", "*", "integer", (1, 3)), r"searches a range \[low, high\] of real numbers"),
        (Term("none", "joint_damping", "*", range=(1.0, 1.0)), r"searches a range \[low, high\] of real numbers"),
        (Term("far", "link_mass", "foot", range=(0.5, 2.0)), "unknown body 'foot'"),
    ],
)
def test_what_cannot_be_identified_is_refused(term, message):
    motion = Motion(np.arange(3.0), np.zeros((3, 7)), np.arange(3.0), np.zeros((3, 7)))
    with pytest.raises(UsageError, match=message):
        identify(FR3, [motion], Randomization((term,)))


def test_identification_needs_no_torch():
    code = "import sys, poise.sim.identify, poise.real_robot.motion_log; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
