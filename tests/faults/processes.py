"""Processes that are killed or stopped while the arm moves, and a disk that is full.

Each has a row of its own. What must follow:

    user       whoever commands: the arm stands within STOP, and the next one who connects moves it
    control    driver and supervisor: the same, by the device's own watchdog or the driver's guardian
    device     the emulator: the user is told, and once a device is there again it moves; one that hangs for 0.3 s and
               goes on stands, and has been sent nothing that is out of its limits
    policy     in a process of its own: latched, the arm stands; clear_fault and a new episode
    camera     of a policy that looks: latched, the arm stands; a new connection, or the same once frames come again
    recorder   nothing; the recording says what happened to it, or it is whole where it went on
    disk       the recorder's is full: nothing, and the recording says so

Pages and live views are served inside the user's process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any
from unittest import mock

import numpy as np

from poise.errors import NotConnectedError, PoiseError, RobotError
from poise.real_robot.emulators.launch import Running, start_emulator
from poise.real_robot.robot import Robot

from .around import AROUND, SIGNALS, around_control, standing
from .backends import BACKENDS, Backend
from .bench import TRIES
from .judge import STOP
from .scene import STANDS

HANG, HANGS = "SIGSTOP for 0.3 s", 0.3  # [s]: what was sent meanwhile arrives late, all at once, or not at all
START = 20.0  # [s] until a process that was just started has the arm moving, on a busy machine
USER = """
import sys, time, numpy as np
from poise.real_robot.robot import Robot
with Robot(sys.argv[1]) as robot:
    robot.clear_fault()
    print(robot._link.process.pid, flush=True)
    start, k = robot.read().joint_pos_target, 0
    for row in robot.follow(0.02):
        t = np.arange(1, 6) * 0.02 + k * 0.02
        away = 0.5 * 0.05 * (1 - np.cos(2 * np.pi * t))
        robot.aim_along([(row["now"] + 0.02 * (i + 1), (start + a * (np.arange(len(start)) == 0)).tolist(), None)
                         for i, a in enumerate(away)])
        k += 1
"""


def process_faults(backend: str) -> tuple[tuple[str, str], ...]:
    """(who, what) of every fault of a process; a twin dies with its control process, so nothing is left to look at."""
    whose = ("user", "control", "device") if BACKENDS[backend].emulator else ("control",)
    hang = (("device", HANG),) if BACKENDS[backend].emulator else ()
    return (*((who, what) for who in whose for what in SIGNALS), *hang, *AROUND)


def run_process_fault(backend: str, who: str, what: str) -> tuple[str, str, int]:
    """What was told, "" or what went wrong, and how many tries it took: the machine may be at fault, which is busy."""
    wrong, tries = "not tried", 0
    while wrong and tries < TRIES:
        tries += 1
        try:
            told, wrong = _run(BACKENDS[backend], who, what)
        except PoiseError as error:
            told, wrong = "", f"{type(error).__name__}: {error}"
    return told, wrong, tries


def _run(b: Backend, who: str, what: str) -> tuple[str, str]:
    if (who, what) in AROUND:
        with _device(b) as (address, running):
            return around_control(address, running, who, what)
    return _in_the_way(b, who, what) if b.emulator else _in_control_of_twin(what)


@contextlib.contextmanager
def _device(b: Backend) -> Iterator[tuple[str, Running | None]]:
    """A device on the wall's clock, for processes of their own."""
    if not b.emulator:
        yield f"{b.address}?realtime=1", None
        return
    with start_emulator(b.emulator, host=b.host, link=b.link) as running:
        yield running.address, running


def _in_the_way(b: Backend, who: str, what: str) -> tuple[str, str]:
    """Kill or stop the user, the control process or the device."""
    with start_emulator(b.emulator, host=b.host, link=b.link) as running:
        user = subprocess.Popen([sys.executable, "-P", "-c", USER, running.address], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, text=True)  # fmt: skip
        control = 0
        try:
            control = int(user.stdout.readline())  # type: ignore[union-attr]
            pid = {"user": user.pid, "control": control, "device": running.process.pid}[who]
            if not _moves(running):
                return "", "the arm never moved"
            os.kill(pid, getattr(signal, what, signal.SIGSTOP))
            if what == HANG:
                time.sleep(HANGS)
                os.kill(pid, signal.SIGCONT)
            if who != "device" or what == HANG:
                if wrong := standing(running, STOP):
                    return "", wrong
            elif what == "SIGKILL":
                user.wait(5.0)  # it is told, and ends
            else:
                time.sleep(STOP)
        finally:
            _end(user, control, running)
        if who != "device" or what == HANG:
            return "", _moves_again(running.address)
    with start_emulator(b.emulator, host=b.host, link=b.link) as running:
        return "", _moves_again(running.address)


def _moves(running: Running) -> bool:
    due = time.monotonic() + START
    while np.abs(running.side_line.truth()["joint_vel"]).max() < 2 * STANDS:
        if time.monotonic() > due:
            return False
    return True


def _end(user: subprocess.Popen[str], control: int, running: Running) -> None:
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


def _in_control_of_twin(what: str) -> tuple[str, str]:
    """The twin goes with its control process: the user is told, and starts another."""
    robot = Robot("twin:fr3?realtime=1").connect()
    link: Any = robot._link
    try:
        with mock.patch("poise.real_robot.links.ANSWER_WAIT", 1.0):
            os.kill(link.process.pid, getattr(signal, what))
            robot.read()
        return "", "a control process that is gone was not missed"
    except NotConnectedError as error:
        expected = "killed by signal 9" if what == "SIGKILL" else "has not answered"
        wrong = "" if expected in str(error) else str(error)
    finally:
        link.process.kill()
        robot.close()
    return "gone", wrong or _moves_again("twin:fr3?realtime=1")
