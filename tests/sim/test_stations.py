"""drawer and peg: geometry against MuJoCo's, rewards by hand, a stand that nothing moves, and experts that succeed."""

import math

import mujoco
import numpy as np
import pytest
import torch

from conformance import check_vec_env
from poise.errors import UsageError
from poise.sim.experts.drawer import DrawerExpert
from poise.sim.experts.peg import PegExpert
from poise.sim.make import load_task, make
from poise.sim.task import Key, State
from poise.sim.task_env import TaskEnv
from poise.sim.tasks.drawer import BEHIND, BELOW, HANDLE, OPEN, Drawer
from poise.sim.tasks.peg import CLEARANCE, DEPTH, HEIGHT, HOLE, LENGTH, OFFSET, PEG, Peg
from poise.sim.tasks.station import turn
from poise.sim.tasks.tabletop import DOWNWARD, SUCCESS_STEPS

NAMES = ("drawer/fr3", "drawer/ur5e", "peg/fr3", "peg/ur5e")
DRAWER, PEGS = Drawer(), Peg()


@pytest.mark.parametrize("name", NAMES)
def test_the_contract_of_a_vec_env_holds(name):
    check_vec_env(lambda n: make(name, n, randomize="default", threads=1), longest=104)


def start(task, n=50):
    return task.reset(Key(3, np.arange(n), np.zeros(n, int)), {})


def posed(task, qpos):
    model = task.model().compile()
    data = mujoco.MjData(model)
    data.qpos[:] = qpos
    mujoco.mj_forward(model, data)
    return model, data


@pytest.mark.parametrize("robot", ["fr3", "ur5e"])
def test_handle_and_hook_are_where_the_model_has_them(robot):
    task = Drawer(robot)
    qpos, _, memory = start(task)
    qpos[:, -1] = np.linspace(0.0, 0.2, len(qpos))
    for row, wanted, hook in zip(qpos[::10], task.handle(qpos)[::10], task.hook(qpos)[::10], strict=True):
        _, data = posed(task, row)
        handle, frame = data.geom("handle"), data.body("drawer").xmat.reshape(3, 3)
        np.testing.assert_allclose(handle.xpos, wanted, atol=1e-9)
        np.testing.assert_allclose(hook - wanted, frame @ (BEHIND, 0.0, -BELOW), atol=1e-9)
    qpos[:, -1] = OPEN
    np.testing.assert_allclose(memory["target_pos"], task.handle(qpos))


@pytest.mark.parametrize("robot", ["fr3", "ur5e"])
def test_tip_and_hole_are_where_the_model_has_them(robot):
    task = Peg(robot)
    qpos, _, _ = start(task)
    for row, tip, hole in zip(qpos[::10], task.tip(qpos)[::10], task.hole(qpos)[::10], strict=True):
        _, data = posed(task, row)
        peg = data.geom("peg")
        end = peg.xpos + peg.xmat.reshape(3, 3)[:, 2] * (0.5 * LENGTH + 0.005)
        np.testing.assert_allclose(end, tip, atol=1e-4)  # the model's frames are rounded
        walls = np.mean([data.geom(f"block_{side}").xpos for side in ("west", "east", "south", "north")], axis=0)
        np.testing.assert_allclose(walls[:2], hole[:2], atol=1e-9)
        assert hole[2] == HEIGHT
    width = posed(task, qpos[0])[0].geom("block_east").pos[0] - posed(task, qpos[0])[0].geom("block_east").size[0]
    assert width == pytest.approx(PEG + CLEARANCE) and np.abs(qpos[:, task.robot.num_joints :][:, :2]).max() <= OFFSET


@pytest.mark.parametrize("name", NAMES)
def test_nothing_touches_at_the_start_and_the_stand_is_somewhere_new(name):
    task = load_task(name)
    qpos, qvel, memory = start(task, 200)
    assert not qvel.any() and not memory["held"].any()
    model = task.model().compile()
    data = mujoco.MjData(model)
    for row in qpos:
        data.qpos[:] = row
        mujoco.mj_forward(model, data)
        assert data.ncon == 0
    stand = qpos[:, -4:-1] if name.startswith("drawer") else qpos[:, -3:]
    assert (np.ptp(stand, axis=0) > 1.9 * np.array(task.spread) * 0.95).all()


def with_memory(task, qpos, memory):
    n = len(qpos)
    return State(np.zeros(n), qpos, np.zeros_like(qpos), {"arm": qpos[:, : task.robot.num_joints]}, {}, memory)


def test_the_drawer_s_reward_and_success_by_hand():
    qpos, _, memory = start(DRAWER, 1)
    for opened in (0.0, 0.06, 0.15, 0.2):
        qpos[:, -1] = opened
        hook = DRAWER.hook(qpos)
        state = with_memory(DRAWER, qpos, {**memory, "tool_pos": hook + np.array([[0.0, 0.03, 0.04]])})
        wanted = 0.5 * (1 - math.tanh(5 * 0.05)) + 2 * min(opened / 0.15, 1) + 0.5 * (opened >= 0.15) - 0.01 * 7 * 0.25
        assert DRAWER.reward(state, np.full((1, 7), 0.5))[0] == pytest.approx(wanted, rel=1e-9)
        for step in range(1, SUCCESS_STEPS + 2):
            state = with_memory(DRAWER, qpos, DRAWER.advance(state, np.zeros((1, 7))))
            assert DRAWER.success(state)[0] == (opened >= OPEN and step >= SUCCESS_STEPS)
            assert not DRAWER.terminated(state)[0]


@pytest.mark.parametrize(
    ("tip", "inside"), [((0, 0, 0.1), 0), ((0.006, 0.008, 0.02), 0), ((0.001, 0, -0.02), 1), ((0, 0, -0.045), 1),
                        ((HOLE + 0.001, 0, -0.045), 0)]
)  # fmt: skip
def test_the_peg_s_reward_by_hand(tip, inside):
    x, y, z = tip
    qpos, _, memory = start(PEGS, 1)
    state = with_memory(PEGS, qpos, {**memory, "tip": np.array([tip], float)})
    d, r = math.hypot(x, y, z + DEPTH), math.hypot(x, y)
    wanted = 0.5 * (1 - math.tanh(5 * d)) + 0.5 * math.exp(-((r / 0.01) ** 2) - (max(z, 0) / 0.04) ** 2)
    wanted += inside * (2 * min(max(-z, 0) / 0.04, 1) + 0.5 * (z <= -DEPTH)) - 0.01 * 7 * 0.25
    assert PEGS.reward(state, np.full((1, 7), 0.5))[0] == pytest.approx(wanted, rel=1e-9)


def test_a_peg_succeeds_deep_in_the_hole_and_nowhere_else():
    """The arm stays, the block is put around the tip: as deep as wanted, and then beside it."""
    qpos, _, memory = start(PEGS, 1)
    tip = PEGS.tip(qpos)[0]
    for depth, aside, inside in ((0.045, 0.0, True), (0.035, 0.0, False), (0.045, 0.02, False)):
        qpos[0, -3:] = tip[0] + aside, tip[1], 0.4
        lowered = PEGS.hole(qpos)[0, 2] - depth - tip[2]

        class Lowered(Peg):
            def tip(self, qpos):
                return super().tip(qpos) + np.array([0.0, 0.0, lowered])  # noqa: B023

        task = Lowered()
        state = with_memory(task, qpos, memory)
        for step in range(1, SUCCESS_STEPS + 2):
            state = with_memory(task, qpos, task.advance(state, np.zeros((1, 7))))
            assert task.success(state)[0] == (inside and step >= SUCCESS_STEPS)


def test_turning_is_about_the_vertical():
    turned = turn(np.array([[1.0, 2.0, 3.0]]), np.array([math.pi / 2]))
    np.testing.assert_allclose(turned, [[-2.0, 1.0, 3.0]], atol=1e-12)
    assert HANDLE[0] < 0  # towards the arm


def test_a_block_that_is_leaned_on_stays_and_stops_the_peg():
    """The peg is pressed onto the rim with all that the action allows for three seconds."""
    env = TaskEnv(PEGS, 1, threads=1)
    env.reset(0)
    expert = PegExpert(PEGS)
    qpos = env.engine.qpos.copy()
    qpos[0, -3:-1] = PEGS.tip(qpos)[0, :2] + 0.03  # the tip is over the block, beside the hole
    env.engine.set_state(np.arange(1), qpos, np.zeros_like(qpos))
    for _ in range(60):
        tip = PEGS.tip(env.engine.qpos)
        lower = PEGS.tool(env.engine.qpos)[0] - np.array([0.0, 0.0, 0.05])
        env.step(torch.from_numpy(expert._motion.actions(env.state.target["arm"], lower, DOWNWARD[None], 0.01)))
    after, tip = env.engine.qpos[0], PEGS.tip(env.engine.qpos)[0]
    np.testing.assert_allclose(after[-3:], qpos[0, -3:], atol=5e-4)
    np.testing.assert_allclose(after[7:9], qpos[0, 7:9], atol=5e-4)  # nor does the peg slip in the hand
    assert HEIGHT - 0.002 < tip[2] < HEIGHT + 0.002


@pytest.mark.parametrize(("name", "chosen"), [("drawer", DrawerExpert), ("peg", PegExpert)])
@pytest.mark.parametrize("robot", ["fr3", "ur5e"])
def test_an_expert_succeeds_in_randomized_worlds(name, chosen, robot):
    task = load_task(f"{name}/{robot}")
    env, expert = TaskEnv(task, 20, task.randomization, threads=1), chosen(task)
    env.reset(5)
    for _ in range(task.max_episode_steps):
        action = expert.act(env.state)
        assert np.abs(action).max() <= 1.0
        step = env.step(torch.from_numpy(action))
    assert step.success is not None and step.success.float().mean() >= 0.95 and env.bad_worlds == 0


@pytest.mark.parametrize("name", ["drawer/fr3", "peg/ur5e"])
def test_with_a_camera_the_picture_alone_says_where_the_stand_is(name):
    env = make(f"{name}?camera=front", 2, threads=1)
    obs, told = env.reset(0), make(name, 1, threads=1).spec
    assert obs["front"].shape == (2, 84, 84, 3) and (obs["front"][0] != obs["front"][1]).any()
    assert env.spec.obs_dim("state") + env.spec.obs_dim("privileged") == told.obs_dim()
    assert not any(term.name.startswith(("object", "drawer")) for term in env.spec.observations["state"])
    env.close()


@pytest.mark.parametrize("task", [DRAWER, PEGS])
def test_a_task_gives_the_same_numbers_with_torch(task):
    qpos, _, memory = start(task, 6)
    action = np.random.default_rng(0).uniform(-1, 1, (6, 7))
    mine = with_memory(task, qpos, memory)
    twin = State(*(torch.from_numpy(np.array(x)) for x in (mine.time, mine.qpos, mine.qvel)),
                 {"arm": torch.from_numpy(np.array(mine.target["arm"]))}, {},
                 {k: torch.from_numpy(v) for k, v in memory.items()})  # fmt: skip
    for a, b in (
        (task.observe(mine), task.observe(twin)),
        (task.advance(mine, action), task.advance(twin, action)),
        ({"x": task.reward(mine, action)}, {"x": task.reward(twin, torch.from_numpy(action))}),
    ):
        assert a.keys() == b.keys()
        for name, value in b.items():
            np.testing.assert_allclose(a[name], value.numpy(), rtol=1e-9, atol=1e-9)


def test_arms_and_cameras_that_there_are_not_are_refused():
    with pytest.raises(UsageError, match=r"unknown robot 'so101'.*fr3, ur5e"):
        Drawer("so101")
    with pytest.raises(UsageError, match=r"unknown camera 'top'.*front, side"):
        make("peg/fr3?camera=top")
