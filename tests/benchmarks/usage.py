"""What a process and all its children use: processor time and memory, as Linux tells; nothing elsewhere."""

from __future__ import annotations

import os
import time
from pathlib import Path

from tests.servers.processes import children

_PROC = Path("/proc")
_TICKS = os.sysconf("SC_CLK_TCK")
_CPUCLOCK_SCHED = 2
"""See clock_getcpuclockid(3): which clock of a process."""


def tree(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found, new = [], [pid]
    while new:
        found += new
        new = [child for parent in new for child in children(parent)]
    return found


def cpu_seconds(pids: list[int]) -> float:
    """Processor time that these have used so far, user and system, with that of children that have ended."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    """In nanoseconds where the kernel counts them: its clock of a process. A tick of `stat` is 10 ms."""
    ended_children = sum(map(int, _stat(pid)[13:15])) / _TICKS
    try:
        return time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) + ended_children
    except OSError:
        return sum(map(int, _stat(pid)[11:15])) / _TICKS


def peak_megabytes(pids: list[int]) -> float:
    """The most memory that each of these ever held, added up."""
    return sum(_peak_kilobytes(pid) for pid in pids) / 1024


def _stat(pid: int) -> list[str]:
    try:
        return (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:  # it has ended, or this is no Linux
        return []


def _peak_kilobytes(pid: int) -> int:
    try:
        lines = (_PROC / str(pid) / "status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), 0)
