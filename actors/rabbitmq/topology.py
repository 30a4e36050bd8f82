"""Names at the broker, and their declaration. Whoever uses the broker declares: nothing has to be set up before."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pika

from actors.errors import SettingsError

OTHER_COMMANDS = ("create", "process", "retry", "report", "replay")
"""All but `cancel`, which never waits behind them."""
COMMANDS = "sora.batch.commands"
"""The topic exchange for commands, and the queue for all of them but cancellations."""
CANCELS = "sora.batch.cancels"
UNREADABLE = "sora.batch.commands.unreadable"
"""Messages that could not be read as a command, as they came: the newest 10,000, until somebody looks at them."""
DEAD = "sora.batch.commands.dead"
"""What earlier versions put aside. The command queues name it in their arguments, which can't change; what they would
send there is put aside before. It is declared no more: who has it may delete it once it is empty."""
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
UNREADABLE_MESSAGES, UNREADABLE_BYTES = 10_000, 256 * 1024 * 1024
QUORUM, CLASSIC = "quorum", "classic"
_KIND: dict[str, dict[str, Any]] = {
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
EXCHANGES: dict[str, tuple[str, dict[str, Any] | None]] = {
    EVENTS: ("topic", None),
    REPLAYS: ("topic", None),
    MISSPELT: ("fanout", None),
    WAITING: ("fanout", None),
    COMMANDS: ("topic", {"alternate-exchange": MISSPELT}),
}


def queues(queue_type: str) -> dict[str, dict[str, Any]]:
    """The queues and their arguments, where they are `quorum` or `classic`."""
    back = {"x-message-ttl": WAIT_MILLISECONDS, "x-dead-letter-exchange": COMMANDS}
    # The oldest go first: whoever sends rubbish without end keeps nobody's command from being put aside.
    limits = {"x-max-length": UNREADABLE_MESSAGES, "x-max-length-bytes": UNREADABLE_BYTES, "x-overflow": "drop-head"}
    return {
        UNREADABLE: {"x-queue-type": queue_type, **limits},
        COMMANDS: _COMMAND_QUEUE[queue_type],
        CANCELS: _COMMAND_QUEUE[queue_type],
        WAITING: {**_KIND[queue_type], **back},
    }


def declare(channel: Any, queue_type: str = QUORUM) -> None:
    """Declare everything, on a channel of either of pika's kinds of connection.

    `queue_type`: of the queues, `quorum` or `classic`; the latter have no delivery limit, and one that waits for its
    batch may be lost when the node crashes.
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
    """Have the broker close the channel unless these are there: anybody may ask that, whatever his permissions."""
    for name in exchanges:
        channel.exchange_declare(name, passive=True)
    for name in queues:
        channel.queue_declare(name, passive=True)


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
