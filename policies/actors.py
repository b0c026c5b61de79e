"""Actors: processes that step a task's worlds and act in them, seen from the learner's side.

Each has its share of the worlds, one CPU thread and no GPU. It acts with the newest weights on the board, and may be
`max_lead` rows (steps of all worlds) ahead of what the learner has taken; then it waits. The learner waits for a row
that is not yet whole. Rows and weights lie in memory that all of them share; who may write what is said by single
bytes over sockets, which also say that a process has died.

    an actor dies (killed, segmentation fault, exit)    it is replaced, counted in `lost` and logged; its worlds lose
                                                        one row, which is masked, and begin new episodes
    it dies MOST_DEATHS times without a row between     an error
    its simulator raises an exception                   an error that says what

Actors end when the learner does, however that ends.

Legend: N worlds.
"""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import zip_longest
from typing import Any

import numpy as np
import torch

from ..child import Child, is_plain, receive_bytes, worlds_named
from ..errors import PoiseError, RunError, UsageError
from ..keyed import Stream
from ..machine import cores
from ..shared_memory import shared_memory
from ..sim.make import make
from .actor import ERROR, ROOM, ROW, STATE
from .actor_rows import TOLD, ActorRows, Row, Told, layout
from .checkpoint import from_bytes, to_bytes
from .recipes import Recipe
from .run_settings import RunSettings

_log = logging.getLogger("poise.train")


class Actors:
    """In the place of the worlds: the facts that a run asks of them, and rows instead of steps."""

    device = torch.device("cpu")
    adr = None  # ranges that adapt follow all of a run's episodes, and each actor sees only its own

    def __init__(self, algorithm: str, task: str, chosen: Recipe, randomize: Any):
        """Look at the task; no process is started yet.

        Raises:
            UsageError: ranges that adapt, or settings that another process cannot be told.
        """
        run = chosen.run
        assert isinstance(run, RunSettings)
        world = make(task, 1, run.seed, randomize, threads=1, training=True)
        self.spec, self.num_envs = world.spec, run.num_envs
        self.randomization = getattr(world, "randomization", None)
        adapts = getattr(world, "adr", None) is not None
        world.close()
        if adapts:
            raise UsageError("collect = async: ranges that adapt (randomize=adr) follow all episodes, and an actor "
                             "sees its own alone; use collect=sync")  # fmt: skip
        self.max_lead, self._seed = run.max_lead, run.seed
        ranges = "none" if self.randomization is None else self.randomization.to_json()
        self._order = {"algorithm": algorithm, "task": task, "settings": _on_cpu(chosen), "steps": run.steps,
                       "randomize": ranges, "num_envs": run.num_envs, "slots": run.max_lead + 1}  # fmt: skip
        if not is_plain(self._order):
            raise UsageError("collect = async: actors can be told texts, finite numbers, lists and dicts, and a "
                             f"setting here is more: {self._order['settings']}; use collect=sync")  # fmt: skip
        self._actors: list[_Actor] = []
        self._memory = -1
        self.row = self.given = self.end = 0  # taken last; may be written; the run's last
        self.lost = 0  # actors that died
        self.waited = 0.0  # [s] that the learner has waited for rows
        self.told = np.zeros((0, TOLD))  # what each actor said last

    def start(self, row: int, end: int, weights: int, device: torch.device, count: int = 0,
              states: Sequence[Mapping[str, Any]] = ()) -> Row:  # fmt: skip
        """Start processes whose worlds stand in `row`, and get it: what to act on next is its step's `obs`.

        end: the last row that is wanted; weights: descriptor of a board with weights on it; count: processes, 0 for
        one less than there are cores; states: of actors that go on, as many as there were.
        """
        count = len(states) or min(count or max(1, cores() - 1), self.num_envs)
        size = self._order["slots"] * layout(self.spec, self.num_envs, count)[2]
        try:
            self._memory = shared_memory(size, "poise-actors")
        except OSError as error:
            raise RunError(f"no shared memory for {self.max_lead} rows of {self.num_envs} worlds on their way, "
                           f"{size >> 20} MiB: {error.strerror}; set max_lead or num_envs lower") from None  # fmt: skip
        self.rows = ActorRows(self.spec, self.num_envs, count, self._order["slots"], self._memory)
        shared = {**self._order, "actors": count, "memory": self._memory, "weights": weights}
        self._actors = [_Actor({**shared, "actor": i, "share": len(share)}, share)
                        for i, share in enumerate(self.rows.shares)]  # fmt: skip
        self.row, self.given, self.end = row - 1, row, end
        for actor, state in zip_longest(self._actors, states):
            actor.resumes = b"" if state is None else to_bytes(state)
            self._begin(actor, row)
        return self.take(device)[1]

    def give(self, early: int = 0) -> None:
        """Let the actors go on, up to the lead that they may have and the end of the run; not one that owes a state.

        early: rows that were taken before the learner's turn came to learn from them: they count as lead.
        """
        if any(actor.asked for actor in self._actors):
            return
        self.given = max(self.given, min(self.row - early + self.max_lead, self.end))
        for actor in self._actors:
            if (rows := self.given - actor.room) > 0:
                actor.send(ROOM * rows)
                actor.room = self.given

    def take(self, device: torch.device) -> tuple[Row, Row]:
        """The next row, here and on the device; waits for it.

        Raises:
            PoiseError: an actor said that it cannot go on, or died too often.
        """
        began = time.monotonic()
        for actor in self._actors:
            while actor.written <= self.row:
                self._hear(actor)
        self.waited += time.monotonic() - began
        self.row += 1
        rows = self.rows.take(self.row, device)
        self.told = rows[0].told
        return rows

    @property
    def coming(self) -> int:
        """Rows on their way."""
        return self.given - self.row

    def ask_states(self) -> None:
        """Have every actor send its worlds' state once it has written all the rows that it had room for."""
        for actor in self._actors:
            actor.asked = True
            actor.send(STATE)

    def states(self) -> list[dict[str, Any]]:
        """These states; all rows on their way have been taken."""
        assert self.coming == 0
        for actor in self._actors:
            while actor.asked:
                self._hear(actor)
        return [actor.state for actor in self._actors]

    def said(self, what: str) -> np.ndarray:
        """What each actor said last of one thing (actors,); see Told."""
        return self.told[:, Told._fields.index(what)]

    def metrics(self) -> dict[str, float]:
        lost = {"async/lost_actors": float(self.lost)} if self.lost else {}
        return {"train/bad_worlds": float(self.said("bad_worlds").sum()), **lost}

    def close(self) -> None:
        """End all processes."""
        for actor in self._actors:
            actor.hang_up()
        for actor in self._actors:
            actor.end()
        self._actors = []
        if self._memory >= 0:
            os.close(self._memory)
            self._memory = -1

    # ---- one actor -----------------------------------------------------------------------------

    def _begin(self, actor: _Actor, row: int) -> None:
        """Start its process, standing in `row`; it has room for the rows that the others have room for."""
        seed = int(Stream(self._seed, f"actor/{actor.order['actor']}").integer(row, self.lost)[0])
        actor.start({**actor.order, "row": row, "seed": seed})
        actor.send_bytes(actor.resumes)
        actor.written, actor.room, actor.stands = row - 1, max(row, self.given), False
        actor.send(ROOM * (actor.room - row))
        if actor.asked:
            actor.send(STATE)

    def _hear(self, actor: _Actor) -> None:
        """What an actor says next."""
        said = actor.answer()
        if said == ROW:
            actor.written += 1
            actor.deaths = 0 if actor.stands else actor.deaths  # its first row is no step
            actor.stands, actor.resumes = True, b""
        elif said == STATE:
            with contextlib.suppress(ConnectionError):  # heard next
                actor.state, actor.asked = from_bytes(receive_bytes(actor.connection)), False
        elif said == ERROR:
            raise self._error(actor)
        else:
            self._replace(actor)

    def _replace(self, actor: _Actor) -> None:
        """Start anew what has died.

        Raises:
            PoiseError: it has happened too often.
        """
        self.lost += 1
        died = actor.bury("the actor", actor.name,
                          "with collect=sync the worlds run, and break, in the learner's process")  # fmt: skip
        _log.warning("%s; it is replaced, the open episodes of these worlds are lost", died)
        self._begin(actor, actor.written + 1)

    def _error(self, actor: _Actor) -> PoiseError:
        """What an actor's simulator or policy raised."""
        said = actor.receive()
        error = PoiseError(f"the actor with {actor.name} cannot go on: {said['error']}")
        error.add_note(f"in the actor process: {said['traceback']}")
        return error


class _Actor(Child):
    """One process and its share of the worlds."""

    def __init__(self, order: Mapping[str, Any], share: np.ndarray):
        # without a GPU in sight none of its memory can be taken
        super().__init__("poise.policies.actor", [order["memory"], order["weights"]], {"CUDA_VISIBLE_DEVICES": ""})
        self.order = order
        self.name = worlds_named(share.tolist())
        self.written = self.room = -1  # rows: the last that it wrote, and the last that it has room for
        self.stands = False  # whether its worlds are made
        self.resumes = b""  # the state that its worlds begin with, until they stand
        self.asked, self.state = False, dict[str, Any]()  # whether it owes its state; the one that it gave last


def _on_cpu(chosen: Recipe) -> dict[str, Any]:
    """All settings, for a copy of the learner that only acts."""
    settings = asdict(chosen.settings)
    plain = {name: value for name, value in (("compile", "off"), ("precision", "fp32")) if name in settings}
    return {**asdict(chosen.run), **settings, **plain, "device": "cpu"}
