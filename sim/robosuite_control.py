"""robosuite's controllers as the robosuite: adapter uses them: the same torques to the bit, one repaired, all cheaper.

robosuite lets users register a composite controller, which builds the controller of every part of a robot. This one

- replaces JOINT_VELOCITY, which the wheel of 1.5.2 ships broken: its constructor assigns to a property that has no
  setter, and its loop asks for the truth of an array;
- computes a substep's Jacobian once, where robosuite computes it three times, and the limits of the actions once an
  episode, where it does so three times a substep.

Importing this file imports robosuite; sim/robosuite_env.py does so quietly.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import mujoco
import numpy as np
from robosuite.controllers import controller_factory
from robosuite.controllers.composite.composite_controller import CompositeController, register_composite_controller
from robosuite.controllers.parts.controller import Controller
from robosuite.controllers.parts.generic import JointVelocityController

NAME = "POISE"


class JointVelocity(JointVelocityController):
    """robosuite's PID control of joint velocities, with gravity compensated as its constructor asks for.

    torque = kp e + ki sum e + kd mean de + bias, e = goal - measured [rad/s]; the sum stands still while a motor is
    at its limit.
    """

    @property
    def torque_compensation(self) -> np.ndarray:
        """Gravity, Coriolis and centrifugal torques [N m], or zeros where the configuration wants none."""
        torques = Controller.torque_compensation.fget(self)
        return torques if self._compensates else np.zeros_like(torques)

    @torque_compensation.setter
    def torque_compensation(self, wanted: bool) -> None:
        self._compensates = bool(wanted)

    def run_controller(self) -> np.ndarray:
        if self.goal_vel is None:
            self.set_goal(np.zeros(self.joint_dim))
        self.update()
        self.current_vel = np.array(self.goal_vel)
        error = self.current_vel - self.joint_vel
        self.derr_buf.push(error - self.last_err)
        self.last_err = error
        if not self.saturated:
            self.summed_err = self.summed_err + error
        wanted = (
            self.kp * error + self.ki * self.summed_err + self.kd * self.derr_buf.average + self.torque_compensation
        )
        self.torques = self.clip_torques(wanted)
        self.saturated = bool(np.any(self.torques != wanted))
        Controller.run_controller(self)  # not JointVelocityController's: it is what this replaces
        return self.torques


@register_composite_controller
class PoiseController(CompositeController):
    """robosuite's BASIC composite controller of a single arm and its gripper."""

    name = NAME
    _limits: Any = None

    def _init_controllers(self) -> None:
        for part, params in self.part_controller_config.items():
            if params["type"] == "JOINT_VELOCITY":
                controller = JointVelocity(**params)
            else:
                controller = controller_factory(part, params["type"], controller_params=params)
            if part in self.arms:
                controller.update_reference_data = partial(_update_reference, controller)
            self.part_controllers[part] = controller
        self._limits = None

    @property
    def action_limits(self) -> tuple[np.ndarray, np.ndarray]:
        if self._limits is None:
            self._limits = super().action_limits
        return self._limits

    def run_controller(self, enabled_parts: dict[str, bool]) -> dict[str, np.ndarray]:
        """Commands of every part; the robot has just called update_state."""
        self._applied_action_dict.clear()
        for part, controller in self.part_controllers.items():
            if enabled_parts.get(part, False):
                self._applied_action_dict[part] = controller.run_controller()
        return self._applied_action_dict


def _update_reference(controller: Any) -> None:
    """Pose, velocity and Jacobian of the tool, as Controller._update_single_reference has them."""
    sim = controller.sim
    model, data = sim.model._model, sim.data._data
    site = sim.model.site_name2id(controller.ref_name)
    jac_pos, jac_ori = np.zeros((2, 3, model.nv))
    mujoco.mj_jacSite(model, data, jac_pos, jac_ori, site)
    controller.ref_pos[:] = data.site_xpos[site]
    controller.ref_ori_mat[:] = data.site_xmat[site].reshape(3, 3)
    controller.ref_pos_vel[:] = np.dot(jac_pos, data.qvel)
    controller.ref_ori_vel[:] = np.dot(jac_ori, data.qvel)
    controller.J_pos[:] = controller.J_full[:3] = jac_pos[:, controller.qvel_index]
    controller.J_ori[:] = controller.J_full[3:] = jac_ori[:, controller.qvel_index]
