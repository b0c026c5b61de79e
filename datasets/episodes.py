"""Episodes on disk: robomimic's HDF5 layout, plus what a robot log needs. T steps, A action, n joints.

    /data            attrs total, env_args (JSON), poise_format, poise_spec (JSON), poise_provenance (JSON)
    /data/demo_<i>   attrs num_samples, and whatever the writer says of the episode (success, return, …)
       obs/<group>       (T, dim)  float32      next_obs/<group>  (T, dim)  float32
                         (T, height, width, channels) uint8 of a camera
       actions           (T, A)    float32      executed, in [-1, 1]; of discrete choices (T, 1) int64
       rewards           (T,)      float32
       dones             (T,)      uint8        terminations or truncations, which follow, each (T,) uint8
       from an arm also:
       actions_asked     (T, A)    float32      what the policy put out
       joint_pos_target  (T, n)    float64      the command sent last in the control period [rad]
       gripper_target    (T,)      float64      the same of the gripper, where actions move one [its unit]
       verdict           (T,)      uint8        worst of the period: 0 PASS, 1 CLIP, 2 REJECT
       t_mono, t_device  (T,)      float64      when the observation was taken: our clock, the device's [s]
    /mask/<filter>   names of episodes

Data is contiguous, so that a reader can memory-map it; the masks grow and are not.

A reader finds whole episodes at every moment, also after a kill or on a full disk: the writer works on a hidden
copy and swaps it with the published file by renaming. The two change places each time, so that an episode is
written twice and nothing is copied, but for the one copy that appending to a file of ours begins with.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from ..errors import DatasetError, SpecError
from ..spec import Spec
from .file_lock import FileLock
from .layouts import robomimic
from .room import reserve

FORMAT = 1
GYM_TYPE = 2  # robomimic's EnvType.GYM_TYPE
DTYPES: dict[str, type] = {
    "actions": np.float32,
    "rewards": np.float32,
    "terminations": np.uint8,
    "truncations": np.uint8,
    "actions_asked": np.float32,
    "joint_pos_target": np.float64,
    "gripper_target": np.float64,
    "verdict": np.uint8,
    "t_mono": np.float64,
    "t_device": np.float64,
    "states": np.float64,
}
REQUIRED = ("obs", "next_obs", "actions", "rewards", "terminations", "truncations")

Episode = dict[str, Any]  # dataset name -> array; obs and next_obs: group -> array


def environment(name: str, **kwargs: Any) -> dict[str, Any]:
    """The `env_args` that robomimic expects of an environment."""
    return {"env_name": name, "type": GYM_TYPE, "env_kwargs": kwargs, "env_version": None}


class EpisodeWriter:
    """Writes one file, an episode at a time. Use as a context manager.

    append: go on with the file where it is there: it must be ours, of the same Spec and environment. Where its
        provenance is another, the new episodes carry theirs as an attribute.

    Raises:
        DatasetError: the file exists, another process writes it, an episode does not fit its Spec, or the disk
            refuses it.
    """

    def __init__(self, path: str | os.PathLike[str], spec: Spec, env_args: Mapping[str, Any],
                 provenance: Mapping[str, Any] | None = None, append: bool = False):  # fmt: skip
        self.path, self.spec, self.count = Path(os.path.realpath(path) if append else path), spec, 0
        self._hidden = self.path.with_name(f".{self.path.name}.writing")
        self._attributes = {
            "env_args": json.dumps(dict(env_args)),
            "poise_format": FORMAT,
            "poise_spec": json.dumps(spec.to_json()),
            "poise_provenance": json.dumps(dict(provenance or {})),
        }
        self._previous: tuple[Episode, tuple[str, ...], dict[str, Any]] | None = None  # what the hidden copy lacks
        self._next = 0  # the number of the next episode
        self._origin: dict[str, str] = {}  # what the episodes say of where they are from, if not what the file says
        if self.path.exists() and not append:
            raise DatasetError(f"{self.path} exists; choose another name or move it away")
        with self._clear_errors("start"):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock = FileLock(self.path)
            try:
                self._begin()
            except BaseException:
                self._lock.release()
                raise

    def _begin(self) -> None:
        if not self.path.exists():
            for file in (self._hidden, self.path):
                self._create(file)
            return
        with EpisodeFile(self.path) as file:
            if differs := file.spec.diff(self.spec):
                raise DatasetError(f"{self.path} holds episodes of another Spec, and cannot take these: {differs[0]}")
            if file.env_args != (env_args := json.loads(self._attributes["env_args"])):
                raise DatasetError(
                    f"{self.path} holds episodes of {file.env_args}, and cannot take those of {env_args}"
                )
            if file.provenance != json.loads(self._attributes["poise_provenance"]):
                self._origin = {"poise_provenance": self._attributes["poise_provenance"]}
            self.count = len(file)
            self._next = 1 + max((file.number(name) for name in file.names), default=-1)
        shutil.copyfile(self.path, self._hidden)

    def add(self, episode: Mapping[str, Any], filters: Sequence[str] = (), **attributes: Any) -> None:
        """Append one episode; after this call it is in the published file."""
        arrays = _checked(episode, self.spec)
        entry = (arrays, ("all", *filters), attributes)
        with self._clear_errors(f"append episode {self.count} to"):
            if self._previous is not None:
                self._append(self._previous, self._next - 1)
                self._previous = None
            self._append(entry, self._next)
            self._swap()
        self._previous = entry
        self.count, self._next = self.count + 1, self._next + 1

    def close(self) -> None:
        """Remove the hidden copy and let go of the file, which is complete at all times; safe to call twice."""
        with contextlib.suppress(FileNotFoundError):
            self._hidden.unlink()
        self._lock.release()

    def __enter__(self) -> EpisodeWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _create(self, file: Path) -> None:
        with h5py.File(file.name, "w", driver="core", backing_store=False) as h5:  # in memory: see reserve
            data = h5.create_group("data")
            data.attrs["total"] = 0
            data.attrs.update(self._attributes)
            h5.create_group("mask")
            h5.flush()
            image = h5.id.get_file_image()
        file.write_bytes(image)

    def _append(self, entry: tuple[Episode, tuple[str, ...], dict[str, Any]], index: int) -> None:
        arrays, filters, attributes = entry
        flat = _flat(arrays)
        reserve(self._hidden, sum(a.nbytes for a in flat.values()) + 4096 * len(flat) + (1 << 16))
        with h5py.File(self._hidden, "r+") as h5:
            group = h5.create_group(f"data/demo_{index}")
            for name, array in flat.items():
                group.create_dataset(name, data=array)
            steps = len(arrays["actions"])
            group.attrs.update({"num_samples": steps, **self._origin, **attributes})
            h5["data"].attrs["total"] = int(h5["data"].attrs["total"]) + steps
            for name in filters:
                mask = _growing(h5.require_group("mask"), name)
                mask.resize((len(mask) + 1,))
                mask[-1] = f"demo_{index}".encode()

    def _swap(self) -> None:
        """The hidden copy becomes the file, and the file the hidden copy; the name is never without a file."""
        spare = self._hidden.with_suffix(".spare")
        with contextlib.suppress(FileNotFoundError):
            spare.unlink()
        os.link(self.path, spare)
        os.replace(self._hidden, self.path)
        os.replace(spare, self._hidden)

    @contextlib.contextmanager
    def _clear_errors(self, what: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            with contextlib.suppress(OSError):
                self._hidden.unlink(missing_ok=True)
            reason = error.strerror or str(error).splitlines()[0]
            raise DatasetError(f"cannot {what} {self.path}: {reason}; it keeps the {self.count} episodes "
                               "written so far. Free some space, or record elsewhere") from error  # fmt: skip


class EpisodeFile:
    """Reads one file of ours. `len(file)`, `file.names`, `file["demo_0"]`; use as a context manager.

    Raises:
        DatasetError: no such file, damaged, or not of this layout.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = Path(path)
        if not self.path.exists():
            raise DatasetError(f"no recording at {self.path}")
        self.log = robomimic.read(self.path)
        says = self.log.attributes
        try:
            if (version := says.get("poise_format")) != FORMAT:
                raise DatasetError(f"{self.path}: poise_format is {version}; this Poise reads {FORMAT}")
            self.spec = Spec.from_json(str(says["poise_spec"]))
            self.provenance, self.env_args = (
                json.loads(str(says["poise_provenance"])),
                json.loads(str(says["env_args"])),
            )
        except (DatasetError, KeyError, ValueError, SpecError) as error:
            self.log.close()
            if isinstance(error, DatasetError):
                raise
            raise DatasetError(f"{self.path}: the header cannot be read: {error}") from None
        self.names = [episode.name for episode in self.log.episodes]

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, name: str) -> Episode:
        """One episode's arrays, and its attributes under "attributes"."""
        stored = self.log[name]
        episode: Episode = {"attributes": dict(stored.attributes)}
        for key, column in stored.columns.items():
            group, _, rest = key.partition("/")
            (episode.setdefault(group, {}) if rest else episode)[rest or group] = column[:]
        if missing := [key for key in REQUIRED if key not in episode]:
            found = dict.fromkeys(key.partition("/")[0] for key in stored.columns)
            raise DatasetError(f"{self.path}, {name}: {missing[0]} is missing; found {', '.join(found)}")
        return episode

    def filter(self, name: str) -> list[str]:
        """The episodes' names under one filter."""
        return [episode.name for episode in self.log.filtered(name)]

    def number(self, name: str) -> int:
        """Which demo_<i> of the file an episode is.

        Raises:
            DatasetError: it has a name of another layout.
        """
        if not robomimic.NAME.fullmatch(name):
            raise DatasetError(f"{self.path}: the episode {name!r} is no demo_<i>; files that were converted from "
                               "another layout cannot be appended to")  # fmt: skip
        return int(name.removeprefix("demo_"))

    def close(self) -> None:
        self.log.close()

    def __enter__(self) -> EpisodeFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _checked(episode: Mapping[str, Any], spec: Spec) -> Episode:
    """The episode as arrays of the layout's types, one row a step everywhere."""
    if missing := [key for key in REQUIRED if key not in episode]:
        raise DatasetError(f"an episode needs {', '.join(REQUIRED)}; {missing[0]} is missing")
    if unknown := sorted(set(episode) - {*DTYPES, "obs", "next_obs"}):
        raise DatasetError(f"an episode holds {unknown[0]!r}, which the layout does not; known: {', '.join(DTYPES)}")
    dtypes = DTYPES | (dict.fromkeys(("actions", "actions_asked"), np.int64) if spec.discrete else {})
    arrays: Episode = {key: np.asarray(episode[key], dtype) for key, dtype in dtypes.items() if key in episode}
    arrays["dones"] = arrays["terminations"] | arrays["truncations"]
    for key in ("obs", "next_obs"):
        given = episode[key]
        try:
            groups = {group: _observed(given[group], group, spec) for group in spec.observations}
            spec.check(obs=groups)
        except (KeyError, SpecError) as error:
            raise DatasetError(f"{key} does not fit the spec: {error}") from None
        arrays[key] = groups
    steps = len(arrays["actions"])
    if steps == 0:
        raise DatasetError("an episode without a step cannot be written")
    for name, array in _flat(arrays).items():
        if len(array) != steps:
            raise DatasetError(f"{name} has {len(array)} rows where actions have {steps}")
    if not spec.discrete and not (np.abs(arrays["actions"]) <= 1.0).all():
        raise DatasetError("executed actions leave [-1, 1]; what was asked belongs into actions_asked")
    return arrays


def _observed(given: Any, group: str, spec: Spec) -> np.ndarray:
    """(T, …) of a group in the layout's type: uint8 of a camera, float32 of all else."""
    if not spec.is_image(group):
        return np.asarray(given, np.float32)
    if np.asarray(given).dtype != np.uint8:
        raise SpecError(f"observation group {group!r} should be uint8, got {np.asarray(given).dtype}")
    return np.asarray(given)


def _flat(arrays: Episode) -> dict[str, np.ndarray]:
    """Dataset path inside the episode -> array."""
    flat: dict[str, np.ndarray] = {}
    for name, value in arrays.items():
        flat.update({f"{name}/{g}": a for g, a in value.items()} if isinstance(value, dict) else {name: value})
    return flat


def _growing(masks: Any, name: str) -> Any:
    """A filter that takes more names and longer ones, made of what it held where it could not."""
    mask = masks.get(name)
    if mask is None or mask.maxshape != (None,) or mask.dtype != "S16":
        held = [] if mask is None else mask[()].tolist()
        if mask is not None:
            del masks[name]
        mask = masks.create_dataset(name, data=np.array(held, "S16"), maxshape=(None,), chunks=(256,))
    return mask
