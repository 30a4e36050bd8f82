"""Follows a batch of the database by its journal, as a stream of RabbitMQ follows it: for whoever has none."""

from __future__ import annotations

import json
import time
from collections import deque
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from actors.batch.events import FINAL_EVENTS, Event, EventName
from actors.errors import NotFound, StorageError
from actors.rabbitmq.answers import reported
from storage.states import FINAL_BATCH

if TYPE_CHECKING:
    from actors.batch.views import Batch
    from actors.service import BatchService

_POLL = 0.2
"""Seconds between two looks at the journal."""
_PAGE = 1000
_SOURCE = "/sora-batch/database"
_ENDING = frozenset({*FINAL_EVENTS.values(), EventName.BATCH_DELETED})


class Journal:
    """The batches of a database, with the methods of a client of RabbitMQ that following one needs."""

    def __init__(self, service: BatchService) -> None:
        self._service = service

    def report(self, batch_id: str) -> Batch:
        """A batch as it is.

        Raises:
            NotFound: there is no such batch.
        """
        return self._service.get_batch_status(batch_id)

    def events(self, batch_id: str, _: None) -> JournalStream:
        """A batch, and its events from now on.

        Raises:
            NotFound: there is no such batch.
        """
        return JournalStream(self._service, batch_id)


class JournalStream:
    """The events of one batch until it ends, in order and each once."""

    def __init__(self, service: BatchService, batch_id: str) -> None:
        self._service = service
        self.batch, self.sequence = service.versioned(batch_id)
        """The batch as it was at the beginning, and the number of the last event that it includes."""
        self.ended = self.batch.status in FINAL_BATCH
        """Whether all events up to the batch's end were yielded."""
        self._read, self._waiting = self.sequence, deque[Event]()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Holds nothing."""

    @property
    def report(self) -> dict[str, Any]:
        """The batch at the beginning, as `batch.reported` has it."""
        at = self._service.now()
        document = reported(self.batch, self.sequence, correlation=self.batch.id, source=_SOURCE, at=at)
        return dict(json.loads(document))

    def next(self, _: float) -> Event | None:
        """The next event; None: there was none yet, after a short wait.

        Raises:
            NotFound: the batch was deleted, and its history removed.
        """
        if not self._waiting:
            self._look()
        if not self._waiting:
            time.sleep(_POLL)
            return None
        event = self._waiting.popleft()
        self.ended = event.name in _ENDING
        return event

    def _look(self) -> None:
        try:
            exists = self._exists()  # before the journal: what was recorded until then is in it
            records = self._service.recorded(self.batch.id, self._read + 1, _PAGE)
            if not records and not exists:
                self._service.sequence(self.batch.id)
        except StorageError:
            return  # the database is away for a while, and whoever runs the batch waits too
        self._waiting.extend(map(Event.parse, records))
        self._read = records[-1].sequence if records else self._read

    def _exists(self) -> bool:
        try:
            self._service.sequence(self.batch.id)
        except NotFound:
            return False
        return True
