"""Tabular Markov decision processes, solved exactly: what every learner approximates.

    V(s)       <- sum_a pi(a|s) sum_s' P(s'|s,a) [ R(s,a,s') + discount V(s') ]        policy evaluation
    Q(s, a)    <- sum_s' P(s'|s,a) [ R(s,a,s') + discount max_a' Q(s',a') ]            value iteration
    Q(s, a)    <- Q(s, a) + alpha ( r + discount max_a' Q(s',a') - Q(s, a) )           Q-learning (Watkins 1989)

Terminal states have value 0 and nothing follows them (Sutton & Barto 2018, ch. 4 and 6). Value iteration contracts by
`discount` in the largest difference; without discounting it still converges where every way leads to a terminal state,
and where none does the values grow forever, which is reported and not waited for.

Legend: S states, A actions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import PoiseError, UsageError
from ..keyed import Stream


class NotConvergingError(PoiseError):
    """The values of this MDP do not settle: without discounting, some way never ends."""


@dataclass(frozen=True)
class TabularMDP:
    """A finite MDP. Frozen; the arrays are checked once."""

    transition: np.ndarray  # (S, A, S) P(s' | s, a)
    reward: np.ndarray  # (S, A, S) R(s, a, s')
    discount: float
    terminal: np.ndarray  # (S,) bool

    def __post_init__(self) -> None:
        states, actions = self.transition.shape[:2]
        if self.transition.shape != (states, actions, states) or self.reward.shape != self.transition.shape:
            raise UsageError(f"an MDP's transition and reward have one shape (S, A, S); got {self.transition.shape} "
                             f"and {self.reward.shape}")  # fmt: skip
        if self.terminal.shape != (states,):
            raise UsageError(f"terminal should hold one truth for each of {states} states, got {self.terminal.shape}")
        if not 0.0 <= self.discount <= 1.0:
            raise UsageError(f"discount = {self.discount}: expected a number from 0 to 1")
        if not (np.allclose(self.transition.sum(-1), 1.0) and (self.transition >= 0.0).all()):
            state, action = np.argwhere(~np.isclose(self.transition.sum(-1), 1.0) | (self.transition < 0).any(-1))[0]
            raise UsageError(f"the probabilities of state {state}, action {action} should be positive and sum to 1; "
                             f"they sum to {self.transition[state, action].sum():g}")  # fmt: skip
        if not np.isfinite(self.reward).all():
            raise UsageError("an MDP's rewards should be finite numbers")

    @property
    def continuing(self) -> np.ndarray:
        """(S,) discount that the value of a successor is weighted with: 0 for terminal ones."""
        return self.discount * ~self.terminal

    def backup(self, v: np.ndarray) -> np.ndarray:
        """Q (S, A) = E[ R + discount V(s') ] for V (S,); 0 in terminal states."""
        q = (self.transition * (self.reward + self.continuing * v)).sum(-1)
        return np.where(self.terminal[:, None], 0.0, q)


@dataclass(frozen=True)
class Solution:
    """Values that a synchronous iteration settled on."""

    q: np.ndarray  # (S, A)
    v: np.ndarray  # (S,)
    sweeps: int  # that changed something


def value_iteration(mdp: TabularMDP, tolerance: float = 1e-10, max_sweeps: int = 100_000) -> Solution:
    """The optimal values, by synchronous value iteration from zero until a sweep changes less than `tolerance`.

    Raises:
        NotConvergingError: the values have not settled, as without discounting and without a way to an end.
    """
    return _iterate(mdp, lambda q: q.max(-1), tolerance, max_sweeps)


def evaluate_policy(
    mdp: TabularMDP, policy: np.ndarray, tolerance: float = 1e-10, max_sweeps: int = 100_000
) -> Solution:
    """The values of `policy` (S, A), probabilities of actions, by synchronous sweeps from zero; errors as above."""
    return _iterate(mdp, lambda q: (policy * q).sum(-1), tolerance, max_sweeps)


def _iterate(mdp: TabularMDP, state_value, tolerance: float, max_sweeps: int) -> Solution:
    q, change = np.zeros(mdp.transition.shape[:2]), np.inf
    for sweep in range(max_sweeps):
        new = mdp.backup(state_value(q))
        change = float(np.abs(new - q).max())
        q = new
        if change <= tolerance:
            return Solution(q, state_value(q), sweep)
    raise NotConvergingError(
        f"the values still change by {change:g} after {max_sweeps} sweeps: with discount {mdp.discount:g} they settle "
        f"only where every way reaches a terminal state ({int(mdp.terminal.sum())} of {len(q)} states are); "
        f"use a discount below 1, or mark the states that end an episode"
    )


def greedy(q: np.ndarray, tolerance: float = 1e-9) -> np.ndarray:
    """The optimal actions (S, A) bool of Q (S, A): ties count as optimal, every action does in a terminal state."""
    return q >= q.max(-1, keepdims=True) - tolerance


def q_learning(
    mdp: TabularMDP,
    steps: int,
    seed: int = 0,
    epsilon: float = 0.2,
    step_power: float = 0.7,
    start: np.ndarray | None = None,
) -> np.ndarray:
    """Q (S, A) learned from `steps` transitions of an epsilon-greedy walk, step size 1 / N(s, a)^step_power.

    Episodes begin in a state drawn from `start` (S,), by default any that is not terminal. Watkins & Dayan (1992):
    it converges where every pair comes up for ever and the step sizes fall as 0.5 < step_power <= 1 has it.
    """
    states, actions = mdp.transition.shape[:2]
    start = ~mdp.terminal / (~mdp.terminal).sum() if start is None else start
    rng = np.random.default_rng(int(Stream(seed, "tabular/q_learning").integer(0, 0)[0]))
    cumulative = mdp.transition.cumsum(-1)
    q, visits = np.zeros((states, actions)), np.zeros((states, actions), np.int64)
    state = rng.choice(states, p=start)
    for _ in range(steps):
        if rng.random() < epsilon:
            action = int(rng.integers(actions))
        else:
            best = np.flatnonzero(q[state] == q[state].max())  # ties are broken by lot
            action = int(best[rng.integers(len(best))])
        after = min(int(np.searchsorted(cumulative[state, action], rng.random(), side="right")), states - 1)
        target = mdp.reward[state, action, after] + mdp.continuing[after] * q[after].max()
        visits[state, action] += 1
        q[state, action] += (target - q[state, action]) / visits[state, action] ** step_power
        state = rng.choice(states, p=start) if mdp.terminal[after] else after
    return q


# ---- examples ----------------------------------------------------------------------------------


def grid_world(rows: int = 4, columns: int = 4, ends: tuple[int, ...] = (0, 15), discount: float = 1.0) -> TabularMDP:
    """The lecture's Grid World: right, left, up, down, -1 a move, stay at a wall (Sutton & Barto 2018, example 4.1).

    `ends` are terminal states, counted row by row.
    """
    states = rows * columns
    transition = np.zeros((states, 4, states))
    for state in range(states):
        row, column = divmod(state, columns)
        for action, (down, right) in enumerate(((0, 1), (0, -1), (-1, 0), (1, 0))):
            to = min(max(row + down, 0), rows - 1), min(max(column + right, 0), columns - 1)
            transition[state, action, to[0] * columns + to[1]] = 1.0
    terminal = np.isin(np.arange(states), ends)
    transition[terminal] = np.eye(states)[terminal][:, None]  # nothing leads out
    return TabularMDP(transition, np.full(transition.shape, -1.0), discount, terminal)


def from_gymnasium(table: Mapping[int, Mapping[int, list]], discount: float) -> TabularMDP:
    """The MDP of a toy-text environment's `env.unwrapped.P`: state -> action -> [(p, next state, reward, ended)]."""
    states, actions = len(table), len(table[0])
    transition = np.zeros((states, actions, states))
    paid = np.zeros_like(transition)  # probability times reward
    terminal = np.zeros(states, bool)
    for state, choices in table.items():
        for action, outcomes in choices.items():
            for probability, after, reward, ended in outcomes:
                transition[state, action, after] += probability
                paid[state, action, after] += probability * reward
                terminal[after] |= ended
    reward = np.divide(paid, transition, out=np.zeros_like(paid), where=transition > 0)
    return TabularMDP(transition, reward, discount, terminal)


def frozen_lake(size: int = 4, discount: float = 1.0) -> TabularMDP:
    """Gymnasium's slippery FrozenLake, size 4 or 8."""
    import gymnasium

    env = gymnasium.make("FrozenLake-v1", map_name=f"{size}x{size}", is_slippery=True)
    return from_gymnasium(env.unwrapped.P, discount)  # type: ignore[attr-defined]
