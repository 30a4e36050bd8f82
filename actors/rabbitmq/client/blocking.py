"""BatchClient: batches over RabbitMQ, for applications without a database or a service of their own."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from actors.batch.job_views import Job
from actors.batch.requests import BatchVideoRequest, new_batch_id
from actors.batch.views import Batch, CancellationSummary
from actors.rabbitmq.client.broker import Broker, Unanswered, checked_id, is_batch_id
from actors.rabbitmq.client.rpc import ACCEPTED, LOST, REJECTED, SOURCE, OutgoingCommand, Received, RpcConnection
from actors.rabbitmq.client.stream import EventFeed, EventStream
from actors.rabbitmq.topology import EVENTS, REPLAYS

if TYPE_CHECKING:
    from actors.fetching.fetch import FetchReport

TIMEOUT = 30.0
"""Seconds to wait for an answer."""
_LOOK = 1.0
"""Seconds without an answer after which we check whether any service is listening."""


class _Stopped(Exception):
    """Its cause is the exception that the `queued` callback raised."""


@dataclass(slots=True)
class _Patience:
    """How long to wait for an answer."""

    deadline: float
    queued: Callable[[str], object] | None = None
    """Called once when the command is queued and nobody listens. If it returns, the wait has no limit."""

    @property
    def left(self) -> float:
        return self.deadline - time.monotonic()

    def tell(self, batch_id: str) -> None:
        """Call `queued`; raises `_Stopped` if that raises."""
        if self.queued is not None:
            tell, self.queued = self.queued, None
            try:
                tell(batch_id)
            except Exception as error:
                raise _Stopped from error  # it may be one that a lost connection raises too
            self.deadline = float("inf")


class BatchClient:
    """Publishes commands and waits for their answers. Its methods may be called from any thread, one at a time.

    An interrupted command is sent again: it is the same one, and a service applies it once. Each method may raise
    `Unanswered` (RabbitMQ or a service is unreachable; the command may still be applied) and why it was rejected:
    `InvalidRequest`, `NotFound` or `Conflict`.

        with BatchClient() as client:
            batch_id = client.create({"videos": [{"prompt": "A sunset over the ocean"}]})
            for event in client.events(batch_id):
                print(event.name, event.data["progress"]["percentage"])
    """

    def __init__(self, url: str | None = None, *, source: str = SOURCE, timeout: float = TIMEOUT) -> None:
        """Connects with the first command.

        Args:
            url: of RabbitMQ; by default the settings' `AMQP_URL`.
            source: the sender named in each command, a URI such as `/shop`.
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
        """Create a batch, queue it, and return its id.

        Args:
            request: as for `BatchService.create_batch`.
            process: False leaves it pending.
            queued: called with the batch's id once the command is in its queue and no service listens there. If it
                returns, the wait for the answer has no limit; without it, `Unanswered` is raised at the timeout.
        """
        given = request.model_dump(mode="json", exclude_unset=True) if isinstance(request, BaseModel) else request
        data = {**given, "process": process}
        if data.get("id") is None:  # chosen here, so that we can listen for its answer
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
        """Queue a batch to be made."""
        self._ask("process", _given(batch_id=batch_id, concurrency=concurrency))

    def cancel(self, batch_id: str, reason: str | None = None) -> CancellationSummary:
        """Cancel a batch. Nothing new is started after that; the summary says what may still be charged."""
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
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        missing: bool = False,
    ) -> None:
        """Retry what failed or was cancelled. `changes`: by job id, the fields of its request that change.

        `pay_again`, `move_server`, `budget`: as for `BatchService.retry_batch`. A completed job whose file is missing
        in the service's store is downloaded again if it is named, or with `missing`, which alone retries nothing else.
        The service does so after its answer; its log says what could not be had.
        """
        listed = None if job_ids is None else list(job_ids)
        said = {name: True for name, value in (("move_server", move_server), ("missing", missing)) if value}
        consents = {"pay_again": pay_again} | said
        self._ask("retry", _given(batch_id=batch_id, job_ids=listed, changes=changes, budget=budget, **consents))

    def update(
        self,
        batch_id: str,
        metadata: Mapping[str, Any] | None = None,
        budget: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
    ) -> None:
        """Replace a batch's metadata, its budget, or both, in whatever state it is. None: it stays as it is.

        `budget`: as of a request, one entry a unit; an empty list: the batch has none.
        """
        self._ask("update", _given(batch_id=batch_id, metadata=metadata, budget=budget))

    def delete(self, batch_id: str, *, keep_files: bool = False) -> None:
        """Forget an ended batch, and delete its files unless `keep_files`. Returns when all of it is gone."""
        self._ask("delete", {"batch_id": batch_id, "keep_files": keep_files})

    def report(self, batch_id: str) -> Batch:
        """A batch as it is, with as many jobs as fit into 8 MiB."""
        return Batch.model_validate(self._ask("report", {"batch_id": batch_id})["batch"])

    def fetch(self, batch_id: str, folder: str | Path, name_of: Callable[[Job], str] | None = None) -> FetchReport:
        """Get the finished files of a batch into a folder: from a store that is reachable here, or over HTTP.

        Over HTTP they come from `video.url`, or from the service that WEB_PUBLIC_URL names; WEB_TOKEN goes to it alone.
        The arguments and the report are those of `BatchService.fetch`.
        """
        from actors.fetching.fetch import Fetcher
        from actors.fetching.places import stored_name
        from actors.settings import load_settings
        from storage.stores import Stores

        settings, batch = load_settings(), self.report(batch_id)
        fetcher = Fetcher(Path(folder), settings, Stores(settings.video_dir))
        return fetcher.fetch(batch, name_of=name_of or stored_name)

    def events(self, batch_id: str, from_sequence: int | None = 1) -> EventStream:
        """A batch's events until it ends, in order and each once, over a connection of their own.

        `from_sequence`: the first event; None: the first one after the stream's `batch`.
        """
        return EventStream(self.broker, batch_id, from_sequence, source=self.source, timeout=self.timeout)

    def subscribe(self, *keys: str) -> EventFeed:
        """Events from now on with these routing keys (`batch.completed.#`; `#` is all), as CloudEvents."""
        return EventFeed(self.broker, *(keys or ("#",)))

    def close(self) -> None:
        """Close the connection; the next command opens a new one."""
        with self._lock:
            self._drop()

    def listening(self) -> bool:
        """Whether a service is listening there now.

        Raises:
            Unanswered: RabbitMQ is unreachable, or refuses us.
        """
        with self._lock:
            try:
                with suppress(*LOST):
                    return self._consumed("create")
                self._drop()  # it may have been lost long ago: a new one shows
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
                    line.give_up(error)  # the next connection follows after a pause
            except BaseException:
                self._drop()  # a late answer would stay in its queue
                raise
            else:
                what = f"the command {order.name!r} for batch {batch_id}"
                raise self.broker.unanswered(what, self.timeout, queued=queued)

    def _connected(self) -> RpcConnection:
        if self._line is None:
            # Unreadable commands are answered without a batch's id.
            self._line = RpcConnection(self.broker, (EVENTS, f"{REJECTED}._"))
        self._line.open()
        self._was_connected = True
        return self._line

    def _drop(self) -> None:
        if self._line is not None:
            self._line.close()
            self._line = None


def _exchange(line: RpcConnection, order: OutgoingCommand, batch_id: str, patience: _Patience) -> Received | None:
    """Send a command and wait for its result: a report for `report`, else the answer. None: nothing came."""
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
    for binding in bindings:  # if this fails, the connection is unusable
        line.unbind(*binding)
    return answer


def _given(**data: Any) -> dict[str, Any]:
    return {name: value for name, value in data.items() if value is not None}
