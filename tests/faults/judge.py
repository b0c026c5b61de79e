"""The judge: makes a fault in a scene, and says whether what must follow did.

(1) What is told is what the table says, (2) the arm stands within STOP seconds, (3) no command is out of limits, (4) a
restart works: the cause is taken away, clear_fault or a new connection, and the arm moves again.

Of (3), the device's oracle is the judge, with one exception. On the FR3's line of datagrams a relay doubles and garbles
commands behind their sender, where no other line does; the robot then hears what nobody has sent, and its reflex counts.
There the relay judges each command as it is sent, before anything befalls it, and the robot may count one command that
the line has made, the one that it then stops for, and must have told "device" for it.
"""

from __future__ import annotations

import contextlib
from typing import Any

from poise.errors import NotConnectedError, PoiseError

from .scene import Fault, Scene

STOP = 1.0  # [s] from the fault to a standstill: the swing's 0.3 rad/s, a line's patience of 0.1 to 0.6 s, a ramp


def run_fault(scene: Scene, fault: Fault) -> tuple[str, str]:
    """What was told, and "" or what went wrong."""
    robot = scene.robot
    try:
        scene.clear()
        before, sent_before = scene.out_of_limit(), scene.say("clear")
        scene.stream(0.3)
        if robot.fault:
            return scene.told(), f"it stopped before the fault came: {robot.fault}"
        with contextlib.suppress(NotConnectedError):
            fault.make(scene)
        speed, told = scene.speed_after(STOP), scene.told()
        if told not in fault.told:
            return told, f"told {told!r}, expected one of {fault.told}: {scene.loop.supervisor.fault}"
        if speed:
            return told, f"the arm still moves at {speed:.3f} rad/s"
        sent_after = scene.say("clear")
        scene.clear()
        if robot.fault:
            return told, f"after clear_fault: {robot.fault}"
        return told, _beyond(scene, told, before, sent_before, sent_after)
    except PoiseError as error:
        return scene.told(), f"{type(error).__name__}: {error}"
    finally:
        scene.end()


def _beyond(scene: Scene, told: str, before: int, sent_before: dict[str, Any], sent_after: dict[str, Any]) -> str:
    """What is wrong with the commands of a fault; "" where none was out of limits."""
    count = scene.out_of_limit() - before
    sent = sent_after.get("out_of_limit", 0) - sent_before.get("out_of_limit", 0)
    if sent:
        return f"{sent} commands out of limits as they were sent: {sent_after['told']}"
    made_by_the_line = sent_after.get("altered", 0) > sent_before.get("altered", 0) and told == "device"
    if count > made_by_the_line:
        return f"{count} commands out of limits"
    return ""
