"""Robot: the user's handle to an arm. The device itself is open in the control process alone.

    with Robot("twin:fr3?latency=0.04") as robot:
        robot.move_to(robot.spec.home)
        print(robot.read().joint_pos)

Loading this imports neither torch nor mujoco. Legend: n joints.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .. import errors
from ..errors import NotConnectedError, RobotError
from .cameras import Cameras
from .driver import Driver, Reading
from .drivers import address_robot, driver_at
from .links import Link, LocalLink, Message, ProcessLink
from .ring import RingReader
from .supervisor import Code, Verdict


class Robot:
    """One arm at an address, for instance `twin:fr3?latency=0.04&mass=1.1`.

    in_process runs the control loop in this process, on simulated time: for tests. A driver in place of an address
    does the same. cameras: what policies with camera groups look through; an arm on simulated time takes none.
    """

    def __init__(self, address: str | Driver, in_process: bool = False, cameras: Cameras | None = None):
        self._link: Link
        if isinstance(address, str):
            self.address, self.spec = address, address_robot(address)
            self._link = LocalLink(driver_at(address)) if in_process else ProcessLink(address, cameras)
        else:
            self.address, self.spec = f"driver:{type(address).__name__}", address.robot
            self._link = LocalLink(address)
        self._status: Message | None = None  # of the last answer; None while not connected

    # ---- life --------------------------------------------------------------------------------

    def connect(self) -> Robot:
        """Open the device; the arm holds its pose. Raises NotConnectedError, LimitViolatedError."""
        if self._status is None:
            try:
                self._result(self._link.open())
            except errors.PoiseError:
                self._link.close()
                raise
        return self

    def close(self) -> None:
        """Brake, hold and let go of the device; a second call does nothing."""
        self._status = None
        self._link.close()

    def __enter__(self) -> Robot:
        return self.connect()

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- looking -----------------------------------------------------------------------------

    def read(self) -> Reading:
        """The newest reading."""
        r = self._ask("read")
        joint_pos, joint_vel, target = (np.asarray(r[name]) for name in ("joint_pos", "joint_vel", "joint_pos_target"))
        effort = None if r["joint_effort"] is None else np.asarray(r["joint_effort"])
        return Reading(r["time"], r["device_time"], joint_pos, joint_vel, target, r["gripper_pos"], effort, r["fault"])

    def truth(self) -> dict[str, np.ndarray]:
        """What only a simulated arm knows: joint_pos, joint_vel (n,), tool_pos (3,). Else empty.

        With the scene of a task also the whole state, qpos (nq,) and qvel (nv,).
        """
        return {name: np.asarray(value) for name, value in self._ask("truth").items()}

    def status(self) -> dict[str, Any]:
        """The control process's time [s], the latched fault ("" for none), and counts of verdicts."""
        self._ask("status")
        return dict(self._status or {})

    def servo_log(self) -> RingReader:
        """A reader of what the control process says of every servo period (servo_log.py); close it yourself."""
        return RingReader(self._link.ring())

    @property
    def fault(self) -> str:
        """The latched fault as of the last answer; "" for none."""
        return str((self._status or {}).get("fault", ""))

    # ---- moving ------------------------------------------------------------------------------

    def command(self, target: Any, at: float | None = None, source: str = "",
                gripper: float | None = None) -> Verdict:  # fmt: skip
        """Ask for joint positions (n,) [rad] one servo period from now; the verdict, with what was sent.

        at: when the command was made, on the clock of `status()["time"]` [s]; None says just now.
        source: who asks; while one source drives, the commands of another are rejected. Between commands the arm
        brakes to a standstill. gripper: its command [unit of RobotSpec.gripper]; None leaves it alone.
        """
        result = self._ask("command", target=_plain(target), at=at, source=source, gripper=gripper)
        code, rule, joint, asked, limit = result["verdict"]
        position, velocity, sent = (np.asarray(result[name]) for name in ("position", "velocity", "sent"))
        return Verdict(Code(code), rule, joint, asked, limit, position, velocity, sent, result["gripper"])

    def move_to(self, joint_pos: Any, speed: float = 0.3, gripper: float | None = None) -> None:
        """Move to joint positions (n,) [rad] and stand: straight in joint space, or first back as the arm came.

        speed: fraction of the arm's velocity and acceleration limits; gripper: where the fingers go once the arm is
        there [unit of RobotSpec.gripper], None leaves them alone. Raises LimitViolatedError, RobotError.
        """
        self._ask("move_to", joint_pos=_plain(joint_pos), speed=speed, gripper=gripper)

    def arrange(self, qpos: Any) -> None:
        """Put the objects of a simulated scene where a state (nq,) of its task has them; the arm stays as it is.

        Raises UsageError on an arm without such a scene.
        """
        self._ask("arrange", qpos=_plain(qpos))

    def run_episode(self, policy: str | os.PathLike[str] | Any, goal: Mapping[str, Any], steps: int,
                    **how: Any) -> Iterator[Message]:  # fmt: skip
        """Run a policy file: one row a control step, as it happens, then one with only `last_obs`.

        goal: values of the observation terms that come from outside the arm, by name. Leaving the loop early ends
        the episode; the arm then brakes. In process, a runner may stand in place of the file.
        how: apart (bool: the policy in a process of its own, for large networks), torch (bool: there in torch),
        ensemble (weight of temporal ensembling, 0 for the newest chunk alone), delay ([s] added to its thinking),
        task (whose `observe` makes external terms of a simulated scene's state; external.py).

        A row holds obs {group: list}, actions_asked, actions (executed, in [-1, 1]), joint_pos_target and
        gripper_target (sent last), verdict (worst of the step) and why, t_mono, t_device, and state: joint_pos and
        joint_vel at the step's end, or what the arm knows of the truth.
        Raises SpecError where the policy does not fit this arm.
        """
        in_hand = not isinstance(policy, str | os.PathLike)
        if in_hand and not isinstance(self._link, LocalLink):
            raise errors.UsageError(
                "a control process runs policy files; pass a path, or use Robot(..., in_process=True)"
            )
        request = {"do": "episode", "policy": policy if in_hand else os.path.abspath(policy), "steps": steps, **how,
                   "goal": {name: _plain(value) for name, value in goal.items()}}  # fmt: skip
        yield from self._rows(request)

    def follow(self, period: float, source: str = "teleop") -> Iterator[Message]:
        """Follow what `aim` says until the loop over this is left or a stop is latched: a row each `period` [s].

        A row holds time, joint_pos, joint_vel, joint_effort, gripper_pos and target as its period began, and now,
        joint_pos_target (sent last), gripper_target, following (whether anything was aimed for), state, verdict (the
        worst) and why, fault, device_fault and counts as it ended. See real_robot/following.py.
        """
        yield from self._rows({"do": "follow", "period": period, "source": source})

    def aim(self, target: Any, at: float, gripper: float | None = None) -> None:
        """While following, from any thread: be at (n,) [rad] at a time on the clock of a row's `now` [s]."""
        self.aim_along([(at, target, gripper)])

    def aim_along(self, points: Sequence[tuple[float, Any, float | None]] | None) -> None:
        """Several waypoints (at, target, gripper) in one go; None lets go, and the arm brakes at once."""
        self._connected()
        plain = None if points is None else [[at, _plain(target), gripper] for at, target, gripper in points]
        self._link.post("aim", points=plain)

    def end(self) -> None:
        """End the episode that is running, from any thread; the arm brakes, nothing is latched."""
        self._connected()
        self._link.post("end")

    def stop(self) -> None:
        """Brake and latch a stop, from any thread, whatever the arm is doing; only clear_fault releases it."""
        self._connected()
        self._link.post("stop")

    def clear_fault(self) -> None:
        """Release a latched stop: a person's decision."""
        self._ask("clear_fault")

    # ---- the line ----------------------------------------------------------------------------

    def _rows(self, request: Message) -> Iterator[Message]:
        """The rows of a job; leaving the loop over them ends it."""
        answers = self._answers(request)
        over = False
        try:
            for message in answers:
                if over := "row" not in message:
                    self._result(message)
                else:
                    yield message["row"]
        finally:
            if not over:
                self._end(answers)

    def _ask(self, what: str, **arguments: Any) -> Any:
        (message,) = self._answers({"do": what, **arguments})
        return self._result(message)

    def _answers(self, request: Message) -> Iterator[Message]:
        self._connected()
        return self._link.ask(request)

    def _result(self, message: Message) -> Any:
        if "error" in message:
            kind = getattr(errors, message["error"], RobotError)
            raise kind(message["message"])
        self._status = message["status"]
        return message["result"]

    def _end(self, answers: Iterator[Message]) -> None:
        """End a job that nobody listens to any more, and read what is left of its answers."""
        try:
            self._link.post("end")
            for message in answers:
                if "status" in message:
                    self._status = message["status"]
        except NotConnectedError:
            pass  # then there is nothing left to end

    def _connected(self) -> None:
        if self._status is None:
            raise NotConnectedError(f"{self.address} is not connected; call connect() first")


def _plain(value: Any) -> Any:
    """Numbers as nested lists for the line; what holds no numbers becomes None, which the supervisor rejects."""
    try:
        return np.asarray(value, np.float64).tolist()
    except (TypeError, ValueError):
        return None
