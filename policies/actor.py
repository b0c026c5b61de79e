"""An actor process: acts in its share of the worlds with the learner's newest weights, and hands over what happened.

Started by actors.py as `python -m poise.policies.actor FD`. It has a learner of its own, on the CPU, which only acts:
so it explores in the very way that the algorithm says. Weights come over a WeightBoard, rows go through ActorRows.

    it is sent                                     it answers
    the order; the worlds' state, or nothing       ROW, once its worlds are made and stand in their first row
    ROOM    there is room for one more row         ROW, when that row is written
    STATE   what would bring its worlds back       STATE and their state, after all the rows that it had room for

An exception is answered by ERROR and what it said. The end of the socket is the end of the actor.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from typing import Any

import torch

from ..child import parent, receive, receive_bytes, send, send_bytes, told
from ..sim.make import make
from .actor_rows import ActorRows, Told
from .checkpoint import from_bytes, to_bytes
from .learner import restart
from .recipes import training_recipe
from .weight_board import WeightBoard

ROOM, STATE, ROW, ERROR = b"r", b"s", b"w", b"e"


def main() -> None:
    connection = parent()
    order, state = receive(connection), receive_bytes(connection)
    torch.set_num_threads(1)
    try:
        act_for(connection, order, state)
    except ConnectionError:
        pass
    except Exception as error:  # whatever a simulator may raise
        with contextlib.suppress(ConnectionError):  # the learner may be gone by now
            connection.sendall(ERROR)
            send(connection, told(error))
            connection.recv(1)  # until it is read
    os._exit(0)  # torch and a simulator take their time to clear up, and have nothing to lose


def act_for(connection: socket.socket, order: Mapping[str, Any], state: bytes) -> None:
    """Serve the learner at the other end until it hangs up."""
    actor = Actor(order, from_bytes(state) if state else None)
    try:
        actor.begin()
        connection.sendall(ROW)
        while command := actor.wait(connection):
            if command == STATE:
                connection.sendall(STATE)
                send_bytes(connection, to_bytes(actor.state_dict()))
            else:
                actor.step()
                connection.sendall(ROW)
    finally:
        actor.env.close()


class Actor:
    """Its worlds, its copy of the learner, and the number of the row that it wrote last."""

    def __init__(self, order: Mapping[str, Any], state: Mapping[str, Any] | None):
        """order: see `Actors`; state: of worlds that go on, None for new episodes."""
        chosen = training_recipe(order["algorithm"], order["task"], order["settings"])
        self._actor, self.row, self._num_envs = order["actor"], order["row"], order["num_envs"]
        share, seed = order["share"], order["seed"]
        self.env = make(order["task"], share, seed, order["randomize"], threads=1, training=True)
        self.learner = chosen.learner(self.env.spec, chosen.settings, share, seed, "cpu", planned_steps=order["steps"])
        self._board = WeightBoard(self.learner.acting(), order["weights"])
        self._rows = ActorRows(self.env.spec, self._num_envs, order["actors"], order["slots"], order["memory"])
        self._initial = self.learner.initial_state(share)
        self._version, self._waited, self._succeeds = 0, 0.0, False
        if state is None:
            self._state, self._obs = self._initial, self.env.reset(seed)
        else:
            self._state, self._obs = state["act_state"], self.env.load_state_dict(state["env"])

    def begin(self) -> None:
        """The row that says where the worlds stand."""
        self._look()
        self._rows.begin(self.row, self._actor, self._obs, self._version, self._told(began=True))

    def wait(self, connection: socket.socket) -> bytes:
        """The next command; none where nobody is left to send any."""
        began = time.monotonic()
        command = connection.recv(1)
        self._waited += time.monotonic() - began
        return command

    def step(self) -> None:
        """Write the next row."""
        self._look()
        self.learner.steps = self.row * self._num_envs  # of all worlds: exploration follows the whole run's
        action, _, after = self.learner.act(self._obs, self._state)
        step = self.env.step(action)
        self.row += 1
        self._succeeds = step.success is not None
        began = step.obs is not step.next_obs
        self._rows.put(self.row, self._actor, action, step, self._version, self._told(began))
        self._state = restart(after, step.ended, self._initial) if after else after
        self._obs = step.obs

    def state_dict(self) -> dict[str, Any]:
        return {"env": self.env.state_dict(), "act_state": dict(self._state)}

    def _look(self) -> None:
        """Take over the newest weights, if they are new."""
        if (news := self._board.newest(self._version)) is not None:
            self._version, tensors = news
            self.learner.act_with(tensors)

    def _told(self, began: bool) -> Told:
        return Told(began, self._succeeds, self._waited, getattr(self.env, "bad_worlds", 0), new=0)


if __name__ == "__main__":
    main()
