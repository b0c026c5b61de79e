"""Which device a run learns on, and why: what `--device auto` decides, and what `--device cuda` is refused for.

A GPU takes as long for a small product as for one many times its size, and what the CPU simulates has to be carried to
it. So auto takes it where it can be used and

    the worlds are simulated there too,
    the task has a camera, whose encoder is convolutions, or
    a gradient step is large: rows x weights between hidden layers >= LARGE, eight times 256 rows through 256 x 256

and the CPU everywhere else. Whichever it is, one line says so, and config.json keeps it.
"""

from __future__ import annotations

import inspect
import logging
import warnings
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch

from ..errors import UsageError

LARGE = 2**27  # multiplications of a gradient step between hidden layers, forward, of one network
LEAST_MEMORY = 1 << 30  # bytes that torch, its libraries and small networks take on a GPU


@dataclass(frozen=True)
class Work:
    """What the choice depends on."""

    rows: int = 0  # of a gradient step
    weights: int = 0  # between hidden layers of one network
    pictures: bool = False
    worlds_there: bool = False  # they are simulated on the GPU

    @staticmethod
    def of(settings: Any, num_envs: int = 1, pictures: bool = False, worlds_there: bool = False) -> Work:
        """The work of an algorithm's settings, fed by so many worlds."""
        rows = getattr(settings, "batch_size", 0)
        if not rows:
            rows = num_envs * getattr(settings, "collect_steps", 1) // getattr(settings, "minibatches", 1)
        hidden = getattr(settings, "hidden", ())
        return Work(rows, sum(a * b for a, b in pairwise(hidden)), pictures, worlds_there)

    def reason(self) -> str:
        """Why a GPU is worth it; "" where it is not."""
        if self.worlds_there:
            return "the worlds are simulated there"
        if self.pictures:
            return "the task has a camera"
        return f"gradient steps are large ({self.rows:,} rows)" if self.rows * self.weights >= LARGE else ""


@dataclass(frozen=True)
class Chosen:
    """A device, and why it is this one."""

    device: torch.device
    why: str

    def __str__(self) -> str:
        return f"device {self.device.type}: {self.why}"


def choose_device(name: str, work: Work | None = None) -> Chosen:
    """The device for auto, cpu or cuda; `work` decides auto, and without it a GPU that can be used is taken.

    Raises:
        UsageError: cuda was asked for and cannot be used, with the reason.
    """
    if name == "cpu":
        return Chosen(torch.device("cpu"), "asked for")
    reason = "a GPU is there" if work is None else work.reason()
    if name == "auto" and not reason:  # without asking a GPU, which takes a second and its memory
        return Chosen(torch.device("cpu"), "chosen by auto, since small gradient steps on data from the CPU are faster "
                                           "here than on a GPU (--device cuda asks for one)")  # fmt: skip
    lack = gpu_lack()
    if name == "cuda":
        if lack:
            raise UsageError(f"device cuda: {lack}; or use --device cpu")
        return Chosen(torch.device("cuda"), f"asked for; {gpu_name()}")
    if lack:
        return Chosen(torch.device("cpu"), f"chosen by auto, since {lack}")
    return Chosen(torch.device("cuda"), f"chosen by auto, since {reason}; {gpu_name()}")


def stays_on_device(env: Any, learner: Any) -> bool:
    """Whether worlds and learner share a device, so that the host need not look at any number of a step.

    The learner has to know how (`on_device` of its make_buffer). Worlds may say so themselves by an attribute of that
    name; those of a GPU do it by being there.
    """
    if "on_device" not in inspect.signature(learner.make_buffer).parameters:
        return False
    return env.device.type == learner.device.type and getattr(env, "on_device", env.device.type != "cpu")


def say(chosen: object) -> None:
    """Tell the user what was chosen, in one line."""
    logging.getLogger("poise.device").info("%s", chosen)


def gpu_name() -> str:
    return torch.cuda.get_device_name(0)


def gpu_lack() -> str:
    """Why torch cannot use a GPU here and what would help, in a few words; "" where it can."""
    if torch.version.cuda is None and torch.version.hip is None:
        return f"this torch ({torch.__version__}) is built without CUDA (install one that is, from pytorch.org)"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of what is said here in one line
        try:
            torch.cuda.init()
            if torch.cuda.device_count() == 0:
                return "torch finds no NVIDIA GPU"
            return _age_lack() or _memory_lack()
        except (RuntimeError, AssertionError) as error:
            return _told(str(error))


def _told(message: str) -> str:
    """torch's paragraph in a few words."""
    if "no NVIDIA driver" in message:
        return "there is no NVIDIA driver (nvidia-smi should list the GPU)"
    if "driver" in message and "too old" in message:
        found = message.partition("found version ")[2].partition(")")[0]
        serves = f", which serves CUDA up to {int(found) // 1000}.{int(found) % 1000 // 10}" if found.isdigit() else ""
        return f"the NVIDIA driver is too old{serves}; this torch needs {torch.version.cuda} (update the driver)"
    if "No CUDA GPUs" in message:
        return "torch finds no NVIDIA GPU (is CUDA_VISIBLE_DEVICES set?)"
    return f"CUDA does not start: {(message.strip().splitlines() or ['no reason given'])[0]}"


def _age_lack() -> str:
    """Whether this torch holds code for the GPU: binaries serve later minor versions, PTX all later ones."""
    if torch.version.hip is not None:
        return ""
    major, minor = torch.cuda.get_device_capability(0)
    built = [(kind, _version(number)) for kind, _, number in (a.partition("_") for a in torch.cuda.get_arch_list())]
    for kind, (built_major, built_minor) in built:
        if kind == "sm" and built_major == major and built_minor <= minor:
            return ""
        if kind == "compute" and (built_major, built_minor) <= (major, minor):
            return ""
    oldest = min((version for _, version in built), default=(0, 0))
    return (f"the {gpu_name()} (compute capability {major}.{minor}) is not one that torch {torch.__version__} is built "
            f"for ({oldest[0]}.{oldest[1]} and later; install a torch that knows it)")  # fmt: skip


def _version(number: str) -> tuple[int, int]:
    """(9, 0) of 90 or 90a, (12, 0) of 120."""
    digits = "".join(c for c in number if c.isdigit())
    return int(digits[:-1]), int(digits[-1])


def _memory_lack() -> str:
    free, total = torch.cuda.mem_get_info(0)
    if free >= LEAST_MEMORY:
        return ""
    return (f"the {gpu_name()} has {free / 2**30:.1f} of {total / 2**30:.1f} GiB free, and at least "
            f"{LEAST_MEMORY / 2**30:.0f} GiB is needed (does another process use it?)")  # fmt: skip
