"""Bench: one arm's emulator, and one connection as long as it serves; a fault that leaves it broken gets the next a new one."""

from __future__ import annotations

import contextlib
from typing import Any

from poise.errors import PoiseError
from poise.real_robot.emulators.launch import start_emulator
from poise.real_robot.robot import Robot

from .backends import BACKENDS
from .clocks import CLOCKS
from .commands import COMMANDS
from .devices import device_faults
from .judge import run_fault
from .lines import LINES, PORTS
from .relay import Relay
from .scene import Fault, Scene

TRIES = 3  # on the wall's clock, where a machine that is busy may be at fault


class Bench:
    """Makes the faults of one backend. Use as a context manager."""

    def __init__(self, name: str):
        self.name, self._backend = name, BACKENDS[name]
        b, self._stack = self._backend, contextlib.ExitStack()
        self._device = (
            self._stack.enter_context(start_emulator(b.emulator, b.host, b.link, b.virtual)) if b.emulator else None
        )
        self._relay: Relay | None = None
        self._scene: Scene | None = None
        self._by_relay = False

    def faults(self) -> list[Fault]:
        """Every fault of the backend but those of processes."""
        if self._device is None:
            return COMMANDS + CLOCKS
        names = self._device.side_line.ask("faults")["faults"]
        return COMMANDS + CLOCKS + device_faults(self.name, names) + LINES[self.name]

    def run(self, fault: Fault) -> tuple[str, str, int]:
        """What was told, "" or what went wrong, and how many tries it took."""
        wrong, tries = "not tried", 0
        while wrong and tries < (1 if self._backend.virtual else TRIES):
            tries += 1
            try:
                told, wrong = run_fault(self._connected(fault.kind == "line"), fault)
            except PoiseError as error:
                told, wrong = "", f"{type(error).__name__}: {error}"
            if wrong:
                self._disconnect()
        return told, wrong, tries

    def _connected(self, by_relay: bool) -> Scene:
        if self._scene is None or by_relay != self._by_relay:
            self._disconnect()
            self._by_relay = by_relay
            robot = Robot(self._address(by_relay), in_process=True).connect()
            self._scene = Scene(robot, self._device, self._backend.virtual, self._say)
        return self._scene

    def _address(self, by_relay: bool) -> str:
        b = self._backend
        if self._device is None:
            return b.address
        if not by_relay:
            return self._device.address
        where = b.link or b.host
        if self._relay is None:
            self._relay = Relay(b.relay, b.relay_at, where, PORTS.get(self.name, ()))
            self._stack.callback(self._relay.close)
        address = self._device.address.replace(where, b.relay_at)
        return address + "&gripper=0" if self.name == "fr3" else address  # the relay has no port for the hand

    def _say(self, words: str) -> dict[str, Any]:
        return self._relay.say(words) if self._relay is not None else {}

    def _disconnect(self) -> None:
        if self._scene is not None:
            with contextlib.suppress(PoiseError):
                self._scene.robot.close()
            self._scene = None

    def __enter__(self) -> Bench:
        return self

    def __exit__(self, *_: object) -> None:
        self._disconnect()
        self._stack.close()
