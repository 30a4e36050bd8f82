"""BatchClient: what an application does with batches over RabbitMQ, without a database or a service of its own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from pydantic import BaseModel

from actors.batch.requests import BatchVideoRequest, new_batch_id
from actors.batch.views import Batch, CancellationSummary
from actors.rabbitmq.client.broker import Broker, Unanswered, checked_id, is_batch_id
from actors.rabbitmq.client.rpc import ACCEPTED, LOST, REJECTED, SOURCE, OutgoingCommand, Received, RpcConnection
from actors.rabbitmq.client.stream import EventFeed, EventStream
from actors.rabbitmq.topology import EVENTS, REPLAYS

TIMEOUT = 30.0
"""Seconds to wait for an answer."""
_LOOK = 1.0
"""Seconds without an answer after which it is looked whether anybody listens at all."""


class _Stopped(Exception):
    """Its cause is what whoever was told raised."""


@dataclass(slots=True)
class _Patience:
    """How long an answer is waited for."""

    deadline: float
    queued: Callable[[str], object] | None = None
    """Told once that the command is queued and nobody listens. If it returns, the wait has no end."""

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def tell(self, batch_id: str) -> None:
        """Raises `_Stopped`: whoever was told wants no more."""
        if self.queued is not None:
            tell, self.queued = self.queued, None
            try:
                tell(batch_id)
            except Exception as error:
                raise _Stopped from error  # it may be one that a lost connection raises too
            self.deadline = float("inf")


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
        self.broker, self.source, self.timeout = Broker.named(url), source, timeout
        self._line: RpcConnection | None = None
        self._was_connected = False
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def create(
        self,
        request: BatchVideoRequest | Mapping[str, Any],
        *,
        process: bool = True,
        queued: Callable[[str], object] | None = None,
    ) -> str:
        """Create a batch, have it made, and return its id.

        Args:
            request: as of `BatchService.create_batch`.
            process: False leaves it pending.
            queued: called with the batch's id once the command is in its queue and no service listens there. If it
                returns, the answer is waited for however long it takes; without it, `Unanswered` is raised in time.
        """
        given = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, BaseModel) else request
        data = {**given, "process": process}
        if data.get("id") is None:  # chosen here, so that its answer can be listened for
            data["id"] = new_batch_id()
        try:
            return str(self._ask("create", data, data["id"], queued)["batch_id"])
        except Unanswered as error:
            if not error.sent:
                raise
            way_out = (
                f"A new batch would be paid for again: the same request with the id {data['id']} is the same batch"
            )
            raise Unanswered(f"{error}. {way_out}", sent=True, queued=error.queued) from error

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
        move_server: bool = False,
    ) -> None:
        """Try again what failed or was cancelled. `changes`: for a job's id, the fields of its request that change.

        `pay_again`, `move_server`: as of `BatchService.retry_batch`.
        """
        listed = None if job_ids is None else list(job_ids)
        consents = {"pay_again": pay_again} | ({"move_server": True} if move_server else {})
        self._ask("retry", _given(batch_id=batch_id, job_ids=listed, changes=changes, **consents))

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

    def listening(self) -> bool:
        """Whether a service takes commands there at the moment.

        Raises:
            Unanswered: RabbitMQ is away, or refuses us.
        """
        with self._lock:
            try:
                with suppress(*LOST):
                    return self._consumed("create")
                self._drop()  # it may have been lost long ago: a new one tells
                return self._consumed("create")
            except LOST as error:
                self._drop()
                raise self.broker.unreachable(error) from error

    def _consumed(self, command: str) -> bool:
        return self._connected().consumers(command) > 0

    def _ask(
        self, name: str, data: dict[str, Any], new_id: Any = None, queued: Callable[[str], object] | None = None
    ) -> dict[str, Any]:
        order = OutgoingCommand(name, data, self.source)
        batch_id = checked_id(data["batch_id"]) if new_id is None else str(new_id)
        with self._lock:
            try:
                told = self._answered(order, batch_id, _Patience(time.monotonic() + self.timeout, queued))
            except _Stopped as stopped:
                raise stopped.__cause__ or stopped from None
        return told.result()

    def _answered(self, order: OutgoingCommand, batch_id: str, patience: _Patience) -> Received:
        sent = False
        while True:
            line = None
            try:
                line = self._connected()
                told = _exchange(line, order, batch_id, patience)
                if told is not None:
                    return told
                queued = not self._consumed(order.name)
            except LOST as error:
                refused = self.broker.refusal(error) is not None
                sent = sent or not (line is None or refused)
                if refused or not self._was_connected or patience.left < 0:
                    self._drop()
                    raise self.broker.unreachable(error, sent=sent) from error
                if line is not None:
                    line.give_up(error)  # the next one comes after a pause
            except BaseException:
                self._drop()  # an answer that is still to come would wait there
                raise
            else:
                what = f"the command {order.name!r} for batch {batch_id}"
                raise self.broker.unanswered(what, self.timeout, queued=queued)

    def _connected(self) -> RpcConnection:
        if self._line is None:
            # What could not be read as a command is answered without a batch's id.
            self._line = RpcConnection(self.broker, (EVENTS, f"{REJECTED}._"))
        self._line.open()
        self._was_connected = True
        return self._line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _exchange(line: RpcConnection, order: OutgoingCommand, batch_id: str, patience: _Patience) -> Received | None:
    """Send a command and wait for what it brings: a report for `report`, else the answer. None: nothing came."""
    wanted = "batch.reported" if order.name == "report" else ACCEPTED
    bindings = []
    if is_batch_id(batch_id):
        bindings = [(EVENTS, f"command.*.{batch_id}.#"), (REPLAYS, f"batch.reported.{batch_id}.#")]
    for binding in bindings:
        line.bind(*binding)
    line.send(order)
    answer = None
    while answer is None and (left := patience.left) > 0:
        told = line.receive(min(left, _LOOK))
        if told is None and patience.queued is not None and not line.consumers(order.name):
            patience.tell(batch_id)
        if told is not None and told.answers == order.id and told.name in (wanted, REJECTED):
            answer = told
    for binding in bindings:  # where it fails, the line is of no more use
        line.unbind(*binding)
    return answer


def _given(**data: Any) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
