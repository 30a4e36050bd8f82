"""Which process holds the write lock of a SQLite database, as Linux tells."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_LOCKS = Path("/proc/locks")
_WRITE_LOCK = 120
"""The byte of the file `-shm` that a writer locks (SQLite's WAL_WRITE_LOCK)."""


def who_locks(path: Path | None) -> str:
    """Who has locked a database, and the way out, as the rest of a sentence. None: it is no file."""
    pid = None if path is None else _writer(path)
    if pid is None:
        return "another program has locked it; wait, or stop that program"
    name, state = _process(pid)
    which = f"process {pid} ({name})" if name else f"process {pid}"
    if state == "T":
        return f"{which} has locked it and is suspended; continue it with kill -CONT {pid}, or end it"
    return f"{which} has locked it; wait, or stop that process"


def _writer(path: Path) -> int | None:
    """The process that writes; None: unknown, or it is this one.

    The file is not opened: closing it would drop the locks that SQLite has on it.
    """
    with suppress(OSError, ValueError):
        file = path.with_name(f"{path.name}-shm").stat()
        place = f"{os.major(file.st_dev):02x}:{os.minor(file.st_dev):02x}:{file.st_ino}"
        for line in _LOCKS.read_text().splitlines():
            _, kind, _, access, pid, *where = line.split()
            locked = (kind, access, where) == ("POSIX", "WRITE", [place, str(_WRITE_LOCK), str(_WRITE_LOCK)])
            if locked and int(pid) not in (0, -1, os.getpid()):
                return int(pid)
    return None


def _process(pid: int) -> tuple[str, str]:
    """A process's name and state; empty if unknown."""
    with suppress(OSError, ValueError):
        _, _, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")
        name, _, fields = rest.rpartition(")")
        return name, fields.split()[0]
    return "", ""
