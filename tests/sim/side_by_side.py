"""One run of a component in numpy with indices, one in torch with masks; their numbers must be equal.

Worlds begin new episodes at random steps. The torch run is what a graph's recording would allow, and its state goes
through the static tensors that DeviceEnv keeps, and once into parts that were made anew.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import mujoco
import numpy as np
import torch

from poise.sim.rows import some
from poise.sim.task import Key
from tests.capturable import only_capturable

N, STEPS, SEED = 6, 30, 5
CPU = torch.device("cpu")
SOURCE = """
<mujoco>
  <compiler angle="radian"/><option integrator="implicitfast" timestep="0.005"/>
  <worldbody>
    <geom name="table" type="plane" size="2 2 .1" pos="0 0 -1.5"/>
    <body name="cart"><joint name="cart" type="slide" axis="1 0 0" range="-1 2" limited="true" damping="0.5"/>
      <geom name="cart" type="box" size="0.1 0.1 0.05" mass="2"/>
      <body name="pole"><joint name="pole" axis="0 1 0" damping="0.1" armature="0.01" frictionloss="0.2"
          stiffness="0.3" range="-3 3" limited="true" actuatorfrcrange="-5 5" actuatorfrclimited="true"/>
        <geom name="pole" type="capsule" fromto="0 0 0 0 0 0.5" size="0.02" mass="1"/></body></body>
    <body name="ball" pos="1 0 -1.4"><freejoint name="ball"/>
      <geom name="ball" type="sphere" size="0.1" mass="0.2"/></body>
    <body name="wheel" pos="0 1 0"><joint name="wheel" axis="0 1 0" damping="0.2"/>
      <geom name="wheel" type="cylinder" size="0.1 0.02" mass="0.5"/></body>
  </worldbody>
  <actuator>
    <position name="cart" joint="cart" kp="100" kv="10" forcelimited="true" forcerange="-50 50"/>
    <motor name="pole" joint="pole" gear="2"/>
    <position name="wheel" joint="wheel" kp="20" kv="2"/>
  </actuator>
</mujoco>
"""
MODEL = mujoco.MjModel.from_xml_string(SOURCE)


@dataclass
class Moment:
    """What the parts of an environment are told, in either spelling; arrays are of all worlds."""

    steps: Any
    key: Key
    inputs: dict[str, Any]
    rows: Any = None  # where episodes begin

    @staticmethod
    def of(steps: np.ndarray, episodes: np.ndarray, inputs: Mapping[str, np.ndarray], begun: np.ndarray) -> Moment:
        return Moment(steps.copy(), Key(SEED, 100 + np.arange(N), episodes.copy()), dict(inputs), begun)

    def on_torch(self) -> Moment:
        mask = torch.zeros(N, dtype=torch.bool)
        mask[torch.from_numpy(self.rows)] = True
        key = replace(self.key, worlds=torch.from_numpy(self.key.worlds), episodes=torch.from_numpy(self.key.episodes))
        numbers = {k: torch.from_numpy(v).to(torch.get_default_dtype()) for k, v in self.inputs.items()}
        return Moment(torch.from_numpy(self.steps), key, numbers, mask)

    def begun(self, name: str) -> Any:
        return some(self.inputs[name], self.rows)


Parts = dict[str, Any]
Play = Callable[[Parts, Moment], dict[str, Any]]


def assert_equal_runs(make: Callable[[Any], Parts], begin: Play, step: Play,
                      draw: Callable[[np.random.Generator], Mapping[str, np.ndarray]]) -> list[dict[str, Any]]:  # fmt: skip
    """Play STEPS control steps with each; make(device) gives the parts, draw(rng) a step's inputs, each (N, …).

    Gives what numpy's steps gave.
    """
    tolerance = {"rtol": 1e-9, "atol": 1e-9} if torch.get_default_dtype() == torch.float64 else {"rtol": 1e-4,
                                                                                                  "atol": 2e-5}  # fmt: skip
    rng = np.random.default_rng(0)
    mine, theirs = make(None), make(CPU)
    steps, episodes, static, seen = np.zeros(N, np.int64), np.zeros(N, np.int64), {}, []
    for t in range(STEPS):
        begun = np.arange(N) if t == 0 else np.flatnonzero(rng.uniform(size=N) < 0.15)
        steps[begun] = 0
        episodes[begun] += t > 0
        for play, new in ((begin, begun), (step, np.arange(N))):
            moment = Moment.of(steps, episodes, draw(rng), begun)
            expected = play(mine, moment) if play is step or len(begun) else {}
            there = moment.on_torch()
            if not 2 <= t < 6:  # constants are made before, and watching is slow
                given = play(theirs, there)
            else:
                with only_capturable():
                    given = play(theirs, there)
            for name, values in expected.items():
                np.testing.assert_allclose(given[name][new], values, **tolerance, err_msg=f"{name}, step {t}")
            if t == STEPS // 2:
                theirs = _made_anew(make, theirs)
            static = _through_static(theirs, static)
            if play is step:
                seen.append(expected)
                steps += 1
    return seen


def _made_anew(make: Callable[[Any], Parts], parts: Parts) -> Parts:
    new = make(CPU)
    for name, part in parts.items():
        if hasattr(part, "load_state_dict"):
            new[name].load_state_dict(_cloned(part.state_dict()))
    return new


def _through_static(parts: Parts, static: dict[str, Any]) -> dict[str, Any]:
    """What DeviceEnv does after each recorded part."""
    stateful = {name: part for name, part in parts.items() if hasattr(part, "state_dict")}
    if not static:
        static = {name: _cloned(part.state_dict()) for name, part in stateful.items()}
    for name, part in stateful.items():
        _copy(part.state_dict(), static[name])
        part.load_state_dict(static[name])
    return static


def _cloned(state: Any) -> Any:
    if isinstance(state, Mapping):
        return {name: _cloned(value) for name, value in state.items()}
    return state.clone() if isinstance(state, torch.Tensor) else state


def _copy(state: Any, static: Any) -> None:
    for name, value in state.items():
        if isinstance(value, Mapping):
            _copy(value, static[name])
        elif isinstance(value, torch.Tensor):
            static[name].copy_(value)
        else:
            assert static[name] == value, f"{name} is a number of Python's that changes"


def first_moment(device: Any) -> Moment:
    """For draws: all worlds' first episodes."""
    moment = Moment.of(np.zeros(N, np.int64), np.zeros(N, np.int64), {}, np.arange(N))
    return moment if device is None else moment.on_torch()
