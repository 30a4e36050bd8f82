"""`doctor`'s checks of RabbitMQ: what is declared, how, and whether anybody consumes commands."""

from __future__ import annotations

from typing import Any

from pika.exceptions import ChannelClosedByBroker

from actors.rabbitmq import topology
from actors.rabbitmq.refusals import ACCESS_REFUSED, NOT_FOUND
from actors.rabbitmq.topology import CANCELS, COMMANDS, DEAD, UNREADABLE

_TO_BE_MADE = (
    "reachable; exchanges and queues are not declared yet: the first process that needs them declares them, or run "
    "sora-batch doctor --declare"
)

_MAY_GO = f"{DEAD} is empty and no longer used; delete it once no earlier version is running"


def look(connection: Any, queue_type: str, *, declare: bool) -> tuple[bool, str]:
    """Whether everything is declared as it should be, and a sentence about it. Changes nothing unless `declare`.

    Raises:
        ChannelClosedByBroker: something is declared differently, or is missing and this user may not declare it.
    """
    missing = _missing(connection, queue_type)
    if missing and declare:
        topology.declare(connection.channel(), queue_type)
        missing = []
    elif declare:
        refused = _refused(connection, lambda channel: topology.declare(channel, queue_type))  # bindings may be missing
        if refused is not None and refused.reply_code != ACCESS_REFUSED:
            raise refused
    if COMMANDS in missing or CANCELS in missing:
        return True, _TO_BE_MADE
    return _traffic(connection, missing)


def _missing(connection: Any, queue_type: str) -> list[str]:
    """What is missing. What exists is compared by redeclaring it, which changes nothing."""
    missing = []
    for name, (kind, arguments) in topology.EXCHANGES.items():
        given = {"exchange_type": kind, "durable": True, "arguments": arguments}
        if not _is_there(connection, "exchange_declare", name, given, {"alternate-exchange": 0}):
            missing.append(name)
    for name, arguments in topology.queues(queue_type).items():
        given = {"durable": True, "arguments": arguments}
        if not _is_there(connection, "queue_declare", name, given, {"x-max-length": -1}):
            missing.append(name)
    return missing


def _is_there(connection: Any, method: str, name: str, given: dict[str, Any], wrong: dict[str, Any]) -> bool:
    """Whether it exists, declared as it should be.

    `wrong`: arguments that a broker refuses, after it has checked whether this user may declare it.
    """

    def refused(**how: Any) -> ChannelClosedByBroker | None:
        return _refused(connection, lambda channel: getattr(channel, method)(name, **how))

    absent = refused(passive=True)
    if absent is not None and absent.reply_code != NOT_FOUND:
        raise absent
    if absent is None:
        differs = refused(**given)
        if differs is not None and differs.reply_code != ACCESS_REFUSED:
            raise differs
    else:
        not_made = refused(**given | {"arguments": wrong})
        if not_made is not None and not_made.reply_code == ACCESS_REFUSED:
            raise not_made
    return absent is None


def _refused(connection: Any, act: Any) -> ChannelClosedByBroker | None:
    channel = connection.channel()
    try:
        act(channel)
    except ChannelClosedByBroker as error:
        return error
    channel.close()
    return None


def _traffic(connection: Any, missing: list[str]) -> tuple[bool, str]:
    """Who consumes commands, and how many unreadable ones there are."""
    channel = connection.channel()
    commands, cancels = (channel.queue_declare(name, passive=True).method for name in (COMMANDS, CANCELS))
    said = [f"reachable; {COMMANDS}: consumers: {commands.consumer_count}, messages: {commands.message_count}"]
    idle = [each.queue for each in (commands, cancels) if not each.consumer_count]
    if idle:
        said.append(f"no consumer on {' and '.join(idle)}: commands wait until `sora-batch serve` runs")
    if missing:
        said.append(f"not declared yet: {', '.join(missing)}; declare with: sora-batch doctor --declare")
    else:
        aside = channel.queue_declare(UNREADABLE, passive=True).method.message_count
        said.append(f"messages in {UNREADABLE}: {aside}")
    try:
        left = channel.queue_declare(DEAD, passive=True).method.message_count
    except ChannelClosedByBroker as error:
        if error.reply_code != NOT_FOUND:
            raise
    else:
        said.append(f"{DEAD} holds {left} messages from an earlier version; inspect them" if left else _MAY_GO)
    return not idle, "; ".join(said)
