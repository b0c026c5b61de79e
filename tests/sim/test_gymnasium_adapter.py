"""The gym: adapter, against counters whose every successor is known by hand, and against Gymnasium itself."""

import sys

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorWrapper

from conformance import check_vec_env
from poise.errors import PoiseError, RunError, SpecError, UsageError
from poise.keyed import Stream
from poise.sim.gymnasium_adapter import GymVecEnv, make_gym
from poise.sim.worlds import Worlds

MODES = list(AutoresetMode)
SLOW, FAST = -1.0, 1.0  # actions: the counter goes up by 1, by 2


class Counter(gymnasium.Env):
    """Counts up from a start below `starts`; 6 or more is the end of the task, and 6 exactly a success."""

    metadata = {"render_modes": [], "render_fps": 4}  # noqa: RUF012 (Gymnasium's own form)
    observation_space = spaces.Box(-100.0, 100.0, (1,), np.float64)
    action_space = spaces.Box(np.float32([10.0]), np.float32([20.0]))  # 10 is slow, 20 is fast

    def __init__(self, starts: int = 1):
        self.starts = starts

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = int(self.np_random.integers(self.starts))
        return self._obs(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.count += 2 if action[0] > 15.0 else 1
        action *= 0.0  # as some simulators do; the record for replaying must not notice
        return self._obs(), float(self.count), self.count >= 6, False, {"is_success": self.count == 6}

    def _obs(self):
        return np.array([self.count], np.float64)


class LeakyCounter(Counter):
    """Its reset forgets to clear something, so that its third episode counts on from the second."""

    episodes = 0

    def reset(self, *, seed=None, options=None):
        self.episodes += 1
        return super().reset(seed=seed)

    def _obs(self):
        return super()._obs() + (0.25 * self.count if self.episodes > 1 else 0.0)


class Signpost(gymnasium.Env):
    """A Discrete observation from 3 to 5 that goes where a Discrete action from 1 to 2 sends it."""

    observation_space = spaces.Discrete(3, start=3)
    action_space = spaces.Discrete(2, start=1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return 3, {}

    def step(self, action):
        return 3 + int(action), float(action), False, False, {}


class Shapes(Counter):
    """Any pair of spaces."""

    def __init__(self, observation, action):
        super().__init__()
        self.observation_space, self.action_space = observation, action


@pytest.fixture(autouse=True)
def registered():
    """The environments of this file, in Gymnasium's registry for the length of a test."""
    before = dict(gymnasium.registry)
    gymnasium.register("PoiseCounter-v0", Counter, max_episode_steps=4)
    gymnasium.register("PoiseRandomCounter-v0", Counter, max_episode_steps=4, kwargs={"starts": 5})
    gymnasium.register("PoiseLeakyCounter-v0", LeakyCounter, max_episode_steps=4)
    gymnasium.register("PoiseSignpost-v0", Signpost)
    yield
    gymnasium.registry.clear()
    gymnasium.registry.update(before)


def worlds(mode, id="PoiseCounter-v0", num_envs=2, wrap=lambda env: env):
    vector = SyncVectorEnv([lambda: gymnasium.make(id)] * num_envs, autoreset_mode=mode)
    return GymVecEnv(wrap(vector), name=id)


def column(tensor):
    return [float(x) for x in tensor.flatten()]


def random_action(env, generator):
    if env.spec.discrete:
        return torch.randint(env.spec.actions[0].n, (env.num_envs, 1), generator=generator)
    return torch.rand(env.num_envs, env.spec.action_dim, generator=generator) * 2 - 1


def assert_same_step(a, b):
    for name in ("reward", "terminated", "truncated"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert torch.equal(a.obs["state"], b.obs["state"])
    assert torch.equal(a.next_obs["state"], b.next_obs["state"])


# ---- successors ------------------------------------------------------------------------------


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


# ---- spec, actions ---------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (torch.zeros(2), r"shape \(2, 1\), got \(2,\)"),
        (torch.tensor([[0.0], [1.5]]), r"\[-1, 1\]; world 1 was given 1.5 at index 0"),
        (torch.tensor([[float("nan")], [0.0]]), "world 0 was given nan"),
    ],
)
def test_an_action_that_does_not_fit_is_refused(action, message):
    env = make_gym("PoiseCounter-v0", 2)
    env.reset(0)
    with pytest.raises(SpecError, match=message):
        env.step(action)


@pytest.mark.parametrize("action", [torch.tensor([[2]]), torch.tensor([[-1]]), torch.tensor([[0.5]])])
def test_a_choice_that_does_not_exist_is_refused(action):
    env = make_gym("PoiseSignpost-v0", 1)
    env.reset(0)
    with pytest.raises(SpecError, match="whole numbers from 0 to 1"):
        env.step(action)


def test_stepping_before_reset_is_refused():
    with pytest.raises(PoiseError, match="call reset first"):
        make_gym("PoiseCounter-v0", 1).step(torch.zeros(1, 1))


# ---- errors ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("id", "message"),
    [
        ("HalfChetah-v5", "did you mean HalfCheetah-v5"),
        ("CartPole-v7", "did you mean CartPole-v1"),
        ("FetchReach-v4", r"pip install 'poise\[robotics\]'"),
        ("zoo/Lion-v0", "install the package that provides zoo/.*gym:MODULE:zoo/Lion-v0"),
        ("Qqqqqqq-v0", "gym:MODULE:Qqqqqqq-v0"),
        ("no_such_module:Lion-v0", "No module named 'no_such_module'"),
        ("not an id", "Malformed"),
    ],
)
def test_an_unknown_id_says_what_to_do(id, message, monkeypatch):
    gymnasium.registry.pop("FetchReach-v4", None)
    monkeypatch.setitem(sys.modules, "gymnasium_robotics", None)  # as where it is not installed
    with pytest.raises(UsageError, match=message):
        make_gym(id, 1)


def test_no_worlds_are_refused():
    with pytest.raises(UsageError, match="at least 1, not 0"):
        make_gym("PoiseCounter-v0", 0)


@pytest.mark.parametrize(
    ("observation", "action", "message"),
    [
        (
            spaces.Dict(a=spaces.Tuple([Counter.observation_space])),
            Counter.action_space,
            r"observation space Tuple\(Box.* not supported",
        ),
        (spaces.Box(0, 255, (4, 8, 8, 3), np.uint8), Counter.action_space, r"\(4, 8, 8, 3\).* not supported"),
        (Counter.observation_space, spaces.Box(-np.inf, np.inf, (2,)), "unbounded"),
        (Counter.observation_space, spaces.Box(-1, np.inf, (2,)), "unbounded"),
        (Counter.observation_space, spaces.Box(0, 1, (2, 2)), r"action space Box\(0.0, 1.0, \(2, 2\)"),
        (Counter.observation_space, spaces.MultiDiscrete([2, 2]), r"action space MultiDiscrete\(\[2 2\]\)"),
        (Counter.observation_space, spaces.Discrete(1), "leaves no choice"),
    ],
)
def test_spaces_that_are_not_supported_are_named(observation, action, message):
    gymnasium.register("PoiseShapes-v0", Shapes, kwargs={"observation": observation, "action": action})
    with pytest.raises(UsageError, match=message):
        make_gym("PoiseShapes-v0", 1)


def test_observations_of_several_axes_are_flattened():
    gymnasium.register("PoiseShapes-v0", Shapes, kwargs={"observation": spaces.Box(0, 1, (2, 3)), "action":
                                                          Counter.action_space})  # fmt: skip
    assert make_gym("PoiseShapes-v0", 1).spec.obs_dim() == 6


class Declares(VectorWrapper):
    """A VectorEnv whose metadata says something else than it does."""

    def __init__(self, env, mode):
        super().__init__(env)
        self.metadata = {"autoreset_mode": mode}


def test_a_vector_env_must_declare_how_it_resets():
    with pytest.raises(UsageError, match=r"autoreset_mode.*found None"):
        worlds(AutoresetMode.DISABLED, wrap=lambda env: Declares(env, None))


@pytest.mark.parametrize(
    ("does", "says"),
    [(AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP), (AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP)],
)
def test_a_false_declaration_is_found_out_at_the_first_end(does, says):
    env = worlds(does, wrap=lambda env: Declares(env, says))
    env.reset(0)
    with pytest.raises(PoiseError, match=f"declares auto-reset mode {says.name}.*correct its metadata"):
        for _ in range(4):
            env.step(torch.full((2, 1), SLOW))


# ---- exact resume ----------------------------------------------------------------------------


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


@pytest.mark.parametrize("id", ["Pendulum-v1", "CartPole-v1", "HalfCheetah-v5"])
def test_any_gymnasium_environment_keeps_the_contract_of_a_vec_env(id):
    check_vec_env(lambda n: make_gym(id, n))


class Breaks(Counter):
    """Counts, and goes wrong in the step that should give `when`: in its reward, or in what it shows."""

    def __init__(self, when: int = 3, what: str = "reward"):
        super().__init__()
        self.when, self.what = when, what

    def step(self, action):
        obs, reward, terminated, truncated, info = super().step(action)
        if self.count == self.when:
            return (obs, float("nan"), True, truncated, info) if self.what == "reward" else (
                obs * np.inf, reward, terminated, truncated, info)  # fmt: skip
        return obs, reward, terminated, truncated, info


@pytest.mark.parametrize("what", ["reward", "obs"])
def test_a_world_that_breaks_is_contained_counted_and_reset_and_the_others_go_on(what):
    env = GymVecEnv(Worlds([lambda: Breaks(what=what), Counter]), name="breaks")
    env.reset(0)
    env.step(torch.full((2, 1), SLOW))
    step = env.step(torch.full((2, 1), SLOW))  # world 0 goes from 1 to what should be 2, then to 3
    while env.bad_worlds == 0:
        before, step = step, env.step(torch.full((2, 1), SLOW))
    assert env.bad_worlds == 1
    assert step.reward.tolist()[0] == 0.0 and step.reward[1] > 0
    assert step.truncated.tolist() == [True, False] and not step.terminated.any()
    assert step.next_obs["state"][0] == before.obs["state"][0], "the successor is the last sound observation"
    assert torch.isfinite(step.obs["state"]).all() and step.obs["state"][0] == 0.0
    assert step.next_obs["state"][1] == before.obs["state"][1] + 1
    again = GymVecEnv(Worlds([lambda: Breaks(what=what), Counter]), name="breaks")
    again.load_state_dict(env.state_dict())
    assert again.bad_worlds == 1


def test_where_nobody_can_reset_a_world_a_broken_reward_is_masked_and_a_broken_observation_refused():
    env = GymVecEnv(SyncVectorEnv([Breaks], autoreset_mode=AutoresetMode.NEXT_STEP), name="breaks")
    env.reset(0)
    masks = [env.step(torch.full((1, 1), SLOW)).mask for _ in range(4)]
    assert env.bad_worlds == 1 and sum(not bool(m.all()) for m in masks) >= 1
    env = GymVecEnv(SyncVectorEnv([lambda: Breaks(what="obs")], autoreset_mode=AutoresetMode.SAME_STEP), name="breaks")
    env.reset(0)
    with pytest.raises(PoiseError, match="world 0 gave an observation that is not finite"):
        for _ in range(4):
            env.step(torch.full((1, 1), SLOW))


def test_our_worlds_step_as_gymnasium_s_own_do():
    makers = [lambda: gymnasium.make("CartPole-v1")] * 3
    ours, theirs = Worlds(makers), SyncVectorEnv(makers, autoreset_mode=AutoresetMode.DISABLED)
    first = ours.reset(seed=[1, 2, 3])[0], theirs.reset(seed=[1, 2, 3])[0]
    np.testing.assert_array_equal(*first)
    rng = np.random.default_rng(0)
    for _ in range(60):
        action = rng.integers(2, size=3)
        for a, b in zip(ours.step(action)[:4], theirs.step(action)[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        ended = theirs._terminations | theirs._truncations
        if ended.any():
            options = {"reset_mask": ended}
            np.testing.assert_array_equal(ours.reset(seed=[4, 5, 6], options=options)[0],
                                          theirs.reset(seed=[4, 5, 6], options=options)[0])  # fmt: skip
