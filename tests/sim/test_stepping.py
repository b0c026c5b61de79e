"""The engine of tasks that read more of MjData: its states are the other engine's, its fields those of mj_step."""

import mujoco
import numpy as np
import pytest
import torch

from poise.errors import UsageError
from poise.sim.cpu import CpuEngine, compile_physics
from poise.sim.randomization import Randomization
from poise.sim.stepping import SteppingEngine
from poise.sim.task_env import TaskEnv
from tests.conformance import check_vec_env

from .two_link import XML, TwoLink

READS = ("xpos", "cfrc_ext", "qfrc_constraint")
CTRL = np.random.default_rng(0).uniform(-1, 1, (30, 6, 4, 2))  # (steps, worlds, substeps, actuators)


def _place(engine):
    qpos = np.repeat(engine.model.qpos0[None], 6, axis=0)
    qpos[:, :2] = np.random.default_rng(1).uniform(-1, 1, (6, 2))
    qpos[:, 2:5] = 1.0, 0.0, -1.41  # pressed into the table: contacts from the first step on
    engine.set_state(np.arange(6), qpos, np.zeros((6, engine.model.nv)))
    return engine


def _engine(threads: int = 1, separate: bool = False, reads=READS) -> SteppingEngine:
    return _place(SteppingEngine(compile_physics(mujoco.MjSpec.from_string(XML)), 6, 4, threads, separate, reads))


@pytest.mark.parametrize("held", [True, False])
def test_states_are_those_of_the_rollout_engine_to_the_bit(held):
    ours, rollout = _engine(), _place(CpuEngine(compile_physics(mujoco.MjSpec.from_string(XML)), 6, 4, 1))
    for ctrl in CTRL:
        ctrl = np.repeat(ctrl[:, :1], 4, axis=1) if held else ctrl
        assert ours.step(ctrl) is None and rollout.step(ctrl) is None
        assert ours.state.tobytes() == rollout.state.tobytes()


def test_fields_are_those_of_mj_forward_at_the_start_and_of_the_last_substep_after_a_step():
    engine = _engine()
    data = mujoco.MjData(engine.model)
    data.qpos[:] = engine.qpos[2]
    mujoco.mj_forward(engine.model, data)
    for name in READS:
        assert np.array_equal(engine.extra[name][2], getattr(data, name))
    for ctrl in CTRL:
        engine.step(ctrl)
        data.qacc_warmstart[:] = 0.0
        for substep in range(4):
            data.ctrl[:] = ctrl[2, substep]
            mujoco.mj_step(engine.model, data)
        mujoco.mj_rnePostConstraint(engine.model, data)
        for name in READS:
            assert np.array_equal(engine.extra[name][2], getattr(data, name)), name
    assert np.abs(engine.extra["cfrc_ext"]).max() > 1.0  # the ball rests on the table


def test_results_do_not_depend_on_the_number_of_threads():
    one, two = _engine(1), _engine(2)
    for ctrl in CTRL:
        one.step(ctrl)
        two.step(ctrl)
        assert one.state.tobytes() == two.state.tobytes()
        assert all(one.extra[name].tobytes() == two.extra[name].tobytes() for name in READS)
    two.close()


def test_a_saved_engine_goes_on_to_the_bit_and_refuses_another_ones_fields():
    engine, fresh = _engine(), _engine(2)
    for ctrl in CTRL[:15]:
        engine.step(ctrl)
    fresh.load_state_dict(engine.state_dict())
    assert all(fresh.extra[name].tobytes() == engine.extra[name].tobytes() for name in READS)
    for ctrl in CTRL[15:]:
        engine.step(ctrl)
        fresh.step(ctrl)
    assert engine.state.tobytes() == fresh.state.tobytes()
    with pytest.raises(UsageError, match="this engine reads xpos"):
        _engine(reads=("xpos",)).load_state_dict(engine.state_dict())


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e20, 1e8])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_broken_world_is_found_and_keeps_state_and_fields_while_others_go_on(poison, threads):
    engine, sound = _engine(threads), _engine()
    engine.step(CTRL[0])
    sound.step(CTRL[0])
    engine.state[3, engine.model.nq + 1] = poison
    before, seen = engine.state[3].copy(), {name: values[3].copy() for name, values in engine.extra.items()}
    assert engine.step(CTRL[1]).tolist() == [3]
    sound.step(CTRL[1])
    assert engine.state[3].tobytes() == before.tobytes()
    others = [0, 1, 2, 4, 5]
    assert engine.state[others].tobytes() == sound.state[others].tobytes()
    for name in READS:
        assert np.array_equal(engine.extra[name][3], seen[name])
        assert engine.extra[name][others].tobytes() == sound.extra[name][others].tobytes()
    engine.close()


def test_a_world_that_breaks_by_itself_at_any_substep_is_found():
    for substep in range(4):
        engine = _engine(separate=True)
        ctrl = CTRL[0].copy()
        ctrl[1, substep] = 9e9  # torque without bounds
        assert engine.step(ctrl).tolist() == [1]
        assert np.isfinite(engine.state).all() and np.abs(engine.state).max() < 1e6


def test_what_mj_data_does_not_have_or_what_changes_its_size_cannot_be_read():
    with pytest.raises(UsageError, match=r"MjData field.*'xpoz'.*xpos"):
        _engine(reads=("xpoz",))
    with pytest.raises(UsageError, match="efc_force"):
        _engine(reads=("efc_force",))


class Reading(TwoLink):
    """TwoLink that sees its lower link move, and what the table does to the ball; it has no success."""

    name = "test/reading"
    reads = ("xpos", "cfrc_ext")

    def start(self, state):
        return {**state.memory, "last": state.extra["xpos"][:, 2].copy()}

    def reset(self, key, params):
        qpos, qvel, memory = super().reset(key, params)
        return qpos, qvel, {**memory, "last": np.full((len(qpos), 3), np.nan)}

    def observe(self, state):
        return {**super().observe(state), "ball": state.extra["cfrc_ext"][:, 3, :3]}

    def advance(self, state, action):
        return {**state.memory, "last": state.extra["xpos"][:, 2].copy()}

    def reward(self, state, action):
        return state.extra["xpos"][:, 2, 2] - state.memory["last"][:, 2] + super().reward(state, action)

    def success(self, state):
        return None


@pytest.mark.parametrize("randomization", [Randomization(), TwoLink.randomization])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_contract_of_a_vec_env_holds_for_a_task_that_reads(randomization, threads):
    check_vec_env(lambda n: TaskEnv(Reading(), n, randomization, threads=threads))


@pytest.mark.parametrize("task", [TwoLink, Reading])
def test_a_world_whose_physics_break_is_contained_counted_and_reset_while_others_go_on(task):
    env, sound = TaskEnv(task(), 4), TaskEnv(task(), 4)
    actions = torch.rand(6, 4, 2, generator=torch.Generator().manual_seed(0)) * 2 - 1
    env.reset(3)
    sound.reset(3)
    for action in actions[:3]:
        last, expected = env.step(action), sound.step(action)
    env.engine.state[1, 3] = np.nan
    step, expected = env.step(actions[3]), sound.step(actions[3])
    assert env.bad_worlds == 1 and step.truncated.tolist() == [False, True, False, False]
    assert not step.terminated.any() and step.reward[1] == 0.0
    assert torch.equal(step.next_obs["state"][1], last.obs["state"][1])  # the last sound one
    assert torch.isfinite(step.obs["state"]).all() and env.episodes.tolist() == [0, 1, 0, 0]
    others = [0, 2, 3]
    for action in (actions[4], actions[5]):
        assert torch.equal(step.obs["state"][others], expected.obs["state"][others])
        assert torch.equal(step.reward[others], expected.reward[others])
        step, expected = env.step(action), sound.step(action)
    assert env.bad_worlds == 1
    assert (step.success is None) == (task is Reading)
