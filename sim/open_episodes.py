"""What every world was sent and what it saw since its episode began: enough to play the episode again, and to notice
where it does not come out the same.

Legend: N worlds, T steps of an episode so far.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..errors import RunError
from ..keyed import Stream

# observations of up to so many bytes wait for their fingerprints, until there are so many of them
SMALL, TOGETHER = 4096, 64


class OpenEpisodes:
    """The commands and observation fingerprints of every world's open episode.

    Rows are steps of all worlds together. The open episode of world w begins at row `first[w]`: row t holds the
    fingerprint of what it saw and then the command that it was sent; the last fingerprint has no command yet.
    """

    def __init__(self, idle: np.ndarray):
        """`idle` (N, ...) is some valid command of every world."""
        self._idle = idle
        self._commands: list[np.ndarray] = []  # of (N, ...)
        self._prints = [np.zeros(len(idle), np.int64)]  # of (N,)
        self._recent: list[np.ndarray] = []  # the latest observations (N, ...), whose prints are still to be taken
        self.first = np.zeros(len(idle), np.int64)

    @property
    def steps(self) -> np.ndarray:
        """Steps of every world's open episode: (N,)."""
        return len(self._commands) - self.first

    def start(self, which: np.ndarray, raw: np.ndarray) -> None:
        """An episode starts in the worlds `which` (N,), whose first observations are in `raw` (N, ...)."""
        self._take_prints()
        self._prints[-1][which] = fingerprint(raw)[which]
        self.first[which] = len(self._commands)
        unused = int(self.first.min())
        if 2 * unused > len(self._commands):  # rarely, so that a step's share of it stays constant
            del self._commands[:unused], self._prints[:unused]
            self.first -= unused

    def add(self, command: np.ndarray, raw: np.ndarray) -> None:
        """Every world was sent `command` (N, ...) and answered `raw` (N, ...)."""
        self._commands.append(command)
        if isinstance(raw, Mapping) or raw.nbytes > SMALL:
            self._prints.append(fingerprint(raw))
            return
        self._recent.append(raw.copy())
        if len(self._recent) == TOGETHER:
            self._take_prints()

    def _take_prints(self) -> None:
        """Of many small observations at once: for one, the calls cost more than the sums."""
        if self._recent:
            rows = np.concatenate(self._recent)  # (steps N, ...)
            self._prints.extend(fingerprint(rows).reshape(len(self._recent), -1))
            self._recent = []

    def row(self, t: int) -> tuple[np.ndarray, np.ndarray | None]:
        """Fingerprints (N,) and commands (N, ...) of row t."""
        return self._prints[t], self._commands[t] if t < len(self._commands) else None

    def state_dict(self) -> dict[str, Any]:
        """Worlds one after another: commands (sum of T, ...), fingerprints (sum of T + 1,)."""
        self._take_prints()
        commands = np.array(self._commands, self._idle.dtype).reshape(-1, *self._idle.shape)  # (rows, N, ...)
        prints = np.array(self._prints)  # (rows + 1, N)
        return {
            "steps": self.steps,
            "commands": np.concatenate([commands[t:, w] for w, t in enumerate(self.first)]),
            "fingerprints": np.concatenate([prints[t:, w] for w, t in enumerate(self.first)]),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the episodes, aligned at their ends; worlds idle in the rows before their first."""
        steps, commands, prints = (np.asarray(state[name]) for name in ("steps", "commands", "fingerprints"))
        expected = (int(steps.sum()), *self._idle.shape[1:]), (int(steps.sum()) + len(steps),)
        if (commands.shape, prints.shape) != expected:
            raise RunError(f"the saved worlds should hold commands and fingerprints of shapes {expected}, found "
                           f"{(commands.shape, prints.shape)}; the checkpoint is damaged")  # fmt: skip
        rows, end = int(steps.max()), 0
        self.first = rows - steps
        all_commands = np.repeat(self._idle[None], rows, axis=0)  # (rows, N, ...)
        all_prints = np.zeros((rows + 1, len(steps)), np.int64)
        for w, t in enumerate(self.first):
            end += rows - t
            all_commands[t:, w] = commands[end - (rows - t) : end]
            all_prints[t:, w] = prints[end - (rows - t) + w : end + 1 + w]
        self._commands, self._prints, self._recent = list(all_commands), list(all_prints), []


def fingerprint(raw: Any) -> np.ndarray:
    """A hash of each row's bits (N, ...): (N,) int64, different whenever a single number differs.

    Multilinear modulo 2**64: every number's bits times an odd weight, summed over the row. Frames are read in the
    widest words that they divide into; of a Dict, the parts are numbers of a row.
    """
    if isinstance(raw, Mapping):
        return fingerprint(np.stack([fingerprint(part) for part in raw.values()], axis=1))
    rows = np.ascontiguousarray(raw).reshape(len(raw), -1)
    word = math.gcd(rows.shape[1], 8) if rows.itemsize == 1 else rows.itemsize
    bits = rows.view(f"u{word}").astype(np.uint64, copy=False)
    return (bits @ _weights(bits.shape[1])).view(np.int64)


@functools.cache
def _weights(count: int) -> np.ndarray:
    words = Stream(0, "gym/fingerprint").integer(np.arange(count), 0).astype(np.uint64)
    return words * np.uint64(2) + np.uint64(1)
