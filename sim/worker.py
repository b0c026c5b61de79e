"""A worker process: steps its share of the worlds of sim/worker_worlds.py, in arrays that both processes see.

Started as `python -m poise.sim.worker FD`; FD is one end of a socket to the process that wants the worlds.

    it is sent                                                    it answers
    the order: {"call", "arguments", "worlds": (start, end),      READY, once its worlds are made
                "num_envs", "memory": FD of the arrays}
    STEP    step the worlds marked active                         DONE, or SAID where a world said if it succeeded
    RESET   reset the worlds marked active, with their seeds      DONE

An exception in an environment is answered by ERROR and what it said. The end of the socket is the end of the worker:
it never outlives who started it, however that ended. No torch is loaded here.
"""

from __future__ import annotations

import ast
import mmap
import os
import select
import signal
import socket
import struct
import sys
import threading
import time
import traceback
from typing import Any

import numpy as np

STEP, RESET = b"s", b"r"
READY, DONE, SAID, ERROR = b"y", b"d", b"1", b"e"
UNSEEDED = -1
LOOK = 2000  # [ms] between two looks for who started this process
GRACE = 1.0  # [s] to end in good order


def main() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for who started this process
    connection = socket.socket(fileno=int(sys.argv[1]))
    order = receive(connection)
    threading.Thread(target=_watch, args=(connection.fileno(), os.getppid()), daemon=True).start()
    worlds = None
    try:
        worlds, arrays = _worlds(order)
        connection.sendall(READY)
        while command := connection.recv(1):
            which = np.flatnonzero(arrays.active).tolist()
            if command == STEP:
                arrays.success[:] = False
                said = worlds.step_some(arrays.action, which)
                connection.sendall(SAID if said else DONE)
            else:
                worlds.reset_some(which, [None if s == UNSEEDED else s for s in arrays.seed.tolist()])
                connection.sendall(DONE)
        worlds.close()
    except ConnectionError:
        return
    except Exception as error:  # whatever an environment may raise
        connection.sendall(ERROR)
        where = order["worlds"][0] + worlds.at if worlds else -1
        last = traceback.extract_tb(error.__traceback__)[-1]
        said = traceback.format_exception_only(error)[-1].strip()
        send(connection, {"world": where, "error": f"{said} ({os.path.basename(last.filename)}, line {last.lineno})",
                          "traceback": traceback.format_exc()})  # fmt: skip
        connection.recv(1)  # until it is read


def _worlds(order: dict[str, Any]):
    """The worlds that the order asks for, and their arrays."""
    from .world_arrays import WorldArrays
    from .worlds import EnvCall, Worlds

    start, end = order["worlds"]
    call = EnvCall(order["call"], order["arguments"])
    envs = [call() for _ in range(end - start)]
    memory = mmap.mmap(order["memory"], 0)
    everyone = WorldArrays(envs[0].observation_space, envs[0].action_space, order["num_envs"], memory)
    arrays = everyone.part(start, end)
    return Worlds([lambda env=env: env for env in envs], arrays), arrays


def send(connection: socket.socket, message: dict[str, Any]) -> None:
    """Send plain Python data, as Python writes it, which unlike JSON keeps tuples apart from lists."""
    data = repr(message).encode()
    connection.sendall(struct.pack("!I", len(data)) + data)


def receive(connection: socket.socket) -> dict[str, Any]:
    """What `send` sent; it is read as data and never run."""
    (length,) = struct.unpack("!I", _exactly(connection, 4))
    return ast.literal_eval(_exactly(connection, length).decode())


def is_plain(data: Any) -> bool:
    """Whether `send` can send it."""
    try:
        return bool(ast.literal_eval(repr(data)) == data)
    except (ValueError, SyntaxError):
        return False


def _exactly(connection: socket.socket, length: int) -> bytes:
    data = b""
    while len(data) < length:
        if not (more := connection.recv(length - len(data))):
            raise ConnectionResetError("the other side is gone")
        data += more
    return data


def _watch(fd: int, parent: int) -> None:
    """End this process when its socket does, also in the middle of a step that never ends."""
    poll = select.poll()
    poll.register(fd, 0)  # hang-ups alone
    while not poll.poll(LOOK) and os.getppid() == parent:
        pass
    time.sleep(GRACE)
    os._exit(0)


if __name__ == "__main__":
    main()
