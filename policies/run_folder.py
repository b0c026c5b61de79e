"""The run folder: what a training run leaves for people and for its own resumption.

config.json          the resolved whole: settings, seed, argv, versions, CPU, threads, commit
metrics.jsonl        one JSON object a line: step, seconds, and whatever was measured
events.out.tfevents* the same for TensorBoard
checkpoint/          see checkpoint.py; process-1/ … in it are the other processes', where several train together
policy.safetensors   the newest policy;  best.safetensors  the one that evaluated best
curves.png           learning curves
adr.json             where ranges adapt: the newest ones, good for --randomize
lock                 held while a process trains here
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..errors import RunError
from ..files import replace_durably
from .checkpoint import has_checkpoint


class RunFolder:
    """An open, locked run folder; of several processes that train together, the first one's.

    Raises:
        RunError: another process trains here, or the folder holds another run.
    """

    leads = True

    def __init__(self, path: Path, resume: bool):
        self.path = path
        if not resume and (path / "config.json").exists():
            raise RunError(f"{path} already holds a run; resume it with --resume {path}, or choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / "lock", "a")  # noqa: SIM115  held until close
        except OSError as error:
            raise RunError(f"cannot use {path} as a run folder: {error.strerror}") from None
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise RunError(f"another process is training in {path}; wait for it, or choose another --out") from None
        self._metrics_path = path / "metrics.jsonl"
        self._metrics: Any = None
        self._board: Any = None

    @property
    def checkpoint(self) -> Path:
        return self.path / "checkpoint"

    def has_checkpoint(self) -> bool:
        return has_checkpoint(self.checkpoint)

    def open_metrics(self, size: int, step: int) -> None:
        """Go on writing metrics after the first `size` bytes, which a checkpoint at `step` vouches for."""
        from torch.utils.tensorboard import SummaryWriter

        self._metrics = open(self._metrics_path, "ab")  # noqa: SIM115  open until close
        self._metrics.truncate(size)
        self._board = SummaryWriter(str(self.path), purge_step=step if step else None)

    def write_metrics(self, step: int, values: Mapping[str, float]) -> None:
        """One line in metrics.jsonl and one point a metric in TensorBoard."""
        try:
            self._metrics.write(json.dumps({"step": step, **values}).encode() + b"\n")
            self._metrics.flush()
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        except OSError as error:
            raise RunError(f"cannot write {self._metrics_path}: {error.strerror}; free some space and resume") from None

    def metrics_size(self) -> int:
        """Bytes of metrics.jsonl so far, on the disk for sure."""
        os.fsync(self._metrics.fileno())
        return self._metrics_path.stat().st_size

    def write_json(self, name: str, data: Any) -> None:
        try:
            replace_durably(self.path / name, (json.dumps(data, indent=2, allow_nan=False) + "\n").encode())
        except OSError as error:
            raise RunError(f"cannot write {self.path / name}: {error.strerror}") from None

    def close(self) -> None:
        """Release the folder; safe to call twice."""
        for file in (self._metrics, self._board, self._lock):
            if file is not None:
                file.close()
        self._metrics = self._board = None


def read_config(path: Path) -> dict[str, Any]:
    """The config.json at `path`, or inside the run folder at `path`.

    Raises:
        RunError: not there, or not a configuration that Poise wrote.
    """
    path = path / "config.json" if path.is_dir() else path
    try:
        config = json.loads(path.read_text())
        missing = [k for k in ("algorithm", "task", "run", "settings") if k not in config]
    except FileNotFoundError:
        raise RunError(f"no run there: {path} does not exist") from None
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path}: {error}") from None
    if not isinstance(config, dict) or missing:
        raise RunError(f"{path} is not a run's configuration; it lacks {', '.join(missing)}")
    return config


def describe_machine(threads: int) -> dict[str, Any]:
    """Versions, CPU, threads and commit: what equality to the bit depends on."""
    packages = ("poise", "torch", "mujoco", "numpy", "gymnasium")
    return {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "physics_threads": threads,
        "commit": _commit(),
        "argv": sys.argv,
    }


def _cpu_model() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _commit() -> str:
    """The commit of the source tree that is running, with a mark where it has been changed; else empty."""
    root = Path(__file__).resolve().parents[1]
    try:
        ask = ["git", "-C", str(root)]
        top = subprocess.run([*ask, "rev-parse", "--show-toplevel"], capture_output=True, text=True, timeout=10)
        if top.returncode or Path(top.stdout.strip()) != root:
            return ""
        return subprocess.run([*ask, "describe", "--always", "--dirty", "--abbrev=12"],
                              capture_output=True, text=True, timeout=10).stdout.strip()  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return ""
