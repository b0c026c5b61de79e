"""The judge: makes a fault in a scene, and says whether what must follow did.

(1) What is told is what the table says, (2) the arm stands within STOP seconds, (3) no command is out of limits, (4) a
restart works: the cause is taken away, clear_fault or a new connection, and the arm moves again.

Of (3), the device's oracle is the judge, with one exception. The FR3 is reached by datagrams, and a relay loses, doubles
and garbles them behind their sender, where no other line does. The robot then hears what nobody has sent, and stops by
its own reflex where that leaves its limits: the one command that it stops for may count, if the relay did alter datagrams
and "device" is told.
"""

from __future__ import annotations

import contextlib

from poise.errors import NotConnectedError, PoiseError

from .scene import Fault, Scene

STOP = 1.0  # [s] from the fault to a standstill: the swing's 0.3 rad/s, a line's patience of 0.1 to 0.6 s, a ramp


def run_fault(scene: Scene, fault: Fault) -> tuple[str, str]:
    """What was told, and "" or what went wrong."""
    robot = scene.robot
    try:
        scene.clear()
        before, altered = scene.out_of_limit(), scene.altered()
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
        stopped_for = told == "device" and scene.altered() > altered
        scene.clear()
        if robot.fault:
            return told, f"after clear_fault: {robot.fault}"
        count = scene.out_of_limit() - before
        return told, f"{count} commands out of limits" if count > stopped_for else ""
    except PoiseError as error:
        return scene.told(), f"{type(error).__name__}: {error}"
    finally:
        scene.end()
