"""An emulated arm under ros2_control: `python -m poise.real_robot.emulators ros2:fr3`, topics on this machine alone.

    joint_states                           sensor_msgs/JointState, every servo period, joints in an order of its own
    desired_joint_states                   the same of the pose that is followed
    forward_position_controller/commands   std_msgs/Float64MultiArray, in the order of its parameter `joints`
    gripper_controller/commands            std_msgs/Float64MultiArray, one number

`--link NAMESPACE` puts the topics under a namespace. Neither order of joints is ours: who maps by name is right. On a
virtual clock every command is answered by one message of joint states, stamped with the emulator's time.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from ...robots import RobotSpec
from ..ros2_node import RosNode
from .arm import ArmOptions
from .coasting import CoastingEmulator

CONTROLLER, GRIPPER = "forward_position_controller", "gripper_controller"
SLOW = 0.6  # [s] between joint states where they come rarely
ASLEEP = 1.0  # [s] that the controller stays away where commands stop while the arm moves: until none is under way


class Ros2Emulator(CoastingEmulator):
    """The arm, its broadcaster of joint states, and its forward controller."""

    FAULTS: ClassVar = {
        "silent": "no joint states any more",
        "slow": f"joint states every {SLOW} s",
        "frozen": "the same joint states, with the same stamp, for ever",
        "nan": "joint states that are no numbers",
        "missing_joint": "joint states without the first joint",
        "short": "joint states with fewer positions than names",
        "jumbled": "joint states in another order every time",
        "controller_gone": "nobody listens to commands, as where the controller is deactivated; the arm brakes",
        "deaf": "the controller hears commands and follows none; the arm brakes",
        "renamed": "a second publisher tells joint states of another arm on the same topic",
    }

    def __init__(self, robot: RobotSpec, namespace: str, options: ArmOptions, virtual: bool):
        super().__init__(robot, options, virtual)
        self.namespace = namespace
        names = (*robot.joints, *(robot.gripper.joints if robot.gripper else ()))
        self._told = sorted(names, key=lambda name: name[::-1])  # joint_states' order
        self._order = [robot.joints[i] for i in range(robot.num_joints - 1, -1, -1)]  # commands' order
        self._index = [robot.joints.index(name) for name in self._order]
        self._count, self._last_told, self._subscription = 0, -np.inf, None
        self._frozen: Any = None
        self._asleep = -np.inf

    @property
    def address(self) -> str:
        return f"ros2:{self.robot.name}?target={self.namespace}/desired_joint_states" + (
            f"&namespace={self.namespace}" if self.namespace else "")  # fmt: skip

    def open(self) -> None:
        os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self._node = node = RosNode(CONTROLLER, self.namespace or "/")
        node.declare("joints", self._order)
        self._states = node.publisher(node.JointState, f"{self.namespace}/joint_states")
        self._desired = node.publisher(node.JointState, f"{self.namespace}/desired_joint_states")
        self._listen()
        if self.robot.gripper:
            node.subscribe(node.Float64MultiArray, f"{self.namespace}/{GRIPPER}/commands", self._grip, 1)

    def serve(self) -> None:
        """Commands as they come; on a virtual clock the joint states now and then too, for whoever comes anew."""
        while not self.ended.is_set():
            before = self._count
            self._node.spin(0.05)
            gone = self.has("controller_gone") or time.monotonic() < self._asleep
            if gone and self._subscription is not None:
                self._node.forget(self._subscription)
                self._subscription = None
            elif not gone and self._subscription is None:
                self._listen()
            if self.virtual and self._count == before:
                self._tell()

    def inject(self, fault: str) -> None:
        if fault in ("controller_gone", "deaf"):
            self.come_to_rest()

    def obeys(self) -> bool:
        awake = self._subscription is not None and time.monotonic() >= self._asleep
        return awake and not (self.has("controller_gone") or self.has("deaf"))

    def given_up(self) -> None:
        """Deactivate the controller, as a watchdog over the controllers does."""
        self._asleep = time.monotonic() + ASLEEP

    def cleared(self) -> None:
        """Activate it, as a person does who has found the cause."""
        self._asleep = -np.inf

    def tick(self) -> None:
        super().tick()
        self._tell()

    # ---- topics ------------------------------------------------------------------------------

    def _listen(self) -> None:
        topic = f"{self.namespace}/{CONTROLLER}/commands"
        self._subscription = self._node.subscribe(self._node.Float64MultiArray, topic, self._command, 10)

    def _command(self, message: Any) -> None:
        values = np.array(message.data)
        with self.lock:
            if not self.obeys() or self._ramp:
                if self.virtual:
                    self._advance()
                return
            command = np.full(self.robot.num_joints, np.nan)
            if len(values) == len(command):
                command[self._index] = values
            self.follow(command)

    def _grip(self, message: Any) -> None:
        self.grip(float(message.data[0]))

    def _tell(self) -> None:
        """The joint states, as the faults that are on have them."""
        with self.lock:
            self._count += 1
            if self.has("silent") or (self.has("slow") and self.arm.time - self._last_told < SLOW):
                return
            self._last_told = self.arm.time
            joint_pos, joint_vel = self.arm.measure()
            message = self._message(joint_pos, joint_vel, self.arm.joint_effort)
            self._frozen = (self._frozen or message) if self.has("frozen") else None
            self._states.publish(self._frozen or message)
            self._desired.publish(self._message(self.held, np.zeros_like(self.held), np.zeros_like(self.held), False))
            if self.has("renamed"):
                message.name = [f"other_{name}" for name in message.name]
                self._states.publish(message)

    def _message(self, joint_pos: Sequence[float] | np.ndarray, joint_vel: np.ndarray, effort: np.ndarray,
                 whole: bool = True) -> Any:  # fmt: skip
        """One of joint states; whole: with the gripper's fingers and with what faults do to it."""
        robot = self.robot
        rows = {name: (q, v, f) for name, q, v, f in zip(robot.joints, joint_pos, joint_vel, effort, strict=True)}
        if whole and robot.gripper:
            rows |= {name: (self.arm.gripper_pos, 0.0, 0.0) for name in robot.gripper.joints}
        names = [name for name in self._told if name in rows]
        if whole and self.has("missing_joint"):
            names.remove(robot.joints[0])
        if whole and self.has("jumbled"):
            turn = self._count % len(names)
            names = names[turn:] + names[:turn]
        message = self._node.JointState(name=names)
        message.header.stamp.sec, nanoseconds = divmod(round(self.arm.time * 1e9), 10**9)
        message.header.stamp.nanosec = nanoseconds
        message.position, message.velocity, message.effort = (
            [float(rows[name][k]) for name in names] for k in range(3))  # fmt: skip
        if whole and self.has("nan"):
            message.position = [np.nan] * len(names)
        if whole and self.has("short"):
            message.position = message.position[:-1]
        return message
