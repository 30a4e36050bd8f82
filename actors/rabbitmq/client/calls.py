"""Calls through RabbitMQ: sends a command, waits for its answer, and says what to do where none comes."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from actors.errors import ErrorCode, NotFound, SettingsError, SoraBatchError
from actors.expectations import ID_PATTERN
from actors.rabbitmq import topology
from actors.rabbitmq.client.rpc import ACCEPTED, LOST, REJECTED, SOURCE, OutgoingCommand, Received, RpcConnection
from actors.rabbitmq.refusals import innermost, refusal
from actors.rabbitmq.topology import EVENTS, REPLAYS
from actors.settings import load_settings
from storage.secrets import Secrets
from storage.urls import masked_url

TIMEOUT = 30.0
"""Seconds to wait for an answer."""
_LOOK = 1.0
"""Seconds without an answer after which we check whether any service is listening."""


class Unanswered(SoraBatchError):
    """RabbitMQ could not be reached or refused the command, or no service answered in time.

    Attributes:
        sent: the command may still be applied.
        queued: the command is in its queue, and no service listened there: it runs when one starts.
    """

    code = ErrorCode.UNAVAILABLE

    def __init__(self, message: str, *, sent: bool = False, queued: bool = False) -> None:
        super().__init__(message)
        self.sent, self.queued = sent, queued


@dataclass(frozen=True, slots=True)
class Broker:
    """Where RabbitMQ is, and the type of our queues, if they are not declared yet."""

    url: str
    queue_type: str = topology.QUORUM

    @classmethod
    def named(cls, url: str | None) -> Self:
        """The given one, or that of the settings.

        Raises:
            SettingsError: there is none.
        """
        if url is not None:
            return cls(url)
        settings = load_settings()
        if settings.amqp_url is None:
            raise SettingsError(
                "AMQP_URL is not set: set it to the RabbitMQ that `sora-batch serve` uses, "
                "for example AMQP_URL=amqp://guest:guest@localhost:5672/"
            )
        return cls(settings.amqp_url.get_secret_value(), settings.amqp_queue_type)

    def refusal(self, error: BaseException) -> str | None:
        """What the broker refused, if it refused anything."""
        return refusal(error, topology.connection_parameters(self.url).credentials.username)

    def unreachable(self, error: BaseException, *, sent: bool = False) -> Unanswered:
        """The error when it is unreachable or refuses us."""
        mask, refused = Secrets(urls=[self.url]).mask, self.refusal(error)
        if refused is not None:
            return Unanswered(mask(refused), sent=sent)
        inner, place = innermost(error), masked_url(self.url)
        reason = mask(str(inner)) or type(inner).__name__
        return Unanswered(
            f"RabbitMQ at {place} can't be reached: {reason}; check that it is running, and AMQP_URL", sent=sent
        )

    def unanswered(self, what: str, seconds: float, *, queued: bool = False) -> Unanswered:
        """The error when no service answers."""
        place = masked_url(self.url)
        text = (
            f"no answer within {seconds:g} s to {what}: is `sora-batch serve` running with the RabbitMQ at {place}? "
            "The command waits there until a service takes it"
        )
        if queued:
            text = (
                f"no service is listening at the RabbitMQ at {place}: {what} is queued, and runs when "
                "`sora-batch serve` starts there"
            )
        return Unanswered(text, sent=True, queued=queued)


def is_batch_id(batch_id: str) -> bool:
    """Whether it can be a batch's id. Anything else might be a pattern in a binding."""
    return re.fullmatch(ID_PATTERN, batch_id) is not None


def checked_id(batch_id: str) -> str:
    """The batch's id.

    Raises:
        NotFound: it can't be one.
    """
    if not is_batch_id(batch_id):
        raise NotFound(f"there is no batch {batch_id!r}: an id is 1 to 64 letters, digits, '-' or '_'")
    return batch_id


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


class CommandCaller:
    """Calls services over one connection; from any thread, one call at a time."""

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

    def close(self) -> None:
        """Close the connection; the next command opens a new one."""
        with self._lock:
            self._drop()

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
            self._line = RpcConnection(self.broker.url, self.broker.queue_type, (EVENTS, f"{REJECTED}._"))
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
