"""What of the machine this process may use: cores and memory, of the machine or of its container."""

from __future__ import annotations

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")
_CGROUPS = (  # limit, what is used of it, and its statistics with what can be had back, of versions 2 and 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


def allowed_cores(cgroup: Path = _CGROUP) -> int:
    """Cores that this process may use: its affinity, and the quota of its container, which PyTorch does not look at.

    Args:
        cgroup: where the kernel tells the quota (cgroup v2).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = (cgroup / "cpu.max").read_text(encoding="ascii").split()
    except (OSError, ValueError):
        return cores
    return cores if quota == "max" else max(1, min(cores, round(int(quota) / int(period))))


def host_memory(cgroup: Path = _CGROUP, proc: Path = Path("/proc")) -> tuple[int, int]:
    """Bytes that this process may still take, and that there are: of the machine, or of its container.

    Args:
        cgroup: where the kernel tells the container's limit.
        proc: where it tells the machine's memory.
    """
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    told = _numbers(proc / "meminfo", " kB")
    total = told.get("MemTotal:", total // 1024) * 1024
    available = told.get("MemAvailable:", total // 1024) * 1024
    for limit_file, used_file, statistics, reclaimable in _CGROUPS:
        try:
            limit, used = (int((cgroup / name).read_text(encoding="ascii")) for name in (limit_file, used_file))
        except (OSError, ValueError):  # "max" is no number
            continue
        if limit < total:
            total = limit
            available = min(available, limit - used + _numbers(cgroup / statistics).get(reclaimable, 0))
    return max(0, available), total


def _numbers(file: Path, unit: str = "") -> dict[str, int]:
    """Of lines such as "MemTotal:  24684084 kB"."""
    try:
        lines = [line.removesuffix(unit).split() for line in file.read_text(encoding="ascii").splitlines()]
    except OSError:
        return {}
    return {line[0]: int(line[1]) for line in lines if len(line) == 2 and line[1].isdigit()}
