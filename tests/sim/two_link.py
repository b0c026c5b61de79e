"""A small task for tests: one position servo, one motor, a ball on a table, an end that can be reached."""

from __future__ import annotations

import mujoco
import numpy as np

from poise.sim.randomization import Randomization, Term
from poise.spec import ActionTerm, ObsTerm, Spec

XML = """
<mujoco>
  <option integrator="implicitfast" timestep="0.005"/>
  <asset><texture name="grid" type="2d" builtin="checker" width="256" height="256"/>
    <material name="grid" texture="grid"/></asset>
  <worldbody>
    <geom name="table" type="plane" size="2 2 .1" pos="0 0 -1.5" material="grid"/>
    <body name="upper"><joint name="shoulder" axis="0 1 0" damping="0.5" armature="0.05" frictionloss="0.1"/>
      <geom name="upper" type="capsule" fromto="0 0 0 0.4 0 0" size="0.03" mass="2"/>
      <body name="lower" pos="0.4 0 0"><joint name="elbow" axis="0 1 0" damping="0.3"/>
        <geom name="lower" type="capsule" fromto="0 0 0 0.3 0 0" size="0.02" mass="1"/>
        <site name="tip" pos="0.3 0 0"/>
      </body>
    </body>
    <body name="ball" pos="1 0 -1.4"><freejoint name="ball"/>
      <geom name="ball" type="sphere" size="0.1" mass="0.2"/></body>
  </worldbody>
  <actuator>
    <position name="servo" joint="shoulder" kp="100" kv="10"/>
    <motor name="motor" joint="elbow" gear="2"/>
  </actuator>
</mujoco>
"""
MASS = Term("mass", "link_mass", ("upper", "lower"), range=(0.7, 1.3))
NOISE = Term("noise", "joint_pos_noise", "*", range=(0.01, 0.02), operation="set")
LATENCY = Term("latency", "action_latency", range=(0.0, 0.03), operation="set")


class TwoLink:
    """Hold the shoulder at a drawn angle; the elbow's motor is free; ends early when the elbow swings over."""

    name = "test/two_link"
    physics_dt = 0.005
    max_episode_steps = 40
    randomization = Randomization((MASS, NOISE, LATENCY))
    spec = Spec(
        {"state": (ObsTerm("angles", (2,)), ObsTerm("speeds", (2,)), ObsTerm("error", (1,))),
         "privileged": (ObsTerm("ball", (3,)),)},
        (ActionTerm("shoulder", "joint_pos", ("shoulder",), (-2.0,), (2.0,), (0.2,), "last_target", (0.0,), (0.5,),
                    (3.0,), (30.0,)),
         ActionTerm("elbow", "control", ("elbow",), (-3.0,), (1.0,))),
        control_dt=0.02,
    )  # fmt: skip

    def model(self):
        return mujoco.MjSpec.from_string(XML)

    def reset(self, key, params):
        qpos = np.zeros((len(key.worlds), 9))
        qpos[:, :2] = key.uniform("start", 2) - 0.5
        qpos[:, 2:6] = 1.0, 0.0, -1.4, 1.0
        return qpos, np.zeros((len(qpos), 8)), {"goal": key.uniform("goal", 1)}

    def observe(self, state):
        error = state.memory["goal"] - state.qpos[:, :1]
        return {"angles": state.qpos[:, :2], "speeds": state.qvel[:, :2], "error": error, "ball": state.qpos[:, 2:5]}

    def advance(self, state, action):
        return dict(state.memory)

    def reward(self, state, action):
        return -abs(state.qpos[:, 0] - state.memory["goal"][:, 0])

    def terminated(self, state):
        return abs(state.qpos[:, 1]) > 2.2

    def success(self, state):
        return abs(state.qpos[:, 0] - state.memory["goal"][:, 0]) < 0.1
