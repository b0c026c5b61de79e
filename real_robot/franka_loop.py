"""The process that keeps a Franka arm's 1 kHz, started by the driver in franka.py.

    python -m poise.real_robot.franka_loop --fd N --host 127.0.0.5

The robot sends its state every millisecond and wants an answer before the next; after 20 that it misses it stops. The
vendor's library holds Python's lock while it waits for the state (measured: another thread of the same process got
one turn in thirty), so this loop shares its process with nothing. Once a servo period it takes the newest command
from the driver, goes there by a CommandSpline, and sends back the state.

The line is a pair of datagram sockets; a datagram to here is a letter and its numbers,

    T 7 doubles   the command for the next period; without one the arm comes to a standstill and holds
    R             recover from the robot's fault
    Q             stand, let go and end; the end of the line says the same

and one from here is a letter and what follows it: `S` and a State, `N` and a text (the robot is gone), `E` and a text
(a request was refused). Legend: 7 joints.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import os
import re
import signal
import socket
import struct
import sys
import time
from typing import Any, NamedTuple

import numpy as np

from ..errors import UsageError
from ..robots import FR3
from .command_spline import CommandSpline
from .held import CATCHING, CYCLE, Held, Motion
from .realtime import go_first

PRIORITY = 40  # of SCHED_RR, where allowed
NUMBERS = struct.Struct("<2d7d7d7d7d")
TARGET = struct.Struct("<7d")
REALTIME_KERNEL = "/sys/kernel/realtime"


class State(NamedTuple):
    """What the robot says once a servo period."""

    time: float  # the robot's own [s]
    success: float  # share of the last 100 answers that were in time
    joint_pos: np.ndarray  # (7,) [rad]
    joint_vel: np.ndarray  # (7,) [rad/s]
    joint_effort: np.ndarray  # (7,) [N m]
    target: np.ndarray  # (7,) the newest control point [rad]
    fault: str

    def pack(self) -> bytes:
        arrays = (self.joint_pos, self.joint_vel, self.joint_effort, self.target)
        return b"S" + NUMBERS.pack(self.time, self.success, *np.concatenate(arrays)) + self.fault.encode()

    @classmethod
    def unpack(cls, datagram: bytes) -> State:
        numbers = NUMBERS.unpack_from(datagram, 1)
        q, dq, tau, target = np.array(numbers[2:]).reshape(4, 7)
        return cls(numbers[0], numbers[1], q, dq, tau, target, datagram[1 + NUMBERS.size :].decode())


class Loop:
    """One robot, followed as long as it and the driver are there."""

    def __init__(self, line: socket.socket, host: str):
        import pylibfranka

        self._franka: Any = pylibfranka
        self._line = line
        self._line.setblocking(False)
        enforced = os.path.exists(REALTIME_KERNEL)
        config = pylibfranka.RealtimeConfig.kEnforce if enforced else pylibfranka.RealtimeConfig.kIgnore
        self._robot = pylibfranka.Robot(host, config)
        self._spline = CommandSpline(FR3, np.array(self._robot.read_once().q_d))
        self._words, self._target, self._fault = "", None, ""

    def run(self) -> None:
        """Until the driver says so or goes away. Raises the library's NetworkException where the robot goes."""
        while "Q" not in self._words:
            try:
                self._follow()
            except (self._franka.ControlException, self._franka.CommandException) as error:
                self._fault = self._name(self._robot.read_once(), str(error))
                self._wait_for_recovery()

    def _follow(self) -> None:
        """Stream the path until the driver ends it. Raises ControlException at a fault."""
        state = self._robot.read_once()
        if fault := self._name(state):
            self._fault = fault
            return self._wait_for_recovery()
        control = self._robot.start_joint_position_control(self._franka.ControllerMode.JointImpedance)
        state, _ = control.readOnce()
        spline, dt = self._spline, self._spline.dt
        spline.restart(np.array(state.q_d))
        held = Held(FR3, spline.point)
        newest, phase, cycles, left = None, 0.0, 1, False
        self._target = None
        self._tell(state)
        while True:
            phase += cycles * CYCLE
            began = phase >= dt - 1e-9
            while phase >= dt - 1e-9:
                phase -= dt
                newest = self._take()
                spline.command(newest)
            phase = max(phase, 0.0)
            answer = spline.at(phase / dt)
            if left and not held.leads_to(answer, spline.at(min(phase + CYCLE, dt) / dt)):
                target = newest if began else self._take()
                if (path := self._going_on(held, target, answer)) is not None:
                    self._spline = spline = path
                    newest, began, phase = target, True, CYCLE
                    answer = spline.at(phase / dt)
                elif not began:
                    self._target = target  # for the segment to come
            held.answer(answer)
            command = self._franka.JointPositions(answer.tolist())
            command.motion_finished = "Q" in self._words and spline.standing
            control.writeOnce(command)
            sent = time.perf_counter()
            if command.motion_finished:
                return
            if began:
                self._tell(state)
            state, elapsed = control.readOnce()
            cycles = max(1, round(elapsed.to_sec() / CYCLE))
            left = held.heard(np.array(state.q_d), cycles, time.perf_counter() - sent)

    def _going_on(self, held: Held, target: np.ndarray | None, answer: np.ndarray) -> CommandSpline | None:
        """A path on from whatever is held, where one suits all of it; else from what is likeliest.

        None where the path that there is goes on from that by itself, with `answer`.
        """
        path = self._resumed(held.middle, target)
        if held.leads_to(path.at(CYCLE / path.dt), share=CATCHING):
            return path
        if held.leads_to(answer, share=CATCHING, surely=False):
            return None
        return self._resumed(held.motion, target)

    def _resumed(self, motion: Motion, target: np.ndarray | None) -> CommandSpline:
        """The path, gone on from a motion."""
        path = copy.copy(self._spline)
        path.resume(motion.position, motion.velocity + 0.5 * CYCLE * motion.acceleration, motion.acceleration, target)
        return path

    def _take(self) -> np.ndarray | None:
        """The newest command that has come since the last one."""
        self._listen()
        target, self._target = self._target, None
        return target

    def _wait_for_recovery(self) -> None:
        """Tell the driver of the fault, again and again, until it says what to do."""
        due = 0.0
        while "Q" not in self._words:
            state = self._robot.read_once()
            if "R" in self._words:
                self._words = ""
                try:
                    self._robot.automatic_error_recovery()
                except (self._franka.ControlException, self._franka.CommandException) as error:
                    self._send(b"E" + f"the robot does not recover from {self._fault}: {error}".encode())
                    continue
                if not (fault := self._name(self._robot.read_once())):
                    self._fault = ""
                    return
                self._fault = fault
                self._send(b"E" + f"the robot is still stopped by {fault}".encode())
            if state.time.to_sec() >= due:
                due = state.time.to_sec() + self._spline.dt - 1e-9
                self._spline.restart(np.array(state.q_d))
                self._tell(state)
                self._listen()
                self._target = None

    def _name(self, state: Any, otherwise: str = "") -> str:
        """The robot's own names of what stopped it, "" where nothing did."""
        modes = self._franka.RobotMode
        if state.robot_mode in (modes.UserStopped, modes.Guiding):
            return "user_stopped" if state.robot_mode == modes.UserStopped else "guiding"
        names = re.findall(r"[a-z]\w+", str(state.current_errors), re.IGNORECASE)
        if not names and state.robot_mode == modes.Reflex:
            names = re.findall(r"[a-z]\w+", str(state.last_motion_errors), re.IGNORECASE) or ["reflex"]
        if not names and otherwise:
            names = re.findall(r'"(\w+)"', otherwise) or [otherwise]
        return ",".join(names)

    def _tell(self, state: Any) -> None:
        q, dq, tau = (np.array(x) for x in (state.q, state.dq, state.tau_J))
        success = state.control_command_success_rate
        self._send(State(state.time.to_sec(), success, q, dq, tau, self._spline.point, self._fault).pack())

    def _send(self, datagram: bytes) -> None:
        with contextlib.suppress(BlockingIOError):  # a driver that is stuck reads the rest later
            self._line.send(datagram)

    def _listen(self) -> None:
        """Take in what the driver has sent; of several commands the newest counts."""
        try:
            while True:
                if not (datagram := self._line.recv(256)):
                    raise EOFError
                if datagram[:1] == b"T":
                    self._target = np.array(TARGET.unpack_from(datagram, 1))
                else:
                    self._words += datagram.decode()
        except BlockingIOError:
            pass
        except (EOFError, ConnectionError):
            self._words += "Q"  # the driver is gone: stand, then end


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.franka_loop")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--host", required=True)
    options = parser.parse_args()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, signal.SIG_IGN)  # the end of the line ends this process, and only then the arm stands
    line = socket.socket(fileno=options.fd)
    try:
        import pylibfranka
    except ImportError:
        line.send(b"N" + b"the FR3 needs Franka's library: pip install 'poise[franka]'")
        return 1
    go_first(PRIORITY)
    try:
        Loop(line, options.host).run()
    except (pylibfranka.NetworkException, UsageError) as error:
        with contextlib.suppress(OSError):
            line.send(b"N" + str(error).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
