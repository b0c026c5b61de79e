"""The same SAC update as others write it, to compare with: one gradient step of critics, actor and temperature.

    eager      modules, torch.distributions and three Adams, as CleanRL's sac_continuous_action.py has them
    captured   the networks stacked by torch.func, Adam's steps on the device, the whole update compiled and then
               recorded as one CUDA graph, as LeanRL does

Written anew after their descriptions, with the shapes and rates of Poise's own. Legend: B batch, O observation, A action.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from poise.cuda_graph import captured

LOG_STD = (-5.0, 2.0)


@dataclass(frozen=True)
class Sizes:
    obs: int
    action: int
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 256
    learning_rate: float = 3e-4
    discount: float = 0.99
    tau: float = 0.005


def transitions(sizes: Sizes, device: torch.device) -> tuple[Tensor, ...]:
    """A batch: obs, action, reward, next_obs, terminated."""
    g = torch.Generator().manual_seed(0)
    b = sizes.batch
    rows = (torch.randn(b, sizes.obs, generator=g), torch.rand(b, sizes.action, generator=g) * 2 - 1,
            torch.randn(b, generator=g), torch.randn(b, sizes.obs, generator=g), torch.zeros(b))  # fmt: skip
    return tuple(x.to(device) for x in rows)


def perceptron(inputs: int, hidden: tuple[int, ...], outputs: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for size in hidden:
        layers += [nn.Linear(inputs, size), nn.ReLU()]
        inputs = size
    return nn.Sequential(*layers, nn.Linear(inputs, outputs))


def act(actor: nn.Module, obs: Tensor) -> tuple[Tensor, Tensor]:
    """A squashed Gaussian's action and its log-probability (B,), by way of torch.distributions."""
    mean, log_std = actor(obs).chunk(2, -1)
    low, high = LOG_STD
    std = (low + 0.5 * (high - low) * (torch.tanh(log_std) + 1.0)).exp()
    normal = torch.distributions.Normal(mean, std, validate_args=False)
    raw = normal.rsample()
    action = torch.tanh(raw)
    return action, (normal.log_prob(raw) - torch.log(1.0 - action.square() + 1e-6)).sum(-1)


def eager(sizes: Sizes, device: torch.device) -> Callable[..., object]:
    """An update of a batch, kernel by kernel."""
    actor = perceptron(sizes.obs, sizes.hidden, 2 * sizes.action).to(device)
    critics = [perceptron(sizes.obs + sizes.action, sizes.hidden, 1).to(device) for _ in range(2)]
    targets = [perceptron(sizes.obs + sizes.action, sizes.hidden, 1).to(device) for _ in range(2)]
    for target, critic in zip(targets, critics, strict=True):
        target.load_state_dict(critic.state_dict())
    log_alpha = torch.zeros(1, device=device, requires_grad=True)
    q_adam = torch.optim.Adam([p for critic in critics for p in critic.parameters()], lr=sizes.learning_rate)
    pi_adam = torch.optim.Adam(actor.parameters(), lr=sizes.learning_rate)
    alpha_adam = torch.optim.Adam([log_alpha], lr=sizes.learning_rate)

    def update(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor) -> None:
        alpha = log_alpha.exp().detach()
        with torch.no_grad():
            next_action, log_prob = act(actor, next_obs)
            x = torch.cat([next_obs, next_action], -1)
            value = torch.min(*(target(x).view(-1) for target in targets)) - alpha * log_prob
            y = reward + (1.0 - terminated) * sizes.discount * value
        x = torch.cat([obs, action], -1)
        q_loss = sum(F.mse_loss(critic(x).view(-1), y) for critic in critics)
        q_adam.zero_grad()
        q_loss.backward()  # type: ignore[union-attr]
        q_adam.step()

        new_action, log_prob = act(actor, obs)
        x = torch.cat([obs, new_action], -1)
        pi_loss = (alpha * log_prob - torch.min(*(critic(x).view(-1) for critic in critics))).mean()
        pi_adam.zero_grad()
        pi_loss.backward()
        pi_adam.step()

        alpha_loss = (-log_alpha.exp() * (log_prob.detach() - sizes.action)).mean()
        alpha_adam.zero_grad()
        alpha_loss.backward()
        alpha_adam.step()
        with torch.no_grad():
            for target, critic in zip(targets, critics, strict=True):
                for old, new in zip(target.parameters(), critic.parameters(), strict=True):
                    old.copy_(sizes.tau * new + (1.0 - sizes.tau) * old)

    return update


def compiled_and_captured(sizes: Sizes, device: torch.device) -> Callable[..., object]:
    """An update of a batch, compiled and in one graph."""
    actor = perceptron(sizes.obs, sizes.hidden, 2 * sizes.action).to(device)
    critics = [perceptron(sizes.obs + sizes.action, sizes.hidden, 1).to(device) for _ in range(2)]
    stacked: Any = torch.func.stack_module_state(critics)[0]
    params = {name: value.detach().requires_grad_() for name, value in stacked.items()}
    targets = {name: value.detach().clone() for name, value in params.items()}
    shell = perceptron(sizes.obs + sizes.action, sizes.hidden, 1).to("meta")
    log_alpha = torch.zeros(1, device=device, requires_grad=True)
    fused = {"fused": True} if device.type == "cuda" else {}
    kind = {"lr": sizes.learning_rate, "capturable": device.type == "cuda", **fused}
    q_adam, pi_adam = torch.optim.Adam(params.values(), **kind), torch.optim.Adam(actor.parameters(), **kind)
    alpha_adam = torch.optim.Adam([log_alpha], **kind)

    def q(weights: dict[str, Tensor], x: Tensor) -> Tensor:
        each = torch.func.vmap(lambda p: torch.func.functional_call(shell, p, (x,)))
        return each(weights)[..., 0]

    def losses_of_critics(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor) -> Tensor:
        with torch.no_grad():
            next_action, log_prob = act(actor, next_obs)
            value = q(targets, torch.cat([next_obs, next_action], -1)).amin(0) - log_alpha.exp() * log_prob
            y = reward + (1.0 - terminated) * sizes.discount * value
        return F.mse_loss(q(params, torch.cat([obs, action], -1)), y.expand(2, -1)) * 2.0

    def losses_of_actor(obs: Tensor) -> tuple[Tensor, Tensor]:
        new_action, log_prob = act(actor, obs)
        pi_loss = (log_alpha.exp().detach() * log_prob - q(params, torch.cat([obs, new_action], -1)).amin(0)).mean()
        return pi_loss, (-log_alpha.exp() * (log_prob.detach() - sizes.action)).mean()

    critics_part = torch.compile(losses_of_critics) if device.type == "cuda" else losses_of_critics
    actors_part = torch.compile(losses_of_actor) if device.type == "cuda" else losses_of_actor

    def update(obs: Tensor, action: Tensor, reward: Tensor, next_obs: Tensor, terminated: Tensor) -> dict[str, Tensor]:
        q_adam.zero_grad()
        critics_part(obs, action, reward, next_obs, terminated).backward()
        q_adam.step()
        pi_adam.zero_grad()
        alpha_adam.zero_grad()
        pi_loss, alpha_loss = actors_part(obs)
        (pi_loss + alpha_loss).backward()
        pi_adam.step()
        alpha_adam.step()
        with torch.no_grad():
            torch._foreach_lerp_(list(targets.values()), list(params.values()), sizes.tau)  # pyright: ignore[reportPrivateImportUsage]
        return {}

    return captured(update, device)
