"""Who stands around the control process while a policy runs: the policy's own process, its camera, the recorder."""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from conftest_camera import camera_policy, emulated_camera
from poise.datasets.episodes import environment
from poise.policies.runner import Runner
from poise.real_robot.cameras import Cameras
from poise.real_robot.deploy import RECORDED
from poise.real_robot.emulators.launch import Running
from poise.real_robot.recording import Recording
from poise.real_robot.robot import Robot
from poise.sim.tasks.reach import reach_spec
from random_policy import write_random

from .judge import STOP
from .scene import STANDS

SIGNALS = ("SIGKILL", "SIGSTOP")
AROUND = (*((who, what) for who in ("policy", "camera", "recorder") for what in SIGNALS), ("recorder", "disk full"))
TOLD = {"policy": ("process", "policy"), "camera": ("camera",), "recorder": ("",)}
SAID = {("recorder", "SIGKILL"): "killed by signal 9", ("recorder", "disk full"): "Free some space"}
HIT, STEPS = 8, 32  # the control step after which a fault comes, and how many an episode has
DISK = 200_000  # [bytes] that fit


def around_control(address: str, running: Running | None, who: str, what: str) -> tuple[str, str]:
    """An episode of a policy apart, recorded, in the middle of which the fault comes, then a whole one: see processes.py."""
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        arm = stack.enter_context(_arm(address, who, folder))
        with _disk(what == "disk full"), arm.recording("one") as recording:
            told, wrong = _with_fault(arm, running, recording, who, what)
        expected = SAID.get((who, what), "")
        if not wrong and (expected not in recording.fault or (recording.fault and not expected)):
            wrong = f"the recording says {recording.fault!r}, expected {expected!r}"
        count = arm.out_of_limit()
        if who == "camera":  # a camera that is gone takes a new connection
            stack.close()
            arm = stack.enter_context(_arm(address, who, folder))
        elif arm.robot.fault:
            arm.robot.clear_fault()
        if not wrong:
            with arm.recording("two") as recording:
                steps, _ = arm.episode(recording)
            if steps < STEPS or arm.robot.fault or recording.fault:
                wrong = f"afterwards: {steps} of {STEPS} steps, {arm.robot.fault or recording.fault}"
        count = max(count, arm.out_of_limit())
    return told, wrong or (f"{count} commands out of limits" if count else "")


@dataclass
class _Arm:
    """An arm that runs a policy."""

    robot: Robot
    policy: str
    folder: Path
    cameras: Cameras
    counted: int  # out of limits before

    def out_of_limit(self) -> int:
        return self.robot.status()["counts"]["out_of_limit"] - self.counted

    def recording(self, name: str) -> Recording:
        spec = Runner.load(self.policy).spec
        return Recording(
            self.folder / f"{name}.hdf5", spec, environment("faults"), self.robot, rings=self.cameras.rings
        )

    def episode(self, recording: Recording, who: str = "", what: str = "") -> tuple[int, int]:
        """Steps that were done, and the process that the fault befell."""
        goal = {} if self.cameras.processes else {"target_pos": [0.3, 0.1, 0.3]}
        steps, victim = 0, 0
        self.robot.move_to(self.robot.spec.home, 0.5)
        for row in self.robot.run_episode(self.policy, goal, STEPS, apart=True):
            if "last_obs" in row:
                break
            recording.step(row["obs"], {**{name: row[name] for name in RECORDED}, "rewards": 0.0}, row["frames"])
            steps += 1
            if steps == HIT and what in SIGNALS:
                victim = self.process(who, recording)
                os.kill(victim, getattr(signal, what))
        return steps, victim

    def process(self, who: str, recording: Recording) -> int:
        if who == "policy":
            return thinker_of(self.robot)
        return (recording.process if who == "recorder" else self.cameras.processes["front"]).pid


@contextlib.contextmanager
def _arm(address: str, who: str, folder: str) -> Iterator[_Arm]:
    """Connected, with a policy of the kind that the fault is about."""
    with contextlib.ExitStack() as stack:
        looks: dict[str, str] = {}
        if who == "camera":
            looks["front"] = stack.enter_context(emulated_camera(width=320, height=240, fps=20)) + "&max_age=0.5"
        cameras = stack.enter_context(Cameras(looks, dict.fromkeys(looks, (84, 84))))
        robot = stack.enter_context(Robot(address, cameras=cameras))
        if looks:
            policy, _ = camera_policy(Path(folder), robot.spec, 0.03)
        else:
            policy = write_random(Path(folder) / "policy.safetensors", 0.1, reach_spec(robot.spec), "")
        robot.clear_fault()
        yield _Arm(robot, policy, Path(folder), cameras, robot.status()["counts"]["out_of_limit"])


def _with_fault(arm: _Arm, running: Running | None, recording: Recording, who: str, what: str) -> tuple[str, str]:
    """What was told, and what went wrong; a process that was stopped goes on."""
    steps, victim = arm.episode(recording, who, what)
    robot = arm.robot
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
