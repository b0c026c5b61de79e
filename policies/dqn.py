"""Deep Q-learning: the learner around `dqn_update`, which holds the equations, and q_network.py.

Off-policy: at random at first, then epsilon-greedy into a replay, with `updates` updates after every `collect_steps`
steps of all worlds. The replay holds observations raw, each frame once; it stacks them, and sums n rewards, as it is
sampled.

Legend: N worlds, B batch, A choices, O observation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch, Sample, Step
from ..datasets.replay import Replay
from ..errors import UsageError
from ..history import initial_history, stack_history, stacked_shape
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .adam import adam_, zero_moments
from .dqn_small import small_gradient
from .dqn_update import (
    RMSPROP_MIN_SQUARE,
    centred_rmsprop_,
    linear_schedule,
    next_value,
    priorities,
    q_loss,
)
from .network_document import feature_maps
from .perceptron import SmallPerceptron
from .policy import Policy
from .q_network import NATURE, NATURE_2013, QNetwork
from .returns import td_target
from .settings import require, setting


@dataclass(frozen=True)
class DQNConfig:
    """Settings of deep Q-learning on vectors; the recipe dqn/nature has those of the Atari paper."""

    hidden: tuple[int, ...] = setting((256, 256), "Hidden layer sizes, with ReLU between them.")
    conv: tuple[tuple[int, int, int], ...] = setting(
        (), "Layers for a camera, [channels, kernel, stride] each; none for tasks without one."
    )
    learning_rate: float = setting(5e-4, "Step size of the optimizer.")
    anneal: bool = setting(False, "Whether that step size falls in a straight line to 0 at the planned end.")
    optimizer: Literal["adam", "rmsprop"] = setting("adam", "adam, or rmsprop: centred, with the constants of Nature.")
    loss: Literal["huber", "squared"] = setting(
        "huber", "Of the error y - Q: huber, which clips its derivative to 1 as Nature does, or squared."
    )
    max_grad_norm: float | None = setting(10.0, "Norm that the gradient is scaled down to; none leaves it alone.")
    discount: float = setting(0.99, "Weight of the value one step later.")
    batch_size: int = setting(128, "Transitions per update.")
    capacity: int = setting(1_000_000, "Transitions that the replay holds over all worlds; the oldest make room.")
    learning_starts: int = setting(1_000, "Environment steps over all worlds with random actions, before learning.")
    collect_steps: int = setting(1, "Steps of all worlds between two update phases.")
    updates: int = setting(1, "Updates in one phase.")
    target_network: bool = setting(True, "Whether targets come from a copy of the network; false is Algorithm 1.")
    target_every: int = setting(500, "Updates after which that copy is made anew.")
    tau: float | None = setting(None, "If set, the copy takes on this share of the network with every update instead.")
    epsilon_start: float = setting(1.0, "Probability of a random action when learning begins.")
    epsilon_end: float = setting(0.05, "Probability of a random action once it has fallen.")
    epsilon_fraction: float = setting(0.2, "Share of the planned steps during which it falls.")
    epsilon_steps: int | None = setting(None, "If set, environment steps over all worlds during which it falls.")
    double: bool = setting(True, "Whether the network chooses the action whose value the target network tells.")
    dueling: bool = setting(False, "Whether the network adds a value to advantages, each with a layer of its own.")
    n_step: int = setting(1, "Rewards summed before the value.")
    prioritized: bool = setting(False, "Whether transitions with a large error are drawn more often.")
    priority_exponent: float = setting(0.6, "How much more often: in proportion to the error to this power.")
    importance: float = setting(0.4, "How far weights undo that at first; wholly (1) at the planned end.")
    reward_scale: float = setting(
        1.0, "Factor on every reward that is learned from; errors should be about 1 for huber."
    )
    reward_clip: float | None = setting(None, "Bound on a reward thus scaled; none leaves it alone.")
    normalize_obs: bool = setting(False, "Whether networks see vectors with running mean 0 and deviation 1.")

    def __post_init__(self) -> None:
        def number(name: str, valid: str, holds: Callable[[float], bool]) -> None:
            value = getattr(self, name)
            require(math.isfinite(value) and holds(value), name, value, valid)

        require(len(self.hidden) > 0 and all(n > 0 for n in self.hidden), "hidden", self.hidden, "positive sizes")
        require(all(len(layer) == 3 and all(n > 0 for n in layer) for layer in self.conv), "conv", self.conv,
                "layers such as [32,8,4],[64,4,2]: channels, kernel, stride")  # fmt: skip
        number("learning_rate", "a number above 0", lambda x: x > 0)
        for name in ("batch_size", "collect_steps", "updates", "target_every", "n_step"):
            number(name, "at least 1", lambda x: x >= 1)
        for name in ("discount", "epsilon_start", "epsilon_end", "epsilon_fraction", "priority_exponent", "importance"):
            number(name, "a number from 0 to 1", lambda x: 0 <= x <= 1)
        number("capacity", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        number("learning_starts", f"at least batch_size {self.batch_size}", lambda x: x >= self.batch_size)
        require(self.learning_starts <= self.capacity, "learning_starts", self.learning_starts,
                f"at most capacity {self.capacity}")  # fmt: skip
        number("reward_scale", "a number above 0", lambda x: x > 0)
        for name in ("max_grad_norm", "reward_clip"):
            if getattr(self, name) is not None:
                number(name, "a number above 0, or none", lambda x: x > 0)
        if self.tau is not None:
            number("tau", "a number above 0, at most 1, or none", lambda x: 0 < x <= 1)
        if self.epsilon_steps is not None:
            number("epsilon_steps", "0 or more, or none", lambda x: x >= 0)
        require(self.optimizer in ("adam", "rmsprop"), "optimizer", self.optimizer, "adam or rmsprop")
        require(self.loss in ("huber", "squared"), "loss", self.loss, "huber or squared")


def nature() -> DQNConfig:
    """The settings of Mnih et al. 2015, extended data table 1, in the units of Poise.

    A step is an agent step of four frames. The target network is copied every 10,000 agent steps, which are 2,500
    updates, as DeepMind's code has it; the table says 10,000 "parameter updates".
    """
    return DQNConfig(
        hidden=(512,), conv=NATURE, learning_rate=2.5e-4, optimizer="rmsprop", loss="huber", max_grad_norm=None,
        discount=0.99, batch_size=32, capacity=1_000_000, learning_starts=50_000, collect_steps=4, updates=1,
        target_every=2_500, epsilon_start=1.0, epsilon_end=0.1, epsilon_steps=1_000_000, double=False, reward_clip=1.0,
    )  # fmt: skip


def nature_2013() -> DQNConfig:
    """Algorithm 1 of Mnih et al. 2013 as printed: targets from the network itself, the squared error, the small
    network, an update with every step. What the paper does not say is as in `nature`."""
    return replace(
        nature(), hidden=(256,), conv=NATURE_2013, loss="squared", target_network=False, collect_steps=1
    )  # fmt: skip


class DQN:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: DQNConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
    ):
        """`planned_steps`: environment steps of the whole run over all worlds, for the schedules; 0 is unknown, and
        then they are over at once."""
        _require_choices(spec, config)
        self.spec, self.config, self.num_envs, self.device = spec, config, num_envs, torch.device(device)
        self.collect_steps = config.collect_steps
        self._planned_steps = planned_steps
        self._request = Sample(config.batch_size, n_step=config.n_step, discount=config.discount,
                               priority=config.priority_exponent if config.prioritized else 0.0)  # fmt: skip
        self._seen = spec.only([*spec.vectors, *spec.images])

        weights = torch.Generator().manual_seed(int(Stream(seed, "dqn/weights").integer(0, 0)[0]))
        self.rng = np.random.default_rng(int(Stream(seed, "dqn/draws").integer(0, 0)[0]))
        self.network, self.target = (
            QNetwork(spec, config.hidden, config.conv, config.dueling, weights, self.device, config.batch_size)
            for _ in range(2)
        )
        vector_dim = sum(spec.obs_dim(g) * spec.history(g) for g in spec.vectors)
        normalized = config.normalize_obs and vector_dim > 0
        self.normalizer = Normalizer(vector_dim, device=self.device) if normalized else None
        self._weights, self._target_weights = self.network.weights, self.target.weights
        self._copy_target()
        small = isinstance(self.network.head, SmallPerceptron)
        self._small = small and self.network.encoder is None and not config.dueling
        self.moments = zero_moments([self._weights])  # Adam's, or RMSProp's averages
        self._adam_steps = torch.zeros((), device=self.device)
        self.steps = 0  # environment steps acted for, over all worlds
        self.updates = 0

    @property
    def request(self) -> Sample:
        """What an update asks of the replay: the importance weights grow towards the end."""
        if not self.config.prioritized:
            return self._request
        importance = linear_schedule(self.steps, self.config.importance, 1.0, self._planned_steps)
        return replace(self._request, importance=importance)

    @property
    def epsilon(self) -> float:
        """Probability of a random action."""
        c = self.config
        if self.steps < c.learning_starts:
            return 1.0
        length = c.epsilon_fraction * self._planned_steps if c.epsilon_steps is None else c.epsilon_steps
        return linear_schedule(self.steps - c.learning_starts, c.epsilon_start, c.epsilon_end, length)

    def make_buffer(self) -> Replay:
        c = self.config
        changed = c.reward_scale != 1.0 or c.reward_clip is not None
        kind = _scaling_replay(c.reward_scale, c.reward_clip) if changed else Replay
        return kind(self.spec, self.num_envs, c.capacity, self.device)

    def updates_due(self, env_steps: int) -> int:
        """`updates` after every collect phase, once the random phase is over."""
        return self.config.updates if env_steps >= self.config.learning_starts else 0

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """The frames before the first, for tasks with a history."""
        dtypes = {"float32": torch.float32, "uint8": torch.uint8}
        return initial_history(self._seen, n, lambda shape, dtype: torch.zeros(shape, dtype=dtypes[dtype],
                                                                               device=self.device))  # fmt: skip

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """An epsilon-greedy choice (N, 1) int64 on the device of `obs`.

        Returns: the choice, nothing for the buffer to keep beside it, the next state.
        """
        n, epsilon = next(iter(obs.values())).shape[0], self.epsilon
        stacked, after = self._look(obs, state)
        explores = self.rng.random(n) < epsilon
        random = np.count_nonzero(explores)
        # numpy's draws are on the host, so a step at random costs no pass through the network
        drawn = torch.from_numpy(self.rng.integers(0, self.spec.choices, (n, 1))) if random else None
        if drawn is not None and random == n:
            return drawn, {}, after
        action = self.network.greedy(*self._inputs(stacked)).cpu()
        if drawn is not None:
            action = torch.where(torch.from_numpy(explores)[:, None], drawn, action)
        return action, {}, after

    def watch(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What `act` does apart from acting, for worlds that are acted in elsewhere."""
        return self._look(obs, state)[1]

    def acting(self) -> dict[str, Tensor]:
        """The network's weights and the normalizer."""
        statistics = {} if self.normalizer is None else self.normalizer.state_dict()
        return {"weights": self._weights, **{f"normalizer.{name}": t for name, t in statistics.items()}}

    def act_with(self, tensors: Mapping[str, Tensor]) -> None:
        self._weights.copy_(tensors["weights"])
        if self.normalizer is not None:
            names = self.normalizer.state_dict()
            self.normalizer.load_state_dict({name: tensors[f"normalizer.{name}"] for name in names})

    def _look(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """(observations stacked, the next state), which the normalizer takes in."""
        seen = obs if self.device.type == "cpu" else {g: obs[g].to(self.device) for g in self._seen.observations}
        stacked, after = stack_history(self._seen, seen, state) if state else (seen, state)
        vector = self._vector(stacked)
        if self.normalizer is not None and vector is not None:
            self.normalizer.update(vector)
        self.steps += next(iter(obs.values())).shape[0]
        return stacked, after

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One step on the loss, then on the target network where one is due."""
        if batch.mask is not None or batch.action.ndim != 2:
            masked = "a mask" if batch.mask is not None else "no mask"
            raise UsageError(f"dqn learns from single transitions, all of them real; got actions of shape "
                             f"{tuple(batch.action.shape)} and {masked}")  # fmt: skip
        # inference mode makes every call cheaper still, but autograd, which the encoder needs, cannot start inside it
        with torch.inference_mode() if self.network.encoder is None else torch.no_grad():
            gradient, metrics, error = self._small_gradient(batch) if self._small else self._gradient(batch)
            self._step(gradient)
            self._follow()
            metrics["epsilon"] = torch.full((), self.epsilon, device=self.device)
            if self.config.prioritized:
                metrics["priorities"] = priorities(error)
        return metrics

    def _gradient(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The gradient of all weights, metrics, and the errors y - Q(s, a) (B,)."""
        c = self.config
        after = self._inputs(batch.next_obs)
        source = self.target if c.target_network else self.network
        q_after = source.values(*after)
        chooser = self.network.values(*after) if c.double and c.target_network else None
        y = td_target(batch.reward, batch.terminated, next_value(q_after, chooser), c.discount, batch.steps)

        q, tape = self.network.recorded(*self._inputs(batch.obs))
        loss, d_q, error = q_loss(q, batch.action, y, batch.weight, c.loss == "huber")
        gradient = self.network.gradient(tape, d_q)
        if c.max_grad_norm is not None:
            gradient[None].renorm_(2, 0, c.max_grad_norm)  # of one row, all of it; a NaN stays one
        return gradient, {"critic/loss": loss, "critic/q": q.mean()}, error

    def _small_gradient(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor], Tensor]:
        """The same for a small perceptron on the CPU."""
        c, (obs, _), (next_obs, _) = self.config, self._inputs(batch.obs), self._inputs(batch.next_obs)
        network, target = self.network.head, self.target.head if c.target_network else self.network.head
        assert isinstance(network, SmallPerceptron) and isinstance(target, SmallPerceptron)
        assert obs is not None and next_obs is not None
        loss, q, error = small_gradient(
            network, target, obs.numpy(), next_obs.numpy(), batch, c.discount, c.double and c.target_network,
            c.loss == "huber", c.max_grad_norm,
        )  # fmt: skip
        metrics = {"critic/loss": torch.from_numpy(np.asarray(loss)), "critic/q": torch.from_numpy(np.asarray(q))}
        return network.flat_gradient, metrics, torch.from_numpy(error)

    def policy(self) -> Policy:
        """The greedy policy, as a detached copy."""
        document, tensors = self.network.document(), dict(self.network.tensors())
        if self.normalizer is not None:
            document["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self.normalizer.mean32, self.normalizer.std32
        return Policy(self.spec, "dqn", document, tensors)

    def _step(self, gradient: Tensor) -> None:
        c = self.config
        rate = c.learning_rate
        if c.anneal and self._planned_steps > 0:
            rate = linear_schedule(self.steps, rate, 0.0, self._planned_steps)
        if c.optimizer == "adam":
            self._adam_steps.add_(1.0)
            adam_([self._weights], [gradient], self.moments, self._adam_steps, rate)
        else:  # the gradient is the batch's mean here, and its square smaller by B^2
            centred_rmsprop_([self._weights], [gradient], self.moments, rate,
                             RMSPROP_MIN_SQUARE / c.batch_size**2)  # fmt: skip
        self.updates += 1

    def _follow(self) -> None:
        """Move the target network."""
        if self.config.tau is not None:
            self._target_weights.lerp_(self._weights, self.config.tau)
        elif self.updates % self.config.target_every == 0:
            self._copy_target()

    def _copy_target(self) -> None:
        self._target_weights.copy_(self._weights)

    def _inputs(self, obs: Mapping[str, Tensor]) -> tuple[Tensor | None, Tensor | None]:
        """(vector (B, O) normalized, picture) of stacked observations, as the network takes them."""
        vector = self._vector(obs)
        if self.normalizer is not None and vector is not None:
            vector = self.normalizer(vector)
        return vector, None if self.network.camera is None else obs[self.network.camera]

    def _vector(self, obs: Mapping[str, Tensor]) -> Tensor | None:
        if len(self.network.vectors) < 2:
            return obs[self.network.vectors[0]] if self.network.vectors else None
        return torch.cat([obs[g] for g in self.network.vectors], -1)

    # ---- exact resume ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "tensors": [t.clone() for t in self._tensors()],
            "rng": self.rng.bit_generator.state,
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "steps": self.steps,
            "updates": self.updates,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for tensor, saved in zip(self._tensors(), state["tensors"], strict=True):
            tensor.copy_(saved)  # in place: acting holds on to views of these very tensors
        self.rng.bit_generator.state = state["rng"]
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        self.steps, self.updates = state["steps"], state["updates"]

    def _tensors(self) -> list[Tensor]:
        return [self._weights, self._target_weights, *self.moments[0], *self.moments[1], self._adam_steps]


def _require_choices(spec: Spec, config: DQNConfig) -> None:
    """Raise UsageError where a task is not one for a Q-network with these settings."""
    if not spec.choices:
        found = "several choices at once" if spec.discrete else "continuous; use ppo or sac there"
        raise UsageError(f"dqn chooses one of n actions, and this task's are {found}")
    if not (spec.vectors or spec.images):
        raise UsageError(f"dqn finds nothing to see in this task; it has {', '.join(spec.observations) or 'no groups'}")
    if len(spec.images) > 1:
        raise UsageError(f"dqn sees one camera, and this task has {', '.join(spec.images)}")
    if spec.images and not config.conv:
        raise UsageError(f"the camera {spec.images[0]!r} needs convolutions: use the recipe dqn/nature, "
                         "or --set conv=[32,8,4],[64,4,2],[64,3,1]")  # fmt: skip
    if spec.images:
        for (_, height, width), (_, kernel, _) in zip(feature_maps(stacked_shape(spec, spec.images[0]), config.conv),
                                                      config.conv, strict=False):  # fmt: skip
            if kernel > min(height, width):
                raise UsageError(f"setting conv = {config.conv}: a kernel of {kernel} meets a picture of "
                                 f"{height} x {width}; use smaller kernels or strides")  # fmt: skip


def _scaling_replay(scale: float, bound: float | None) -> type[Replay]:
    """A replay that scales and bounds every reward as it comes in: before n of them are summed."""
    limit = math.inf if bound is None else bound

    class ScalingReplay(Replay):
        def add(self, obs: Mapping[str, Tensor], action: Tensor, extras: Mapping[str, Tensor], step: Step) -> None:
            super().add(obs, action, extras, replace(step, reward=(scale * step.reward).clamp(-limit, limit)))

    return ScalingReplay
