"""What a process can do for itself so that it keeps its period on a loaded machine.

`schedule`: SCHED_RR at a middling priority puts it before every ordinary process and behind the kernel's own threads;
without it a busy machine makes a loop miss deadlines by milliseconds. `go_first` does more: locked memory keeps its
pages from being taken and fetched back, and a frozen heap keeps Python's collector from looking through all that has
been imported, each of which costs tens of milliseconds at its worst. None of it makes an ordinary kernel a real-time
one.
"""

from __future__ import annotations

import ctypes
import gc
import os

CURRENT, FUTURE = 1, 2  # of mlockall
PRIORITY = 30  # of SCHED_RR, for whoever talks to a device
BESIDE = 10  # for what that one waits for


def schedule(inherited: bool = False, priority: int = PRIORITY) -> str:
    """Ask for real-time scheduling of this thread; what it got: `real time` or `ordinary`.

    inherited: whether threads and processes that this one starts from now on get it too.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | (0 if inherited else os.SCHED_RESET_ON_FORK), os.sched_param(priority))
    except OSError:
        return "ordinary"
    return "real time"


def go_first(priority: int) -> str:
    """Run this process at a SCHED_RR priority (1 to 99) in locked memory; "" or what the system does not allow."""
    gc.collect()
    gc.freeze()
    refused = []
    if schedule(inherited=True, priority=priority) == "ordinary":
        refused.append("real-time scheduling (ulimit -r, or CAP_SYS_NICE)")
    if ctypes.CDLL(None, use_errno=True).mlockall(CURRENT | FUTURE):
        refused.append("locked memory (ulimit -l)")
    return " and ".join(refused)
