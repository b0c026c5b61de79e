"""Anyone's model of an arm: what is taken, and what is refused with what differs."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.kinematics import forward_kinematics
from poise.robots import ROBOTS, SO101, UR5E, RobotSpec
from poise.sim.arm_file import ASSETS, read_arm
from poise.sim.make import make
from poise.sim.scene import arm_scene

TETRAHEDRON = '<mesh name="rock" vertex="0 0 0  0.1 0 0  0 0.1 0  0 0 0.1"/>'


@pytest.fixture
def altered(tmp_path):
    """A copy of an arm's file with some texts replaced: its path."""

    def write(robot: RobotSpec, *changes: tuple[str, str]) -> str:
        text = (ASSETS / f"{robot.name}.xml").read_text()
        for old, new in changes:
            assert old in text, old
            text = text.replace(old, new)
        path = tmp_path / f"my_{robot.name}.xml"
        path.write_text(text)
        return str(path)

    return write


@pytest.mark.parametrize("name", ROBOTS)
def test_poises_own_file_passes_its_own_checks(name):
    robot = ROBOTS[name]
    assert read_arm(robot, str(ASSETS / f"{name}.xml"), gripper=True).compile().nu == robot.num_joints + 1


def test_a_prettier_model_with_other_masses_gains_and_servo_names_moves_the_same_arm(altered):
    path = altered(
        UR5E,
        ("<worldbody>", '<worldbody><geom name="ground" type="plane" size="1 1 1"/><light pos="0 0 2"/>'),
        ("</asset>", TETRAHEDRON + "</asset>"),
        ('<geom name="ur5e_link3_tube"', '<geom type="mesh" mesh="rock" contype="0" conaffinity="0"/><geom name="x"'),
        ('mass="8.058"', 'mass="9"'),
        ('name="elbow_joint" joint="elbow_joint" kp="6000"', 'name="elbow" joint="elbow_joint" kp="5000"'),
        ('<site name="tool" class="ur5e" pos="0 0 0.1558"/>', ""),
    )
    model = read_arm(UR5E, path).compile()
    assert model.nmesh == 1 and model.nlight == 0
    assert "ground" not in [model.geom(i).name for i in range(model.ngeom)]
    assert model.actuator("elbow_joint").gainprm[0] == 5000 and model.body("ur5e_link2").mass[0] == 9
    data = mujoco.MjData(model)
    for q in np.random.default_rng(0).uniform(-2, 2, (5, 6)):
        data.qpos[:6] = q
        mujoco.mj_kinematics(model, data)
        position, rotation = forward_kinematics(UR5E, q)
        np.testing.assert_allclose(data.site("tool").xpos, position, atol=1e-6)
        np.testing.assert_allclose(data.site("tool").xmat.reshape(3, 3), rotation, atol=1e-6)


def test_tasks_take_another_model_as_an_option(altered):
    path = altered(SO101, ('kp="200"', 'kp="150"'), ('damping="0.6"', 'damping="0"'))
    env = make(f"reach/so101?mjcf={path}", 2, randomize="default", threads=1)
    env.reset(0)
    assert env.step(torch.zeros(2, 5)).reward.isfinite().all()
    assert env.engine.model.actuator("shoulder_lift").gainprm[0] == 150
    assert env.spec == make("reach/so101", 2).spec
    assert env.state_dict()["task"] == "reach/so101"


REFUSED = [
    ([('name="elbow_flex" range', 'name="elbow" range'), ('joint="elbow_flex"', 'joint="elbow"')],
     "unknown joint of so101 in .*: 'elbow_flex'; did you mean elbow"),
    ([('<position class="so101" name="wrist_flex" joint="wrist_flex"/>', "")],
     "joint wrist_flex needs one actuator, and none drive it"),
    ([('<position class="so101" name="wrist_flex" joint="wrist_flex"/>', '<motor joint="wrist_flex"/>')],
     "the actuator of wrist_flex is no position servo"),
    ([('pos="-0.11257 -0.028 0"', 'pos="-0.12257 -0.028 0"')],
     "at home, the axis of elbow_flex passes 10.0 mm from where it should"),
    ([('<joint name="shoulder_lift"', '<joint name="shoulder_lift" axis="0 0 -1"')],
     "the axis of shoulder_lift points 180.0 degrees away"),
    ([('<body name="so101_link0"', '<body name="so101_link0" quat="0 0 0 1"')],
     "the axis of .* where it should .the base must stand at the origin, turned as docs/arms.md says"),
    ([('pos="0.0058 0 -0.0935"', 'pos="0.0058 0.003 -0.0935"')], "its tool is 3.0 mm from"),
    ([('<joint name="wrist_roll"', '<joint type="slide" name="wrist_roll"')], "wrist_roll of so101 is no hinge"),
    ([("<worldbody>", "<worldboddy>")], "MuJoCo cannot read .*my_so101.xml: .*Line number"),
    ([('material="so101_pad"', 'material="velvet"')], "MuJoCo cannot (read|compile) .*my_so101.xml: .*velvet"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), REFUSED)
def test_another_arm_is_refused_with_what_differs(altered, changes, message):
    with pytest.raises(UsageError, match=message) as caught:
        read_arm(SO101, altered(SO101, *changes))
    assert "\n" not in str(caught.value)


def test_a_gripper_that_is_moved_must_be_the_one_of_the_robot(altered):
    other = altered(SO101, ('name="gripper" joint="gripper" kp', 'name="claw" joint="gripper" kp'))
    assert read_arm(SO101, other).compile().nu == 6
    with pytest.raises(UsageError, match=r"unknown actuator of so101's gripper in .*: 'gripper'"):
        arm_scene(SO101, other)
    narrow = altered(SO101, ('kp="20" kv="1"', 'kp="20" kv="1" inheritrange="0" ctrlrange="0 1"'))
    with pytest.raises(UsageError, match=r"commands of gripper should run from -0.17 to 0.9 rad, and run from 0 to 1"):
        arm_scene(SO101, narrow)


def test_a_file_that_is_not_there_and_a_joint_in_front_of_the_arm(altered):
    with pytest.raises(UsageError, match=r"there is no file nowhere\.xml"):
        read_arm(UR5E, "nowhere.xml")
    rail = (
        '<body name="so101_link0" childclass="so101">',
        '<body name="so101_link0"><joint name="rail" type="slide"/>',
    )
    with pytest.raises(UsageError, match="the joints of so101 must come first"):
        read_arm(SO101, altered(SO101, rail))
