"""Maintenance: removes in pieces whatever grows with the whole database."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from actors.batch.deletion import DELETED_ROWS, FilesOfDeleted, delete, delete_ended, remove_rows
from actors.batch.events import EventName, batch_event
from actors.errors import Conflict, NotFound
from storage.storage import Storage
from storage.stores import Stores

logger = logging.getLogger(__name__)


LATE = 86_400.0
"""Seconds after a deletion in which files that a late owner of the batch still puts are removed."""
K = TypeVar("K")
MOST_ROWS, SECONDS = 1000, 0.2
"""The most rows that a piece removes, and the most seconds that it takes."""
_FIRST_ROWS, _FEWEST_ROWS = 128, 16
_BYTES = 1 << 25
"""Bytes of input references in a piece: freeing their pages takes time too."""

Piece = Callable[[], int]
"""Runs in a transaction; returns how many rows were removed."""
Search = Callable[[int], Piece | None]
"""Finds up to so many rows to remove, outside any transaction; None: there are no more."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was pruned."""

    events: int
    batches: int
    files: int = 0


class Maintenance:
    """Removes in pieces. Runs in the caller's thread, and reads and writes as the service does."""

    def __init__(
        self,
        storage: Storage,
        read: Callable[[Callable[[], Any]], Any],
        write: Callable[[Callable[[], Any]], Any],
        told: Callable[[PruneReport], object] | None = None,
        stores: Stores | None = None,
    ) -> None:
        """`stores`: where the files of deleted batches are removed."""
        self._storage, self._read, self._write, self._told, self._stores = storage, read, write, told, stores
        self._gone = {"events": 0, "batches": 0, "files": 0}

    def prune(self, before: float, at: float, *, delete_batches: bool) -> PruneReport:
        """Remove the journals of batches that ended before a time; with `delete_batches`, those batches too."""
        self.finish_deletions()
        self.forget_places(at - LATE)
        if delete_batches:
            self._delete_ended(before, at)
        self._in_pieces(self._few(self._storage.owners.prune))
        journal, publications = self._storage.journal, self._storage.publications
        old, prune = journal.old, journal.prune
        self._in_pieces(self._walk(("", 0), partial(old, before), lambda events: prune(events, before)), "events")
        self._in_pieces(self._walk("", publications.orphans, publications.prune))
        self.drop_references()
        return PruneReport(**self._gone)

    def remove_files(self, search: Search) -> int:
        """Remove the files that a `FileRemoval` finds. Returns how many were removed."""
        return self._in_pieces(search, "files")

    def forget_commands(self, before: float) -> int:
        """Remove the inbox's entries from before a time. Returns how many were removed."""
        return self._in_pieces(self._few(partial(self._storage.inbox.prune, before)))

    def finish_deletion(self, batch_id: str) -> None:
        """Remove what is left of a batch that is being deleted: first its files, then its rows.

        Raises:
            OSError: a file can't be removed. What is left is removed by the next attempt, whoever makes it.
        """
        self._in_pieces(FilesOfDeleted(self._storage, self._stores, self._read, batch_id))
        # Somebody else may finish that at the same time.
        self._in_pieces(self._until_gone(partial(remove_rows, self._storage, batch_id)), "batches")

    def finish_deletions(self) -> int:
        """Finish the deletions that were interrupted. Returns how many batches were removed."""
        before = self._gone["batches"]
        for batch_id in self._read(self._storage.batches.hidden):
            try:
                self.finish_deletion(batch_id)
            except OSError as error:
                logger.warning(
                    "could not remove the files of a deleted batch",
                    extra={"action": "delete", "batch_id": batch_id, "error": str(error.strerror or error)},
                )
        return self._gone["batches"] - before

    def forget_places(self, before: float) -> int:
        """Forget where files of deleted batches were removed before a time. Returns how many places were forgotten."""
        return self._in_pieces(self._few(partial(self._storage.doomed.forget_places, before)))

    def drop_references(self, among: list[str] | None = None) -> None:
        """Remove the input references (of `among`, if given) that no job uses any more."""
        jobs = self._storage.jobs

        def unused(after: str, limit: int) -> list[str]:
            return jobs.unused_references(after, limit, _BYTES, among)

        self._in_pieces(self._walk("", unused, jobs.drop_references))

    def _delete_ended(self, before: float, at: float) -> None:
        """Delete many small batches in one piece, and a large one in several."""
        storage = self._storage
        going: Search | None = None

        def search(rows: int) -> Piece | None:
            nonlocal going
            piece = going(rows) if going is not None else None
            if piece is not None:
                return piece
            found = self._read(lambda: storage.batches.ended_before(before, max(1, rows // DELETED_ROWS)))
            chosen = []
            for batch in found:
                rows -= 2 * batch.total + DELETED_ROWS
                if rows < 0:
                    break
                chosen.append(batch)
            if not found:
                return None
            if not chosen:
                going = self._whole(found[0].id, at)
                return search(MOST_ROWS)
            events = [batch_event(EventName.BATCH_DELETED, batch, batch.sequence + 1, at) for batch in chosen]
            return lambda: delete_ended(storage, chosen, events)

        self._in_pieces(search, "batches")

    def _whole(self, batch_id: str, at: float) -> Search:
        """An ended batch, without its files. Somebody else may delete it at the same time, or retry it."""

        def remove(rows: int) -> bool | None:
            try:
                gone = remove_rows(self._storage, batch_id, rows)
                return delete(self._storage, batch_id, at, rows) if gone is None else gone
            except (NotFound, Conflict):
                return None

        return self._until_gone(remove)

    @staticmethod
    def _until_gone(remove: Callable[[int], bool | None]) -> Search:
        """Remove until all is gone; None: it is not ours to remove any more."""
        left = True

        def search(rows: int) -> Piece | None:
            def piece() -> int:
                nonlocal left
                gone = remove(rows)
                left = gone is False
                return int(bool(gone))

            return piece if left else None

        return search

    def _walk(self, start: K, find: Callable[[K, int], list[K]], remove: Callable[[list[K]], int]) -> Search:
        """Remove what is found after the last key, page by page."""
        last = start

        def search(rows: int) -> Piece | None:
            nonlocal last
            found = self._read(lambda: find(last, rows))
            if not found:
                return None
            last = found[-1]
            return lambda: remove(found)

        return search

    @staticmethod
    def _few(remove: Callable[[int], int]) -> Search:
        """Remove directly what an index finds, without searching first."""
        more = True

        def search(rows: int) -> Piece | None:
            def piece() -> int:
                nonlocal more
                gone = remove(rows)
                more = gone == rows
                return gone

            return piece if more else None

        return search

    def _in_pieces(self, search: Search, kind: str | None = None) -> int:
        """Remove all that is found. `kind`: of what is removed, by its name in the report."""
        rows, total = _FIRST_ROWS, 0
        while (piece := search(rows)) is not None:
            begun = time.monotonic()
            gone, seconds = self._write(partial(_timed, piece))
            total += gone
            if kind is not None:
                self._gone[kind] += gone
                if self._told is not None:
                    self._told(PruneReport(**self._gone))
            if seconds > SECONDS / 2:
                rows = max(rows // 2, _FEWEST_ROWS)
            elif seconds < SECONDS / 4:
                rows = min(rows * 2, MOST_ROWS)
            # Give other processes their turn: on SQLite they only check for it now and then.
            time.sleep(min(time.monotonic() - begun, SECONDS))
        return total


def _timed(piece: Piece) -> tuple[int, float]:
    begun = time.monotonic()
    return piece(), time.monotonic() - begun
