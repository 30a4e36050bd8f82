"""Owners: the processes that may own batches, their leases, where they put files, and which of them are dead.

On the same host and boot a death is known at once; elsewhere the lease has to expire.
"""

from __future__ import annotations

import os
import socket
import sys
import uuid
from pathlib import Path
from typing import NamedTuple

from storage.database import Database
from storage.rows import Insert, Rows


class OwnerRecord(NamedTuple):
    """A process that may own batches, and the lease until which it is believed alive."""

    id: str
    host: str
    boot: str
    pid: int
    started: str
    """The process's start time as reported by the system: detects a reused pid."""
    lease_until: float


class Owners:
    """Owners as rows. Reads need a connection, writes a transaction, opened by the caller."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = Rows(database, "owners", OwnerRecord)
        self._enter = Insert(database, "owners", OwnerRecord, "ON CONFLICT (id) DO NOTHING")

    def renew(self, owner: OwnerRecord, lease: float) -> float:
        """Renew a lease to `lease` seconds from now, even an expired one that nobody took over.

        Returns:
            The database's time.
        """
        clock = self._database.clock
        self._enter.one(owner)
        rows = self._database.execute(  # crash point: renew
            f"UPDATE owners SET lease_until = {clock} + ? WHERE id = ? RETURNING lease_until", (lease, owner.id)
        ).fetchall()
        return self._database.told_time(float(rows[0][0]) - lease)

    def forget(self, owner_id: str) -> None:
        """Remove an owner that ended cleanly."""
        self._database.execute("DELETE FROM owners WHERE id=?", (owner_id,))  # crash point: forget

    def neighbours(self, host: str, boot: str) -> list[OwnerRecord]:
        """The owners of this host and boot."""
        return self._rows.select("WHERE host=? AND boot=?", (host, boot))

    def lapsed(self) -> list[OwnerRecord]:
        """The owners whose lease has run out, and whose death nobody has noted yet."""
        return self._rows.select(f"WHERE lease_until > 0 AND lease_until < {self._database.clock}")

    def living(self) -> list[OwnerRecord]:
        """The owners whose lease is still valid."""
        return self._rows.select(f"WHERE lease_until >= {self._database.clock} ORDER BY host, pid")

    def known_to_live(self) -> list[OwnerRecord]:
        """Those of them that are not certainly dead: of a process of this host its end is known at once."""
        here = this_host()
        return [owner for owner in self.living() if (owner.host, owner.boot) != here or not is_dead(owner)]

    def alive(self, owner_id: str) -> bool:
        """Whether an owner's lease is still valid."""
        sql = f"SELECT 1 FROM owners WHERE id=? AND lease_until >= {self._database.clock}"
        return bool(self._database.execute(sql, (owner_id,)).fetchall())

    def expire(self, owner_id: str, *, known: bool = True) -> None:
        """Record that an owner is dead: its batches are free at once.

        `known`: all machines that may have to clean up after it know; else its own is to notice it, too.
        """
        # Negative: run out for whoever compares it with the clock, and when is still known.
        until = "0" if known else "-abs(lease_until)"
        self._database.execute(f"UPDATE owners SET lease_until={until} WHERE id=?", (owner_id,))  # crash point: expire

    def prune(self, limit: int = 1000) -> int:
        """Remove some owners whose lease expired a day ago. Returns how many were removed."""
        cursor = self._database.execute(  # crash point: prune owners
            "DELETE FROM owners WHERE id IN "
            f"(SELECT id FROM owners WHERE abs(lease_until) < {self._database.clock} - 86400 LIMIT ?)",
            (limit,),
        )
        return int(cursor.rowcount)


def this_process() -> OwnerRecord:
    """A new owner for this process. Each service is one: a closed service's batches are free at once."""
    host, boot = this_host()
    pid = os.getpid()
    return OwnerRecord(id=uuid.uuid4().hex, host=host, boot=boot, pid=pid, started=_started(pid) or "", lease_until=0.0)


def this_host() -> tuple[str, str]:
    """The host and its boot. A container counts as a host: pids mean nothing outside their namespace."""
    try:
        namespace = str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        namespace = ""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        boot = ""
    return f"{socket.gethostname()} {namespace}".strip(), boot


def is_dead(owner: OwnerRecord) -> bool:
    """Whether a process of this host and boot is certainly dead. In doubt, it lives."""
    if sys.platform == "win32":
        return False  # os.kill would end it there; its lease decides
    try:
        os.kill(owner.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    started = _started(owner.pid)
    return started is not None and started != owner.started


def _started(pid: int) -> str | None:
    """A process's start time as Linux reports it; "zombie" if it has died; None if unknown."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The second field is the command in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    return "zombie" if fields[0] in "ZX" else fields[19]


class StoreNotes:
    """Which store each process puts files into, as rows. Reads need a connection, writes a transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def database_id(self) -> str:
        """The identity of this database. Copies of it have the same one."""
        return str(self._database.execute("SELECT value FROM identity WHERE name='database'").fetchall()[0][0])

    def note(self, owner_id: str, store: str, place: str) -> None:
        """Record where a process puts files: the marker's id, and the place for a person."""
        self._database.execute(
            "INSERT INTO owner_stores (owner, store, place) VALUES (?, ?, ?) "
            "ON CONFLICT (owner) DO UPDATE SET store=excluded.store, place=excluded.place",
            (owner_id, store, place),
        )

    def of_living(self) -> list[tuple[str, str]]:
        """The stores of all living processes, and the places that they know them by."""
        sql = (
            "SELECT DISTINCT s.store, s.place FROM owner_stores s JOIN owners o ON o.id=s.owner "
            f"WHERE o.lease_until >= {self._database.clock} ORDER BY s.place"
        )
        return [(store, place) for store, place in self._database.execute(sql).fetchall()]
