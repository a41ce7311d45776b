"""What this process may use, and how old it is. No torch: the launcher asks before that is imported."""

import os
import time
from pathlib import Path


def cores() -> int:
    """Return the cores this process may use: its affinity, or a container's quota if that is smaller."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return max(1, min(usable, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return usable


def process_age_s() -> float:
    """Return the seconds since this process was started, imports included. Linux; source: proc(5), field 22 of stat."""
    ticks = float(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
