"""listen: serve a TCP port of an emulated device, one thread a client."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import struct
import threading
from collections.abc import Callable

from ...errors import NotConnectedError


def listen(host: str, port: int, handle: Callable[[socket.socket], None]) -> None:
    """Call `handle` with every client's socket, in a thread of its own; the client is gone when it returns or OSError.

    Raises:
        NotConnectedError: the port is taken.
    """

    class Client(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with contextlib.suppress(OSError):
                handle(self.request)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address, daemon_threads = True, True

    try:
        server = Server((host, port), Client)
    except OSError as error:
        raise NotConnectedError(
            f"cannot listen on {host}:{port} ({error.strerror}); the port is fixed, so give "
            "another emulator of this kind an address of its own: --host 127.0.0.5"
        ) from None
    threading.Thread(target=server.serve_forever, daemon=True).start()


def reset(client: socket.socket) -> None:
    """End a connection as a cable or a firewall does: without a word."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.shutdown(socket.SHUT_RD)  # wakes the thread that reads
        client.close()
