"""PPO's gradient step on perceptrons, by hand: actor and critic side by side, in one flat buffer.

Both networks have the same hidden layers, so they are two stacked perceptrons (stacked_mlp.py): every product serves
both. Where the critic reads more than the actor, or puts out less, the other's columns are padded with zeros, whose
weights then have no gradient. All parameters lie in one buffer, their gradient and Adam's moments in others, so norm,
clipping and Adam are a handful of calls however many layers there are. `step` is flat, without a branch on data and
without a look from the host, so that a CUDA graph can take it whole.

Legend: N worlds, T time, B rows, D inputs, A outputs of the actor, P parameters.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..cuda_graph import Function, captured
from .adam import adam_
from .networks import initialize_, linear_layers, mlp
from .parallel import ALONE, Group, even_parts
from .perceptron import SMALL_LAYER
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
    standardize_parts,
)
from .stacked_mlp import Params, Workspace, forward, parameter_gradient, shapes

ADAM_EPSILON = 1e-5  # Huang et al. 2022, detail 3
ACTOR, CRITIC = 0, 1
KEPT_SIZES = 4  # of minibatches, whose workspaces are kept
METRICS = ("policy/loss", "critic/loss", "policy/grad_norm", "critic/grad_norm")  # of a step


class Seen(NamedTuple):
    """What the networks read of B steps."""

    vector: Tensor | None  # (B, D) normalized: what the actor reads, then what the critic alone does
    image: Tensor | None  # (B, height, width, channels) uint8
    memory: Mapping[str, Tensor]  # what an LSTM remembers, (B, H) each


class Data(NamedTuple):
    """A rollout, or a part of it, as rows."""

    x: Tensor  # (B, D), or (2, B, D) where actor and critic read different things
    rows: Rows
    weight: Tensor  # (B,) equal, and summing to one in the mean over the processes


class Perceptrons:
    """Actor, critic and noise, and all that Adam changes, as views of flat buffers; and the passes over them."""

    def __init__(
        self,
        actor_inputs: int,
        critic_inputs: int,
        outputs: int,
        hidden: Sequence[int],
        activation: str,
        log_std: float | None,
        generator: torch.Generator,
        device: torch.device,
        group: Group = ALONE,
    ):
        """`outputs` of the actor are means, with a `log_std` to start from, or logits, with none."""
        self.actor_inputs, self.critic_inputs, self.activation = actor_inputs, critic_inputs, activation
        self.gaussian, self.learn_noise, self._group = log_std is not None, True, group
        sizes = shapes(2, [critic_inputs, *hidden, outputs])
        noise = outputs if self.gaussian else 0
        lengths = [a * b * c for a, b, c in sizes] + [noise]

        self.flat = torch.zeros(sum(lengths), device=device)
        self._squares, self.first, self.second = (torch.zeros_like(self.flat) for _ in range(3))
        # the gradient, then what is averaged over the processes with it: divergence and both losses
        self._exchanged = torch.zeros(len(self.flat) + 3, device=device)
        self.gradient, self._beside = self._exchanged[:-3], self._exchanged[-3:]
        self.steps = torch.zeros((), device=device)  # made by Adam
        *weights, self.log_std = self.flat.split(lengths)
        *gradients, self.d_log_std = self.gradient.split(lengths)
        self.params: Params = [x.view(s) for x, s in zip(weights, sizes, strict=True)]
        self.actor: Params = [p[:CRITIC] for p in self.params]
        self.critic: Params = [p[CRITIC:] for p in self.params]
        self._gradients: Params = [x.view(s) for x, s in zip(gradients, sizes, strict=True)]
        self._layers = [(w[ACTOR], b[ACTOR]) for w, b in zip(self.params[::2], self.params[1::2], strict=True)]
        self._layers[0] = self._layers[0][0][:actor_inputs], self._layers[0][1]  # the rest belongs to the critic
        self._largest = max(w.numel() for w, _ in self._layers)
        self._arrays: list[tuple[np.ndarray, np.ndarray]] = []  # the same memory, for small layers on a CPU
        if device.type == "cpu" and activation != "elu":
            *first, (weight, bias) = self._layers
            self._arrays = [(w.numpy(), b.numpy()) for w, b in (*first, (weight.T, bias))]
        self._graphs: dict[int, Function] = {}  # by the rows of a minibatch
        self._work: dict[int, tuple[Workspace, Tensor, Tensor, Tensor, Tensor]] = {}

        self.part = torch.zeros(2, sum(lengths), device=device)  # (2, P) which network a parameter belongs to
        *parts, of_noise = self.part.split(lengths, dim=1)
        for x, s in zip(parts, sizes, strict=True):
            for k in (ACTOR, CRITIC):
                x[k].view(s)[k] = 1.0
        of_noise[ACTOR] = 1.0
        if log_std is not None:
            self.log_std.fill_(log_std)
        # a small last layer starts near the mean action 0 (Huang et al. 2022, detail 2)
        self._set(ACTOR, initialize_(mlp([actor_inputs, *hidden, outputs], activation), generator, 0.01))
        self._set(CRITIC, initialize_(mlp([critic_inputs, *hidden, 1], activation), generator, 1.0))

    @torch.no_grad()
    def _set(self, k: int, network: torch.nn.Module) -> None:
        """Take over a network's weights, which may be smaller than the space that there is."""
        layers = linear_layers(network)
        for i, layer in enumerate(layers):
            weight = layer.weight if i == len(layers) - 1 else layer.weight.T
            self.params[2 * i][k, : weight.shape[0], : weight.shape[1]] = weight
            self.params[2 * i + 1][k, 0, : len(layer.bias)] = layer.bias

    # ---- passes ------------------------------------------------------------------------------------------------

    def distribution(self, out: Tensor, log_std: Tensor) -> Distribution:
        """What the actor's outputs (B, A) mean."""
        return Gaussian(out, log_std) if self.gaussian else Categorical(out)

    def initial_state(self, n: int) -> dict[str, Tensor]:
        return {}

    def act(self, seen: Seen) -> tuple[Tensor, dict[str, Tensor]]:
        """The actor's outputs (N, A), with as few calls as there can be: acting costs mostly calls; no memory."""
        x = self._vector(seen)
        if len(x) * self._largest <= SMALL_LAYER and self._arrays:  # where a call of numpy's costs a third of torch's
            y = x.numpy()
            *hidden, (last_weight, last_bias) = self._arrays
            for weight, bias in hidden:
                y = y @ weight
                y += bias
                np.tanh(y, out=y) if self.activation == "tanh" else np.maximum(y, 0.0, out=y)
            return torch.from_numpy(y @ last_weight + last_bias), {}
        *hidden, (last_weight, last_bias) = self._layers
        for weight, bias in hidden:
            x = torch.addmm(bias, x, weight)
            x = x.tanh_() if self.activation == "tanh" else x.relu_() if self.activation == "relu" else F.elu_(x)
        return torch.addmm(last_bias, x, last_weight.T), {}

    def _vector(self, seen: Seen) -> Tensor:
        assert seen.vector is not None
        return seen.vector

    def _inputs(self, x: Tensor) -> Tensor:
        """What the stacked networks read, (B, D) or (2, B, D), of what the critic reads (B, D)."""
        if self.actor_inputs == self.critic_inputs:
            return x
        seen = x.clone()
        seen[:, self.actor_inputs :] = 0.0  # the actor does not see these
        return torch.stack([seen, x])

    def evaluate(self, seen: Seen) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
        """The actor's outputs (B, A) and the values (B,); no memory."""
        x = self._inputs(self._vector(seen))
        out, _ = forward(self.params, x, Workspace.none(self.params), self.activation)
        return out[ACTOR], out[CRITIC, :, 0], {}

    def outputs(self, data: Data) -> Tensor:
        """The actor's outputs (B, A)."""
        x = data.x if data.x.ndim == 2 else data.x[ACTOR]
        return forward(self.actor, x, Workspace.none(self.actor), self.activation)[0][0]

    def values(self, seen: Seen) -> Tensor:
        """The values (B,)."""
        return forward(self.critic, self._vector(seen), Workspace.none(self.critic), self.activation)[0][0, :, 0]

    # ---- learning ----------------------------------------------------------------------------------------------

    def arrange(self, seen: Seen, rows: Rows, done: Tensor, mask: Tensor | None) -> Data:
        """A rollout (N T, ...) as rows, without those that are no transition; done (N, T), mask (N, T) or None."""
        x = self._inputs(self._vector(seen))
        if mask is not None:
            keep = mask.flatten()
            x, rows = x[..., keep, :], Rows(*(c[keep] for c in rows))
        count = len(rows.advantage)
        if self._group.size == 1:
            return Data(x, rows, torch.full_like(rows.advantage, 1.0 / max(1, count)))
        mean = self._group.mean(self.flat.new_tensor(count))
        return Data(x, rows, torch.ones_like(rows.advantage) / mean.clamp_min(1e-12))

    def minibatches(self, data: Data, count: int, generator: torch.Generator) -> Iterator[Data]:
        """The rows in a new order, in `count` parts with advantages standardized."""
        total = len(data.rows.advantage)
        order = torch.randperm(total, generator=generator, device=data.x.device)
        shuffled = Rows(*(column.index_select(0, order) for column in data.rows))
        if self._group.size > 1:
            yield from self._shared_minibatches(shuffled, data.x.index_select(-2, order), even_parts(total, count))
            return
        size = -(-total // count)
        if total % size == 0:  # all parts at once
            advantage = standardize(shuffled.advantage.view(-1, size)).flatten()
        else:
            advantage = torch.cat([standardize(part) for part in shuffled.advantage.split(size)])
        columns = [c.split(size) for c in shuffled._replace(advantage=advantage)]
        inputs = data.x.index_select(-2, order).split(size, -2)
        for x, *values in zip(inputs, *columns, strict=True):
            yield Data(x, Rows(*values), self.workspace(x.shape[-2])[-1])

    def _shared_minibatches(self, rows: Rows, x: Tensor, sizes: list[int]) -> Iterator[Data]:
        """This process's part of each minibatch, as many in every process; its rows weigh what they are of all."""
        advantages, weights = standardize_parts(rows.advantage.split(sizes), self._group)
        columns = [c.split(sizes) for c in rows._replace(advantage=torch.cat(advantages))]
        for inputs, weight, *values in zip(x.split(sizes, -2), weights, *columns, strict=True):
            yield Data(inputs, Rows(*values), weight)

    def step(self, part: Data, old_log_std: Tensor, rule: Rule, rates: Rates, first: bool) -> Tensor:
        """One gradient step on B rows, in place; its METRICS (4,) as they were before it."""
        if first or not self.flat.is_cuda:
            return self._step(part.x, part.rows, part.weight, old_log_std, rule, rates, first)
        size = part.x.shape[-2]
        if size not in self._graphs:  # on a GPU every other step is one graph
            self._graphs[size] = captured(
                lambda x, weight, log_std, *rows: {
                    "metrics": self._step(x, Rows(*rows), weight, log_std, rule, rates, False)
                },
                self.flat.device,
            )
        return self._graphs[size](part.x, part.weight, old_log_std, *part.rows)["metrics"]

    def _step(self, x: Tensor, rows: Rows, weight: Tensor, old_log_std: Tensor, rule: Rule, rates: Rates,
              first: bool) -> Tensor:  # fmt: skip
        work, d_out, d_actor, d_value, _ = self.workspace(x.shape[-2])
        out, hidden = forward(self.params, x, work, self.activation)  # (2, B, A)
        new, old = self.distribution(out[ACTOR], self.log_std), self.distribution(rows.old, old_log_std)
        actor = policy_loss(new, old, rows, weight, rule, rates.penalty)
        value_loss, gradient = critic_loss(out[CRITIC, :, 0], rows, weight, rule)

        d_actor.copy_(actor.gradient[0])
        d_value.copy_(gradient)
        parameter_gradient(self.params, x, hidden, d_out, work, self.activation)
        if self.gaussian and self.learn_noise:
            self.d_log_std.copy_(actor.gradient[1])

        divergence, actor_loss = actor.kl, actor.loss
        if self._group.size > 1:
            self._beside.copy_(
                torch.stack([x.new_zeros(()) if divergence is None else divergence, actor_loss, value_loss])
            )
            self._group.mean_([self._exchanged])
            divergence, actor_loss, value_loss = self._beside.unbind()
        choose_step_size_(rates, rule, divergence, first)
        norms = self.clip_norms_(rule.max_grad_norm)
        self.steps.add_(1.0)
        adam_([self.flat], [self.gradient], ([self.first], [self.second]), self.steps, rates.step_size, ADAM_EPSILON)
        return torch.stack([actor_loss, value_loss, *norms.unbind()])

    def clip_norms_(self, most: float) -> Tensor:
        """Clip the gradient of each network; the norms (2,) before.

        Apart, so that a critic far from its targets does not shrink the actor's step.
        """
        norms = torch.mv(self.part, torch.mul(self.gradient, self.gradient, out=self._squares)).sqrt()
        # clamped, not branched on: the host never looks. A norm that is not finite stays visible in the metric
        self.gradient.mul_(torch.mv(self.part.T, (most / (norms + 1e-6)).clamp_max(1.0)))
        return norms

    def workspace(self, rows: int) -> tuple[Workspace, Tensor, Tensor, Tensor, Tensor]:
        """Buffers for minibatches of so many rows: of the passes, of dJ/dout (2, B, A) and its parts; equal weights."""
        if rows not in self._work:
            if len(self._work) == KEPT_SIZES:
                self._work.clear()
                self._graphs.clear()  # they hold on to those buffers
            work = Workspace.kept(self.params, rows, rows)
            work.gradient[:] = self._gradients
            d_out = self.flat.new_zeros(2, rows, self.params[-1].shape[-1])
            weight = self.flat.new_full((rows,), 1.0 / max(1, rows))
            self._work[rows] = work, d_out, d_out[ACTOR], d_out[CRITIC, :, 0], weight
        return self._work[rows]

    # ---- what is kept ------------------------------------------------------------------------------------------

    def actor_tensors(self) -> dict[str, Tensor]:
        """The actor as the policy file has it: weights (out, in)."""
        result = {}
        for i, (weight, bias) in enumerate(self._layers):
            result[f"actor.{i}.weight"] = weight if i == len(self._layers) - 1 else weight.T
            result[f"actor.{i}.bias"] = bias[0]
        return result

    def tensors(self) -> dict[str, Any]:
        """Every tensor that a step changes, by name."""
        return {"flat": self.flat, "first_moment": self.first, "second_moment": self.second, "steps": self.steps}
