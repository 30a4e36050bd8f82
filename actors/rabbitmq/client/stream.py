"""The stream of a batch's events, in order and each once, until the batch ends."""

from __future__ import annotations

import logging
import math
import time
from typing import Any

from pydantic import ValidationError

from actors.batch.events import FINAL_EVENTS, Event
from actors.batch.views import Batch
from actors.rabbitmq.client.calls import TIMEOUT, Broker, checked_id
from actors.rabbitmq.client.feed import TICK, Source
from actors.rabbitmq.client.rpc import ACCEPTED, LOST, REJECTED, SOURCE, OutgoingCommand, Received
from actors.rabbitmq.topology import EVENTS, REPLAYS

logger = logging.getLogger(__name__)
_ENDING = {*FINAL_EVENTS.values(), "batch.deleted"}


class InOrder:
    """Takes events as they arrive, repeated or out of order, and yields them by their sequence."""

    def __init__(self, next_sequence: int | None) -> None:
        """`next_sequence`: of the first event to yield; None: set by `start`."""
        self.next = next_sequence
        self._ahead: dict[int, Event] = {}

    def start(self, sequence: int) -> None:
        """Begin with this one, unless the beginning is already set."""
        if self.next is None:
            self.next = sequence
            self._ahead = {number: event for number, event in self._ahead.items() if number >= sequence}

    def add(self, event: Event) -> None:
        """Add an event."""
        if self.next is None or int(event.sequence) >= self.next:
            self._ahead[int(event.sequence)] = event

    def take(self) -> Event | None:
        """The next event, if it has arrived."""
        if self.next is None or self.next not in self._ahead:
            return None
        self.next += 1
        return self._ahead.pop(self.next - 1)

    @property
    def missing(self) -> int | None:
        """The last missing sequence number before events that have arrived; None: no gap."""
        if self.next is None or not self._ahead or self.next in self._ahead:
            return None
        return min(self._ahead) - 1

    def pass_over(self, sequence: int) -> None:
        """Skip the missing events up to this one: they no longer exist."""
        if self.next is not None:
            self.next = max(self.next, min([sequence + 1, *self._ahead]))


class EventStream(Source[Event]):
    """The events of one batch until it ends, in order and each once: an iterator and a context manager.

    Missed events, from before it began or while the connection was lost, are replayed. For one thread at a time.
    """

    def __init__(
        self,
        broker: Broker,
        batch_id: str,
        from_sequence: int | None,
        *,
        source: str = SOURCE,
        timeout: float = TIMEOUT,
    ) -> None:
        """Join a batch.

        Args:
            broker: RabbitMQ.
            batch_id: of a batch that a service there knows.
            from_sequence: the first event to yield; None: the first one after `batch`.
            source: the sender named in commands.
            timeout: seconds to wait for a service's answer.

        Raises:
            NotFound: there is no such batch.
            Unanswered: RabbitMQ is unreachable, or no service reports the batch.
        """
        # Bound to both exchanges before anything is requested, so that nothing is missed.
        key = f"*.*.{checked_id(batch_id)}.#"
        super().__init__(broker, [(EVENTS, key), (REPLAYS, key)])
        self.id = batch_id
        self.report: dict[str, Any] = {}
        """The event `batch.reported` that `batch` was read from."""
        self._source = source
        self._order = InOrder(from_sequence)
        self._asked = OutgoingCommand("report", {"batch_id": batch_id}, source)
        self._replay: tuple[str, int] | None = None
        self._ended = False
        try:
            self._connect()
            self._wait_for_the_report(timeout)
        except BaseException:
            self.close()
            raise

    def _wait_for_the_report(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self.report:
            if time.monotonic() > deadline:
                raise self._broker.unanswered(f"the command 'report' for batch {self.id}", timeout)
            self._step(min(TICK, timeout))

    @property
    def batch(self) -> Batch:
        """The batch as it was when this stream last connected."""
        return Batch.model_validate(self.report["data"]["batch"])

    @property
    def sequence(self) -> int:
        """The number of the last event that `batch` includes."""
        return int(self.report["data"]["as_of_sequence"])

    @property
    def ended(self) -> bool:
        """Whether all events up to the batch's end were yielded."""
        return self._ended

    def next(self, timeout: float) -> Event | None:
        """The next event; None: none came within the timeout, or the batch has ended (see `ended`).

        Raises:
            NotFound: the batch no longer exists.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            while not self._closed.is_set():
                event = self._order.take()
                if event is not None:
                    if event.name in _ENDING and int(event.sequence) >= self.sequence:
                        self._end()
                    return event
                if self._exhausted():
                    self._end()
                    break
                left = deadline - time.monotonic()
                if left <= 0:
                    break
                self._step(min(left, TICK))
        return None

    def _end(self) -> None:
        self._ended = True
        self._closed.set()
        self._line.close()  # nobody else closes it after `for event in ...`

    def _exhausted(self) -> bool:
        """Whether it had ended when we joined, with no events left to yield."""
        behind = self._order.next is not None and self._order.next > self.sequence
        return behind and self._order.missing is None and self.batch_ended

    @property
    def batch_ended(self) -> bool:
        """Whether the batch had ended when this stream last connected."""
        return f"batch.{self.report['data']['status']}" in _ENDING

    def _open(self, seconds: float = math.inf) -> None:
        if self._line.open(seconds):
            self._asked = OutgoingCommand("report", {"batch_id": self.id}, self._source)
            self._replay = None
            self._line.send(self._asked)

    def _step(self, seconds: float) -> None:
        """Process one message, if one comes."""
        told = self._receive(seconds)
        if told is None:
            return
        if told.answers is not None:
            self._take_answer(told)
        else:
            try:
                self._order.add(Event.model_validate(told.document))
            except ValidationError:
                logger.warning("dropped a message that is not an event: routing key %r", told.key)
        missing = self._order.missing
        if missing is not None and self._replay is None:
            self._ask_for(missing)

    def _take_answer(self, told: Received) -> None:
        if told.answers == self._asked.id:
            if told.name == REJECTED:
                told.result()
            elif told.name == "batch.reported":
                self._join(told.document)
        elif self._replay is not None and told.answers == self._replay[0] and told.name in (ACCEPTED, REJECTED):
            self._order.pass_over(self._replay[1])  # what it did not replay was pruned
            self._replay = None
            told.result()

    def _join(self, report: dict[str, Any]) -> None:
        self.report = report
        self._order.start(self.sequence + 1)
        if self._order.next is not None and self._order.next <= self.sequence:
            self._ask_for(self.sequence)

    def _ask_for(self, sequence: int) -> None:
        """Have the missing events up to this one replayed."""
        order = OutgoingCommand("replay", {"batch_id": self.id, "from_sequence": self._order.next}, self._source)
        self._replay = order.id, sequence
        try:
            self._line.send(order)
        except LOST as error:
            self._line.give_up(error)  # the next connection begins with a report
