"""Atari games as Mnih et al. 2015 (Nature 518:529) show them to an agent: `gym:ALE/Pong-v5`.

One agent step is `frame_skip` frames of the console under one action. The agent sees the pixelwise maximum of the
last two of them (sprites flicker), as luminance, scaled to 84 x 84 by area; its policy stacks four such pictures. An
episode begins with 0 to `noop_max` frames without action, which is all that makes one differ from another.

Worlds stay honest: rewards are the game's own scores, and an episode is a game (learners clip what they learn from).
`life_loss=1` marks the loss of a life as terminal while training, as Mnih et al. do; the game goes on, and evaluation
plays whole games. Unlike Gymnasium's ids of the same name, an action is never repeated at random unless
`repeat_action_probability` says so: 0.25 is what Machado et al. 2018 (arXiv 1709.06009) recommend.

The consoles are stepped one after another in this thread, each from a snapshot of a console just switched on, with
random numbers of ours. An episode is thereby a function of (seed, world, episode, actions) and a snapshot brings any
moment back to the bit. ale-py's AtariVectorEnv, as fast on one core, would have to load the ROM anew for that (80 ms).

Legend: N worlds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import ale_py
import cv2
import numpy as np
import torch
from ale_py import roms
from torch import Tensor

from ..batch import Step
from ..errors import PoiseError, RunError, SpecError, UsageError, unknown_name
from ..keyed import Stream
from ..spec import ActionTerm, ObsTerm, Spec

SIZE = 84  # [pixels]
HISTORY = 4  # pictures that a policy stacks
CONSOLE_DT = 1.0 / 60.0  # [s] of a frame


@dataclass(frozen=True)
class AtariOptions:
    """What may stand after the question mark of an id."""

    frame_skip: int = 4  # frames an agent step
    noop_max: int = 30  # most frames without action at the beginning of an episode
    max_frames: int = 108_000  # time limit of an episode: half an hour
    repeat_action_probability: float = 0.0  # that a frame takes the action of the frame before it
    full_action_space: bool = False  # all 18 actions of the joystick, or those that the game knows
    fire_reset: bool = False  # begin with FIRE where the game waits for it
    life_loss: bool = False  # while training, a lost life is a terminal step

    def __post_init__(self) -> None:
        for name, low, high in (("frame_skip", 1, 100), ("noop_max", 0, 1000), ("max_frames", self.frame_skip, 2**31),
                                ("repeat_action_probability", 0.0, 1.0)):  # fmt: skip
            if not low <= getattr(self, name) < high:
                raise UsageError(f"{name} = {getattr(self, name)}: expected at least {low} and less than {high:g}")

    @staticmethod
    def parse(options: Mapping[str, str]) -> AtariOptions:
        """From text.

        Raises:
            UsageError: an option that does not exist, with the nearest, or a value that cannot be.
        """
        known = {f.name: type(f.default) for f in fields(AtariOptions)}
        values = {}
        for name, text in options.items():
            if name not in known:
                raise unknown_name("option of Atari games", name, known)
            values[name] = _value(name, text, known[name])
        return AtariOptions(**values)


class AtariEnv:
    """N games of one kind; see sim/vec_env.py for the contract."""

    device = torch.device("cpu")

    def __init__(self, name: str, game: str, num_envs: int, options: AtariOptions, seed: int = 0,
                 training: bool = False):  # fmt: skip
        """name: of the task; game: of the ROM; training: whether `life_loss` holds."""
        self._name, self._options, self._seed = name, options, seed
        self.num_envs = num_envs
        self.max_episode_steps = options.max_frames // options.frame_skip
        self._consoles = [_console(game) for _ in range(num_envs)]
        first = self._consoles[0]
        self._actions = first.getLegalActionSet() if options.full_action_space else first.getMinimalActionSet()
        self._boot = first.cloneState(include_rng=True)
        self.spec = Spec(
            {"camera": (ObsTerm("camera", (SIZE, SIZE, 1), "camera", dtype="uint8", history=HISTORY),)},
            (ActionTerm("choice", "discrete", n=len(self._actions)),),
            CONSOLE_DT * options.frame_skip,
        )
        self._life_loss = options.life_loss and training
        self._screens = np.empty((2, *first.getScreenDims()), np.uint8)  # the last two frames of a step
        self._worlds = np.arange(num_envs)
        self._pictures = np.empty(0)  # (N, 84, 84) what is to be acted on next

    def reset(self, seed: int | None = None, worlds: Any = None) -> Mapping[str, Tensor]:
        """Start episode 0 of every world under `seed`, or of the `worlds` (N,); the first observations."""
        self._begin(self._seed if seed is None else seed, worlds)
        self._pictures = np.empty((self.num_envs, SIZE, SIZE), np.uint8)
        for world in range(self.num_envs):
            self._start(world, self._pictures[world])
        return _groups(self._pictures)

    def step(self, action: Tensor) -> Step:
        """Take the choices (N, 1) int64 for `frame_skip` frames.

        `obs` and `next_obs` are the same tensors where no game ended.

        Raises:
            SpecError: the action has another shape or type, or is out of range.
        """
        if not len(self._pictures):
            raise PoiseError(f"{self._name}: step() came before the first reset(seed); call reset first")
        choices = self._checked(action)
        sticky = self._sticky()
        pictures = np.empty((self.num_envs, SIZE, SIZE), np.uint8)
        score, over = np.empty(self.num_envs, np.float32), np.empty(self.num_envs, bool)
        for world, choice in enumerate(choices):
            score[world], over[world] = self._play(world, choice, sticky[world], pictures[world])
        self._steps += 1
        truncated = ~over & (self._steps >= self.max_episode_steps)
        ends = over | truncated
        terminated = over | self._lives_lost() if self._life_loss else over
        next_obs = obs = _groups(pictures)
        self._pictures = pictures
        if ends.any():
            self._pictures = pictures.copy()
            for world in np.flatnonzero(ends).tolist():
                self._episode[world] += 1
                self._start(world, self._pictures[world])
            obs = _groups(self._pictures)
        flags = (torch.from_numpy(x) for x in (score, terminated, truncated))
        return Step(obs, next_obs, *flags)

    def render(self) -> np.ndarray:
        """The screen of the first world: (210, 160, 3) uint8; after `load_state_dict`, that of the next step."""
        return self._consoles[0].getScreenRGB()

    def close(self) -> None:
        self._consoles = []

    # ---- exact resume ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything to go on to the bit: a snapshot of every console.

        Raises:
            RunError: there is nothing to save before the first reset.
        """
        if not len(self._pictures):
            raise RunError(f"{self._name}: there is no state to save before the first reset(seed)")
        snapshots = [console.cloneState(include_rng=True).serialize() for console in self._consoles]
        return {
            "task": self._name,
            "seed": self._seed,
            "worlds": self._worlds.copy(),
            "episode": self._episode.copy(),
            "steps": self._steps.copy(),
            "lives": self._lives.copy(),
            "last": self._last.copy(),
            "pictures": self._pictures.copy(),
            "sizes": np.array([len(s) for s in snapshots]),
            "consoles": np.frombuffer(b"".join(snapshots), np.uint8).copy(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Restore every console; the observations to act on next.

        Raises:
            RunError: the state is another task's.
        """
        if (state["task"], len(state["episode"])) != (self._name, self.num_envs):
            raise RunError(
                f"a state of {state['task']} with {len(state['episode'])} worlds cannot be restored into {self._name} "
                f"with {self.num_envs}; resume with the task and num_envs of the run"
            )
        self._begin(int(state["seed"]), state.get("worlds"))
        self._episode, self._steps, self._lives, self._last, self._pictures = (
            np.array(state[name]) for name in ("episode", "steps", "lives", "last", "pictures")
        )
        ends = np.cumsum(np.asarray(state["sizes"])).tolist()
        saved = np.asarray(state["consoles"], np.uint8).tobytes()
        for console, start, end in zip(self._consoles, [0, *ends], ends, strict=False):
            console.restoreState(ale_py.ALEState(saved[start:end]))
        return _groups(self._pictures)

    # ---- one world ---------------------------------------------------------------------------

    def _begin(self, seed: int, worlds: Any = None) -> None:
        self._seed = seed
        self._worlds = np.arange(self.num_envs) if worlds is None else np.asarray(worlds)
        self._noops, self._stickiness = Stream(seed, "atari/noop"), Stream(seed, "atari/sticky")
        self._episode, self._steps, self._lives, self._last = (np.zeros(self.num_envs, np.int64) for _ in range(4))

    def _start(self, world: int, picture: np.ndarray) -> None:
        """Begin the present episode of a world, and write what it shows into `picture` (84, 84)."""
        console = self._consoles[world]
        console.restoreState(self._boot)
        noops = int(
            self._noops.uniform(self._worlds[world], self._episode[world], 1)[0, 0] * (self._options.noop_max + 1)
        )
        for _ in range(1 + noops):  # one for the screen, which a snapshot does not hold
            console.act(ale_py.Action.NOOP)
        if self._options.fire_reset and ale_py.Action.FIRE in self._actions:
            for _ in range(self._options.frame_skip):
                console.act(ale_py.Action.FIRE)
        self._steps[world], self._last[world], self._lives[world] = 0, 0, console.lives()
        console.getScreenGrayscale(self._screens[1])
        _shrink(self._screens[1], picture)

    def _play(self, world: int, choice: int, sticky: list[bool], picture: np.ndarray) -> tuple[int, bool]:
        """One agent step: its score and whether the game is over; what it shows goes into `picture` (84, 84)."""
        console, last_frame, score = self._consoles[world], self._options.frame_skip - 1, 0
        before, screen = self._screens[0], self._screens[1]
        taken, over = int(self._last[world]), False
        for frame in range(last_frame + 1):
            taken = taken if sticky and sticky[frame] else choice
            score += console.act(self._actions[taken])
            over = console.game_over()
            if over or frame == last_frame:
                console.getScreenGrayscale(screen)
                if frame == last_frame > 0:
                    np.maximum(before, screen, out=screen)
                break
            if frame == last_frame - 1:
                console.getScreenGrayscale(before)
        self._last[world] = taken
        _shrink(screen, picture)
        return score, over

    def _sticky(self) -> list[list[bool]]:
        """For every world, at which frames of this step the console takes the action of the frame before."""
        chance = self._options.repeat_action_probability
        if not chance:
            return [[]] * self.num_envs
        draws = self._stickiness.uniform(self._worlds, self._episode, self._options.frame_skip, self._steps)
        return (draws < chance).tolist()

    def _lives_lost(self) -> np.ndarray:
        before, self._lives = self._lives, np.array([console.lives() for console in self._consoles])
        return self._lives < before

    def _checked(self, action: Tensor) -> list[int]:
        given = action.numpy(force=True)
        if given.shape != (self.num_envs, 1):
            raise SpecError(f"{self._name}: expected an action of shape ({self.num_envs}, 1), got {given.shape}")
        if given.dtype != np.int64 or given.min() < 0 or given.max() >= len(self._actions):
            raise SpecError(f"{self._name}: expected whole numbers from 0 to {len(self._actions) - 1}, "
                            f"got {given.tolist()}")  # fmt: skip
        return given[:, 0].tolist()


def _console(game: str) -> ale_py.ALEInterface:
    """A console just switched on. Its own chances are fixed: what varies comes from our streams."""
    ale_py.ALEInterface.setLoggerMode(ale_py.LoggerMode.Error)
    console = ale_py.ALEInterface()
    console.setInt("random_seed", 0)
    console.setFloat("repeat_action_probability", 0.0)
    path = roms.get_rom_path(game)
    assert path is not None  # the id was registered for it
    console.loadROM(path)
    console.reset_game()
    return console


def _shrink(screen: np.ndarray, picture: np.ndarray) -> None:
    cv2.resize(screen, (SIZE, SIZE), dst=picture, interpolation=cv2.INTER_AREA)


def _groups(pictures: np.ndarray) -> dict[str, Tensor]:
    return {"camera": torch.from_numpy(pictures[..., None])}


def _value(name: str, text: str, kind: type) -> Any:
    words = {"1": True, "true": True, "0": False, "false": False}
    try:
        return words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UsageError(f"{name}={text}: expected {'0 or 1' if kind is bool else 'a number'}") from None
