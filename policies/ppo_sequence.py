"""PPO's gradient step on modules: LSTMs and cameras, by autograd, with the losses of ppo_losses.py.

Actor and critic are networks of their own, each with its own encoder and LSTM: nothing of the critic reaches the policy
file, and each gradient is clipped on its own. What they remember before every step is kept with the rollout. So values
and probabilities of the policy that acted come from one pass over all steps side by side; the value of a true
successor uses the memory after the step, also where time ran out in the middle of the rollout. Learning goes through
sequences of `length` steps from the memory that was kept at their first, forgetting where an episode ended inside;
rows that are no transition have weight zero. Without an LSTM a sequence is a single step.

Legend: N worlds, T time, S sequences of L steps, B = S L rows, D vector, A outputs of the actor, H units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..spec import Spec
from .adam import adam_, clip_norm_, zero_moments
from .network_document import LSTM_STATE, layer_sizes, vector_dim
from .networks import LSTMState, PolicyNetwork, initialize_, mlp
from .parallel import ALONE, Group
from .ppo_losses import (
    Categorical,
    Distribution,
    Gaussian,
    Rates,
    Rows,
    Rule,
    choose_step_size_,
    critic_loss,
    policy_loss,
    standardize,
)
from .ppo_update import ADAM_EPSILON, Seen

CRITIC_STATE = ("critic.h", "critic.c")


class Sequences(NamedTuple):
    """A rollout, or a part of it, as S sequences of L steps."""

    seen: Seen  # (S, L, ...), but what is remembered, which is that at the first step: (S, H)
    starts: Tensor  # (S, L) where an episode begins inside a sequence
    rows: Rows  # (S L, ...)
    weight: Tensor  # (S L,) sums to one in the mean over the processes


class Modules:
    """Actor and critic as modules, the noise, and Adam's moments; the passes over them."""

    def __init__(
        self,
        spec: Spec,
        document: Mapping[str, Any],
        critic_groups: Sequence[str],
        length: int,
        log_std: float | None,
        generator: torch.Generator,
        device: torch.device,
        group: Group = ALONE,
    ):
        """document: the actor's network, as the policy file has it; length: steps of a training sequence."""
        self.actor_inputs, self.length, self.gaussian, self.learn_noise = (
            vector_dim(spec, document), length, log_std is not None, True,
        )  # fmt: skip
        self._group = group
        known = {**document, "groups": list(critic_groups)}
        self.actor, self.critic = PolicyNetwork(spec, document), PolicyNetwork(spec, known)
        self.critic.actor = mlp([*layer_sizes(spec, known)[:-1], 1], document["activation"])
        # a small last layer starts near the mean action 0 (Huang et al. 2022, detail 2)
        initialize_(self.actor, generator, 0.01).to(device)
        initialize_(self.critic, generator, 1.0).to(device)
        noise = 0 if log_std is None else spec.action_dim
        self.log_std = torch.full((noise,), log_std or 0.0, device=device)
        self._of_actor, self._of_critic = list(self.actor.parameters()), list(self.critic.parameters())
        self.params: list[Tensor] = [*self._of_actor, self.log_std, *self._of_critic]
        self._moments = zero_moments([p.detach() for p in self.params])
        self._steps = torch.zeros((), device=device)

    # ---- passes ------------------------------------------------------------------------------------------------

    def distribution(self, out: Tensor, log_std: Tensor) -> Distribution:
        """What the actor's outputs (B, A) mean."""
        return Gaussian(out, log_std) if self.gaussian else Categorical(out)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        """What both networks remember at the start of an episode."""
        if self.actor.core is None or self.critic.core is None:
            return {}
        values = (*self.actor.core.initial_state(n), *self.critic.core.initial_state(n))
        return dict(zip((*LSTM_STATE, *CRITIC_STATE), values, strict=True))

    @torch.no_grad()
    def act(self, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's outputs (N, A), and what both networks remember next."""
        out, after = self._of_step(self.actor, seen, LSTM_STATE)
        if after is None:
            return out, {}
        _, of_critic = self._of_step(self.critic, seen, CRITIC_STATE)
        assert of_critic is not None
        return out, dict(zip((*LSTM_STATE, *CRITIC_STATE), (*after, *of_critic), strict=True))

    @torch.no_grad()
    def evaluate(self, seen: Seen) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The actor's outputs (B, A), the values (B,), and what the critic remembers after these steps."""
        out, _ = self._of_step(self.actor, seen, LSTM_STATE)
        value, after = self._of_step(self.critic, seen, CRITIC_STATE)
        return out, value[:, 0], dict(zip(CRITIC_STATE, after or (), strict=False))

    @torch.no_grad()
    def values(self, seen: Seen) -> Tensor:
        """The values (B,)."""
        return self._of_step(self.critic, seen, CRITIC_STATE)[0][:, 0]

    @torch.no_grad()
    def outputs(self, data: Sequences) -> Tensor:
        """The actor's outputs (B, A)."""
        return self._of_sequence(self.actor, data, LSTM_STATE)

    def _of_step(self, network: PolicyNetwork, seen: Seen, names: Sequence[str]) -> tuple[Tensor, LSTMState | None]:
        """Outputs (B, .) and what the LSTM remembers next."""
        return network(self._vector(network, seen), seen.image, _memory(seen, names))

    def _of_sequence(self, network: PolicyNetwork, data: Sequences, names: Sequence[str]) -> Tensor:
        """Outputs (B, .) of every step of the sequences, in order."""
        x = network.features(self._vector(network, data.seen), data.seen.image)  # (S, L, F)
        memory = _memory(data.seen, names)
        if network.core is not None and memory is not None:
            x, _ = network.core.sequence(x, memory, data.starts)
        return network.actor(x).flatten(0, 1)

    def _vector(self, network: PolicyNetwork, seen: Seen) -> Tensor | None:
        """The part of the vector that a network reads."""
        return seen.vector if seen.vector is None or network is self.critic else seen.vector[..., : self.actor_inputs]

    # ---- learning ----------------------------------------------------------------------------------------------

    def arrange(self, seen: Seen, rows: Rows, done: Tensor, mask: Tensor | None) -> Sequences:
        """A rollout (N T, ...) in sequences; done (N, T), mask (N, T) or None."""
        starts = torch.zeros_like(done)
        starts[:, 1:] = done[:, :-1]
        starts = starts.view(-1, self.length)
        starts[:, 0] = False  # what is remembered there began anew already
        weight = torch.ones_like(rows.advantage) if mask is None else mask.flatten().to(rows.advantage.dtype)
        vector, image = (None if x is None else x.unflatten(0, (-1, self.length)) for x in (seen.vector, seen.image))
        memory = {name: x[:: self.length] for name, x in seen.memory.items()}
        return Sequences(Seen(vector, image, memory), starts, rows, weight / self._group.mean(weight.sum()))

    def minibatches(self, data: Sequences, count: int, generator: torch.Generator) -> Iterator[Sequences]:
        """The sequences in a new order, in `count` parts with advantages standardized."""

        def of_rows(x: Tensor, index: Tensor) -> Tensor:
            return x.unflatten(0, (-1, self.length))[index].flatten(0, 1)

        vector, image, memory = data.seen
        order = torch.randperm(len(data.starts), generator=generator, device=data.starts.device)
        for index in order.split(-(-len(order) // count)):
            rows, weight = Rows(*(of_rows(x, index) for x in data.rows)), of_rows(data.weight, index)
            weight = weight / self._group.mean(weight.sum()).clamp_min(1e-12)  # all zero where no row is a transition
            rows = rows._replace(advantage=standardize(rows.advantage, weight, self._group))
            seen = Seen(
                None if vector is None else vector[index],
                None if image is None else image[index],
                {name: x[index] for name, x in memory.items()},
            )
            yield Sequences(seen, data.starts[index], rows, weight)

    def step(self, part: Sequences, old_log_std: Tensor, rule: Rule, rates: Rates, first: bool) -> Tensor:
        """One gradient step, in place; its metrics (METRICS of ppo_update) as they were before it."""
        with torch.enable_grad():
            out = self._of_sequence(self.actor, part, LSTM_STATE)
            value = self._of_sequence(self.critic, part, CRITIC_STATE)
        new = self.distribution(out.detach(), self.log_std)
        old = self.distribution(part.rows.old, old_log_std)
        actor = policy_loss(new, old, part.rows, part.weight, rule, rates.penalty)
        value_loss, d_value = critic_loss(value.detach()[:, 0], part.rows, part.weight, rule)
        of_actor = list(torch.autograd.grad(out, self._of_actor, actor.gradient[0]))
        of_critic = list(torch.autograd.grad(value, self._of_critic, d_value[:, None]))
        learns = self.gaussian and self.learn_noise
        of_actor.append(actor.gradient[1] if learns else torch.zeros_like(self.log_std))

        divergence = torch.zeros_like(actor.loss) if actor.kl is None else actor.kl
        beside = [divergence, actor.loss, value_loss]
        self._group.mean_([*of_actor, *of_critic, *beside])
        choose_step_size_(rates, rule, divergence, first)
        # apart, so that a critic far from its targets does not shrink the actor's step
        norms = [clip_norm_(gradient, rule.max_grad_norm) for gradient in (of_actor, of_critic)]
        self._steps.add_(1.0)
        with torch.no_grad():
            adam_(self.params, of_actor + of_critic, self._moments, self._steps, rates.step_size, ADAM_EPSILON)
        return torch.stack([*beside[1:], *norms])

    # ---- what is kept ------------------------------------------------------------------------------------------

    def actor_tensors(self) -> dict[str, Tensor]:
        """The actor as the policy file has it."""
        return self.actor.tensors()

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step changes, by name."""
        lists = {"parameter": self.params, "first_moment": self._moments[0], "second_moment": self._moments[1]}
        return {f"{name}.{i}": t.detach() for name, x in lists.items() for i, t in enumerate(x)} | {
            "steps": self._steps
        }


def _memory(seen: Seen, names: Sequence[str]) -> LSTMState | None:
    h, c = names
    return (seen.memory[h], seen.memory[c]) if h in seen.memory else None
