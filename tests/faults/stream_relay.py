"""A bad line of bytes: TCP connections of some ports, or a serial line's pseudo-terminal (see relay.py).

    delay S         both ways, so many seconds later
    retransmit P    that share of pieces comes 0.2 s late, and all that follows after it: TCP's way to lose a segment
    pieces          byte by byte, each in a segment of its own
    lumps S         what comes within so many seconds arrives at once
    drop P | duplicate P | corrupt P     that share of what the device says, whole pieces as they came or a bit of each
    half_open       takes everything both ways and passes on nothing
    deaf            what goes to the device vanishes; what it says arrives
    mute            and the other way round
    reset           all lines end without a word; new ones work. A serial port vanishes until something else is said
    end             all lines end in order
    clear

Commands pass unchanged or not at all: what arrives at the device is what its driver sent, and its oracle may judge it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import sys
import termios
import time
import tty
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
from faults.relay import Words, answer, arguments
from poise.real_robot.emulators.ports import reset
from poise.real_robot.realtime import go_first

LOST_FOR = 0.2  # [s] until TCP sends a lost segment again
OPEN_AGAIN = 0.01  # [s] between tries to open the device's serial port
BAUD = termios.B1000000


class End:
    """One end of a line: a socket, or a terminal's descriptor."""

    def __init__(self, handle: Any, is_device: bool):
        self.handle, self.is_device = handle, is_device
        self.other: End | None = None
        self.later: list[tuple[float, bytes]] = []  # what goes out here, and when

    def fileno(self) -> int:
        return self.handle if isinstance(self.handle, int) else self.handle.fileno()

    def read(self) -> bytes:
        return os.read(self.fileno(), 1 << 16)

    def write(self, data: bytes) -> None:
        while data:
            data = data[os.write(self.fileno(), data) :]

    def close(self, without_a_word: bool) -> None:
        if isinstance(self.handle, int):
            os.close(self.handle)
        elif without_a_word:
            reset(self.handle)
        else:
            self.handle.close()


class StreamRelay:
    """All lines between one driver and its device."""

    def __init__(self, listen: str, to: str, ports: list[int], words: Words):
        self._listen, self._to, self._words = listen, to, words
        self._selector = selectors.DefaultSelector()
        self._selector.register(words.input, selectors.EVENT_READ)
        self._ends: list[End] = []
        self._is_serial = not ports
        self._slave = -1
        for port in ports:
            listener = socket.create_server((listen, port))
            self._selector.register(listener, selectors.EVENT_READ)
        if self._is_serial:
            self._open_port()

    def run(self) -> None:
        while True:
            dues = [end.later[0][0] for end in self._ends if end.later]
            wait = max(0.0, min(dues) - time.monotonic()) if dues else None
            if self._is_serial and not self._ends and self._words.word != "reset":
                wait = OPEN_AGAIN
                self._open_port()
            for key, _ in self._selector.select(wait):
                if key.fileobj is self._words.input:
                    if not self._words.read():
                        return self._close_port()
                    self._begin()
                elif isinstance(key.fileobj, End):
                    if key.fileobj in self._ends:  # else closed meanwhile
                        self._pass_on(key.fileobj)
                else:
                    self._accept(key.fileobj)
            self._send_what_is_due()

    def _begin(self) -> None:
        if self._words.word in ("reset", "end"):
            for end in [*self._ends]:
                self._end(end, self._words.word == "reset")
            if not self._is_serial:
                self._words.word = "clear"
        answer()

    # ---- lines -------------------------------------------------------------------------------

    def _accept(self, listener: Any) -> None:
        client, _ = listener.accept()
        try:
            device = socket.create_connection((self._to, listener.getsockname()[1]))
        except OSError:
            return client.close()
        for line in (client, device):
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._join(client, device)

    def _open_port(self) -> None:
        """A terminal of our own for the driver, joined with the device's."""
        try:
            device = os.open(self._to, os.O_RDWR | os.O_NOCTTY)
        except OSError:
            return
        tty.setraw(device)
        settings = termios.tcgetattr(device)
        settings[4] = settings[5] = BAUD
        termios.tcsetattr(device, termios.TCSANOW, settings)
        master, self._slave = os.openpty()
        tty.setraw(self._slave)
        self._close_link()
        os.symlink(os.ttyname(self._slave), self._listen)
        self._join(master, device)

    def _close_link(self) -> None:
        with contextlib.suppress(OSError):
            os.unlink(self._listen)

    def _close_port(self) -> None:
        if self._is_serial:
            self._close_link()

    def _join(self, client: Any, device: Any) -> None:
        a, b = End(client, False), End(device, True)
        a.other, b.other = b, a
        for end in (a, b):
            self._ends.append(end)
            self._selector.register(end, selectors.EVENT_READ)

    def _end(self, end: End, without_a_word: bool = False) -> None:
        """End both ends of a line; of a serial port the driver's terminal goes too."""
        if end not in self._ends:
            return
        for each in (end, end.other):
            assert each is not None
            self._ends.remove(each)
            self._selector.unregister(each)
            with contextlib.suppress(OSError):
                each.close(without_a_word)
        if self._is_serial:
            os.close(self._slave)
            self._close_link()

    # ---- bytes -------------------------------------------------------------------------------

    def _pass_on(self, source: End) -> None:
        words, to = self._words, source.other
        try:
            data = source.read()
        except OSError:
            data = b""
        if not data:
            return self._end(source)
        assert to is not None
        blocked = {"half_open": True, "deaf": to.is_device, "mute": source.is_device}
        if blocked.get(words.word):
            return
        copies = 1
        if source.is_device:
            if words.befalls("drop"):
                return
            copies += words.befalls("duplicate")
            data = words.bit_turned(data) if words.befalls("corrupt") else data
        for _ in range(copies):
            self._send(to, data)

    def _send(self, to: End, data: bytes) -> None:
        words, due = self._words, time.monotonic()
        if words.word == "delay":
            due += words.value
        elif words.word == "lumps":
            due = (due // words.value + 1.0) * words.value
        elif words.befalls("retransmit"):
            due += LOST_FOR
        if to.later:
            due = max(due, to.later[-1][0])  # nothing overtakes
        if due > time.monotonic():
            to.later.append((due, data))
            return
        step = 1 if words.word == "pieces" else len(data)
        try:
            for start in range(0, len(data), step):
                to.write(data[start : start + step])
        except OSError:
            self._end(to)

    def _send_what_is_due(self) -> None:
        now = time.monotonic()
        for end in [*self._ends]:
            while end in self._ends and end.later and end.later[0][0] <= now:
                _, data = end.later.pop(0)
                try:
                    end.write(data)
                except OSError:
                    self._end(end)


def main() -> None:
    options = arguments()
    relay = StreamRelay(options.listen, options.to, options.ports, Words(options.seed))
    go_first(25)
    answer()
    relay.run()


if __name__ == "__main__":
    main()
