"""CommandHandler: applies one command after another through BatchService, and answers each.

Knows nothing about queues: it decides the fate of a message by returning (answered) or by one of three exceptions.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar, assert_never

import pika

from actors.batch.command_data import (
    CancelData,
    CommandName,
    CreateData,
    DeleteData,
    ProcessData,
    ReplayData,
    ReportData,
    RetryData,
    UpdateData,
)
from actors.batch.commands import CommandKey
from actors.batch.received import command_of
from actors.errors import (
    Conflict,
    ErrorCode,
    FieldError,
    InvalidRequest,
    NotFound,
    OtherBody,
    ServiceClosed,
    StorageError,
    UnknownBatch,
)
from actors.rabbitmq import answers
from actors.rabbitmq.answers import Publication, publication
from actors.rabbitmq.codec import CommandRefused, Message, ReceivedCommand, parse, within_data
from actors.rabbitmq.outgoing import properties_of
from actors.rabbitmq.refusals import ConnectionGone, Nacked
from actors.rabbitmq.topology import EVENTS, REPLAYS
from actors.service import BatchService
from storage.failures import DatabaseError, is_outage
from storage.timing import backoff

T = TypeVar("T")
Publish = Callable[[str, str, bytes, pika.BasicProperties], Future[Any]]
"""`(exchange, routing key, body, properties)`; done when the broker has confirmed it, failed if it refused it."""
logger = logging.getLogger(__name__)

CREATION_PATIENCE = 5.0
"""Seconds for which a command waits for its batch to be created."""
OUTAGE_PATIENCE = 900.0
"""Seconds for which a message is held while the database is down: below the broker's consumer_timeout (30 min)."""
CONFIRM_PATIENCE = 60.0
_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_PAGE = 200
_NAMES = frozenset(name.value for name in CommandName)
_MAY_PRECEDE = {CommandName.PROCESS, CommandName.CANCEL, CommandName.RETRY, CommandName.UPDATE}


class Unreadable(Exception):
    """The message is not a command. It is kept for inspection, answered or not."""


class Requeue(Exception):
    """The command was not answered; the message must be redelivered."""


class Postpone(Exception):
    """The batch is unknown, but its creation may be in flight: the message must be redelivered in a moment.

    Attributes:
        since: when the batch was first looked up, in seconds since 1970.
    """

    def __init__(self, since: float) -> None:
        super().__init__("its batch does not exist yet")
        self.since = since


class CommandHandler:
    """What the consuming threads call.

    Args:
        service: applies the commands.
        publish: sends a message.
        stopping: set when nothing may wait any longer.
    """

    def __init__(self, service: BatchService, publish: Publish, stopping: threading.Event) -> None:
        self._service, self._publish, self._stopping = service, publish, stopping

    def handle(self, message: Message, since: float | None = None) -> None:
        """Apply a command and answer it.

        Args:
            message: as it arrived.
            since: when its batch was first looked up, if it was postponed.

        Raises:
            Unreadable, Postpone, Requeue: see there.
        """
        settings = self._service.settings
        try:
            command = parse(message, max_bytes=settings.command_max_bytes, max_size=settings.batch_max_size)
        except CommandRefused as refused:
            self._refuse_unread(refused)
            self._count(refused.name, "rejected" if refused.well_formed else "unreadable")
            if refused.well_formed:
                return
            raise Unreadable(str(refused)) from None
        answer = publication(self._obey(command, since))
        if answer.refused is None:
            self._show(command)
        self._tell(EVENTS, answer)
        self._count(command.name, "accepted" if answer.refused is None else "rejected")
        about = {"action": "command", "command": command.name.value, "batch_id": command.batch_id}
        logger.info("answered a command", extra={**about, "refused": answer.refused, **(command.trace or {})})

    def _count(self, name: str | None, answer: str) -> None:
        self._service.observer.command(name if name in _NAMES else "unknown", answer)

    def _refuse_unread(self, refused: CommandRefused) -> None:
        logger.warning("refused a message", extra={"action": "command_refused", "error": str(refused)})
        if refused.id is not None:  # without it the sender could not recognise the answer
            self._tell(EVENTS, publication(answers.rejected(refused, refused.errors, self._service.now())))

    def _obey(self, command: ReceivedCommand, since: float | None) -> str:
        """The answer, once it is recorded with the effect of the command."""
        key = CommandKey(command.source, command.id, command.digest)
        at = self._service.now()
        try:
            obeyed = command_of(command.data, self._service.settings, at, batch_id=command.batch_id)
            return self._wait_out(
                lambda: self._service.obey(obeyed, key, lambda done: answers.accepted(command, done, at), command.trace)
            )
        except UnknownBatch:
            first = at if since is None or since > at else since
            if command.name in _MAY_PRECEDE and at - first < CREATION_PATIENCE:
                raise Postpone(first) from None
            # Without the database: the sender must not see our paths.
            text = f"there is no batch {command.batch_id!r}"
            errors: Sequence[FieldError] = [_about_the_batch(command, NotFound(text))]
        except OtherBody as error:
            return answers.rejected(command, error.errors, at)
        except InvalidRequest as error:
            errors = within_data(error)
        except (NotFound, Conflict) as error:
            errors = [_about_the_batch(command, error)]
        except Requeue:
            raise
        except Exception:
            logger.exception("a command failed", extra={"action": "command_failed", "command": command.name.value})
            message = "the service failed to process this command; see its log"
            return answers.rejected(command, [FieldError("", message, "", ErrorCode.INTERNAL.value)], at)
        rejection = answers.rejected(command, errors, at)
        try:
            return self._wait_out(lambda: self._service.refuse(key, rejection))
        except OtherBody as error:
            return answers.rejected(command, error.errors, at)

    def _wait_out(self, act: Callable[[], T]) -> T:
        """Call `act`, and retry while the database is down.

        Raises:
            Requeue: it is down for too long, we are stopping, or the service is closed.
        """
        failures, deadline = 0, time.monotonic() + OUTAGE_PATIENCE
        while True:
            try:
                return act()
            except ServiceClosed as error:
                raise Requeue(str(error)) from error
            except StorageError as error:
                if not _passes(error):
                    raise
                if self._stopping.is_set() or time.monotonic() > deadline:
                    raise Requeue(str(error)) from error
            self._stopping.wait(backoff(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
            failures += 1

    def _show(self, command: ReceivedCommand) -> None:
        """Publish what was requested. A redelivered command publishes it again: it may never have arrived."""
        match command.data:
            case ReportData(batch_id=batch_id):
                batch, sequence = self._wait_out(lambda: self._service.snapshot(batch_id))
                now = self._service.now()
                report = answers.reported(batch, sequence, correlation=command.id, source=command.source, at=now)
                self._tell(REPLAYS, publication(report))
            case ReplayData(batch_id=batch_id, from_sequence=sequence):
                publish = partial(self._publish, REPLAYS)
                while page := self._wait_out(partial(self._service.recorded, batch_id, sequence, _PAGE)):
                    sequence = page[-1].sequence + 1
                    self._confirmed(
                        [publish(each.key, each.body.encode(), properties_of(each, command.id)) for each in page]
                    )
            case CreateData() | ProcessData() | CancelData() | RetryData() | DeleteData() | UpdateData():
                pass
            case _ as unreachable:
                assert_never(unreachable)

    def _tell(self, exchange: str, answer: Publication) -> None:
        self._confirmed([self._publish(exchange, answer.key, answer.body, answer.properties)])

    def _confirmed(self, published: list[Future[Any]]) -> None:
        """Wait until the broker has confirmed it.

        Raises:
            Requeue: it did not confirm.
        """
        for future in published:
            try:
                future.result(CONFIRM_PATIENCE)
            except TimeoutError:
                raise Requeue("RabbitMQ did not confirm the answer") from None
            except ConnectionGone as error:
                raise Requeue(str(error)) from error
            except Nacked as error:
                # A subscriber's full queue refused it; all others have it and would get it twice.
                logger.warning(
                    "a full queue refused an answer", extra={"action": "answer_refused", "error": str(error)}
                )


def _about_the_batch(command: ReceivedCommand, error: NotFound | Conflict) -> FieldError:
    field = "/data/id" if command.name is CommandName.CREATE else "/data/batch_id"
    expected = "an existing batch or job" if isinstance(error, NotFound) else "a command that its state allows"
    return FieldError(field, error.message, expected, error.code.value)


def _passes(error: StorageError) -> bool:
    """Whether the database is only down; otherwise no retry can succeed."""
    cause = error.__cause__
    return cause is None or isinstance(cause, DatabaseError) or is_outage(cause)
