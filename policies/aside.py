"""Evaluations aside: scored in a process of their own while training goes on, and logged under the step they belong to.

A policy that is to be scored is written into the run folder, and a result is taken between two iterations once it is
there. A checkpoint names what is still to come; its policies stay until a later one no longer does, so a run that is
killed scores them again.

    runs/…/evaluating/STEP.safetensors
"""

from __future__ import annotations

import contextlib
import json
import select
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..child import Child
from ..errors import RunError
from .evaluate import Evaluation
from .policy import Policy, load_policy

FOLDER = "evaluating"


@dataclass(frozen=True)
class Asked:
    """A policy that waits for its score."""

    step: int
    seconds: float  # of learning that made it
    policy: Policy


class Aside:
    """The process, and what it was asked for and has not answered yet, oldest first."""

    def __init__(self, folder: Path):
        self._folder = folder / FOLDER
        self._child: Child | None = None
        self._asked: list[Asked] = []
        self._answered: list[Path] = []  # whose policies a checkpoint may still name

    def ask(self, asked: Asked, order: dict[str, Any]) -> None:
        """Have a policy scored; `order` as evaluation_process.py reads it, but for the policy."""
        path = self._path(asked.step)
        path.parent.mkdir(exist_ok=True)
        asked.policy.save(path)
        order = {**order, "policy": str(path)}
        if self._child is None:
            self._child = Child("poise.policies.evaluation_process", environment={"CUDA_VISIBLE_DEVICES": ""})
            self._child.start(order)
        else:
            self._child.tell(order)
        self._asked.append(asked)

    def answers(self, wait: bool = False) -> Iterator[tuple[Asked, Evaluation]]:
        """Those that are there by now, or with `wait` all.

        Raises:
            RunError: an evaluation failed, or its process is gone.
        """
        while self._asked and self._child is not None:
            if not wait and not select.select([self._child.connection], [], [], 0.0)[0]:
                return
            asked = self._asked[0]
            try:
                answer = self._child.receive()
            except ConnectionError:
                _, how = self._child.end()
                raise RunError(
                    f"the process that evaluates {how}, at the evaluation of step {asked.step}; resume the run, "
                    f"which scores it again (new runs can do without: aside=off)"
                ) from None
            if "error" in answer:
                raise RunError(f"the evaluation of step {asked.step} failed: {answer['error']}")
            del self._asked[0]
            self._answered.append(self._path(asked.step))
            yield asked, Evaluation(**_restored(json.loads(answer["scored"])))

    def pending(self) -> list[dict[str, Any]]:
        """What a checkpoint says of those without an answer."""
        return [{"step": asked.step, "seconds": asked.seconds} for asked in self._asked]

    def saved(self) -> None:
        """A checkpoint is complete: what it does not name is no longer needed."""
        for path in self._answered:
            path.unlink(missing_ok=True)
        self._answered = []
        with contextlib.suppress(OSError):  # not there, or not empty
            self._folder.rmdir()

    def reloaded(self, entry: dict[str, Any]) -> Asked:
        """What a checkpoint said, with its policy."""
        return Asked(entry["step"], entry["seconds"], load_policy(self._path(entry["step"])))

    def close(self) -> None:
        """End the process, whatever it is doing."""
        if self._child is not None:
            self._child.end(0.0)
            self._child = None

    def _path(self, step: int) -> Path:
        return (self._folder / f"{step}.safetensors").absolute()


def _restored(values: dict[str, Any]) -> dict[str, Any]:
    return {**values, "returns": tuple(values["returns"])}
