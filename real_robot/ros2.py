"""An arm under ros2_control behind the Driver protocol, by its topics: `ros2:fr3`, `ros2:ur5e?namespace=/left`.

    joint_states                           sensor_msgs/JointState      in: found by joint name, in whatever order
    forward_position_controller/commands   std_msgs/Float64MultiArray  out: in the order of the controller's `joints`
    target=TOPIC                           sensor_msgs/JointState      in: the pose that is followed, where published
    gripper=TOPIC                          std_msgs/Float64MultiArray  out: one number, where there is such a controller

A topic is no line: nobody answers, and a node that dies is noticed by its silence alone. So the age of the newest joint
states is this driver's watchdog. The controller has none to arm: it holds its last command. `Reading.fault` tells that
nobody listens to commands any more, that we were too late with one or, given `target`, that they are not followed; from
then on none is sent until `clear_fault`, lest the arm jumps to where we thought that it was. Without `target` the pose
that is held at first is taken to be the measured one. Legend: n joints.
"""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from ..errors import NotConnectedError, RobotError, UsageError, unknown_name
from ..robots import RobotSpec, robot_spec
from .driver import Reading
from .emulators.side_line import Sided, SideLine
from .ramp import ramp
from .ros2_node import RosNode

FOUND_WAIT = 5.0  # [s] for publishers, the controller and its order of joints to be discovered
STALE = 0.25  # [s] the newest joint states may be that old
VIRTUAL_WAIT = 2.0  # [s] for an emulator on its own clock to answer a command with joint states
GAP = 0.06  # [s] between commands to a moving arm, after which its watchdog (0.1 s) may stop it before the next arrives
SETTLE = 0.5  # [s] of joint states to let pass before the held pose is taken: a watchdog may be braking the arm
QUEUE = 10  # messages of a topic that wait: other arms may tell theirs on the same one
DEAF, APART = 0.04, 1e-4  # [s] that a followed pose may rest [rad] away from the command: eight of the QUEUE that waits
OPTIONS = ("namespace", "domain", "states", "commands", "target", "gripper", "emulator", "virtual")
NAMES = {"states": "joint_states", "commands": "forward_position_controller/commands"}


class _States(NamedTuple):
    """One message of joint states, in our order."""

    arrived: float  # [s] monotonic
    stamp: float  # [s] of its header
    joint_pos: np.ndarray  # (n,) [rad]
    joint_vel: np.ndarray  # (n,) [rad/s]
    effort: np.ndarray | None  # (n,) [N m]
    gripper_pos: float


class Ros2(Sided):
    """One arm by its topics."""

    def __init__(self, device: str, options: dict[str, str] | None = None):
        self._options = options = dict(options or {})
        for name in options:
            if name not in OPTIONS:
                raise unknown_name("ros2 option", name, OPTIONS)
        if not options.get("domain", "0").isdigit() or options.get("virtual", "0") not in ("0", "1"):
            raise UsageError("ros2 options: domain is a whole number, as ROS_DOMAIN_ID is; virtual is 0 or 1")
        known = robot_spec(device)
        self._finger = known.gripper.joints[0] if known.gripper else ""  # told by joint states all the same
        self.robot: RobotSpec = known if "gripper" in options else replace(known, gripper=None)
        self.realtime = options.get("virtual", "0") == "0"
        self._side = SideLine(options["emulator"]) if "emulator" in options else None
        self._node: RosNode | None = None
        if not self.realtime and self._side is None:
            raise UsageError("ros2 option virtual=1 is for emulators: it needs emulator=HOST:PORT beside it")

    def _topic(self, kind: str) -> str:
        name = self._options.get(kind, NAMES.get(kind, ""))
        return name if name.startswith("/") else f"{self._options.get('namespace', '')}/{name}"

    # ---- life --------------------------------------------------------------------------------

    def open(self) -> None:
        if self._side is not None:
            os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
        self._node = node = RosNode("poise", domain=int(self._options["domain"]) if "domain" in self._options else None)
        self._kinds = ("states", "target") if "target" in self._options else ("states",)
        self._states: dict[str, _States] = {}  # newest of each
        self._stamps: dict[str, float] = {}
        self._heard_of = 0  # messages, of use or not
        self._refused = ""  # why the newest message was of no use
        self._lost, self._fault, self._due = False, "", time.monotonic()
        try:
            for kind in self._kinds:
                node.subscribe(node.JointState, self._topic(kind), self._keeper(kind), QUEUE)
            self._commands = node.publisher(node.Float64MultiArray, self._topic("commands"))
            self._gripper = None
            if "gripper" in self._options:
                self._gripper = node.publisher(node.Float64MultiArray, self._topic("gripper"))
            self._begin()
        except BaseException:
            self._disconnect()
            raise

    def _begin(self) -> None:
        """Joint states, the controller and its order of joints, and the pose that it holds."""
        self._refused, began = "", time.monotonic()
        for kind in self._kinds:
            self._wait(lambda kind=kind: kind in self._states and self._states[kind].arrived >= began,
                       f"nobody publishes joint states on {self._topic(kind)}")  # fmt: skip
        self._wait(self._heard, f"nobody listens to {self._topic('commands')}; is the controller active?")
        self._order = self._controller_order()
        since = self._settled_stamp()  # what waits in queues may be older than the standstill
        for kind in self._kinds:
            self._wait(lambda kind=kind: self._states[kind].stamp >= since,
                       f"no new joint states on {self._topic(kind)}")  # fmt: skip
        self._held = self._states["target" if "target" in self._states else "states"].joint_pos
        self._velocity = self._acceleration = np.zeros(self.robot.num_joints)  # of commands
        self._fault, self._lost = "", False
        self._sent = time.monotonic()
        self._followed, self._apart = self._held, self.now()  # the followed pose, and when it last moved or was ours

    def _settled_stamp(self) -> float:
        """The stamp from which on messages tell of the present, and of a standstill."""
        self._take()
        if self._side is not None and not self.realtime:
            return float(self._side.ask("truth")["time"]) - 1e-6
        return self._states["states"].stamp + SETTLE

    def _controller_order(self) -> list[int]:
        """Where each joint of the controller's order stands in ours: by its parameter `joints`."""
        controller = self._topic("commands").rpartition("/")[0]
        names = self._open_node().parameter(controller, "joints", FOUND_WAIT)
        if names is None:
            raise NotConnectedError(f"{controller} does not tell its parameter `joints`, without which the order of "
                                    "commands is not known")  # fmt: skip
        if sorted(names) != sorted(self.robot.joints):
            raise NotConnectedError(f"{controller} commands {', '.join(names) or 'no joints'}; expected those of "
                                    f"{self.robot.name}: {', '.join(self.robot.joints)}")  # fmt: skip
        return [self.robot.joints.index(name) for name in names]

    def brake(self) -> None:
        """Our own ramp to standstill from the last commands, since a topic has no request to stop: blindly, where joint
        states stay away."""
        self._open_node()
        jerk, dt = np.array(self.robot.jerk), self.robot.servo_dt
        gentle = np.minimum(self.robot.acceleration, jerk * dt)  # what may end within a period
        late = self.realtime and time.monotonic() - self._sent > GAP  # then the arm rests at the last command
        if self._fault or late:
            return
        for position in ramp(self._held, self._velocity, self._acceleration, gentle, jerk, dt):
            self._send(position)
            self._pace()

    def clear_fault(self) -> None:
        """Find states and controller again, where one was lost, from the pose that it follows. Raises RobotError.

        The node stays: whoever comes back is matched with it anew.
        """
        self._open_node()
        if self._lost or self._fault:
            self._stamps.clear()  # a publisher that was started anew may count from zero
            self._begin()

    def close(self) -> None:
        if self._node is not None:
            with contextlib.suppress(RobotError):
                self.brake()
            self._disconnect()
        if self._side is not None:
            self._side.close()

    def _disconnect(self) -> None:
        node, self._node = self._node, None
        if node is not None:
            node.close()

    # ---- each servo period -------------------------------------------------------------------

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._states["states"].stamp

    def read(self) -> Reading:
        self._open_node()
        self._take()
        states = self._states["states"]
        if self._lost or (self.realtime and time.monotonic() - states.arrived > STALE):
            raise self._gone(f"no joint states of {self.robot.name} for {time.monotonic() - states.arrived:.2f} s")
        self._fault = self._fault or self._what_is_wrong()
        if self._fault and "target" in self._states:
            self._held = self._states["target"].joint_pos
        time_ = states.arrived if self.realtime else states.stamp
        return Reading(time_, states.stamp, states.joint_pos.copy(), states.joint_vel.copy(), self._held.copy(),
                       states.gripper_pos, states.effort, self._fault)  # fmt: skip

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        node, stamp = self._open_node(), self._states["states"].stamp
        if self._lost:
            raise self._gone("it went away")
        if self.realtime and self._velocity.any() and time.monotonic() - self._sent > GAP:
            self._fault = f"no command for {time.monotonic() - self._sent:.2f} s while the arm moved"
        if not self._fault:
            self._send(np.array(joint_pos_target, np.float64))
            if gripper_target is not None:
                self._move_gripper(node, gripper_target)
            if not self.realtime:
                self._wait(lambda: all(self._states[k].stamp > stamp for k in self._kinds) or not self._heard(),
                           "no joint states came after a command", VIRTUAL_WAIT)  # fmt: skip
        if self.realtime:
            self._pace()

    def _send(self, command: np.ndarray) -> None:
        velocity = (command - self._held) / self.robot.servo_dt
        self._velocity, self._acceleration = velocity, (velocity - self._velocity) / self.robot.servo_dt
        self._held, self._sent = command, time.monotonic()
        self._commands.publish(self._open_node().Float64MultiArray(data=command[self._order].tolist()))

    def _pace(self) -> None:
        self._due = max(self._due + self.robot.servo_dt, time.monotonic() - self.robot.servo_dt)
        time.sleep(max(0.0, self._due - time.monotonic()))

    def _move_gripper(self, node: RosNode, target: float) -> None:
        if self._gripper is None:
            raise UsageError(f"ros2:{self.robot.name} moves no gripper: name its topic of commands, as in "
                             "gripper=/gripper_controller/commands")  # fmt: skip
        self._gripper.publish(node.Float64MultiArray(data=[float(target)]))

    # ---- topics ------------------------------------------------------------------------------

    def _keeper(self, kind: str) -> Callable[[Any], None]:
        """What keeps the newest message of a topic, if it tells all joints."""
        wanted = (*self.robot.joints, *([self._finger] if self._finger else ()))

        def keep(message: Any) -> None:
            self._heard_of += 1
            place = {name: i for i, name in enumerate(message.name)}
            if missing := [name for name in self.robot.joints if name not in place]:
                self._refused = f"the last lack {', '.join(missing)}"
                return
            position, velocity, effort = (np.array(x, np.float64) for x in
                                          (message.position, message.velocity, message.effort))  # fmt: skip
            index = [place[name] for name in wanted if name in place]
            if len(position) != len(place) or not np.isfinite(position[index]).all():
                self._refused = f"the last have {len(position)} positions for {len(place)} names, or no numbers"
                return
            n, stamp = self.robot.num_joints, message.header.stamp.sec + 1e-9 * message.header.stamp.nanosec
            if stamp <= self._stamps.get(kind, -math.inf):
                self._refused = f"the stamp of the last stays at {stamp:.3f} s"
                return
            joint_pos = position[index[:n]]
            joint_vel = (
                velocity[index[:n]] if len(velocity) == len(place) else self._differences(kind, stamp, joint_pos)
            )
            self._stamps[kind] = stamp
            self._states[kind] = _States(time.monotonic(), stamp, joint_pos, joint_vel,
                                         effort[index[:n]] if len(effort) == len(place) else None,
                                         float(position[index[n]]) if len(index) > n else math.nan)  # fmt: skip

        return keep

    def _differences(self, kind: str, stamp: float, joint_pos: np.ndarray) -> np.ndarray:
        """Velocities (n,) [rad/s] of a publisher that tells positions alone."""
        last = self._states.get(kind)
        seconds = stamp - last.stamp if last else 0.0
        return (joint_pos - last.joint_pos) / seconds if last and seconds > 0.0 else np.zeros_like(joint_pos)

    def _take(self) -> None:
        """All that has arrived meanwhile; waits for new joint states, but not for long."""
        node, last, end = self._open_node(), self._states["states"], time.monotonic() + 1.5 * self.robot.servo_dt
        quiet = 0
        for _ in range(2 * QUEUE * len(self._kinds)):
            before = self._heard_of
            node.spin(0.0)
            quiet = quiet + 1 if self._heard_of == before else 0
            if quiet == 2:  # a first time rclpy only says that it has handed out one message a topic
                break
        while self.realtime and self._states["states"] is last and (left := end - time.monotonic()) > 0.0:
            node.spin(left)

    def _heard(self) -> bool:
        return self._commands.get_subscription_count() > 0

    def _what_is_wrong(self) -> str:
        if not self._heard():
            return f"nobody listens to {self._topic('commands')}"
        if (target := self._states.get("target")) is not None:
            same = np.abs(target.joint_pos - self._held).max() <= APART
            if same or not np.array_equal(target.joint_pos, self._followed):
                self._followed, self._apart = target.joint_pos, self.now()
            elif self.now() - self._apart > DEAF:
                return f"the controller of {self._topic('commands')} does not follow commands"
        return ""

    def _wait(self, done: Callable[[], bool], what: str, seconds: float | None = None) -> None:
        node, end = self._open_node(), time.monotonic() + (FOUND_WAIT if seconds is None else seconds)
        while not done():
            if time.monotonic() > end:
                raise self._gone(what)
            node.spin(0.02)

    def _gone(self, what: str) -> NotConnectedError:
        self._lost = True
        return NotConnectedError(f"ros2:{self.robot.name}: {what}{f' ({self._refused})' if self._refused else ''}; "
                                 "look at it, then clear the fault, which finds it anew")  # fmt: skip

    def _open_node(self) -> RosNode:
        if self._node is None:
            raise NotConnectedError(f"ros2:{self.robot.name} is not open; call open() first")
        return self._node

    # ---- emulators ---------------------------------------------------------------------------

    def _before_side(self) -> None:
        self._open_node()
