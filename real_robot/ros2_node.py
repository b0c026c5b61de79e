"""A ROS 2 node of our own context, quiet and without threads: what the driver and the emulator of ros2 topics share.

rclpy comes with a ROS 2 installation that is sourced, or in wheels from PyPI. Their libraries find each other by
LD_LIBRARY_PATH alone, for which one of the wheels, ros-wheels-bootstrapper, starts every Python of its environment a
second time. `make setup` leaves that one out; the libraries are loaded here instead, in their order.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import UsageError


class RosNode:
    """One node, its messages' classes, and its executor, which runs in whoever calls `spin`."""

    def __init__(self, name: str, namespace: str = "", domain: int | None = None):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a parser that rclpy brings
            try:
                _load_libraries()
                import rclpy
                from rclpy.executors import SingleThreadedExecutor
                from rclpy.parameter import Parameter
                from rclpy.signals import SignalHandlerOptions
                from sensor_msgs.msg import JointState
                from std_msgs.msg import Float64MultiArray
            except (ImportError, OSError) as error:
                raise UsageError(f"ros2 topics need rclpy: pip install 'poise[ros2]', or source a ROS 2 installation "
                                 f"that has this Python ({error})") from None  # fmt: skip
            self.JointState, self.Float64MultiArray, self._parameter = JointState, Float64MultiArray, Parameter
            self._context = rclpy.Context()
            rclpy.init(args=["--ros-args", "--disable-external-lib-logs", "--disable-rosout-logs"],
                       context=self._context, domain_id=domain,
                       signal_handler_options=SignalHandlerOptions.NO)  # fmt: skip
            self._node = rclpy.create_node(name, context=self._context, namespace=namespace, enable_rosout=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)

    def subscribe(self, kind: Any, topic: str, call: Callable[[Any], None], depth: int) -> Any:
        """Call with every message that `spin` finds; only the newest `depth` wait for it."""
        return self._node.create_subscription(kind, topic, call, depth)

    def publisher(self, kind: Any, topic: str) -> Any:
        return self._node.create_publisher(kind, topic, 10)

    def forget(self, subscription: Any) -> None:
        self._node.destroy_subscription(subscription)

    def declare(self, name: str, value: list[str]) -> None:
        """A parameter of this node, which others may ask for."""
        self._node.declare_parameter(name, value)

    def parameter(self, node: str, name: str, seconds: float) -> list[str] | None:
        """A parameter of another node, a list of texts; None where it does not answer in time."""
        from rcl_interfaces.srv import GetParameters

        client = self._node.create_client(GetParameters, f"{node}/get_parameters")
        end = time.monotonic() + seconds
        try:
            while not client.service_is_ready():
                if time.monotonic() > end:
                    return None
                self.spin(0.02)
            answer = client.call_async(GetParameters.Request(names=[name]))
            while not answer.done():
                if time.monotonic() > end:
                    return None
                self.spin(0.02)
            found: Any = answer.result()
            return list(found.values[0].string_array_value) if found.values else None
        finally:
            self._node.destroy_client(client)

    def spin(self, seconds: float) -> None:
        """Wait so long for something to arrive, and deal with one thing that has."""
        self._executor.spin_once(timeout_sec=seconds)

    def close(self) -> None:
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


def _load_libraries() -> None:
    """Load the wheels' libraries, each once those that it needs are there. Raises OSError where some do not load."""
    spec, prefix = importlib.util.find_spec("rclpy"), Path(sys.prefix)
    from_wheels = spec is not None and spec.origin is not None and Path(spec.origin).is_relative_to(prefix)
    if not from_wheels or "rclpy" in sys.modules or "_ROS_WHEELS_BOOTSTRAP_COMPLETE" in os.environ:
        return
    found = [*prefix.glob("lib/python3*/site-packages/ros_*.libs/*.so*"), *prefix.glob("lib/lib*.so")]
    left = list({path.name: path for path in found}.values())  # several wheels bring the same ones
    while left:
        failed = [(path, why) for path in left if (why := _failure(path))]
        if len(failed) == len(left):
            raise OSError(f"{failed[0][0].name}: {failed[0][1]}")
        left = [path for path, _ in failed]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(
        filter(None, (str(prefix / "lib"), os.environ.get("LD_LIBRARY_PATH")))
    )


def _failure(path: Path) -> str:
    try:
        ctypes.CDLL(str(path))
    except OSError as error:
        return str(error)
    return ""
