"""Who stands around the control process while a policy runs: the policy's own process, and the recorder with its disk."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from poise.datasets.episodes import environment
from poise.policies.runner import Runner
from poise.real_robot.deploy import RECORDED
from poise.real_robot.emulators.launch import Running
from poise.real_robot.recording import Recording
from poise.real_robot.robot import Robot
from poise.sim.tasks.reach import reach_spec
from random_policy import write_random

from .judge import STOP
from .scene import STANDS

SIGNALS = ("SIGKILL", "SIGSTOP")
AROUND = (*((who, what) for who in ("policy", "recorder") for what in SIGNALS), ("recorder", "disk full"))
TOLD = {"policy": ("process", "policy"), "recorder": ("",)}
SAID = {("recorder", "SIGKILL"): "killed by signal 9", ("recorder", "disk full"): "Free some space"}
HIT, STEPS = 8, 32  # the control step after which a fault comes, and how many an episode has
DISK = 200_000  # [bytes] that fit


def around_control(address: str, running: Running | None, who: str, what: str) -> tuple[str, str]:
    """An episode of a policy apart, recorded, in the middle of which the fault comes, then a whole one: see processes.py."""
    with tempfile.TemporaryDirectory() as folder, Robot(address) as robot:
        policy = write_random(Path(folder) / "policy.safetensors", 0.1, reach_spec(robot.spec), "")
        robot.clear_fault()
        before = robot.status()["counts"]["out_of_limit"]
        with _disk(what == "disk full"), _recording(folder, "one", policy, robot) as recording:
            told, wrong = _with_fault(robot, running, policy, recording, who, what)
        expected = SAID.get((who, what), "")
        if not wrong and (expected not in recording.fault or (recording.fault and not expected)):
            wrong = f"the recording says {recording.fault!r}, expected {expected!r}"
        if robot.fault:
            robot.clear_fault()
        if not wrong:
            with _recording(folder, "two", policy, robot) as recording:
                steps, _ = _episode(robot, policy, recording)
            if steps < STEPS or robot.fault or recording.fault:
                wrong = f"afterwards: {steps} of {STEPS} steps, {robot.fault or recording.fault}"
        count = robot.status()["counts"]["out_of_limit"] - before
    return told, wrong or (f"{count} commands out of limits" if count else "")


def _with_fault(robot: Robot, running: Running | None, policy: str, recording: Recording, who: str,
                what: str) -> tuple[str, str]:  # fmt: skip
    """What was told, and what went wrong; a process that was stopped goes on."""
    steps, victim = _episode(robot, policy, recording, who, what)
    try:
        told = robot.fault.split()[1].rstrip(":") if robot.fault else ""
        if told not in TOLD[who]:
            return told, f"told {told!r}, expected one of {TOLD[who]}: {robot.fault}"
        if not told and steps < STEPS:
            return told, f"the episode ended after {steps} of {STEPS} steps"
        return told, standing(running, STOP) if running else ""
    finally:
        if what == "SIGSTOP":
            os.kill(victim, signal.SIGCONT)


def _recording(folder: str, name: str, policy: str, robot: Robot) -> Recording:
    return Recording(Path(folder) / f"{name}.hdf5", Runner.load(policy).spec, environment("faults"), robot)


def _episode(robot: Robot, policy: str, recording: Recording, who: str = "", what: str = "") -> tuple[int, int]:
    """Steps that were done, and the process that the fault befell."""
    goal, steps, victim = {"target_pos": [0.3, 0.1, 0.3]}, 0, 0
    robot.move_to(robot.spec.home, 0.5)
    for row in robot.run_episode(policy, goal, STEPS, apart=True):
        if "last_obs" in row:
            break
        recording.step(row["obs"], {**{name: row[name] for name in RECORDED}, "rewards": 0.0})
        steps += 1
        if steps == HIT and what in SIGNALS:
            victim = recording.process.pid if who == "recorder" else thinker_of(robot)
            os.kill(victim, getattr(signal, what))
    return steps, victim


def thinker_of(robot: Robot) -> int:
    """The process that a policy apart runs in."""
    control = robot._link.process.pid  # type: ignore[attr-defined]
    for child in Path(f"/proc/{control}/task/{control}/children").read_text().split():
        if "poise.real_robot.thinker" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise RuntimeError("the policy has no process of its own")


def standing(running: Running, seconds: float) -> str:
    """Wait until the arm stands and nothing more comes; what is wrong."""
    due = time.monotonic() + seconds
    while (speed := np.abs(running.side_line.truth()["joint_vel"]).max()) > STANDS:
        if time.monotonic() > due:
            return f"the arm still moves at {speed:.3f} rad/s"
        time.sleep(0.01)
    time.sleep(0.2)
    told = running.side_line.ask("counters")
    return f"{told['out_of_limit']} commands out of limits: {told['told']}" if told["out_of_limit"] else ""


@contextlib.contextmanager
def _disk(is_small: bool) -> Iterator[None]:
    """A recorder that is started meanwhile finds room for DISK bytes alone."""
    popen = subprocess.Popen

    def small(command: list[str], **how: Any) -> subprocess.Popen[bytes]:
        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (DISK, DISK))

        return popen(command, preexec_fn=limit if "poise.real_robot.recorder" in command else None, **how)

    with mock.patch("poise.real_robot.recording.subprocess.Popen", small) if is_small else contextlib.nullcontext():
        yield
