"""`python -m poise.real_robot.emulators NAME`: one emulator, until it is killed. `poise robot emulate` runs the same.

Prints one line of JSON when a client may come: {"address": …, "robot": …, "emulator": HOST:PORT of its side line}.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys

from ...errors import PoiseError, UsageError
from . import catalogue
from .arm import task_at
from .emulator import Emulator


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.emulators", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(catalogue.EMULATORS)}")
    parser.add_argument("--host", default="127.0.0.1", help="loopback address to listen on, such as 127.0.0.5")
    parser.add_argument("--link", default="", help="name to give a serial line's end, such as /tmp/so101")
    parser.add_argument("--virtual", action="store_true", help="time passes with commands alone")
    parser.add_argument("--set", nargs="*", default=[], metavar="NAME=VALUE", help="model error, such as mass=1.1")
    options = parser.parse_args(argv)
    try:
        return run(options.name, options.host, options.link, options.virtual, options.set)
    except PoiseError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1


def run(name: str, host: str, link: str, virtual: bool, settings: list[str]) -> int:
    """Start an emulator, say where it is, and serve."""
    if name == "camera":
        from .camera import run_camera

        return run_camera(host, settings)
    emulator = catalogue.make(name, host, link, virtual, settings)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    emulator.open()
    side = emulator.side_line()
    query = f"emulator={side.address}" + ("&virtual=1" if virtual else "") + _of_scene(emulator)
    facts = {
        "address": f"{emulator.address}{'&' if '?' in emulator.address else '?'}{query}",
        "robot": emulator.robot.name,
        "emulator": side.address,
    }
    print(json.dumps(facts), flush=True)
    try:
        emulator.run()
    except KeyboardInterrupt:
        pass
    finally:
        emulator.ended.set()
        side.close()
    return 0


def _of_scene(emulator: Emulator) -> str:
    """What an address says so that a driver may work in the emulator's scene."""
    lowest = getattr(task_at(emulator.arm.options.task, emulator.robot), "lowest", None)
    return "" if lowest is None else f"&lowest={lowest:g}"


if __name__ == "__main__":
    sys.exit(main())
