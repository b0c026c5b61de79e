"""Rows of actors: what is written by several comes out as one step, and in one piece."""

import os

import numpy as np
import torch

from poise.batch import Step
from poise.policies.actor_rows import ALIGNMENT, ActorRows, Told, layout
from poise.shared_memory import shared_memory
from poise.spec import ActionTerm, ObsTerm, Spec

SPEC = Spec(
    {"state": (ObsTerm("x", (3,)),), "view": (ObsTerm("camera", (2, 2, 3), dtype="uint8", source="camera"),)},
    (ActionTerm("move", "control", low=(-1.0, -1.0), high=(1.0, 1.0)),),
    0.1,
)  # fmt: skip
CPU = torch.device("cpu")
QUIET = Told(0, 0, 0.0, 0, 0)


def rows(num_envs: int, actors: int, slots: int = 2) -> ActorRows:
    descriptor = shared_memory(slots * layout(SPEC, num_envs, actors)[2], "test")
    made = ActorRows(SPEC, num_envs, actors, slots, descriptor)
    os.close(descriptor)
    return made


def obs(n: int, value: float):
    return {"state": torch.full((n, 3), value), "view": torch.full((n, 2, 2, 3), int(value), dtype=torch.uint8)}


def step(n: int, value: float, **more) -> Step:
    none = torch.zeros(n, dtype=torch.bool)
    after = obs(n, value)
    return Step(**{"obs": after, "next_obs": after, "reward": torch.full((n,), value), "terminated": none,
                   "truncated": none, **more})  # fmt: skip


def test_worlds_are_shared_out_and_come_out_together():
    shared = rows(num_envs=5, actors=2)
    assert [share.tolist() for share in shared.shares] == [[0, 1, 2], [3, 4]]
    shared.put(7, 0, torch.full((3, 2), 0.1), step(3, 1.0), 4, QUIET)
    shared.put(7, 1, torch.full((2, 2), 0.2), step(2, 2.0), 5, QUIET)
    row, there = shared.take(7, CPU)
    assert there is row
    assert torch.equal(row.action[:, 0], torch.tensor([0.1, 0.1, 0.1, 0.2, 0.2]))
    assert row.step.reward.tolist() == [1.0, 1.0, 1.0, 2.0, 2.0] and row.version.tolist() == [4, 4, 4, 5, 5]
    assert row.step.next_obs["view"].dtype == torch.uint8 and row.step.next_obs["view"][:, 0, 0, 0].tolist() == [
        1,
        1,
        1,
        2,
        2,
    ]
    assert row.step.obs is row.step.next_obs  # as worlds give them, so that a replay need not compare
    assert row.step.success is None and row.step.mask is None


def test_a_row_taken_is_a_copy_and_the_slot_serves_again():
    shared = rows(num_envs=2, actors=1)
    shared.put(0, 0, torch.zeros(2, 2), step(2, 1.0), 1, QUIET)
    first = shared.take(0, CPU)[0]
    shared.put(2, 0, torch.zeros(2, 2), step(2, 9.0), 1, QUIET)
    assert first.step.reward.tolist() == [1.0, 1.0] and shared.take(2, CPU)[0].step.reward.tolist() == [9.0, 9.0]


def test_only_the_actor_whose_episode_ended_begins_anew():
    shared = rows(num_envs=3, actors=2)
    ended = torch.tensor([True, False])
    shared.put(0, 0, torch.zeros(2, 2), step(2, 1.0, terminated=ended, success=ended, obs=obs(2, 6.0)), 1,
               QUIET._replace(began=1, has_success=1))  # fmt: skip
    shared.put(0, 1, torch.zeros(1, 2), step(1, 2.0), 1, QUIET)
    found = shared.take(0, CPU)[0].step
    assert found.next_obs["state"][:, 0].tolist() == [1.0, 1.0, 2.0]
    assert found.obs["state"][:, 0].tolist() == [6.0, 6.0, 2.0] and found.obs["view"][:, 1, 1, 2].tolist() == [6, 6, 2]
    assert found.success is not None and found.success.tolist() == [True, False, False]


def test_worlds_that_begin_take_no_step():
    shared = rows(num_envs=3, actors=2)
    shared.begin(4, 0, obs(2, 5.0), 3, QUIET)
    shared.put(4, 1, torch.ones(1, 2), step(1, 2.0), 3, QUIET)
    found = shared.take(4, CPU)[0].step
    assert found.mask is not None and found.mask.tolist() == [False, False, True]
    assert found.truncated.tolist() == [True, True, False] and found.ended.tolist() == [True, True, False]
    assert found.obs["state"][:, 0].tolist() == [5.0, 5.0, 2.0]


def test_every_array_lies_where_any_machine_may_read_it():
    fields, later, size = layout(SPEC, num_envs=3, actors=2)
    assert all(field.start % ALIGNMENT == 0 for field in fields.values()) and size % ALIGNMENT == 0
    assert fields["obs.state"].start == later and max(f.end for n, f in fields.items() if n[:4] != "obs.") <= later
    ends = np.array([field.end for field in fields.values()])
    starts = np.array([field.start for field in fields.values()])
    assert (ends[:-1] <= starts[1:]).all()
