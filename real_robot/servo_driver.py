"""ServoDriver: an arm of servos on one line behind the Driver protocol, for Feetech and Dynamixel alike.

    open     every servo answers, is what it should be and is set up for positions; torque on; watchdogs armed
    read     one sync read of position, velocity and load; what is lost or damaged is asked for once more
    write    one sync write of goal positions, gripper included, then a wait for the end of the servo period

Nobody answers a sync write; that an arm does not follow is the supervisor's to see. A read that fails twice returns
the last reading with its old time, which the supervisor rejects once it is stale; after LOST reads the arm counts as
gone.

Options of an address: calibration=FILE, baud=N, watchdog=S; emulator=HOST:PORT and virtual=1 as emulators print them.
On a virtual clock each write lets one servo period pass, and reading takes no time.
Legend: n joints, m = n + 1 servos (the gripper's last).
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping

import numpy as np

from ..errors import LimitViolatedError, NotConnectedError, RobotError, UsageError, unknown_name
from .calibration import RAD
from .driver import Reading
from .dynamixel import VX300S_ARM, DynamixelBus
from .emulators.side_line import Sided, SideLine
from .feetech import SO101_ARM, FeetechBus
from .guardian import Guardian
from .ramp import ramp
from .roll_call import roll_call
from .servo_bus import TICKS, ServoState

LOST = 10  # reads in a row without a whole answer until the arm counts as gone
PATIENCE, PATIENCE_VIRTUAL = 0.004, 0.25  # [s] for an answer
WATCHDOG = 0.2  # [s] of silence until the servos (Dynamixel) or the guardian (Feetech) stop the arm
OPTIONS = ("calibration", "baud", "watchdog", "emulator", "virtual")
ARMS = {"so101": (SO101_ARM, FeetechBus), "vx300s": (VX300S_ARM, DynamixelBus)}


def servo_driver(name: str, path: str, options: Mapping[str, str]) -> ServoDriver:
    """The driver of the arm `name` at the port `path`, not yet open.

    Raises:
        UsageError: an unknown option, no calibration, or a value that cannot be.
        RobotError: a calibration that does not fit.
    """
    return ServoDriver(name, path, options)


class ServoDriver(Sided):
    """One arm on one line."""

    def __init__(self, name: str, path: str, options: Mapping[str, str]):
        if name not in ARMS:
            raise unknown_name("servo arm", name, ARMS)
        for option in options:
            if option not in OPTIONS:
                raise unknown_name(f"{name} option", option, OPTIONS)
        self._arm, bus_class = ARMS[name]
        self.robot = self._arm.robot
        self.realtime = not _number(options, "virtual", 0.0)
        self._watchdog = _number(options, "watchdog", WATCHDOG)
        # a Dynamixel's own drive modes and zero are the calibration; so are an emulator's
        default = "nominal" if name == "vx300s" or "emulator" in options else ""
        self.calibration = self._arm.calibration(options.get("calibration", default))
        self._zeros, self._signs = self.calibration.zeros, self.calibration.signs
        ranges = np.array([self.robot.position_low, self.robot.position_high])
        self._ends = np.sort(self._zeros[:-1] + self._signs[:-1] * ranges / RAD, axis=0)  # (2, n) of the joints [ticks]
        self._ids = [joint.id for joint in self.calibration.servos.values()]
        self._shadows = [servo.id for servo in self._arm.shadows.values()]
        baud = int(_number(options, "baud", 1_000_000))
        self._bus = bus_class(path, baud, PATIENCE if self.realtime else PATIENCE_VIRTUAL)
        self._side = SideLine(options["emulator"]) if "emulator" in options else None
        self._guardian = Guardian(name, path, baud, self._watchdog) if name == "so101" and self.realtime else None
        self._time = 0.0  # [s] of the virtual clock
        self._torque = np.array([servo.torque for servo in self._arm.servos.values()])  # (m,)
        self._missed = self._misses = 0  # reads without a whole answer: ever, and in a row
        self._is_tripped = False  # the servos' own watchdog has stopped them

    # ---- Driver ------------------------------------------------------------------------------

    def open(self) -> None:
        self._bus.open()
        try:
            roll_call(self._bus, self._arm, self.calibration)
            self._energize()
            if self._guardian is not None:
                self._guardian.start(self._ids)
        except BaseException:
            self._bus.close()
            raise
        self._last: Reading | None = None
        self._due = self._spoken = time.monotonic()

    def now(self) -> float:
        return time.monotonic() if self.realtime else self._time

    def read(self) -> Reading:
        self._refuse_closed()
        self._after_silence()
        servos = [*self._ids, *self._shadows]
        while True:
            asked, states = self.now(), self._bus.states(servos)
            if len(states) == len(servos):
                self._last, self._misses = self._reading(asked, states), 0
                break
            self._missed += 1
            self._misses += 1
            if self._misses >= LOST:
                silent = next(servo for servo in servos if servo not in states)
                raise NotConnectedError(f"{self._bus.path}: no answer from {self._name(silent)}, {LOST} times; "
                                        "look at cables and power, then clear_fault()")  # fmt: skip
            if self._last is not None and self.realtime:
                break  # on a virtual clock no servo period ends meanwhile
        return self._copy(self._last)

    def write(self, joint_pos_target: np.ndarray, gripper_target: float | None = None) -> None:
        self._refuse_closed()
        self._refuse_taken()
        self._after_silence()
        goal = np.append(joint_pos_target, self._goal[-1] if gripper_target is None else
                         self._arm.to_angle(self._in_range(gripper_target)))  # fmt: skip
        if goal.shape != self._goal.shape or not np.isfinite(goal).all():
            raise LimitViolatedError(f"expected {len(self._goal) - 1} finite joint positions, got {joint_pos_target}")
        places = self._zeros + self._signs * goal / RAD
        ticks = self._whole(places)
        ticks[ticks == TICKS] = TICKS - 1  # the end of a joint that turns once around
        if ticks.min() < 0 or ticks.max() >= TICKS:
            worst = self._name(self._ids[int(np.argmax(np.abs(ticks - TICKS / 2)))])
            raise LimitViolatedError(f"{worst}: a goal beyond the servo's turn; calibrate again")
        velocity = (goal - self._goal)[:-1] / self.robot.servo_dt
        self._acceleration = (velocity - self._velocity) / self.robot.servo_dt
        self._goal, self._velocity = goal, velocity
        if self._guardian is not None:
            per_tick = self._signs[:-1] / RAD
            self._guardian.tell(places[:-1], per_tick * velocity, per_tick * self._acceleration)
        self._bus.send("goal", dict(zip(self._ids, ticks.tolist(), strict=True)))
        self._spoken = time.monotonic()
        self._wait()

    def brake(self) -> None:
        """A ramp to standstill under the arm's limits from the last command; the servos hold then."""
        if not self._bus.is_open:
            return
        robot, goal = self.robot, self._goal[:-1]
        limits = np.array(robot.acceleration), np.array(robot.jerk), robot.servo_dt
        for position in ramp(goal, self._velocity, self._acceleration, *limits):
            self.write(position)
        self._velocity = self._acceleration = np.zeros(robot.num_joints)

    def clear_fault(self) -> None:
        """Find the servos again, opening the port anew where it went, and end what they have latched."""
        if not self._bus.is_open:
            self._bus.open()
        states = self._bus.states([*self._ids, *self._shadows])
        for servo, state in states.items():
            if self._bus.faults(servo, state.error):
                self._bus.release(servo)
        roll_call(self._bus, self._arm, self.calibration)
        self._energize()
        self._last = None
        if self._guardian is not None:
            self._guardian.start(self._ids)

    def counters(self) -> dict[str, int]:
        """What was asked for twice and what was missed all the same; of an emulator its oracle's counts too."""
        return {"retries": self._bus.retries, "missed": self._missed, **super().counters()}

    def close(self) -> None:
        if not self._bus.is_open:
            return
        with contextlib.suppress(RobotError):
            self.brake()
            self._bus.arm_watchdog(self._ids, 0.0)
        if self._guardian is not None:
            self._guardian.end()
        self._bus.close()
        if self._side is not None:
            self._side.close()

    # ---- the inside --------------------------------------------------------------------------

    def _energize(self) -> None:
        """Torque on where it is off, with the present pose as its goal; from here on the arm holds."""
        bus, goals = self._bus, []
        self._is_tripped, self._misses = False, 0
        bus.arm_watchdog(self._ids, 0.0)
        speeds = [*self.robot.velocity, max(self.robot.velocity)]
        for name, servo, speed in zip(self.calibration.servos, self._ids, speeds, strict=True):
            if not bus.get(servo, "torque"):
                position = bus.get(servo, "position")
                if not 0 <= position < TICKS:
                    raise NotConnectedError(f"{name} (id {servo}) stands at {position} ticks, outside its one turn; "
                                            "turn it back by hand and calibrate again")  # fmt: skip
                bus.put(servo, "goal", position)
                bus.prepare(servo, round(speed / RAD))
                bus.put(servo, "torque", 1)
            goals.append(bus.get(servo, "goal"))
        self._goal = self._signs * (np.array(goals, np.float64) - self._zeros) * RAD  # (m,) [rad]
        self._velocity = self._acceleration = np.zeros(len(goals) - 1)  # (n,) of what was sent last
        if self._watchdog and self.realtime:
            bus.arm_watchdog(self._ids, self._watchdog)
        self._due = self._spoken = time.monotonic()

    def _whole(self, places: np.ndarray) -> np.ndarray:
        """(m,) whole ticks: the nearest, but not beyond the end of a joint's range where `places` (m,) is not."""
        ticks = np.rint(places)
        low, high = self._ends
        ticks[:-1] = np.where(ticks[:-1] > high, np.floor(places[:-1]), ticks[:-1])
        ticks[:-1] = np.where(ticks[:-1] < low, np.ceil(places[:-1]), ticks[:-1])
        return ticks.astype(int)

    def _reading(self, asked: float, states: Mapping[int, ServoState]) -> Reading:
        ticks = np.array([states[servo].position for servo in self._ids], np.float64)
        angles = self._signs * (ticks - self._zeros) * RAD
        rates = self._signs * np.array([states[servo].velocity for servo in self._ids]) * RAD
        effort = self._signs * np.array([states[servo].torque for servo in self._ids]) * self._torque
        return Reading(asked, asked, angles[:-1], rates[:-1], self._goal[:-1].copy(),
                       self._arm.from_angle(float(angles[-1])), effort[:-1], self._fault(states))  # fmt: skip

    def _fault(self, states: Mapping[int, ServoState]) -> str:
        for servo, state in states.items():
            if state.error and (names := self._bus.faults(servo, state.error)):
                return f"{names} of {self._name(servo)}"
        return "bus watchdog: the line was silent" if self._is_tripped else ""

    def _copy(self, reading: Reading | None) -> Reading:
        assert reading is not None
        effort = None if reading.joint_effort is None else reading.joint_effort.copy()
        return reading._replace(joint_pos=reading.joint_pos.copy(), joint_vel=reading.joint_vel.copy(),
                                joint_pos_target=self._goal[:-1].copy(), joint_effort=effort)  # fmt: skip

    def _wait(self) -> None:
        """Let the servo period pass."""
        if self.realtime:
            self._due = max(self._due + self.robot.servo_dt, time.monotonic() - self.robot.servo_dt)
            time.sleep(max(0.0, self._due - time.monotonic()))
        else:
            self._time += self.robot.servo_dt

    def _before_side(self) -> None:
        """On a virtual clock, wait until the emulator has carried out what was sent; nobody answers a sync write."""
        if not self.realtime and self._bus.is_open:
            self._bus.ping(self._ids[0])

    def _in_range(self, gripper_target: float) -> float:
        gripper = self.robot.gripper
        assert gripper is not None
        low, high = sorted((gripper.closed, gripper.open))
        if not math.isfinite(gripper_target):
            raise LimitViolatedError(f"gripper: asked for {gripper_target}, expected {low} to {high} {gripper.unit}")
        return min(max(gripper_target, low), high)

    def _name(self, servo: int) -> str:
        numbers = dict(zip(self._ids, self.calibration.servos, strict=True))
        numbers.update({other.id: name for name, other in self._arm.shadows.items()})
        return f"{numbers[servo]} (id {servo})"

    def _refuse_closed(self) -> None:
        if not self._bus.is_open:
            raise NotConnectedError(f"{self.robot.name}:{self._bus.path} is not open; call open() first")

    def _refuse_taken(self) -> None:
        if self._guardian is not None and self._guardian.has_taken_over:
            raise NotConnectedError(f"no command came for {self._watchdog:g} s while the arm moved, and its guardian "
                                    "has stopped it; clear_fault() goes on")  # fmt: skip

    def _after_silence(self) -> None:
        """Where the line was silent for long, the servos' own watchdog may have stopped them."""
        if self.realtime and self._watchdog and time.monotonic() - self._spoken > 0.5 * self._watchdog:
            self._is_tripped |= self._bus.watchdog_bit(self._ids[0])
            self._spoken = time.monotonic()


def _number(options: Mapping[str, str], name: str, default: float) -> float:
    try:
        value = float(options.get(name, default))
    except ValueError:
        value = math.nan
    if not 0.0 <= value < 1e7:
        raise UsageError(f"{name}={options[name]}: expected a number from 0")
    return value
