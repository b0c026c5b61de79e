"""One update of soft actor-critic's variants, by automatic differentiation: what sac_update.py does by hand for the
plain case, with switches.

    critic        scalar: sac_update.py's J_Q.  categorical: cross entropy to the projected target distribution of the
                  critic that counts (categorical_return.py), its atoms moved to r + gamma (z - alpha log pi(a'|s'))
    actions       continuous: tanh-Gaussian.  discrete: exact expectations (sac_discrete.py)
    networks      perceptrons, with layer norm and weights of norm 1 if asked for; before them, for a camera, one
                  encoder that the critics' loss alone teaches; the actor reads its features as constants (Yarats 2021)
    min or mean   of the two critics, in target and policy loss
    more critics  of K > 2 a target takes two, drawn for each update, and the policy loss the mean of all: REDQ (Chen
                  2021, arXiv 2101.05982), which lets many updates be made for a step of the worlds

FlashSAC (arXiv 2604.04539) is what the recipe `sac/large` follows: distributional critics, normalized networks and
rewards, an entropy target from a deviation, a slower actor. Everything here is a function of lists of tensors, without
a branch on data, so that torch.compile takes the whole update of vector tasks.

Legend: K critics, B batch, F features, A action or n choices, Z atoms (1 for a scalar critic).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad_and_value

from . import sac_discrete
from .adam import BETA_2, EPSILON, Moments, adam_, zero_moments
from .categorical_return import cross_entropy, project
from .distributions import tanh_gaussian
from .networks import ConvEncoder
from .parallel import ALONE, Group
from .returns import td_target
from .sac_update import polyak_

Params = list[Tensor]  # of every layer: weight (K, in, out), bias (K, 1, out), and gain, offset (K, 1, out) of a norm


@dataclass(frozen=True)
class Variant:
    """The switches: what is fixed for a run."""

    learning_rate: float
    tau: float
    target_entropy: float
    choices: int  # 0 for continuous actions
    atoms: int  # 0 for scalar critics
    v_min: float
    v_max: float
    norm: bool
    project_weights: bool
    mean: bool  # of the two critics, not the smaller
    critics: int = 2
    beta_2: float = BETA_2


@dataclass(frozen=True)
class Networks:
    """Parameters and Adam's moments: everything that an update changes, in place."""

    actor: Params  # F -> mean (A) and log_std (A), or logits (n)
    critic: Params  # F + A -> Z, or F -> n; K of them
    target_critic: Params
    encoder: ConvEncoder | None
    log_alpha: Tensor  # ()
    steps: Tensor  # () updates of the critics
    actor_steps: Tensor  # () and of the actor
    critic_moments: Moments  # of the critics and then the encoder
    actor_moments: Moments  # of the actor and then log_alpha

    @property
    def eyes(self) -> Params:
        """The encoder's parameters."""
        return [] if self.encoder is None else [p.detach() for p in self.encoder.parameters()]

    @staticmethod
    def draw(features: int, outputs: int, inputs: int, values: int, hidden: Sequence[int], norm: bool,
             init_alpha: float, encoder: ConvEncoder | None, generator: torch.Generator, device: torch.device,
             critics: int = 2) -> Networks:  # fmt: skip
        """Fresh networks, actor features -> outputs, critics inputs -> values; the targets equal the critics."""
        actor = [p.to(device) for p in draw(1, [features, *hidden, outputs], norm, generator)]
        critic = [p.to(device) for p in draw(critics, [inputs, *hidden, values], norm, generator)]
        log_alpha = torch.tensor(init_alpha, dtype=torch.float32, device=device).log()
        eyes = [] if encoder is None else [p.detach() for p in encoder.parameters()]
        steps, actor_steps = torch.zeros((), device=device), torch.zeros((), device=device)
        return Networks(actor, critic, [p.clone() for p in critic], encoder, log_alpha, steps, actor_steps,
                        zero_moments([*critic, *eyes]), zero_moments([*actor, log_alpha]))  # fmt: skip


@dataclass(frozen=True)
class Seen:
    """Observations as the networks read them."""

    vector: Tensor | None  # (B, O) normalized
    image: Tensor | None  # (B, height, width, C), already shifted


@dataclass(frozen=True)
class Transitions:
    """What an update reads: (B, ...) each."""

    obs: Seen
    action: Tensor  # (B, A), or (B, 1) int64
    reward: Tensor
    next_obs: Seen
    terminated: Tensor
    discount: Tensor  # (B,) to the power of the steps between the two observations
    noise: Tensor  # (2B, A) standard normal, for s in its first half and s' after; empty for discrete actions
    pair: Tensor | None = None  # (2,) the critics that a target takes, of more than two


# ---- networks ------------------------------------------------------------------------------------


def draw(networks: int, sizes: Sequence[int], norm: bool, generator: torch.Generator) -> Params:
    """Weights and biases uniform in +-1/sqrt(fan_in); norms begin as the identity."""
    params = []
    for i, (n_in, n_out) in enumerate(pairwise(sizes)):
        for shape in ((networks, n_in, n_out), (networks, 1, n_out)):
            params.append(torch.empty(shape).uniform_(-(n_in**-0.5), n_in**-0.5, generator=generator))
        if norm and i < len(sizes) - 2:
            params += [torch.ones(networks, 1, n_out), torch.zeros(networks, 1, n_out)]
    return params


def forward(params: Params, x: Tensor, norm: bool) -> Tensor:
    """Outputs (K, B, ·) for inputs (B, ·): linear, layer norm where there is one, ReLU."""
    h, per_layer = x.expand(len(params[0]), -1, -1), 4 if norm else 2
    for i in range(0, len(params) - 2, per_layer):
        h = torch.baddbmm(params[i + 1], h, params[i])
        if norm:
            h = torch.addcmul(params[i + 3], F.layer_norm(h, h.shape[-1:]), params[i + 2])
        h = torch.relu(h)
    return torch.baddbmm(params[-1], h, params[-2])


def project_weights_(params: Params) -> None:
    """Weights of every unit scaled to norm 1, and gain and offset of every layer norm together to that of ones.

    In place. A layer norm follows the hidden layers, of whose weights only the direction counts then, and steps of
    Adam turn that by the same angle however long one trains. The last layer follows a norm, so that outputs stay of
    the order of 1: means of actions do not run into the flat ends of tanh, nor does a critic's distribution become
    surer than its data (FlashSAC).
    """
    for weight in params[::4]:
        weight.div_(weight.norm(dim=1, keepdim=True))
    for gain, offset in zip(params[2:-2:4], params[3:-2:4], strict=True):
        scale = (gain.square() + offset.square()).mean(-1, keepdim=True).rsqrt()  # (K, 1, 1)
        gain.mul_(scale)
        offset.mul_(scale)


def features(n: Networks, eyes: Params, seen: Seen) -> Tensor:
    """What actor and critics read (B, F): the vector, then what the encoder makes of the picture."""
    if n.encoder is None or seen.image is None:
        assert seen.vector is not None
        return seen.vector
    names = [name for name, _ in n.encoder.named_parameters()]
    pictured = functional_call(n.encoder, dict(zip(names, eyes, strict=True)), (seen.image,))
    return pictured if seen.vector is None else torch.cat([seen.vector, pictured], -1)


def values(out: Tensor, variant: Variant) -> Tensor:
    """Means (K, B) of the critics' outputs (K, B, Z)."""
    if variant.atoms == 0:
        return out[..., 0]
    return torch.softmax(out, -1) @ _atoms(out, variant)


def _atoms(like: Tensor, variant: Variant) -> Tensor:
    return torch.linspace(variant.v_min, variant.v_max, variant.atoms, device=like.device)


def _counts(q: Tensor, variant: Variant) -> Tensor:
    """The value that counts of the critics' (K, ...) to the policy."""
    return q.mean(0) if variant.mean or variant.critics > 2 else q.amin(0)


def _target_value(q: Tensor, variant: Variant) -> Tensor:
    """The value that counts of the target critics' (2 or K, ...)."""
    return q.mean(0) if variant.mean else q.amin(0)


def _targets(t: Transitions, inputs: Tensor, n: Networks, variant: Variant) -> Tensor:
    """Outputs (2, B, Z) of the target critics that count in an update; of all (K, B, Z) where their mean does."""
    params = n.target_critic
    if variant.critics > 2 and not variant.mean:
        assert t.pair is not None
        params = [p.index_select(0, t.pair) for p in params]
    return forward(params, inputs, variant.norm)


# ---- losses --------------------------------------------------------------------------------------

Loss = tuple[Tensor, tuple[Tensor, ...]]  # the loss, and what else to report


def critic_target(n: Networks, t: Transitions, next_features: Tensor, variant: Variant) -> Tensor:
    """What the critics should say of (s, a): y (B,), or probabilities (B, Z)."""
    alpha = n.log_alpha.exp()
    policy = forward(n.actor, next_features, variant.norm)[0]
    if variant.choices > 0:
        q = _target_value(_targets(t, next_features, n, variant), variant)  # (B, n)
        return td_target(t.reward, t.terminated, sac_discrete.soft_value(q, policy, alpha), t.discount)
    mean, log_std = policy.chunk(2, -1)
    sample = tanh_gaussian(mean, log_std, t.noise[len(t.reward) :])
    out = _targets(t, torch.cat([next_features, sample.action], -1), n, variant)  # (2, B, Z)
    cost, q = alpha * sample.log_prob, values(out, variant)
    if variant.atoms == 0:
        return td_target(t.reward, t.terminated, _target_value(q, variant) - cost, t.discount)
    p = torch.softmax(out, -1)
    p = p.mean(0) if variant.mean else torch.where((q[0] <= q[1])[:, None], p[0], p[1])  # (B, Z)
    weight = torch.where(t.terminated, 0.0, t.discount)[:, None]
    moved = t.reward[:, None] + weight * (_atoms(out, variant) - cost[:, None])
    return project(p, moved, variant.v_min, variant.v_max)


def critic_loss(n: Networks, t: Transitions, target: Tensor, variant: Variant) -> Callable[[Params], Loss]:
    """J_Q summed over the critics, as a function of their parameters and then the encoder's; reports the mean value,
    and the features of s, with which the actor then saves a pass of the encoder."""

    def loss(params: Params) -> Loss:
        critic, eyes = params[: len(n.critic)], params[len(n.critic) :]
        seen = features(n, eyes, t.obs)
        if variant.choices > 0:
            q = sac_discrete.chosen(forward(critic, seen, variant.norm), t.action)
            return 0.5 * (q - target).square().mean(1).sum(), (q.mean(), seen)
        out = forward(critic, torch.cat([seen, t.action], -1), variant.norm)
        q = values(out, variant)
        if variant.atoms == 0:
            return 0.5 * (q - target).square().mean(1).sum(), (q.mean(), seen)
        return cross_entropy(target, out).mean(1).sum(), (q.mean(), seen)

    return loss


def actor_loss(n: Networks, t: Transitions, seen: Tensor, variant: Variant) -> Callable[[Params], Loss]:
    """J_pi as a function of the actor's parameters; reports the entropy (B,) of which the temperature learns."""
    alpha = n.log_alpha.exp()

    def loss(params: Params) -> Loss:
        policy = forward(params, seen, variant.norm)[0]
        if variant.choices > 0:
            q = _counts(forward(n.critic, seen, variant.norm), variant)
            return sac_discrete.policy_loss(q, policy, alpha), (sac_discrete.entropy(policy),)
        mean, log_std = policy.chunk(2, -1)
        sample = tanh_gaussian(mean, log_std, t.noise[: len(t.reward)])
        q = _counts(values(forward(n.critic, torch.cat([seen, sample.action], -1), variant.norm), variant), variant)
        return (alpha * sample.log_prob - q).mean(), (-sample.log_prob,)

    return loss


def differentiate(loss: Callable[[Params], Loss], params: Params) -> tuple[Params, Tensor, tuple[Tensor, ...]]:
    """Gradient, loss and report of `loss` at `params`."""
    if torch.compiler.is_compiling():  # the compiler wants the functional form, which costs eager code twice the time
        gradient, (value, report) = grad_and_value(loss, has_aux=True)(params)
        return gradient, value, report
    with torch.enable_grad():
        leaves = [p.detach().requires_grad_() for p in params]
        value, report = loss(leaves)
        gradient = torch.autograd.grad(value, leaves)
    # Adam's kernel walks memory: a gradient must lie as its parameter does, also those of convolutions
    return [g.contiguous() for g in gradient], value.detach(), tuple(r.detach() for r in report)


# ---- the update ----------------------------------------------------------------------------------


def update(n: Networks, t: Transitions, variant: Variant, with_actor: bool, group: Group = ALONE) -> dict[str, Tensor]:
    """One step on J_Q, then with the actor's turn on J_pi and J_alpha, then the targets, in place; metrics.

    `t` is this process's part of what the processes of `group` learn from.
    """
    eyes = n.eyes
    target = critic_target(n, t, features(n, eyes, t.next_obs), variant)
    params = [*n.critic, *eyes]
    gradient, q_loss, (q, seen) = differentiate(critic_loss(n, t, target, variant), params)
    group.mean_(gradient)
    n.steps.add_(1.0)
    adam_(params, gradient, n.critic_moments, n.steps, variant.learning_rate, EPSILON, variant.beta_2)
    if variant.project_weights:
        project_weights_(n.critic)
    metrics = {"critic/loss": q_loss, "critic/q": q, "alpha": n.log_alpha.exp()}
    if with_actor:
        metrics |= actor_step(n, t, seen, variant, group)
    polyak_(n.target_critic, n.critic, variant.tau)
    return metrics


def actor_step(n: Networks, t: Transitions, seen: Tensor, variant: Variant, group: Group = ALONE) -> dict[str, Tensor]:
    """One step of actor and temperature, on the same entropy."""
    gradient, loss, (entropy,) = differentiate(actor_loss(n, t, seen, variant), n.actor)
    d_log_alpha = n.log_alpha.exp() * (entropy.mean() - variant.target_entropy)
    gradient = [*gradient, d_log_alpha]
    group.mean_(gradient)
    n.actor_steps.add_(1.0)
    params = [*n.actor, n.log_alpha]
    adam_(params, gradient, n.actor_moments, n.actor_steps, variant.learning_rate, EPSILON, variant.beta_2)
    if variant.project_weights:
        project_weights_(n.actor)
    return {"policy/loss": loss, "policy/entropy": entropy.mean()}
