# pyright: reportMissingImports=false
"""franka-sim with this package's arm, faults to order and a side line. Runs in an environment of its own.

fr3.py starts it there.

franka-sim 1.1.7 speaks Franka's control interface as libfranka 0.18 and newer do, and stops with the robot's own
reflexes: it differences every command at 1 kHz and holds it against FR3's limits of position, velocity, acceleration
and jerk. Those verdicts are the oracle here: `out_of_limit` counts them. It asks for an older NumPy and MuJoCo than
Poise, hence the environment, where little of Poise can be imported: the side line, and what needs the standard library.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import threading
import time
from typing import Any

from ..realtime import go_first
from .side_line import SideServer

os.environ["MUJOCO_GL"] = "disable"  # nothing is drawn, and the libraries for it are not installed

FAULTS = {
    "joint_reflex": "the robot touches something and stops",
    "cartesian_reflex": "the hand touches something and the robot stops",
    "self_collision_avoidance_violation": "the robot stops short of itself",
    "power_limit_violation": "the robot draws too much power and stops",
    "tau_j_range_violation": "a joint's torque leaves its range and the robot stops",
    "instability_detected": "the robot's own controller swings and stops",
    "user_stopped": "somebody presses the robot's stop button, and lets go of it after so long",
    "silence": "no state goes out",
    "deaf": "commands that arrive are lost",
}
LATCHED = {  # the robot's own numbers of them, in research_interface/robot/error.h
    "self_collision_avoidance_violation": 2,
    "joint_reflex": 6,
    "cartesian_reflex": 7,
    "power_limit_violation": 26,
    "tau_j_range_violation": 34,
    "instability_detected": 35,
}
# Its explicit integration of the wrist's damping swings with 200 N m s/rad on our armature of 0.074 kg m^2.
WRIST_KP, WRIST_KD = 600.0, 60.0  # [N m/rad], [N m s/rad]
PRIORITY = 20  # of SCHED_RR, where allowed: below the clients


def make_server(host: str, home: list[float], settings: dict[str, float]) -> Any:
    """The server with its faults, counts and model error; not yet started."""
    import numpy as np
    from franka_sim import mujoco_franka_sim as physics
    from franka_sim.comm_constraints import CommConstraintTracker
    from franka_sim.franka_sim_server import FrankaSimServer
    from franka_sim.robot_state import RobotState
    from franka_sim.server import lifecycle
    from franka_sim.server.constants import RobotMode

    physics.ARM_INITIAL_Q[:] = home
    physics.ARM_POSITION_KP[4:], physics.ARM_POSITION_KD[4:] = WRIST_KP, WRIST_KD

    class Arm(physics.MujocoFrankaSim):
        def _configure_model(self) -> None:
            super()._configure_model()
            model = self.model
            model.body_mass *= settings["mass"]
            model.body_inertia *= settings["mass"]
            model.body_mass[model.body("hand").id] += settings["payload"]
            model.dof_damping *= settings["damping"]
            model.dof_frictionloss[:7] += settings["friction_loss"]
            model.dof_frictionloss *= settings["friction"]
            physics.ARM_POSITION_KP[:] *= settings["gain"]
            physics.ARM_POSITION_KD[:] *= settings["gain"]
            physics.mujoco.mj_setConst(model, physics.mujoco.MjData(model))

        def truth(self) -> dict[str, Any]:
            state = self.get_robot_state()
            data, scratch = self.data, self._scratch()
            scratch.qpos[:] = data.qpos
            physics.mujoco.mj_kinematics(self.model, scratch)
            return {"joint_pos": np.array(state["q"]), "joint_vel": np.array(state["dq"]),
                    "tool_pos": scratch.site("tool").xpos.copy(), "time": float(data.time)}  # fmt: skip

        def _scratch(self) -> Any:
            if not hasattr(self, "_own_data"):
                self._own_data = physics.mujoco.MjData(self.model)
            return self._own_data

    class Server(FrankaSimServer):
        arrivals = out_of_limit = lost = 0

        def __init__(self) -> None:
            self.told: list[str] = []
            self._until: dict[str, float] = {}
            super().__init__(host=host, physics_sim=Arm(), enforce_comm_constraints=True, enforce_motion_limits=True)

        def has(self, fault: str) -> bool:
            return time.monotonic() < self._until.get(fault, 0.0)

        def answer(self, request: dict[str, Any]) -> dict[str, Any]:
            match request["do"]:
                case "truth":
                    return self.physics_sim.truth()
                case "counters":
                    return {"arrived": self.arrivals, "out_of_limit": self.out_of_limit, "lost": self.lost,
                            "told": self.told}  # fmt: skip
                case "faults":
                    return {"faults": FAULTS}
                case "inject":
                    self.begin(request["fault"], request.get("seconds"))
                case "clear":
                    self._until.clear()
                case "shutdown":
                    os._exit(0)
                case other:
                    raise ValueError(f"no request {other!r}")
            return {}

        def begin(self, fault: str, seconds: float | None) -> None:
            if fault not in FAULTS:
                raise ValueError(f"no fault {fault!r}; known: {', '.join(FAULTS)}")
            self._until[fault] = np.inf if seconds is None else time.monotonic() + seconds
            if fault in LATCHED:
                self._abort_with_error(LATCHED[fault], f"injected {fault}")
            elif fault == "user_stopped":
                self._abort_with_error((), "injected user stop")

        # ---- counts, and faults of the line ----

        def _absorb_within_motion_limits(self, command: Any, *, fresh: bool) -> bool:
            if self.has("deaf"):
                return False  # the tracker below has counted it as lost
            self.arrivals += 1
            return super()._absorb_within_motion_limits(command, fresh=fresh)

        def _latch_and_abort(self, violation: Any, motion_id: int) -> None:
            if not self.motion_limits.violated:
                self.out_of_limit += 1
                self.told.append(violation.describe())
            super()._latch_and_abort(violation, motion_id)

        def _abort_on_communication_violation(self, motion_id: int) -> None:
            self.lost += 1
            super()._abort_on_communication_violation(motion_id)

    class State(RobotState):
        """What goes out, with the robot's stop button on top."""

        def pack_state(self) -> bytes:
            while server.has("silence"):
                time.sleep(0.005)
            if not server.has("user_stopped"):
                return super().pack_state()
            mode, self.state["robot_mode"] = self.state["robot_mode"], RobotMode.kUserStopped
            packed = super().pack_state()
            self.state["robot_mode"] = mode
            return packed

    class Tracker(CommConstraintTracker):
        """Counts answers that are in time."""

        def command_received(self, command_message_id: int) -> bool:
            return not server.has("deaf") and super().command_received(command_message_id)

    lifecycle.RobotState, lifecycle.CommConstraintTracker = State, Tracker
    server = Server()
    return server


def main(argv: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--mjcf", required=True)
    parser.add_argument("--home", type=float, nargs="+", required=True)
    parser.add_argument("--set", nargs="*", default=[])
    options = parser.parse_args(argv)
    settings = dict.fromkeys(("mass", "damping", "friction", "gain"), 1.0) | {"friction_loss": 0.0, "payload": 0.0}
    settings |= {name: float(value) for name, value in (text.split("=") for text in options.set)}
    os.environ["FR3_MJCF"] = options.mjcf
    logging.basicConfig(level=logging.ERROR)
    logging.disable(logging.WARNING)
    server = make_server(options.host, options.home, settings)
    go_first(PRIORITY)
    side = SideServer(server.answer)

    def announce() -> None:
        while not (server.running and server.server_socket is not None and server.physics_sim.running):
            time.sleep(0.01)
        address = f"franka:{options.host}?emulator={side.address}"
        print(json.dumps({"address": address, "robot": "fr3", "emulator": side.address}), flush=True)

    threading.Thread(target=announce, daemon=True).start()
    try:
        server.start()  # the physics, in this thread, until the process ends
    except KeyboardInterrupt:
        server.stop()
