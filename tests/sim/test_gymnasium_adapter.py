"""The gym: adapter: successors and episodes, against counters known by hand and against Gymnasium itself."""

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorWrapper

from conformance import check_vec_env
from poise.keyed import Stream
from poise.sim.gymnasium_adapter import make_gym

from .counters import FAST, SLOW, Counter, Shapes, assert_same_step, column, random_action, worlds

MODES = list(AutoresetMode)
pytestmark = pytest.mark.usefixtures("registered")


@pytest.mark.parametrize("mode", [AutoresetMode.DISABLED, AutoresetMode.SAME_STEP])
def test_a_slow_and_a_fast_counter_give_the_table_worked_out_by_hand(mode):
    env = worlds(mode)
    assert column(env.reset(0)["state"]) == [0, 0]
    #        next_obs, obs,    terminated,     truncated       (slow: time runs out at 4; fast: the task ends at 6)
    table = [([1, 2], [1, 2], [False, False], [False, False]),
             ([2, 4], [2, 4], [False, False], [False, False]),
             ([3, 6], [3, 0], [False, True], [False, False]),
             ([4, 2], [0, 2], [False, False], [True, False]),
             ([1, 4], [1, 4], [False, False], [False, False]),
             ([2, 6], [2, 0], [False, True], [False, False])]  # fmt: skip
    for next_obs, obs, terminated, truncated in table:
        step = env.step(torch.tensor([[SLOW], [FAST]]))
        assert column(step.next_obs["state"]) == next_obs
        assert column(step.obs["state"]) == obs
        assert column(step.reward) == next_obs
        assert (step.terminated.tolist(), step.truncated.tolist()) == (terminated, truncated)
        assert step.mask is None
        assert step.success.tolist() == [x == 6 for x in next_obs]


def test_in_next_step_mode_the_step_after_the_end_is_masked_and_brings_the_new_episode():
    env = worlds(AutoresetMode.NEXT_STEP)
    env.reset(0)
    #        next_obs, obs,    done,           mask
    table = [([1, 2], [1, 2], [False, False], [True, True]),
             ([2, 4], [2, 4], [False, False], [True, True]),
             ([3, 6], [3, 6], [False, True], [True, True]),
             ([4, 0], [4, 0], [True, False], [True, False]),
             ([0, 2], [0, 2], [False, False], [False, True]),
             ([1, 4], [1, 4], [False, False], [True, True])]  # fmt: skip
    for next_obs, obs, done, mask in table:
        step = env.step(torch.tensor([[SLOW], [FAST]]))
        assert column(step.next_obs["state"]) == next_obs
        assert column(step.obs["state"]) == obs
        assert (step.done.tolist(), step.mask.tolist()) == (done, mask)
        assert column(step.reward) == [x * m for x, m in zip(next_obs, mask, strict=True)]


@pytest.mark.parametrize("mode", MODES)
def test_every_transition_equals_that_of_a_plain_single_environment(mode):
    env = worlds(mode, "PoiseRandomCounter-v0", num_envs=3)
    obs, generator = env.reset(5), torch.Generator().manual_seed(0)
    transitions = [[] for _ in range(3)]
    for _ in range(60):
        action = random_action(env, generator)
        step = env.step(action)
        for w in range(3):
            if step.mask is None or step.mask[w]:
                row = (obs["state"], step.reward, step.next_obs["state"], step.terminated, step.truncated)
                transitions[w].append((float(action[w, 0]), *(float(x[w]) for x in row)))
        obs = step.obs
    stream = Stream(5, "gym/episode")
    for w in range(3):
        assert len({t[1] for t in transitions[w]}) > 3
        plain, episode = gymnasium.make("PoiseRandomCounter-v0"), 0
        first_key = int(stream.integer(0, 0)[0]) + w  # Gymnasium counts up from one seed
        count, _ = plain.reset(seed=int(stream.integer(w, 0)[0]) if mode is AutoresetMode.DISABLED else first_key)
        for action, obs_, reward, next_obs, terminated, truncated in transitions[w]:
            assert obs_ == count[0]
            count, *outcome, _ = plain.step(np.float32([15.0 + 5.0 * action]))
            assert [next_obs, reward, terminated, truncated] == [count[0], *map(float, outcome)]
            if terminated or truncated:
                episode += 1
                key = int(stream.integer(w, episode)[0]) if mode is AutoresetMode.DISABLED else None
                count, _ = plain.reset(seed=key)
        assert episode > 10


class DenseFinalObs(VectorWrapper):
    """Keeps final observations in one array (N, 1), as compiled simulators do."""

    def step(self, actions):
        *result, info = self.env.step(actions)
        if "final_obs" in info:
            info["final_obs"] = np.array([[-1.0] if x is None else x for x in info["final_obs"]])
        return *result, info


def test_final_observations_may_come_as_one_array():
    objects, dense = worlds(AutoresetMode.SAME_STEP), worlds(AutoresetMode.SAME_STEP, wrap=DenseFinalObs)
    objects.reset(0), dense.reset(0)
    for _ in range(12):
        action = torch.tensor([[SLOW], [FAST]])
        assert_same_step(objects.step(action), dense.step(action))


def test_ending_and_running_out_of_time_in_one_step_is_reported_as_both():
    env = make_gym("PoiseCounter-v0", 1)
    env.reset(0)
    for action in (SLOW, SLOW, FAST, FAST):
        step = env.step(torch.tensor([[action]]))
    assert bool(step.terminated) and bool(step.truncated) and column(step.next_obs["state"]) == [6]


def test_an_earlier_step_keeps_its_tensors():
    env = make_gym("PoiseCounter-v0", 1)
    first = env.reset(0)
    steps = [env.step(torch.tensor([[SLOW]])) for _ in range(4)]
    assert column(first["state"]) == [0]
    assert [column(s.next_obs["state"]) for s in steps] == [[1], [2], [3], [4]]
    assert [column(s.obs["state"]) for s in steps] == [[1], [2], [3], [0]]


def test_the_spec_says_what_gymnasium_says():
    env = make_gym("HalfCheetah-v5", 2)
    assert (env.spec.obs_dim(), env.spec.action_dim, env.spec.control_dt) == (17, 6, pytest.approx(0.05))
    assert (env.max_episode_steps, env.num_envs) == (1000, 2)
    assert env.reset(0)["state"].dtype == torch.float32
    assert make_gym("PoiseCounter-v0", 1).spec.control_dt == 0.25
    assert make_gym("PoiseSignpost-v0", 1).spec.control_dt == 1.0
    assert make_gym("PoiseSignpost-v0", 1).max_episode_steps == 0


def test_steps_equal_gymnasium_s_own_to_the_bit_on_a_real_environment():
    env, plain = make_gym("Pendulum-v1", 1), gymnasium.make("Pendulum-v1")
    obs = env.reset(3)["state"]
    expected, _ = plain.reset(seed=int(Stream(3, "gym/episode").integer(0, 0)[0]))
    np.testing.assert_array_equal(obs[0].numpy(), expected)
    for action in torch.linspace(-1, 1, 200):
        step = env.step(action.reshape(1, 1))
        expected, reward, _, truncated, _ = plain.step(-2.0 + 0.5 * (action.numpy().reshape(1) + 1.0) * 4.0)
        np.testing.assert_array_equal(step.next_obs["state"][0].numpy(), expected)
        assert float(step.reward) == np.float32(reward)
        assert bool(step.truncated) == truncated


def test_discrete_observations_are_one_hot_and_both_spaces_may_start_anywhere():
    env = make_gym("PoiseSignpost-v0", 2)
    assert env.reset(0)["state"].tolist() == [[1, 0, 0], [1, 0, 0]]
    step = env.step(torch.tensor([[0], [1]]))
    assert step.next_obs["state"].tolist() == [[0, 1, 0], [0, 0, 1]]
    assert column(step.reward) == [1, 2]
    assert (env.spec.actions[0].kind, env.spec.actions[0].n) == ("discrete", 2)


def test_observations_of_several_axes_are_flattened():
    gymnasium.register("PoiseShapes-v0", Shapes, kwargs={"observation": spaces.Box(0, 1, (2, 3)), "action":
                                                          Counter.action_space})  # fmt: skip
    assert make_gym("PoiseShapes-v0", 1).spec.obs_dim() == 6


@pytest.mark.parametrize("id", ["Pendulum-v1", "CartPole-v1", "HalfCheetah-v5"])
def test_any_gymnasium_environment_keeps_the_contract_of_a_vec_env(id):
    check_vec_env(lambda n: make_gym(id, n))
