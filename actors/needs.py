"""What a service needs: one list, of `/readyz`, which asks a running service, and of `doctor`, which asks the machine.

A look at one answers with an obstacle: a sentence that may name paths and hosts; None: there is none. Both tell what
they found as `Check`s.
"""

from __future__ import annotations

import tempfile
import threading
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from storage.database import Database
from storage.failures import DatabaseError
from storage.stores import Stores

if TYPE_CHECKING:
    from actors.settings import Settings

_BLOCK = bytes(4096)


class Need(StrEnum):
    """What a service can't do without, by the name that `/readyz` gives it."""

    DATABASE = "database"
    LEASE = "lease"
    STORE = "store"
    KEY = "key"
    RABBITMQ = "rabbitmq"


FAILED: dict[Need, str] = {
    Need.DATABASE: "the database can't be read or written; the log says why",
    Need.LEASE: "this process does not hold a current lease: it may start no video",
    Need.STORE: "the store of finished files can't be written to; the log says why",
    Need.KEY: "the server refused the key (OPENAI_API_KEY): nothing is claimed",
    Need.RABBITMQ: "RabbitMQ can't be reached or accepts no messages; the log says why",
}
"""What anybody may be told of each that fails: it names no path and no host."""


def needs(settings: Settings, *, makes_videos: bool = True) -> list[Need]:
    """What a service with these settings needs.

    `makes_videos`: one that makes none needs no lease, no key and no store to write to.
    """
    making = {Need.LEASE, Need.STORE, Need.KEY}
    spared = set() if makes_videos else making
    if settings.amqp_url is None:
        spared.add(Need.RABBITMQ)
    return [need for need in Need if need not in spared]


def writable(folder: Path) -> tuple[bool, str]:
    """Whether files can be made in a folder, or the folder where it is not there yet; and why not."""
    there = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not there.is_dir():
        return False, f"{there} is not a folder"
    try:
        with tempfile.TemporaryFile(dir=there) as file:
            file.write(_BLOCK)  # a full disk makes files, and takes nothing into them
            file.flush()
            return True, ""
    except OSError as error:
        return False, f"{there} is not writable ({error.strerror})"


def folder_obstacle(stores: Stores, *, may_be_made: bool = False) -> str | None:
    """Why no file can be received, or kept, in the folder. `may_be_made`: it need not be there yet."""
    folder = stores.folder.root
    if not may_be_made and not folder.is_dir():
        return f"{folder} is not a folder any more"
    ok, why = writable(folder)
    return None if ok else why


def store_obstacle(stores: Stores) -> str | None:
    """Why a running service can keep no file just now."""
    obstacle = folder_obstacle(stores)
    return obstacle if obstacle is not None or stores.bucket is None else stores.bucket.obstacle()


def database_obstacle(database: Database) -> str | None:
    """Why a database in a file can't be used. Whether it, or another one, answers is found out by whoever asks it."""
    if database.path is not None and not database.path.exists():
        return f"the file of the database {database.place} is gone; restore it"
    try:
        database.check_writable()
    except DatabaseError as error:
        return str(error)
    return None


@dataclass(frozen=True, slots=True)
class Check:
    """What one look found."""

    name: str
    ok: bool
    message: str


def bounded(name: str, look: Callable[[], Check], seconds: float) -> Check:
    """What a look finds; a problem, if it takes too long: a host or a disk may take a request and never answer."""
    found: list[Check | BaseException] = []

    def run() -> None:
        try:
            found.append(look())
        except BaseException as error:  # noqa: BLE001  (raised where it is waited for)
            found.append(error)

    thread = threading.Thread(target=run, name=f"check-{name}", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        return Check(name, ok=False, message=f"no answer within {seconds:g} s")
    if isinstance(found[0], BaseException):
        raise found[0]
    return found[0]
