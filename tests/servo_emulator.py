"""An emulated arm of servos in a thread of the test's process, so that a test can reach into its registers."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

from poise.real_robot.emulators.dynamixel import DynamixelEmulator
from poise.real_robot.emulators.feetech import FeetechEmulator

ARMS: dict[str, Any] = {"so101": FeetechEmulator, "vx300s": DynamixelEmulator}


@contextlib.contextmanager
def emulated(name: str, virtual: bool = True, **settings: Any) -> Iterator[Any]:
    """The emulator, which runs; `whole_address` is a driver's."""
    emulator = ARMS[name](virtual=virtual, **settings)
    emulator.open()
    side = emulator.side_line()
    thread = threading.Thread(target=emulator.run)
    thread.start()
    emulator.whole_address = f"{emulator.address}?emulator={side.address}" + "&virtual=1" * virtual
    try:
        yield emulator
    finally:
        emulator.ended.set()
        thread.join()
        side.close()
