"""How promptly the control process acts: cost of the supervisor, missed deadlines, braking, seams between plans.

`poise bench control [--only NAME] [--seconds S]` prints a table; so does this file by itself. Everything but `seams`
and `supervisor` is on the clock of the wall, with the machine as busy as the row says, so run it on one that is else
idle. Times in milliseconds unless a column says otherwise.

    supervisor   cost of `check` for the FR3's seven joints along a policy-like motion, CPU time, us
    deadlines    500 Hz twin of a UR5e that holds, beside four busy processes: share of periods that came 1 ms late
    killed       the policy's process is killed: until the servo period in which the first braking command is sent
    hung         the policy's process is stopped (SIGSTOP): the same
    stop         Robot.stop() in mid-motion: servo periods from its arrival to the first braking command
    hostile      10,000 bad inputs to each emulated arm by its vendor's client: commands out of limits by its oracle, and
                 how often the device itself stopped, which on the FR3's wall clock a late answer makes it do
    seams        plans that disagree by 30 mrad, thought out with a delay: the largest change of a command's step, mrad;
                 and as a player does that begins each plan at its first row when it arrives
    recording    a 500 Hz twin of a UR5e under a policy and two cameras of 30 fps, recorded for so many seconds: rows and
                 frames that were overrun; then what a kill of the recorder loses, s, and that the file opens
    wire         servoJ commands a second that arrive at an emulated UR5e through ur-rtde, a second at a time
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from poise.action import shape_command
from poise.errors import UsageError
from poise.real_robot.control_loop import ControlLoop
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.realtime import schedule
from poise.real_robot.robot import Robot
from poise.real_robot.self_collision import SelfCollision
from poise.real_robot.supervisor import Supervisor
from poise.real_robot.twin import Twin, TwinOptions
from poise.robots import FR3, UR5E
from poise.sim.tasks.reach import reach_spec
from poise.tests.benchmarks.recording_rows import percentile, recording_rows, small_policy

GOAL = {"target_pos": np.array([0.5, 0.1, 0.4])}
TRIALS, BUSY, HOSTILE = 30, 4, 10_000


def rows(only: str = "", seconds: float = 20.0) -> list[dict[str, Any]]:
    """The table's rows."""
    known: dict[str, Callable[[float], list[dict[str, Any]]]] = {
        "supervisor": _supervisor, "deadlines": _deadlines, "killed": _killed, "hung": _hung, "stop": _stop,
        "seams": _seams, "wire": _wire, "hostile": _hostile, "recording": recording_rows,
    }  # fmt: skip
    if only and only not in known:
        raise UsageError(f"no row {only!r}; known: {', '.join(known)}")
    return [row for name, make in known.items() if only in ("", name) for row in make(seconds)]


def _supervisor(seconds: float) -> list[dict[str, Any]]:
    """Targets 0.1 rad apart every 50 ms, followed at 0.9 of the limits, as a policy does."""
    found = []
    for name, collision in (("supervisor", None), ("with self-collision", SelfCollision(FR3))):
        home, dt, rng = np.array(FR3.home), FR3.servo_dt, np.random.default_rng(0)
        supervisor, cost = Supervisor(FR3, collision=collision), []
        supervisor.start(home, home)
        position, velocity, target = home, np.zeros(7), home
        limits = 0.9 * np.array(FR3.velocity), 0.9 * np.array(FR3.acceleration)
        for k in range(20_000):
            if k % 10 == 0:
                target = np.clip(target + rng.uniform(-0.1, 0.1, 7), home - 0.4, home + 0.4)
            position, velocity = shape_command(position, velocity, target, *limits, dt)
            began = time.thread_time_ns()
            verdict = supervisor.check(position, k * dt, k * dt)
            cost.append((time.thread_time_ns() - began) / 1e3)
            position, velocity = verdict.position, verdict.velocity
        found.append(
            {"row": name, "p50": percentile(cost, 50), "p99": percentile(cost, 99), "max": max(cost), "unit": "us"}
        )
    return found


def _deadlines(seconds: float) -> list[dict[str, Any]]:
    found = []
    with _busy():
        for real_time in (True, False):
            command = [sys.executable, "-P", __file__, "hold", str(int(real_time)), str(seconds)]
            late = np.array(
                subprocess.run(command, capture_output=True, check=True, text=True).stdout.split()[1:], float
            )
            got = "real time" if real_time else "ordinary"
            found.append({"row": f"deadlines, {got}", "p50": percentile(late, 50), "p99": percentile(late, 99),
                          "max": float(late.max()), "unit": "ms late", "missed %": 100.0 * float((late > 1.0).mean()),
                          "periods": len(late)})  # fmt: skip
    return found


def hold(real_time: bool, seconds: float) -> None:
    """In a process of its own: how late each period of a 500 Hz loop ends [ms]."""
    got = schedule() if real_time else "ordinary"
    if real_time and got != "real time":
        raise SystemExit("this system allows no real-time scheduling")
    loop = ControlLoop(Twin(UR5E, TwinOptions(realtime=1)))
    loop.open()
    late, dt = [], UR5E.servo_dt
    last = time.monotonic()
    for _ in range(round(seconds / dt)):
        loop.hold()
        now = time.monotonic()
        late.append(1e3 * (now - last - dt))
        last = now
    print(got.replace(" ", "-"), *(f"{x:.4f}" for x in late))


def _killed(seconds: float) -> list[dict[str, Any]]:
    return [_until_braking("killed", signal.SIGKILL)]


def _hung(seconds: float) -> list[dict[str, Any]]:
    return [_until_braking("hung", signal.SIGSTOP)]


def _until_braking(name: str, how: signal.Signals) -> dict[str, Any]:
    took = []
    with tempfile.TemporaryDirectory() as folder, Robot("twin:fr3?realtime=1") as robot:
        path, log = small_policy(Path(folder)), robot.servo_log()
        for _ in range(TRIALS):
            hit = 0.0
            for count, _row in enumerate(robot.run_episode(path, GOAL, 100, apart=True)):
                if count == 8:
                    log.read()
                    victim = _thinker_of(robot)
                    time.sleep(np.random.default_rng(count).uniform(0, 0.01))
                    hit = time.monotonic()
                    os.kill(victim, how)
            # of the servo period: its reading, which the command follows by the cost of a decision
            braking = [float(r["t_mono"]) for r in log.read().records if r["verdict"] == 2 and r["t_mono"] >= hit]
            if braking:  # else this process was so late with its blow that the episode was over
                took.append(1e3 * (braking[0] - hit))
                robot.clear_fault()
            robot.move_to(FR3.home)
    return {
        "row": name,
        "p50": percentile(took, 50),
        "p99": percentile(took, 99),
        "max": max(took),
        "unit": "ms",
        "trials": len(took),
    }


def _stop(seconds: float) -> list[dict[str, Any]]:
    took = []
    with Robot("twin:fr3?realtime=1") as robot, tempfile.TemporaryDirectory() as folder:
        path, log = small_policy(Path(folder)), robot.servo_log()
        for _ in range(TRIALS):
            hit = 0.0
            for count, _row in enumerate(robot.run_episode(path, GOAL, 100)):
                if count == 8:
                    log.read()
                    hit = time.monotonic()
                    robot.stop()
            after = [r for r in log.read().records if r["t_host"] > hit]
            took.append(1 + next(i for i, r in enumerate(after) if r["fault"] == b"operator"))
            robot.clear_fault()
            robot.move_to(FR3.home)
    return [{"row": "stop", "p50": percentile(took, 50), "p99": percentile(took, 99), "max": max(took), "unit": "servo periods",
             "trials": TRIALS}]  # fmt: skip


def _seams(seconds: float) -> list[dict[str, Any]]:
    found = []
    for delay in (0.1, 0.2, 0.3):
        ours, plans = [], Planner()
        twin = Twin(FR3)
        write = twin.write
        twin.write = lambda q, g=None, w=write, to=ours: (to.append(float(q[0])), w(q, g))[1]
        with Robot(twin) as robot:
            for _row in robot.run_episode(plans, GOAL, 200, delay=delay):
                pass
        naive = _as_they_come(plans.made, delay)
        found.append({"row": f"seams, {1e3 * delay:.0f} ms", "max": _change(ours), "naive": _change(naive),
                      "back": _back(ours), "naive back": _back(naive), "unit": "mrad"})  # fmt: skip
    return found


class Planner:
    """Sixteen actions at a time: the first joint on and back at 0.4 rad/s, each plan off by an error of its own."""

    def __init__(self):
        spec = reach_spec()
        term = replace(spec.actions[0], reference="home", home=FR3.home, scale=(1.0,) * 7, lead=(3.0,) * 7)
        self.spec = replace(spec, actions=(term,), action_horizon=16)
        self.made: list[tuple[float, np.ndarray]] = []
        self._rng = np.random.default_rng(0)

    def initial_state(self, n: int) -> dict[str, np.ndarray]:
        return {"step": np.zeros(n, int)}

    def act(self, obs, state):
        seen, where = obs["state"][0], self.spec.slices("state")
        target = float(seen[where["joint_pos"]][0] + seen[where["target_error"]][0])
        rows = np.zeros((1, 16, 7))
        ahead = target + 0.4 * self.spec.control_dt * np.arange(1, 17)
        rows[0, :, 0] = np.clip(ahead + 0.03 * self._rng.normal(), -0.9, 0.9)
        self.made.append((len(self.made) * self.spec.control_dt, rows[0, :, 0]))
        return rows, {"step": state["step"] + 1}


def _wire(seconds: float) -> list[dict[str, Any]]:
    """The control process holds the arm, a command every period; the emulator counts what arrives."""
    rates = []
    with start_emulator("ur5e", host="127.0.0.81") as device, Robot(device.address) as robot:
        for _ in range(max(1, round(seconds))):
            before, began = device.side_line.counters()["arrived"], time.monotonic()
            time.sleep(1.0)
            rates.append((device.side_line.counters()["arrived"] - before) / (time.monotonic() - began))
        status, counts = robot.status(), device.side_line.counters()
    return [{"row": f"wire, ur5e, {status['scheduling']}", "p50": percentile(rates, 50), "min": min(rates), "unit": "commands/s",
             "bar": ">= 450", "fault": status["fault"], "out of limits": counts["out_of_limit"]}]  # fmt: skip


def _as_they_come(plans: list[tuple[float, np.ndarray]], delay: float) -> list[float]:
    """The same plans, each from its first row on when it arrives, straight between rows, a command a servo period."""
    control_dt, dt, sent = reach_spec().control_dt, FR3.servo_dt, []
    for _, rows in plans[:-1]:
        time_of_rows = control_dt * np.arange(len(rows))
        period = max(delay, control_dt)  # until the next one is there
        sent += np.interp(np.arange(0.0, period, dt), time_of_rows, rows).tolist()
    return sent


def _change(commands: list[float]) -> float:
    return 1e3 * float(np.abs(np.diff(commands, 2)).max())


def _back(commands: list[float]) -> float:
    steps = np.diff(commands)
    return 1e3 * float(-steps.min())


def _hostile(seconds: float) -> list[dict[str, Any]]:
    """HOSTILE inputs to each emulated arm through control loop, vendor's client and wire; franka-sim keeps the wall's
    clock, the others one of their own."""
    places = {"ur5e": {"host": "127.0.8.1"}, "so101": {}, "vx300s": {}, "xarm7": {"host": "127.0.8.2"},
              "ros2:fr3": {"link": f"/hostile_{os.getpid()}"}, "fr3": {"host": "127.0.8.3"}}  # fmt: skip
    found = []
    for name, place in places.items():
        rng, past, stops = np.random.default_rng(1), [], 0
        virtual = name != "fr3"
        with start_emulator(name, virtual=virtual, **place) as device, Robot(device.address, in_process=True) as robot:
            for _ in range(HOSTILE):
                asked, at = _bad(rng, robot, past)
                past = [*past, (asked, at)][-50:]
                if robot.command(asked, at).rule == "stopped":
                    stops += " device " in robot.fault
                    robot.clear_fault()
            counts, told = robot.status()["counts"], device.side_line.ask("counters")
        found.append({"row": f"hostile, {name}", "inputs": HOSTILE, "clipped": counts["clipped"],
                      "rejected": counts["rejected"], "arrived": told["arrived"],
                      "out of limits": told["out_of_limit"], "device's stops": stops,
                      "told": "; ".join(told["told"])})  # fmt: skip
    return found


def _bad(rng: np.random.Generator, robot: Robot, past: list[Any]) -> tuple[np.ndarray, float | None]:
    """Steps of 1e-5 to 10 rad; among them what is no number, too short, old, repeated or of the wrong sign."""
    n, at = robot.spec.num_joints, None
    asked = robot.read().joint_pos_target + rng.normal(size=n) * 10.0 ** rng.uniform(-5, 1)
    match rng.integers(10):
        case 0:
            asked[rng.integers(n)] = rng.choice([np.nan, np.inf, -np.inf, 1e308, -1e30])
        case 1:
            asked = asked[: rng.integers(n)]
        case 2:
            at = robot.status()["time"] - rng.uniform(0, 2)
        case 3 if past:
            asked, at = past[rng.integers(len(past))]
        case 4:
            asked = -asked
        case 5:
            at = robot.status()["time"]
    return asked, at


def _thinker_of(robot: Robot) -> int:
    control = robot._link.process.pid  # type: ignore[attr-defined]
    for child in Path(f"/proc/{control}/task/{control}/children").read_text().split():
        if "poise.real_robot.thinker" in Path(f"/proc/{child}/cmdline").read_text():
            return int(child)
    raise RuntimeError("the policy has no process of its own")


class _busy:
    """Processes that do nothing but compute."""

    def __enter__(self) -> None:
        command = [sys.executable, "-c", "while True: sum(range(10_000))"]
        self._processes = [subprocess.Popen(command) for _ in range(BUSY)]

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def main() -> Iterator[str]:
    """Every row, as text."""
    for row in rows():
        yield str(row)


if __name__ == "__main__":
    if sys.argv[1:2] == ["hold"]:
        hold(sys.argv[2] == "1", float(sys.argv[3]))
    else:
        print("\n".join(main()))
