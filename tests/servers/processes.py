"""What runs on this machine, as far as tests that kill servers need to know."""

import subprocess
from pathlib import Path

_PROC = Path("/proc")


def children(pid: int) -> list[int]:
    """Return the ids of a process's direct children."""
    parents = _parents_in_proc() if (_PROC / "self/stat").exists() else _parents_by_ps()
    return [child for child, parent in parents.items() if parent == pid]


def _parents_in_proc() -> dict[int, int]:
    parents = {}
    for folder in _PROC.iterdir():
        if folder.name.isdecimal():
            try:
                after_name = (folder / "stat").read_text(errors="replace").rpartition(")")[2]
            except OSError:  # it has ended meanwhile
                continue
            parents[int(folder.name)] = int(after_name.split()[1])
    return parents


def _parents_by_ps() -> dict[int, int]:
    told = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    return {int(pid): int(parent) for pid, parent in map(str.split, told.stdout.splitlines())}
