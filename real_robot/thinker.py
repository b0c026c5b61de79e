"""The policy's own process: observations in by one ring, chunks of actions out by another. See thinking.py.

It answers the newest observation, and lets those go by that came while it was thinking. A policy with a memory (an
LSTM, stacked frames) carries it from answer to answer, so it remembers what it answered, not what it let go by.
"""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time

import numpy as np

from ..errors import PoiseError
from ..policies.runner import Runner
from .realtime import BESIDE, schedule
from .ring import RingReader, RingWriter
from .thinking import BEAT

LOOK = 0.0005  # [s] between looks for an observation


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m poise.real_robot.thinker")
    parser.add_argument("policy")
    parser.add_argument("--rings", type=int, nargs=3, required=True)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--torch", action="store_true")
    options = parser.parse_args(argv)
    asked, chunks, beats = options.rings
    try:
        policy = InTorch(options.policy) if options.torch else Runner.load(options.policy)
    except PoiseError as error:
        print(error, file=sys.stderr)
        return 1
    if not options.torch:  # it needs little, and its death shows the sooner; torch's threads could starve a machine
        schedule(inherited=True, priority=BESIDE)
    threading.Thread(target=_beat, args=(RingWriter(beats),), daemon=True).start()
    think(policy, RingReader(asked), RingWriter(chunks), options.delay)
    return 0


def think(policy, asked: RingReader, chunks: RingWriter, delay: float) -> None:
    """Answer until the process that started this one is gone."""
    parent, answered, episode, state = os.getppid(), 0, -1, {}
    while os.getppid() == parent:
        newest = asked.newest()
        if newest is None or newest[0] == answered:
            time.sleep(LOOK)
            continue
        answered, record = newest
        if record["episode"] != episode:
            episode, state = int(record["episode"]), policy.initial_state(1)
        obs = {name[4:]: record[name][None] for name in record.dtype.names or () if name.startswith("obs/")}
        actions, state = policy.act(obs, state)
        if delay:
            time.sleep(delay)
        chunks.write(episode=episode, time=record["time"], actions=np.asarray(actions)[0])


def _beat(ring: RingWriter) -> None:
    while True:
        ring.write(time=time.monotonic())
        time.sleep(BEAT)


class InTorch:
    """The policy in torch, behind the runner's verbs."""

    def __init__(self, path: str):
        import torch

        from ..policies.policy import Policy

        self._torch, self._policy = torch, Policy.load(path)
        self.initial_state = self._policy.initial_state

    def act(self, obs, state):
        torch = self._torch
        with torch.no_grad():
            return self._policy.act({group: torch.from_numpy(np.array(x)) for group, x in obs.items()}, state)


if __name__ == "__main__":
    sys.exit(main())
