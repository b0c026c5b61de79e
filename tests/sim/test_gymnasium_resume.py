"""The gym: adapter: worlds go on from a saved state to the bit, or say why they cannot."""

import numpy as np
import pytest
import torch
from gymnasium.vector import AutoresetMode

from poise.errors import RunError
from poise.sim.gymnasium_adapter import make_gym

from .counters import FAST, SLOW, assert_same_step, random_action, worlds

pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize("id", ["HalfCheetah-v5", "Hopper-v5", "Pendulum-v1", "CartPole-v1", "PoiseSignpost-v0"])
def test_a_fresh_process_s_worlds_go_on_from_a_state_to_the_bit(id):
    lived, generator = make_gym(id, 3), torch.Generator().manual_seed(1)
    lived.reset(7)
    for _ in range(330):  # Hopper, Pendulum, CartPole: mid-episode after several
        step = lived.step(random_action(lived, generator))
    state = lived.state_dict()
    if id in ("Hopper-v5", "Pendulum-v1", "CartPole-v1"):
        assert min(state["episode"]) >= 1 and max(state["steps"]) > 1
    fresh = make_gym(id, 3)
    assert torch.equal(fresh.load_state_dict(state)["state"], step.obs["state"])
    for _ in range(300):
        action = random_action(lived, generator)
        assert_same_step(lived.step(action), fresh.step(action))
    for key, value in lived.state_dict().items():
        assert np.array_equal(value, fresh.state_dict()[key]), key


def test_the_last_step_before_a_time_limit_survives_and_worlds_may_be_at_different_steps():
    lived = make_gym("PoiseRandomCounter-v0", 4)
    lived.reset(2)
    for t in range(30):
        action = torch.where(torch.arange(4)[:, None] % 2 == t % 2, SLOW, FAST)
        step = lived.step(action)
        fresh = make_gym("PoiseRandomCounter-v0", 4)
        assert torch.equal(fresh.load_state_dict(lived.state_dict())["state"], step.obs["state"])
        action = action.flip(0)
        twice = make_gym("PoiseRandomCounter-v0", 4)
        twice.load_state_dict(fresh.state_dict())
        assert_same_step(fresh.step(action), twice.step(action))


def test_an_episode_depends_on_its_own_key_alone():
    a, b = make_gym("PoiseRandomCounter-v0", 1), make_gym("PoiseRandomCounter-v0", 3)
    a.reset(4), b.reset(4)
    for _ in range(20):
        one, three = a.step(torch.full((1, 1), SLOW)), b.step(torch.full((3, 1), SLOW))
        assert torch.equal(one.obs["state"][0], three.obs["state"][0])
    assert a.reset(4)["state"].equal(make_gym("PoiseRandomCounter-v0", 1).reset(4)["state"])


def test_a_simulator_that_does_not_clear_itself_is_found_out():
    env = make_gym("PoiseLeakyCounter-v0", 2)
    env.reset(0)
    for _ in range(6):
        env.step(torch.tensor([[SLOW], [SLOW]]))
    with pytest.raises(
        RunError, match="world 0 cannot be restored: replaying its episode 1, it differs at step 1 of 2"
    ):
        make_gym("PoiseLeakyCounter-v0", 2).load_state_dict(env.state_dict())


def test_commands_that_end_an_episode_early_on_replay_are_found_out():
    env = make_gym("PoiseCounter-v0", 1)
    env.reset(0)
    for _ in range(3):
        env.step(torch.tensor([[SLOW]]))
    state = env.state_dict()
    state["commands"] = np.full_like(state["commands"], 20.0)
    with pytest.raises(RunError, match=r"world 0 .* differs at step 1 of 3"):
        env.load_state_dict(state)


def test_a_state_that_does_not_fit_is_refused():
    env = make_gym("PoiseCounter-v0", 2)
    env.reset(0)
    with pytest.raises(RunError, match=r"gym:PoiseCounter-v0 with 2 worlds cannot be restored into .* with 3"):
        make_gym("PoiseCounter-v0", 3).load_state_dict(env.state_dict())
    with pytest.raises(RunError, match="checkpoint is damaged"):
        env.load_state_dict({**env.state_dict(), "fingerprints": np.zeros(1, np.int64)})
    with pytest.raises(RunError, match="before the first reset"):
        make_gym("PoiseCounter-v0", 1).state_dict()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_worlds_that_reset_themselves_say_why_they_cannot_be_saved(mode):
    env = worlds(mode)
    env.reset(0)
    with pytest.raises(RunError, match=f"{mode.name} cannot be saved, since they reset themselves unseeded"):
        env.state_dict()
    with pytest.raises(RunError, match="cannot be restored"):
        env.load_state_dict({})
