"""Gymnasium environments as a VecEnv: `gym:HalfCheetah-v5`, or any VectorEnv of your own.

Legend: N worlds, A action, T steps of an episode so far. Worlds are stepped on the CPU, in this process or in others
(sim/worker_worlds.py), with the same results.

A Gymnasium VectorEnv resets finished worlds in one of three ways (https://farama.org/Vector-Autoreset-Mode),
which it declares in `metadata["autoreset_mode"]`. A step that ends an episode then gives

    mode        next_obs (true successor)   obs (act on it next)             the step after
    DISABLED    what step returned          what our reset(seed=key) gave    an ordinary one
    SAME_STEP   info["final_obs"]           what step returned               an ordinary one
    NEXT_STEP   what step returned          the same: nothing is reset yet   ignores the action; mask is False,
                                                                             obs = next_obs = the new first one

`make_gym` uses DISABLED: the episode of a world is then a pure function of (seed, world, episode number,
actions), which exact resume needs. In the other two modes Gymnasium resets unseeded, so an episode also
depends on the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from torch import Tensor

from ..action import control_value
from ..address import split_options, value_of, without_workers
from ..batch import Step
from ..errors import PoiseError, RunError, SpecError, UsageError
from ..keyed import Stream
from ..spec import Spec
from .gymnasium_ids import gymnasium_call, hides_place, register_id, unknown_id
from .gymnasium_spaces import Groups, action_term
from .open_episodes import OpenEpisodes, fingerprint
from .randomization import Randomization
from .vector_facts import autoreset_mode, control_dt_of, same_sizes, success_of
from .worker_worlds import WorkerWorlds
from .worlds import EnvCall, Worlds

if TYPE_CHECKING:
    from .atari import AtariEnv

KEYS = 16  # episodes of a world whose keys are drawn together


def make_gym(id: str, num_envs: int, seed: int = 0, render_mode: str | None = None, training: bool = False,
             randomization: Randomization | None = None) -> GymVecEnv | AtariEnv:  # fmt: skip
    """N worlds of a registered Gymnasium environment; `reset(seed)` starts them.

    An id may have options, `FrozenLake-v1?is_slippery=false`: arguments of the environment, or sim/atari.py's. One is
    the adapter's own: `workers=4` steps the worlds in four processes.
    `render_mode="rgb_array"` lets `render` draw them, in this process. `randomization` is for MuJoCo environments.

    Raises:
        UsageError: the id is unknown or its package missing, its spaces are not supported, or it cannot be randomized.
    """
    require_worlds(num_envs, f"gym:{id}")
    bare, workers = without_workers(id)
    plain, options = split_options(bare)
    register_id(plain)
    if plain.startswith("ALE/") and plain in gymnasium.registry:
        if randomization and randomization.terms:
            raise UsageError(f"gym:{id} cannot be randomized: it has no physics; use randomize='none'")
        if workers:
            raise UsageError(f"gym:{id}: Atari's consoles are stepped in this process, so leave workers={workers} out")
        return _atari(id, num_envs, options, seed, training)
    arguments = {name: value_of(text) for name, text in options.items()}
    if render_mode:  # not every environment takes the argument
        arguments["render_mode"], workers = render_mode, 0
    try:
        first = gymnasium_call(plain, arguments, randomization)()
    except gymnasium.error.UnregisteredEnv as error:
        raise unknown_id(plain, error) from None
    except (gymnasium.error.Error, ImportError) as error:
        raise UsageError(f"gym:{id} cannot be made: {error}") from None
    except TypeError as error:
        if not options:
            raise
        raise UsageError(f"gym:{id} cannot be made with these options: {error}") from None
    known = first.spec.id if first.spec else plain  # of MODULE:ID the id, with its version
    call = gymnasium_call(known, arguments, randomization, sendable=workers > 0)
    return worlds_of(first, call, num_envs, workers, bare, seed, randomization=randomization)


def worlds_of(first: gymnasium.Env, call: EnvCall, num_envs: int, workers: int, name: str, seed: int,
              prefix: str = "gym", max_episode_steps: int = 0,
              randomization: Randomization | None = None) -> GymVecEnv:  # fmt: skip
    """N worlds like `first`, which `call` makes: in this process, or in `workers` others.

    randomization: what the call makes them differ in, for provenance.
    """
    full = f"{prefix}:{name}"
    try:
        groups = Groups(first.observation_space, full, first.metadata.get("history", 1), hides_place(name))
        action_term(first.action_space, full)
        limit = max_episode_steps or (first.spec and first.spec.max_episode_steps) or 0
        control_dt = control_dt_of(first)
        if workers:
            worlds = WorkerWorlds(call, first, num_envs, workers, full)
            first.close()
        else:
            worlds = Worlds([lambda: first, *[call] * (num_envs - 1)])
    except PoiseError:
        first.close()
        raise
    made = GymVecEnv(worlds, name=name, seed=seed, control_dt=control_dt, max_episode_steps=limit, prefix=prefix,
                     groups=groups)  # fmt: skip
    made.randomization = randomization
    return made


def require_worlds(num_envs: int, name: str) -> None:
    if num_envs < 1:
        raise UsageError(f"{name}: num_envs must be at least 1, not {num_envs}")


def _atari(id: str, num_envs: int, options: Mapping[str, str], seed: int, training: bool) -> AtariEnv:
    """An Atari game as agents are shown it."""
    try:
        from .atari import AtariEnv, AtariOptions
    except ImportError as error:
        raise UsageError(f"gym:{id} needs {error.name}: pip install 'poise[atari]'") from None
    game = gymnasium.registry[split_options(id)[0]].kwargs["game"]
    return AtariEnv(f"gym:{id}", game, num_envs, AtariOptions.parse(options), seed, training)


class GymVecEnv:
    """N worlds of a Gymnasium VectorEnv, in whichever auto-reset mode it declares.

    A world whose reward or observation is not finite never reaches the learner: that step has reward 0, its successor
    is the observation before, the episode is truncated, and `bad_worlds` counts it. In modes other than DISABLED
    nobody but the VectorEnv can reset the world, so there the step is masked, and a bad observation is an error.

    Where the metadata holds a Spec under "spec", it names the parts of observation and action; by default a key is a
    term, and so is the action.

    In DISABLED mode the VectorEnv must take a list of seeds and `options["reset_mask"]`, as Gymnasium's own do.

    Args:
        control_dt: period of a step [s]; by default from the metadata's render_fps, else 1.
        max_episode_steps: time limit [steps]; by default from the environment's registration, else 0.
        prefix: what precedes the colon of the task's name.
        seed: what `reset` uses when it is given none.
        groups: how observations become groups, by default as their space says.
    """

    device = torch.device("cpu")

    def __init__(self, env: VectorEnv, *, name: str = "", seed: int = 0, control_dt: float | None = None,
                 max_episode_steps: int | None = None, prefix: str = "gym",
                 groups: Groups | None = None):  # fmt: skip
        self._env = env
        self._name = f"{prefix}:{name or (env.spec.id if env.spec else type(env.unwrapped).__name__)}"
        self._mode = autoreset_mode(env, self._name)
        self._action_space = env.single_action_space
        self._groups = groups or Groups(env.single_observation_space, self._name, int(env.metadata.get("history", 1)))
        self.num_envs = env.num_envs
        self.max_episode_steps = max_episode_steps or (env.spec and env.spec.max_episode_steps) or 0
        self._action_term = action_term(self._action_space, self._name)
        self.spec = Spec(self._groups.terms, (self._action_term,), control_dt or control_dt_of(env))
        if isinstance(told := env.metadata.get("spec"), Spec):
            self.spec = same_sizes(told, self.spec, self._name)
        self.randomization: Randomization | None = None  # what the worlds differ in, for provenance
        self._all = np.arange(self.num_envs)
        self._seed = seed
        self.bad_worlds = 0  # worlds that broke since this env was made
        self._lost_before = 0  # worker processes that were lost before the state that was restored
        self._running = False
        self._resetting = np.zeros(self.num_envs, bool)  # NEXT_STEP: worlds whose next step is their reset
        self._begin(seed)

    def reset(self, seed: int | None = None, worlds: Any = None) -> Mapping[str, Tensor]:
        """Start episode 0 of every world under `seed`, or of the `worlds` (N,); the first observations."""
        self._begin(self._seed if seed is None else seed, worlds)
        if self._mode is AutoresetMode.DISABLED:
            raw = self._reset_worlds(np.ones(self.num_envs, bool))
            self._open.start(np.ones(self.num_envs, bool), raw)
        else:  # one integer, since not every VectorEnv takes a list
            raw, _ = self._env.reset(seed=int(self._stream.integer(self._worlds[0], 0)[0]))
        self._resetting[:] = False
        self._running = True
        self._last_obs = self._groups.pack(raw)
        return self._last_obs

    def step(self, action: Tensor) -> Step:
        """Apply action (N, A) in [-1, 1] for one control period (discrete: (N, 1) int64).

        `obs` and `next_obs` are the same tensors where no world was reset.

        Raises:
            SpecError: the action has another shape or type, is not finite, or is out of range.
        """
        if not self._running:
            raise PoiseError(f"{self._name}: step() came before the first reset(seed); call reset first")
        command = self._command(action)
        raw, reward, terminated, truncated, info = self._env.step(command.copy())  # some scale it in place
        next_obs = obs = self._groups.pack(raw)
        reward = np.array(reward, np.float32)
        mask = None
        if not (math.isfinite(np.add.reduce(reward)) and self._sound(obs)):
            obs, reward, terminated, truncated, mask = self._contain(obs, reward, terminated, truncated)
            next_obs = obs
        self._last_obs = obs
        done = np.logical_or(terminated, truncated)
        if self._mode is AutoresetMode.DISABLED:
            self._open.add(command, raw)
            if np.logical_or.reduce(done):
                self._episode += done
                raw = self._reset_worlds(done)
                self._open.start(done, raw)
                obs = self._last_obs = self._groups.pack(raw)
        elif self._mode is AutoresetMode.SAME_STEP:
            if done.any():
                next_obs = self._with_final(obs, info, done)
        else:
            self._check_next_step(info, done)
            ordinary = torch.from_numpy(~self._resetting)
            mask = ordinary if mask is None else mask & ordinary
            self._resetting = done
        return Step(
            obs,
            next_obs,
            torch.from_numpy(reward),
            torch.from_numpy(np.array(terminated, bool)),
            torch.from_numpy(np.array(truncated, bool)),
            success_of(info, done),
            mask,
        )

    def render(self) -> np.ndarray:
        """The first world as a frame (height, width, 3) uint8; needs render_mode="rgb_array"."""
        frames = self._env.render()
        if not frames or frames[0] is None:
            raise UsageError(f"{self._name} draws no frames; make it with render_mode='rgb_array'")
        return np.asarray(frames[0])

    @property
    def first(self) -> Any:
        """The first world without its wrappers, for those who draw it; of a VectorEnv of single environments."""
        return self._env.envs[0].unwrapped  # pyright: ignore[reportAttributeAccessIssue]

    def metrics(self) -> dict[str, float]:
        """What a training run logs of its worlds: those that broke so far, and workers that were lost, if any."""
        lost = {"train/lost_workers": float(self.lost_workers)} if self.lost_workers else {}
        return {"train/bad_worlds": float(self.bad_worlds), **lost}

    @property
    def lost_workers(self) -> int:
        """Worker processes that died and were replaced; the worlds that they left are counted in `bad_worlds`."""
        return self._lost_before + getattr(self._env, "lost_workers", 0)

    def close(self) -> None:
        self._env.close()

    # ---- exact resume ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """What brings every world back: its episode's key and the commands since.

        Simulators cannot be trusted to save their state, so a restored world replays its open episode.

        Raises:
            RunError: there is nothing to save yet, or the auto-reset mode forbids replaying.
        """
        self._require_replay("saved")
        if not self._running:
            raise RunError(f"{self._name}: there is no state to save before the first reset(seed)")
        who = {"seed": self._seed, "worlds": self._worlds.copy(), "episode": self._episode.copy()}
        return {"task": self._name, **who, "bad_worlds": self.bad_worlds, "lost_workers": self.lost_workers,
                **self._open.state_dict()}  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
        """Replay every world's open episode; the observations to act on next.

        Episodes are aligned at their ends, so that all worlds step together through the VectorEnv's public
        interface: a world that has fewer steps to make idles first and is reset when its turn comes.

        Raises:
            RunError: the state is another task's, or a replayed observation differs by a bit.
        """
        lost = self.lost_workers
        try:
            obs = self._replay(state)
        except RunError:
            if self.lost_workers == lost:
                raise
            obs = self._replay(state)  # a worker died on the way, and is replaced
        self._lost_before += int(state.get("lost_workers", 0)) - lost
        return obs

    def _replay(self, state: Mapping[str, Any]) -> Mapping[str, Tensor]:
        self._require_replay("restored")
        if (state["task"], len(state["episode"])) != (self._name, self.num_envs):
            raise RunError(
                f"a state of {state['task']} with {len(state['episode'])} worlds cannot be restored into {self._name} "
                f"with {self.num_envs}; resume with the task and num_envs of the run"
            )
        self._begin(int(state["seed"]), state.get("worlds"))
        self._episode[:] = np.asarray(state["episode"])
        self._open.load_state_dict(state)
        first, rows = self._open.first, int(self._open.steps.max())
        self._running = False  # until every world is back
        raw, ended = np.empty(0), np.ones(self.num_envs, bool)
        for t in range(rows + 1):
            if (fresh := ended | (first == t)).any():
                raw = self._reset_worlds(fresh)
            prints, command = self._open.row(t)
            self._verify(t, first <= t, fingerprint(raw) == prints)
            if command is not None:
                raw, _, terminated, truncated, _ = self._env.step(command.copy())
                ended = np.logical_or(terminated, truncated)
                self._verify(t + 1, first <= t, ~ended)  # one that idles may end
        self._running = True
        self.bad_worlds = int(state["bad_worlds"])
        self._last_obs = self._groups.pack(raw)
        return self._last_obs

    def _verify(self, t: int, begun: np.ndarray, same: np.ndarray) -> None:
        """Raise for the first world that has begun its open episode and, at row t, differs from the record."""
        for world in np.flatnonzero(begun & ~same):
            raise RunError(
                f"{self._name}: world {world} cannot be restored: replaying its episode {self._episode[world]}, it "
                f"differs at step {t - self._open.first[world]} of {self._open.steps[world]}. The simulator is "
                "not a function of reset(seed) and actions, or its version is not the one that wrote the checkpoint; "
                "start a new run, or resume with the versions in config.json"
            )

    def _require_replay(self, verb: str) -> None:
        if self._mode is not AutoresetMode.DISABLED:
            raise RunError(
                f"{self._name}: worlds in auto-reset mode {self._mode.name} cannot be {verb}, since they reset "
                "themselves unseeded, so no episode but the first can be replayed; use AutoresetMode.DISABLED"
            )

    # ---- worlds that break -------------------------------------------------------------------

    @staticmethod
    def _sound(obs: Mapping[str, Tensor]) -> bool:
        """Whether the flat observations are finite, as far as their sum tells; `_contain` looks again."""
        for x in obs.values():
            if x.is_floating_point() and not math.isfinite(np.add.reduce(x.numpy(), axis=None)):
                return False
        return True

    def _contain(self, obs: Mapping[str, Tensor], reward: np.ndarray, terminated: np.ndarray, truncated: np.ndarray):
        """The same step with every trace of the broken worlds replaced: obs, reward, terminated, truncated, mask."""
        bad_obs = np.zeros(self.num_envs, bool)
        for values in obs.values():
            if values.is_floating_point():
                bad_obs |= ~torch.isfinite(values).flatten(1).all(1).numpy()
        bad = bad_obs | ~np.isfinite(reward)
        if not bad.any():  # only their sum was too large
            return obs, reward, terminated, truncated, None
        self.bad_worlds += int(bad.sum())
        reward = np.where(bad, np.float32(0.0), reward)
        if self._mode is not AutoresetMode.DISABLED:
            if bad_obs.any():
                raise PoiseError(f"{self._name}: world {np.flatnonzero(bad_obs)[0]} gave an observation that is not "
                                 f"finite, and in auto-reset mode {self._mode.name} it cannot be reset from outside; "
                                 f"use AutoresetMode.DISABLED")  # fmt: skip
            return obs, reward, terminated, truncated, torch.from_numpy(~bad)
        where = torch.from_numpy(bad)
        sound = {g: torch.where(where.view(-1, *[1] * (x.ndim - 1)), self._last_obs[g], x) for g, x in obs.items()}
        return sound, reward, terminated & ~bad, truncated | bad, None

    # ---- Gymnasium's side --------------------------------------------------------------------

    def _begin(self, seed: int, worlds: Any = None) -> None:
        self._seed = seed
        self._worlds = self._all if worlds is None else np.asarray(worlds)  # who each is, to its random numbers
        self._stream = Stream(seed, "gym/episode")
        self._episode = np.zeros(self.num_envs, np.int64)
        self._drawn = np.full(self.num_envs, -1)  # of which KEYS episodes of every world the keys are at hand
        width, dtype = (1, torch.int64) if self.spec.discrete else (self.spec.action_dim, torch.float32)
        self._open = OpenEpisodes(self._command(torch.zeros(self.num_envs, width, dtype=dtype)))

    def _reset_worlds(self, which: np.ndarray) -> np.ndarray:
        """Start the present episode of the worlds `which` (N,) by its key; raw observations of all worlds."""
        raw, _ = self._env.reset(seed=self._keys(), options={"reset_mask": which})
        return raw

    def _keys(self) -> Any:  # a list of int, which the stubs of VectorEnv do not know
        """What seeds every world's present episode; drawn for some episodes at once, since a draw costs 50 us."""
        if (self._episode // KEYS != self._drawn).any():
            self._drawn = self._episode // KEYS
            episodes = self._drawn[:, None] * KEYS + np.arange(KEYS)  # (N, KEYS)
            self._next_keys = self._stream.integer(np.repeat(self._worlds, KEYS), episodes.ravel()).reshape(-1, KEYS)
        return self._next_keys[self._all, self._episode % KEYS].tolist()

    def _command(self, action: Tensor) -> np.ndarray:
        """What the VectorEnv takes for an action (N, A): controls in [low, high], or (N,) choices."""
        given = action.numpy(force=True)
        space, term = self._action_space, self._action_term
        if given.shape != (self.num_envs, term.size):
            raise SpecError(f"{self._name}: expected an action of shape ({self.num_envs}, {term.size}), "
                            f"got {given.shape}")  # fmt: skip
        if isinstance(space, spaces.Discrete):
            # seen as unsigned, a negative number is a very large one
            if given.dtype != np.int64 or np.maximum.reduce(given.view(np.uint64), axis=None) >= term.n:
                raise SpecError(f"{self._name}: expected whole numbers from 0 to {term.n - 1}, got {given.tolist()}")
            return given[:, 0] + space.start
        if not np.maximum.reduce(np.abs(given), axis=None) <= 1.0:  # also where it is NaN
            world, index = np.argwhere(~(np.abs(given) <= 1.0))[0]
            raise SpecError(f"{self._name}: an action must lie in [-1, 1]; world {world} was given "
                            f"{given[world, index]} at index {index}")  # fmt: skip
        assert isinstance(space, spaces.Box)  # _action_term refused the others
        control = control_value(term, given.astype(space.dtype, copy=False))
        return np.minimum(np.maximum(control, space.low), space.high)  # rounding may pass a bound by its last bit

    def _with_final(self, obs: Mapping[str, Tensor], info: dict[str, Any], done: np.ndarray) -> dict[str, Tensor]:
        """SAME_STEP: the true successors, which info["final_obs"] keeps for the worlds that were reset."""
        final = info.get("final_obs")
        if final is None or not np.asarray(info.get("_final_obs", done))[done].all():
            raise PoiseError(f"{self._name} declares auto-reset mode SAME_STEP, but an episode ended without "
                             "info['final_obs']; the true successor is lost, so correct its metadata")  # fmt: skip
        ended = self._groups.pack(self._groups.batch(list(final[done])))  # rows of an object array, or of a dense one
        next_obs = {group: values.clone() for group, values in obs.items()}
        for group, values in ended.items():
            next_obs[group][torch.from_numpy(done)] = values
        return next_obs

    def _check_next_step(self, info: dict[str, Any], done: np.ndarray) -> None:
        if "final_obs" in info or (done & self._resetting).any():
            raise PoiseError(f"{self._name} declares auto-reset mode NEXT_STEP, but a world was reset by the very step "
                             "that ended its episode, or ended while it was reset; correct its metadata")  # fmt: skip
