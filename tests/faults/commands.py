"""The faults of whoever sends commands: what is no pose, poses out of reach, and times that cannot be."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .scene import Fault, Scene

Asked = Callable[[Scene], Any]
BURST = 12  # commands in a row, of which a stop is latched by the tenth


def _send(*commands: Asked, at: Callable[[Scene, int], float] | None = None, who: str = "") -> Callable[[Scene], None]:
    def make(scene: Scene) -> None:
        for k, command in enumerate(commands):
            scene.robot.command(command(scene), at(scene, k) if at else None, source=who)

    return make


def _one(value: float, joint: int = 0) -> Asked:
    return lambda scene: np.where(np.arange(scene.n) == joint, value, scene.target())


def now(scene: Scene) -> float:
    return float(scene.loop.driver.now())


def _at(shift: float) -> Callable[[Scene, int], float]:
    return lambda scene, k: now(scene) + shift


def _again(shift: float) -> Callable[[Scene, int], float]:
    """Stamps that do not move on: of the last command, or before it."""
    return lambda scene, k: scene.loop.supervisor._last_at + shift if k else now(scene)


def _restarted_far(scene: Scene) -> None:
    """A new source, after a stop, asks for a pose that is far away, again and again."""
    scene.robot.stop()
    scene.robot.clear_fault()
    for _ in range(220):
        scene.robot.command(scene.centre + 0.5)


def _noise(scene: Scene) -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        scene.robot.command(scene.centre + rng.normal(size=scene.n))


def _far(joint: Callable[[Scene], int]) -> Callable[[Scene], None]:
    """One joint goes on and on until something says no: the box's wall, the tool's speed, the arm itself."""

    def make(scene: Scene) -> None:
        which = np.arange(scene.n) == joint(scene)
        sign = np.sign(scene.centre[which]) or 1.0
        for k in range(round(4.0 / scene.dt)):
            scene.robot.command(scene.centre + sign * min(0.5 * k * scene.dt, 3.0) * which)
            if scene.robot.fault:
                return

    return make


def _elbow(scene: Scene) -> int:
    return 3 if scene.n == 7 else 2


def _two_sources(scene: Scene) -> None:
    """Somebody else sends poses far away, while the one who drives goes on."""
    for _ in range(20):
        scene.robot.command(scene.target())
        scene.robot.command(scene.centre - 2.0, source="somebody else")


def of(name: str, told: tuple[str, ...], make: Callable[[Scene], None]) -> Fault:
    return Fault(name, told, make, "command")


WALLS = ("workspace", "tool_speed", "collision")
COMMANDS = [
    of("NaN", ("finite",), _send(_one(np.nan))),
    of("NaN in the last joint", ("finite",), _send(_one(np.nan, -1), lambda s: np.full(s.n, np.nan))),
    of("infinity", ("finite",), _send(_one(np.inf))),
    of("minus infinity", ("finite",), _send(_one(-np.inf))),
    of("text", ("shape",), _send(lambda s: "home")),
    of("nothing", ("shape",), _send(lambda s: None)),
    of("an empty list", ("shape",), _send(lambda s: [])),
    of("one number", ("shape",), _send(lambda s: 0.5)),
    of("one joint too few", ("shape",), _send(lambda s: s.target()[:-1])),
    of("one joint too many", ("shape",), _send(lambda s: np.append(s.target(), 0.0))),
    of("a batch", ("shape",), _send(lambda s: s.target()[None])),
    of("a jump by 3 rad", ("",), _send(lambda s: s.target() + 3.0)),
    of("a jump by -3 rad", ("",), _send(lambda s: s.target() - 3.0)),
    of("alternating ends", ("", *WALLS), _send(*[(lambda s: s.target() + 9.0), (lambda s: s.target() - 9.0)] * 10)),
    of("noise of 1 rad", ("", *WALLS), _noise),
    of("a huge number", ("",), _send(_one(1e300))),
    of("the least numbers there are", ("",), _send(lambda s: s.target() + 5e-324, lambda s: s.target() - 5e-324)),
    of("outwards until something says no", ("", *WALLS), _far(lambda s: 1)),
    of("folded until something says no", ("", *WALLS), _far(_elbow)),
    of("commands from long ago", ("stale",), _send(*[Scene.target] * BURST, at=_at(-5.0))),
    of("commands of the future", ("stale",), _send(*[Scene.target] * BURST, at=_at(5.0))),
    of("commands in reverse order", ("stale",), _send(*[Scene.target] * BURST, at=_again(-1e-4))),
    of("one command again and again", ("stale",), _send(*[Scene.target] * BURST, at=_again(0.0))),
    of("a time that is no number", ("stale",), _send(*[Scene.target] * BURST, at=lambda s, k: np.nan)),
    of("a time without end", ("stale",), _send(*[Scene.target] * BURST, at=lambda s, k: -np.inf)),
    of("two who drive at once", ("",), _two_sources),
    of("a start far away", ("start",), _restarted_far),
    of("stop", ("operator",), lambda s: s.robot.stop()),
]
