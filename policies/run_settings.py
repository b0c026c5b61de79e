"""What does not depend on the algorithm: settings of every run, of those in simulation, and of those from files."""

from __future__ import annotations

from dataclasses import dataclass

from .settings import require, setting


@dataclass(frozen=True)
class LoopSettings:
    """Of every run."""

    steps: int = setting(1_000_000, "Environment steps over all worlds; the total, also when resuming.")
    seed: int = setting(0, "Seed of everything random.")
    device: str = setting("auto", "Where the networks live: auto, cpu or cuda.")
    randomize: str = setting(
        "default", "Dynamics: none, default (the task's own ranges), adr (ranges that adapt), or a FILE."
    )
    threads: int = setting(0, "Physics threads; 0 takes every core.")
    torch_threads: int = setting(1, "Threads of one torch operation on the CPU; more is slower for small networks.")
    evaluations: int = setting(10, "Evaluations spread over the run; 0 for none.")
    eval_episodes: int = setting(20, "Episodes of each of them, in separate worlds, with deterministic actions.")
    videos: int = setting(0, "Episodes to film at each of them, as videos/STEP.mp4 in the run folder.")
    aside: str = setting(
        "auto",
        "Evaluations in a process of their own, beside learning: on, off, or auto, with a GPU and collect=async.",
    )
    log_points: int = setting(200, "Lines in metrics.jsonl over the run.")
    checkpoint_seconds: float = setting(30.0, "Least seconds between checkpoints, which never take over 5 % of a run.")

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", self.steps, "at least 1")
        require(self.seed >= 0, "seed", self.seed, "a number that is not negative")
        require(self.device in ("auto", "cpu", "cuda"), "device", self.device, "auto, cpu or cuda")
        require(self.threads >= 0, "threads", self.threads, "0 or more")
        require(self.torch_threads >= 1, "torch_threads", self.torch_threads, "at least 1")
        require(self.evaluations >= 0, "evaluations", self.evaluations, "0 or more")
        require(self.eval_episodes >= 1, "eval_episodes", self.eval_episodes, "at least 1")
        require(self.videos >= 0, "videos", self.videos, "0 or more")
        require(self.aside in ("auto", "on", "off"), "aside", self.aside, "auto, on or off")
        require(self.log_points >= 1, "log_points", self.log_points, "at least 1")
        require(self.checkpoint_seconds >= 0, "checkpoint_seconds", self.checkpoint_seconds, "0 or more")


@dataclass(frozen=True)
class RunSettings(LoopSettings):
    """Of training in simulation."""

    num_envs: int = setting(16, "Worlds stepped together.")
    engine: str = setting(
        "auto", "What steps them: cpu (MuJoCo in threads), warp (MuJoCo Warp, beside the networks on a GPU), or auto."
    )
    collect: str = setting(
        "sync", "How steps are collected: sync, or async, by processes that step worlds while the learner learns."
    )
    actors: int = setting(0, "Of async: such processes; 0 is one less than there are cores.")
    max_lead: int = setting(4, "Of async: steps of all worlds that they may be ahead of the learner.")
    publish_every: int = setting(1, "Of async: updates after which they are given new weights.")
    processes: int = setting(
        1, "Processes that share worlds, batches and replay equally, each on a GPU of its own or on the CPU."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.num_envs >= 1, "num_envs", self.num_envs, "at least 1")
        require(self.engine in ("auto", "cpu", "warp"), "engine", self.engine, "auto, cpu or warp")
        require(self.collect in ("sync", "async"), "collect", self.collect, "sync or async")
        require(self.collect == "sync" or self.engine != "warp", "engine", "warp", "cpu or auto with collect=async")
        require(self.actors >= 0, "actors", self.actors, "0 or more")
        require(self.max_lead >= 1, "max_lead", self.max_lead, "at least 1")
        require(self.publish_every >= 1, "publish_every", self.publish_every, "at least 1")
        require(self.processes >= 1, "processes", self.processes, "at least 1")
        require(self.collect == "sync" or self.processes == 1, "processes", self.processes, "1 with collect=async")


@dataclass(frozen=True)
class FitSettings(LoopSettings):
    """Of learning from files."""

    steps: int = setting(100_000, "Updates; the total, also when resuming.")
    randomize: str = setting("none", "Dynamics of the evaluations: none, default (the task's own ranges), or a FILE.")
    check: bool = setting(True, "Whether files are looked through first, and refused where an error is found.")
    ends: str = setting("", "What ends of unknown kind in a file are: terminated or truncated.")
    actions: str = setting(
        "checked", "Actions beyond [-1, 1]: checked refuses them, clip clips, scale scales all by the data's range."
    )
    label: str = setting(
        "actions", "The action to learn: actions, which were executed, or actions_asked, meant before noise was added."
    )
    d4rl: str = setting(
        "auto", "D4RL set whose reference returns make normalized scores of returns: auto by the files' names, or none."
    )
    memory: str = setting("", "Memory that the steps may take, as 2G, before they are read from the files; free/2.")

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.ends in ("", "terminated", "truncated"), "ends", self.ends, "terminated or truncated")
        require(self.actions in ("checked", "clip", "scale"), "actions", self.actions, "checked, clip or scale")
