"""Soft actor-critic, version 2, and its variants: the learner around the equations of `sac_update`, or those of
`sac_general` for discrete actions, cameras, layer norm and distributional critics (sac_core.py chooses).

Off-policy: it collects with a random policy, then with its own, into a replay, and makes `updates` updates after
every `collect_steps` steps of all worlds. Observations are not normalized unless asked for; the replay holds them and
the rewards raw either way.

Legend: N worlds, B batch, A action, O observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..datasets.device_replay import DeviceReplay
from ..datasets.offline import OfflineDataset
from ..datasets.replay import Replay
from ..errors import UsageError
from ..history import initial_history, stack_history, stacked_shape
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .compiled import should_compile
from .distributions import tanh_gaussian_action
from .parallel import ALONE, Group, own_part, pool_of
from .policy import Policy
from .precision import chosen_precision
from .random_shift import random_shift
from .reward_scale import RewardScale
from .sac_config import SACConfig
from .sac_core import choose_core
from .sac_device import Acting, Updates, watched
from .sac_general import Seen

NOISE, LEFT = "noise", "noise_left"  # in the state: the draw that a world holds on to, and for how many more steps


class SAC:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: SACConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
        group: Group = ALONE,
    ):
        """`planned_steps`: environment steps of the whole run over all worlds, to judge compiling; 0 is unknown.

        group: the processes that train together: each with `num_envs` worlds, and its part of batches and replay.
        """
        _require_fit(spec)
        self.spec, self.num_envs, self.device = spec, num_envs, torch.device(device)
        config, self._group, self.shared = _own_part(config, group), group, group.size > 1
        precision = chosen_precision(config.precision, self.device, config.batch_size, max(config.hidden))
        self.config = config = replace(config, precision=precision)
        self.collect_steps = config.collect_steps
        self.request = Sample(config.batch_size, n_step=config.n_step, discount=config.discount)
        self._seen = spec.only((*spec.vectors, *spec.images))
        self._remembers = any(spec.history(group) > 1 for group in self._seen.observations)
        obs_dim = sum(stacked_shape(spec, group)[-1] for group in spec.vectors)

        weights = torch.Generator().manual_seed(int(Stream(seed, "sac/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(
            int(Stream(seed, "sac/draws").integer(group.rank, 0)[0])
        )
        self.core = choose_core(spec, config, obs_dim, weights, self.device, self._compiles(planned_steps), group)
        self.normalizer = None
        if config.normalize_obs and obs_dim > 0:
            self.normalizer = Normalizer(obs_dim, device=self.device, pool=pool_of(group))
        self.rewards = None
        if config.normalize_rewards:
            self.rewards = RewardScale(num_envs, config.discount, config.v_max, self.device, group)
        group.agree_(list(self.core.tensors().values()))
        self._hold = _hold_times(config.noise_hold, self.device)
        self._acting: Acting | None = None
        self._updates: Updates | None = None
        self._actor_metrics: dict[str, Tensor] = {}  # of the actor's last turn, until its next
        self.steps = 0  # environment steps acted for, over all worlds
        self.updates = 0

    def _compiles(self, planned_steps: int) -> bool:
        if self.spec.images:  # convolutions are library calls, which a compiler does not make faster
            if self.config.compile == "on":
                raise UsageError("setting compile = 'on': expected auto or off for a task with a camera")
            return False
        planned_updates = planned_steps // (self.num_envs * self.collect_steps) * self.config.updates
        return should_compile(self.config.compile, planned_updates, self.device)

    def make_buffer(self, on_device: bool = False) -> Replay | DeviceReplay:
        """on_device: whether the worlds' tensors lie on the learner's device, so that the host need not look at any:
        the replay then lies there too, acting is one CUDA graph, and so are the updates of an iteration."""
        if on_device:
            self._acting, self._updates = Acting(self), Updates(self)
            return watched(self._seen, self.num_envs, self.config.capacity, self.generator, self.device, self.rewards,
                           self.shared)  # fmt: skip
        if self.rewards is None:
            return Replay(self._seen, self.num_envs, self.config.capacity, self.device)
        return _WatchedReplay(self._seen, self.num_envs, self.config.capacity, self.device, self.rewards)

    def look_at(self, demos: OfflineDataset) -> None:
        """Take in the range of demonstrations that batches will be made of in part, before the first step.

        What chance never reaches, such as a cube in the air, would be far outside of what a normalizer has seen.
        """
        if self.normalizer is not None:
            for batch in demos.blocks():
                vector = self._vector(batch.obs)
                assert vector is not None
                everyone = torch.ones(len(vector), dtype=torch.bool, device=vector.device)
                self.normalizer.update(vector, None if self._group.rank == 0 else ~everyone)  # once, though all see it
        if self.rewards is not None:
            self.rewards.cover(float(np.abs(demos.discounted_returns(self.config.discount)).max()))

    def updates_due(self, env_steps: int) -> int:
        """`updates` after every collect phase, once the random phase is over."""
        return self.config.updates if env_steps >= self.config.learning_starts else 0

    # ---- acting ------------------------------------------------------------------------------

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """Earlier frames where a group has a history, and the noise that is held on to."""
        state = {}
        if self._remembers:
            state = initial_history(self._seen, n, lambda shape, dtype: torch.zeros(shape, dtype=getattr(torch, dtype)))
        if self._hold is not None and not self.spec.discrete:
            shape, device = (n, self.spec.action_dim), self.device
            state |= {NOISE: torch.zeros(shape, device=device), LEFT: torch.zeros(n, 1, device=device)}
        return state

    @torch.no_grad()
    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A sample of the policy, (N, A) in [-1, 1] or (N, 1) choices, where `obs` is; noise before learning begins.

        Returns: the action, nothing for the buffer to keep beside it, the next state.
        """
        n = len(next(iter(obs.values())))
        random, self.steps = self.steps < self.config.learning_starts, self.steps + n * self._group.size
        if self._acting is not None and not random:
            return self._acting(obs, state)
        return self.explore(obs, state, random)

    def explore(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor], random: bool):
        """What `act` returns, by tensors alone."""
        n, here = len(next(iter(obs.values()))), next(iter(obs.values())).device
        obs, vector, after = self._look(obs, state)
        if self.spec.discrete:
            return self._choose(n, random, vector, obs).to(here), {}, after
        shape = (n, self.spec.action_dim)
        if random:
            action = torch.rand(shape, generator=self.generator, device=self.device) * 2.0 - 1.0
            return action.to(here), {}, {**state, **after}
        mean, log_std = self.core.outputs(self._normalize(vector), self._image(obs)).chunk(2, -1)
        noise = torch.randn(shape, generator=self.generator, device=self.device)
        if self._hold is not None:
            noise, held = self._held(noise, state)
            after |= held
        return tanh_gaussian_action(mean, log_std, noise).to(here), {}, after

    @torch.no_grad()
    def watch(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `act` does apart from acting, for worlds that are acted in elsewhere."""
        self.steps += len(next(iter(obs.values()))) * self._group.size
        return {**state, **self._look(obs, state)[2]}

    def acting(self) -> dict[str, Tensor]:
        """The actor, its encoder and the normalizer."""
        tensors = {n: t for n, t in self.core.tensors().items() if n.startswith(("actor.", "encoder."))}
        statistics = {} if self.normalizer is None else self.normalizer.state_dict()
        return {**tensors, **{f"normalizer.{name}": t for name, t in statistics.items()}}

    def act_with(self, tensors: Mapping[str, Tensor]) -> None:
        for name, tensor in self.acting().items():
            if not name.startswith("normalizer."):
                tensor.copy_(tensors[name])
        if self.normalizer is not None:
            names = self.normalizer.state_dict()
            self.normalizer.load_state_dict({name: tensors[f"normalizer.{name}"] for name in names})

    def _look(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """(observations stacked, their vector groups, the state's next frames), which the normalizer takes in."""
        after: dict[str, Tensor] = {}
        if self._remembers:
            obs, after = stack_history(self._seen, obs, state)
        vector = self._vector(obs)
        if self.normalizer is not None and vector is not None:
            self.normalizer.update(vector)
        return obs, vector, after

    def _choose(self, n: int, random: bool, vector: Tensor | None, obs: Mapping[str, Tensor]) -> Tensor:
        """A sample (N, 1) int64 of the logits, by the largest of logits plus Gumbel noise."""
        uniform = torch.rand(n, self.spec.choices, generator=self.generator, device=self.device)
        gumbel = -torch.log(-torch.log(uniform.clamp(1e-20, 1.0 - 1e-7)))
        logits = 0.0 if random else self.core.outputs(self._normalize(vector), self._image(obs))
        return (logits + gumbel).argmax(-1, keepdim=True)

    def _held(self, noise: Tensor, state: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """The noise to use, which a world keeps for a time drawn anew each time, and the state that says so."""
        assert self._hold is not None
        left = state[LEFT].to(self.device)
        over = left <= 0
        if self._acting is None:
            drawn = torch.multinomial(self._hold, len(noise), replacement=True, generator=self.generator)  # 0: one step
        else:  # which may wait for the device
            uniform = torch.rand(len(noise), generator=self.generator, device=self.device)
            upto = self._hold.cumsum(0)
            drawn = torch.searchsorted(upto, uniform * upto[-1], right=True).clamp_max(len(upto) - 1)
        noise = torch.where(over, noise, state[NOISE].to(self.device))
        left = torch.where(over, drawn[:, None].to(left.dtype), left - 1)
        return noise, {NOISE: noise, LEFT: left}

    # ---- learning ----------------------------------------------------------------------------

    @torch.no_grad()
    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One update of critics, actor, temperature and targets on a batch of transitions."""
        if batch.mask is not None or batch.action.ndim != 2:
            masked = "a mask" if batch.mask is not None else "no mask"
            raise UsageError(f"sac learns from single transitions, all of them real; got actions of shape "
                             f"{tuple(batch.action.shape)} and {masked}")  # fmt: skip
        actors_turn = self.updates % self.config.policy_delay == 0
        metrics = self.learn(batch, actors_turn)
        if batch.origin is not None:
            metrics |= _halves(batch)
        self.updates += 1
        return self._with_actors(metrics)

    def learn(self, batch: Batch, actors_turn: bool) -> dict[str, Tensor]:
        """One update, by tensors alone; those of the actor are among its metrics where it has its turn."""
        size = (2 * len(batch.action), 0 if self.spec.discrete else self.spec.action_dim)
        noise = torch.randn(size, generator=self.generator, device=self.device)
        reward = batch.reward if self.rewards is None else self.rewards(batch.reward)
        discount = None if batch.steps is None else self.config.discount**batch.steps
        return self.core.update(self._see(batch.obs), batch.action, reward, self._see(batch.next_obs),
                                batch.terminated, discount, noise, actors_turn, self._pair())  # fmt: skip

    @torch.no_grad()
    def update_from(self, replay: DeviceReplay, count: int) -> dict[str, Tensor]:
        """`count` updates, each on a batch drawn from a replay on the device, with one launch; their mean metrics."""
        assert self._updates is not None, "make_buffer(on_device=True) made no replay yet"
        metrics = self._updates(replay, count)
        self.updates += count
        return self._with_actors(metrics)

    def _with_actors(self, metrics: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same, with those of the actor's last turn where it had none."""
        if self.config.policy_delay == 1:
            return metrics
        if any(name.startswith("policy/") for name in metrics):
            self._actor_metrics = {k: v for k, v in metrics.items() if k.startswith("policy/")}
        return {**metrics, **self._actor_metrics}

    def _pair(self) -> Tensor | None:
        """The critics (2,) that this update's target takes; None where there are no more."""
        if self.config.critics == 2:
            return None
        drawn = torch.randperm(self.config.critics, generator=self.generator, device=self.device)[:2]
        self._group.agree_([drawn])
        return drawn

    def _see(self, obs: Mapping[str, Tensor]) -> Seen:
        """What the networks read of a batch, pictures shifted at random."""
        image = self._image(obs)
        if image is not None:
            image = random_shift(image, self.config.random_shift, self.generator)
        return Seen(self._normalize(self._vector(obs)), image)

    def _vector(self, obs: Mapping[str, Tensor]) -> Tensor | None:
        """The vector groups side by side (N, O)."""
        groups = self.spec.vectors
        if len(groups) == 1:
            return obs[groups[0]].to(self.device)
        return torch.cat([obs[group].to(self.device) for group in groups], -1) if groups else None

    def _image(self, obs: Mapping[str, Tensor]) -> Tensor | None:
        return obs[self.spec.images[0]].to(self.device) if self.spec.images else None

    def _normalize(self, x: Tensor | None) -> Tensor | None:
        return x if self.normalizer is None or x is None else self.normalizer(x)

    # ---- the policy, and exact resume --------------------------------------------------------

    def policy(self) -> Policy:
        """The deterministic policy, tanh(mean) or the likeliest choice, as a detached copy."""
        more, tensors = self.core.network()
        network = {"kind": "mlp", "groups": list(self.spec.vectors), "hidden": list(self.config.hidden),
                   "activation": "relu", "head": "argmax" if self.spec.discrete else "tanh", **more}  # fmt: skip
        if self.normalizer is not None:
            network["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "sac", network, tensors)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "networks": {name: tensor.clone() for name, tensor in self.core.tensors().items()},
            "generator": self.generator.get_state(),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "rewards": {} if self.rewards is None else self.rewards.state_dict(),
            "actor_metrics": {name: tensor.clone() for name, tensor in self._actor_metrics.items()},
            "steps": self.steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self.core.tensors().items():
            tensor.copy_(state["networks"][name])  # in place: the update holds on to these very tensors
        self.generator.set_state(state["generator"].cpu())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        if self.rewards is not None:
            self.rewards.load_state_dict(state["rewards"])
        self._actor_metrics = {name: tensor.to(self.device) for name, tensor in state["actor_metrics"].items()}
        self.steps, self.updates = int(state["steps"]), int(state["updates"])


class _WatchedReplay(Replay):
    """A replay through which the learner sees every reward once, as it comes."""

    def __init__(self, spec: Spec, num_envs: int, capacity: int, device: torch.device, rewards: RewardScale):
        super().__init__(spec, num_envs, capacity, device)
        self._rewards = rewards

    def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
        mask = None if step.mask is None else step.mask.to(self.device)
        self._rewards.update(step.reward.to(self.device), step.done.to(self.device), mask)
        super().add(obs, action, extras, step)


def _halves(batch: Batch) -> dict[str, Tensor]:
    """Mean reward of the replay's rows of a batch and of the demonstrations': how far the one is from the other."""
    assert batch.origin is not None
    of_demos = batch.origin.to(batch.reward.dtype)  # 0 of the replay, 1 of demonstrations
    found = {}
    for name, share in (("replay", 1.0 - of_demos), ("demos", of_demos)):
        found[f"{name}/reward"] = (share * batch.reward).sum() / share.sum().clamp_min(1.0)
    return found


def _own_part(config: SACConfig, group: Group) -> SACConfig:
    """The settings of one of several processes, which share batches and replay equally, and update uncompiled."""
    if group.size == 1:
        return config
    if config.compile == "on":
        raise UsageError("setting compile = 'on': expected auto or off with processes > 1, which exchange gradients "
                         "inside an update")  # fmt: skip
    rows = own_part(config.batch_size, group.size, "batch_size")
    return replace(config, batch_size=rows, capacity=config.capacity // group.size, compile="off")


def _hold_times(longest: int, device: torch.device) -> Tensor | None:
    """Weights of holding one draw of noise for 1, 2, ..., `longest` steps, as 1 / n^2 (FlashSAC); None for no hold."""
    if longest == 1:
        return None
    return torch.arange(1, longest + 1, device=device, dtype=torch.float32) ** -2.0


def _require_fit(spec: Spec) -> None:
    """Raise UsageError where a task's observations or actions are none that this learner reads or gives."""
    if not spec.vectors and not spec.images:
        raise UsageError(f"sac reads vectors and a camera; this task has the observation groups "
                         f"{', '.join(spec.observations) or 'none'}, of which a policy may read neither")  # fmt: skip
    if len(spec.images) > 1:
        raise UsageError(f"sac reads one camera; this task has {', '.join(spec.images)}")
    if spec.discrete and spec.choices == 0:
        raise UsageError(f"sac chooses among the values of one discrete action; this task has "
                         f"{', '.join(term.name for term in spec.actions)}")  # fmt: skip
