"""Episodes in the layout of episodes.py, written a step at a time: a reader sees those that are still going on too.

A step is stored once its successor is known. An episode that was never ended, because somebody was killed, keeps the
attribute `unfinished`, and is in no filter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DatasetError
from ..spec import Spec
from .episodes import DTYPES, FORMAT
from .growing_file import GrowingFile

Obs = Mapping[str, Any]


class GrowingEpisodes:
    """Adds episodes to a GrowingFile."""

    def __init__(self, file: GrowingFile, spec: Spec, env_args: Mapping[str, Any], provenance: Mapping[str, Any]):
        self.file, self.spec, self.count, self.total = file, spec, 0, 0
        self._step: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None  # waits for its successor
        self._steps, self._open = 0, False  # of the episode that is going on
        file.say("data", {"total": 0, "env_args": json.dumps(dict(env_args)), "poise_format": FORMAT,
                          "poise_spec": json.dumps(spec.to_json()),
                          "poise_provenance": json.dumps(dict(provenance))})  # fmt: skip
        file.say("mask", {})

    @property
    def name(self) -> str:
        """The episode that is going on, or comes next."""
        return f"demo_{self.count}"

    def step(self, obs: Obs, values: Mapping[str, Any]) -> None:
        """One step: what was seen before it, and its actions, rewards and so on, by the layout's names.

        Raises:
            DatasetError: it does not fit the Spec.
        """
        seen = {group: self._seen(obs[group], group) for group in self.spec.observations}
        if self._step is not None:
            self._store(seen, ended=False)
        self._step = (seen, dict(values))

    def end(self, last_obs: Obs, filters: Sequence[str] = (), attributes: Mapping[str, Any] | None = None) -> None:
        """The episode is over; its last step led to `last_obs`. Without a step nothing is written."""
        if self._step is None:
            return
        self._store({group: self._seen(last_obs[group], group) for group in self.spec.observations}, ended=True)
        self.file.say(f"data/{self.name}", {"unfinished": None, **(attributes or {})})
        for mask in ("all", *filters):
            self.file.add(f"mask/{mask}", np.array([self.name.encode()], "S16"))
        self._step, self._steps, self._open = None, 0, False
        self.count += 1

    def _store(self, after: dict[str, np.ndarray], ended: bool) -> None:
        assert self._step is not None
        (before, values), place = self._step, f"data/{self.name}"
        terminated = int(bool(values.pop("terminated", 0)))
        values |= {"terminations": terminated, "truncations": int(ended and not terminated)}
        for name, value in values.items():
            dtype = np.int64 if self.spec.discrete and name.startswith("actions") else DTYPES[name]
            self.file.add(f"{place}/{name}", np.asarray(value, dtype)[None])
        self.file.add(f"{place}/dones", np.array([terminated or ended], np.uint8))
        for group in self.spec.observations:
            self.file.add(f"{place}/obs/{group}", before[group][None])
            self.file.add(f"{place}/next_obs/{group}", after[group][None])
        self._steps, self.total = self._steps + 1, self.total + 1
        self.file.say(place, {"num_samples": self._steps, **({} if self._open else {"unfinished": 1})})
        self.file.say("data", {"total": self.total})
        self._open = True

    def _seen(self, value: Any, group: str) -> np.ndarray:
        array = np.asarray(value, np.uint8 if self.spec.is_image(group) else np.float32)
        if array.shape != self.spec.obs_shape(group):
            raise DatasetError(f"observation {group}: expected shape {self.spec.obs_shape(group)}, got {array.shape}")
        return array
