"""WorkerWorlds: N Gymnasium environments stepped by W processes, with observations and actions in shared memory.

The same VectorEnv as sim/worlds.py, to the bit. A step is one byte to every worker and one back; what the worlds are
sent and answer stands in arrays that all of them see (sim/world_arrays.py), in a file without a name.

    a worker dies (killed, segmentation fault, exit)    it is replaced, counted in `lost_workers` and logged; its worlds
                                                        answer once with a reward that is NaN and wait for a reset,
                                                        which is how GymVecEnv contains a broken world
    it dies MOST_DEATHS times before it makes a step    an error
    an environment raises an exception                  an error that names the world and what it said

Legend: N worlds, W workers.
"""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import VectorEnv

from ..child import Child, is_plain, worlds_named
from ..errors import PoiseError, UsageError
from ..shared_memory import shared_memory
from .worker import ERROR, RESET, SAID, STEP, UNSEEDED
from .world_arrays import WorldArrays, nbytes
from .worlds import EnvCall, describe, outcome, seeds_of

_log = logging.getLogger("poise.sim")


class WorkerWorlds(VectorEnv):
    """The arrays that `step` and `reset` return are overwritten by the next call."""

    def __init__(self, call: EnvCall, like: gymnasium.Env, num_envs: int, workers: int, name: str = ""):
        """call: makes one world; like: such a world, for its spaces; name: what errors and warnings call them.

        Raises:
            PoiseError: the worlds cannot be made in another process; a UsageError where the call's arguments are the
                reason.
        """
        describe(self, like, num_envs)
        self._name = name or call.function
        if not is_plain(call.arguments):
            raise UsageError(f"{self._name}: a worker process can be told texts, finite numbers, lists, dicts and "
                             f"tuples, and {dict(call.arguments)} is more; leave workers out")  # fmt: skip
        size = nbytes(like.observation_space, like.action_space, num_envs)
        self._memory = shared_memory(size, "poise-worlds")
        self.arrays = WorldArrays(like.observation_space, like.action_space, num_envs, mmap.mmap(self._memory, 0))
        self._lost = np.ones(num_envs, bool)  # worlds without an episode: they wait for a reset
        self._busy = False  # also after an exception out of a call: nobody knows then what the workers have done
        self.lost_workers = 0
        order = {"call": call.function, "arguments": dict(call.arguments), "num_envs": num_envs}
        shares = np.array_split(np.arange(num_envs), min(workers, num_envs))
        self._workers = [_Worker(order, self._memory, range(share[0], share[-1] + 1)) for share in shares]
        try:
            self._start(self._workers)
        except BaseException:
            self.close()
            raise

    def step(self, actions: np.ndarray):
        """Observations, rewards (N,), terminated (N,), truncated (N,), {"is_success": (N,) bool} where any says so."""
        arrays = self.arrays
        with self._at_work():
            arrays.action[...] = actions
            np.logical_not(self._lost, out=arrays.active)
            said = self._step_active()
        if self._lost.any():
            arrays.reward[self._lost] = np.nan
            arrays.terminated[self._lost] = arrays.success[self._lost] = False
            arrays.truncated[self._lost] = True
        return outcome(arrays, said)

    def reset(self, *, seed: Sequence[int] | int | None = None, options: dict[str, Any] | None = None):
        """Reset the worlds of options["reset_mask"] (N,) bool, or all, each with its own seed of a list."""
        which = np.asarray((options or {}).get("reset_mask", np.ones(self.num_envs, bool)))
        with self._at_work():
            self.arrays.seed[:] = [UNSEEDED if s is None else s for s in seeds_of(seed, self.num_envs)]
            self.arrays.active[:] = which
            todo = self._of(which)
            while todo:
                _, todo = self._ask(RESET, todo)
                self._replace(todo)
        self._lost &= ~which
        return self.arrays.obs, {}

    def close_extras(self, **kwargs: Any) -> None:
        for worker in self._workers:
            worker.hang_up()
        for worker in self._workers:
            worker.end()
        os.close(self._memory)

    # ---- workers -----------------------------------------------------------------------------

    @contextlib.contextmanager
    def _at_work(self) -> Iterator[None]:
        """A call that is not broken off; after one that was, all workers begin anew and all worlds are lost."""
        if self._busy:
            for worker in self._workers:
                worker.end(wait=0.0)
            self._lost[:] = True
            self._start(self._workers)
        self._busy = True
        yield
        self._busy = False

    def _of(self, which: np.ndarray) -> list[_Worker]:
        """The workers of the worlds `which` (N,)."""
        return self._workers if which.all() else [w for w in self._workers if which[w.worlds].any()]

    def _step_active(self) -> bool:
        workers = self._of(self.arrays.active)
        said, dead = self._ask(STEP, workers)
        for worker in workers:
            worker.deaths = worker.deaths if worker in dead else 0
        self._replace(dead)
        return said

    def _ask(self, command: bytes, workers: Sequence[_Worker]) -> tuple[bool, list[_Worker]]:
        """Have workers do something: whether any world said if it succeeded, and the workers that died of it."""
        for worker in workers:
            worker.send(command)
        answers = [worker.answer() for worker in workers]
        if ERROR in answers:
            raise self._error(workers[answers.index(ERROR)])
        return SAID in answers, [w for w, answer in zip(workers, answers, strict=True) if not answer]

    def _start(self, workers: Sequence[_Worker]) -> None:
        """Start workers that do not run, and wait until their worlds are made."""
        while workers:
            for worker in workers:
                worker.start(worker.order)
            answers = [worker.answer() for worker in workers]
            if ERROR in answers:
                raise self._error(workers[answers.index(ERROR)])
            workers = [w for w, answer in zip(workers, answers, strict=True) if not answer]
            for worker in workers:
                self._count_death(worker)

    def _replace(self, dead: Sequence[_Worker]) -> None:
        for worker in dead:
            self._lost[worker.worlds] = True
            self._count_death(worker)
        self._start(dead)

    def _count_death(self, worker: _Worker) -> None:
        """Say what happened to a worker.

        Raises:
            PoiseError: it has happened too often.
        """
        self.lost_workers += 1
        died = worker.bury(f"{self._name}: the worker", worlds_named(worker.worlds.tolist()),
                           "without workers=… the environment runs, and breaks, in this process")  # fmt: skip
        _log.warning("%s; it is replaced, the open episodes of these worlds are truncated", died)

    def _error(self, worker: _Worker) -> PoiseError:
        """What an environment raised."""
        said = worker.receive()
        where, traceback = said["world"], said["traceback"]
        error = PoiseError(f"{self._name}: world {where} raised {said['error']}" if where >= 0 else
                           f"{self._name} cannot be made in a worker process: {said['error']}")  # fmt: skip
        error.add_note(f"in the worker process: {traceback}")
        return error


class _Worker(Child):
    """One process and its share of the worlds."""

    def __init__(self, order: Mapping[str, Any], memory: int, worlds: range):
        super().__init__("poise.sim.worker", [memory])
        self.worlds = np.array(worlds)
        self.order = {**order, "memory": memory, "worlds": (worlds.start, worlds.stop)}
