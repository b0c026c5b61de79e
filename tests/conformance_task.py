"""The contract of sim/task.py as a function that any task can borrow: check_task(task).

It plays a task's functions on the same numbers twice, as numpy arrays and as torch tensors, and once more as a CUDA
graph would have to record them. No engine is stepped: worlds walk at random, one of them slowly, one wildly.

Legend: N worlds, n of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import mujoco
import numpy as np
import torch
from torch import Tensor

from poise.action import action_slices
from poise.observe import observe
from poise.sim.task import Key, State, Task
from tests.capturable import only_capturable

PACES = np.array([[0.002], [0.03], [0.3]])  # of the worlds' walks, a step
STEPS = 20
Outputs = dict[str, Any]  # of one moment: name -> array


def check_task(task: Task) -> None:
    """Check that a task without cameras says the same in numpy and in torch, of the stated kinds, capturably."""
    worlds = _walk(task)
    plain = _play(task, worlds, lambda x: x, Key(3, WORLDS, EPISODES))
    key = _Double(3, torch.from_numpy(WORLDS), torch.from_numpy(EPISODES))
    tensors = _play(task, worlds, _tensors(torch.float64), key)
    _check_stated(task, plain)
    for moment, (mine, theirs) in enumerate(zip(plain, tensors, strict=True)):
        assert mine.keys() == theirs.keys()
        for name in mine:
            _check_same(mine[name], theirs[name], f"{task.name}, moment {moment}: {name}")
    _check_on_a_device(task, worlds[:4])


def _check_on_a_device(task: Task, worlds: list[dict[str, Any]]) -> None:
    """On a device numbers are float32 throughout, and a graph can record it all once constants have been made."""
    to32 = _tensors(torch.float32)
    key = Key(3, torch.from_numpy(WORLDS), torch.from_numpy(EPISODES))
    first = _play(task, worlds, to32, key)
    worlds = [to32(world) for world in worlds]
    with only_capturable():
        again = _play(task, worlds, lambda x: x, key)
    for mine, theirs in zip(first, again, strict=True):
        for name, values in mine.items():
            where = f"{task.name}: {name}"
            assert values.dtype in (torch.float32, torch.int64, torch.bool), f"{where} is {values.dtype} on a device"
            torch.testing.assert_close(theirs[name], values, rtol=0, atol=0, equal_nan=True, msg=where)


def _check_stated(task: Task, moments: list[Outputs]) -> None:
    n = len(PACES)
    for moment in moments:
        for name, values in moment.items():
            assert len(values) == n, f"{task.name}: {name} has shape {values.shape} for {n} worlds"
        for name in ("terminated", "success"):
            assert name not in moment or (moment[name].dtype == bool and moment[name].shape == (n,)), name
        assert "reward" not in moment or (moment["reward"].dtype == np.float64 and moment["reward"].shape == (n,))
    start = {k: v for k, v in moments[0].items() if k.startswith("memory/")}
    for name, values in start.items():
        kinds = {(m[name].dtype, m[name].shape) for m in moments}
        assert kinds == {(values.dtype, values.shape)}, f"{task.name}: {name} changes its kind during an episode"


def _check_same(mine: np.ndarray, theirs: Tensor, where: str) -> None:
    assert isinstance(mine, np.ndarray) and isinstance(theirs, Tensor), f"{where}: {type(mine)} and {type(theirs)}"
    assert str(theirs.dtype) == f"torch.{mine.dtype}", f"{where}: {mine.dtype} and {theirs.dtype}"
    np.testing.assert_allclose(theirs.numpy(), mine, rtol=1e-12, atol=1e-12, err_msg=where)


# ---- one pass through an episode ---------------------------------------------------------------


def _play(task: Task, worlds: list[dict[str, Any]], kind: Callable[[Any], Any], key: Any) -> list[Outputs]:
    """What a task gives of every moment, the reset first; `kind` makes the arrays that it is given."""
    qpos, qvel, memory = task.reset(key, {})
    state = _state(kind(worlds[0]), memory)
    start = getattr(task, "start", None) if worlds[0]["extra"] else None  # the tools of others have a `start` too
    if start is not None:
        memory = _unwritten(state, lambda: start(state))
        _check_apart(memory, state, "start")
    moments = [{"qpos": qpos, "qvel": qvel, **_named("memory", memory), **_seen(task, _state(kind(worlds[0]), memory))}]
    for world in worlds[1:]:
        world = kind(world)
        before, action = _state(world, memory), world["action"]
        memory = _unwritten(before, lambda: task.advance(before, action))  # noqa: B023 (called at once)
        _check_apart(memory, before, "advance")
        state = _state(world, memory)
        moments.append(_unwritten(state, lambda: _outcome(task, state, action)))  # noqa: B023
    return moments


def _outcome(task: Task, state: State, action: Any) -> Outputs:
    success = task.success(state)
    return {
        "reward": task.reward(state, action), "terminated": task.terminated(state),
        **({} if success is None else {"success": success}), **_named("memory", state.memory), **_seen(task, state),
    }  # fmt: skip


def _seen(task: Task, state: State) -> Outputs:
    """Readings, and the observations that the Spec makes of them."""
    readings = task.observe(state)
    return {**_named("reading", readings), **_named("obs", observe(task.spec, readings))}


def _named(prefix: str, arrays: Mapping[str, Any]) -> Outputs:
    return {f"{prefix}/{name}": values for name, values in arrays.items()}


def _state(world: Mapping[str, Any], memory: Mapping[str, Any]) -> State:
    return State(world["time"], world["qpos"], world["qvel"], world["target"], {}, memory, world["extra"])


def _arrays(state: State) -> dict[str, Any]:
    """What an engine owns of a state, and the memory."""
    given = {"time": state.time, "qpos": state.qpos, "qvel": state.qvel, **_named("extra", state.extra)}
    return {**given, **_named("target", state.target), **_named("memory", state.memory)}


def _unwritten(state: State, call: Callable[[], Any]) -> Any:
    """What `call` returns, which must not write into the state."""
    versions = {name: values._version for name, values in _arrays(state).items() if isinstance(values, Tensor)}
    for values in _arrays(state).values():
        if isinstance(values, np.ndarray):
            values.flags.writeable = False
    result = call()
    for name, version in versions.items():
        assert _arrays(state)[name]._version == version, f"the task writes into {name}"
    return result


def _check_apart(memory: Mapping[str, Any], state: State, who: str) -> None:
    """Memory is no view of what the engine will overwrite."""
    owned = {k: v for k, v in _arrays(state).items() if not k.startswith("memory/")}
    for name, values in memory.items():
        for whose, array in owned.items():
            shared = (values.untyped_storage().data_ptr() == array.untyped_storage().data_ptr()
                      if isinstance(values, Tensor) else np.shares_memory(values, array))  # fmt: skip
            assert not shared, f"{who} keeps a view of {whose} as memory {name}; it must keep a copy"


# ---- what is played ----------------------------------------------------------------------------


WORLDS, EPISODES = np.arange(len(PACES)), np.array([0, 2, 1])


class _Double(Key):
    """Numbers of a device in float64, to be compared with numpy's."""

    def uniform(self, name: str, size: int) -> Any:
        with _doubles():
            return super().uniform(name, size)

    def normal(self, name: str, size: int) -> Any:
        with _doubles():
            return super().normal(name, size)


@contextmanager
def _doubles() -> Iterator[None]:
    """float64 as torch's default, for drawn numbers alone: a task has to ask for it where it makes arrays."""
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def _tensors(dtype: torch.dtype) -> Callable[[Any], Any]:
    """What makes tensors of numpy arrays, with floats of this dtype, all the way down."""

    def kind(x: Any) -> Any:
        if isinstance(x, Mapping):
            return {name: kind(values) for name, values in x.items()}
        return torch.tensor(x, dtype=dtype if x.dtype == np.float64 else None)

    return kind


def _walk(task: Task) -> list[dict[str, Any]]:
    """What three worlds are at the start of an episode and after each of its steps."""
    rng, n = np.random.default_rng(0), len(PACES)
    qpos, qvel, _ = task.reset(Key(3, WORLDS, EPISODES), {})
    fields = _Fields(task)
    worlds = []
    for step in range(STEPS + 1):
        worlds.append({
            "time": np.full(n, step * task.spec.control_dt), "qpos": qpos, "qvel": qvel,
            "target": {t.name: np.array(t.home or 0.0) + PACES * rng.standard_normal((n, len(t.joints))) for t in task.spec.actions
                       if t.kind == "joint_pos"},
            "extra": fields.of(qpos, qvel),
            "action": rng.uniform(-1.0, 1.0, (n, max(s.stop for s in action_slices(task.spec).values()))),
        })  # fmt: skip
        qpos = qpos + PACES * rng.standard_normal(qpos.shape)
        qvel = qvel + 10.0 * PACES * rng.standard_normal(qvel.shape)
    return worlds


class _Fields:
    """The MjData fields that a task reads, at positions and velocities."""

    def __init__(self, task: Task):
        self._reads = tuple(getattr(task, "reads", ()))
        self._model = task.model().compile() if self._reads else None

    def of(self, qpos: np.ndarray, qvel: np.ndarray) -> dict[str, np.ndarray]:
        if self._model is None:
            return {}
        rows, data = [], mujoco.MjData(self._model)
        for data.qpos, data.qvel in zip(qpos, qvel, strict=True):
            mujoco.mj_forward(self._model, data)
            mujoco.mj_rnePostConstraint(self._model, data)
            rows.append({name: getattr(data, name).copy() for name in self._reads})
        return {name: np.stack([row[name] for row in rows]) for name in self._reads}
