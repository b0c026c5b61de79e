"""The control process: the only place where a device is open. No torch here (a test reads sys.modules).

    python -m poise.real_robot.control --fd N --ring N --address twin:fr3

It answers requests (see `handle`) that arrive on the socket N by what the control loop can do (control_loop.py). If the
other side dies, it brakes and exits.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import signal
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

from ..errors import NotConnectedError, PoiseError, UsageError
from ..policies.runner import Runner
from ..sim.make import load_task
from ..sim.task import Task
from ..spec import ObsTerm, Spec
from .camera import split_camera
from .cameras import View
from .channel import Channel
from .control_loop import ControlLoop, Row
from .drivers import driver_at
from .external import External, external_terms
from .following import add_points, follow
from .match import check_match, offered
from .policy_run import run_policy
from .realtime import schedule
from .ring import RingReader, RingWriter
from .servo_log import ServoLog
from .thinking import Apart, Here, Thinking


def handle(loop: ControlLoop, request: Mapping[str, Any]) -> Iterator[Row]:
    """Answer one request: rows where there are any, then one message with "done" or "error"."""
    try:
        result = None
        match request["do"]:
            case "read":
                reading = loop.driver.read()
                result = {name: x.tolist() if isinstance(x, np.ndarray) else x for name, x in
                          reading._asdict().items()}  # fmt: skip
            case "truth":
                result = {name: x.tolist() for name, x in loop.driver.truth().items()}
            case "status":
                pass  # every answer carries it
            case "command":
                result = loop.command(_array(request["target"]), request["at"], str(request.get("source", "")),
                                      request.get("gripper"))  # fmt: skip
            case "move_to":
                loop.move_to(_pose(request["joint_pos"], loop), _speed(request["speed"]), request.get("gripper"))
            case "arrange":
                _arrange(loop, np.asarray(request["qpos"], np.float64))
            case "episode":
                goal = {k: np.asarray(v) for k, v in request["goal"].items()}
                runner = _runner(request["policy"])
                external = _external(runner.spec, loop, str(request.get("task", "")), goal)
                seen = offered(runner.spec, loop.cameras.options) | (external.terms if external else {})
                check_match(runner.spec, loop.robot, {**_as_asked(runner.spec, goal), **seen})
                thinking = _thinking(runner, request, loop.driver.realtime)
                while not thinking.ready():  # the arm is not left without commands meanwhile
                    loop.hold()
                for row in run_policy(loop, thinking, goal, int(request["steps"]), external):
                    yield {"row": row}
            case "follow":
                for row in follow(loop, loop.waypoints, float(request["period"]), request["source"]):
                    yield {"row": row}
            case "hold":
                loop.hold()
            case "clear_fault":
                loop.clear_fault()
            case "modules":
                result = sorted(sys.modules)
            case other:
                raise UsageError(f"the control process knows no request {other!r}")
        yield {"done": True, "result": result, "status": loop.status()}
    except PoiseError as error:
        if isinstance(error, NotConnectedError):
            loop.lost()
        yield {"error": type(error).__name__, "message": str(error)}


_runners: dict[str, Runner] = {}


def _runner(policy: Any) -> Runner:
    """The runner of a file, read once for every state of the file; a runner in hand passes through."""
    if not isinstance(policy, str):
        return policy
    stamp = f"{policy}@{os.stat(policy).st_mtime_ns if os.path.exists(policy) else 0}"
    if stamp not in _runners:
        _runners.clear()
        _runners[stamp] = Runner.load(policy)
    return _runners[stamp]


_apart: dict[str, Apart] = {}


def _thinking(runner: Runner, request: Mapping[str, Any], realtime: bool) -> Thinking:
    """Where the policy is to run: in this process, or in one of its own, which is kept for the next episode."""
    ensemble, delay = float(request.get("ensemble", 0.0)), float(request.get("delay", 0.0))
    if not request.get("apart"):
        return Here(runner, ensemble, delay)
    if not realtime:
        raise UsageError("a policy in a process of its own answers on the wall clock, which this simulated arm does "
                         "not keep; leave `apart` out, or ask for realtime")  # fmt: skip
    torch = bool(request.get("torch"))
    key = json.dumps([next(iter(_runners)), ensemble, delay, torch])
    if key not in _apart or _apart[key].trouble():
        close_apart()
        _apart[key] = Apart(request["policy"], runner.spec, ensemble, delay, torch)
    return _apart[key]


def close_apart() -> None:
    """End the policy's process, where there is one."""
    while _apart:
        _apart.popitem()[1].close()


def _as_asked(spec: Spec, goal: Mapping[str, np.ndarray]) -> dict[str, ObsTerm]:
    """The goal's terms as the Spec has them: units of what comes from outside are checked by whoever sends it."""
    asked = {t.name: t for group in spec.observations.values() for t in group if t.source in ("goal", "external")}
    return {name: replace(asked[name], shape=value.shape) for name, value in goal.items() if name in asked}


@lru_cache(maxsize=1)
def _task(name: str) -> Task:
    return load_task(name)


def _external(spec: Spec, loop: ControlLoop, task: str, goal: Mapping[str, np.ndarray]) -> External | None:
    """What tells the policy's external terms; None where it has none, or somebody has told them with the goal."""
    if not task or not set(external_terms(spec)) - set(goal):
        return None
    return External(_task(task), loop.driver.truth(), goal)


def _arrange(loop: ControlLoop, qpos: np.ndarray) -> None:
    """Put the objects of a simulated scene somewhere. Raises UsageError where there is none."""
    if (arrange := getattr(loop.driver, "arrange", None)) is None:
        raise UsageError(f"only the scene of a twin or an emulated arm can be arranged, not that of {loop.robot.name}")
    arrange(qpos)


def _array(value: Any) -> Any:
    """A command as it came, as an array where it can be one; judging it is the supervisor's business."""
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        return value


def _pose(value: Any, loop: ControlLoop) -> np.ndarray:
    pose = _array(value)
    if not isinstance(pose, np.ndarray) or pose.shape != (loop.robot.num_joints,):
        raise UsageError(f"a pose of {loop.robot.name} has {loop.robot.num_joints} joint positions [rad]")
    return pose


def _speed(value: float) -> float:
    if not 0.0 < value <= 1.0:
        raise UsageError(f"speed is a fraction of the arm's limits, above 0 and at most 1, not {value}")
    return float(value)


# ---- the process -----------------------------------------------------------------------------


def serve(channel: Channel, address: str, ring: int, cameras: Sequence[Sequence[str]]) -> None:
    """Open the device and answer requests until the other side closes the line or dies.

    ring: descriptor of the servo log's ring; cameras: (name, descriptor of its ring, address) of each.
    """
    driver = driver_at(address)
    loop = ControlLoop(driver)
    loop.log = ServoLog(RingWriter(ring))
    loop.cameras = View({name: (RingReader(int(fd)), split_camera(at)[2]) for name, fd, at in cameras})
    waiting: list[Mapping[str, Any]] = []
    parent = os.getppid()

    def interrupted() -> str:
        if os.getppid() != parent:
            raise EOFError("the process that started this one is gone")
        while (message := channel.receive(timeout=0.0)) is not None:
            if message["do"] in ("end", "stop"):
                return str(message["do"])
            if message["do"] == "aim":
                add_points(loop, loop.waypoints, message["points"])
            else:
                waiting.append(message)
        return ""

    loop.interrupted = interrupted
    try:
        if driver.realtime:
            loop.scheduling = schedule()
        loop.open()
        gc.collect()
        gc.freeze()
        channel.send({"done": True, "result": None, "status": loop.status()})
        while True:
            idle = driver.realtime and not loop.is_lost  # then somebody has to keep up the stream of commands
            request = waiting.pop(0) if waiting else channel.receive(0.0 if idle else None)
            if request is None:
                for _ in handle(loop, {"do": "hold"}):
                    pass
            elif request["do"] == "close":
                break
            elif request["do"] == "stop":  # answered by nothing but the status that the next answer carries
                loop.stop()
            elif request["do"] not in ("end", "aim"):  # the job that these are meant for is over
                for reply in handle(loop, request):
                    channel.send(reply, wait=not driver.realtime)
    finally:
        driver.close()
        close_apart()


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.control")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--address", required=True)
    parser.add_argument("--ring", type=int, required=True)
    parser.add_argument("--camera", nargs=3, action="append", default=[], metavar=("NAME", "RING", "ADDRESS"))
    options = parser.parse_args(argv)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent; it tells us what to do
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # brakes on the way out
    channel = Channel(socket.socket(fileno=options.fd))
    try:
        serve(channel, options.address, options.ring, options.camera)
    except EOFError:
        return 0
    except PoiseError as error:
        channel.send({"error": type(error).__name__, "message": str(error)})
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
