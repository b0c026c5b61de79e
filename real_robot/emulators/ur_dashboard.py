"""The dashboard server of a Universal Robots controller, TCP port 29999: a line of text each way.

Source: Universal Robots, "Dashboard Server e-Series". What nobody needs here answers as the controller does to an
unknown line.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .ur import URController

PORT, GREETING = 29999, "Connected: Universal Robots Dashboard Server"
VERSION = (5, 23, 0, 1)
SAFETY = {1: "NORMAL", 2: "REDUCED", 3: "PROTECTIVE_STOP", 4: "RECOVERY", 5: "SAFEGUARD_STOP",
          6: "SYSTEM_EMERGENCY_STOP", 7: "ROBOT_EMERGENCY_STOP", 8: "VIOLATION", 9: "FAULT"}  # fmt: skip
MODES = {3: "POWER_OFF", 5: "IDLE", 7: "RUNNING"}


def serve(controller: URController, client: socket.socket) -> None:
    """Answer a client until it goes."""
    client.sendall(GREETING.encode() + b"\n")
    for line in client.makefile("r", encoding="ascii", errors="replace"):
        controller.wait_while("half_open")
        with controller.lock:
            said = answer(controller, line.strip())
        client.sendall(said.encode() + b"\n")


def answer(controller: URController, line: str) -> str:
    """What the controller says to a line."""
    match line.lower():
        case "polyscopeversion":
            return f"URSoftware {'.'.join(map(str, VERSION))} (emulated)"
        case "get serial number":
            return "20265500001"
        case "get robot model":
            return "UR5"  # so say the UR5 and the UR5e
        case "is in remote control":
            return "true"
        case "robotmode":
            return f"Robotmode: {MODES[controller.robot_mode]}"
        case "safetystatus":
            return f"Safetystatus: {SAFETY[controller.safety_mode]}"
        case "safetymode":
            return f"Safetymode: {SAFETY[controller.safety_mode]}"
        case "running":
            return f"Program running: {str(controller.running).lower()}"
        case "programstate":
            return f"{'PLAYING' if controller.running else 'STOPPED'} rtde_control.urp"
        case "stop":
            controller.stop_program()
            return "Stopped"
        case "unlock protective stop":
            return controller.unlock()
        case "power on":
            controller.power(on=True)
            return "Powering on"
        case "power off":
            controller.power(on=False)
            return "Powering off"
        case "brake release":
            controller.release_brakes()
            return "Brake releasing"
        case "close safety popup":
            return "closing safety popup"
        case "close popup":
            return "closing popup"
        case "quit":
            return "Disconnected"
        case _:
            return f"could not understand: '{line}'"
