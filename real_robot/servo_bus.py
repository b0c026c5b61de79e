"""ServoBus: registers of servos on one serial line, through the maker's SDK.

The two SDKs differ in their registers and in what a status packet says; what they share is here: a port, packets that
may be lost or damaged (asked for once more, then reported), and errors that name the servo. Positions are ticks.
"""

from __future__ import annotations

import contextlib
import termios
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from ..errors import NotConnectedError, UsageError

if TYPE_CHECKING:
    from .servo_arm import Servo

TRIES = 2  # a packet of the cycle is asked for once more
SETUP_TRIES, SETUP_PATIENCE = 3, 0.05  # [s] of one register, where no servo period waits
TICKS = 4096  # a turn, of both makers' servos


class ServoState(NamedTuple):
    """What one servo says in the cycle."""

    position: int  # [ticks]
    velocity: float  # [ticks/s]
    torque: float  # Feetech: share of full load, in [-1, 1]; Dynamixel: current [A]
    error: int  # the status packet's error byte; 0 where all is well


class ServoBus:
    """One line. A protocol's subclass names registers {name: (address, bytes)} and decodes what servos say."""

    registers: ClassVar[Mapping[str, tuple[int, int]]]
    state_at: ClassVar[tuple[int, int]]  # address and bytes of what `states` reads in one go
    bauds: ClassVar[Sequence[int]]  # rates that the servos know

    def __init__(self, path: str, baud: int, patience: float):
        if baud not in self.bauds:
            raise UsageError(f"baud={baud}: these servos know {', '.join(map(str, self.bauds))}")
        self.path, self.baud, self.patience = path, baud, patience
        self.retries = 0  # packets that were asked for once more
        self._port: Any = None
        self._packets: Any = None

    # ---- the protocol's own ------------------------------------------------------------------

    def make(self) -> tuple[type, Any]:
        """The SDK's port class and its packet handler. Raises UsageError where the SDK is not installed."""
        raise NotImplementedError

    def decode(self, data: Sequence[int], error: int) -> ServoState:
        """The state in what was read at `state_at`."""
        raise NotImplementedError

    def ask_states(self, ids: list[int]) -> int:
        """Send one sync read; the SDK's result."""
        raise NotImplementedError

    def receive(self) -> tuple[list[int], int]:
        """The SDK's next status packet, whoever sent it, and its result."""
        raise NotImplementedError

    def take_apart(self, packet: list[int]) -> tuple[int, int, Sequence[int]]:
        """Servo, error byte and parameters of a status packet."""
        raise NotImplementedError

    def refuse_settings(self, name: str, here: int, servo: Servo) -> None:
        """Raise NotConnectedError where servo `here` is set up for something else than the arm's joint positions."""
        raise NotImplementedError

    def faults(self, servo: int, error: int) -> str:
        """Names of the faults that a status packet's error byte tells of; "" none."""
        raise NotImplementedError

    def prepare(self, servo: int, speed: int) -> None:
        """Bound the servo's own way to a goal that lies far: its acceleration, and `speed` [ticks/s]."""
        raise NotImplementedError

    def release(self, servo: int) -> None:
        """End what a servo has latched; torque is off then."""
        raise NotImplementedError

    def arm_watchdog(self, servos: Sequence[int], seconds: float) -> None:
        """Let servos stop by themselves where the line is silent for so long; 0 disarms, and ends such a stop."""

    def watchdog_bit(self, servo: int) -> bool:
        """Whether a servo's own watchdog has stopped it."""
        return False

    # ---- life --------------------------------------------------------------------------------

    def open(self) -> None:
        """Open the port, and keep other programs that do the same off it. Raises NotConnectedError."""
        port_class, self._packets = self.make()
        port = port_class(self.path)
        port.baudrate, port.patience = self.baud, self.patience
        with self._line(f"cannot open {self.path}"):
            port.openPort()
        self._port = port
        try:
            port.claim()
        except NotConnectedError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the port; a second call does nothing."""
        if self._port is not None:
            port, self._port = self._port, None
            with contextlib.suppress(OSError, termios.error):  # it is going anyway
                port.closePort()

    @property
    def is_open(self) -> bool:
        return self._port is not None

    # ---- one servo ---------------------------------------------------------------------------

    def ping(self, servo: int) -> int | None:
        """The model number of a servo; None where nobody answers."""
        return self._tried(lambda: self._packets.ping(self._port, servo))

    def get(self, servo: int, register: str) -> int:
        """A register's value. Raises NotConnectedError."""
        address, size = self.registers[register]
        data = self._tried(lambda: self._packets.readTxRx(self._port, servo, address, size), size)
        if data is None:
            raise NotConnectedError(f"{self.path}: servo {servo} does not answer")
        return int.from_bytes(bytes(data), "little")

    def put(self, servo: int, register: str, value: int) -> None:
        """Write a register. Raises NotConnectedError where the servo does not answer or refuses."""
        address, size = self.registers[register]
        data = list(value.to_bytes(size, "little", signed=value < 0))

        def write() -> tuple[int, int, int]:
            result, error = self._packets.writeTxRx(self._port, servo, address, size, data)
            return error, result, error

        error = self._tried(write)
        if error is None:
            raise NotConnectedError(f"{self.path}: servo {servo} does not answer")
        if reason := self.refusal(error):
            raise NotConnectedError(f"{self.path}: servo {servo} refuses {register} = {value}: {reason}")

    def refusal(self, error: int) -> str:
        """Why a servo did not do as told, from its error byte; "" where it did."""
        return ""

    # ---- all at once -------------------------------------------------------------------------

    def states(self, servos: Sequence[int]) -> dict[int, ServoState]:
        """The states of servos, asked for in one packet; who did not answer, on the second asking either, is missing.

        Raises:
            NotConnectedError: the line itself has gone.
        """
        found: dict[int, ServoState] = {}
        for attempt in range(TRIES):
            missing = [servo for servo in servos if servo not in found]
            if not missing:
                break
            self.retries += attempt
            with self._line():
                if self.ask_states(missing) != 0:
                    continue
                while len(found) < len(servos) and (answer := self._answer()) is not None:
                    servo, error, data = answer
                    if servo in missing and len(data) == self.state_at[1]:
                        found[servo] = self.decode(data, error)
        return found

    def send(self, register: str, values: Mapping[int, int]) -> None:
        """Write a register of many servos in one packet, which nobody answers. Raises NotConnectedError."""
        address, size = self.registers[register]
        payload: list[int] = []
        for servo, value in values.items():
            payload.append(servo)
            payload += value.to_bytes(size, "little")
        with self._line():
            self._packets.syncWriteTxOnly(self._port, address, size, payload, len(payload))

    def _answer(self) -> tuple[int, int, Sequence[int]] | None:
        """Servo, error byte and parameters of the next status packet; damaged ones pass by; None after the timeout."""
        while True:
            try:
                packet, result = self.receive()
            except IndexError:  # the SDK's parser, on a damaged length
                result = -1
            if result == 0:
                return self.take_apart(packet)
            self._port.is_using = False
            if self._port.isPacketTimeout():
                return None

    def _tried(self, call: Callable[[], tuple[Any, int, int]], size: int | None = None) -> Any:
        """The first of (value, result, error) as soon as the result is good; None where it never is."""
        for attempt in range(SETUP_TRIES):
            self.retries += attempt > 0
            with self._line():
                self._port.patience = max(self.patience, SETUP_PATIENCE)
                try:
                    value, result, _ = call()
                except IndexError:
                    self._port.is_using = False
                    continue
                finally:
                    self._port.patience = self.patience
            if result == 0 and (size is None or len(value) == size):
                return value
        return None

    @contextlib.contextmanager
    def _line(self, what: str = ""):
        if self._port is None and not what:
            raise NotConnectedError(f"{self.path} is not open; call open() first")
        try:
            yield
        except (OSError, termios.error) as error:
            self.close()
            raise NotConnectedError(f"{what or f'{self.path} has gone'}: {_reason(error)}") from None


def answering(bus: ServoBus, servos: Iterable[int]) -> dict[int, int]:
    """Model numbers of those servos that answer."""
    found = {servo: bus.ping(servo) for servo in servos}
    return {servo: model for servo, model in found.items() if model is not None}


def _reason(error: Exception) -> str:
    code = getattr(error, "errno", None)
    return {2: "no such port; plugged in?", 13: "no permission; is the user in the group dialout?"}.get(
        code or 0, str(error)
    )
