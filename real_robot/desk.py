"""The desk: what teleoperation pages say, and which one of them drives. Pure: time comes as an argument, no socket.

    lease   one page drives; it gives the lease back, leaves, or is silent for LEASE, and another may take it
    switch  a wish counts only while its page says that the dead-man's switch is held, and for DEADMAN after it said so;
            who takes the lease, sees a stop released or was silent for PAUSE must let go of it once before it counts
    age     a page stamps what it sends; what was held up on the way is too old to be a wish

Whatever a page says is data from outside: of stated types, finite, of bounded size, or it is refused with a reason.
Anybody may stop the arm; only the page that drives may release a stop or record.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ..errors import UsageError
from ..kinematics import rotation_matrix
from ..robots import RobotSpec
from .jog import Wish

DEADMAN = 0.2  # [s] that a wish lasts
PAUSE = 1.0  # [s] of silence after which a switch that is still held does not count
LEASE = 3.0  # [s] of silence after which another page may drive
DRIFT = 2e-3  # [s/s] by which two clocks may run apart
REQUESTS = ("clear", "record", "success", "failure", "discard")
FARTHEST = 100.0  # of any number in a message: no hand is so far [m], nobody wants such speeds


class Desk:
    """Where pages put down their wishes; the loop that drives picks them up."""

    def __init__(self, robot: RobotSpec, stop: Callable[[], None]):
        """stop: called at once, on the thread of whoever says so."""
        self._robot, self._stop = robot, stop
        self._lock = threading.Lock()
        self.holder = ""  # the page that drives
        self._heard = -math.inf  # when the holder was heard last
        self._wish: Wish | None = None
        self._until = -math.inf  # how long the wish counts
        self._released = False  # whether the switch has been let go of since it last had to be
        self._clocks: dict[str, tuple[float, float]] = {}  # page -> (offset, when): arrival minus stamp, at the least
        self._requests: list[str] = []

    # ---- what pages say ----------------------------------------------------------------------

    def hear(self, page: str, message: Any, now: float) -> None:
        """Take in one message of a page.

        Raises:
            UsageError: what is wrong with it; nothing has changed.
        """
        if not isinstance(message, Mapping):
            raise UsageError("a message is a JSON object with `do`")
        match message.get("do"):
            case "stop":
                with self._lock:
                    self._wish = None
                self._stop()
            case "take":
                self._take(page, now)
            case "leave":
                self.left(page)
            case "drive":
                self._drive(page, message, now)
            case str() as request if request in REQUESTS:
                self._require(page)
                with self._lock:
                    self._requests.append(request)
            case other:
                raise UsageError(f"`do` is take, drive, leave, stop, {', '.join(REQUESTS)}; not {str(other)[:40]!r}")

    def left(self, page: str) -> None:
        """A page gave the lease back, or is gone."""
        with self._lock:
            if page == self.holder:
                self.holder, self._wish = "", None

    def gone(self, page: str) -> None:
        """A page's connection is closed."""
        self.left(page)
        self._clocks.pop(page, None)

    def _take(self, page: str, now: float) -> None:
        with self._lock:
            if self.holder not in ("", page) and now - self._heard <= LEASE:
                raise UsageError("another page drives; it has to give back the lease first")
            if page != self.holder:
                self._released, self._wish = False, None
            self.holder, self._heard = page, now

    def _require(self, page: str) -> None:
        if page != self.holder:
            raise UsageError("this page does not drive; take the lease first")

    def _drive(self, page: str, message: Mapping[str, Any], now: float) -> None:
        held, stamp = message.get("held"), _number("t", message.get("t"), math.inf)
        if not isinstance(held, bool):
            raise UsageError("held is true or false: whether the dead-man's switch is")
        wish = self._read(message) if held else None
        age = self._age(page, stamp, now)
        with self._lock:
            self._require(page)
            if now - self._heard > PAUSE:
                self._released = False
            self._heard = now
            if wish is None:
                self._wish, self._released = None, True
            elif self._released and age <= DEADMAN:
                self._wish, self._until = wish, now + DEADMAN - age

    def _read(self, message: Mapping[str, Any]) -> Wish:
        hand = message.get("hand")
        if hand is not None:
            hand = _numbers("hand", hand, 7)
            if abs(np.linalg.norm(hand[3:]) - 1.0) > 0.01:
                raise UsageError("hand is a position and a unit quaternion (w, x, y, z)")
        joints = message.get("joints")
        opening = message.get("opening")
        return Wish(
            _numbers("linear", message.get("linear", (0.0, 0.0, 0.0)), 3),
            _numbers("angular", message.get("angular", (0.0, 0.0, 0.0)), 3),
            None if joints is None else _numbers("joints", joints, self._robot.num_joints),
            None if hand is None else (hand[:3], rotation_matrix(hand[3:] / np.linalg.norm(hand[3:]))),
            min(max(_number("gripper", message.get("gripper", 0.0)), -1.0), 1.0),
            None if opening is None else min(max(_number("opening", opening), 0.0), 1.0),
        )

    def _age(self, page: str, stamp: float, now: float) -> float:
        """How long a message was on its way beyond the quickest of its page [s]; the page's clock is its own."""
        offset, when = self._clocks.get(page, (math.inf, now))
        offset = min(now - stamp, offset + DRIFT * (now - when))
        self._clocks[page] = offset, now
        return now - stamp - offset

    # ---- what the loop asks ------------------------------------------------------------------

    def wish(self, now: float) -> Wish | None:
        """What is wanted now; None where nobody holds the switch."""
        with self._lock:
            if self._wish is not None and now > self._until:
                self._wish = None
            return self._wish

    def must_release(self) -> None:
        """After a stop: the switch counts again once it has been let go of."""
        with self._lock:
            self._wish, self._released = None, False

    def requests(self) -> list[str]:
        """What the driving page has asked for since."""
        with self._lock:
            asked, self._requests = self._requests, []
            return asked


def _number(name: str, value: Any, largest: float = FARTHEST) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise UsageError(f"{name} is a finite number, not {str(value)[:40]!r}")
    if abs(value) > largest:
        raise UsageError(f"{name} is {value:.4g}; at most {largest:g} makes sense")
    return float(value)


def _numbers(name: str, value: Any, count: int) -> np.ndarray:
    if not isinstance(value, list | tuple) or len(value) != count:
        raise UsageError(f"{name} is a list of {count} numbers")
    return np.array([_number(name, x) for x in value])
