"""A viser server as Poise's pages have it: on the port that was asked for, quiet, and sure to end. No torch here."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import logging
import socket
import threading
from typing import Any

from ..errors import PoiseError, UsageError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def require_viser(what: str, port: int) -> None:
    """Raise UsageError for a port that is none, PoiseError where viser is missing."""
    if not 0 < port < 65536:
        raise UsageError(f"port = {port}: expected 1 to 65535")
    if importlib.util.find_spec("viser") is None:
        raise PoiseError(f"{what} needs viser, which is not installed: pip install 'poise[view]'")


def serve(host: str, port: int, title: str) -> Any:
    """A viser server, empty but for its looks. Raises PoiseError: the port is taken."""
    import viser

    with socket.socket() as probe:  # viser would quietly take the next port
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise PoiseError(f"cannot listen on {host}:{port}: {error.strerror}; another port: --port N") from None
    logging.getLogger("websockets").setLevel(logging.ERROR)  # browsers that leave are no news
    with contextlib.redirect_stdout(io.StringIO()):  # its banner; the caller says where the page is
        server = viser.ViserServer(host, port, label=f"Poise: {title}", verbose=False)
    server.gui.configure_theme(control_layout="collapsible", control_width="medium", show_logo=False,
                               show_share_button=False, brand_color=(38, 103, 160))  # fmt: skip
    server.scene.set_up_direction("+z")
    return server


def stop(server: Any) -> None:
    """End the server, or leave it to the end of the process where a browser's connection keeps it waiting."""
    ending = threading.Thread(target=server.stop, daemon=True)
    with contextlib.redirect_stdout(io.StringIO()):
        ending.start()
        ending.join(timeout=5.0)
