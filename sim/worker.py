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

import mmap
from typing import Any

import numpy as np

from ..child import parent, receive, send, told

STEP, RESET = b"s", b"r"
READY, DONE, SAID, ERROR = b"y", b"d", b"1", b"e"
UNSEEDED = -1


def main() -> None:
    connection = parent()
    order = receive(connection)
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
        send(connection, {"world": where, **told(error)})
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


if __name__ == "__main__":
    main()
