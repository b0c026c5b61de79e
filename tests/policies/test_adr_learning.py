"""Ranges that adapt, learned with: they widen as the policy learns, and it copes with them.

Every check prints its figures: run with -s.
"""

import json

import numpy as np
import pytest

import poise
from poise.policies.curves import read_metrics
from poise.sim.adr import adaptive
from poise.sim.randomization import Randomization, Term

TASK = "reach/planar-state"
TERMS = Randomization((
    Term("mass", "link_mass", "*", range=(0.5, 1.5)),
    Term("damping", "joint_damping", "*", range=(0.5, 2.0)),
    Term("gain", "actuator_gain", "*", range=(0.5, 1.5)),
    Term("latency", "action_latency", range=(0.0, 0.1), operation="set"),
    Term("noise", "joint_pos_noise", "*", range=(0.0, 0.02), operation="set"),
))  # fmt: skip
ADAPTIVE = adaptive(TERMS, {"queue": 10})


def trend(values) -> float:
    """Spearman's rank correlation with time."""
    ranks = np.argsort(np.argsort(values, kind="stable"))
    return float(np.corrcoef(ranks, np.arange(len(values)))[0, 1])


@pytest.mark.learning
@pytest.mark.timeout(600)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_ranges_widen_as_the_policy_learns_and_it_copes_with_them(seed, tmp_path):
    path = tmp_path / "adaptive.json"
    path.write_text(json.dumps(ADAPTIVE.to_json()))
    settings = {"num_envs": 64, "steps": 200_000, "discount": 0.95, "log_points": 50, "evaluations": 1, "threads": 1,
                "seed": seed, "randomize": str(path)}  # fmt: skip
    run = poise.train("ppo", TASK, tmp_path / "run", settings=settings)
    policy = poise.load_policy(run.policy)
    success = poise.evaluate(policy, TASK, 300, 1000 + seed, TERMS).success_rate
    series = read_metrics(tmp_path / "run" / "metrics.jsonl")
    entropy = series["adr/entropy"][1]
    widths = {t.name: round(series[f"adr/{t.name}/width"][1][-1], 2) for t in TERMS.terms}
    print(f"seed {seed}: entropy {entropy[0]:.2f} to {entropy[-1]:.2f}, Spearman {trend(entropy):.3f}, widths {widths}, "
          f"success in the terms' own ranges {success:.3f}")  # fmt: skip
    assert trend(entropy) >= 0.8 and entropy[-1] - entropy[0] >= 1.5
    assert min(widths.values()) >= 0.3, widths
    assert success is not None and success >= 0.85
