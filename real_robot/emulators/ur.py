"""An emulated Universal Robots controller, for `ur-rtde` and whatever else speaks to one.

    port 29999   dashboard: modes, stops, power (ur_dashboard.py)
    port 30003   a script of URScript arrives here; this controller runs one alone, the control script of ur-rtde
    port 30004   RTDE: registers in, state and registers out, 500 times a second (rtde.py)

ur-rtde's script is a loop that reads a command from input_int_register_0 and its arguments from the double registers:

    0 none   11 servoj: 6 joints, speed, acceleration, time, lookahead T, gain g   16 servo_stop: deceleration
    15 speed_stop   31 protective_stop   33 stopl   34 stopj   35 set_watchdog: rate [Hz]   99 watchdog   255 end

and tells in output_int_register_0 whether it waits for a command (1) or has carried one out (2). Any other command
stops the program here. What servoj makes of its target u is Universal Robots' description of it, put as an equation:
the pose one looks ahead to by T is drawn to the target by g,

    x'' = g (u - x - T x'),                                                                                   (1)

which lags by T behind a steady motion. The oracle judges the targets u as they arrive. On a virtual clock every servoj
lets 2 ms pass; the state is told again every 50 ms of the wall's time, since ur-rtde takes silence for a lost line.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from typing import Any, ClassVar

import numpy as np

from ...robots import UR5E
from . import rtde, ur_dashboard
from .arm import PHYSICS_DT, ArmOptions
from .emulator import Emulator
from .ports import listen, reset

SCRIPT_PORT = 30003
RUNNING, IDLE, POWER_OFF = 7, 5, 3  # robot modes
NORMAL, PROTECTIVE_STOP, SAFEGUARD_STOP, EMERGENCY_STOP = 1, 3, 5, 7  # safety modes
READY, DONE = 1, 2  # what the script says
LOCKED = 5.0  # [s] that a protective stop cannot be unlocked, on a wall clock
STARTS_AFTER = 0.03  # [s] of wall time from a script's arrival to its first line: what RTDE has sent is here by then
TOLD_AGAIN = 0.05  # [s] of the wall's time
STILL, SETTLE = 0.005, 2000  # [rad/s] that counts as standing, and servo periods for it on a virtual clock
DELAY = 0.03  # [s] of the fault `delay`
BUTTONS = {"emergency_stop": EMERGENCY_STOP, "safeguard_stop": SAFEGUARD_STOP}  # in force as long as they are pressed


class URController(Emulator):
    """A UR5e: its controller and its arm."""

    FAULTS: ClassVar = {
        "protective_stop": "the arm met something; to be unlocked after 5 s",
        "emergency_stop": "the red button, for so long; then the arm is without power",
        "safeguard_stop": "somebody is in the light curtain, for so long",
        "program_stopped": "somebody pressed stop on the teach pendant",
        "robot_mode_power_off": "somebody switched the arm off",
        "payload": "2 kg hang on the hand that nobody declared",
        "drop_packets": "three of four packages with the arm's state are lost, for so long",
        "delay": "the arm's state arrives 30 ms late, for so long",
        "corrupt": "the arm's state arrives with wrong bits, for so long",
        "half_open": "the line takes everything and passes on nothing, for so long",
        "reset": "every connection ends without a word",
    }

    def __init__(self, host: str = "127.0.0.1", options: ArmOptions | None = None, virtual: bool = False):
        super().__init__(UR5E, options, virtual)
        self.host = host
        self.robot_mode, self.safety_mode, self.running = RUNNING, NORMAL, False
        self.inputs: dict[str, Any] = {name: 0 for name in rtde.INPUTS}
        self.script_state = 0  # output_int_register_0
        self._target, self._velocity = self.held.copy(), np.zeros(6)  # x and x' of (1)
        self._servo = self._busy = False  # a servoj thread runs; a command is being carried out
        self._gain, self._lookahead = 300.0, 0.1
        self._watchdog, self._fed, self._starts, self._stopped = 0.0, 0.0, np.inf, -np.inf
        self._connections: list[_Connection] = []
        self._measured = self.arm.measure()
        self._packages, self._late = 0, deque[tuple[float, _Connection, bytes]]()

    @property
    def address(self) -> str:
        return f"ur:{self.host}"

    def open(self) -> None:
        listen(self.host, ur_dashboard.PORT, lambda client: ur_dashboard.serve(self, client))
        listen(self.host, SCRIPT_PORT, self._take_script)
        listen(self.host, rtde.PORT, self._serve_rtde)

    def serve(self) -> None:
        while not self.ended.wait(TOLD_AGAIN):
            if self.virtual:
                with self.lock:
                    self._start_if_due()
                    self._tell()

    def wait_while(self, fault: str) -> None:
        """Return once a fault of the line has ended."""
        while self.has(fault):
            time.sleep(0.005)

    # ---- the program -------------------------------------------------------------------------

    def _take_script(self, client: socket.socket) -> None:
        text = ""
        while data := client.recv(65536):
            self.wait_while("half_open")
            text += data.decode("ascii", "replace")
            if not text.endswith("\nend\n"):
                continue
            with self.lock:
                self.stop_program()
                if "rtde_control" in text and self._may_move():
                    self._starts = time.monotonic() + STARTS_AFTER
                    self._tell()
            text = ""

    def _start_if_due(self) -> None:
        if time.monotonic() < self._starts:
            return
        self._starts = np.inf
        self.running, self.script_state, self._busy, self._watchdog = True, READY, False, 0.0
        self.oracle.restart(self._target)
        self._obey()  # whatever the registers hold from before

    def stop_program(self) -> None:
        """The script ends wherever it is, and the arm comes to a standstill."""
        self.running, self._busy, self._starts = False, False, np.inf
        self.brake()

    def _obey(self) -> bool:
        """The script reads its command; whether that let time pass on a virtual clock."""
        command, value = self.inputs["input_int_register_0"], self._argument
        if command == 0:
            self._busy = False
            self.script_state = READY
        elif command == 11:
            self._gain, self._lookahead, self._servo = value(10), value(9), True
            self.follow(np.array([value(i) for i in range(6)]))
            self.script_state = READY
            return self.virtual
        elif not self._busy and command != 99:
            self._busy = True
            match command:
                case 15 | 16 | 33 | 34:
                    self.brake()
                case 31:
                    self.inject("protective_stop")
                case 35:
                    self._watchdog, self._fed = value(0), self.arm.time
                case _:  # 255, or nothing that is known here
                    self.stop_program()
            self._finish_if_done()
        return False

    def _argument(self, index: int) -> float:
        return float(self.inputs[f"input_double_register_{index}"])

    def _finish_if_done(self) -> None:
        if self._busy and not self._velocity.any():
            self.script_state = DONE

    # ---- the arm -----------------------------------------------------------------------------

    def brake(self) -> None:
        """To a standstill under the arm's limit of acceleration, from wherever (1) has it; on a virtual clock at once,
        until the joints stand, too."""
        self._servo = False
        for _ in range(SETTLE if self.virtual else 0):
            if not self._velocity.any() and np.abs(self.arm.joint_vel).max() < STILL:
                break
            self._advance()

    def _advance(self) -> None:
        self._start_if_due()
        for _ in range(round(self.dt / PHYSICS_DT)):
            self._steer(PHYSICS_DT)
            self.arm.command(self._target)
            self.arm.advance(PHYSICS_DT)
        self._measured = self.arm.measure()
        self._finish_if_done()
        if self._watchdog and self.running and self.arm.time - self._fed > 1.0 / self._watchdog and not self.virtual:
            self.stop_program()
        self._tell()

    def _steer(self, dt: float) -> None:
        """One millisecond of (1), or of the way to standstill."""
        if self._servo:
            pull = self.held - self._target - self._lookahead * self._velocity
            self._velocity = self._velocity + dt * self._gain * pull
        elif self._velocity.any():
            step = np.multiply(self.robot.acceleration, dt)
            self._velocity = np.sign(self._velocity) * np.maximum(np.abs(self._velocity) - step, 0.0)
        self._target = self._target + dt * self._velocity
        if not self._servo and not self._velocity.any():
            self.held = self._target
            self.oracle.restart(self._target)

    # ---- safety ------------------------------------------------------------------------------

    def _may_move(self) -> bool:
        return self.robot_mode == RUNNING and self.safety_mode == NORMAL

    def inject(self, fault: str) -> None:
        match fault:
            case "protective_stop":
                self.safety_mode, self._stopped = PROTECTIVE_STOP, time.monotonic()
                self.stop_program()
            case "emergency_stop" | "safeguard_stop":
                self.safety_mode = BUTTONS[fault]
                self.stop_program()
            case "program_stopped":
                self.stop_program()
            case "robot_mode_power_off":
                self.power(on=False)
            case "payload":
                self.arm.model.body_mass[self.arm.model.body("hand").id] += 2.0
            case "reset":
                for connection in self._connections:
                    reset(connection.client)
                self._connections = []
        self._tell()

    def _release_buttons(self) -> None:
        for name, mode in BUTTONS.items():
            if self.safety_mode == mode and not self.has(name):
                self.safety_mode = NORMAL
                if name == "emergency_stop":
                    self.robot_mode = POWER_OFF

    def unlock(self) -> str:
        """Release a protective stop; what the dashboard says."""
        if self.safety_mode == PROTECTIVE_STOP:
            if not self.virtual and time.monotonic() - self._stopped < LOCKED:
                return (
                    "Cannot unlock protective stop until 5s after occurrence. Always inspect cause of protective stop"
                )
            self.safety_mode = NORMAL
        return "Protective stop releasing"

    def power(self, on: bool) -> None:
        """Switch the arm on, with its brakes engaged, or off."""
        if not on:
            self.stop_program()
            self.robot_mode = POWER_OFF
        elif self.robot_mode == POWER_OFF and self.safety_mode == NORMAL:
            self.robot_mode = IDLE

    def release_brakes(self) -> None:
        if self.robot_mode == IDLE:
            self.robot_mode = RUNNING

    # ---- RTDE --------------------------------------------------------------------------------

    def _serve_rtde(self, client: socket.socket) -> None:
        connection, packages = _Connection(client), rtde.Packages()
        try:
            while data := client.recv(4096):
                self.wait_while("half_open")
                with self.lock:
                    for kind, payload in packages.cut(data):
                        self._answer_package(connection, kind, payload)
        except ValueError:
            reset(client)  # nothing that RTDE knows
        finally:
            with self.lock:
                if connection in self._connections:
                    self._connections.remove(connection)
                if self.virtual and connection.inputs:  # no watchdog there: its time has stopped
                    self.stop_program()

    def _answer_package(self, connection: _Connection, kind: str, payload: bytes) -> None:
        if kind == "U":
            values = connection.values(payload)
            self.inputs.update(values)
            self._fed = self.arm.time if "input_int_register_0" in values else self._fed
            if not (self.running and self._obey()) and self.virtual:
                self._tell()
            return
        answer = connection.negotiate(kind, payload)
        if kind == "S" and connection not in self._connections:
            self._connections.append(connection)
        elif kind == "P" and connection in self._connections:
            self._connections.remove(connection)
        connection.client.sendall(rtde.package(kind, answer))
        if kind == "S":
            self._tell()

    def _tell(self) -> None:
        """The state, to everybody who asked for it."""
        self._release_buttons()
        self._packages += 1
        now = time.monotonic()
        while self._late and self._late[0][0] <= now:
            _, connection, data = self._late.popleft()
            connection.send(data)
        if self.has("half_open") or (self.has("drop_packets") and self._packages % 4):
            return
        for connection in self._connections:
            values = [self._value(name) for name in connection.outputs.names]
            data = rtde.package("U", b"\x01" + connection.outputs.pack(values))
            if self.has("corrupt"):
                data = data[:12] + bytes(byte ^ 0xA5 for byte in data[12:])  # all but the header and the time
            if self.has("delay"):
                self._late.append((now + DELAY, connection, data))
            else:
                connection.send(data)

    def _value(self, name: str) -> Any:
        """The value of an output; zero where this model knows none."""
        match name:
            case "timestamp":
                return self.arm.time
            case "actual_q":
                return self._measured[0]
            case "actual_qd":
                return self._measured[1]
            case "target_q":
                return self._target
            case "target_qd":
                return self._velocity
            case "target_moment" | "actual_current_as_torque":
                return self.arm.joint_effort
            case "actual_TCP_pose":
                return [*self.arm.tool_pos, 0.0, 0.0, 0.0]
            case "robot_mode":
                return self.robot_mode
            case "safety_mode":
                return self.safety_mode
            case "runtime_state":
                return 2 if self.running else 1
            case "robot_status_bits":
                return (self.robot_mode == RUNNING) | self.running << 1
            case "safety_status_bits":
                stopped = (self.safety_mode == EMERGENCY_STOP) << 7 | (self.safety_mode != NORMAL) << 10
                return 1 << (self.safety_mode - 1) | stopped
            case "speed_scaling" | "target_speed_fraction":
                return 1.0
            case "output_int_register_0":
                return self.script_state
        kind = rtde.OUTPUTS[name]
        return [0] * int(kind[6]) if kind.startswith("VECTOR") else 0


class _Connection:
    """One client of the RTDE port, and what it has asked for."""

    def __init__(self, client: socket.socket):
        self.client = client
        self.outputs = rtde.Recipe(b"", rtde.OUTPUTS)
        self.inputs: list[rtde.Recipe] = []

    def negotiate(self, kind: str, payload: bytes) -> bytes:
        """The answer to everything but data. Raises ValueError for what is no request."""
        match kind:
            case "V" | "S" | "P":
                return b"\x01"
            case "v":
                return np.array(ur_dashboard.VERSION, ">u4").tobytes()
            case "O":
                self.outputs = rtde.Recipe(payload[8:], rtde.OUTPUTS)
                return b"\x01" + ",".join(self.outputs.types).encode()
            case "I":
                self.inputs.append(recipe := rtde.Recipe(payload, rtde.INPUTS))
                return bytes([len(self.inputs)]) + ",".join(recipe.types).encode()
        raise ValueError(f"a package of kind {kind!r}")

    def values(self, payload: bytes) -> dict[str, object]:
        """Input variables of a package of data. Raises ValueError for a recipe that nobody has set up."""
        if not payload or not 0 < payload[0] <= len(self.inputs):
            raise ValueError(f"a recipe that is none of {len(self.inputs)}")
        return self.inputs[payload[0] - 1].unpack(payload[1:])

    def send(self, data: bytes) -> None:
        """Send what fits; who does not read misses it."""
        try:
            if self.client.send(data, socket.MSG_DONTWAIT) < len(data):
                reset(self.client)  # the rest would be taken for the beginning of a package
        except BlockingIOError:
            pass
        except OSError:
            reset(self.client)
