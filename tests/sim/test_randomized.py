"""Randomized physics in other people's MuJoCo environments: what is written, when, and what is refused."""

import gymnasium
import mujoco
import numpy as np
import pytest
import torch

import poise
from conformance import check_vec_env
from poise.errors import UsageError
from poise.keyed import Stream
from poise.sim.randomization import Randomization, Term

MASS = Term("mass", "link_mass", "torso", range=(0.5, 1.5))
DAMPING = Term("damping", "joint_damping", "*thigh", range=(0.8, 1.2))
GRAVITY = Term("gravity", "gravity", range=(0.9, 1.1), shared=True)
CHEETAH = Randomization((MASS, DAMPING, GRAVITY))


def key(seed: int, world: int, episode: int) -> int:
    return int(Stream(seed, "gym/episode").integer(world, episode)[0])


@pytest.mark.parametrize(
    ("name", "randomization"),
    [
        ("gym:HalfCheetah-v5?max_episode_steps=5", CHEETAH),
        (
            "dmc:cartpole-swingup?time_limit=0.05",
            Randomization((Term("mass", "link_mass", "pole_1", range=(0.5, 2.0)),)),
        ),
    ],
)
def test_randomized_environments_keep_the_contract_of_a_vec_env(name, randomization):
    check_vec_env(lambda n: poise.make(name, n, randomize=randomization), longest=12)


def test_every_episode_has_values_of_its_own_computed_from_the_defaults():
    env = poise.make("gym:HalfCheetah-v5?max_episode_steps=2", 2, randomize=CHEETAH)
    plain = gymnasium.make("HalfCheetah-v5").unwrapped.model
    body, thighs = plain.body("torso").id, [plain.joint(f"{leg}thigh").dofadr[0] for leg in "bf"]
    env.reset(4)
    for episode in range(20):
        model, scale = env.first.model, MASS.draw(key(4, 0, episode), np.array([0]), np.array([0]), 1)[0, 0]
        assert model.body_mass[body] == pytest.approx(scale * plain.body_mass[body], rel=1e-12)
        np.testing.assert_allclose(model.body_inertia[body], scale * plain.body_inertia[body], rtol=1e-12)
        ratio = model.dof_damping[thighs] / plain.dof_damping[thighs]
        assert (np.abs(ratio - 1) <= 0.2).all() and ratio[0] != ratio[1]
        assert model.opt.gravity[2] == pytest.approx(
            -9.81 * GRAVITY.draw(key(4, 0, episode), np.array([0]), np.array([0]), 1)[0, 0]
        )
        others = [i for i in range(plain.nbody) if i != body]
        np.testing.assert_array_equal(model.body_mass[others], plain.body_mass[others])
        for _ in range(2):
            env.step(torch.zeros(2, 6))
    assert env.randomization == CHEETAH


def test_derived_constants_are_those_of_a_model_compiled_with_the_drawn_values():
    env = poise.make("gym:HalfCheetah-v5", 1, randomize=Randomization((MASS,)))
    env.reset(1)
    model = env.first.model
    spec = mujoco.MjSpec.from_file(gymnasium.make("HalfCheetah-v5").unwrapped.fullpath)
    expected = spec.compile()
    expected.body_mass[:], expected.body_inertia[:] = model.body_mass, model.body_inertia
    mujoco.mj_setConst(expected, mujoco.MjData(expected))
    for field in ("body_subtreemass", "dof_invweight0", "body_invweight0", "dof_M0"):
        np.testing.assert_allclose(getattr(model, field), getattr(expected, field), rtol=1e-12)
    assert model.body_subtreemass[0] != spec.compile().body_subtreemass[0]


@pytest.mark.parametrize("name", ["gym:Hopper-v5", "dmc:hopper-stand"])
def test_workers_draw_the_same(name):
    randomization = Randomization((Term("mass", "link_mass", "torso", range=(0.5, 1.5)),))
    here, there, plain = (poise.make(n, 2, randomize=r) for n, r in (
        (name, randomization), (f"{name}?workers=2", randomization), (name, "none")))  # fmt: skip
    action = torch.full((2, here.spec.action_dim), 0.5)
    for env in (here, there, plain):
        env.reset(0)
        for _ in range(3):
            last = env.step(action)
        env.last = last
    there.close()
    assert torch.equal(here.last.obs["state"], there.last.obs["state"])
    assert not torch.equal(here.last.obs["state"], plain.last.obs["state"])


def test_a_robot_in_a_goal_environment_can_be_randomized():
    env = poise.make(
        "gym:PointMaze_UMaze-v3", 1, randomize=Randomization((Term("mass", "link_mass", "particle", range=(2.0, 3.0)),))
    )
    env.reset(0)
    plain = gymnasium.make("PointMaze_UMaze-v3").unwrapped.model
    assert 2.0 <= env.first.model.body("particle").mass[0] / plain.body("particle").mass[0] <= 3.0


@pytest.mark.parametrize(
    ("name", "term", "message"),
    [
        ("gym:CartPole-v1", MASS, "gym:CartPole-v1 cannot be randomized: it is no MuJoCo environment"),
        ("gym:ALE/Pong-v5", MASS, "cannot be randomized: it has no physics"),
        ("gym:HalfCheetah-v5", Term("late", "action_latency", range=(0.0, 0.1), operation="set"),
         r"gym:HalfCheetah-v5 cannot be given the randomization terms 'late' \(action_latency\).* what can vary there: link_mass, "),
        ("gym:HalfCheetah-v5", Term("load", "payload", "torso", range=(0.0, 1.0), operation="set"), r"'load' \(payload\)"),
        ("dmc:walker-walk", Term("noise", "joint_pos_noise", "*", range=(0.0, 1.0), operation="set"), r"dmc:walker-walk .*'noise'"),
        ("gym:HalfCheetah-v5", Term("mass", "link_mass", "torsoo", range=(0.5, 1.5)), "did you mean torso"),
        ("dmc:walker-walk", Term("mass", "link_mass", "torsoo", range=(0.5, 1.5)), "did you mean torso"),
        ("dmc:walker-walk?workers=2", Term("mass", "link_mass", "torsoo", range=(0.5, 1.5)), "did you mean torso"),
    ],
)  # fmt: skip
def test_what_cannot_be_written_is_refused_by_name(name, term, message):
    with pytest.raises(UsageError, match=message):
        poise.make(name, 1, randomize=Randomization((term,)))


@pytest.mark.parametrize(
    "name", ["gym:InvertedPendulum-v5", "dmc:cartpole-swingup", "robosuite:Lift/Panda", "reach/fr3"]
)
@pytest.mark.parametrize(
    ("term", "message"),
    [
        (
            {"what": "link_mass", "target": "*", "range": [-100, 1], "operation": "add"},
            "'t': adding -100 to the smallest link_mass .* gives -.* kg",
        ),
        ({"what": "timestep", "range": [0, 1]}, "'t': scale of timestep must be above zero, but 0 can be drawn"),
    ],
)
def test_values_that_cannot_be_are_refused_alike_in_everybodys_simulator(name, term, message):
    with pytest.raises(UsageError, match=message):
        poise.make(name, 1, randomize={"terms": [{"name": "t", **term}]})
