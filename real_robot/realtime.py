"""go_first: what a process can do for itself so that it keeps its period on a loaded machine.

SCHED_RR puts it before every ordinary process, locked memory keeps its pages from being taken and fetched back, and a
frozen heap keeps Python's collector from looking through all that has been imported, each of which costs tens of
milliseconds at its worst. None of it makes an ordinary kernel a real-time one.
"""

from __future__ import annotations

import ctypes
import gc
import os

CURRENT, FUTURE = 1, 2  # of mlockall


def go_first(priority: int) -> str:
    """Run this process at a SCHED_RR priority (1 to 99) in locked memory; "" or what the system does not allow."""
    gc.collect()
    gc.freeze()
    refused = []
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))
    except OSError:
        refused.append("real-time scheduling (ulimit -r, or CAP_SYS_NICE)")
    if ctypes.CDLL(None, use_errno=True).mlockall(CURRENT | FUTURE):
        refused.append("locked memory (ulimit -l)")
    return " and ".join(refused)
