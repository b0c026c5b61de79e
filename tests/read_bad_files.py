"""A process that opens, reads and checks files with little memory, and says a line of each: PATH TAB WORD TAB SECONDS.

read: it was read;  refused: by a DatasetError with a message;  anything else is the name of what went wrong.
"""

from __future__ import annotations

import resource
import signal
import sys
import time

import numpy as np

from poise.datasets.check import check_log, chosen
from poise.datasets.open_log import open_log
from poise.errors import PoiseError

MEMORY = 2 << 30  # bytes of address space beyond what the imports take
TIME = 10  # seconds a file


class Hung(BaseException):
    pass


def hang(*_: object) -> None:
    raise Hung


def one(path: str, rules: list) -> str:
    try:
        with open_log(path) as log:
            for episode in log.episodes:
                for column in episode.columns.values():
                    np.asarray(column[:])
            check_log(log, rules)
        return "read"
    except PoiseError as error:
        return "refused" if len(str(error)) > 10 else f"silent {error!r}"
    except Hung:
        return "hung"
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]!r}"


def main() -> None:
    rules = chosen()
    with open("/proc/self/statm") as file:
        used = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))
    signal.signal(signal.SIGALRM, hang)
    for line in sys.stdin:
        path = line.rstrip("\n")
        began = time.process_time()
        print(path, end="\t", flush=True)
        signal.alarm(TIME)
        word = one(path, rules)
        signal.alarm(0)
        print(f"{word}\t{time.process_time() - began:.2f}", flush=True)


if __name__ == "__main__":
    main()
