"""The devices' own faults, which their emulators make: what each must be told as."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from .scene import Fault, Scene

SECONDS = 0.8  # for which commands go on, where LONGER says nothing else
LONGER = {"stuck": 3.0, "silent": 1.5, "report_silent": 3.0, "slow": 2.0, "frozen": 2.0, "deaf": 1.5}
# on a virtual clock each lost or late answer is a wait on the wall's: fewer of them tell as much
SHORTER = {"drop": 0.1, "corrupt": 0.1, "delay": 0.2, "late": 0.1, "drop_packets": 0.15, "duplicate": 0.3}

STOPS = ("device",)
READINGS_STOP = ("device", "stale")  # whichever patience ends first: the driver's, or the supervisor's
GOES_ON = ("",)
MAY_GO_ON = ("", "device")  # a retry meets it; where it comes thick the line counts as lost
TOLD = {
    "xarm7": {"warning": GOES_ON, "report_corrupt": GOES_ON, "report_silent": MAY_GO_ON,
              **dict.fromkeys(("drop", "corrupt", "delay", "late"), MAY_GO_ON)},
    "ur5e": {"payload": GOES_ON, "drop_packets": MAY_GO_ON, "delay": MAY_GO_ON, "corrupt": STOPS},
    "so101": {"stuck": ("device", "tracking", "effort"), "deaf": GOES_ON,
              **dict.fromkeys(("drop", "duplicate", "corrupt", "delay"), GOES_ON)},
    "ros2": {"jumbled": GOES_ON, "renamed": GOES_ON,
             **dict.fromkeys(("silent", "slow", "frozen", "nan", "missing_joint", "short"), READINGS_STOP)},
    "fr3": {"silence": READINGS_STOP},
}  # fmt: skip
TOLD["vx300s"] = TOLD["so101"]


def _inject(name: str, seconds: float) -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        assert scene.running is not None
        scene.running.side_line.inject(name)
        if name == "stuck":  # it is noticed where that joint has far to go
            scene.stream(seconds, joint=2, swing=-0.6)
        else:
            scene.stream(seconds)

    return make


def device_faults(backend: str, names: Iterable[str]) -> list[Fault]:
    """Every fault that the emulator of a backend can be asked for."""
    return [Fault(name, TOLD[backend].get(name, STOPS), _inject(name, LONGER.get(name, SHORTER.get(name, SECONDS))),
                  "device") for name in names]  # fmt: skip
