"""A policy trained in simulation does as well on an arm that is reached by its vendor's protocol."""

import os

import pytest

import poise
from poise.real_robot.emulators.launch import start_emulator

PLACES = {
    "ur5e": {"host": "127.0.7.42"},
    "so101": {},
    "vx300s": {},
    "xarm7": {"host": "127.0.7.41"},
    "ros2:fr3": {"link": f"/learning_{os.getpid()}"},
}


def scores(policy, robot, emulator, episodes):
    """Success in simulation, on the twin, and through the protocol, the last two in the very same episodes."""
    simulated = poise.evaluate(poise.load_policy(policy), f"reach/{robot}", episodes=10 * episodes, seed=1)
    twin = poise.deploy(policy, f"twin:{robot}", episodes=episodes, seed=1)
    with start_emulator(emulator, virtual=True, **PLACES[emulator]) as device:
        arm = poise.deploy(policy, device.address, episodes=episodes, seed=1)
    assert (
        arm["out_of_limit"] == 0 and arm["faults"] == 0 and arm["commands"] == pytest.approx(twin["commands"], rel=0.01)
    )
    return simulated.success_rate, twin["success_rate"], arm["success_rate"]


@pytest.mark.learning
@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    ("robot", "emulator"),
    [("ur5e", "ur5e"), ("so101", "so101"), ("vx300s", "vx300s"), ("xarm7", "xarm7"), ("fr3", "ros2:fr3")],
)
def test_reach_scores_within_5_points_of_simulation_through_the_protocol(robot, emulator, tmp_path):
    run = poise.train("ppo", f"reach/{robot}", tmp_path / "run", settings={"seed": 0, "threads": 1})
    simulated, twin, arm = scores(run.policy, robot, emulator, episodes=20)
    print(f"{robot}: simulation {simulated:.3f}, twin {twin:.3f}, through {emulator} {arm:.3f}")
    assert simulated > 0.9 and arm >= simulated - 0.05 and arm >= twin - 0.05
