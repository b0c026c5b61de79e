"""deploy: run a policy file on an arm, episode after episode, and say how it went.

For every episode the task names a start pose and a goal; the arm moves there through the supervisor, the policy
runs for the task's length, and the task's own rules judge what the arm did. Nothing here is particular to one task.

A task with things to grip or push runs on a twin or an emulated arm with its scene, where they are put in their places
and where the policy's external terms come from; a twin is given the scene of its task by itself.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from ..datasets.episodes import environment
from ..errors import LimitViolatedError, SpecError, UsageError
from ..keyed import Stream
from ..policies.runner import Runner
from ..sim.make import load_task
from ..sim.task import Key, State, Task
from ..spec import ObsTerm, Spec
from .camera import split_camera
from .cameras import Cameras
from .drivers import address_robot, split_address, with_option
from .external import external_terms, scene_of
from .gripper_guard import gripper_term
from .match import check_match, offered, seen_through
from .recording import Recording
from .robot import Robot
from .supervisor import lowest_of

Progress = Callable[[int], None]  # called with how many more episodes ended
MOVE_SPEED, SLOW = 0.4, 0.05  # of the arm's limits, to the start poses
RECORDED = ("actions_asked", "actions", "joint_pos_target", "verdict", "t_mono", "t_device")  # of every step


def deploy(policy: str | os.PathLike[str], robot: str, episodes: int | None = None, seed: int = 0,
           record: str | os.PathLike[str] | None = None, realtime: bool = False, progress: Progress | None = None,
           duration: float | None = None, task: str | None = None,
           in_process: bool = False, apart: str = "", ensemble: float = 0.0,
           delay: float = 0.0, view: Callable[[Robot], Any] | None = None,
           cameras: Mapping[str, str] | None = None) -> dict[str, Any]:  # fmt: skip
    """Run episodes of the policy's task on the arm at an address; a summary of plain numbers.

    Args:
        episodes: how many; 10 where nothing is said.
        duration: instead of a number of episodes, start new ones for so long on the arm's clock [s].
        record: an HDF5 file to write the episodes to, as datasets/episodes.py lays them out, and the servo log
            beside them (recorder.py). What goes wrong with it does not stop the arm; the summary tells.
        realtime: keep pace with the wall clock where the address is a twin.
        apart: numpy or torch, to run the policy in a process of its own, in one of them; a large network needs that.
        ensemble: m of temporal ensembling, for policies that plan several actions at a time; 0: the newest plan counts.
        delay: [s] added to the policy's thinking, to see what a slower machine would do.
        view: called once with the connected arm, for a live view; what it returns is closed at the end.
        cameras: name -> address, as mjpeg:http://127.0.0.1:8090/stream, for a policy that looks through them and for
            the recording; the arm then keeps pace with the wall clock.
        task: the task to take goals and success from; None takes the one that the policy was trained on.

    A stop that is latched (a broken policy, a wall) fails the episode. A twin or an emulated arm is released and goes
    on; on any other arm the deployment ends there, since releasing it is a person's decision, and the summary holds
    the `fault`.

    Raises:
        SpecError: the policy does not fit the arm or the task, with the list of differences; nothing has moved.
        PolicyFileError, DatasetError, NotConnectedError, LimitViolatedError: as their names say.
    """
    episodes = 10 if episodes is None and duration is None else episodes
    if (episodes is None) == (duration is None) or not (episodes or duration or 0) > 0:
        raise UsageError(f"deploy takes a positive number of episodes or a duration [s], "
                         f"not episodes={episodes}, duration={duration}")  # fmt: skip
    if apart not in ("", "numpy", "torch"):
        raise UsageError(f"apart={apart!r}: expected numpy or torch, or nothing")
    how = {"apart": bool(apart), "torch": apart == "torch", "ensemble": ensemble, "delay": delay}
    runner = Runner.load(policy)
    name = task or _task_of(runner, policy)
    world = load_task(name)
    cameras = dict(cameras or {})
    if cameras and in_process:
        raise UsageError("cameras need the wall's time: leave in_process out")
    if realtime or (cameras and split_address(robot)[0] == "twin"):
        robot = with_option(robot, "realtime", "1")
    family, _, options = split_address(robot)
    if family == "twin" and "task" not in options and external_terms(world.spec):
        robot = with_option(robot, "task", scene_of(name))
    simulated = family == "twin" or "emulator" in options
    _refuse_differences(runner.spec, world, robot, cameras, simulated)
    how["task"] = name
    began, results, faults, recorder, page = time.monotonic(), [], [], None, None
    shapes = {group: runner.spec.obs_shape(group) for group in runner.spec.images}
    small = {group: (shape[0], shape[1]) for group, shape in shapes.items()}
    with Cameras(cameras, small) as eyes, Robot(robot, in_process, eyes) as arm:
        if record is not None:
            origin = {"policy": str(policy), "trained": runner.provenance, "robot": robot, "seed": seed,
                      "cameras": cameras}  # fmt: skip
            shown = seen_through(runner.spec, eyes.options)
            recorder = Recording(record, shown, environment(world.name, robot=robot), arm, origin,
                                 eyes.rings)  # fmt: skip
        started = arm.status()["time"]
        try:
            page = None if view is None else view(arm)
            for episode in itertools.count():
                if episode == episodes or (duration is not None and arm.status()["time"] - started >= duration):
                    break
                key = _key(seed, episode)
                results.append(_episode(arm, str(policy), runner.spec, world, key, simulated, how, recorder))
                if progress is not None:
                    progress(1)
                if arm.fault:
                    faults.append(arm.fault)
                    if not simulated or "operator" in arm.fault:  # somebody said stop
                        break
                    arm.clear_fault()
        finally:
            if recorder is not None:
                recorder.close()
            if page is not None:
                page.close()
        status = arm.status()
    counts = status["counts"]
    return {
        "policy": str(policy),
        "robot": robot,
        "task": world.name,
        "episodes": len(results),
        "success_rate": _mean(results, "success"),
        "return_mean": _mean(results, "return"),
        "success_from": "truth" if simulated else "measured",
        "commands": counts["commands"],
        "clipped": counts["clipped"],
        "rejected": counts["rejected"],
        "out_of_limit": counts.get("out_of_limit"),
        "fault": faults[-1] if faults else "",
        "faults": len(faults),
        "scheduling": status["scheduling"],
        "recording": None if record is None else str(record),
        "recording_fault": recorder.fault if recorder is not None else "",
        "recording_missed": sum(recorder.missed.values()) if recorder is not None else 0,
        "robot_seconds": status["time"] - started,
        "seconds": time.monotonic() - began,
    }


def _episode(arm: Robot, policy: str, spec: Spec, task: Task, key: Key,
             simulated: bool, how: dict[str, Any], recorder: Recording | None) -> dict[str, Any]:  # fmt: skip
    """Move to the start, run the policy, judge, record: the episode's result."""
    start, velocity, memory = task.reset(key, {})
    joints, hand = start[:, : arm.spec.num_joints], gripper_term(spec)
    # a task's qpos has the joints first, then the fingers where they move
    _move(arm, joints[0], simulated, None if hand is None else float(start[0, arm.spec.num_joints]))
    if external_terms(task.spec):
        arm.arrange(start[0])
    targets = {term.name: joints for term in task.spec.actions if term.kind == "joint_pos"}
    state = State(np.zeros(1), start, velocity, targets, {}, memory)
    readings = task.observe(state)
    goal = {name: readings[name][0] for name in _goal_terms(task.spec)}
    rows, rewards, terminated, after = [], [], False, None
    for row in arm.run_episode(policy, goal, task.max_episode_steps, **how):
        if terminated or "last_obs" in row:  # the successor of the last step that counts
            after = after or (row.get("last_obs") or row["obs"], row["frames"])
            continue
        rows.append(row)
        action = np.asarray(row["actions"])[None]
        now, told = np.array([len(rows) * spec.control_dt]), row["state"]
        whole = ("qpos", "qvel") if external_terms(task.spec) else ("joint_pos", "joint_vel")
        qpos, qvel = (np.asarray(told[name])[None] for name in whole)
        state = replace(state, time=now, qpos=qpos, qvel=qvel)
        state = replace(state, memory=task.advance(state, action))
        rewards.append(float(task.reward(state, action)[0]))
        terminated = bool(task.terminated(state)[0])
        if recorder is not None:
            values = {name: row[name] for name in (*RECORDED, *(["gripper_target"] if hand else []))}
            recorder.step(row["obs"], {**values, "rewards": rewards[-1], "terminated": terminated}, row["frames"])
        if terminated:
            arm.end()
    complete = terminated or len(rows) == task.max_episode_steps
    result = {"success": bool(complete and not arm.fault and task.success(state)[0]), "return": sum(rewards)}
    if recorder is not None and after is not None:
        recorder.end(after[0], ("success" if result["success"] else "failure",), result, after[1])
    return result


def _move(arm: Robot, pose: np.ndarray, simulated: bool, gripper: float | None) -> None:
    """To the start pose, slowly where braking from a fast move would touch a wall; there, the gripper as it starts.

    A simulated arm that the move caught on something is released and tries again; any other waits for a person.
    """
    try:
        arm.move_to(pose, MOVE_SPEED, gripper)
    except LimitViolatedError:
        arm.status()
        if arm.fault and simulated:
            arm.clear_fault()
        arm.move_to(pose, SLOW, gripper)


def _key(seed: int, episode: int) -> Key:
    """The episode's place among the task's random numbers: never one that training under the same seed has seen."""
    own = int(Stream(seed, "deploy/goal").integer(0, 0)[0])
    return Key(own, np.array([0]), np.array([episode]))


def _task_of(runner: Runner, policy: str | os.PathLike[str]) -> str:
    name = runner.provenance.get("task")
    if not isinstance(name, str):
        raise UsageError(f"{policy} does not say which task it was trained on; name one with task=, as in reach/fr3")
    return name


def _goal_terms(spec: Spec) -> dict[str, ObsTerm]:
    """What the task, not the arm, provides."""
    return {t.name: t for terms in spec.observations.values() for t in terms if t.source == "goal"}


def _refuse_differences(spec: Spec, task: Task, robot: str, cameras: Mapping[str, str], simulated: bool) -> None:
    """Raise SpecError, with the list, before anything is opened or moves."""
    model, outside = address_robot(robot), external_terms(task.spec)
    if task.spec.robot != model.name:
        raise SpecError(f"the task {task.name} is for {task.spec.robot or 'no arm'!r}, {robot} is {model.name!r}")
    given = outside if simulated else {}
    seen = offered(spec, {name: split_camera(at)[2] for name, at in cameras.items()})
    check_match(spec, model, {**_goal_terms(task.spec), **given, **seen})
    if outside and not simulated:
        raise SpecError(f"{task.name} is judged by {', '.join(outside)}, which nobody tells at {robot}; deploy it on a "
                        f"twin, or on an emulated arm with task={scene_of(task.name)}")  # fmt: skip
    lowest = getattr(task, "lowest", None)
    if lowest is not None and lowest_of(model) > lowest + 1e-9:
        raise SpecError(f"{task.name} works down to {lowest:g} m above the base, and commands to {robot} keep the tool "
                        f"above {lowest_of(model):g} m; where nothing is in the way below, add lowest={lowest:g} to "
                        "the address")  # fmt: skip


def _mean(results: list[dict[str, Any]], name: str) -> float:
    return float(np.mean([result[name] for result in results]))
