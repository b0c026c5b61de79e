"""Roll call: every servo of an arm answers, is what it should be, and is set up for positions. Else one clear error."""

from __future__ import annotations

from collections.abc import Mapping

from ..errors import NotConnectedError
from .calibration import Calibration
from .servo_arm import ServoArm
from .servo_bus import ServoBus, answering


def roll_call(bus: ServoBus, arm: ServoArm, calibration: Calibration) -> None:
    """Ask every servo. A calibration may give joints and gripper other ids than the maker's.

    Raises:
        NotConnectedError: who is missing and who answers; or a model or a setting that does not fit, by its name.
    """
    ids = {name: joint.id for name, joint in calibration.servos.items()}
    ids |= {name: servo.id for name, servo in arm.shadows.items()}
    found = answering(bus, ids.values())
    if missing := [f"{name} (id {servo})" for name, servo in ids.items() if servo not in found]:
        others = ", ".join(map(str, found)) or "nobody"
        raise NotConnectedError(f"{bus.path} at {bus.baud} baud: no answer from {', '.join(missing)}; "
                                f"answering: {others}. {_hint(bus, next(iter(ids.values())), found)}")  # fmt: skip
    for name, servo in {**arm.servos, **arm.shadows}.items():
        if found[ids[name]] != servo.model:
            raise NotConnectedError(f"{name} (id {ids[name]}) is model {found[ids[name]]}, expected {servo.model}; "
                                    f"is this a {arm.robot.name}?")  # fmt: skip
        bus.refuse_settings(name, ids[name], servo)


def _hint(bus: ServoBus, first: int, found: Mapping[int, int]) -> str:
    """What to look at; where nobody answers, whether somebody does at another rate."""
    if found:
        return "Look at the cable behind the last servo that answers, and at the ids"
    bus.close()
    for baud in bus.bauds:
        if baud == bus.baud:
            continue
        other = type(bus)(bus.path, baud, bus.patience)
        other.open()
        try:
            if other.ping(first) is not None:
                return f"At {baud} baud they do: add baud={baud} to the address"
        finally:
            other.close()
    return "Look at power and cables"
