"""Room for contacts and constraints in Warp: from what random play needs, never below what the task has."""

import mujoco
import numpy as np
import pytest
import torch
from mujoco_warp._src.collision_driver import MJ_COLLISION_TABLE, CollisionType

from poise.errors import UsageError
from poise.sim.warp_room import Room, _general, enough_memory, room_for

XML = """
<mujoco>
  <worldbody>
    <geom name="floor" type="plane" size="2 2 .1"/>
    <body pos="0 0 .1"><freejoint/><geom name="box" type="box" size=".1 .1 .1"/></body>
    <body pos="1 0 .3"><joint name="hinge" axis="0 1 0"/><geom name="ball" type="sphere" size=".1"/></body>
  </worldbody>
</mujoco>
"""
MODEL = mujoco.MjModel.from_xml_string(XML)
PAIRS = np.array([[0, 1], [1, 2], [2, 0]])  # in any order


def test_room_is_what_play_had_and_half_as_much_again():
    # the box lies on the floor: four contacts of four constraints each, two pairs whose spheres touch at most
    assert room_for(MODEL, PAIRS, dry=False) == Room(contacts=7, constraints=28, convex=1)
    # seven degrees of freedom may get dry friction, a constraint each
    assert room_for(MODEL, PAIRS, dry=True) == Room(contacts=7, constraints=39, convex=1)
    assert room_for(MODEL, PAIRS, dry=False, contacts=3) == Room(contacts=3, constraints=28, convex=1)


def test_pairs_of_the_general_algorithm_are_those_of_warps_own_table():
    model = mujoco.MjModel.from_xml_string(XML)
    for (first, second), algorithm in MJ_COLLISION_TABLE.items():
        for pair in ((first, second), (second, first)):
            model.geom_type[:2] = [int(kind) for kind in pair]
            assert _general(model, np.array([[0, 1]])).item() == (algorithm == CollisionType.CONVEX), pair


@pytest.mark.parametrize("message", ["Failed to allocate 12 bytes on device 'cuda:0'", "CUDA error 2: out of memory"])
def test_memory_that_runs_out_is_told_in_one_line(message):
    room, cpu = Room(7, 28, 1), torch.device("cpu")
    told = r"^2 worlds with room for 7 contacts and 28 constraints each take about .* GiB on cpu, and it ran out: take fewer"
    with pytest.raises(UsageError, match=told), enough_memory(MODEL, 2, room, cpu):
        raise RuntimeError(message)
    with pytest.raises(RuntimeError, match="another"), enough_memory(MODEL, 2, room, cpu):
        raise RuntimeError("another")
