"""Names at the broker, and their declaration. Every user of the broker declares them: no setup is needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pika

from actors.errors import SettingsError

OTHER_COMMANDS = ("create", "process", "retry", "report", "replay", "delete", "update")
"""All but `cancel`, which never waits behind them."""
COMMANDS = "sora.batch.commands"
"""The topic exchange for commands, and the queue for all but cancellations."""
CANCELS = "sora.batch.cancels"
UNREADABLE = "sora.batch.commands.unreadable"
"""Messages that are no commands, unchanged: the newest 10,000, until somebody inspects them."""
DEAD = "sora.batch.commands.dead"
"""The dead letters of earlier versions. The command queues still name it in their arguments, which can't change, but no
message is sent there any more. It is no longer declared: it may be deleted once it is empty."""
MISSPELT = "sora.batch.commands.misspelt"
"""Receives what no binding of the commands' exchange matches, so that it is answered too."""
WAITING = "sora.batch.commands.waiting"
"""Commands whose batch does not exist yet: from here they return to the exchange, with their routing key."""
EVENTS = "sora.batch.events"
REPLAYS = "sora.batch.replays"

ERROR_HEADER = "x-sora-batch-error"
"""On an unreadable message: why."""
SINCE_HEADER = "x-sora-batch-since"
"""On a message that waits for its batch to be created: since when, in milliseconds since 1970."""
RETURNS_HEADER = "x-delivery-count"
OWN_HEADERS = (RETURNS_HEADER, "x-death", "x-first-death-exchange", "x-first-death-queue", "x-first-death-reason")
"""RabbitMQ's own: they are not published again."""

WAIT_MILLISECONDS = 250
_CONNECT_SECONDS = 5.0
DELIVERY_LIMIT = 50
"""Every return to the queue counts, even of messages that were only prefetched when their consumer stopped."""
UNREADABLE_MESSAGES, UNREADABLE_BYTES = 10_000, 256 * 1024 * 1024
QUORUM, CLASSIC = "quorum", "classic"
_KIND: dict[str, dict[str, Any]] = {
    QUORUM: {
        "x-queue-type": QUORUM,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # required by the strategy
    },
    # Messages that it dead-letters during recovery, before the other queue is up, are lost.
    CLASSIC: {"x-queue-type": CLASSIC},
}
_TO_THE_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
_COMMAND_QUEUE = {
    QUORUM: {**_KIND[QUORUM], **_TO_THE_DEAD, "x-delivery-limit": DELIVERY_LIMIT},
    CLASSIC: {**_KIND[CLASSIC], **_TO_THE_DEAD},
}
EXCHANGES: dict[str, tuple[str, dict[str, Any] | None]] = {
    EVENTS: ("topic", None),
    REPLAYS: ("topic", None),
    MISSPELT: ("fanout", None),
    WAITING: ("fanout", None),
    COMMANDS: ("topic", {"alternate-exchange": MISSPELT}),
}


def queues(queue_type: str) -> dict[str, dict[str, Any]]:
    """The queues and their arguments, for the type `quorum` or `classic`."""
    back = {"x-message-ttl": WAIT_MILLISECONDS, "x-dead-letter-exchange": COMMANDS}
    # Drop the oldest: endless rubbish must not keep a new message from being stored.
    limits = {"x-max-length": UNREADABLE_MESSAGES, "x-max-length-bytes": UNREADABLE_BYTES, "x-overflow": "drop-head"}
    return {
        UNREADABLE: {"x-queue-type": queue_type, **limits},
        COMMANDS: _COMMAND_QUEUE[queue_type],
        CANCELS: _COMMAND_QUEUE[queue_type],
        WAITING: {**_KIND[queue_type], **back},
    }


def declare(channel: Any, queue_type: str = QUORUM) -> None:  # crash point: declare
    """Declare everything, on a channel of either kind of pika connection.

    `queue_type`: of the queues, `quorum` or `classic`; classic queues have no delivery limit, and a command that waits
    for its batch may be lost when the node crashes.
    """
    for name, (kind, arguments) in EXCHANGES.items():
        channel.exchange_declare(name, kind, durable=True, arguments=arguments)
    for name, arguments in queues(queue_type).items():
        channel.queue_declare(name, durable=True, arguments=arguments)
    channel.queue_bind(CANCELS, COMMANDS, "cancel")
    for command in OTHER_COMMANDS:
        channel.queue_bind(COMMANDS, COMMANDS, command)
    channel.queue_bind(COMMANDS, MISSPELT, "")
    channel.queue_bind(WAITING, WAITING, "")


def expect(channel: Any, exchanges: Iterable[str] = (), queues: Iterable[str] = ()) -> None:
    """Make the broker close the channel unless these exist: this needs no permissions."""
    for name in exchanges:
        channel.exchange_declare(name, passive=True)
    for name in queues:
        channel.queue_declare(name, passive=True)


def connection_parameters(url: str) -> Any:
    """The parameters of a connection.

    Raises:
        SettingsError: it is not an AMQP URL. (It may contain a password, so it is not shown.)
    """
    wrong = "AMQP_URL can't be used: expected amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://"
    if not url.startswith(("amqp://", "amqps://")):
        raise SettingsError(wrong)
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{wrong} ({type(error).__name__})") from None
    parameters.client_properties = {"connection_name": "sora-batch"}
    # A starting node may accept a connection and stay silent: retry soon.
    parameters.socket_timeout = parameters.stack_timeout = _CONNECT_SECONDS
    return parameters
