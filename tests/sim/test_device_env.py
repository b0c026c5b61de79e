"""Worlds on a device, here Warp's CPU device: the VecEnv contract, the same episodes as the CPU engine, containment."""

import pytest
import torch
from capturable import only_capturable
from conformance_engines import Tolerance, check_engines

from conformance import check_vec_env
from poise.errors import SpecError, UsageError
from poise.sim.device_env import DeviceEnv
from poise.sim.make import TASKS, load_task, make
from poise.sim.randomization import Randomization, Term
from poise.sim.tasks.reach import Reach


class ShortReach(Reach):
    max_episode_steps = 4


def short(num_envs: int, randomization: Randomization | None = None) -> DeviceEnv:
    task = ShortReach("fr3")
    return DeviceEnv(task, num_envs, task.randomization if randomization is None else randomization, device="cpu")


def test_worlds_on_a_device_keep_the_contract_of_a_vec_env():
    check_vec_env(short, longest=10)


@pytest.mark.parametrize("task", ["reach/fr3", "HalfCheetah-v5", "lift/fr3"])
def test_a_task_is_the_same_on_both_engines(task):
    check_engines(task, steps=8, tolerance=Tolerance(1e-4, 1e-3))


# the leg of an ant that comes down steeply has its friction pyramid turned otherwise on the other engine
BEFORE_CONTACT = {"Ant-v5": 2}
# its hand may begin at its own first link: box against box, whose points of contact are found in another way
LOOSE = {"push/so101": Tolerance(1e-3, 0.1)}


@pytest.mark.learning
@pytest.mark.parametrize("task", [name for name in TASKS if not load_task(name).spec.images])
def test_every_task_is_the_same_on_both_engines(task):
    check_engines(task, steps=BEFORE_CONTACT.get(task, 8), tolerance=LOOSE.get(task, Tolerance(1e-3, 1e-2)))


def test_nothing_in_a_step_waits_for_the_host():
    env = short(3)
    env.reset(0)
    action = torch.zeros(3, 7)
    for _ in range(5):  # through an episode's end: what is made once is made
        env.step(action)
    with only_capturable():
        for _ in range(5):
            env.step(action)


def test_what_changes_within_an_episode_is_drawn_as_on_the_cpu():
    within = Randomization((
        Term("mass", "link_mass", "fr3_link5", range=(0.5, 2.0), when="interval", interval=(0.1, 0.2)),
        Term("push", "push_force", "fr3_link7", range=(5.0, 20.0), operation="set", when="interval",
             interval=(0.1, 0.3), duration=0.1),
        Term("kick", "kick_joint", "fr3_joint2", range=(0.1, 0.3), operation="set", when="interval",
             interval=(0.1, 0.3)),
        Term("slack", "backlash", "*", range=(0.0, 0.01), operation="set"),
        Term("late", "joint_delay", "*", range=(0.0, 0.1), operation="set"),
        Term("lost", "joint_dropout", "*", range=(0.1, 0.3), operation="set"),
        Term("hold", "action_hold", range=(0.1, 0.3), operation="set"),
    ))  # fmt: skip
    check_engines("reach/fr3", steps=12, randomize=within, tolerance=Tolerance(1e-3, 1e-2))


def test_every_kind_of_physics_differs_between_worlds_as_on_the_cpu():
    everything = Randomization((
        Term("mass", "link_mass", "fr3_link*", range=(0.7, 1.3)),
        Term("com", "body_com", ("fr3_link4", "object"), range=(-0.004, 0.004), operation="add"),
        Term("payload", "payload", "tool", range=(0.0, 0.5), operation="set"),
        Term("friction", "joint_friction", "fr3_joint*", range=(0.0, 0.5), operation="add"),
        Term("damping", "joint_damping", "fr3_joint*", range=(0.7, 1.3)),
        Term("armature", "joint_armature", "fr3_joint*", range=(0.7, 1.3)),
        Term("stiffness", "joint_stiffness", "fr3_joint3", range=(0.0, 5.0), operation="add"),
        Term("limit", "joint_limit", "fr3_joint4", range=(0.8, 1.0)),
        Term("offset", "joint_offset", "fr3_joint2", range=(-0.02, 0.02), operation="set"),
        Term("slip", "geom_friction", "object", range=(0.5, 1.5)),
        Term("size", "geom_size", "object", range=(0.9, 1.1)),
        Term("gain", "actuator_gain", "fr3_joint*", range=(0.7, 1.3)),
        Term("kv", "actuator_damping", "fr3_joint*", range=(0.7, 1.3)),
        Term("gravity", "gravity", range=(-0.2, 0.2), operation="add"),
        Term("clock", "timestep", range=(0.9, 1.1)),
    ))  # fmt: skip
    check_engines("lift/fr3", steps=6, randomize=everything, tolerance=Tolerance(2e-4, 2e-3))


def test_an_action_that_is_none_breaks_its_world_alone_and_is_told_at_the_next_look():
    env = short(3)
    env.reset(0)
    env.step(torch.zeros(3, 7))
    action = torch.zeros(3, 7)
    action[1, 2] = float("nan")
    step = env.step(action)
    assert step.truncated.tolist() == [False, True, False] and step.reward[1] == 0.0
    assert torch.isfinite(step.next_obs["state"]).all() and env.bad_worlds == 1
    with pytest.raises(SpecError, match="must lie in"):
        env.metrics()


class BrokenReach(ShortReach):
    def reward(self, state, action):
        reward = super().reward(state, action)
        return torch.where((state.time > 0.12) & (torch.arange(len(reward)) == 2), float("nan"), reward)


def test_a_world_that_breaks_never_reaches_the_learner():
    env = DeviceEnv(BrokenReach("fr3"), 3, device="cpu")
    env.reset(0)
    steps = [env.step(torch.full((3, 7), 0.2)) for _ in range(3)]
    last = steps[2]
    assert last.truncated.tolist() == [False, False, True] and last.reward[2] == 0.0
    assert torch.equal(last.next_obs["state"][2], steps[1].obs["state"][2])
    assert env.metrics() == {"train/bad_worlds": 1.0, "train/contact_overflow": 0.0}


def test_a_single_episode_can_be_played_again():
    env, alone = short(3), short(1)
    env.reset(5)
    for _ in range(ShortReach.max_episode_steps):
        step = env.step(torch.zeros(3, 7))
    again = alone.reset(5, worlds=2, episodes=1)
    assert torch.allclose(again["state"][0], step.obs["state"][2], atol=1e-6)


@pytest.mark.parametrize("task, randomize, said", [
    ("reach/fr3", "adr", "ranges that adapt"),
    ("reach/planar", "none", "shows pictures"),
    ("gym:CartPole-v1", "none", "its own simulator"),
])  # fmt: skip
def test_what_a_device_has_not_is_refused_with_what_to_do(task, randomize, said):
    with pytest.raises(UsageError, match=said):
        make(task, 2, randomize=randomize, training=True, engine="warp", device="cpu")


def test_a_machine_without_a_gpu_gets_one_clear_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UsageError, match="no CUDA GPU that it can use"):
        make("reach/fr3", 2, engine="warp")
