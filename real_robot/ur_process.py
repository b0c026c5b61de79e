"""The process that `ur-rtde` lives in: 500 times a second the arm's state goes out, and a pose for servoJ comes in.

    python -m poise.real_robot.ur_process --fd N --host HOST

A process of its own, since ur-rtde holds Python's lock while it connects, and where a line is lost reconnects for ever
in a thread of its own, until it crashes. Such a process can be killed; the arm's watchdog then stops the arm.
On the socket N, one message each:

    out   S, State                what the arm says, whenever it says something new
          R, JSON                 the answer to a request;  E, text: it cannot go on, and ends
    in    W, 6 float64 [rad]      servoJ to this pose
          J, {"do": name}         a request: see `Session.requests`

When the other side is gone, it brakes the arm and ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import signal
import socket
import struct
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from .realtime import schedule

DT = 0.002  # [s] between commands
WATCHDOG = 10.0  # [Hz] commands less often than this stop the program
DECELERATION = 2.0  # [m/s^2] of the tool, when braking: below 10 rad/s^2 of the joints down to 0.2 m from their axes
POLL = 0.0001  # [s]
STARTS_WITHIN = 5.0  # [s] from the script's upload to its first line
STUCK = 20  # [s] in ur-rtde without coming back: the kernel then ends this process
NO_UPLOAD = 0x10  # ur-rtde's FLAG_NO_WAIT in place of FLAG_UPLOAD_SCRIPT: this file says when the program starts
VARIABLES = ["timestamp", "actual_q", "actual_qd", "target_q", "robot_mode", "safety_mode", "runtime_state",
             "target_speed_fraction", "target_moment"]  # fmt: skip
_STATE = struct.Struct("<2d24d3id")


class State(NamedTuple):
    """What the arm said."""

    arrived: float  # monotonic [s]
    timestamp: float  # the controller's [s]
    joint_pos: tuple[float, ...]  # [rad]
    joint_vel: tuple[float, ...]  # [rad/s]
    target: tuple[float, ...]  # the controller's own, which follows servoJ's with a lag [rad]
    moment: tuple[float, ...]  # what its model says that the motion needs [N m]
    robot_mode: int
    safety_mode: int
    runtime_state: int
    speed_fraction: float  # the speed slider, 0 to 1

    def pack(self) -> bytes:
        """As one message."""
        flat = (*self.joint_pos, *self.joint_vel, *self.target, *self.moment)
        return b"S" + _STATE.pack(self.arrived, self.timestamp, *flat, *self[6:])

    @classmethod
    def unpack(cls, message: bytes) -> State:
        """From one message."""
        arrived, timestamp, *rest = _STATE.unpack(message[1:])
        pos, vel, target, moment = (tuple(rest[k : k + 6]) for k in range(0, 24, 6))
        return cls(arrived, timestamp, pos, vel, target, moment, *rest[24:])


class Session:
    """ur-rtde's interfaces to one controller."""

    def __init__(self, host: str, lookahead: float, gain: float):
        import dashboard_client
        import rtde_control
        import rtde_receive

        self._servo = (0.0, 0.0, DT, lookahead, gain)  # speed and acceleration count for nothing in servoj
        self._dashboard = dashboard_client.DashboardClient(host)
        self._dashboard.connect(2000)
        self._receive = rtde_receive.RTDEReceiveInterface(host, 1.0 / DT, VARIABLES)
        self._control = rtde_control.RTDEControlInterface(host, 1.0 / DT, NO_UPLOAD)
        self._said: tuple[float, int, int, int] | None = None
        self.requests: dict[str, Callable[[], Any]] = {
            "model": self._dashboard.getRobotModel,
            "brake": lambda: self._control.servoStop(DECELERATION),
            "start": self._start,
            "unlock": self._unlock,
            "power_on": self._dashboard.powerOn,
            "release_brakes": self._dashboard.brakeRelease,
        }

    def serve(self, line: socket.socket) -> None:
        """Until told to end, or nobody is there."""
        line.send(b"R" + json.dumps("connected").encode())
        while True:
            signal.alarm(STUCK)
            if select.select([line], [], [], POLL)[0] and not self._obey(line):
                self._control.servoStop(DECELERATION)
                self._control.stopScript()
                return
            if not self._receive.isConnected():
                line.send(b"E" + b"the connection broke")
                return
            self._tell_news(line)

    def _obey(self, line: socket.socket) -> bool:
        message = line.recv(65536)
        if message[:1] == b"W":
            self._control.servoJ(list(struct.unpack("<6d", message[1:])), *self._servo)
        elif message[:1] == b"J":
            try:
                result: Any = self.requests[json.loads(message[1:])["do"]]()
            except (RuntimeError, ValueError) as error:
                result = {"refused": str(error)}
            time.sleep(DT)  # for the state after it
            line.send(self._state().pack())
            line.send(b"R" + json.dumps(result).encode())
        return bool(message)

    def _tell_news(self, line: socket.socket) -> None:
        receive = self._receive
        news = (receive.getTimestamp(), receive.getSafetyMode(), receive.getRobotMode(), receive.getRuntimeState())
        if news != self._said:
            self._said = news
            line.send(self._state().pack())

    def _state(self) -> State:
        """All from one package, unless they come faster than they are read."""
        receive = self._receive
        for _ in range(5):
            stamp, arrived = receive.getTimestamp(), time.monotonic()
            pos, vel, target = receive.getActualQ(), receive.getActualQd(), receive.getTargetQ()
            joints = (tuple(pos), tuple(vel), tuple(target), tuple(receive.getTargetMoment()))
            modes = (receive.getRobotMode(), receive.getSafetyMode(), receive.getRuntimeState())
            state = State(arrived, stamp, *joints, *modes, receive.getTargetSpeedFraction())
            if receive.getTimestamp() == stamp:
                break
        return state

    def _start(self) -> bool:
        """Upload ur-rtde's control script, wait until it runs, and arm the watchdog."""
        self._control.kickWatchdog()  # clears the command register: the script would carry out what stands in it
        self._control.reuploadScript()
        deadline = time.monotonic() + STARTS_WITHIN
        while not self._control.isProgramRunning():
            if time.monotonic() > deadline:
                return False
            time.sleep(DT)
        return self._control.setWatchdog(WATCHDOG)

    def _unlock(self) -> bool:
        self._dashboard.closeSafetyPopup()
        self._dashboard.unlockProtectiveStop()
        return True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.ur_process")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--host", required=True)
    parser.add_argument("--lookahead", type=float, required=True)
    parser.add_argument("--gain", type=float, required=True)
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for whoever started this
    signal.alarm(STUCK)
    schedule(inherited=True)  # ur-rtde's threads as well
    line = socket.socket(fileno=options.fd)
    try:
        Session(options.host, options.lookahead, options.gain).serve(line)
    except ImportError:
        line.send(b"E" + b"ur-rtde is not installed: pip install 'poise[ur]'")
    except (RuntimeError, ValueError) as error:  # what ur-rtde raises
        with contextlib.suppress(OSError):
            line.send(b"E" + str(error).encode())
    except OSError:
        pass  # whoever started this is gone
    sys.stdout.flush()
    os._exit(0)  # ur-rtde's destructors wait for threads that may never end


if __name__ == "__main__":
    main()
