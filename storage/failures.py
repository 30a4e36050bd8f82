"""What goes wrong with a database: which failures pass by themselves, and what can be done about the others."""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import peewee

POSTGRESQL_URL = "postgresql://USER:PASSWORD@HOST/NAME"
# SQLite's messages while another process holds the lock or the disk is full: it passes, or a person fixes it.
_SQLITE_OUTAGES = ("locked", "busy", "full", "disk i/o error", "unable to open", "readonly", "read-only")
# PostgreSQL's classes: connection (08), resources (53), operator intervention (57), deadlock and serialization (40).
_POSTGRESQL_OUTAGES = ("08", "53", "57", "40")
_LOCKS = Path("/proc/locks")
_WRITE_LOCK = 120
"""The byte of the file `-shm` that a writer locks (SQLite's WAL_WRITE_LOCK)."""


class DatabaseError(Exception):
    """The database can't be used: the message names it, the problem and the way out."""


class _NotTheDrivers:
    """Keeps peewee from taking an error for the driver's, by its name or that of its first base."""


class DatabaseClosed(_NotTheDrivers, DatabaseError):
    """This process has closed it."""


class DatabaseRefused(_NotTheDrivers, DatabaseError):
    """It must not be used, from here or at all."""


def is_outage(error: BaseException) -> bool:
    """Whether the database is unreachable, locked or full: the same write can succeed later."""
    cause = error.__cause__ or getattr(error, "orig", None) or error
    if isinstance(cause, sqlite3.Error) or isinstance(error, peewee.OperationalError | peewee.InterfaceError):
        text = str(error).lower()
        state = getattr(cause, "sqlstate", None)
        if state is None:
            # psycopg's lost and refused connections carry no state.
            return any(word in text for word in _SQLITE_OUTAGES) or not isinstance(cause, sqlite3.Error)
        return str(state).startswith(_POSTGRESQL_OUTAGES)
    return False


def way_out(text: str, path: Path | None) -> str:
    """What can be done about a failure with this text of a database in a file (None: it is in none)."""
    lower = text.lower()
    if "locked" in lower or "busy" in lower:
        return _who_locks(path)
    if "full" in lower:
        return "free space on its disk"
    if "not a database" in lower or "malformed" in lower:
        return "the file is damaged or not a SQLite database: restore it, or set DATABASE_URL to another file"
    if "unsupported startup parameter: options" in lower:
        return (
            "the pooler accepts no `options` (DATABASE_URL, PGOPTIONS): set them with ALTER ROLE ... SET, or "
            "connect to PostgreSQL directly"
        )
    return "check DATABASE_URL and write access"


def _who_locks(path: Path | None) -> str:
    """Who has locked it, as Linux tells, and the way out."""
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
