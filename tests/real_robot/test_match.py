"""Spec match: every difference between a policy and an arm is found and named, and nothing else."""

import itertools
from dataclasses import replace

import pytest

from poise.errors import SpecError
from poise.real_robot.camera import CameraOptions
from poise.real_robot.drivers import address_robot
from poise.real_robot.match import check_match, differences, offered, readings_of, seen_through
from poise.robots import FR3, ROBOTS
from poise.sim.make import load_task
from poise.sim.tasks.reach import reach_spec
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = reach_spec()
GOALS = {t.name: t for t in SPEC.observations["state"] if t.source == "goal"}
ARM = SPEC.actions[0]


def with_term(name: str, /, **changes) -> Spec:
    terms = tuple(replace(t, **changes) if t.name == name else t for t in SPEC.observations["state"])
    return replace(SPEC, observations={"state": terms})


def with_arm(**changes) -> Spec:
    return replace(SPEC, actions=(replace(ARM, **changes),))


def with_gripper(**changes) -> Spec:
    return replace(SPEC, actions=(ARM, replace(GRIPPER, **changes)))


def changed(values, i, value):
    return (*values[:i], value, *values[i + 1 :])


GRIPPER = ActionTerm("gripper", "control", ("gripper",), (0.0,), (0.04,), unit="m")
EXTRA = replace(SPEC, observations={"state": (*SPEC.observations["state"], ObsTerm("force", (3,), "robot", "N"))})
CAMERA = replace(SPEC, observations={**SPEC.observations, "wrist": (ObsTerm("wrist", (64, 64, 3), "camera", "1", "uint8"),)})  # fmt: skip


def looking(intrinsics=(), shape=(84, 84, 3), name="front") -> Spec:
    seen = ObsTerm(name, shape, "camera", "1", "uint8", intrinsics=intrinsics)
    return replace(SPEC, observations={**SPEC.observations, name: (seen,)})


FRONT = {"front": CameraOptions(640, 480, intrinsics="600,610,330,250")}  # of 84 x 84: 105, 106.75, 43.75, 43.75
GOALS |= offered(looking(), FRONT)
MUTATIONS = {
    "another robot": (replace(SPEC, robot="ur5e"), "robot: the policy is for 'ur5e'"),
    "no robot": (replace(SPEC, robot=""), "robot: the policy is for 'none'"),
    "joint order": (with_arm(joints=ARM.joints[::-1]), "expected, in this order, fr3_joint1"),
    "joint names": (with_arm(joints=tuple(f"panda_joint{i}" for i in range(7))), "panda_joint0"),
    "fewer joints": (with_arm(**{f: getattr(ARM, f)[:6] for f in ("joints", "low", "high", "scale", "lead", "home",
                                                                  "max_velocity", "max_acceleration")}), "joints"),
    "control": (with_arm(kind="control"), "kind 'control', the arm takes joint_pos"),
    "unknown kind": (with_arm(kind="unknown"), "its kind is unknown"),
    "discrete": (replace(SPEC, actions=(ActionTerm("move", "discrete", n=4),)), "kind 'discrete'"),
    "two grippers": (replace(SPEC, actions=(ARM, GRIPPER, replace(GRIPPER, name="other"))), "found arm, gripper, other"),
    "two arms": (replace(SPEC, actions=(ARM, replace(ARM, name="other"))), "expected one term for the joints of fr3"),
    "a gripper alone": (replace(SPEC, actions=(GRIPPER,)), "found gripper"),
    "another gripper": (with_gripper(joints=("finger_joint1",)), "moves finger_joint1; expected gripper"),
    "a gripper without a name": (with_gripper(joints=()), "moves what it does not name; expected gripper"),
    "the gripper's unit": (with_gripper(unit="rad"), "unit expected 'm', found 'rad'"),
    "a width in place of a finger's way": (with_gripper(high=(0.08,)), "[0, 0.08] are no part of [0, 0.04] m: this "
                                           "gripper is closed at 0 and open at 0.04"),
    "a gripper from -1 to 1": (with_gripper(low=(-1.0,), high=(1.0,)), "[-1, 1] are no part of [0, 0.04]"),
    "a gripper of no way": (with_gripper(low=(0.02,), high=(0.02,)), "[0.02, 0.02] are no part"),
    "the gripper's reading": (replace(SPEC, observations={"state": (*SPEC.observations["state"], ObsTerm(
        "gripper_pos", (1,), "robot", "1"))}), "state/gripper_pos: unit expected '1', here it is 'm'"),
    "no action": (replace(SPEC, actions=()), "found none"),
    "degrees": (with_arm(unit="deg"), "unit expected 'rad', found 'deg'"),
    "unknown action unit": (with_arm(unit="unknown"), "unit expected 'rad', found 'unknown'"),
    "low bound": (with_arm(low=changed(ARM.low, 1, -2.0)), "fr3_joint2: bounds [-2,"),
    "high bound": (with_arm(high=changed(ARM.high, 3, 0.0)), "fr3_joint4: bounds"),
    "empty bounds": (with_arm(low=changed(ARM.low, 0, 1.0), high=changed(ARM.high, 0, 1.0)), "fr3_joint1: bounds [1, 1]"),
    "velocity": (with_arm(max_velocity=changed(ARM.max_velocity, 0, 2.63)), "max_velocity 2.63 rad/s, the arm allows 2.62"),
    "no velocity": (with_arm(max_velocity=changed(ARM.max_velocity, 0, 0.0)), "max_velocity 0"),
    "acceleration": (with_arm(max_acceleration=changed(ARM.max_acceleration, 6, 11.0)), "fr3_joint7: max_acceleration 11"),
    "lead": (with_arm(lead=changed(ARM.lead, 2, 0.0)), "fr3_joint3: lead 0"),
    "home": (with_arm(reference="home", home=changed(ARM.home, 3, 0.0)), "fr3_joint4: home 0"),
    "period": (replace(SPEC, control_dt=0.033), "control_dt: 0.033 s is no whole multiple"),
    "unknown period": (replace(SPEC, notes={"control_dt": "unknown"}), "control_dt: unknown"),
    "too fast": (replace(SPEC, control_dt=0.001), "control_dt"),
    "unknown source": (with_term("joint_pos", source="unknown"), "state/joint_pos: its source is unknown"),
    "unknown unit": (with_term("joint_vel", unit="unknown"), "state/joint_vel: its unit is unknown"),
    "unit": (with_term("joint_pos", unit="deg"), "unit expected 'deg', here it is 'rad'"),
    "shape": (with_term("joint_pos", shape=(8,)), "shape expected (8,), here it is (7,)"),
    "source": (with_term("tool_pos", source="camera"), "source expected 'camera', here it is 'kinematics'"),
    "frame": (with_term("tool_pos", frame="world"), "frame expected 'world', here it is 'base'"),
    "name": (with_term("joint_pos", name="qpos"), "state/qpos: not available here"),
    "goal's unit": (with_term("target_pos", unit="mm"), "unit expected 'mm'"),
    "goal's name": (with_term("target_pos", name="cube_pos"), "state/cube_pos: not available here"),
    "a sensor that is not there": (EXTRA, "state/force: not available here"),
    "a camera of another lens": (looking((80.0, 80.0, 42.0, 42.0)), "fx, fy, cx, cy expected 80, 80, 42, 42 pixels of "
                                 "the policy's picture, here they are 105, 106.8, 43.75, 43.75"),
    "a camera that looks aside": (looking((105.0, 106.8, 20.0, 43.75)), "expected 105, 106.8, 20, 43.75"),
    "a camera that is not there": (CAMERA, "wrist/wrist: not available here"),
}  # fmt: skip


@pytest.mark.parametrize("name", MUTATIONS)
def test_a_policy_that_does_not_fit_is_refused_with_the_difference_named(name):
    spec, expected = MUTATIONS[name]
    lines = differences(spec, FR3, GOALS)
    assert any(expected in line for line in lines), lines
    with pytest.raises(SpecError, match="does not fit fr3"):
        check_match(spec, FR3, GOALS)


def test_only_the_difference_there_is_gets_named():
    for name in MUTATIONS:
        assert len(differences(MUTATIONS[name][0], FR3, GOALS)) == 1, name


def test_all_differences_are_listed_at_once():
    spec = replace(with_arm(unit="deg"), robot="ur5e", control_dt=0.033)
    with pytest.raises(SpecError) as error:
        check_match(spec, FR3)
    for part in ("robot", "control_dt", "unit", "target_pos"):
        assert part in str(error.value)
    assert str(error.value).count("\n  - ") == 4


def test_a_lens_that_is_known_on_one_side_alone():
    nobody_measured = offered(looking(), {"front": CameraOptions()})
    (line,) = differences(looking((105.0, 106.8, 43.75, 43.75)), FR3, GOALS | nobody_measured)
    assert "of the one here they are not known; calibrate it, and write ?intrinsics=fx,fy,cx,cy" in line
    assert differences(looking(), FR3, GOALS) == [], "a policy that does not say which it was looks through any"
    assert differences(looking((106.0, 106.0, 42.5, 43.0)), FR3, GOALS) == [], "as near as calibrations come"
    shown = seen_through(looking(), FRONT)
    assert shown.observations["front"][0].intrinsics == pytest.approx((105.0, 106.75, 43.75, 43.75))
    assert differences(Spec.from_json(shown.to_json()), FR3, GOALS) == [] and shown.diff(looking()) == []
    assert "intrinsics expected" in shown.diff(looking((80.0, 80.0, 42.0, 42.0)))[0]
    with pytest.raises(SpecError, match="are not fx, fy, cx, cy in pixels"):
        looking((1.0, 2.0))


def test_a_gripper_that_is_not_mounted_is_a_difference():
    bare = replace(FR3, gripper=None)
    (line,) = differences(with_gripper(), bare, GOALS)
    assert "moves a gripper, and this fr3 has none" in line
    seen = replace(SPEC, observations={"state": (*SPEC.observations["state"], readings_of(FR3)["gripper_pos"])})
    assert "state/gripper_pos: not available here" in differences(seen, bare, GOALS)[0]
    for address in ("ur:127.0.0.1", "xarm:127.0.0.1", "franka:127.0.0.1?gripper=0", "ros2:fr3"):
        assert address_robot(address).gripper is None, address
    for address in ("xarm:127.0.0.1?gripper=1", "franka:127.0.0.1", "ros2:fr3?gripper=g", "twin:ur5e"):
        assert address_robot(address).gripper is not None, address


@pytest.mark.parametrize("robot", ROBOTS)
def test_every_arm_takes_the_tasks_with_a_gripper(robot):
    for task in (f"lift/{robot}", f"pick-place/{robot}"):
        spec = load_task(task).spec
        outside = {t.name: t for terms in spec.observations.values() for t in terms if t.source in ("goal", "external")}
        assert differences(spec, ROBOTS[robot], outside) == []
        assert differences(replace(spec, actions=spec.actions[::-1]), ROBOTS[robot], outside) == []


def test_no_policy_that_fits_is_refused():
    assert differences(with_gripper(), FR3, GOALS) == []
    assert differences(with_gripper(low=(0.01,), high=(0.03,)), FR3, GOALS) == [], "a part of its way"
    assert differences(SPEC, FR3, GOALS) == []
    assert differences(Spec.from_json(SPEC.to_json()), FR3, GOALS) == []
    terms = list(readings_of(FR3).values())
    for count in range(1, len(terms) + 1):
        for chosen in itertools.permutations(terms, count):
            assert differences(replace(SPEC, observations={"anything": chosen}), FR3) == []
    for control_dt in (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 1.0):
        assert differences(replace(SPEC, control_dt=control_dt), FR3, GOALS) == []
    for reference in ("measured", "last_target", "home"):
        assert differences(with_arm(reference=reference), FR3, GOALS) == []
    full = with_arm(low=FR3.position_low, high=FR3.position_high, max_velocity=FR3.velocity,
                    max_acceleration=FR3.acceleration, scale=(-0.2,) * 7, lead=(9.0,) * 7)  # fmt: skip
    assert differences(full, FR3, GOALS) == []
    assert differences(replace(SPEC, notes={"anything": 1}), FR3, GOALS) == []
    stacked = tuple(replace(t, history=3) for t in SPEC.observations["state"])  # the policy keeps earlier frames itself
    assert differences(replace(SPEC, observations={"state": stacked}), FR3, GOALS) == []
    bounded = with_term("joint_pos", low=-3.0, high=3.0)
    assert differences(bounded, FR3, GOALS) == []
