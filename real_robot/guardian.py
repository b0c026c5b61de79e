"""The guardian: a process beside the control process, for arms of servos which have no watchdog of their own.

The STS3215 holds its last goal for ever: if the control process dies while the arm moves, the goal stands still and the
arm stops as hard as its gears allow; if that process slept and goes on, it jumps to where it thinks it is. So the
driver's `Guardian` starts

    python -m poise.real_robot.guardian --arm so101 --port PATH --baud N --pipe FD --memory FD --silence S

which shares a page of memory with the driver (last goals and their velocities, written before every command) and holds
the end of a pipe. When the pipe breaks (the control process was killed) the guardian opens the port and ramps the arm
down under its limits, beginning within milliseconds. When no goal has come for S seconds while the arm was moving (the
control process hangs, or is stopped), the arm stands at its last goal by then; the guardian takes over, and the driver
refuses to send what would be a jump. All this needs the computer and the USB cable to be alive: it is less than a
watchdog in the device.

Page: two numbers of 8 bytes (a count, odd while being written; taken over: 1), then doubles: when written [s], n, and
3 n of goals [ticks], velocities [ticks/s] and accelerations [ticks/s^2]. Legend: n joints.
"""

from __future__ import annotations

import argparse
import contextlib
import mmap
import os
import select
import struct
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from ..errors import NotConnectedError, RobotError
from ..robots import RobotSpec, robot_spec
from .calibration import RAD
from .ramp import ramp
from .servo_bus import ServoBus

PAGE = 4096
LOOK = 0.02  # [s] between looks at the page
START = 30.0  # [s] for the process to come up, on a machine that is busy
FRESH = 0.05  # [s] since the last goal, while the arm still moves towards it
CLAIMS = 20  # tries to get the port
PATIENCE = 0.005  # [s] that it waits for an answer


class Page:
    """The memory that driver and guardian share."""

    def __init__(self, descriptor: int):
        self._memory = mmap.mmap(descriptor, PAGE)

    def write(self, goals: np.ndarray, velocities: np.ndarray, accelerations: np.ndarray) -> None:
        """What is about to be sent, each (n,)."""
        count = self._count() // 2 * 2
        struct.pack_into("q", self._memory, 0, count + 1)
        numbers = (time.monotonic(), float(len(goals)), *goals, *velocities, *accelerations)
        struct.pack_into(f"{len(numbers)}d", self._memory, 16, *numbers)
        struct.pack_into("q", self._memory, 0, count + 2)

    def read(self) -> tuple[float, np.ndarray] | None:
        """When it was written [s], and goals, velocities and accelerations (3, n); None before anything was."""
        tries = 100
        while (before := self._count()) and tries:
            stamp, n = struct.unpack_from("2d", self._memory, 16)
            numbers = np.frombuffer(bytes(self._memory[32 : 32 + 24 * int(n)]))
            tries -= 1
            if (before == self._count() and before % 2 == 0) or not tries:
                # a writer that died in the middle leaves an odd count: goals and velocities one period apart, at most
                return stamp, numbers.reshape(3, -1)
        return None

    def _count(self) -> int:
        return struct.unpack_from("q", self._memory, 0)[0]

    @property
    def taken(self) -> bool:
        """Whether the guardian has taken over."""
        return bool(self._memory[8])

    @taken.setter
    def taken(self, value: bool) -> None:
        self._memory[8] = value


class Guardian:
    """The driver's side: starts the process and tells it what is being sent."""

    def __init__(self, arm: str, port: str, baud: int, silence: float):
        self._arguments = ["--arm", arm, "--port", port, "--baud", str(baud), "--silence", str(silence)]
        self._silence = silence
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, ids: Sequence[int]) -> None:
        """Start the process where it does not run, or let it watch on after it took over; silence 0 wants none.

        ids: of the joints, then the gripper's. Raises NotConnectedError.
        """
        if not self._silence:
            return
        if self._process is not None and self._process.poll() is None:
            self._page.taken = False
            return
        memory = os.memfd_create("poise-guardian")
        os.ftruncate(memory, PAGE)
        self._page = Page(memory)
        ours, theirs = os.pipe2(os.O_CLOEXEC)
        command = [sys.executable, "-P", "-m", "poise.real_robot.guardian", *self._arguments]
        command += ["--pipe", str(ours), "--memory", str(memory), "--ids", *map(str, ids[:-1])]
        self._pipe = theirs
        self._process = subprocess.Popen(command, pass_fds=[ours, memory], stdin=subprocess.DEVNULL,
                                         stdout=subprocess.PIPE, start_new_session=True)  # fmt: skip
        os.close(ours)
        os.close(memory)
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], START)[0] or self._process.stdout.read(1) != b"+":
            self.end()
            raise NotConnectedError("the guardian of the servo bus did not start; see docs/robot-so101.md")

    def tell(self, goals: np.ndarray, velocities: np.ndarray, accelerations: np.ndarray) -> None:
        """What is about to be sent, before rounding: goals [ticks], their velocities and accelerations, each (n,)."""
        if self._process is not None:
            self._page.write(goals, velocities, accelerations)

    @property
    def has_taken_over(self) -> bool:
        return self._process is not None and self._page.taken

    def end(self) -> None:
        """The arm stands: no need of a guardian any more."""
        if self._process is None:
            return
        process, self._process = self._process, None
        with contextlib.suppress(OSError):
            os.write(self._pipe, b".")
        os.close(self._pipe)
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


# ---- the process -----------------------------------------------------------------------------


def watch(page: Page, pipe: int, silence: float, stop) -> None:
    """Wait for the driver to end in order or to die, when `stop(page)` brakes; take over where it falls silent."""
    while True:
        if select.select([pipe], [], [], LOOK)[0]:
            if not os.read(pipe, 1):
                stop(page)
            return
        last = page.read()
        if last is not None and not page.taken and last[1][1].any() and time.monotonic() - last[0] > silence:
            page.taken = True


def brake(page: Page, robot: RobotSpec, arm: str, port: str, baud: int, ids: Sequence[int]) -> None:
    """Take over and ramp the arm down over the line."""
    from .servo_driver import ARMS

    last = page.read()
    if last is None or page.taken or time.monotonic() - last[0] > FRESH:
        return  # it stands at its last goal already
    page.taken = True
    goals, velocities, accelerations = last[1]
    bus = ARMS[arm][1](port, baud, PATIENCE)
    with contextlib.suppress(RobotError):  # no line, no brake: nothing else can be done from here
        _open(bus)
        fastest = int(np.argmax(np.abs(velocities)))
        if bus.get(ids[fastest], "goal") != round(goals[fastest]):  # the driver died before it could send them
            goals = goals - velocities * robot.servo_dt
        due = time.monotonic()
        limits = np.array(robot.acceleration) / RAD, np.array(robot.jerk) / RAD, robot.servo_dt
        for pose in ramp(goals, velocities, accelerations, *limits):
            bus.send("goal", dict(zip(ids, np.rint(pose).astype(int).tolist(), strict=True)))
            due += robot.servo_dt
            time.sleep(max(0.0, due - time.monotonic()))
    bus.close()


def _open(bus: ServoBus) -> None:
    """Open the port; what is left of the driver may hold it for a moment."""
    for attempt in range(CLAIMS):
        try:
            return bus.open()
        except RobotError:
            if attempt == CLAIMS - 1:
                raise
            time.sleep(0.001)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.guardian")
    parser.add_argument("--arm", required=True)
    parser.add_argument("--port", required=True)
    parser.add_argument("--baud", type=int, required=True)
    parser.add_argument("--silence", type=float, required=True)
    parser.add_argument("--pipe", type=int, required=True)
    parser.add_argument("--memory", type=int, required=True)
    parser.add_argument("--ids", type=int, nargs="+", required=True)
    o = parser.parse_args(argv)
    from .servo_driver import ARMS

    ARMS[o.arm][1](o.port, o.baud, PATIENCE).make()  # imported now, not when it is needed
    sys.stdout.write("+")
    sys.stdout.flush()
    watch(Page(o.memory), o.pipe, o.silence,
          lambda page: brake(page, robot_spec(o.arm), o.arm, o.port, o.baud, o.ids))  # fmt: skip
    return 0


if __name__ == "__main__":
    sys.exit(main())
