"""Real-time scheduling, where the system allows it.

Round robin at a middling priority: above every ordinary process and below the kernel's own threads. Without it a busy
machine makes a loop miss deadlines by milliseconds.
"""

from __future__ import annotations

import os

PRIORITY = 30  # of SCHED_RR, for whoever talks to a device
BESIDE = 10  # for what that one waits for


def schedule(inherited: bool = False, priority: int = PRIORITY) -> str:
    """Ask for it for this thread; what it got: `real time` or `ordinary`.

    inherited: whether threads and processes that this one starts from now on get it too.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR | (0 if inherited else os.SCHED_RESET_ON_FORK), os.sched_param(priority))
    except OSError:
        return "ordinary"
    return "real time"
