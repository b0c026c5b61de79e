"""`python -m poise.real_robot.live_page SETTINGS`: the page of live_view.py, in a process of its own.

It shows the arm as measured and, as a shade, as commanded; every joint's position, speed and torque against its limits;
the rate, the verdicts and their last reasons; the latched fault; and a stop button. No torch.

Legend: n joints, R records.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections import deque
from typing import Any

import mujoco
import numpy as np

from ..errors import PoiseError
from ..policies.view_scene import MujocoScene
from ..policies.view_server import serve, stop
from ..robots import RobotSpec, robot_spec
from .emulators.arm import ASSETS
from .ring import RingReader

FRAME_DT, TEXT_DT, PLOT_DT = 1 / 25, 0.5, 1.0  # [s] between two pictures, tables, curves
SPAN = 10.0  # [s] that curves reach back
POINTS = 200  # of a curve
UNSEEN = 1e-4  # [rad] that nobody sees
SHADE = (230, 140, 40)  # the commanded arm
COLOURS = ("#2667a0", "#c2571a", "#2d8a4e", "#8a4fbf", "#b0931d", "#c22a6f", "#4a90a4")
CODES = ("passed", "clipped", "rejected")


class Digest:
    """What has been seen of an arm: the newest record, counts, last reasons, a short past. No page in it."""

    def __init__(self, robot: RobotSpec):
        self.robot, self.newest = robot, None
        self.counts = dict.fromkeys(CODES, 0)
        self.reasons: deque[str] = deque(maxlen=5)
        self.missed = 0
        self._past: deque[tuple[float, Any]] = deque()
        self._periods: deque[float] = deque(maxlen=500)
        self._host = np.nan

    def add(self, records: np.ndarray, missed: int) -> None:
        """Take in (R,) records, oldest first."""
        self.missed += missed
        for record in records:
            code = int(record["verdict"])
            if np.isfinite(record["asked"]).any() or code:
                self.counts[CODES[code]] += 1
            if code and (not self.reasons or not self.reasons[-1].endswith(_reason(record))):
                self.reasons.append(f"{float(record['t_mono']):.2f} s  {_reason(record)}")
            host = float(record["t_host"])
            if np.isfinite(self._host):
                self._periods.append(host - self._host)
            self._host, self.newest = host, record
            if not self._past or host - self._past[-1][0] >= SPAN / POINTS:
                self._past.append((host, record))
        while self._past and self._past[0][0] < self._host - SPAN:
            self._past.popleft()

    def rate(self) -> tuple[float, float]:
        """Commands in a second over the last 500, and the longest of these periods [s]."""
        if not self._periods:
            return np.nan, np.nan
        return 1.0 / max(float(np.mean(self._periods)), 1e-9), max(self._periods)

    def curves(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Times (P,) [s, the newest 0], and (P, n) positions and speeds as shares of their limits, -1 to 1."""
        past = [*self._past, (self._host, self.newest)]
        time = np.array([host for host, _ in past]) - self._host
        low, high = np.array(self.robot.position_low), np.array(self.robot.position_high)
        q = np.array([r["joint_pos"] for _, r in past])
        v = np.array([r["joint_vel"] for _, r in past])
        return time, (2.0 * q - low - high) / (high - low), v / np.array(self.robot.velocity)

    def table(self) -> str:
        """The numbers, in Markdown."""
        r = self.newest
        if r is None:
            return "waiting for the arm"
        fault, device = r["fault"].decode(), r["device_fault"].decode()
        rate, longest = self.rate()
        head = [
            ("stop latched", f"**{fault}**" if fault else "none"),
            ("device's fault", f"**{device}**" if device else "none"),
            *((name, f"{count:,}") for name, count in self.counts.items()),
            ("rate", f"{rate:.0f} /s, of {1 / self.robot.servo_dt:.0f}; longest period {1e3 * longest:.1f} ms"),
            ("silent for", f"{time.monotonic() - self._host:.1f} s"),
        ]
        lines = ["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in head), "",
                 "| joint | rad | of its range | rad/s | behind |", "|---|---|---|---|---|"]  # fmt: skip
        _, share, _ = self.curves()
        for i, name in enumerate(self.robot.joints):
            q, v, behind = r["joint_pos"][i], r["joint_vel"][i], 1e3 * (r["sent"][i] - r["joint_pos"][i])
            lines.append(f"| {name} | {q:.3f} | {50 * (share[-1, i] + 1):.0f} % | {v:.2f} | {behind:.1f} mrad |")
        return "\n".join([*lines, "", *(f"- {reason}" for reason in reversed(self.reasons))])


def _reason(record: Any) -> str:
    return f"{CODES[int(record['verdict'])]}: {record['rule'].decode()}"


class _Page:
    def __init__(self, server: Any, robot: RobotSpec, title: str, stops: int):
        import viser.uplot as uplot

        model = _model(robot)
        self.digest, self._model, self._stops = Digest(robot), model, stops
        self._scenes = MujocoScene(server, model), MujocoScene(server, model, "/commanded", SHADE)
        self._data = mujoco.MjData(model), mujoco.MjData(model)
        first = int(model.joint(robot.joints[0]).qposadr[0])
        self._qpos = slice(first, first + robot.num_joints)
        gui = server.gui
        gui.add_markdown(f"**{robot.name}**" + (f"  \n{title}" if title else ""))
        button = gui.add_button("STOP", color="red", icon="hand-stop")
        button.on_click(lambda _: os.write(self._stops, b"s"))
        self._text = gui.add_markdown(self.digest.table())
        none, limits = np.zeros(1), ({"stroke": "#c22a1f", "width": 1, "dash": (4, 4)},) * 2
        lines = [*({"stroke": COLOURS[i % len(COLOURS)], "width": 1.5} for i in range(robot.num_joints)), *limits]
        labels = [*robot.joints, "upper limit", "lower limit"]
        self._plots = [
            gui.add_uplot((none,) * (1 + len(lines)), (uplot.Series(label="s"), *(
                uplot.Series(label=label, **line) for label, line in zip(labels, lines, strict=True))),
                title=name, height=160, scales={"x": uplot.Scale(time=False)})
            for name in ("position, share of its range", "speed, share of its limit")
        ]  # fmt: skip

    def show(self, what: str) -> None:
        record = self.digest.newest
        if record is None:
            return
        if what == "frame":
            for scene, data, name in zip(self._scenes, self._data, ("joint_pos", "sent"), strict=True):
                if np.abs(data.qpos[self._qpos] - record[name]).max() < UNSEEN:
                    continue  # a browser that has nothing to draw has time for its buttons
                data.qpos[self._qpos] = record[name]
                mujoco.mj_kinematics(self._model, data)
                scene.update(data)
        elif what == "text":
            self._text.content = self.digest.table()
        else:
            time, position, speed = self.digest.curves()
            ends = np.ones(len(time)), -np.ones(len(time))
            for plot, values in zip(self._plots, (position, speed), strict=True):
                plot.data = (time, *(np.ascontiguousarray(column) for column in values.T), *ends)


def _model(robot: RobotSpec) -> mujoco.MjModel:
    """The arm over a floor."""
    spec = mujoco.MjSpec.from_file(str(ASSETS / f"{robot.name}.xml"))
    spec.worldbody.add_geom(name="floor", type=mujoco.mjtGeom.mjGEOM_PLANE, size=[3.0, 3.0, 0.1])
    return spec.compile()


def main(argv: list[str] | None = None) -> int:
    settings = json.loads((sys.argv[1:] if argv is None else argv)[0])
    try:
        server = serve(settings["host"], settings["port"], settings["robot"])
    except PoiseError as error:
        print(error, flush=True)
        return 1
    ring = RingReader(settings["ring"])
    page = _Page(server, robot_spec(settings["robot"]), settings["title"], settings["stop"])
    print(
        f"http://{'127.0.0.1' if settings['host'] == '0.0.0.0' else settings['host']}:{server.get_port()}", flush=True
    )
    over = threading.Event()

    def wait() -> None:
        sys.stdin.read()  # its end: whoever started this is done, or dead
        over.set()

    threading.Thread(target=wait, daemon=True).start()
    due = {"frame": 0.0, "text": 0.0, "plot": 0.0}
    periods = {"frame": FRAME_DT, "text": TEXT_DT, "plot": PLOT_DT}
    ring.seen = max(0, ring.head - 1)  # what is past is past
    while not over.wait(FRAME_DT):
        found = ring.read()
        page.digest.add(found.records, found.missed)
        now = time.monotonic()
        for what, period in periods.items():
            if now >= due[what]:
                due[what] = now + period
                page.show(what)
    stop(server)
    return 0


if __name__ == "__main__":
    sys.exit(main())
