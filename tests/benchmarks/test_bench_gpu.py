"""The rows of `poise bench gpu` run on a machine without one, with a few worlds, and say what they did not measure."""

import sys
from pathlib import Path

import pytest
import torch

from poise.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent))
import bench_gpu
import device_clock


def test_a_row_of_worlds_and_one_of_learning_run_on_a_cpu(monkeypatch):
    monkeypatch.setattr(device_clock, "WARM_UPS", 1)
    cpu = torch.device("cpu")
    physics = bench_gpu.physics("reach/fr3", 256, cpu, 0.0)
    assert physics["worlds"] == 8 and physics["physics_steps_per_s"] > physics["env_steps_per_s"] > 0
    learning = bench_gpu.update_of_ppo(cpu, 0.0)
    assert learning["ours_ms"] > 0 and "not measured" in str(learning["rsl_rl_ms"])


def test_a_row_that_cannot_be_measured_says_why_and_leaves_the_others(monkeypatch, capsys):
    lost = bench_gpu.Case(
        "lost, 1 worlds", lambda device, seconds: bench_gpu.physics("lift/nobody", 1, device, seconds)
    )
    monkeypatch.setattr(bench_gpu, "CASES", [lost])
    bench_gpu._row("lost, 1 worlds", 0.0, "cpu")
    assert "unknown task 'lift/nobody'" in capsys.readouterr().out


def test_an_unknown_row_is_told(capsys):
    with pytest.raises(UsageError, match="unknown benchmark"):
        bench_gpu.rows(0.0, "nothing like this", "cpu")
