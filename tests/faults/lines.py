"""The faults of a line, made by a relay between a driver and its device: what each must be told as."""

from __future__ import annotations

from collections.abc import Callable

from .scene import Fault, Scene

GOES_ON, LOST = ("",), ("device", "stale")


def _line(words: str, seconds: float) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.say(words)
        scene.stream(seconds)

    return make


def _of(name: str, told: tuple[str, ...], words: str, seconds: float = 0.3) -> Fault:
    return Fault(name, told, _line(words, seconds), "line")


# Nothing is lost by TCP, and a bit that is turned gets past its checksum once in 65,536; but it may, and then a request of
# the xArm's Modbus, which has no checksum of its own, is another one.
TCP = [
    _of("delay of 5 ms", GOES_ON, "delay 0.005", 0.1),
    _of("byte by byte", GOES_ON, "pieces", 0.2),
    _of("lumps of 20 ms", GOES_ON, "lumps 0.02", 0.1),
    _of("one segment in twenty lost, sent again", GOES_ON, "retransmit 0.05", 0.1),
    _of("bits turned in one segment of ten from the device", ("", *LOST), "corrupt 0.1", 0.1),
    _of("half open", LOST, "half_open"),
    _of("half open: commands vanish", LOST, "deaf"),
    _of("half open: answers vanish", LOST, "mute"),
    _of("reset", LOST, "reset"),
    _of("closed", LOST, "end"),
]
# Nobody answers a goal, so an arm that hears none is noticed once it is far behind; this one moves too little for that.
SERIAL = [
    _of("delay of 1 ms", GOES_ON, "delay 0.001", 0.2),
    _of("byte by byte", GOES_ON, "pieces", 0.2),
    _of("lumps of 5 ms", GOES_ON, "lumps 0.005", 0.2),
    _of("one answer in twenty lost", GOES_ON, "drop 0.05", 0.2),
    _of("one answer in ten twice", GOES_ON, "duplicate 0.1", 0.2),
    _of("bits turned in one answer of twenty", GOES_ON, "corrupt 0.05", 0.2),
    _of("half open", LOST, "half_open"),
    _of("half open: requests and goals vanish", LOST, "deaf"),
    _of("half open: answers vanish", LOST, "mute"),
    _of("the port goes away", LOST, "reset"),
]
TOPICS = [
    _of("delay of 5 ms", GOES_ON, "delay 0.005", 0.6),
    _of("delay of 0.3 s", LOST, "delay 0.3", 1.5),
    _of("one message in ten lost", GOES_ON, "drop 0.1", 0.6),
    _of("one message in ten twice", GOES_ON, "duplicate 0.1", 0.6),
    _of("a bit turned in one message of fifty", ("", "device"), "corrupt 0.02", 0.6),
    _of("half open", LOST, "half_open", 1.0),
    _of("half open: commands vanish", LOST, "deaf", 1.0),
    _of("half open: states vanish", LOST, "mute", 1.0),
    _of("the nodes go away", LOST, "reset", 1.0),
]
# Where datagrams are lost, answers go on from what the robot has filled in; one that comes twice or has a bit turned is
# none that was sent, and the robot may stop by its own reflex.
DATAGRAMS = [
    _of("delay of 0.3 ms", GOES_ON, "delay 0.0003", 1.0),
    _of("delay of 3 ms", LOST, "delay 0.003", 1.0),
    _of("one datagram in fifty lost", GOES_ON, "drop 0.02", 1.0),
    _of("one datagram in ten lost", ("", "device"), "drop 0.1", 1.0),
    _of("ten gaps of 5 ms in a second", GOES_ON, "gaps 0.005", 1.0),
    _of("one datagram in ten twice", ("", "device"), "duplicate 0.1", 1.0),
    _of("a bit turned in one datagram of fifty", ("", "device"), "corrupt 0.02", 1.0),
    _of("half open", LOST, "half_open", 1.0),
    _of("reset", LOST, "reset", 1.0),
]
LINES = {"xarm7": TCP, "ur5e": TCP, "so101": SERIAL, "vx300s": SERIAL, "ros2": TOPICS, "fr3": DATAGRAMS}
PORTS = {"xarm7": (502, 30001, 30002, 30003), "ur5e": (29999, 30003, 30004)}
