"""BatchRunner: runs batches in this process, and completes the Futures of their ends; for `BatchService`."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING

from actors.batch.orphans import Orphans
from actors.errors import BatchReleased, SoraBatchError
from actors.messages import Wait
from actors.service.opening import ANSWER_SECONDS, open_services
from actors.service.spending import Spending
from actors.service.waiting import RunningBatch, Waiting
from actors.settings import Settings
from actors.settings.server import SIMULATOR

if TYPE_CHECKING:
    from actors.rabbitmq.connection import Connection
    from actors.rabbitmq.publisher import EventPublisher
    from actors.runtime import Runtime

logger = logging.getLogger(__name__)
_PUBLISH_SECONDS = 3.0


class BatchRunner(Spending):
    """Owns the Futures and, from the first batch on, the runtime; with AMQP_URL, the publisher of events."""

    def __init__(self, settings: Settings, *, simulate: bool) -> None:
        super().__init__(settings)
        self._simulate = simulate
        self._runtime: Runtime | None = None
        self.adopts = False
        """Whether what a command from outside queues is processed here as well, as by `process_batch`."""
        self._waiting = Waiting()
        self._queued: set[str] = set()
        """The batches that this process queued: releasing one un-queues it."""
        self._retries = 0
        """How many are being recorded now."""
        self._ceilings_stand = settings.sora_budget is None
        try:
            self._orphans = Orphans(self._recorder, self._storage, self.stores)
            self._connection, self._publisher = self._to_rabbitmq()
        except BaseException:
            self._recorder.close()
            self._database.close()
            raise
        # A program that forgets to close us still releases its batches in order.
        open_services.add(self)

    @property
    def broker(self) -> Connection | None:
        """The connection to RabbitMQ, if AMQP_URL is set."""
        return self._connection

    @property
    def lease_is_current(self) -> bool:
        """Whether this process may trust that its batches are its own; False as long as it processes none.

        Raises:
            StorageError: the database can't be asked.
        """
        runtime = self._runtime
        if runtime is None or not runtime.lease.trusted:
            return False
        return self._read(lambda: self._storage.owners.alive(runtime.owner.id))

    @property
    def is_idle(self) -> bool:
        """Whether this process makes only what is asked for here, and nothing is left to make: it needs no lease."""
        return self.adopts and not self._waiting

    def beat(self, answer: Callable[[], object]) -> None:
        """Have the I/O loop call this as soon as it comes to it; at once, where there is none."""
        if self._runtime is None:
            answer()
        else:
            self._runtime.io.call(answer)

    @property
    def key_refused(self) -> bool:
        """Whether the server refused the key and has never accepted it: then others' batches are not claimed."""
        return self._runtime is not None and self._runtime.key.refused

    @property
    def provider(self) -> str:
        """Where this service has videos made.

        Raises:
            SettingsError: no server is set.
        """
        return SIMULATOR if self._simulate else self.settings.provider

    def serve(self, *, publish_backlog: bool = False) -> Future[None]:
        """Process the queued batches of this provider, whoever queued them, and publish all events, from now on.

        Args:
            publish_backlog: also those from before AMQP_URL was first set.

        Returns:
            Done when this ends: the service was closed, or a part of it died.

        Raises:
            SettingsError: no server is set, or videos can't be written.
        """
        done = self._started(serves=True).claim_all()
        if self._publisher is not None:
            if publish_backlog:
                self._write(lambda: self._storage.publications.begin(backlog=True))
            self._publisher.start()
        return done

    def waits(self, batch_id: str) -> dict[str, Wait]:
        """Why videos of a batch that runs here wait: by job id, or "" for the whole batch."""
        self._check_open()
        return self._runtime.waits(batch_id) if self._runtime is not None else {}

    @contextmanager
    def retrying(self) -> Iterator[None]:
        """Begin to send pending DELETEs only some time after this: the next retry may want those videos."""
        with self._lock:
            self._retries += 1
            self._hold_deletes()
        try:
            yield
        finally:
            with self._lock:
                self._retries -= 1
                self._hold_deletes()

    def _hold_deletes(self) -> None:
        if self._runtime is not None:
            self._runtime.hold_deletes(held=self._retries > 0)

    def finish_deletes(self) -> None:
        """Send pending DELETEs for 2 s more, and wait for the answers. For a program that ends."""
        if self._runtime is not None:
            self._runtime.finish_deletes()

    def let_go(self, batch_id: str) -> None:
        """Stop starting videos of a batch here and un-queue it; cancels nothing.

        A batch that others had queued stays queued. Waits for POSTs in flight, so that their videos are found again.
        """
        self._check_open()
        if self._runtime is None:
            return
        (future,) = self._waiting.add([batch_id])
        self._runtime.release(batch_id, wanted=batch_id not in self._queued)
        try:
            future.result(timeout=ANSWER_SECONDS)
        except BatchReleased:
            return

    def close(self) -> None:
        """Release running batches (their Futures raise `BatchReleased`) and end the threads. Idempotent.

        Calls of other threads end with their answer, or with `ServiceClosed`; a write that takes longer than 5 s is
        aborted and rolled back. Does nothing in a forked process.
        """
        if self._process != os.getpid():
            return
        with self._lock:
            if self._closed:
                return
            self._closed = True
        open_services.discard(self)
        with ExitStack() as last_first:  # each of them, even if others fail
            last_first.callback(super().close)
            last_first.callback(self._waiting.close, BatchReleased)
            last_first.callback(self._recorder.close)
            last_first.callback(self._orphans.close)
            if self._connection is not None and self._publisher is not None:
                last_first.callback(self._connection.close)
                last_first.callback(self._publisher.close, _PUBLISH_SECONDS)
            if self._runtime is not None:
                last_first.callback(self._runtime.close)

    # --- how a batch is run

    def _to_rabbitmq(self) -> tuple[Connection | None, EventPublisher | None]:
        """The publisher of events, if AMQP_URL is set. It connects for the first event."""
        if self.settings.amqp_url is None:
            return None, None
        # pika: programs without a broker start faster without it.
        from actors.rabbitmq.connection import Connection
        from actors.rabbitmq.publisher import EventPublisher

        connection = Connection(self.settings.amqp_url.get_secret_value(), self.settings.amqp_queue_type)
        if not self._read(self._storage.publications.begun):
            self._write(lambda: self._storage.publications.begin(backlog=False))
        return connection, EventPublisher(connection, self._storage, self._recorder)

    def _run(self, batch_ids: Sequence[str]) -> list[RunningBatch]:
        if not batch_ids:
            return []
        running, runtime = self._waiting.add(batch_ids), self._started()
        try:
            runtime.process(tuple(batch_ids))
        except SoraBatchError:
            self._waiting.drop(running)
            self._check_open()  # its dispatcher may have been closed
            raise
        return running

    def _started(self, *, serves: bool = False) -> Runtime:
        with self._lock:
            self._check_open()
            if self._runtime is None:
                if self.settings.sora_prices is not None:
                    from actors.batch.price_files import price_table

                    price_table(self.settings)  # one that can't be used is refused before anything is made
                if not self._ceilings_stand:
                    self._set_ceilings()
                # aiohttp and the actors: a program that only asks for a status is faster without them.
                from actors.runtime import Runtime

                self._runtime = Runtime(
                    self.settings, self._storage, self._recorder, self.observer,
                    stores=self.stores, orphans=self._orphans, provider=self.provider, simulate=self._simulate,
                    serves=serves,
                    ended=self._ended, released=self._released,
                )  # fmt: skip
                if self._retries:
                    self._hold_deletes()
            return self._runtime

    def _ended(self, batch_id: str) -> None:
        """On the loop: a batch has ended; read it off the loop and complete its Futures."""
        self._queued.discard(batch_id)
        futures = self._waiting.take(batch_id)
        if futures:
            read = self._recorder.read(lambda: self._batch(batch_id))
            read.add_done_callback(partial(self._waiting.answer_read, futures))

    def _released(self, batch_id: str, error: str | None) -> None:
        self._queued.discard(batch_id)
        why = SoraBatchError(f"batch {batch_id}: {error}") if error else BatchReleased(batch_id)
        self._waiting.answer(self._waiting.take(batch_id), why)
