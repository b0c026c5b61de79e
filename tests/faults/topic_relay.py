"""A bad line between a driver and an arm under ros2_control: a node that passes topics from one namespace to another.

Joint states and followed poses come from the arm, commands go to it. What is said (see relay.py) holds for what comes:

    drop P | duplicate P     shares of messages
    corrupt P                one position has a bit turned
    delay S                  both ways
    half_open | deaf | mute  nothing passes; none to the arm; none from it
    reset                    publishers, subscriptions and parameters go, until something else is said
    clear                    answered once nothing is under way any more

ROS's own messages to a controller are neither lost nor doubled (RELIABLE), so commands pass unchanged or not at all.
"""

from __future__ import annotations

import os
import select
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.relay import Words, answer, arguments
from poise.real_robot.emulators.ros2 import CONTROLLER
from poise.real_robot.realtime import go_first
from poise.real_robot.ros2_node import RosNode

TOPICS = ("joint_states", "desired_joint_states")
COMMANDS = f"{CONTROLLER}/commands"


class TopicRelay:
    """The arm's topics under another namespace."""

    def __init__(self, namespace: str, arm: str, words: Words):
        self._namespace, self._words = namespace, words
        self._node: RosNode | None = None
        self._later: list[tuple[float, Callable[[Any], None], Any]] = []
        self._to_answer = False
        self._arm = node = RosNode("relay_of_faults", arm)
        for topic in TOPICS:
            node.subscribe(node.JointState, f"{arm}/{topic}", lambda m, topic=topic: self._from_arm(topic, m), 10)
        self._to_arm = node.publisher(node.Float64MultiArray, f"{arm}/{COMMANDS}")
        joints = node.parameter(f"{arm}/{CONTROLLER}", "joints", 10.0)
        assert joints is not None, "the arm's controller does not tell its joints"
        self._joints = joints

    def open(self) -> None:
        self._node = node = RosNode(CONTROLLER, self._namespace)
        node.declare("joints", self._joints)
        self._told = {topic: node.publisher(node.JointState, f"{self._namespace}/{topic}") for topic in TOPICS}
        node.subscribe(node.Float64MultiArray, f"{self._namespace}/{COMMANDS}", self._from_driver, 10)

    def run(self) -> None:
        while True:
            self._arm.spin(0.0005)
            if self._node is not None:
                self._node.spin(0.0005)
            now = time.monotonic()
            while self._later and self._later[0][0] <= now:
                _, publish, message = self._later.pop(0)
                publish(message)
            if self._to_answer and not self._later:
                self._to_answer = False
                answer()
            if select.select([self._words.input], [], [], 0.0)[0]:
                if not self._words.read():
                    return
                self._begin()

    def _begin(self) -> None:
        if self._words.word == "reset" and self._node is not None:
            self._node.close()
            self._node = None
        elif self._words.word != "reset" and self._node is None:
            self.open()
        if self._words.word == "clear":
            self._to_answer = True
        else:
            answer()

    def _from_arm(self, topic: str, message: Any) -> None:
        words = self._words
        if self._node is None or words.word in ("half_open", "mute") or words.befalls("drop"):
            return
        if words.befalls("corrupt"):
            which = words.random.randrange(len(message.position))
            message.position[which] = struct.unpack("<d", words.bit_turned(struct.pack("<d", message.position[which])))[
                0
            ]
        for _ in range(1 + words.befalls("duplicate")):
            self._publish(self._told[topic].publish, message)

    def _from_driver(self, message: Any) -> None:
        if self._words.word not in ("half_open", "deaf"):
            self._publish(self._to_arm.publish, message)

    def _publish(self, publish: Callable[[Any], None], message: Any) -> None:
        if self._words.word == "delay":
            self._later.append((time.monotonic() + self._words.value, publish, message))
        else:
            publish(message)


def main() -> None:
    options = arguments()
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    relay = TopicRelay(options.listen, options.to, Words(options.seed))
    relay.open()
    go_first(25)
    answer()
    relay.run()


if __name__ == "__main__":
    main()
