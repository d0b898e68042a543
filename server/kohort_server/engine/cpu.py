"""What this process may really use: CPUs by affinity and the cgroup's quota, and memory."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


def cgroup_quota(cgroup: Path = CGROUP) -> float | None:
    """The CPU quota in CPUs from cgroup v2's cpu.max or v1's cfs files; None without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (cgroup / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (cgroup / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if quota in ("max", "-1"):
        return None
    return int(quota) / int(period)


def usable_cpus(cgroup: Path = CGROUP) -> int:
    """The whole CPUs that threads can keep busy without being throttled, at least 1."""
    allowed = len(os.sched_getaffinity(0))
    quota = cgroup_quota(cgroup)
    return allowed if quota is None else max(1, min(allowed, math.floor(quota)))


def affordable_processes(cgroup: Path = CGROUP) -> int:
    """How many processes like this one fit half of the cgroup's memory, at least 1."""
    for name in ("memory.max", "memory/memory.limit_in_bytes"):
        try:
            limit = int((cgroup / name).read_text())
        except (OSError, ValueError):  # there is none, or it is "max"
            continue
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return max(1, limit // 2 // (pages * os.sysconf("SC_PAGE_SIZE")))
    return sys.maxsize
