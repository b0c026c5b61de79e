"""From actions to commands: the arm's own shaping, at every physics step, late by exactly the latency."""

import mujoco
import numpy as np
import pytest

from poise.action import control_value, joint_pos_target, shape_command
from poise.errors import SpecError, UsageError
from poise.robots import FR3
from poise.sim.commands import Commands
from poise.sim.tasks.reach import Reach
from poise.spec import ActionTerm, ObsTerm, Spec

from .two_link import XML, TwoLink

SPEC = TwoLink.spec
MODEL = mujoco.MjModel.from_xml_string(XML)
ACTIONS = np.random.default_rng(0).uniform(-1, 1, (12, 3, 2))  # (steps, worlds, actions)
MEASURED = np.random.default_rng(1).uniform(-0.1, 0.1, (12, 3, 9))


def _play(longest: int, delay: list[int]) -> np.ndarray:
    """All commands one after the other: (worlds, time, actuators)."""
    commands = Commands(SPEC, MODEL, 3, 4, longest)
    commands.reset(np.arange(3), MEASURED[0])
    steps = zip(ACTIONS, MEASURED, strict=True)
    return np.concatenate([commands.step(a, q, np.array(delay)).copy() for a, q in steps], axis=1)


def test_commands_are_those_of_the_arm_at_every_physics_step():
    servo, motor = SPEC.actions
    played = _play(0, [0, 0, 0])
    position, velocity, target = MEASURED[0, 1, :1], np.zeros(1), MEASURED[0, 1, :1]
    for t in range(12):
        target = joint_pos_target(servo, ACTIONS[t, 1, :1], MEASURED[t, 1, :1], target)
        for substep in range(4):
            position, velocity = shape_command(position, velocity, target, 3.0, 30.0, 0.005)
            assert played[1, 4 * t + substep, 0] == position[0]
            assert played[1, 4 * t + substep, 1] == pytest.approx(control_value(motor, ACTIONS[t, 1, 1:])[0], abs=1e-15)


def test_a_latency_of_k_physics_steps_shifts_commands_by_k_exactly():
    prompt, late = _play(0, [0, 0, 0]), _play(9, [0, 3, 9])
    for world, k in enumerate([0, 3, 9]):
        assert np.array_equal(late[world, k:], prompt[world, : 48 - k])
        # before the first command arrives the servo holds where it was and the motor its middle
        assert np.array_equal(late[world, :k], np.tile([MEASURED[0, world, 0], -1.0], (k, 1)))


def test_commands_of_an_arm_that_feeds_forward_lead_by_their_own_velocity():
    task = Reach("fr3")
    description = task.model()
    description.option.timestep = task.physics_dt
    model, rng = description.compile(), np.random.default_rng(2)
    qpos, actions = np.tile(FR3.home, (2, 1)), rng.uniform(-1, 1, (5, 2, 7))
    plain, leading = [], []
    for robot, played in ((None, plain), (FR3, leading)):
        commands = Commands(task.spec, model, 2, 10, 0, robot=robot)
        commands.reset(np.arange(2), qpos)
        played += [commands.step(a, qpos, np.zeros(2, int)).copy() for a in actions]
    path, lead = np.concatenate([qpos[:, None], *plain], axis=1), np.concatenate(leading, axis=1)
    np.testing.assert_allclose(lead, path[:, 1:] + 0.1 * np.diff(path, axis=1) / task.physics_dt, atol=1e-12)
    assert np.abs(lead - path[:, 1:]).max() > 0.1


def test_some_worlds_can_start_anew_without_touching_the_others():
    commands, untouched = (Commands(SPEC, MODEL, 3, 4, 9) for _ in range(2))
    for c in (commands, untouched):
        c.reset(np.arange(3), MEASURED[0])
        c.step(ACTIONS[0], MEASURED[0], np.array([1, 2, 3]))
    commands.reset(np.array([1]), MEASURED[5, 1:2])
    assert commands.target["shoulder"][1] == MEASURED[5, 1, 0]
    a, b = (c.step(ACTIONS[1], MEASURED[1], np.array([1, 2, 3])) for c in (commands, untouched))
    assert np.array_equal(a[[0, 2]], b[[0, 2]]) and not np.array_equal(a[1], b[1])


def test_a_saved_command_path_goes_on_to_the_bit():
    commands, fresh = (Commands(SPEC, MODEL, 3, 4, 9) for _ in range(2))
    commands.reset(np.arange(3), MEASURED[0])
    commands.step(ACTIONS[0], MEASURED[0], np.array([1, 2, 3]))
    fresh.load_state_dict(commands.state_dict())
    a, b = (c.step(ACTIONS[1], MEASURED[1], np.array([1, 2, 3])) for c in (commands, fresh))
    assert np.array_equal(a, b)


def _spec(*terms: ActionTerm) -> Spec:
    return Spec({"state": (ObsTerm("x", (1,)),)}, terms, 0.02)


@pytest.mark.parametrize(
    ("spec", "error", "message"),
    [
        (_spec(ActionTerm("a", "control", ("elbow",), (0,), (1,))), SpecError, "actuator 'servo' is driven by 0"),
        (_spec(ActionTerm("a", "control", ("elbow", "motor"), (0, 0), (1, 1))), SpecError, "is driven by [02]"),
        (_spec(ActionTerm("a", "control", ("elbo", "servo"), (0, 0), (1, 1))), UsageError, "'elbo'; did you mean elb"),
        (_spec(ActionTerm("a", "control", (), (0,), (1,))), SpecError, "1 numbers for 2 actuators"),
        (_spec(ActionTerm("a", "discrete", n=3)), SpecError, "not 'discrete'"),
    ],
)  # fmt: skip
def test_terms_that_do_not_fit_the_actuators_are_refused(spec, error, message):
    with pytest.raises(error, match=message):
        Commands(spec, MODEL, 3, 4, 0)


def test_control_terms_may_name_actuators_in_any_order():
    commands = Commands(_spec(ActionTerm("a", "control", ("motor", "servo"), (0, 0), (1, 1))), MODEL, 1, 4, 0)
    assert commands.step(np.array([[1.0, -1.0]]), MEASURED[0, :1], np.zeros(1, int))[0, 0].tolist() == [0.0, 1.0]
