"""Maintenance: what grows with the whole database is removed in pieces, with the writes of others in between.

Each piece is a transaction of its own: whatever ends it between two, the next upkeep goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from actors.batch.deletion import DELETED_ROWS, delete, delete_ended
from actors.batch.events import EventName, batch_event
from storage.changes import Storage

K = TypeVar("K")
MOST_ROWS, SECONDS = 1000, 0.2
"""What a piece removes and takes, at the most."""
_FIRST_ROWS, _FEWEST_ROWS = 128, 16
_BYTES = 1 << 25
"""Of input references in a piece: to free their pages takes time, too."""

Piece = Callable[[], int]
"""Runs in a transaction; how many rows went."""
Search = Callable[[int], Piece | None]
"""Looks, outside of any transaction, for as many rows as may go; None: there are no more."""


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What was pruned."""

    events: int
    batches: int


class Maintenance:
    """Removes in pieces. Runs in the thread of whoever asked for it; the doors are the service's."""

    def __init__(
        self,
        storage: Storage,
        read: Callable[[Callable[[], Any]], Any],
        write: Callable[[Callable[[], Any]], Any],
        told: Callable[[PruneReport], object] | None = None,
    ) -> None:
        self._storage, self._read, self._write, self._told = storage, read, write, told
        self._events = self._batches = 0

    def prune(self, before: float, at: float, *, delete_batches: bool) -> PruneReport:
        """Remove the journals of batches that ended before a moment, with `delete_batches` these batches too."""
        for batch_id in self._read(self._storage.batches.hidden):
            self._in_pieces(self._deletion(batch_id, at), self._batches_went)  # it was broken off
        if delete_batches:
            self._delete_ended(before, at)
        self._in_pieces(self._few(self._storage.owners.prune))
        journal, publications = self._storage.journal, self._storage.publications
        old, prune = journal.old, journal.prune
        self._in_pieces(
            self._walk(("", 0), partial(old, before), lambda events: prune(events, before)), self._events_went
        )
        self._in_pieces(self._walk("", publications.orphans, publications.prune))
        self.drop_references()
        return self._report()

    def forget_commands(self, before: float) -> int:
        """Remove what the inbox has from before a moment. Returns how many went."""
        return self._in_pieces(self._few(partial(self._storage.inbox.prune, before)))

    def delete(self, batch_id: str, at: float) -> None:
        """Forget an ended batch.

        Raises:
            NotFound: there is no such batch.
            Conflict: it has not ended.
        """
        self._in_pieces(self._deletion(batch_id, at))

    def drop_references(self, among: list[str] | None = None) -> None:
        """Remove the input references, or those of these, that no job uses any more."""
        jobs = self._storage.jobs

        def unused(after: str, limit: int) -> list[str]:
            return jobs.unused_references(after, limit, _BYTES, among)

        self._in_pieces(self._walk("", unused, jobs.drop_references))

    def _delete_ended(self, before: float, at: float) -> None:
        """Many small batches are one piece; a large one has several."""
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
                going = self._deletion(found[0].id, at)
                return search(MOST_ROWS)
            events = [batch_event(EventName.BATCH_DELETED, batch, batch.sequence + 1, at) for batch in chosen]
            return lambda: delete_ended(storage, chosen, events)

        self._in_pieces(search, self._batches_went)

    def _deletion(self, batch_id: str, at: float) -> Search:
        gone = False

        def search(rows: int) -> Piece | None:
            def piece() -> int:
                nonlocal gone
                gone = delete(self._storage, batch_id, at, rows)
                return int(gone)

            return None if gone else piece

        return search

    def _walk(self, start: K, find: Callable[[K, int], list[K]], remove: Callable[[list[K]], int]) -> Search:
        """What is found behind the last one is removed."""
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
        """What an index finds at once is removed without a look before."""
        more = True

        def search(rows: int) -> Piece | None:
            def piece() -> int:
                nonlocal more
                gone = remove(rows)
                more = gone == rows
                return gone

            return piece if more else None

        return search

    def _in_pieces(self, search: Search, went: Callable[[int], None] = lambda _: None) -> int:
        rows, total = _FIRST_ROWS, 0
        while (piece := search(rows)) is not None:
            begun = time.monotonic()
            gone, seconds = self._write(partial(_timed, piece))
            total += gone
            went(gone)
            if seconds > SECONDS / 2:
                rows = max(rows // 2, _FEWEST_ROWS)
            elif seconds < SECONDS / 4:
                rows = min(rows * 2, MOST_ROWS)
            # Other processes, too, get their turn: those of SQLite look for it now and then only.
            time.sleep(min(time.monotonic() - begun, SECONDS))
        return total

    def _events_went(self, count: int) -> None:
        self._events += count
        self._tell()

    def _batches_went(self, count: int) -> None:
        self._batches += count
        self._tell()

    def _tell(self) -> None:
        if self._told is not None:
            self._told(self._report())

    def _report(self) -> PruneReport:
        return PruneReport(self._events, self._batches)


def _timed(piece: Piece) -> tuple[int, float]:
    begun = time.monotonic()
    return piece(), time.monotonic() - begun
