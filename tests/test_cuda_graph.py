"""A captured update: the function itself on a CPU; on a GPU, replays equal to calls."""

import warnings

import pytest
import torch

from poise.batch import Batch
from poise.cuda_graph import Captured, captured
from poise.policies.ppo import PPO
from poise.policies.ppo_config import PPOConfig
from poise.policies.sac import SAC
from poise.policies.sac_config import SACConfig
from poise.spec import ActionTerm, ObsTerm, Spec


def test_on_a_cpu_a_captured_function_is_the_function():
    def function(x):
        return {"x": x}

    assert captured(function, torch.device("cpu")) is function


@pytest.mark.gpu
def test_replays_update_in_place_and_give_metrics_that_stay():
    total = torch.zeros(3, device="cuda")

    def add(x):
        total.add_(x)
        return {"sum": total.sum()}

    function = captured(add, torch.device("cuda"))
    assert isinstance(function, Captured)
    metrics = [function(torch.full((3,), float(i), device="cuda")) for i in range(8)]
    assert total.tolist() == [28.0] * 3
    assert [float(m["sum"]) for m in metrics] == [3.0 * sum(range(i + 1)) for i in range(8)]


@pytest.mark.gpu
def test_a_generator_that_the_graph_knows_draws_anew_in_every_replay():
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(x):
        return {"x": x + torch.rand((), generator=generator, device="cuda")}

    function = captured(draw, torch.device("cuda"), [generator])
    assert len({float(function(torch.zeros((), device="cuda"))["x"]) for _ in range(8)}) == 8


@pytest.mark.gpu
@pytest.mark.parametrize("change", [{}, {"norm": "layer", "critic": "categorical", "policy_delay": 2}])
def test_the_updates_of_sac_on_a_gpu_equal_those_on_the_cpu_and_never_wait_for_the_host(change):
    motors = ActionTerm("motors", "control", low=(-1.0,) * 2, high=(1.0,) * 2)
    spec = Spec({"state": (ObsTerm("x", (5,)),)}, (motors,), control_dt=0.05)
    config = SACConfig(hidden=(32, 32), batch_size=64, learning_starts=64, compile="off", **change)
    learners = [SAC(spec, config, 1, seed=0, device=device) for device in ("cpu", "cuda")]
    g = torch.Generator().manual_seed(0)
    for i in range(8):
        b = Batch({"state": torch.randn(64, 5, generator=g)}, torch.rand(64, 2, generator=g), torch.randn(64, generator=g),
                  {"state": torch.randn(64, 5, generator=g)}, torch.rand(64, generator=g) < 0.1,
                  torch.zeros(64, dtype=torch.bool))  # fmt: skip
        noise = torch.randn(128, 2, generator=g)
        for learner in learners:
            with torch.no_grad():
                here = b.to(learner.device)
                moved = noise.to(learner.device)
                torch.cuda.set_sync_debug_mode("error" if i > 4 and learner.device.type == "cuda" else "default")
                learner.core.update(learner._see(here.obs), here.action, here.reward, learner._see(here.next_obs),
                                    here.terminated, None, moved, i % config.policy_delay == 0)  # fmt: skip
                torch.cuda.set_sync_debug_mode("default")
    on_cpu, on_gpu = (learner.core.tensors() for learner in learners)
    assert max(float((on_cpu[k] - on_gpu[k].cpu()).abs().max()) for k in on_cpu) < 1e-3


@pytest.mark.gpu
def test_an_update_of_ppo_on_a_gpu_equals_one_on_the_cpu_and_waits_for_the_host_twice_at_most():
    motors = ActionTerm("motors", "control", low=(-1.0,) * 2, high=(1.0,) * 2)
    spec = Spec({"state": (ObsTerm("x", (5,)),)}, (motors,), control_dt=0.05)
    config = PPOConfig(hidden=(32, 32), collect_steps=16, minibatches=4, epochs=3)
    learners = [PPO(spec, config, 8, seed=0, device=device) for device in ("cpu", "cuda")]
    g = torch.Generator().manual_seed(0)
    for i in range(4):
        orders = iter([torch.randperm(128, generator=g) for _ in range(config.epochs)] * 2)
        b = Batch({"state": torch.randn(8, 16, 5, generator=g)}, torch.zeros(8, 16, 2), torch.randn(8, 16, generator=g),
                  {"state": torch.randn(8, 16, 5, generator=g)}, torch.rand(8, 16, generator=g) < 0.1,
                  torch.zeros(8, 16, dtype=torch.bool), extras={"raw_action": torch.randn(8, 16, 2, generator=g)})  # fmt: skip
        for learner in learners:
            there = b.to(learner.device)
            moved = [next(orders).to(learner.device) for _ in range(config.epochs)]
            with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter("always")
                patch.setattr(torch, "randperm", lambda *_, moved=moved, **__: moved.pop(0))
                torch.cuda.set_sync_debug_mode("warn" if learner.device.type == "cuda" else "default")
                learner.update(there)
                torch.cuda.set_sync_debug_mode("default")
            assert i == 0 or len(waits) <= 2, [str(w.message) for w in waits]
    assert float((learners[0].networks.flat - learners[1].networks.flat.cpu()).abs().max()) < 1e-3
