"""The marker in a store: whose it is, and which one. Two paths or mounts lead to one store if they show one marker."""

from __future__ import annotations

import json
import uuid
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, Self

MARKER = ".sora-batch"


class Marker(NamedTuple):
    """What a marker says."""

    database: str
    store: str

    @classmethod
    def new(cls, database: str) -> Self:
        """The marker of a store that is this database's from now on."""
        return cls(database, uuid.uuid4().hex)

    @classmethod
    def parse(cls, content: bytes | None) -> Self | None:
        """Read one; None: there is none, or nothing that was written here."""
        with suppress(ValueError, TypeError, KeyError):
            read = json.loads(content or b"")
            return cls(str(read["database"]), str(read["store"]))
        return None

    @property
    def content(self) -> bytes:
        """The bytes of the marker's file."""
        return json.dumps(self._asdict()).encode() + b"\n"


def marker_in(folder: Path) -> Marker | None:
    """The marker of a folder; None: it has none."""
    try:
        return Marker.parse((folder / MARKER).read_bytes())
    except OSError:
        return None


def mark_folder(folder: Path, database: str) -> Marker:
    """The marker of a folder. One without a marker gets that of a database.

    Raises:
        OSError: it can't be written.
    """
    found = marker_in(folder)
    if found is not None:
        return found
    mine = Marker.new(database)
    aside = folder / f"{MARKER}.{mine.store}"
    aside.write_bytes(mine.content)
    try:
        aside.rename(folder / MARKER)  # two at once: the last one's counts, and is read by both below
    finally:
        aside.unlink(missing_ok=True)
    return marker_in(folder) or mine


def foreign(marker: Marker | None, database: str, place: str) -> str | None:
    """The warning that a store is another database's; None: it is not."""
    if marker is None or marker.database == database:
        return None
    return (
        f"{place} has the files of another database: give each database a store of its own, or remove the marker "
        f"{MARKER} there if this database has replaced the other"
    )


def scattered(store: str, place: str, living: list[tuple[str, str]]) -> str | None:
    """The warning that processes of one database put files into different stores; None: they don't."""
    others = sorted({other for each, other in living if each != store})
    if not others:
        return None
    return (
        f"processes of this database put files into different stores: here {place}, others {', '.join(others)}; "
        "set VIDEO_DIR or VIDEO_STORE to the same store for all of them"
    )
