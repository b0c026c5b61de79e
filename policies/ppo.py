"""PPO: proximal policy optimization with the clipped objective or a KL penalty, for continuous and discrete actions.

Schulman et al. 2017 (arXiv 1707.06347), with GAE (arXiv 1506.02438), the details of Huang et al. 2022 ("The 37
implementation details of PPO") that matter for control, and a learning rate that can follow the KL divergence of the
update. The settings are in ppo_config.py, the equations in ppo_losses.py, the gradient step in ppo_update.py and,
with an LSTM or a camera, in ppo_sequence.py.

Legend: N worlds, T time, B rows, A action, D observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from ..batch import Batch, Sample
from ..datasets.rollout import Rollout
from ..history import PREFIX as HISTORY
from ..history import initial_history, stack_history, stacked_shape
from ..keyed import Stream
from ..normalizer import Normalizer
from ..spec import Spec
from .distributions import categorical_sample
from .network_document import check_network
from .parallel import ALONE, Group, pool_of
from .policy import Policy
from .ppo_config import PPOConfig, check_task
from .ppo_device import Graphs
from .ppo_losses import Rates, Rows, Rule, adapt_penalty
from .ppo_sequence import Modules, Sequences
from .ppo_update import METRICS, Data, Perceptrons, Seen
from .return_normalizer import ReturnNormalizer
from .returns import gae

PRIVILEGED = "privileged"  # the observation group that the critic reads beside the actor's


class PPO:
    """The learner; see `Learner` for the contract."""

    def __init__(
        self,
        spec: Spec,
        config: PPOConfig,
        num_envs: int,
        seed: int,
        device: torch.device | str = "cpu",
        planned_steps: int = 0,
        group: Group = ALONE,
    ):
        """`planned_steps`: environment steps of the whole run over all worlds, for annealing; 0 is unknown.

        group: the processes that train together, each on a rollout of its own `num_envs` worlds.
        """
        check_task(spec, config, num_envs, planned_steps)
        self.spec, self.config, self.num_envs = spec, config, num_envs
        self.device, self.planned_steps, self._group = torch.device(device), planned_steps, group
        self.collect_steps = config.collect_steps
        self.request = Sample(batch_size=0, length=config.collect_steps)
        self.rule = Rule(
            config.objective, config.clip, config.value_coef, config.entropy_coef, config.max_grad_norm,
            config.target_kl, config.min_learning_rate, config.max_learning_rate,
        )  # fmt: skip

        self.camera = spec.images[0] if spec.images else None
        self.groups = spec.vectors  # what the actor reads; the critic reads what only training knows, too
        self.critic_groups = (*self.groups, *(g for g in spec.observations if g == PRIVILEGED))
        self._frames = spec.only([*self.critic_groups, *spec.images])
        self._has_history = any(spec.history(g) > 1 for g in self._frames.observations)
        self._seen, known = (
            sum(stacked_shape(spec, g)[-1] for g in groups) for groups in (self.groups, self.critic_groups)
        )
        self.document = self._network_document()
        weights = torch.Generator().manual_seed(int(Stream(seed, "ppo/weights").integer(0, 0)[0]))
        self.generator = torch.Generator(self.device).manual_seed(
            int(Stream(seed, "ppo/draws").integer(group.rank, 0)[0])
        )
        log_std = None if spec.discrete else config.log_std
        if config.lstm or self.camera:
            check_network(self.document, spec.for_policy_file(), "ppo")
            length = (config.sequence or config.collect_steps) if config.lstm else 1
            self.networks: Perceptrons | Modules = Modules(
                spec, self.document, self.critic_groups, length, log_std, weights, self.device, group
            )
        else:
            self.networks = Perceptrons(
                self._seen, known, spec.choices or spec.action_dim, config.hidden, config.activation, log_std,
                weights, self.device, group,
            )  # fmt: skip
        self.networks.learn_noise = config.final_log_std is None
        self.normalizer = self.returns = None
        if config.normalize_obs and known:
            self.normalizer = Normalizer(known, device=self.device, pool=pool_of(group))
        if config.normalize_returns:
            self.returns = ReturnNormalizer(num_envs, config.discount, self.device, pool_of(group))
        rate = torch.tensor(config.learning_rate, device=self.device)
        self.rates = Rates(rate, rate.clone(), rate.clone(), torch.tensor(config.penalty, device=self.device))
        self.steps = 0  # environment steps learned from, over all worlds
        self._noise: list[Tensor] = []  # of the rest of the rollout, last first
        self._std = torch.empty_like(self.networks.log_std)
        self._graphs: Graphs | None = None  # where the worlds share the learner's device
        group.agree_(list(self._tensors().values()))
        self._refresh()

    def make_buffer(self, on_device: bool = False) -> Rollout:
        """on_device: whether the worlds' tensors lie on the learner's device, so that the host need not look at any."""
        self._graphs = Graphs(self, record=self._group.size == 1) if on_device else None
        return Rollout(self.spec, self.num_envs, self.collect_steps, self.device)

    def updates_due(self, env_steps: int) -> int:
        """One update after every collect phase."""
        return 1

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """Earlier frames, where the task has a history, and what LSTMs of actor and critic remember."""

        def zeros(shape: tuple[int, ...], dtype: str) -> Tensor:
            return torch.zeros(shape, dtype=getattr(torch, dtype), device=self.device)

        return {**initial_history(self._frames, n, zeros), **self.networks.initial_state(n)}

    def act(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """A draw of the policy.

        Returns:
            action (N, A) in [-1, 1], clipped for the world, or choices (N, 1) int64, on the device of `obs`; for the
            buffer `state`, and of a continuous action `raw_action` (N, A), unclipped as the ratio needs it; the next
            state. Its probability is not kept: `update` computes it with the values, in one large batch for less.
        """
        return self.explore(obs, state) if self._graphs is None else self._graphs.act(obs, state)

    def explore(self, obs: Mapping[str, Tensor], state: Mapping[str, Tensor]):
        """What `act` returns, by tensors alone."""
        frames, after = stack_history(self._frames, obs, state) if self._has_history else (obs, {})
        seen = self._see(frames, self.critic_groups if self.config.lstm else self.groups, state)
        out, memory = self.networks.act(seen)
        home = next(iter(obs.values())).device
        if self.spec.discrete:
            if self._graphs is None:
                choice = torch.multinomial(torch.softmax(out, -1), 1, generator=self.generator)
            else:  # which waits for the device
                choice = categorical_sample(out, self.generator)
            return choice.to(home), dict(state), {**after, **memory}
        raw_action = torch.addcmul(out, self._std, self._next_noise(out))
        return raw_action.clamp(-1.0, 1.0).to(home), {"raw_action": raw_action, **state}, {**after, **memory}

    def _next_noise(self, out: Tensor) -> Tensor:
        """Standard normal numbers like `out` (N, A), drawn for a whole rollout at a time, since a call costs more."""
        if self._graphs is not None:
            return torch.randn(out.shape, generator=self.generator, device=self.device)
        if not self._noise or self._noise[-1].shape != out.shape:
            shape = (self.collect_steps, *out.shape)
            self._noise = list(torch.randn(shape, generator=self.generator, device=self.device).unbind())
        return self._noise.pop()

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """Several epochs of policy improvement and value regression on one rollout (N, T)."""
        config, networks = self.config, self.networks
        high = config.max_learning_rate if config.target_kl > 0 else config.learning_rate
        self.rates.bound.fill_(high * (1.0 - config.anneal * self._progress()))
        metrics = self.learn(batch) if self._graphs is None or batch.mask is not None else self._graphs.learn(batch)

        self._noise.clear()
        self.steps += batch.reward.numel() * self._group.size
        if config.final_log_std is not None and networks.gaussian:
            scheduled = config.log_std + (config.final_log_std - config.log_std) * self._progress()
            networks.log_std.fill_(scheduled)
        if networks.gaussian:
            metrics["policy/log_std"] = networks.log_std.mean()
        self._refresh()
        return metrics

    def learn(self, batch: Batch) -> dict[str, Tensor]:
        """The epochs of `update`, and the normalizer's, by tensors alone."""
        config, networks, rates = self.config, self.networks, self.rates
        data, metrics = self._prepare(batch)
        old_log_std = networks.log_std.clone()
        sums, count = torch.zeros(len(METRICS), device=self.device), 0
        for _ in range(config.epochs):
            for part in networks.minibatches(data, config.minibatches, self.generator):  # type: ignore[arg-type]
                sums += networks.step(part, old_log_std, self.rule, rates, count == 0)  # type: ignore[arg-type]
                count += 1
        # a gradient that is not finite shows in its norm, so the loop that looks at metrics stops before saving
        metrics |= zip(METRICS, (sums / count).unbind(), strict=True)
        metrics |= self._after(data, old_log_std)
        if self.normalizer is not None:  # after the update, so that acting and the old log_prob saw the same inputs
            self.normalizer.update(self._concatenated(self._stacked(batch), self.critic_groups), batch.mask)
        return metrics

    def policy(self) -> Policy:
        """The mean action clipped to [-1, 1], or the likeliest choice, as a detached copy."""
        document, tensors = dict(self.document), self.networks.actor_tensors()
        if self.normalizer is not None and self.groups:
            document["normalizer_clip"] = self.normalizer.clip
            tensors["normalizer.mean"], tensors["normalizer.std"] = self._statistics
        # the critic's unit, for whoever goes on learning from this file; acting does not need it
        scale = {} if self.returns is None else {"reward_scale": self.returns.scale.item()}
        return Policy(self.spec, "ppo", document, tensors, provenance=scale)

    def _network_document(self) -> dict[str, Any]:
        """The actor's network as the policy file describes it, but for the normalizer."""
        config = self.config
        document: dict[str, Any] = {
            "kind": "mlp", "groups": list(self.groups), "hidden": list(config.hidden),
            "activation": config.activation, "head": "argmax" if self.spec.discrete else "clip",
        }  # fmt: skip
        if config.lstm:
            document["lstm"] = config.lstm
        if self.camera is not None:
            layers = [list(layer) for layer in config.conv]
            document["conv"] = {"group": self.camera, "layers": layers, "activation": "relu"}
            if config.image_features:
                document["conv"]["features"] = config.image_features
        return document

    # ---- one update --------------------------------------------------------------------------------------------

    def _prepare(self, batch: Batch) -> tuple[Data | Sequences, dict[str, Tensor]]:
        """The rollout as the networks learn from it, with advantages and value targets, and metrics of the critic.

        The value of a successor is that of the next observation, but where the episode ended or the rollout did.
        """
        networks, (n, t) = self.networks, batch.reward.shape
        frames = self._stacked(batch)
        memory = {name: batch.extras[name].flatten(0, 1) for name in networks.initial_state(0)}
        seen = self._see({g: x.flatten(0, 1) for g, x in frames.items()}, self.critic_groups, memory)
        out, value, remembered = networks.evaluate(seen)
        value = value.view(n, t)
        ends = batch.done.clone()
        ends[:, -1].fill_(True)
        next_value = value.roll(-1, 1)
        if self._graphs is None:  # those few are evaluated on their own
            world, step = ends.nonzero(as_tuple=True)
            next_value[world, step] = self._successors(batch, world * t + step, remembered)
        else:  # which are few would have to be asked
            everywhere = torch.arange(n * t, device=self.device)
            next_value = torch.where(ends, self._successors(batch, everywhere, remembered).view(n, t), next_value)

        reward, metrics = batch.reward, {}
        if self.returns is not None:
            self.returns.update(reward, batch.done, batch.mask)
            reward = self.returns(reward)
            metrics["reward/scale"] = self.returns.scale[0].clone()
        advantage = gae(reward, value, next_value, batch.terminated, batch.truncated,
                        self.config.discount, self.config.gae_lambda, batch.mask)  # fmt: skip

        action = (batch.action[..., 0] if self.spec.discrete else batch.extras["raw_action"]).flatten(0, 1)
        old_log_prob = networks.distribution(out, networks.log_std).log_prob(action)[0]
        rows = Rows(action, out, old_log_prob, advantage.flatten(), (advantage + value).flatten())
        data = networks.arrange(seen, rows, batch.done, batch.mask)
        error, target, weight = data.rows.advantage, data.rows.value_target, data.weight
        spread = self._variance(target, weight).clamp_min(1e-12)
        metrics["critic/explained_variance"] = 1.0 - self._variance(error, weight) / spread
        scale = 1.0 if self.returns is None else self.returns.scale[0]
        metrics["critic/value"] = self._group.mean(torch.dot(target - error, weight)) * scale
        return data, metrics

    def _successors(self, batch: Batch, rows: Tensor, remembered: Mapping[str, Tensor]) -> Tensor:
        """Values (B,) of the true successors at some rows (of N T), with what was remembered by then."""
        seen = {g: x.flatten(0, 1)[rows] for g, x in batch.next_obs.items() if g in self._frames.observations}
        if self._has_history:
            _, earlier = stack_history(self._frames, *self._frame_and_history(batch, rows))
            seen, _ = stack_history(self._frames, seen, earlier)
        memory = {name: x[rows] for name, x in remembered.items()}
        return self.networks.values(self._see(seen, self.critic_groups, memory))

    def _after(self, data: Data | Sequences, old_log_std: Tensor) -> dict[str, Tensor]:
        """Metrics of the finished update over its whole batch, and what follows from its divergence."""
        networks, rates, (rows, weight) = self.networks, self.rates, (data.rows, data.weight)
        new = networks.distribution(networks.outputs(data), networks.log_std)  # type: ignore[arg-type]
        old = networks.distribution(rows.old, old_log_std)
        divergence = self._group.mean(torch.dot(new.kl(old), weight))  # type: ignore[arg-type]
        outside = (torch.exp(new.log_prob(rows.action)[0] - rows.old_log_prob) - 1.0).abs() > self.config.clip
        metrics = {
            "policy/kl": divergence,
            "policy/clip_fraction": self._group.mean(torch.dot(outside.to(weight.dtype), weight)),
            "policy/entropy": self._group.mean(torch.dot(new.entropy(), weight)),
            "learning_rate": rates.step_size.clone(),
        }
        if self.rule.penalized:
            metrics["policy/penalty"] = rates.penalty.clone()
        if self.config.objective == "adaptive_kl":
            rates.penalty.copy_(adapt_penalty(rates.penalty, divergence, self.config.penalty_kl))
        return metrics

    def _variance(self, x: Tensor, weight: Tensor) -> Tensor:
        """Of the values (B,) of all processes; weights sum to one in the mean over them."""
        mean = self._group.mean(torch.dot(x, weight))
        return self._group.mean(torch.dot((x - mean).square(), weight))

    def _progress(self) -> float:
        """How much of the planned run lies behind: 0 to 1."""
        return min(1.0, self.steps / self.planned_steps) if self.planned_steps else 0.0

    def _stacked(self, batch: Batch) -> dict[str, Tensor]:
        """Everything that the networks read of a rollout, frames stacked: group -> (N, T, ...)."""
        obs = {g: x.to(self.device) for g, x in batch.obs.items() if g in self._frames.observations}
        return stack_history(self._frames, obs, batch.extras)[0] if self._has_history else obs

    def _frame_and_history(self, batch: Batch, rows: Tensor) -> tuple[dict, dict]:
        """The newest frames and the earlier ones at some rows (of N T) of a rollout."""
        groups = self._frames.observations
        earlier = {name: x.flatten(0, 1)[rows] for name, x in batch.extras.items() if name.startswith(HISTORY)}
        return {g: batch.obs[g].flatten(0, 1)[rows] for g in groups}, earlier

    def _see(self, frames: Mapping[str, Tensor], groups: tuple[str, ...], memory: Mapping[str, Tensor]) -> Seen:
        """What the networks read of stacked frames (B, ...)."""
        vector = self._normalized(self._concatenated(frames, groups).to(self.device)) if groups else None
        image = None if self.camera is None else frames[self.camera].to(self.device)
        return Seen(vector, image, memory)

    def _concatenated(self, obs: Mapping[str, Tensor], groups: tuple[str, ...]) -> Tensor:
        """The vector groups side by side: (..., D)."""
        return obs[groups[0]] if len(groups) == 1 else torch.cat([obs[g] for g in groups], -1)

    def _normalized(self, x: Tensor) -> Tensor:
        """x (..., D) as the networks read it: what the critic reads, or the actor's part of it."""
        if self.normalizer is None:
            return x
        if x.shape[-1] != self._seen:
            return self.normalizer(x)
        mean, std = self._statistics
        return ((x - mean) / std).clamp(-self.normalizer.clip, self.normalizer.clip)

    def _refresh(self) -> None:
        """What acting reads, derived from what has just changed."""
        torch.exp(self.networks.log_std, out=self._std)  # in place: a CUDA graph reads this very tensor
        if self.normalizer is not None:
            self._statistics = self.normalizer.mean32[: self._seen], self.normalizer.std32[: self._seen]

    # ---- exact resume ------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next `act` and `update` depend on."""
        return {
            "networks": {name: tensor.clone() for name, tensor in self._tensors().items()},
            "generator": self.generator.get_state(),
            "noise": torch.stack(self._noise) if self._noise else torch.empty(0),
            "normalizer": {} if self.normalizer is None else self.normalizer.state_dict(),
            "returns": {} if self.returns is None else self.returns.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, tensor in self._tensors().items():
            tensor.copy_(state["networks"][name])  # in place: views and graphs hold on to these very tensors
        self.generator.set_state(state["generator"].cpu())
        self._noise = list(state["noise"].to(self.device).unbind())
        if self.normalizer is not None:
            self.normalizer.load_state_dict(state["normalizer"])
        if self.returns is not None:
            self.returns.load_state_dict(state["returns"])
        self.steps = int(state["steps"])
        self._refresh()

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor that an update changes, by name."""
        rates = {"learning_rate": self.rates.learning_rate, "penalty": self.rates.penalty}
        return {**self.networks.tensors(), **rates}
