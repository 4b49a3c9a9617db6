"""How many processors this process may use."""

import os
from pathlib import Path

# What a container may take of the processors: microseconds in each period.
CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")


def allowed_cores() -> int:
    """Returns how many processors this process may use.

    That is its affinity, where known, and no more than a container's share of time.
    """
    known = hasattr(os, "sched_getaffinity")
    cores = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    try:
        quota, period = CPU_SHARE.read_text().split()
    except (OSError, ValueError):  # not Linux, or an older one
        return cores
    return cores if quota == "max" else min(cores, -(-int(quota) // int(period)))
