"""A connection of xarm-python-sdk that neither prints nor hangs, and leaves the process as it was.

The SDK prints and logs to standard output, makes a folder ~/.UFACTORY, sets a timeout for every socket that the process
makes later, prefers a socket in /tmp that any user can make to the arm's address, and asks up to a hundred times two
seconds long for the version of a box that does not answer.
"""

from __future__ import annotations

import contextlib
import io
import socket
import sys
import threading
import types
from collections.abc import Callable
from typing import Any

from ..errors import NotConnectedError, UsageError

CONNECT_WAIT = 5.0  # [s] for the box to say its version


def connected_api(host: str, answer_wait: float, on_report: Callable[[dict[str, Any]], None]) -> Any:
    """The SDK's XArmAPI for the box at a host name or address, in radians, its report stream at 100 Hz.

    Args:
        answer_wait: [s] for the answer to each question.
        on_report: called in a thread of the SDK's with every report.

    Raises:
        NotConnectedError: nothing answers there, or not as a control box does.
        UsageError: the SDK is not installed.
    """
    arm = _api()(_numbers(host), is_radian=True, do_not_open=True, report_type="real", forbid_uds=True,
                 timed_comm=False, baud_checkset=False)  # fmt: skip
    arm.register_report_callback(on_report, *[False] * 8)
    failed: list[Exception] = []
    worker = threading.Thread(target=_connect, args=(arm, failed), daemon=True, name="xarm connect")
    worker.start()
    worker.join(CONNECT_WAIT)
    if worker.is_alive() or failed or not arm.connected:
        threading.Thread(target=arm.disconnect, daemon=True, name="xarm disconnect").start()
        why = failed[0] if failed else f"something is there, but has not said its version within {CONNECT_WAIT:g} s"
        raise NotConnectedError(f"no xArm answers at {host}, port 502 ({why}); is its control box on, and in this "
                                "network?")  # fmt: skip
    arm.set_timeout(answer_wait)
    return arm


def disconnect(arm: Any) -> None:
    """End the connection and its threads."""
    stream = arm._arm._stream  # closed first, or the thread of reports waits two seconds to connect again
    stream.close()
    stream.join(1.0)
    arm.disconnect()


def error_name(code: int) -> str:
    """The vendor's words for an error of the control box."""
    from xarm.core.config.x_code import ControllerErrorCodeMap  # pyright: ignore[reportMissingImports]

    known = ControllerErrorCodeMap.get(code)
    return f"error {code}" + (f": {known['en']['title']}" if known else "")


def _connect(arm: Any, failed: list[Exception]) -> None:
    try:
        arm.connect()
    except Exception as error:  # the SDK raises plain Exceptions
        failed.append(error)


def _api() -> Any:
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            from xarm.wrapper import XArmAPI  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError:
            raise UsageError("an xArm needs the vendor's library: pip install 'poise[xarm]'") from None
        except OSError as error:
            raise UsageError(f"the xArm's library wants to make a folder in your home: {error}") from None
    silent = types.ModuleType("socket")
    vars(silent).update({**vars(socket), "setdefaulttimeout": _do_nothing})
    for name, module in list(sys.modules.items()):
        if name.startswith("xarm."):
            vars(module)["print"] = _do_nothing
            if vars(module).get("socket") is socket:
                vars(module)["socket"] = silent
    from xarm.core.utils.log import logger, origin_logger  # pyright: ignore[reportMissingImports]

    logger.disabled = origin_logger.disabled = True
    return XArmAPI


def _do_nothing(*_: object, **__: object) -> None:
    """What stands in for `print` in the SDK's modules, and for the timeout of every socket."""


def _numbers(host: str) -> str:
    """The address in numbers, as the SDK wants it."""
    try:
        return socket.gethostbyname(host)
    except OSError as error:
        raise NotConnectedError(f"xarm:{host}: no such host ({error})") from None
