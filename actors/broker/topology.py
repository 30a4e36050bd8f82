"""Names at the broker, and their declaration. Whoever uses the broker declares: nothing has to be set up before."""

from __future__ import annotations

from typing import Any

import pika

from actors.errors import SettingsError

OTHER_COMMANDS = ("create", "process", "retry", "report", "replay")
"""All but `cancel`, which never waits behind them."""
COMMANDS = "sora.batch.commands"
"""The topic exchange for commands, and the queue for all of them but cancellations."""
CANCELS = "sora.batch.cancels"
DEAD = "sora.batch.commands.dead"
"""Messages that could not be obeyed, as they came, until somebody looks at them."""
MISSPELT = "sora.batch.commands.misspelt"
"""Takes what no binding of the commands' exchange takes, so that it is answered too."""
WAITING = "sora.batch.commands.waiting"
"""Commands whose batch is not known yet: from here they go back to the exchange, with their routing key."""
EVENTS = "sora.batch.events"
REPLAYS = "sora.batch.replays"

WAIT_MILLISECONDS = 250
_CONNECT_SECONDS = 5.0
DELIVERY_LIMIT = 50
"""Each return to the queue counts, also of what was only prefetched when its consumer stopped."""
QUORUM, CLASSIC = "quorum", "classic"
_KIND = {
    QUORUM: {
        "x-queue-type": QUORUM,
        "x-dead-letter-strategy": "at-least-once",
        "x-overflow": "reject-publish",  # what the strategy needs
    },
    # What it passes on while it comes up after a crash, when the other queue is not there yet, is lost.
    CLASSIC: {"x-queue-type": CLASSIC},
}
_TO_THE_DEAD = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": DEAD}
_COMMAND_QUEUE = {
    QUORUM: {**_KIND[QUORUM], **_TO_THE_DEAD, "x-delivery-limit": DELIVERY_LIMIT},
    CLASSIC: {**_KIND[CLASSIC], **_TO_THE_DEAD},
}


def declare(channel: Any, queue_type: str = QUORUM) -> None:
    """Declare everything, on a channel of either of pika's kinds of connection.

    `queue_type`: of the commands' queues, `quorum` or `classic`; the latter have no delivery limit, and one that waits
    for its batch may be lost when the node crashes.
    """
    for name in (EVENTS, REPLAYS):
        channel.exchange_declare(name, "topic", durable=True)
    channel.exchange_declare(MISSPELT, "fanout", durable=True)
    channel.exchange_declare(WAITING, "fanout", durable=True)
    channel.exchange_declare(COMMANDS, "topic", durable=True, arguments={"alternate-exchange": MISSPELT})
    channel.queue_declare(DEAD, durable=True)
    for name in (COMMANDS, CANCELS):
        channel.queue_declare(name, durable=True, arguments=_COMMAND_QUEUE[queue_type])
    back = {"x-message-ttl": WAIT_MILLISECONDS, "x-dead-letter-exchange": COMMANDS}
    channel.queue_declare(WAITING, durable=True, arguments={**_KIND[queue_type], **back})
    channel.queue_bind(CANCELS, COMMANDS, "cancel")
    for command in OTHER_COMMANDS:
        channel.queue_bind(COMMANDS, COMMANDS, command)
    channel.queue_bind(COMMANDS, MISSPELT, "")
    channel.queue_bind(WAITING, WAITING, "")


def connection_parameters(url: str) -> Any:
    """How to connect.

    Raises:
        SettingsError: it is no AMQP URL. (It may hold a password, so it is not shown.)
    """
    wrong = "AMQP_URL can't be used: expected amqp://USER:PASSWORD@HOST:PORT/VHOST, or amqps://"
    if not url.startswith(("amqp://", "amqps://")):
        raise SettingsError(wrong)
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{wrong} ({type(error).__name__})") from None
    parameters.client_properties = {"connection_name": "sora-batch"}
    # A node that is starting may take a connection and say nothing: try again soon.
    parameters.socket_timeout = parameters.stack_timeout = _CONNECT_SECONDS
    return parameters
