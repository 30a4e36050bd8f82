"""BatchClient: what an application does with batches over RabbitMQ, without a database or a service of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from actors.broker.topology import EVENTS, REPLAYS
from actors.client.answers import ACCEPTED, REJECTED, result
from actors.client.line import (
    LOST,
    SOURCE,
    Line,
    Order,
    Told,
    Unanswered,
    broker_of,
    checked_id,
    is_batch_id,
    unanswered,
    unreachable,
)
from actors.client.stream import EventFeed, EventStream
from actors.model import Batch, BatchVideoRequest, CancellationSummary, new_batch_id

TIMEOUT = 30.0
"""Seconds to wait for an answer."""
_PAUSE = 0.2


class BatchClient:
    """Publishes commands and waits for their answers. Its methods may be called from any thread, one at a time.

    A command that was cut off is sent again: it is the same one, and a service obeys it once. Each method may raise
    `Unanswered` (RabbitMQ or a service is away; the command may still be obeyed) and what rejects the command:
    `InvalidRequest`, `NotFound` or `Conflict`.

        with BatchClient() as client:
            batch_id = client.create({"videos": [{"prompt": "A sunset over the ocean"}]})
            for event in client.events(batch_id):
                print(event.name, event.data["progress"]["percentage"])
    """

    def __init__(self, url: str | None = None, *, source: str = SOURCE, timeout: float = TIMEOUT) -> None:
        """Connects with the first command.

        Args:
            url: of RabbitMQ; without it, the settings' `AMQP_URL`.
            source: says in each command who sends it, a URI: `/shop`.
            timeout: seconds to wait for an answer.

        Raises:
            SettingsError: there is no URL.
        """
        self.broker, self.source, self.timeout = broker_of(url), source, timeout
        self._line: Line | None = None
        self._was_connected = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def create(self, request: BatchVideoRequest | Mapping[str, Any], *, process: bool = True) -> str:
        """Create a batch, have it made, and return its id. `process`: False leaves it pending."""
        given = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, BaseModel) else request
        data = {**given, "process": process}
        if data.get("id") is None:  # chosen here, so that its answer can be listened for
            data["id"] = new_batch_id()
        try:
            return str(self._ask("create", data, data["id"])["batch_id"])
        except Unanswered as error:
            if not error.sent:
                raise
            way_out = f"Another one would be paid for too: with the id {data['id']} the same request is the same batch"
            raise Unanswered(f"{error}. {way_out}", sent=True) from error

    def process(self, batch_id: str, concurrency: int | None = None) -> None:
        """Have a batch made."""
        self._ask("process", _given(batch_id=batch_id, concurrency=concurrency))

    def cancel(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """Cancel a batch. Nothing new is started from then on; the summary says what may still be charged."""
        return CancellationSummary.model_validate(
            self._ask("cancel", _given(batch_id=batch_id, reason=reason))["summary"]
        )

    def retry(
        self,
        batch_id: str,
        job_ids: Sequence[str] | None = None,
        changes: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        pay_again: bool = False,
    ) -> None:
        """Try again what failed or was cancelled. `changes`: for a job's id, the fields of its request that change."""
        listed = None if job_ids is None else list(job_ids)
        self._ask("retry", _given(batch_id=batch_id, job_ids=listed, changes=changes, pay_again=pay_again))

    def report(self, batch_id: str) -> Batch:
        """A batch as it is, with as many of its jobs as 8 MiB hold."""
        return Batch.model_validate(self._ask("report", {"batch_id": batch_id})["batch"])

    def events(self, batch_id: str, from_sequence: int | None = 1) -> EventStream:
        """A batch's events to its end, in order and each once, over a connection of their own.

        `from_sequence`: the first one to give; None: the first one after the stream's `batch`.
        """
        return EventStream(self.broker, batch_id, from_sequence, source=self.source, timeout=self.timeout)

    def subscribe(self, *keys: str) -> EventFeed:
        """What is told from now on with these routing keys (`batch.completed.#`; `#` is all), as CloudEvents."""
        return EventFeed(self.broker, *(keys or ("#",)))

    def close(self) -> None:
        """Let go of the connection; the next command makes another one."""
        with self._lock:
            self._drop()

    def _ask(self, name: str, data: dict[str, Any], new_id: Any = None) -> dict[str, Any]:
        order = Order(name, data, self.source)
        batch_id = checked_id(data["batch_id"]) if new_id is None else str(new_id)
        with self._lock:
            return result(self._answered(order, batch_id))

    def _answered(self, order: Order, batch_id: str) -> Told:
        deadline, sent = time.monotonic() + self.timeout, False
        while True:
            try:
                line = self._connected()
                sent = True
                told = _exchange(line, order, batch_id, deadline)
            except LOST as error:
                self._drop()
                if not self._was_connected or time.monotonic() > deadline:
                    raise unreachable(self.broker, error, sent=sent) from error
                time.sleep(_PAUSE)  # it is away: do not run against the door
                continue
            except BaseException:
                self._drop()  # an answer that is still to come would wait there
                raise
            if told is None:
                raise unanswered(self.broker, f"the command {order.name!r} about the batch {batch_id}", self.timeout)
            return told

    def _connected(self) -> Line:
        if self._line is None:
            # What could not be read as a command is answered without a batch's id.
            self._line = Line(self.broker, (EVENTS, f"{REJECTED}._"))
            self._was_connected = True
        return self._line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _exchange(line: Line, order: Order, batch_id: str, deadline: float) -> Told | None:
    """Send a command and wait for what it brings: a report for `report`, else the answer. None: nothing came."""
    wanted = "batch.reported" if order.name == "report" else ACCEPTED
    bindings = []
    if is_batch_id(batch_id):
        bindings = [(EVENTS, f"command.*.{batch_id}.#"), (REPLAYS, f"batch.reported.{batch_id}.#")]
    for binding in bindings:
        line.bind(*binding)
    try:
        line.send(order)
        while (left := deadline - time.monotonic()) > 0:
            told = line.receive(left)
            if told is not None and told.answers == order.id and told.name in (wanted, REJECTED):
                return told
    finally:
        for binding in bindings:
            line.unbind(*binding)
    return None


def _given(**data: Any) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
