"""What a recording of 500 Hz and two cameras overruns, and what a kill of the recorder loses: rows of bench_control.py."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from poise.datasets.episodes import environment
from poise.policies.network_document import expected_tensors
from poise.policies.policy_file import PolicyFile, write_policy
from poise.real_robot.cameras import Cameras
from poise.real_robot.deploy import RECORDED
from poise.real_robot.recording import Recording
from poise.real_robot.robot import Robot
from poise.robots import FR3, UR5E, RobotSpec
from poise.sim.tasks.reach import reach_spec

GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}


def recording_rows(seconds: float) -> list[dict[str, Any]]:
    """Everything that `poise deploy --record --camera` writes down, episode after episode of half a minute."""
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder, _camera() as front, _camera() as side:
        path, home = small_policy(Path(folder), UR5E), environment("bench")
        with Cameras({"front": front, "side": side}) as eyes, Robot("twin:ur5e?realtime=1", cameras=eyes) as robot:
            scheduling = robot.status()["scheduling"]
            with Recording(Path(folder) / "out.hdf5", reach_spec(UR5E), home, robot, rings=eyes.rings) as recording:
                before, began, steps = robot.status()["time"], time.monotonic(), 0
                while (left := seconds - (time.monotonic() - began)) > 0.0:
                    steps += _recorded(robot, path, recording, max(1, round(min(left, 30.0) / 0.05)))
                recording.flush()
                took, rows, missed = robot.status()["time"] - before, recording.rows, recording.missed
            found.append({"row": f"recording, {scheduling}", "s": took, "servo rows": rows["servo"],
                          "frames": rows["front"] + rows["side"], "steps": steps, "overrun": sum(missed.values()),
                          "fault": recording.fault or robot.fault, "bar": "0 overrun",
                          "MB": (Path(folder) / "out.hdf5").stat().st_size / 1e6})  # fmt: skip
            found.append(_killed_recorder(Path(folder) / "killed.hdf5", path, robot, eyes))
    return found


def _recorded(robot: Robot, path: str, recording: Recording, steps: int) -> int:
    """One episode, recorded; its steps."""
    done = 0
    for row in robot.run_episode(path, GOAL, steps):
        if "last_obs" in row:
            recording.end(row["last_obs"])
            break
        recording.step(row["obs"], {name: row[name] for name in RECORDED} | {"rewards": 0.0, "terminated": False})
        done += 1
    return done


def _killed_recorder(path: Path, policy: str, robot: Robot, eyes: Cameras) -> dict[str, Any]:
    """kill -9 of the recorder in mid-episode: how much older than the blow the newest servo period in the file is."""
    lost = []
    for trial in range(5):
        file = path.with_stem(f"killed{trial}")
        recording = Recording(file, reach_spec(UR5E), environment("bench"), robot, rings=eyes.rings)
        hit = 0.0
        for count, row in enumerate(robot.run_episode(policy, GOAL, 60)):
            if "last_obs" not in row:
                values = {name: row[name] for name in RECORDED} | {"rewards": 0.0, "terminated": False}
                recording.step(row["obs"], values)
            if count == 40 + 3 * trial:
                hit = time.monotonic()
                recording.process.kill()
        recording.close()
        with h5py.File(file) as h5:  # the servo log, since a camera on a busy machine is late by itself
            lost.append(hit - float(np.asarray(h5["log/servo/t_host"])[-1]))
    return {"row": "recorder killed", "lost p50": percentile(lost, 50), "lost max": max(lost), "unit": "s", "bar": "<= 1",
            "trials": len(lost)}  # fmt: skip


@contextlib.contextmanager
def _camera() -> Iterator[str]:
    """Address of an emulated camera: 640 x 480 at 30 fps."""
    command = [sys.executable, "-P", "-m", "poise.real_robot.emulators", "camera"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield json.loads(process.stdout.readline())["address"]
        finally:
            process.kill()


def small_policy(folder: Path, robot: RobotSpec = FR3) -> str:
    """A random mild policy that plans eight actions at a time; the UR5e's stays within 0.2 rad of home."""
    spec, rng = replace(reach_spec(robot), action_horizon=8), np.random.default_rng(0)
    if robot is UR5E:
        term = replace(spec.actions[0], reference="home", home=UR5E.home, scale=(0.2,) * 6, lead=(3.0,) * 6)
        spec = replace(spec, actions=(term,))
    network = {"kind": "mlp", "groups": ["state"], "hidden": [64, 64], "activation": "elu", "head": "tanh"}
    tensors = {name: (0.05 * rng.normal(size=shape)).astype(np.float32)
               for name, shape in expected_tensors(spec, network).items()}  # fmt: skip
    write_policy(folder / "policy.safetensors", PolicyFile(spec, "random", network, tensors, {"task": "reach/fr3"}))
    return str(folder / "policy.safetensors")


def percentile(values: Any, percent: float) -> float:
    """Of some numbers."""
    return float(np.percentile(np.asarray(values, float), percent))
