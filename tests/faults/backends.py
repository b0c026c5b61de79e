"""The arms to break: how each one's emulator is started, and where a relay of its line listens."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass

PID = os.getpid()
LOOPBACK = f"127.{1 + PID // 200 % 200}.{1 + PID % 200}"  # addresses of this process's own: several may run at once
SERIAL = f"{tempfile.gettempdir()}/poise-faults-{PID}"


@dataclass(frozen=True)
class Backend:
    """An arm to break."""

    emulator: str  # its name; "" has none, but the twin inside the control process
    address: str = ""  # of that twin
    host: str = "127.0.0.1"
    virtual: bool = True  # whether it has a clock of its own
    link: str = ""
    relay: str = ""  # the module of the relay of its line; "" where there is no line
    relay_at: str = ""  # what stands for host or link on the relay's side


BACKENDS = {
    "twin": Backend("", "twin:fr3"),
    "xarm7": Backend("xarm7", host=f"{LOOPBACK}.61", relay="stream_relay", relay_at=f"{LOOPBACK}.67"),
    "ur5e": Backend("ur5e", host=f"{LOOPBACK}.65", relay="stream_relay", relay_at=f"{LOOPBACK}.66"),
    "so101": Backend("so101", link=f"{SERIAL}-so101", relay="stream_relay", relay_at=f"{SERIAL}-so101-relay"),
    "vx300s": Backend("vx300s", link=f"{SERIAL}-vx300s", relay="stream_relay", relay_at=f"{SERIAL}-vx300s-relay"),
    "ros2": Backend("ros2:fr3", virtual=False, link=f"/poise_faults_{PID}", relay="topic_relay",
                    relay_at=f"/poise_faults_relay_{PID}"),
    "fr3": Backend("fr3", host=f"{LOOPBACK}.62", virtual=False, relay="franka_relay", relay_at=f"{LOOPBACK}.64"),
}  # fmt: skip
