"""Automatic domain randomization: the fixed point of a known capability, what a bound does, and what a run keeps."""

import json
import math

import gymnasium
import numpy as np
import pytest
import torch

import poise.envs  # noqa: F401 (registers)
from poise.errors import UsageError
from poise.sim.adr import AdaptiveRandomization, Adr, Dimension, Search, adaptive
from poise.sim.make import make
from poise.sim.randomization import Randomization, Term
from poise.sim.task_env import TaskEnv
from tests.conformance import check_vec_env

from .two_link import TwoLink

MASS = Term("mass", "link_mass", ("upper", "lower"), range=(0.7, 1.3))
DAMPING = Term("damping", "joint_damping", "*", distribution="loguniform", range=(0.5, 2.0))
LATENCY = Term("latency", "action_latency", range=(0.0, 0.08), operation="set")
BIAS = Term("bias", "joint_pos_bias", "*", distribution="normal", mean=0.0, std=0.01, operation="set")
TERMS = Randomization((MASS, DAMPING, LATENCY, BIAS))


def _symmetric(**limits: float) -> AdaptiveRandomization:
    """Dimensions around 0 with steps of 0.02: noise biases, whose numbers may have any sign."""
    terms = tuple(Term(name, "joint_pos_bias", "*", range=(-c, c), operation="set") for name, c in limits.items())
    dimensions = {name: Dimension(0.0, -4.0, 4.0, 0.02) for name in limits}
    return AdaptiveRandomization(terms, Adr(dimensions, queue=20, t_low=0.3, t_high=0.7))


@pytest.mark.parametrize("seed", [0, 1])
def test_bounds_settle_where_half_of_the_boundary_episodes_succeed(seed):
    """Capability is separable: an episode on a bound of dimension i succeeds with probability
    1 / (1 + exp((|x_i| / c_i - 1) / .1)), whatever the others draw.

    A bound moves out where 14 of 20 succeed and in where 6 do, equally likely where the probability is 1/2: at |x| = c.
    The entropy is then mean log 2c = log(1 2 3 4) / 4 = .7945 nats per dimension (OpenAI 2019, whose formula this is).
    """
    c, worlds = np.array([0.5, 1.0, 1.5, 2.0]), 100
    search = Search(_symmetric(a=0.5, b=1.0, c=1.5, d=2.0), worlds)
    rng, rows, sizes = np.random.default_rng(seed), np.arange(worlds), dict.fromkeys("abcd", 1)
    for episode in range(2000):  # 200,000 episodes
        drawn = search.draw(seed, rows, np.full(worlds, episode), sizes)
        values = np.concatenate([drawn[name] for name in "abcd"], axis=1)  # (N, 4)
        on = search._on // 2
        chance = 1.0 / (1.0 + np.exp((np.abs(values[rows, on]) / c[on] - 1.0) / 0.1))
        search.ended(rows, rng.random(worlds) < chance)
    settled = np.abs(search.bounds) / c[:, None]
    assert (settled > 0.93).all() and (settled < 1.05).all(), settled  # one step is 4 % of the smallest c
    assert search.entropy == pytest.approx(0.7945, abs=0.02)


def test_results_from_before_a_bound_moved_do_not_count():
    """A thousand worlds on one bound move it by one step, not by as many as there are queues full of results."""
    search = Search(adaptive(Randomization((MASS,)), {"queue": 4}), 1000)
    rows, step = np.arange(1000), 0.3 / 8
    for episode in (0, 1):
        search.draw(0, rows, np.full(1000, episode), {"mass": 2})
        search.ended(rows, np.ones(1000, bool))
        assert search.bounds[0] == pytest.approx([1.0 - (episode + 1) * step, 1.0 + (episode + 1) * step])


def test_dimensions_begin_where_nothing_changes_and_end_at_possible_values():
    d = adaptive(TERMS, {"wider": 2.0}).adr.dimensions
    assert adaptive(TERMS).adr.dimensions["mass"].high == pytest.approx(1.3)  # by default, the range's own end
    assert d["mass"] == Dimension(1.0, pytest.approx(0.4), pytest.approx(1.6), pytest.approx(0.3 / 8))
    assert d["latency"] == Dimension(0.0, 0.0, 0.16, 0.01)  # a delay has no low side
    assert d["damping"].log and d["damping"].high == pytest.approx(2 * math.log(2)) and d["damping"].nominal == 0.0
    assert (d["bias"].low, d["bias"].high) == pytest.approx((-0.06, 0.06))  # three deviations, twice
    heavy = adaptive(Randomization((Term("m", "link_mass", "*", range=(0.3, 3.0)),)), {"wider": 2.0}).adr.dimensions[
        "m"
    ]
    assert heavy.low == 0.05 and heavy.high == 5.0  # a mass stays positive
    dropped = Randomization((Term("d", "obs_dropout", "angles", range=(0.0, 0.7), operation="set"),))
    assert adaptive(dropped, {"wider": 2.0}).adr.dimensions["d"].high == 1.0  # a chance


def test_what_is_set_in_physics_must_say_where_it_begins():
    friction = Term("grip", "geom_friction", "table", range=(0.5, 1.0), operation="set")
    assert set(adaptive(Randomization((friction, MASS))).adr.dimensions) == {"mass"}  # it keeps its range
    with pytest.raises(UsageError, match="nothing says where 'grip' begins; give its nominal"):
        adaptive(Randomization((friction,)), {"dimensions": {"grip": {"step": 0.1}}})
    wish = {"nominal": 0.8, "low": 0.2, "high": 1.5, "step": 0.1}
    assert adaptive(Randomization((friction,)), {"dimensions": {"grip": wish}}).adr.dimensions["grip"].high == 1.5


def test_what_is_added_gets_no_lower_limit_than_its_range():
    softer = Term("softer", "joint_damping", "*", range=(-0.1, 0.2), operation="add")
    dimension = adaptive(Randomization((softer,)), {"wider": 2.0}).adr.dimensions["softer"]
    assert (dimension.low, dimension.high) == (-0.1, 0.4)  # lower, the smallest default might become negative


def test_whole_numbers_stay_whole_and_are_equally_likely():
    term = Term("bias", "joint_pos_bias", "*", distribution="integer", range=(0, 2), operation="set")
    search = Search(adaptive(Randomization((term,)), {"wider": 2.0, "queue": 20}), 3000)
    assert search.adr.dimensions["bias"] == Dimension(0.0, 0.0, 4.0, 1.0)
    search.restart()
    for _ in range(2):
        search._on[:], search._began[:] = 1, search._moves[1]
        search.ended(np.arange(20), np.ones(20, bool))
    drawn = search.draw(0, np.arange(3000), np.zeros(3000, int), {"bias": 1})["bias"]
    free = drawn[search._on < 0]
    assert [round(float((free == k).mean()), 1) for k in (0, 1, 2)] == [0.3, 0.3, 0.3] and (
        drawn[search._on == 1] == 2
    ).all()


def test_a_term_may_keep_its_range():
    fixed = adaptive(TERMS, {"dimensions": {"mass": None}})
    assert "mass" not in fixed.adr.dimensions and fixed.widest().terms[0] == MASS
    drawn = Search(fixed, 8).draw(
        0, np.arange(8), np.zeros(8, int), dict.fromkeys(("mass", "damping", "latency", "bias"), 1)
    )
    assert np.ptp(drawn["mass"]) > 0.1


def test_at_first_every_world_is_the_model_as_it_is():
    search = Search(adaptive(TERMS), 64)
    drawn = search.draw(0, np.arange(64), np.zeros(64, int), {"mass": 2, "damping": 2, "latency": 1, "bias": 2})
    assert (drawn["mass"] == 1).all() and (drawn["damping"] == 1).all()
    assert (drawn["latency"] == 0).all() and (drawn["bias"] == 0).all()
    on = search._on[search._on >= 0]
    assert 20 < len(on) < 44 and set(on) == {0, 1, 2, 3, 5, 6, 7}  # never the low side of the delay


def test_a_full_queue_moves_its_bound_out_in_or_not_at_all():
    search = Search(adaptive(Randomization((MASS,)), {"queue": 4, "t_low": 0.4, "t_high": 0.8, "wider": 2.0}), 1)
    step, success, failure = 0.3 / 8, np.array([True]), np.array([False])

    def play(place, *results):
        for result in results:
            search._on[0], search._began[0] = place, search._moves[place]
            search.ended(np.array([0]), result)

    play(1, success, success, success)
    assert search.bounds[0].tolist() == [1.0, 1.0]  # not full yet
    play(1, success)
    assert search.bounds[0].tolist() == [1.0, 1.0 + step]
    play(0, success, success, success, success)
    assert search.bounds[0].tolist() == [1.0 - step, 1.0 + step]
    play(1, success, success, failure, success)  # 75 %: between the thresholds
    assert search.bounds[0].tolist() == [1.0 - step, 1.0 + step]
    play(1, failure, success, failure, failure)
    assert search.bounds[0].tolist() == [1.0 - step, 1.0]
    play(1, failure, failure, failure, failure)
    assert search.bounds[0].tolist() == [1.0 - step, 1.0]  # never across the nominal value
    for _ in range(40):
        play(0, success, success, success, success)
    assert search.bounds[0].tolist() == [search._limits[0, 0], 1.0]  # nor beyond the limit
    assert search.metrics()["adr/mass/low"] == pytest.approx(0.4)
    play(-1, failure)
    assert "adr/boundary" not in search.metrics()  # episodes that are not on a bound are not results


def test_boundary_episodes_stand_on_their_bound_and_others_lie_between():
    search = Search(adaptive(TERMS), 500)
    search.bounds = np.array([[0.8, 1.2], [-0.5, 0.5], [0.0, 0.1], [-0.01, 0.02]])
    drawn = search.draw(3, np.arange(500), np.full(500, 7), {"mass": 2, "damping": 1, "latency": 1, "bias": 1})
    on = search._on
    assert (drawn["mass"][on == 0] == 0.8).all() and (drawn["mass"][on == 1] == 1.2).all()
    assert np.allclose(drawn["damping"][on == 3], math.exp(0.5)) and (drawn["latency"][on == 5] == 0.1).all()
    free = drawn["mass"][(on != 0) & (on != 1)]
    assert free.min() > 0.8 and free.max() < 1.2 and free.std() == pytest.approx(0.4 / math.sqrt(12), rel=0.1)
    assert not np.array_equal(free[:, 0], free[:, 1])  # each target its own
    logs = np.log(drawn["damping"][(on != 2) & (on != 3)])
    assert abs(logs.mean()) < 0.05 and logs.std() == pytest.approx(1 / math.sqrt(12), rel=0.1)


def test_the_entropy_is_the_mean_logarithm_of_the_widths():
    search = Search(_symmetric(a=1.0, b=1.0), 1)
    assert search.entropy == pytest.approx(math.log(0.02))  # a width of nothing counts as one step
    search.bounds = np.array([[-1.0, 1.0], [0.0, 0.5]])
    assert search.entropy == pytest.approx((math.log(2.0) + math.log(0.5)) / 2)


def test_the_ranges_found_are_a_plain_randomization_that_a_file_can_hold():
    search = Search(adaptive(TERMS), 1)
    search.bounds = np.array([[0.8, 1.2], [-0.5, 0.5], [0.0, 0.1], [-0.01, 0.02]])
    found = search.ranges()
    assert type(found) is Randomization and Randomization.from_json(json.loads(json.dumps(found.to_json()))) == found
    by_name = {t.name: t for t in found.terms}
    assert by_name["mass"].range == (0.8, 1.2) and by_name["bias"].distribution == "uniform"
    assert by_name["damping"].range == pytest.approx((math.exp(-0.5), math.exp(0.5)))


def test_a_file_may_change_any_setting_and_comes_back_the_same():
    data = {
        **TERMS.to_json(),
        "adr": {"t_high": 0.9, "queue": 30, "wider": 2.0, "dimensions": {"mass": {"step": 0.05, "high": 2.0}}},
    }
    read = Randomization.from_json(data)
    assert isinstance(read, AdaptiveRandomization) and read.adr.queue == 30
    assert read.adr.dimensions["mass"] == Dimension(1.0, pytest.approx(0.4), 2.0, 0.05)
    assert Randomization.from_json(json.loads(json.dumps(read.to_json()))) == read


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"quue": 3}, "unknown setting of adr 'quue'"),
        ({"wider": 0.0}, "wider is a number above 0, not 0"),
        ({"queue": 0}, "queue must be at least 1"),
        ({"queue": 2.5}, "queue must be at least 1 and whole"),
        ({"queue": "many"}, "a setting has the wrong form"),
        ({"dimensions": {"mass": 3}}, "'mass' is an object, or null"),
        ({"t_low": 0.9}, r"t_low 0\.9 must be below t_high"),
        ({"boundary": 0.0}, "boundary is a share above 0"),
        ({"measure": "succes"}, "unknown measure 'succes'"),
        ({"dimensions": {"mas": {"step": 1.0}}}, "unknown adr: term drawn for every episode 'mas'"),
        ({"dimensions": {"mass": {"stp": 1.0}}}, "field of dimension 'mass': 'stp'"),
        ({"dimensions": {"mass": {"low": 1.1}}}, "'mass' needs low <= nominal <= high"),
        ({"dimensions": {"mass": {"low": -1.0}}}, "scale of link_mass must be above zero"),
        ({"dimensions": {"mass": {"step": 0.0}}}, "a positive step"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        adaptive(TERMS, settings)


def test_settings_may_follow_the_word_adr():
    env = make("reach/fr3", 1, randomize="adr?t_low=0.2&t_high=0.6&measure=return", training=True)
    assert (env.adr.adr.t_low, env.adr.adr.t_high, env.adr.adr.measure) == (0.2, 0.6, "return")
    with pytest.raises(UsageError, match="unknown setting of adr 't_hihg'"):
        make("reach/fr3", 1, randomize="adr?t_hihg=1", training=True)


def test_nothing_to_search_is_refused():
    with pytest.raises(UsageError, match="no term of this randomization has a range to search"):
        adaptive(Randomization())
    with pytest.raises(UsageError, match="no term of this randomization"):
        make("reach/planar", 1, randomize="adr", training=True)


def test_a_score_on_ranges_that_move_is_refused_and_other_simulators_have_none():
    with pytest.raises(UsageError, match=r"a score on them measures nothing; score on default, or on the adr\.json"):
        make("reach/fr3", 1, randomize="adr")
    for task in ("gym:InvertedPendulum-v5", "robosuite:Lift/Panda", "dmc:cartpole-swingup"):
        for randomize in ("adr", {**Randomization((MASS,)).to_json(), "adr": {}}):
            with pytest.raises(UsageError, match="ranges adapt in Poise's own tasks"):
                make(task, 1, randomize=randomize, training=True)
    with pytest.raises(UsageError, match="every reset of one world begins anew: use make_vec"):
        gymnasium.make("poise/reach-fr3-v0", randomize="adr")


def _quick(**settings) -> AdaptiveRandomization:
    return adaptive(TwoLink.randomization, {"queue": 2, "t_low": 0.1, "t_high": 0.2, **settings})


@pytest.mark.parametrize("threads", [1, 2])
def test_worlds_under_adr_keep_the_contract_in_a_state_of_their_own(threads):
    """Bounds depend on all worlds, so the conformance test's independence of worlds holds for bounds that stand still."""
    check_vec_env(lambda n: TaskEnv(TwoLink(), n, _quick(t_low=-2.0, t_high=2.0), threads=threads))


def test_a_restored_search_goes_on_to_the_bit():
    def actions(steps, seed):
        return torch.rand(steps, 6, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1

    moving = _quick(measure="return", t_low=-1001.0, t_high=-1000.0)
    env = TaskEnv(TwoLink(), 6, moving)
    env.reset(4)
    for action in actions(230, 0):
        env.step(action)
    saved = env.state_dict()
    assert not np.array_equal(saved["adr"]["bounds"][:, 0], saved["adr"]["bounds"][:, 1])  # it has moved
    fresh = TaskEnv(TwoLink(), 6, moving)
    fresh.load_state_dict(saved)
    for action in actions(230, 1):
        a, b = env.step(action), fresh.step(action)
        assert torch.equal(a.next_obs["state"], b.next_obs["state"]) and torch.equal(a.obs["state"], b.obs["state"])
    assert np.array_equal(env.adr.bounds, fresh.adr.bounds) and env.metrics() == fresh.metrics()
    assert all(np.array_equal(env.params[name], fresh.params[name]) for name in env.params)
    env.reset(4)
    assert np.array_equal(env.adr.bounds[:, 0], env.adr.bounds[:, 1])  # a reset begins anew


def test_returns_count_where_they_are_the_measure_and_a_task_without_success_says_so():
    env = TaskEnv(TwoLink(), 2, _quick(measure="return", t_low=-1000.0, t_high=1000.0, boundary=1.0))
    env.reset(0)
    total, results = np.zeros(2), []
    for _ in range(40):
        step = env.step(torch.zeros(2, 2))
        total += step.reward.numpy()
        for world in np.flatnonzero(step.done.numpy()):
            results.append(total[world])
            total[world] = 0.0
    assert env.metrics()["adr/boundary"] == pytest.approx(np.mean(results), rel=1e-6)

    class NoSuccess(TwoLink):
        def success(self, state):
            return None

    env = TaskEnv(NoSuccess(), 2, _quick())
    env.reset(0)
    with pytest.raises(UsageError, match='this task defines no success; give "measure": "return"'):
        for _ in range(40):
            env.step(torch.zeros(2, 2))
