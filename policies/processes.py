"""The processes of one run: started and watched over by Poise, or by torchrun.

    poise train … --set processes=4      this process starts four, each `python -m poise.policies.processes_worker FD`,
                                         and waits: it hands on what the first reports, and Ctrl-C
    torchrun --nproc-per-node 4 -m poise train …     each process finds its place in torchrun's variables

Those that Poise starts meet in a file and talk over the loopback device alone. One that fails, or dies, ends the run:
the others, which wait for its share of a mean, are ended within seconds, and one error says what the first did.

    a process reports        {"progress": [steps, total, values]} | {"result": {...}} | {"error": {...}}
    it is told               nothing; the end of its socket is its end, SIGINT asks it to save and stop
"""

from __future__ import annotations

import inspect
import json
import os
import selectors
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .. import errors
from ..child import Child
from ..errors import PoiseError, RunError, UsageError
from ..machine import cores
from .interrupts import interrupts
from .parallel import ALONE, ContactLost, Group, Processes, own_part

GRACE = 3.0  # [s] after a failure, for the others to say what they know
LOOK = 0.2  # [s] between two looks for Ctrl-C
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


@dataclass(frozen=True)
class Place:
    """Which of the processes of a run this is."""

    rank: int = 0
    size: int = 1
    local: int = 0  # which of those on this machine
    neighbours: int = 1  # how many are on this machine
    meet: str = ""  # where they find each other, as torch.distributed has it

    def join(self, device: torch.device) -> Group:
        return ALONE if self.size == 1 else Processes(self.rank, self.size, device, self.meet)

    def take_gpu(self) -> None:
        """Make the GPU that is this process's the one that "cuda" means from here on, where there is one for each."""
        if self.size > 1 and torch.cuda.is_available() and self.neighbours <= torch.cuda.device_count():
            torch.cuda.set_device(self.local)

    def require_gpu(self, device: torch.device) -> None:
        """Raise UsageError where GPUs were chosen, and there are fewer than processes."""
        if self.size > 1 and device.type == "cuda" and (found := torch.cuda.device_count()) < self.neighbours:
            raise UsageError(f"setting processes = {self.neighbours}: expected a GPU for each, and torch finds {found} "
                             f"here; set processes={found}, or device=cpu")  # fmt: skip

    def threads(self, wanted: int) -> int:
        """Physics threads: those that are wanted, or this process's share of the cores."""
        if wanted or self.size == 1:
            return wanted
        return max(1, cores() // self.neighbours)


def place_of_torchrun(processes: int) -> Place | None:
    """This process's place by torchrun's variables, where it was started so; `processes` is the run's setting."""
    given = os.environ
    if "RANK" not in given or "MASTER_ADDR" not in given or (size := int(given.get("WORLD_SIZE", "1"))) == 1:
        return None
    if processes not in (1, size):
        raise UsageError(f"setting processes = {processes}: torchrun started {size}; leave the setting out, or start "
                         f"as many")  # fmt: skip
    rank = int(given["RANK"])
    local, neighbours = int(given.get("LOCAL_RANK", rank)), int(given.get("LOCAL_WORLD_SIZE", size))
    return Place(rank, size, local, neighbours, "env://")


def require_shared(algorithm: str, learner: Callable[..., Any], num_envs: int, size: int) -> None:
    """Raise UsageError unless `size` processes can share a run of this learner with so many worlds."""
    if size == 1:
        return
    if "group" not in inspect.signature(learner).parameters:
        raise UsageError(f"setting processes = {size}: expected 1 for {algorithm}; ppo and sac, with their variants, "
                         f"learn in several processes")  # fmt: skip
    own_part(num_envs, size, "num_envs")


def require_same_size(recorded: Mapping[str, Any], size: int) -> None:
    """Raise RunError where a run that goes on was begun by another number of processes."""
    if (before := int(recorded.get("processes", 1))) != size:
        raise RunError(f"this run was begun by {before} processes and would go on with {size}: each keeps worlds and "
                       f"replay of its own, so start {before}, or a new run")  # fmt: skip


def require_one_search(env: Any, size: int) -> None:
    """Raise UsageError where ranges of several processes' worlds would adapt, each to its own."""
    if size > 1 and getattr(env, "adr", None) is not None:
        raise UsageError(f"ranges that adapt follow the episodes of one process; with processes = {size} train on "
                         f"fixed ranges: randomize=default, or the adr.json of a run")  # fmt: skip


# ---- those that Poise starts -----------------------------------------------------------------------------------------


def run_together(size: int, order: Mapping[str, Any], progress: Callable[..., None] | None) -> dict[str, Any]:
    """Start `size` processes on the order of a training, and wait for them: the first one's result.

    Raises:
        PoiseError: whatever the first to fail has raised; RunError where one has died.
        Interrupted: Ctrl-C; the run is saved.
    """
    with tempfile.TemporaryDirectory(prefix="poise-") as folder, interrupts() as interrupted:
        more = {name: value for name, value in LOOPBACK.items() if name not in os.environ}
        children = [Child("poise.policies.processes_worker", environment=more) for _ in range(size)]
        meet = Path(folder, "meeting").as_uri()
        try:
            for rank, child in enumerate(children):
                place = {"rank": rank, "size": size, "local": rank, "neighbours": size, "meet": meet}
                child.start({"place": place, "order": json.dumps(order)})
            return _Watch(children, progress, interrupted).result()
        finally:
            for child in children:
                child.end(wait=0.0)


class _Watch:
    """Hears what the processes report until all have ended, or the grace after a failure is over."""

    def __init__(self, children: list[Child], progress: Callable[..., None] | None, interrupted: Callable[[], bool]):
        self._children, self._progress, self._interrupted = children, progress, interrupted
        self._results: dict[int, dict[str, Any]] = {}
        self._failures: list[tuple[int, PoiseError]] = []  # in the order they were heard of

    def result(self) -> dict[str, Any]:
        forwarded, deadline = False, float("inf")
        with selectors.DefaultSelector() as talking:
            for rank, child in enumerate(self._children):
                talking.register(child.connection, selectors.EVENT_READ, rank)
            while talking.get_map() and time.monotonic() < deadline:
                for key, _ in talking.select(LOOK):
                    if self._hear(key.data):
                        talking.unregister(key.fileobj)
                if self._failures and deadline == float("inf"):
                    deadline = time.monotonic() + GRACE
                if self._interrupted() and not forwarded:
                    forwarded = True
                    for child in self._children:
                        child.interrupt()
        if self._failures:
            # whoever lost contact lost it to one that failed
            raise min(self._failures, key=lambda failure: isinstance(failure[1], ContactLost))[1]
        return self._results[0]

    def _hear(self, rank: int) -> bool:
        """Take in a process's next report; whether it was its last."""
        child = self._children[rank]
        try:
            said = json.loads(child.receive_bytes())
        except ConnectionError:
            who, (pid, how) = f"process {rank} of {len(self._children)}", child.end()
            self._failures.append((rank, RunError(f"{who} ({pid}) {how}; the run has ended, and resumes from its last "
                                                  f"checkpoint with --resume")))  # fmt: skip
            return True
        if "progress" in said:
            if self._progress is not None:
                self._progress(*said["progress"])
            return False
        if "error" in said:
            self._failures.append((rank, _error_of(said["error"])))
        else:
            self._results[rank] = said["result"]
        return True


def _error_of(said: Mapping[str, str]) -> PoiseError:
    """What a process raised, as one of our own errors."""
    from .run import Interrupted

    kinds = {kind.__name__: kind for kind in (*vars(errors).values(), Interrupted, ContactLost)
             if isinstance(kind, type) and issubclass(kind, PoiseError)}  # fmt: skip
    if said["type"] in kinds:
        return kinds[said["type"]](said["message"])
    error = RunError(said["message"])
    error.add_note(f"in process {said['rank']}: {said['traceback']}")
    return error
