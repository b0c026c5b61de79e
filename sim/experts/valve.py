"""The expert of valve/claw: three fingers in step, each pushing its prong, then lifted over to push the next.

By symmetry one plan serves all three: in the finger's own frame a tip stands at the polar angle theta about the
valve, and prongs at delta + 120 degrees k. To turn the valve by s = +1 or -1,

    lift    the tips above the prongs
    over    to theta = delta - s BEHIND, where a prong is to be pushed on from
    lower   them between the prongs
    push    theta towards delta, on to where the prong should be, or to REACH: then lift again

Legend: N worlds, F = 3 fingers. Angles [rad], lengths [m] of sim/assets/claw.xml.
"""

from __future__ import annotations

import math

import numpy as np

from ..task import State
from ..tasks.valve import NUM_JOINTS, Valve, angle_error

_RING, _HEIGHT = 0.10, 0.22  # of the fingers' roots about the valve and above the table
_ROOT, _UPPER, _TIP = 0.045, 0.09, 0.09  # lengths of a finger's links
_THIRD = 2.0 * math.pi / 3.0
RADIUS, HIGH, LOW = 0.055, 0.068, 0.028  # where tips move about the valve, above the table
TOUCH = math.asin(0.016 / RADIUS)  # between tip and prong in contact: both have a radius of 8 mm
BEHIND = 0.45  # between a tip that is lowered and its prong
REACH = 1.25  # of a tip to either side of its finger's root
_WINDOW = 0.85  # a prong this far back can still be stepped behind
_CLOSE_ENOUGH = 0.04  # [rad] of the valve
LIFT, OVER, LOWER, PUSH = range(4)


def tip_position(fingers: np.ndarray) -> np.ndarray:
    """Tips (N, 3, 3) in their fingers' frames, the origin on the valve's axis, from joint positions (N, 9)."""
    q1, q2, q3 = np.moveaxis(fingers.reshape(-1, 3, 3), -1, 0)
    inward = _UPPER * np.sin(q2) + _TIP * np.sin(q2 + q3)
    depth = _ROOT + _UPPER * np.cos(q2) + _TIP * np.cos(q2 + q3)
    return np.stack([_RING - inward, depth * np.sin(q1), _HEIGHT - depth * np.cos(q1)], axis=-1)


def joints_for(tips: np.ndarray) -> np.ndarray:
    """Joint positions (N, 9) that bring tips (N, 3) in the finger's frame there, all fingers alike; knees outward.

    Two links in the plane that joint 1 swings: the law of cosines (Siciliano et al. 2009, "Robotics", section 2.12).
    """
    x, y, down = tips[:, 0], tips[:, 1], _HEIGHT - tips[:, 2]
    inward, depth = _RING - x, np.hypot(y, down) - _ROOT
    cosine = (inward**2 + depth**2 - _UPPER**2 - _TIP**2) / (2 * _UPPER * _TIP)
    q3 = np.arccos(np.clip(cosine, -1.0, 1.0))
    q2 = np.arctan2(inward, depth) - np.arctan2(_TIP * np.sin(q3), _UPPER + _TIP * np.cos(q3))
    return np.tile(np.stack([np.arctan2(y, down), q2, q3], axis=-1), 3)


class ValveExpert:
    """Actions (N, 9) in [-1, 1] from true states; it remembers in which phase each world is."""

    def __init__(self, task: Valve):
        self._term = task.spec.actions[0]
        self._phase = np.zeros(0, np.int64)
        self._turn = np.zeros(0)  # s of each world
        self._behind = np.zeros(0)  # theta from which its fingers are to push

    def act(self, state: State) -> np.ndarray:
        """What to do in every world; one that is at time 0 begins anew."""
        n = len(state.time)
        if len(self._phase) != n:
            self._phase, self._turn, self._behind = np.zeros(n, np.int64), np.ones(n), np.zeros(n)
        self._phase[state.time == 0.0] = LIFT
        tips = tip_position(state.qpos[:, :NUM_JOINTS]).mean(axis=1)  # (N, 3)
        theta, error = np.arctan2(tips[:, 1], tips[:, 0]), angle_error(state)
        self._next_phase(theta, tips[:, 2], error, state.qpos[:, NUM_JOINTS])
        wanted = joints_for(self._wanted(theta, error, state.qpos[:, NUM_JOINTS]))
        action = (wanted - state.target[self._term.name]) / np.array(self._term.scale)
        action[np.abs(error) < _CLOSE_ENOUGH] = 0.0
        return np.clip(action, -1.0, 1.0)

    def _next_phase(self, theta: np.ndarray, height: np.ndarray, error: np.ndarray, valve: np.ndarray) -> None:
        phase = self._phase
        pushing = phase == PUSH
        spent = self._turn * theta > REACH - 0.02
        phase[pushing & (np.abs(error) >= _CLOSE_ENOUGH) & (spent | (self._turn * error < 0))] = LIFT
        up = (phase == LIFT) & (height > HIGH - 0.008)
        self._turn[up] = np.where(error[up] < 0, -1.0, 1.0)
        s = self._turn
        prong = s * (np.remainder(s * valve + _WINDOW, _THIRD) - _WINDOW)  # s prong in [-WINDOW, 120 degrees - WINDOW)
        self._behind[up] = (prong - s * BEHIND)[up]
        phase[up] = OVER
        phase[(phase == OVER) & (np.abs(theta - self._behind) < 0.1)] = LOWER
        phase[(phase == LOWER) & (height < LOW + 0.008)] = PUSH

    def _wanted(self, theta: np.ndarray, error: np.ndarray, valve: np.ndarray) -> np.ndarray:
        """Where the tips (N, 3) should go now."""
        s, phase = self._turn, self._phase
        ahead = np.remainder(s * (valve - theta), _THIRD)  # of the tip, to the prong before it
        onward = ahead - TOUCH + np.clip(s * error, 0.0, 0.25) + 0.02
        push = s * np.minimum(s * theta + onward, REACH)
        angle = np.select([phase == LIFT, phase == PUSH], [theta, push], self._behind)
        height = np.where((phase == LIFT) | (phase == OVER), HIGH, LOW)
        return np.stack([RADIUS * np.cos(angle), RADIUS * np.sin(angle), height], axis=-1)
