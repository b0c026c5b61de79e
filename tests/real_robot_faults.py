"""The faults that an arm's stack must survive, as data, and how each is made and judged; test_faults.py runs them.

For every fault and backend: the arm moves, the fault comes, and then (1) what is told is what the table says, (2) the
arm stands within STOP seconds, (3) the device's oracle has seen no command out of limits, (4) a restart works: the
fault's cause is taken away, clear_fault or a new connection, and the arm moves again.

A fault ends in one of these:  "" the arm goes on  |  a rule of the supervisor that latches ("finite", "stale", …)
|  "device" the device's own latched fault, or its line is lost  |  "gone" the control process or the device is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from poise.errors import NotConnectedError, PoiseError, RobotError
from poise.real_robot.emulators.launch import Running, start_emulator
from poise.real_robot.robot import Robot

RELAY = Path(__file__).with_name("real_robot_chaos.py")
STOP = 1.0  # [s] from the fault to a standstill: the swing's 0.3 rad/s, a line's patience of 0.1 to 0.6 s, a ramp
START = 20.0  # [s] until a process that was just started has the arm moving, on a busy machine
STANDS = 0.05  # [rad/s]
SWING, PERIOD = 0.05, 1.0  # [rad] amplitude and [s] of the motion of the first joint
KINDS = ("command", "clock", "device", "line", "process")
WORDS = ("", "device", "gone", "finite", "shape", "stale", "start", "operator")


@dataclass(frozen=True)
class Backend:
    """An arm to break."""

    name: str  # of its emulator; "" has none, but the twin inside the control process
    address: str = ""
    host: str = "127.0.0.1"
    virtual: bool = True  # whether it has a clock of its own
    link: str = ""
    relay: str = ""  # where real_robot_chaos.py listens for a client of it


BACKENDS = {
    "twin": Backend("", "twin:fr3"),
    "xarm7": Backend("xarm7", host="127.0.0.61"),
    "so101": Backend("so101"),
    "vx300s": Backend("vx300s"),
    "ros2": Backend("ros2:fr3", virtual=False, link=f"/poise_faults_{os.getpid()}"),
    "fr3": Backend("fr3", host="127.0.0.62", virtual=False),
    "fr3 by a relay": Backend("fr3", host="127.0.0.63", virtual=False, relay="127.0.0.64"),
}


@dataclass(frozen=True)
class Fault:
    """One fault: how it is made, and what it must end in."""

    name: str
    told: tuple[str, ...]  # any of WORDS
    make: Callable[[Scene], None]
    kind: str  # "command", "clock", "device", "line", "process": who has it


class Scene:
    """An arm that moves, inside this process: commands stream through the supervisor."""

    def __init__(self, robot: Robot, running: Running | None, virtual: bool, say: Callable[[str], None]):
        self.robot, self.running, self.virtual, self.say = robot, running, virtual, say
        self.dt, self.n = robot.spec.servo_dt, robot.spec.num_joints
        self.centre = robot.read().joint_pos_target
        self.tick = 0

    @property
    def loop(self) -> Any:
        return self.robot._link._loop  # type: ignore[union-attr]

    def target(self) -> np.ndarray:
        """The next pose of the swing."""
        self.tick += 1
        away = 0.5 * SWING * (1.0 - np.cos(2.0 * np.pi * self.tick * self.dt / PERIOD))
        return self.centre + away * (np.arange(self.n) == 0)

    def stream(self, seconds: float) -> None:
        """Commands for so long, or until a stop is latched. Raises NotConnectedError where the line is lost."""
        for _ in range(round(seconds / self.dt)):
            self.robot.command(self.target())
            if self.robot.fault:
                return

    def told(self) -> str:
        """What is latched: the rule's name, or ""."""
        fault = self.loop.supervisor.fault
        return fault.rule if fault else ""

    def speed(self) -> float:
        """The fastest joint as it truly is [rad/s]."""
        truth = self.running.side_line.truth() if self.running else self.robot.truth()
        return float(np.abs(truth["joint_vel"]).max())

    def stands_within(self, seconds: float) -> bool:
        """Whether the arm comes to a standstill, under the supervisor's braking as far as there is a line.

        A device on its own clock stands still in time while its line is lost; then there is nothing to see.
        """
        if self.virtual and self.loop.is_lost:
            return True
        due = time.monotonic() + seconds
        for _ in range(round(seconds / self.dt)):
            with contextlib.suppress(PoiseError):
                self.loop.hold()
            if self.speed() < STANDS or (time.monotonic() > due and not self.virtual):
                break
        return self.speed() < STANDS

    def clear(self) -> None:
        """Take the cause away, release the stop, and move again."""
        self.say("clear")
        if self.running:
            self.running.side_line.ask("clear")
        for attempt in range(20):  # a line that comes back needs a moment
            try:
                self.robot.clear_fault()
                break
            except RobotError:
                if attempt == 19:
                    raise
                time.sleep(0.1)
        home = np.array(self.robot.spec.home)
        if np.abs(self.robot.read().joint_pos_target - home).max() > 4 * SWING:  # each fault leaves it somewhere else
            self.robot.move_to(home, 0.5)
        self.centre, self.tick = self.robot.read().joint_pos_target, 0
        self.stream(0.5)


# ---- the faults of whoever sends commands --------------------------------------------------------


def _send(
    *commands: Callable[[Scene], Any], at: Callable[[Scene, int], float] | None = None
) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        for k, command in enumerate(commands):
            scene.robot.command(command(scene), at(scene, k) if at else None)

    return make


def _one(value: float, joint: int = 0) -> Callable[[Scene], np.ndarray]:
    return lambda scene: np.where(np.arange(scene.n) == joint, value, scene.target())


def _now(scene: Scene) -> float:
    return float(scene.loop.driver.now())


def _restarted_far(scene: Scene) -> None:
    """A new source, after a stop, asks for a pose that is far away, again and again."""
    scene.robot.stop()
    scene.robot.clear_fault()
    for _ in range(220):
        scene.robot.command(scene.centre + 0.5)


COMMANDS = [
    Fault("NaN", ("finite",), _send(_one(np.nan)), "command"),
    Fault("NaN in the last joint", ("finite",), _send(_one(np.nan, -1), lambda s: np.full(s.n, np.nan)), "command"),
    Fault("infinity", ("finite",), _send(_one(np.inf)), "command"),
    Fault("minus infinity", ("finite",), _send(_one(-np.inf)), "command"),
    Fault("text", ("shape",), _send(lambda s: "home"), "command"),
    Fault("nothing", ("shape",), _send(lambda s: None), "command"),
    Fault("one joint too few", ("shape",), _send(lambda s: s.target()[:-1]), "command"),
    Fault("one joint too many", ("shape",), _send(lambda s: np.append(s.target(), 0.0)), "command"),
    Fault("a batch", ("shape",), _send(lambda s: s.target()[None]), "command"),
    Fault("a jump by 3 rad", ("",), _send(lambda s: s.target() + 3.0), "command"),
    Fault("a jump by -3 rad", ("",), _send(lambda s: s.target() - 3.0), "command"),
    Fault(
        "alternating ends",
        ("", "workspace", "tool_speed", "collision"),
        _send(*[(lambda s: s.target() + 9.0), (lambda s: s.target() - 9.0)] * 10),
        "command",
    ),
    Fault("a huge number", ("",), _send(_one(1e300)), "command"),
    Fault("commands from long ago", ("stale",), _send(*[Scene.target] * 12, at=lambda s, k: _now(s) - 5.0), "command"),
    Fault("commands of the future", ("stale",), _send(*[Scene.target] * 12, at=lambda s, k: _now(s) + 5.0), "command"),
    Fault(
        "commands in reverse order",
        ("stale",),
        _send(*[Scene.target] * 12, at=lambda s, k: s.loop.supervisor._last_at - 1e-4 if k else _now(s)),
        "command",
    ),
    Fault(
        "one command again and again",
        ("stale",),
        _send(*[Scene.target] * 12, at=lambda s, k: s.loop.supervisor._last_at if k else _now(s)),
        "command",
    ),
    Fault("a time that is no number", ("stale",), _send(*[Scene.target] * 12, at=lambda s, k: np.nan), "command"),
    Fault("a start far away", ("start",), _restarted_far, "command"),
    Fault("stop", ("operator",), lambda s: s.robot.stop(), "command"),
]


# ---- clocks that jump between a reading and its command, and a disk that is full -----------------


def _jump(seconds: float, periods: int) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        driver, read = scene.loop.driver, scene.loop.driver.read
        driver.read = lambda: (r := read())._replace(time=r.time - seconds)
        try:
            for _ in range(periods):
                scene.robot.command(scene.target())
        finally:
            del driver.read

    return make


def _full(scene: Scene) -> None:
    """Whoever commands fails to write its recording: the arm is let go in the middle of its motion."""
    with contextlib.suppress(OSError), open("/dev/full", "w") as recording:
        recording.write("a row")
        recording.flush()
        raise AssertionError("this disk is never full")


CLOCKS = [
    Fault("the clock leaps 10 s ahead", ("stale",), _jump(10.0, 12), "clock"),
    Fault("the clock falls 10 s back", ("stale",), _jump(-10.0, 12), "clock"),
    Fault("the clock leaps ahead for 40 ms", ("",), _jump(10.0, 4), "clock"),
    Fault("readings stay 0.2 s old", ("stale",), _jump(0.2, 12), "clock"),
    Fault("no space left for the recording", ("",), _full, "clock"),
]


# ---- the devices' own, and their lines', by their emulators --------------------------------------


def _inject(name: str, seconds: float) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        assert scene.running is not None
        scene.running.side_line.inject(name)
        scene.stream(seconds)

    return make


GOES_ON = {  # faults that only a retry, or nothing, has to meet; where they come thick the line counts as lost
    "xarm7": ("warning", "drop", "corrupt", "delay", "report_silent", "report_corrupt"),
    "so101": ("drop", "duplicate", "corrupt", "delay", "deaf"),
    "vx300s": ("drop", "duplicate", "corrupt", "delay", "deaf"),
    "ros2": ("jumbled", "renamed"),
    "fr3": (),
}
LONGER = {"stuck": 3.0, "silent": 1.5, "report_silent": 3.0, "slow": 2.0, "frozen": 2.0, "deaf": 1.5}


def device_faults(backend: str, names: list[str]) -> list[Fault]:
    """Every fault that the emulator of a backend can be asked for."""
    found = []
    for name in names:
        told = ("", "device") if name in GOES_ON[backend] else ("device", "tracking", "effort")
        found.append(Fault(name, told, _inject(name, LONGER.get(name, 0.8)), "device"))
    return found


# ---- a poor line to the FR3, whose emulator has none of its own ----------------------------------


def _line(words: str) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        scene.say(words)
        scene.stream(1.5)

    return make


# The vendor's library smooths each command against the state before it. Where a datagram between the two is lost, comes
# twice or has a bit turned, what reaches the robot leaves its limits of acceleration or jerk however smooth the commands
# are, and its reflex stops it: the oracle's count of those is the line's, so it is not asked for here.
LINES = [
    Fault("delay of 0.3 ms", ("",), _line("delay 0.0003"), "line"),
    Fault("delay of 3 ms", ("device",), _line("delay 0.003"), "line"),
    Fault("one datagram in ten lost", ("device",), _line("drop 0.1"), "line"),
    Fault("one datagram in ten twice", ("device",), _line("duplicate 0.1"), "line"),
    Fault("one datagram in fifty corrupt", ("device",), _line("corrupt 0.02"), "line"),
    Fault("half open", ("device",), _line("half_open"), "line"),
    Fault("reset", ("device",), _line("reset"), "line"),
]


# ---- processes that are killed or stopped --------------------------------------------------------

USER = """
import sys, time, numpy as np
from poise.real_robot.robot import Robot
with Robot(sys.argv[1]) as robot:
    robot.clear_fault()
    print(robot._link.process.pid, flush=True)
    start, k = robot.read().joint_pos_target, 0
    def points():
        global k
        k += 1
    for row in robot.follow(0.02):
        t = np.arange(1, 6) * 0.02 + k * 0.02
        away = 0.5 * 0.05 * (1 - np.cos(2 * np.pi * t))
        robot.aim_along([(row["now"] + 0.02 * (i + 1), (start + a * (np.arange(len(start)) == 0)).tolist(), None)
                         for i, a in enumerate(away)])
        k += 1
"""
PROCESSES = [(who, what) for who in ("user", "control", "device") for what in ("SIGKILL", "SIGSTOP")]


def run_process_fault(backend: str, who: str, what: str) -> str:
    """Kill or stop one process while the arm moves; "" or what went wrong."""
    b = BACKENDS[backend]
    with start_emulator(b.name, host=b.host, link=b.link) as running:
        user = subprocess.Popen([sys.executable, "-P", "-c", USER, running.address], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip
        control = 0
        try:
            control = int(user.stdout.readline())  # type: ignore[union-attr]
            pid = {"user": user.pid, "control": control, "device": running.process.pid}[who]
            due = time.monotonic() + START
            while np.abs(running.side_line.truth()["joint_vel"]).max() < 2 * STANDS:
                if time.monotonic() > due:
                    return "the arm never moved"
            os.kill(pid, getattr(signal, what))
            time.sleep(STOP)
            if who != "device":
                speed = np.abs(running.side_line.truth()["joint_vel"]).max()
                if speed > STANDS:
                    return f"the arm still moves at {speed:.3f} rad/s"
                if (counters := running.side_line.counters())["out_of_limit"]:
                    return f"{counters} {running.side_line.ask('counters')['told']}"
            elif user.poll() is None and what == "SIGKILL":
                user.wait(5.0)
        finally:
            for pid in (user.pid, control, running.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT) if pid else None
            user.kill()
            user.wait()
            for stream in (user.stdout, user.stderr):
                stream.close()  # type: ignore[union-attr]
            due = time.monotonic() + 5.0
            while control and os.path.exists(f"/proc/{control}") and time.monotonic() < due:
                time.sleep(0.02)
        if who != "device":
            return _moves_again(running.address)
    with start_emulator(b.name, host=b.host, link=b.link) as running:
        return _moves_again(running.address)


def _moves_again(address: str) -> str:
    for attempt in range(3):
        try:
            with Robot(address) as robot:
                robot.clear_fault()
                robot.move_to(robot.read().joint_pos_target + 0.02 * (np.arange(robot.spec.num_joints) == 0), 0.5)
                return ""
        except RobotError as error:
            if attempt == 2:
                return f"it does not move again: {error}"
            time.sleep(0.5)
    return ""


# ---- running -------------------------------------------------------------------------------------


class Bench:
    """One emulator, and one connection as long as it serves: a fault that leaves it broken gets the next a new one."""

    def __init__(self, backend: str):
        self._backend = b = BACKENDS[backend]
        self._stack = contextlib.ExitStack()
        self._device = self._stack.enter_context(start_emulator(b.name, b.host, b.link, b.virtual)) if b.name else None
        self._scene: Scene | None = None
        self._relay: subprocess.Popen[str] | None = None
        if b.relay:
            command = [sys.executable, "-P", str(RELAY), "--listen", b.relay, "--to", b.host]
            self._relay = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert self._relay.stdout is not None and self._relay.stdout.readline() == "ready\n"
            self._stack.callback(self._end_relay, self._relay)

    def scene(self) -> Scene:
        if self._scene is None:
            address = self._device.address if self._device else self._backend.address
            if self._backend.relay:
                address = address.replace(self._backend.host, self._backend.relay) + "&gripper=0"
            robot = Robot(address, in_process=True).connect()
            self._scene = Scene(robot, self._device, self._backend.virtual, self._say)
        return self._scene

    def _say(self, words: str) -> None:
        if self._relay is not None and self._relay.stdin is not None:
            self._relay.stdin.write(words + "\n")
            self._relay.stdin.flush()

    @staticmethod
    def _end_relay(relay: subprocess.Popen[str]) -> None:
        relay.kill()
        relay.wait()
        for stream in (relay.stdin, relay.stdout):
            stream.close()  # type: ignore[union-attr]

    def run(self, fault: Fault) -> tuple[str, str]:
        """What was told, and "" or what went wrong. On the wall's clock a machine that is busy may be at fault."""
        tries = 1 if self._backend.virtual else 3
        for left in reversed(range(tries)):
            try:
                told, wrong = run_fault(self.scene(), fault)
            except PoiseError as error:
                told, wrong = "", f"{type(error).__name__}: {error}"
            if not wrong:
                break
            self.disconnect()
            if not left:
                break
        return told, wrong

    def faults(self) -> list[Fault]:
        """Every fault of the backend but those of processes."""
        if self._device is None:
            return COMMANDS + CLOCKS
        if self._backend.relay:
            return LINES
        names = self._device.side_line.ask("faults")["faults"]
        return (
            COMMANDS + CLOCKS + device_faults(next(k for k, b in BACKENDS.items() if b is self._backend), list(names))
        )

    def disconnect(self) -> None:
        if self._scene is not None:
            with contextlib.suppress(PoiseError):
                self._scene.robot.close()
            self._scene = None

    def close(self) -> None:
        self.disconnect()
        self._stack.close()


def run_fault(scene: Scene, fault: Fault) -> tuple[str, str]:
    """What was told, and "" or what went wrong."""
    robot = scene.robot
    try:
        scene.clear()
        before = robot.status()["counts"]["out_of_limit"]
        scene.stream(0.3)
        if robot.fault:
            return scene.told(), f"it stopped before the fault came: {robot.fault}"
        with contextlib.suppress(NotConnectedError):
            fault.make(scene)
        told = scene.told()
        if told not in fault.told:
            return told, f"told {told!r}, expected one of {fault.told}: {scene.loop.supervisor.fault}"
        if not scene.stands_within(STOP):
            return told, f"the arm still moves at {scene.speed():.3f} rad/s"
        scene.clear()
        if robot.fault:
            return told, f"after clear_fault: {robot.fault}"
        if (after := robot.status()["counts"]["out_of_limit"]) != before and fault.kind != "line":
            return told, f"{after - before} commands out of limits"
        return told, ""
    except PoiseError as error:
        return scene.told(), f"{type(error).__name__}: {error}"
    finally:
        if scene.running:
            scene.running.side_line.ask("clear")


def rows(backends: Sequence[str] = tuple(BACKENDS), kinds: Sequence[str] = KINDS) -> Iterator[dict[str, Any]]:
    """One row a fault and backend."""
    for backend in backends:
        bench = Bench(backend)
        try:
            for fault in [fault for fault in bench.faults() if fault.kind in kinds]:
                began = time.monotonic()
                told, wrong = bench.run(fault)
                yield {"backend": backend, "kind": fault.kind, "fault": fault.name, "told": told, "wrong": wrong,
                       "seconds": round(time.monotonic() - began, 2)}  # fmt: skip
        finally:
            bench.close()
        if BACKENDS[backend].name and not BACKENDS[backend].relay and "process" in kinds:
            for who, what in PROCESSES:
                began, wrong = time.monotonic(), run_process_fault(backend, who, what)
                yield {"backend": backend, "kind": "process", "fault": f"{what} of {who}", "told": "", "wrong": wrong,
                       "seconds": round(time.monotonic() - began, 2)}  # fmt: skip


if __name__ == "__main__":
    asked = sys.argv[1:]  # backends and kinds, in any order; all of what is not named
    chosen = [[name for name in known if name in asked] or list(known) for known in (BACKENDS, KINDS)]
    for row in rows(*chosen):
        print(json.dumps(list(row.values())), flush=True)
