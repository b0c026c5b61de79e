"""The process that moves a Franka Hand, started by the driver in franka.py.

    python -m poise.real_robot.franka_gripper --fd N --host 127.0.0.5

The vendor's calls wait until the fingers stand, with Python's lock held, so they have a process of their own. A
datagram to here is a width [m] as a double, of which the newest counts once the fingers stand; one from here is `S`
and the width, `E` and why a command was refused, or `N` and why the hand is gone. A width of nothing is a grasp: the
fingers close with a force, on whatever is between them; any other is a plain move.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import socket
import struct
import sys

WIDTH = struct.Struct("<d")
SPEED = 0.1  # [m/s]
FORCE = 40.0  # [N]
SHUT = 0.001  # [m] narrower than this a width is a grasp
ANYTHING = 0.08  # [m] tolerance of a grasp: what is held may have any width
CLOSER = 0.0005  # [m] a new width nearer than this to the last is the same


def serve(line: socket.socket, host: str) -> None:
    """Until the driver goes away. Raises the library's NetworkException where the hand goes."""
    import pylibfranka

    hand = pylibfranka.Gripper(host)
    line.setblocking(False)
    last = None
    while True:
        line.send(b"S" + WIDTH.pack(hand.read_once().width))
        if (wanted := _newest(line)) is None or (last is not None and abs(wanted - last) < CLOSER):
            continue
        last = wanted
        try:
            if wanted < SHUT:
                hand.grasp(0.0, SPEED, FORCE, ANYTHING, ANYTHING)
            else:
                hand.move(wanted, SPEED)
        except pylibfranka.CommandException as error:
            line.send(b"E" + str(error).encode())


def _newest(line: socket.socket) -> float | None:
    wanted = None
    with contextlib.suppress(BlockingIOError):
        while True:
            if not (datagram := line.recv(64)):
                raise EOFError
            (wanted,) = WIDTH.unpack(datagram)
    return wanted


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.franka_gripper")
    parser.add_argument("--fd", type=int, required=True)
    parser.add_argument("--host", required=True)
    options = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = socket.socket(fileno=options.fd)
    try:
        serve(line, options.host)
    except (EOFError, BrokenPipeError, ConnectionError, BlockingIOError):
        return 0
    except Exception as error:  # the library's own, which is imported by then or is missing
        with contextlib.suppress(OSError):
            line.send(b"N" + str(error).encode())
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
