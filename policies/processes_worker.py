"""One of the processes that train together; processes.py starts it and says what it is told and what it reports."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sys
import traceback
from dataclasses import asdict
from typing import Any

from ..child import parent, receive, send_bytes
from ..errors import PoiseError
from .interrupts import interrupts


def main() -> None:
    connection = parent()

    def report(**what: Any) -> None:
        send_bytes(connection, json.dumps(what).encode())

    logging.basicConfig(level=logging.WARNING, format="%(message)s")  # as the command line does
    logging.getLogger("poise").setLevel(logging.INFO)
    with interrupts():  # from the first moment on: what is seen here, the loop of training sees as it begins
        said = receive(connection)
        place, order = said["place"], json.loads(said["order"])
        try:
            report(result=_trained(place, order, lambda *news: report(progress=news)))
        except (Exception, KeyboardInterrupt) as error:
            text = str(error) if isinstance(error, PoiseError) else f"process {place['rank']} failed: {_line(error)}"
            with contextlib.suppress(ConnectionError):  # nobody may listen any more
                report(error={"type": type(error).__name__, "message": text, "rank": str(place["rank"]),
                              "traceback": traceback.format_exc()})  # fmt: skip
            sys.stderr.flush()
            os._exit(1)  # at once: the others wait for this process, and torch's threads would wait for them


def _line(error: BaseException) -> str:
    return traceback.format_exception_only(error)[-1].strip()


def _trained(place: dict[str, Any], order: dict[str, Any], progress: Any) -> dict[str, Any]:
    from .processes import Place
    from .train import train_here

    result = train_here(Place(**place), progress=progress if place["rank"] == 0 else None, **order)
    return {**asdict(result), "run_dir": str(result.run_dir), "policy": str(result.policy)}


if __name__ == "__main__":
    main()
