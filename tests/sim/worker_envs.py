"""Environments for worker processes that die, hang and raise; imported there as the module `worker_envs`."""

import os
import signal
import time
from pathlib import Path

import gymnasium
import numpy as np
from gymnasium import spaces


class Walk(gymnasium.Env):
    """A random walk of 6 steps; what happens to its process depends on a file `{doing}.{what}` in the folder.

    doing: "step" (the third of an episode, of one world) or "reset"; what: segv, exit, raise, hang.
    The file is removed before it happens, but for the file `always`.
    """

    observation_space = spaces.Box(-1000.0, 1000.0, (2,), np.float64)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, folder: str = "", start: tuple[float, ...] = (0.0, 0.0)):
        self.folder, self.start = Path(folder), start

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.at = 0, np.array(self.start) + self.np_random.normal(size=2)
        self._happen("reset")
        return self.at.copy(), {}

    def step(self, action):
        self.t += 1
        self.at += action + self.np_random.normal(size=2)
        if self.t == 3:
            self._happen("step")
        return self.at.copy(), float(self.at[0]), bool(self.at[1] > 3.0), self.t >= 6, {"is_success": self.at[1] > 3.0}

    def _happen(self, doing):
        for file in self.folder.glob(f"{doing}.*") if self.folder.name else ():
            try:
                file.rename(file.with_name("happened"))  # by one process alone
            except FileNotFoundError:
                continue
            if (self.folder / "always").exists():
                file.touch()
            match file.suffix:
                case ".segv":
                    os.kill(os.getpid(), signal.SIGSEGV)
                case ".exit":
                    os._exit(3)
                case ".raise":
                    raise ValueError("the leg came off")
                case ".hang":
                    time.sleep(1000.0)


class Filmed(Walk):
    """The walk in a Dict: a picture, a choice and, one level deeper, the position."""

    observation_space = spaces.Dict(
        picture=spaces.Box(0, 255, (8, 6, 3), np.uint8),
        side=spaces.Discrete(2, start=5),
        inner=spaces.Dict(at=Walk.observation_space),
    )

    def reset(self, *, seed=None, options=None):
        return self._filmed(super().reset(seed=seed)[0]), {}

    def step(self, action):
        at, *outcome = super().step(action)
        return self._filmed(at), *outcome

    def _filmed(self, at):
        picture = np.full((8, 6, 3), int(abs(at[0]) * 10) % 256, np.uint8)
        return {"picture": picture, "side": 5 + int(at[1] > 0), "inner": {"at": at}}
