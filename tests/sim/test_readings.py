"""Observation terms that arrive late, wrong or not at all."""

import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.randomization import Randomization, Term
from poise.sim.readings import Readings
from poise.sim.task_env import TaskEnv
from poise.sim.white import White

from .two_link import TwoLink


def _report(term: Term, sizes: int, steps: int, n: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Reported balls (steps, N, 3), where the true one is at (t, 2 t, 3 t); and the draws (N, k)."""
    white = White(n)
    readings = Readings(TwoLink.spec, Randomization((term,)), n, white)
    rows, zero = np.arange(n), np.zeros(n, int)
    params = {term.name: term.draw(0, rows, zero, sizes)}
    white.prepare(rows, rows, zero, zero)
    truth = np.arange(1.0, 4.0) * np.arange(steps)[:, None, None] * np.ones((1, n, 1))
    reported = [readings.begin(rows, {"ball": truth[0], "speeds": zero}, params)["ball"]]
    for t in range(1, steps):
        white.follow(rows, zero, zero + t)
        result = readings.report({"ball": truth[t], "speeds": zero}, zero + t, params)
        assert result["speeds"] is zero
        reported.append(result["ball"])
    return np.array(reported), params[term.name]


def _ball(what: str, low: float, high: float) -> Term:
    return Term("t", what, "ball", range=(low, high), operation="set")


def test_noise_is_white_and_a_bias_constant():
    truth = np.arange(1.0, 4.0) * np.arange(40)[:, None, None]
    noisy, std = _report(_ball("obs_noise", 0.1, 0.5), 1, 40)
    errors = noisy - truth
    assert (errors / std).std() == pytest.approx(1.0, abs=0.02) and abs(errors.mean()) < 0.01
    assert abs(np.corrcoef(errors[:, :, 0].ravel(), errors[:, :, 1].ravel())[0, 1]) < 0.05
    biased, bias = _report(_ball("obs_bias", -1.0, 1.0), 3, 40)
    np.testing.assert_allclose(biased - truth, np.broadcast_to(bias, biased.shape), atol=1e-12)


def test_a_delay_is_of_whole_steps_and_begins_with_the_first_reading():
    late, delay = _report(_ball("obs_delay", 0.0, 0.1), 1, 20)
    lag = np.rint(delay[:, 0] / TwoLink.spec.control_dt)
    assert set(lag) == {0, 1, 2, 3, 4, 5}
    assert np.array_equal(late[:, :, 1], 2 * np.maximum(np.arange(20)[:, None] - lag, 0))


def test_a_dropped_reading_is_the_one_before():
    dropped, _ = _report(_ball("obs_dropout", 0.25, 0.25), 1, 100)
    held = (dropped[1:] == dropped[:-1]).all(axis=2)
    assert held.mean() == pytest.approx(0.25, abs=0.02)
    truth = np.arange(1, 100)[:, None] * np.ones((1, 200))
    assert np.array_equal(dropped[1:, :, 0][~held], truth[~held])


def test_either_of_two_terms_can_drop_a_reading():
    n, white = 4, White(4)
    terms = [Term(name, "obs_dropout", "ball", range=(0, 1), operation="set") for name in ("first", "second")]
    readings = Readings(TwoLink.spec, Randomization(tuple(terms)), n, white)
    rows, zero = np.arange(n), np.zeros(n, int)
    white.prepare(rows, rows, zero, zero)
    readings.begin(rows, {"ball": np.zeros((n, 3))}, {})
    params = {"first": np.array([[0.0], [1.0], [0.0], [1.0]]), "second": np.array([[0.0], [0.0], [1.0], [1.0]])}
    reported = readings.report({"ball": np.ones((n, 3))}, zero + 1, params)["ball"]
    np.testing.assert_array_equal(reported[:, 0], [1, 0, 0, 0])


def test_an_env_observes_reported_readings_and_is_paid_for_true_ones():
    bias = Term("bias", "obs_bias", ("error", "ball"), range=(0.5, 0.5), operation="set")
    env, plain = TaskEnv(TwoLink(), 3, Randomization((bias,))), TaskEnv(TwoLink(), 3)
    for group, first in plain.reset(0).items():
        wrong = env.reset(0)[group]
        shift = {"state": [0, 0, 0, 0, 0.5], "privileged": [0.5] * 3}[group]
        np.testing.assert_allclose(wrong - first, np.broadcast_to(shift, first.shape), atol=1e-6)
    a, b = (e.step(torch.zeros(3, 2)) for e in (env, plain))
    assert torch.equal(a.reward, b.reward) and not torch.equal(a.next_obs["state"], b.next_obs["state"])


def test_what_is_not_observed_is_refused():
    with pytest.raises(UsageError, match="'t': unknown observation 'bal'; did you mean ball"):
        TaskEnv(TwoLink(), 1, Randomization((Term("t", "obs_noise", "bal", range=(0, 1), operation="set"),)))
