"""The cores and memory this process may use, and its age. No torch: the launcher asks before importing it.

Linux tells all of this; where another system does not, the next best is said below.
"""

import os
import time
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")
MEMINFO, STAT = Path("/proc/meminfo"), Path("/proc/self/stat")
IMPORTED = time.perf_counter()


def cores() -> int:
    """Return the cores this process may use: its affinity, or a container's quota if that is smaller."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (CGROUP / "cpu.max").read_text().split()
        return max(1, min(usable, round(int(quota) / int(period))))
    except (OSError, ValueError):  # no cgroup, or no quota ("max")
        return usable


def available_bytes() -> int:
    """Return the memory available now: what the kernel estimates, or what a container has left if that is less.

    Not Linux: all that the machine has. Source: proc(5), MemAvailable; the kernel's cgroup-v2: pages of files that
    were not used lately can be reclaimed. Errors: OSError where even that is unknown
    """
    try:
        available = 1024 * _figures(MEMINFO)["MemAvailable:"]
    except (OSError, KeyError):
        if (there := physical_bytes()) is None:
            raise
        return there
    try:
        most, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        return max(0, min(available, most - used + _figures(CGROUP / "memory.stat")["inactive_file"]))
    except (OSError, ValueError):  # no cgroup, or no limit ("max")
        return available


def physical_bytes() -> int | None:
    """Return the memory of the machine; None where the system does not say."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _figures(path: Path) -> dict[str, int]:
    """Read lines of a name and a number."""
    return {words[0]: int(words[1]) for line in path.read_text().splitlines() if len(words := line.split()) > 1}


def process_age_s() -> float:
    """Return the seconds since this process was started, imports included. Source: proc(5), field 22 of stat.

    Not Linux: since this module was imported, which is among the first.
    """
    try:
        ticks = float(STAT.read_bytes().rpartition(b")")[2].split()[19])
        return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORTED


def waiting_s(tasks: Path = Path("/proc/self/task")) -> float:
    """Return the seconds that threads of this process were ready to run and had no core; 0 where that is not counted.

    Linux; source: the kernel's scheduler/sched-stats, /proc/PID/schedstat, field 2.
    """
    waited_ns = 0
    for path in tasks.glob("*/schedstat"):
        with suppress(OSError):  # the thread has just ended
            waited_ns += int(path.read_text().split()[1])
    return 1e-9 * waited_ns
