"""The robosuite: adapter against robosuite itself, and what it promises beyond it."""

import importlib.util
import logging
import os
import subprocess
import sys
import warnings

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import UsageError
from poise.sim.make import make
from poise.sim.randomization import Randomization, Term
from poise.sim.robosuite_adapter import CONTROLLERS, ROBOTS, TASKS, make_robosuite
from poise.sim.robosuite_env import make_world

MASS = Randomization((
    Term("cube", "link_mass", "cube_main", range=(2.0, 3.0)),
    Term("fall", "gravity", range=(0.9, 1.1)),
))  # fmt: skip


def world(task, robot, options, randomization=None):
    return make_world(task, robot, options, (randomization or Randomization()).to_json())


@pytest.fixture(scope="module")
def lift():
    env = world("Lift", "Panda", {"hard_reset": False})
    yield env
    env.close()


def alone(task, controller):
    """robosuite without Poise: its own composite controller, its own loop."""
    from poise.sim.robosuite_env import quiet, robosuite, settings

    with quiet():
        return robosuite.make(task, **settings("Panda", controller, composite="BASIC"), seed=0)


def actions(env, count, seed=0):
    size = env.action_space.shape[0]
    return np.random.default_rng(seed).uniform(-1, 1, (count, size)).astype(np.float32)


def whole_state(env):
    """Everything that MuJoCo integrates from, and every array of the model."""
    state = np.empty(mujoco.mj_stateSize(env.model, mujoco.mjtState.mjSTATE_INTEGRATION))
    mujoco.mj_getState(env.model, env.data, state, mujoco.mjtState.mjSTATE_INTEGRATION)
    fields = (getattr(env.model, name, None) for name in dir(env.model) if not name.startswith("_"))
    return [state, *(field.copy() for field in fields if isinstance(field, np.ndarray))]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


def check_resets(task, robot="Panda", **options):
    """A used world that is reset equals a new one, also in what it does next."""
    used, fresh = (world(task, robot, options) for _ in range(2))
    used.reset(seed=11)
    for action in actions(used, 6):
        used.step(action)
    assert np.array_equal(used.reset(seed=12)[0], fresh.reset(seed=12)[0])
    assert same(whole_state(used), whole_state(fresh))
    for action in actions(used, 6, 1):
        (obs, *rest), (expected, *others) = used.step(action), fresh.step(action)
        assert np.array_equal(obs, expected) and rest == others
        assert obs.dtype == np.float32 and np.isfinite(obs).all()
    first = fresh.reset(seed=12)[0]
    assert not np.array_equal(fresh.reset(seed=13)[0], first)
    spec = used.metadata["spec"]
    assert spec.obs_dim() == len(first) and spec.action_dim == len(actions(used, 1)[0])
    used.close()
    fresh.close()


@pytest.mark.parametrize("options", ["hard_reset=false", "controller=JOINT_VELOCITY&hard_reset=false"])
def test_the_adapter_is_a_vec_env(options):
    check_vec_env(lambda n: make(f"robosuite:Lift/Panda?horizon=4&{options}", n), longest=8)


@pytest.mark.parametrize(
    "task, controller", [("Lift", "OSC_POSE"), ("Door", "JOINT_POSITION"), ("Wipe", "OSC_POSITION")]
)
def test_observations_and_rewards_are_robosuites_own_to_the_bit(task, controller):
    ours, theirs = world(task, "Panda", {"controller": controller}), alone(task, controller)
    theirs.rng.bit_generator.state = np.random.PCG64(5).state
    theirs.hard_reset = task == "Lift"
    expected, (obs, _) = theirs.reset(), ours.reset(seed=5)
    for action in actions(ours, 30):
        assert np.array_equal(obs, flat(expected))
        obs, reward, _, _, info = ours.step(action)
        expected, expected_reward, _, _ = theirs.step(action)
        assert reward == expected_reward and info["is_success"] == bool(theirs._check_success())
    ours.close()
    theirs.close()


def flat(obs):
    """Of robosuite's dict, what is not a concatenation of the others."""
    return np.concatenate([np.ravel(x) for key, x in obs.items() if not key.endswith("-state")]).astype(np.float32)


@pytest.mark.parametrize("task, robot", [("Lift", "Panda"), ("Wipe", "UR5e"), ("PickPlaceSingle", "Panda")])
def test_an_episode_depends_on_its_seed_alone(task, robot):
    check_resets(task, robot)


@pytest.mark.learning
@pytest.mark.parametrize("options", ["", "?controller=JOINT_POSITION", "?controller=OSC_POSITION&workers=2"])
def test_rebuilt_worlds_and_workers_are_a_vec_env(options):
    check_vec_env(lambda n: make(f"robosuite:Lift/Panda{options}", n), longest=30)


@pytest.mark.learning
@pytest.mark.parametrize("task", TASKS)
def test_an_episode_of_every_task_depends_on_its_seed_alone(task):
    check_resets(task)


@pytest.mark.learning
@pytest.mark.parametrize("robot", ROBOTS)
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_every_arm_takes_every_controller(robot, controller):
    check_resets("Lift", robot, controller=controller)


def test_the_size_of_lifts_cube_is_drawn_for_every_episode_unless_told_otherwise(lift):
    rebuilt = world("Lift", "Panda", {})
    sizes = []
    for env in (rebuilt, lift):
        for seed in (1, 2):
            env.reset(seed=seed)
            sizes.append(float(env.model.geom("cube_g0").size[0]))
    assert sizes[0] != sizes[1] and sizes[2] == sizes[3]
    assert all(0.02 <= size <= 0.022 for size in sizes)
    rebuilt.close()


def test_which_object_an_episode_is_about_does_not_depend_on_the_process():
    script = ("import numpy as np; from poise.sim.robosuite_env import _Orderly; from numpy.random import PCG64; "
              "rng = _Orderly(PCG64(0)); "
              "print([str(rng.choice(list({'Milk', 'Bread', 'Cereal', 'Can'}))) for _ in range(9)])")  # fmt: skip
    said = {
        subprocess.run([sys.executable, "-c", script], env={**os.environ, "PYTHONHASHSEED": seed}, check=True,
                       capture_output=True, text=True).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1


def test_joint_velocity_follows_its_command():
    env = world("Lift", "Panda", {"controller": "JOINT_VELOCITY", "hard_reset": False})
    env.reset(seed=0)
    action = np.zeros(8, np.float32)
    action[3] = 0.5  # of robosuite's 0.5 rad/s
    speeds = []
    for _ in range(20):
        env.step(action)
        speeds.append(env.data.joint("robot0_joint4").qvel[0])
    assert np.mean(speeds[10:]) == pytest.approx(0.25, abs=0.01)
    assert abs(env.data.joint("robot0_joint2").qvel[0]) < 0.02  # gravity is held
    env.close()


def test_worker_processes_step_the_same_worlds():
    runs = []
    for workers in (0, 1):
        env = make(f"robosuite:Lift/Panda?horizon=3&workers={workers}", 2)
        first = env.reset(0)
        steps = [env.step(torch.full((2, 7), 0.5)) for _ in range(4)]
        runs.append([first["state"], *(s.obs["state"] for s in steps), *(s.reward for s in steps)])
        assert env.max_episode_steps == 3 and env.spec.actions[0].name == "osc_pose"
        env.close()
    assert all(torch.equal(a, b) for a, b in zip(*runs, strict=True))


def test_the_horizon_truncates():
    env = make("robosuite:Lift/Panda?horizon=3&hard_reset=false", 1)
    env.reset(0)
    steps = [env.step(torch.zeros(1, 7)) for _ in range(6)]
    assert [bool(s.truncated) for s in steps] == [False, False, True] * 2
    assert not any(bool(s.terminated) for s in steps) and env.max_episode_steps == 3
    assert steps[2].success is not None and not torch.equal(steps[2].obs["state"], steps[2].next_obs["state"])
    env.close()


def test_a_lifted_cube_is_a_success(lift):
    lift.reset(seed=0)
    _, low, _, _, info = lift.step(np.zeros(7, np.float32))
    assert info["is_success"] is False and low < 1.0
    lift.data.joint("cube_joint0").qpos[2] = 1.0
    _, high, terminated, truncated, info = lift.step(np.zeros(7, np.float32))
    assert info["is_success"] is True and high == 1.0
    assert not terminated and not truncated  # robosuite lets a solved episode go on


def test_the_spec_names_every_slice():
    env = make("robosuite:Lift/Panda?control_freq=10&hard_reset=false", 2)
    assert env.spec.control_dt == 0.1 and env.spec.robot == "Panda"
    terms = {term.name: term for term in env.spec.observations["state"]}
    assert next(iter(terms)) == "robot0_joint_pos" and list(terms)[-1] == "gripper_to_cube_pos"
    assert terms["robot0_joint_vel"].unit == "rad/s" and terms["robot0_joint_vel"].source == "robot"
    assert terms["cube_pos"].shape == (3,) and terms["cube_pos"].source == "external"
    assert [(a.name, a.size, a.kind) for a in env.spec.actions] == [
        ("osc_pose", 6, "control"),
        ("gripper", 1, "control"),
    ]
    assert env.spec.obs_dim() == env.reset(0)["state"].shape[1] == 60
    joints = env.reset(0)["state"][:, :7]
    world_0 = [env._env.envs[0].data.joint(f"robot0_joint{i}").qpos[0] for i in range(1, 8)]  # pyright: ignore
    assert torch.equal(joints[0], torch.tensor(world_0, dtype=torch.float32))
    env.close()


def test_the_object_that_an_episode_draws_has_a_name_of_its_own():
    env = world("PickPlaceSingle", "Panda", {})
    terms = {term.name: term for term in env.metadata["spec"].observations["state"]}
    relative = terms["object_to_robot0_eef_pos"]
    assert (relative.source, relative.unit, relative.frame) == ("external", "m", "tool")
    assert "object_pos" in terms and not any(name.startswith(("Milk", "Bread", "Cereal", "Can")) for name in terms)
    slices, start = {}, 0
    for name, term in terms.items():
        slices[name] = slice(start, start := start + term.size)
    drawn = set()
    for seed in range(6):
        obs = env.reset(seed=seed)[0]
        drawn.add(float(obs[slices["obj_id"]][0]))
        body = env._suite.obj_body_id[str(env._suite.obj_to_use)]
        assert np.array_equal(obs[slices["object_pos"]], env.data.xpos[body].astype(np.float32))
    assert len(drawn) > 1
    env.close()


def test_nothing_is_printed_or_warned_of():
    script = "from poise.sim.robosuite_env import make_world\nimport numpy as np\n" \
             "env = make_world('Wipe', 'Panda', {}, {'terms': []})\n" \
             "env.reset(seed=0)\n" \
             "[env.step(np.ones(6, np.float32)) for _ in range(8)]\n" \
             "env.close()\n"  # fmt: skip
    done = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_robosuites_own_warnings_stay_for_those_who_use_it_alone(lift, caplog):
    logger = logging.getLogger("robosuite_logs")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lift.reset(seed=0)
    assert not caplog.records
    logger.warning("a joint limit")
    assert [r.message for r in caplog.records] == ["a joint limit"]


def test_a_camera_gives_pictures_that_stand_upright():
    env = make("robosuite:Lift/Panda?camera=agentview&hard_reset=false&horizon=5", 1)
    assert env.spec.is_image("camera") and env.spec.obs_shape("camera") == (84, 84, 3)
    first = env.reset(0)["camera"]
    assert first.dtype == torch.uint8
    assert first[0, :8, :, 1].float().mean() < 150 < 230 < first[0, -8:, :, 1].float().mean()  # wall above, table below
    step = env.step(torch.ones(1, 7))
    assert not torch.equal(step.obs["camera"], first)
    assert set(step.obs) == {"state", "camera"}
    frame = env.render()
    assert frame.shape == (480, 640, 3) and frame[:80].mean() < frame[300:370, 200:440].mean() - 50  # so does it
    env.close()


def test_physics_is_randomized_by_the_key_of_the_episode(lift):
    default = float(lift.model.body("cube_main").mass[0])
    env = world("Lift", "Panda", {"hard_reset": False}, MASS)
    masses = []
    for seed in (1, 2, 1):
        env.reset(seed=seed)
        masses.append(float(env.model.body("cube_main").mass[0]))
    assert masses[0] == masses[2] != masses[1]  # nothing accumulates
    assert env.model.opt.gravity[2] != lift.model.opt.gravity[2] == -9.81
    assert all(2.0 * default <= mass <= 3.0 * default for mass in masses)
    rebuilt = world("Lift", "Panda", {"hard_reset": True}, MASS)
    rebuilt.reset(seed=1)
    plain = world("Lift", "Panda", {"hard_reset": True})
    plain.reset(seed=1)
    factor = rebuilt.model.body("cube_main").mass[0] / plain.model.body("cube_main").mass[0]
    assert factor == pytest.approx(masses[0] / default)  # of the cube that was drawn
    assert rebuilt.model.body_subtreemass[0] > plain.model.body_subtreemass[0]
    for used in (env, rebuilt, plain):
        used.close()


def test_randomized_worlds_tell_what_they_differ_in():
    env = make("robosuite:Lift/Panda?hard_reset=false", 1, randomize=MASS)
    assert env.randomization == MASS
    env.close()


@pytest.mark.parametrize("what", ["payload", "joint_pos_noise", "action_latency"])
def test_what_cannot_be_randomized_is_refused_by_name(what):
    target = () if what == "action_latency" else ("robot0_*",)
    terms = (Term("mine", what, target, range=(0.0, 0.01), operation="set"), *MASS.terms)
    with pytest.raises(
        UsageError,
        match=rf"robosuite:Lift/Panda cannot be given the randomization terms 'mine' \({what}\): .* vary there: link_mass",
    ):
        make_robosuite("Lift/Panda", 1, randomization=Randomization(terms))


@pytest.mark.parametrize("name, message", [
    ("Lfit/Panda", "unknown robosuite task 'Lfit'; did you mean Lift"),
    ("Lift/Pnada", "unknown robosuite robot 'Pnada'; did you mean Panda.*supported are arms on a fixed base: IIWA, Jaco"),
    ("Lift/Baxter", "supported are arms on a fixed base: IIWA, Jaco"),
    ("TwoArmLift/Panda", "tasks for two arms are not supported; those for one are Door, Lift"),
    ("Lift", "named TASK/ROBOT, such as robosuite:Lift/Panda"),
    ("Lift/Panda?controller=OSC_POZE", "unknown controller 'OSC_POZE'; did you mean OSC_POSE"),
    ("Lift/Panda?horizn=3", "unknown option of a robosuite task 'horizn'; did you mean horizon"),
    ("Lift/Panda?horizon=0", "horizon=0: expected a whole number above 0"),
    ("Lift/Panda?control_freq=30", "control_freq=30: a control period has to be whole physics steps of 2 ms; take one of 1, 2"),
    ("Lift/Panda?reward_scale=nan", "reward_scale=nan: expected a number above 0"),
    ("Lift/Panda?hard_reset=yes", "hard_reset=yes: expected true or false"),
    ("Lift/Panda?camera=agentveiw", "unknown camera 'agentveiw'; did you mean agentview"),
])  # fmt: skip
def test_a_wrong_name_is_one_clear_error(name, message):
    with pytest.raises(UsageError, match=message):
        make(f"robosuite:{name}")


def test_a_missing_package_says_how_to_get_it(monkeypatch):
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name == "robosuite" else found(name, *a))
    with pytest.raises(UsageError, match=r"pip install 'poise\[robosuite\]'; pip install --no-deps robosuite==1.5.2"):
        make("robosuite:Lift/Panda")
